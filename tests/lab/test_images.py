"""Images written without a builder: the archive follows the OCI layout, and equal content gives an equal archive."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lab import images, paths
from lab.images import Source, archive_reference, oci_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def blob(tar: Path, digest: str) -> bytes:
    with tarfile.open(tar) as archive:
        member = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
        assert member is not None
        return member.read()


def document(tar: Path, digest: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(blob(tar, digest))
    return parsed


def layer_members(tar: Path, number: int) -> dict[str, tarfile.TarInfo]:
    manifest = document(tar, archive_reference(tar)[1])
    with tarfile.open(fileobj=io.BytesIO(blob(tar, manifest["layers"][number]["digest"]))) as layer:
        return {member.name: member for member in layer.getmembers()}


def test_every_blob_is_stored_under_its_own_digest_and_size() -> None:
    tar = oci_image("localhost/a", "lab", {"/bin/a": b"\x7fELF"}, entrypoint=["/bin/a"])
    manifest = document(tar, archive_reference(tar)[1])
    for descriptor in (manifest["config"], *manifest["layers"]):
        content = blob(tar, descriptor["digest"])
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
        assert len(content) == descriptor["size"]


def test_the_config_lists_the_layers_and_how_to_run() -> None:
    tar = oci_image("localhost/a", "lab", {"/a": b"x"}, entrypoint=["/a"], cmd=["-v"], user="1337:1337", env={"HOME": "/x"})
    manifest = document(tar, archive_reference(tar)[1])
    config = document(tar, manifest["config"]["digest"])
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert config["config"]["Entrypoint"] == ["/a"]
    assert config["config"]["Cmd"] == ["-v"]
    assert config["config"]["User"] == "1337:1337"
    assert "HOME=/x" in config["config"]["Env"]


def test_the_archive_carries_the_name_containerd_stores_it_under() -> None:
    assert archive_reference(oci_image("localhost/a", "lab", {"/a": b"x"}, entrypoint=["/a"]))[0] == "localhost/a:lab"


def test_equal_content_gives_the_same_archive_and_other_content_another(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"one")
    first = oci_image("localhost/a", "lab", {"/a": source}, entrypoint=["/a"])
    os.utime(source, (1, 1))
    assert oci_image("localhost/a", "lab", {"/a": source}, entrypoint=["/a"]) == first
    source.write_bytes(b"two")
    assert oci_image("localhost/a", "lab", {"/a": source}, entrypoint=["/a"]) != first


def test_programs_are_executable_and_parents_exist(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"x")
    program.chmod(0o700)
    files: dict[str, Source] = {"/usr/bin/p": program, "/etc/conf": b"text", "/bin/elf": b"\x7fELF", "/bin/script": b"#!/bin/sh\n"}
    members = layer_members(oci_image("localhost/a", "lab", files, entrypoint=["/a"]), 0)
    assert {name: member.mode for name, member in members.items() if member.isfile()} == {
        "usr/bin/p": 0o755,
        "etc/conf": 0o644,
        "bin/elf": 0o755,
        "bin/script": 0o755,
    }
    assert {name for name, member in members.items() if member.isdir()} == {"usr", "usr/bin", "etc", "bin"}


def test_a_folder_is_copied_with_everything_below_it(tmp_path: Path) -> None:
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/file").write_text("x")
    (tmp_path / "tree/link").symlink_to("deep/file")
    members = layer_members(oci_image("localhost/a", "lab", {"/opt/tree": tmp_path / "tree"}, entrypoint=["/a"]), 0)
    assert members["opt/tree/deep/file"].isfile()
    assert members["opt/tree/link"].linkname == "deep/file"


def test_the_base_is_the_layer_below(tmp_path: Path) -> None:
    base = tmp_path / "base.tar"
    with tarfile.open(base, "w") as archive:
        archive.addfile(tarfile.TarInfo("from-base"))
    tar = oci_image("localhost/a", "lab", {"/a": b"x"}, entrypoint=["/a"], base_rootfs=base)
    assert list(layer_members(tar, 0)) == ["from-base"]
    assert list(layer_members(tar, 1)) == ["a"]
    assert document(tar, archive_reference(tar)[1])["layers"][0]["digest"] == f"sha256:{images.file_digest(base)}"


def test_no_partial_file_stays_behind(cache: Path) -> None:
    tar = oci_image("localhost/a", "lab", {"/a": b"x"}, entrypoint=["/a"])
    assert list((cache / "images").iterdir()) == [tar]
