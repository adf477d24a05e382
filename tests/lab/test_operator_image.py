"""What decides the operator's image, and what a build is told of this machine; the build itself is seen by e2e/test_install.py."""

from __future__ import annotations

import configparser
import re
import shutil
from pathlib import Path

import pytest

from lab import operator_image
from lab.operator_image import CONTEXT, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the build reads, in place of this checkout."""
    for name in CONTEXT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(operator_image, "ROOT", tmp_path)
    return tmp_path


def test_the_build_is_given_what_is_hashed() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_in == {name for name in CONTEXT if name not in ("Dockerfile", ".dockerignore")}
    copied = {word for words in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in words.split()}
    assert {word.partition("/")[0] for word in copied} == let_in


@pytest.mark.parametrize("name", ["Dockerfile", "operator/perfpolicy/runtime.py", "templates/service.yaml.j2", "requirements/runtime.txt"])
def test_every_change_of_an_input_is_another_image(checkout: Path, name: str) -> None:
    before = operator_image._key()
    assert operator_image._key() == before
    with (checkout / name).open("a") as file:
        file.write("\n")
    assert operator_image._key() != before


def test_what_python_leaves_behind_is_no_input(checkout: Path) -> None:
    before = operator_image._key()
    left = checkout / "operator/perfpolicy/__pycache__/new.pyc"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"x")
    assert operator_image._key() == before


def test_the_dockerfile_says_this_version_and_names_its_base() -> None:
    assert set(re.findall(r"^ARG VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)) == {operator_image.version()}
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}", "scratch"}
    assert operator_image.base_name().startswith("python:3.")


@pytest.mark.parametrize("requirements", ["runtime.txt", "image.txt"])
def test_every_package_of_the_image_is_pinned_with_hashes(requirements: str) -> None:
    assert re.search(rf"--require-hashes.*\s.*requirements/{re.escape(requirements)}", DOCKERFILE)
    for package in re.findall(r"^\S+==.*(?:\n    .*)*", (ROOT / "requirements" / requirements).read_text(), re.MULTILINE):
        assert "--hash=sha256:" in package


def test_the_build_is_told_where_this_machine_gets_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_text("certificates")
    configuration = tmp_path / "machine.conf"
    configuration.write_text(f"[global]\nindex-url = https://machine/simple\ntimeout = 7\ncert = {authorities}\nfind-links = /machine\n")
    for name in ("PIP_CERT", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable/simple")
    settings, certificates = operator_image._pip_settings(tmp_path)
    written = configparser.ConfigParser()
    written.read(settings)
    assert dict(written["global"]) == {"cert": "/etc/pip.crt", "index-url": "https://variable/simple", "timeout": "7"}
    assert certificates.read_text() == "certificates"
    assert {secret.stat().st_mode & 0o777 for secret in (settings, certificates)} == {0o600}
    assert {secret.name for secret in (settings, certificates)} == set(re.findall(r"type=secret,id=([\w.]+)", DOCKERFILE))


def test_sources_without_git_or_a_checkout_have_no_revision(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert operator_image._revision() == "unknown"
    monkeypatch.setenv("PATH", str(checkout))
    assert operator_image._revision() == "unknown"
