"""Components are pinned, and what decides a binary's content decides its place in the cache."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import addons, components, golang, paths
from lab.components import TOOLS, Tool, binary
from lab.errors import MissingPrerequisiteError


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    shutil.copytree(paths.COMPONENTS / "etcd", tmp_path / "etcd")
    monkeypatch.setattr(paths, "COMPONENTS", tmp_path)
    return Tool("etcd", {"etcd": "go.etcd.io/etcd/server/v3"})


@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_another_pin_is_another_place_in_the_cache(tool: Tool, file: str) -> None:
    before = tool.output
    with (tool.directory / file).open("a") as handle:
        handle.write("\n")
    assert tool.output != before


def test_other_build_flags_are_another_place_in_the_cache(tool: Tool) -> None:
    others: tuple[dict[str, Any], ...] = ({"tags": ("x",)}, {"stamps": {"a": "b"}}, {"packages": {}}, {"lacking": {"a": {"b": "c"}}})
    assert len({tool.output, *(replace(tool, **changes).output for changes in others)}) == 5


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_every_tool_is_pinned_with_hashes(name: str) -> None:
    module = (TOOLS[name].directory / "go.mod").read_text()
    sums = (TOOLS[name].directory / "go.sum").read_text()
    required = re.findall(r"^\t(\S+) (v\S+)", module, re.MULTILINE)
    assert required
    assert all(f"{path} {version}/go.mod h1:" in sums for path, version in required)


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_every_main_package_is_a_tool_of_its_module(name: str) -> None:
    module = (TOOLS[name].directory / "go.mod").read_text()
    assert all(re.search(rf"^(tool |\t){re.escape(package)}$", module, re.MULTILINE) for package in TOOLS[name].packages.values())


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("go.etcd.io/etcd/server/v3", "server"),
        ("helm.sh/helm/v4/cmd/helm", "helm"),
        ("go.k6.io/k6", "k6"),
        ("example.org/vortex", "vortex"),
    ],
)
def test_the_file_go_writes_is_known(package: str, name: str) -> None:
    assert components._default_name(package) == name


def test_what_a_module_lacks_is_in_the_copy_that_is_built(tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, copies, asked = tmp_path / "module", tmp_path / "copies", []
    (module / "ui").mkdir(parents=True)
    (module / "ui/web.go").write_text("package ui")
    (module / "ui").chmod(0o555)
    copies.mkdir()

    def go(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
        asked.append(arguments)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(components, "module_dir", lambda *_: module)
    monkeypatch.setattr(golang, "run", go)
    flags = components._completed(replace(tool, lacking={"example.org/m": {"ui/dist/index.html": "no pages"}}), copies)
    assert flags == [f"-modfile={copies / 'go.mod'}"]
    assert asked == [["mod", "edit", f"-replace=example.org/m={copies / '0'}", str(copies / "go.mod")]]
    assert {path.name: path.read_text() for path in (copies / "0").rglob("*.*")} == {"web.go": "package ui", "index.html": "no pages"}
    assert (copies / "go.sum").read_bytes() == (tool.directory / "go.sum").read_bytes()
    assert components._completed(tool, copies) == []


def test_an_unknown_binary_is_an_error() -> None:
    with pytest.raises(KeyError):
        binary("kube-nothing")


def test_a_built_tool_is_not_built_again(tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    tool.output.mkdir(parents=True)
    (tool.output / "built.json").write_text("{}")
    monkeypatch.setattr(components, "_build", lambda built: pytest.fail(f"built {built.name}"))
    components.build(tool)
    assert (tool.output / "built.json").exists()


def test_an_old_go_is_not_taken(tmp_path: Path) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    old.chmod(0o755)
    assert golang.version(old) == (1, 19)
    assert golang.version(old) < golang.MINIMUM


def test_without_go_pip_and_uv_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    golang.go.cache_clear()
    with pytest.raises(MissingPrerequisiteError, match="neither pip nor uv"):
        golang.go()
    golang.go.cache_clear()


def test_names_of_crds_are_found_also_after_annotations() -> None:
    text = "apiVersion: v1\nmetadata:\n  annotations:\n    name: no\n  name: a.b.c\nspec:\n  names:\n  - =\n---\nmetadata:\n  name: d.e.f\n"
    assert addons._NAME.findall(text) == ["a.b.c", "d.e.f"]
