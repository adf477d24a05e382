"""What is installed renders too: the wheel carries the templates, built from the checkout and from the source distribution."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from perfpolicy.render import KINDS

ROOT = Path(__file__).parents[2]
TEMPLATES = {f"perfpolicy/templates/{kind.template}" for kind in KINDS} | {"perfpolicy/templates/_network_peers.yaml.j2"}
PROGRAM = """
import perfpolicy
from perfpolicy.render import KINDS, engine
for kind in KINDS:
    engine.template(kind.template)
print(perfpolicy.__file__)
"""


def build(source: Path, what: str, into: Path) -> Path:
    """One distribution of a source tree, made by the build back-end itself (no network)."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", what, "-d", str(into)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=60)
    (built,) = into.iterdir()
    return built


def packed(wheel: Path) -> set[str]:
    """Names of the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture
def unpacked_source(tmp_path: Path) -> Path:
    """The source distribution, unpacked elsewhere."""
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    return source


def test_the_wheel_carries_every_template(tmp_path: Path) -> None:
    assert packed(build(ROOT, "wheel", tmp_path)) >= TEMPLATES


def test_so_does_a_wheel_made_from_the_source_distribution(tmp_path: Path, unpacked_source: Path) -> None:
    assert packed(build(unpacked_source, "wheel", tmp_path / "wheel")) >= TEMPLATES


def test_an_installed_wheel_renders(tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    wheel = build(ROOT, "wheel", tmp_path / "wheel")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(installed)], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={"PYTHONPATH": str(installed)}, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith(str(installed))
