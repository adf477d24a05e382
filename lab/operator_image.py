"""The operator's own image: the repository's Dockerfile, built by buildah and put into the lab's containerd.

No registry is asked: the Dockerfile's base image is stood in for by a minimal Debian of that name with Python in it, and pip
asks whatever this machine is configured to ask. The tar's name in the cache holds the hash of everything that goes in, so an
unchanged operator is built and imported once. May touch: the cache, the network through pip, and the lab's containerd.
"""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from lab import components, host, images, paths
from lab.errors import BuildError
from lab.lab import Lab, run
from lab.progress import activity

REPOSITORY = "perfpolicy"
ROOT = paths.SOURCE.parent
CONTEXT = ("Dockerfile", ".dockerignore", "LICENSE", "README.md", "operator", "pyproject.toml", "requirements", "templates")
"""What the build reads; .dockerignore lets nothing else in."""
_BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_PIP_OPTIONS = ("default-timeout", "extra-index-url", "index-url", "proxy", "timeout", "trusted-host")


def ensure(lab: Lab) -> str:
    """Build the image of this checkout unless the cache has it, and import it; returns its name as a chart writes it."""
    images.import_image(lab, build())
    return f"{REPOSITORY}:{version()}"


def version() -> str:
    """The version of this checkout."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def build() -> Path:
    """The image's tar, in OCI layout; raises BuildError with the builder's last lines."""
    folder = paths.CACHE / "images"
    target = folder / f"{REPOSITORY}-{version()}-{_key()}.tar"
    with components.file_lock(paths.CACHE / "locks" / REPOSITORY):
        if not target.exists():
            host.need({"buildah": "buildah", "debootstrap": "debootstrap"})
            _build(target)
            for former in set(folder.glob(f"{REPOSITORY}-*.tar")) - {target}:
                former.unlink()
    return target


def base_name() -> str:
    """The name of the base image in the Dockerfile."""
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise BuildError("the Dockerfile has no `ARG PYTHON_IMAGE=` line")
    return found[1]


def _key() -> str:
    digest = hashlib.sha256(repr((_BASE_PACKAGES, images.DEBIAN_SUITE)).encode())
    for path in sorted(_inputs()):
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _inputs() -> Iterator[Path]:
    """Files and symbolic links of the build's context."""
    for path in (ROOT / name for name in CONTEXT):
        for found in path.rglob("*") if path.is_dir() else (path,):
            if "__pycache__" not in found.parts and (found.is_symlink() or found.is_file()):
                yield found


def _build(target: Path) -> None:
    storage = paths.CACHE / "buildah"
    with activity(f"build image {REPOSITORY}") as shown, tempfile.TemporaryDirectory(prefix="perfpolicy-image-") as scratch:
        # Layers stay in the cache: after an edit of the operator only its own are made again.
        buildah = ["buildah", f"--root={storage}", f"--runroot={scratch}/run"]
        shown.update("base")
        _base(buildah)
        shown.update("layers")
        log = paths.CACHE / "logs" / "build-image.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        secrets = [f"--secret=id={path.name},src={path}" for path in _pip_settings(Path(scratch))]
        options = ["--isolation=chroot", "--pull=false", "--layers", "--format=oci", f"--build-arg=REVISION={_revision()}", *secrets]
        with log.open("w") as out:
            command = [*buildah, "bud", *options, f"--tag=localhost/{REPOSITORY}", str(ROOT)]
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise BuildError(f"the image did not build, see {log}: {log.read_text()[-2000:]}")
        shown.update("export")
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        # The name the node's runtime makes of the short one that stands in the chart.
        name = f"docker.io/library/{REPOSITORY}:{version()}"
        run([*buildah, "push", "--compression-format=zstd", f"localhost/{REPOSITORY}", f"oci-archive:{partial}:{name}"])
        partial.rename(target)


def _base(buildah: list[str]) -> None:
    """Put the stand-in for the Dockerfile's base into buildah's storage, under that name, unless it is there."""
    rootfs = images.debian_rootfs(_BASE_PACKAGES)
    name = f"localhost/{base_name()}"
    marker = f"{name}-{rootfs.stem}"
    if subprocess.run([*buildah, "inspect", "--type=image", marker], capture_output=True, check=False).returncode:
        container = run([*buildah, "from", "scratch"]).strip()
        run([*buildah, "add", "--quiet", container, str(rootfs), "/"])
        run([*buildah, "commit", "--quiet", "--rm", container, marker])
    run([*buildah, "tag", marker, name])


def _pip_settings(folder: Path) -> list[Path]:
    """This machine's pip configuration and certificates, as the files a build takes as secrets."""
    # Variables come last, because they win.
    configured = sorted(run([sys.executable, "-m", "pip", "config", "list"]).splitlines(), key=lambda line: line.startswith(":env:"))
    found = {key.rpartition(".")[2]: ast.literal_eval(value) for key, _, value in (line.partition("=") for line in configured)}
    lines = [f"{key} = {' '.join(str(found[key]).split())}" for key in _PIP_OPTIONS if key in found]
    settings, certificates = folder / "pip.conf", folder / "pip.crt"
    settings.write_text("\n".join(["[global]", "cert = /etc/pip.crt", *lines, ""]))
    authorities = Path(found.get("cert") or ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    certificates.write_bytes(authorities.read_bytes())
    for secret in (settings, certificates):
        secret.chmod(0o600)
    return [settings, certificates]


def _revision() -> str:
    """The checkout's commit; unknown without git, or in sources that are no checkout."""
    if shutil.which("git") is None:
        return "unknown"
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
