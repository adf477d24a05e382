"""Classes from mounted files: read again when they change, and never lost to a file that is broken for a moment."""

from pathlib import Path
from typing import Any

import pytest

from perfpolicy import yaml_text
from perfpolicy.reconcile.class_file import ClassFile
from perfpolicy.reconcile.policies import Classes


def a_class(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "perfpolicy.io/v1alpha1", "kind": "PerformanceClass", "metadata": {"name": name}, "spec": spec}


class Bench:
    def __init__(self, path: Path) -> None:
        self.path, self.heard = path, list[str]()
        self.classes = Classes(self.heard.append)
        self.file = ClassFile(path, self.classes, interval=1)

    def write(self, *classes: dict[str, Any]) -> None:
        self.path.write_text(yaml_text.dump_all(classes))

    def look(self) -> list[str]:
        self.heard.clear()
        self.file.look()
        return sorted(self.heard)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "classes.yaml")


def test_a_class_that_came_changed_or_went_is_heard_of_and_no_other(bench: Bench) -> None:
    bench.write(a_class("gold"), a_class("silver"))
    assert bench.look() == ["gold", "silver"]
    assert bench.look() == []
    bench.write(a_class("gold", limits={"maxReplicas": 3}), a_class("silver"))
    assert bench.look() == ["gold"]
    bench.write(a_class("silver"))
    assert bench.look() == ["gold"]
    assert bench.classes.names() == {"silver"}


def test_a_class_that_breaks_a_rule_is_reported_and_the_others_are_used(bench: Bench) -> None:
    bench.write(a_class("gold", limits={"maxReplicas": 0}), a_class("silver"))
    bench.look()
    assert [cls.metadata.name for cls in bench.classes] == ["silver"]
    assert "maxReplicas" in str(bench.classes.problems["gold"])
    assert bench.file.problem == ""


@pytest.mark.parametrize(
    "text", [b"a: [", b"\xff\xfe\x00", b"kind: PerformanceClass\napiVersion: perfpolicy.io/v1alpha1\n", b"- 1\n"], ids=range(4)
)
def test_a_broken_file_leaves_the_last_good_classes(bench: Bench, text: bytes) -> None:
    bench.write(a_class("gold"))
    bench.look()
    bench.path.write_bytes(text)
    assert bench.look() == []
    assert bench.classes.names() == {"gold"}
    assert str(bench.path) in bench.file.problem or "utf-8" in bench.file.problem
    bench.write(a_class("gold"))
    bench.look()
    assert bench.file.problem == ""


def test_a_file_that_is_missing_is_a_problem_until_it_appears(bench: Bench) -> None:
    bench.look()
    assert "no such file" in bench.file.problem
    bench.write(a_class("gold"))
    assert bench.look() == ["gold"]


def test_a_mounted_config_map_is_swapped_as_a_whole(tmp_path: Path) -> None:
    # As the kubelet does it: a folder with links into a hidden one, which is replaced.
    for version in ("1", "2"):
        hidden = tmp_path / f"..{version}"
        hidden.mkdir()
        (hidden / "classes.yaml").write_text(yaml_text.dump(a_class("gold", limits={"maxReplicas": int(version)})))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "classes.yaml").symlink_to("..data/classes.yaml")
    bench = Bench(tmp_path / "classes.yaml")
    assert bench.look() == ["gold"]
    (tmp_path / "..data").unlink()
    (tmp_path / "..data").symlink_to("..2")
    assert bench.look() == ["gold"]
    assert [cls.spec.limits.max_replicas for cls in bench.classes if cls.spec.limits] == [2]
