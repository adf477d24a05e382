"""Makes container images without a registry or an image builder: an OCI image layout, written as one tar in Python.

The tar's name in the cache holds the hash of everything put into it, so an unchanged image is neither written nor
imported again. May touch: the cache, and the lab's containerd.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lab import components, paths
from lab.errors import MissingPrerequisiteError
from lab.lab import Lab, run
from lab.progress import activity

# What to put at a path inside an image: a file's bytes, a file, or a folder (copied with everything below it).
Source = bytes | Path

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
DEBIAN_SUITE = "bookworm"


def oci_image(
    name: str,
    tag: str,
    files: Mapping[str, Source],
    *,
    entrypoint: Sequence[str],
    cmd: Sequence[str] = (),
    user: str = "0:0",
    env: Mapping[str, str] | None = None,
    base_rootfs: Path | None = None,
) -> Path:
    """Write image `name`:`tag` (e.g. "localhost/pilot", "lab") and return its tar.

    `files` maps absolute paths in the image to their content; a file is executable when its source is, or when its bytes
    start as an ELF file or a script. `base_rootfs` is a plain tar that becomes the layer below (see `debian_rootfs`).
    """
    reference = f"{name}:{tag}"
    with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
        layer = Path(scratch) / "layer.tar"
        _write_layer(layer, files)
        layers = [*([base_rootfs] if base_rootfs else []), layer]
        digests = [file_digest(path) for path in layers]
        environment = {"PATH": _PATH, **(env or {})}
        config = _config(
            digests, {"User": user, "Env": [f"{k}={v}" for k, v in environment.items()], "Entrypoint": [*entrypoint], "Cmd": [*cmd]}
        )
        manifest = _manifest(config, [(digest, path.stat().st_size) for path, digest in zip(layers, digests, strict=True)])
        target = _folder() / f"{reference.replace('/', '_').replace(':', '_')}-{hashlib.sha256(manifest).hexdigest()[:16]}.tar"
        if not target.exists():
            blobs: list[Source] = [config, manifest, *layers]
            _write_archive(target, reference, manifest, blobs)
        return target


def _config(layers: Sequence[str], settings: Mapping[str, Any]) -> bytes:
    diff_ids = [f"sha256:{digest}" for digest in layers]
    return _json({"architecture": _ARCHITECTURE, "os": "linux", "config": settings, "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def _manifest(config: bytes, layers: Sequence[tuple[str, int]]) -> bytes:
    """The manifest of an image whose layers have these digests and sizes in bytes."""
    media_type = "application/vnd.oci.image.layer.v1.tar"
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [{"mediaType": media_type, "digest": f"sha256:{digest}", "size": size} for digest, size in layers],
        }
    )


def import_image(lab: Lab, tar: Path) -> str:
    """Put an image tar into the lab's containerd unless it has that very image; returns its name, for pods with
    imagePullPolicy IfNotPresent or Never."""
    reference, digest = archive_reference(tar)
    for line in ctr(lab, "images", "list").splitlines():
        words = line.split()
        if words[:1] == [reference] and digest in words:
            return reference
    with activity(f"import {reference}"):
        ctr(lab, "images", "import", str(tar))
    return reference


def ctr(lab: Lab, *arguments: str) -> str:
    """Run containerd's client in the namespace Kubernetes uses; returns its stdout."""
    return run(["ctr", "--address", lab.containerd_socket, "--namespace", "k8s.io", *arguments])


def archive_reference(tar: Path) -> tuple[str, str]:
    """Name and manifest digest ("sha256:…") of the one image in an OCI layout tar."""
    with tarfile.open(tar) as archive:
        member = archive.extractfile("index.json")
        if member is None:
            raise ValueError(f"{tar} is not an OCI layout: it has no index.json")
        entry = json.load(member)["manifests"][0]
    names = entry["annotations"]
    # Ours carry both; buildah writes the whole name into the standard one.
    return names.get("io.containerd.image.name") or names["org.opencontainers.image.ref.name"], entry["digest"]


def archive_config(tar: Path) -> dict[str, Any]:
    """What the one image in an OCI layout tar says of itself: `User`, `Labels`, `Entrypoint` and so on."""
    with tarfile.open(tar) as archive:

        def read(digest: str) -> Any:
            member = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            if member is None:
                raise ValueError(f"{tar} has no {digest}")
            return json.load(member)

        manifest = read(archive_reference(tar)[1])
        return dict(read(manifest["config"]["digest"])["config"])


def debian_rootfs(packages: Sequence[str]) -> Path:
    """A tar of a minimal Debian with `packages`, made by debootstrap once (about a minute) and cached. Needs root."""
    wanted = sorted(set(packages))
    key = hashlib.sha256(json.dumps([DEBIAN_SUITE, wanted, _DROPPED]).encode()).hexdigest()[:16]
    target = _folder() / f"rootfs-{DEBIAN_SUITE}-{key}.tar"
    with components.file_lock(paths.CACHE / "locks" / f"rootfs-{key}"):
        if not target.exists():
            _debootstrap(wanted, target)
    return target


def _debootstrap(packages: Sequence[str], target: Path) -> None:
    if not shutil.which("debootstrap"):
        raise MissingPrerequisiteError("debootstrap is not installed: apt-get install debootstrap")
    partial = target.with_name(f".{target.name}.partial")
    with activity(f"debootstrap {DEBIAN_SUITE} with {', '.join(packages)}"), tempfile.TemporaryDirectory(dir=_folder()) as scratch:
        root = Path(scratch) / "root"
        include = [f"--include={','.join(packages)}"] if packages else []
        run(["debootstrap", "--variant=minbase", *include, DEBIAN_SUITE, root])
        for dropped in _DROPPED:
            shutil.rmtree(root / dropped, ignore_errors=True)
        with tarfile.open(partial, "w") as archive:
            for entry in sorted(root.iterdir()):
                archive.add(entry, arcname=entry.name, filter=_without_device)
    partial.rename(target)


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of no use inside a container; two thirds of what apt leaves behind.
_DROPPED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")


def _without_device(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The run time makes its own /dev; device nodes need privileges to unpack."""
    return None if member.ischr() or member.isblk() else member


def _folder() -> Path:
    folder = paths.CACHE / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _write_layer(target: Path, files: Mapping[str, Source]) -> None:
    """Write `files` as a tar with all times 0 and all owners root, so that equal content gives an equal digest."""
    made: set[str] = set()
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path, source in sorted(_expanded(files)):
            for parent in reversed(Path(path).parents):
                _add_folder(archive, made, str(parent).strip("/"))
            _add(archive, made, path.strip("/"), source)


def _expanded(files: Mapping[str, Source]) -> Iterator[tuple[str, Source]]:
    for path, source in files.items():
        if isinstance(source, Path) and source.is_dir() and not source.is_symlink():
            for folder, folders, names in os.walk(source):
                for name in (*names, *folders):
                    below = Path(folder) / name
                    yield f"{path.rstrip('/')}/{below.relative_to(source)}", below
            yield path, source
        else:
            yield path, source


def _add_folder(archive: tarfile.TarFile, made: set[str], name: str) -> None:
    if name and name not in made:
        made.add(name)
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name in ("tmp", "var/tmp") else 0o755
        archive.addfile(member)


def _add(archive: tarfile.TarFile, made: set[str], name: str, source: Source) -> None:
    member = tarfile.TarInfo(name)
    if isinstance(source, bytes):
        member.size, member.mode = len(source), 0o755 if source.startswith((b"#!", b"\x7fELF")) else 0o644
        archive.addfile(member, io.BytesIO(source))
    elif source.is_symlink():
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(source.readlink()), 0o777
        archive.addfile(member)
    elif source.is_dir():
        _add_folder(archive, made, name)
    else:
        status = source.stat()
        member.size, member.mode = status.st_size, 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        with source.open("rb") as handle:
            archive.addfile(member, handle)


def _write_archive(target: Path, reference: str, manifest: bytes, blobs: Sequence[Source]) -> None:
    entry = {
        **_descriptor("application/vnd.oci.image.manifest.v1+json", manifest),
        "annotations": {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference.rpartition(":")[2]},
        "platform": {"architecture": _ARCHITECTURE, "os": "linux"},
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    # Two labs may write the same image at once: each its own file, and the last rename wins with equal content.
    descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w") as archive:
        _add_bytes(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add_bytes(archive, "index.json", _json(index))
        written: set[str] = set()
        for blob in blobs:
            digest = hashlib.sha256(blob).hexdigest() if isinstance(blob, bytes) else file_digest(blob)
            if digest in written:
                continue
            written.add(digest)
            if isinstance(blob, bytes):
                _add_bytes(archive, f"blobs/sha256/{digest}", blob)
            else:
                with blob.open("rb") as handle:
                    _add_stream(archive, f"blobs/sha256/{digest}", handle, blob.stat().st_size)
    Path(partial).rename(target)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    _add_stream(archive, name, io.BytesIO(content), len(content))


def _add_stream(archive: tarfile.TarFile, name: str, content: BinaryIO, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    archive.addfile(member, content)
