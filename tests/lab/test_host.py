"""What is left on the machine is noticed, and what belongs to others is not blamed on the lab."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab import host, paths, teardown
from lab.errors import MissingPrerequisiteError
from lab.host import Footprint, footprint
from lab.lab import Lab

BEFORE = Footprint(["lo"], ["/", "/proc"], ["ip nat"], ["mine"], [], {"vm/overcommit_memory": "0"})


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (BEFORE, []),
        (replace(BEFORE, links=["lo", "perflab0"]), ["links perflab0"]),
        (replace(BEFORE, tables=["ip kube-proxy", "ip nat"]), ["tables ip kube-proxy"]),
        (replace(BEFORE, namespaces=["cni-1", "mine"]), ["namespaces cni-1"]),
        (replace(BEFORE, cgroups=["/sys/fs/cgroup/cpu/kubepods"]), ["cgroups /sys/fs/cgroup/cpu/kubepods"]),
        (replace(BEFORE, mounts=["/", "/lab/kubelet/x"]), ["mount /lab/kubelet/x"]),
        (replace(BEFORE, mounts=["/", "/home/usb"]), []),
        (replace(BEFORE, links=[], tables=[]), []),
        (replace(BEFORE, settings={"vm/overcommit_memory": "1"}), ["setting vm/overcommit_memory: 0 → 1"]),
    ],
)
def test_left_over_names_each_new_thing(after: Footprint, expected: list[str]) -> None:
    assert after.left_over(BEFORE, own=("/lab/",)) == expected


def test_the_footprint_of_this_machine_has_its_loopback_and_root() -> None:
    found = footprint()
    assert "lo" in found.links
    assert "/" in found.mounts


def test_the_first_record_is_kept_when_up_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    lab = Lab("real", "real")
    monkeypatch.setattr(host, "footprint", lambda: BEFORE)
    host.remember(lab)
    monkeypatch.setattr(host, "footprint", lambda: replace(BEFORE, links=["lo", "perflab0"]))
    host.remember(lab)
    assert host.remembered(lab) == BEFORE


def test_a_real_node_without_root_is_refused_with_the_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(MissingPrerequisiteError, match="--node fake"):
        host.prerequisites(Lab("real", "real"))


def test_a_machine_without_apt_is_told_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host, "_has", lambda program: program != "openssl")
    with pytest.raises(MissingPrerequisiteError, match="install openssl"):
        host.prerequisites(Lab("fake", "fake"))


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/cache/kubelet --root-dir={state}/real/kubelet", True),
        ("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id 1 -address /run/perfpolicy-lab/real/containerd.sock", True),
        ("/usr/bin/containerd-shim-runc-v2 -namespace moby -id 1 -address /run/containerd/containerd.sock", False),
        ("/cache/kubelet --root-dir={state}/real-2/kubelet", False),
        ("tail -f {state}/real/logs/kubelet.log", False),
    ],
)
def test_only_the_labs_own_processes_are_ended(command: str, ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    assert teardown._is_ours(Lab("real", "real"), command.format(state=tmp_path).split()) is ours


def test_down_keeps_the_logs_and_removes_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(paths, "RUN", tmp_path / "run")
    lab = Lab("fake", "fake")
    for name in ("logs/etcd.log", "etcd/member/db", "pki/ca.key", "lab.json", "before.json"):
        (lab.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (lab.directory / name).write_text("{}")
    teardown._files(lab)
    assert [path.relative_to(lab.directory) for path in lab.directory.rglob("*") if path.is_file()] == [Path("logs/etcd.log")]
