"""What `python -m lab` prints for other programs to read, and how labs are found and kept apart."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab import paths
from lab.__main__ import env_lines, find, main
from lab.components import TOOLS
from lab.errors import LabBusyError, LabError, MissingPrerequisiteError
from lab.lab import Lab
from lab.up import _only_node, exclusive

RUN = paths.RUN


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "STATE", tmp_path / "state")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "it's a cache")
    monkeypatch.setattr(paths, "RUN", tmp_path / "run")
    return tmp_path / "state"


def is_up(lab: Lab) -> None:
    lab.directory.mkdir(parents=True)
    (lab.directory / "lab.json").write_text(json.dumps({"node": lab.node, "kubeconfig": str(lab.kubeconfig)}))


def test_env_is_understood_by_a_shell_and_keeps_the_users_path(tmp_path: Path) -> None:
    lab = Lab("fake", "fake")
    (tmp_path / "it's a cache/bin").mkdir(parents=True)
    for tool in ("kubernetes", "helm"):
        TOOLS[tool].output.mkdir(parents=True)
    script = f'{env_lines(lab)}\nprintf "%s\\n" "$KUBECONFIG" "$PERFPOLICY_LAB" "$PATH"'
    ran = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/users/own"})
    kubeconfig, name, path = ran.stdout.splitlines()
    assert kubeconfig == str(lab.directory / "kubeconfig")
    assert name == "fake"
    assert path.startswith(f"{tmp_path}/it's a cache/bin/kubernetes-")
    assert path.endswith(":/users/own")


def test_env_of_the_users_own_cluster_names_the_users_kubeconfig() -> None:
    assert "export KUBECONFIG=/mine/config" in env_lines(Lab("external", "external", Path("/mine/config")))


def test_without_a_name_the_real_lab_is_found_first() -> None:
    is_up(Lab("fake", "fake"))
    assert find(None) == Lab("fake", "fake")
    is_up(Lab("real", "real"))
    assert find(None) == Lab("real", "real")
    assert find("fake") == Lab("fake", "fake")


def test_the_users_own_cluster_is_found_with_its_kubeconfig() -> None:
    lab = Lab("mine", "external", Path("/mine/config"))
    is_up(lab)
    assert find("mine") == lab


def test_nothing_up_is_said_plainly_and_down_is_then_no_error() -> None:
    assert CliRunner().invoke(main, ["down"]).exit_code == 0
    refused = CliRunner().invoke(main, ["env"])
    assert isinstance(refused.exception, LabError)
    assert "python -m lab up" in str(refused.exception)
    is_up(Lab("mine", "external", Path("/mine/config")))
    assert "--name: mine" in str(CliRunner().invoke(main, ["env"]).exception)


def test_status_of_a_lab_whose_api_server_is_gone_is_not_ready_and_fails() -> None:
    is_up(Lab("fake", "fake"))
    ran = CliRunner().invoke(main, ["status", "-o", "json"])
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["ready"] is False


@pytest.fixture
def users_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl of the user's, which notes what it is asked, and answers while the file `answer` beside it says how."""
    folder = tmp_path / "user"
    folder.mkdir()
    script = '#!/bin/sh\necho "$KUBECONFIG $*" >>"$(dirname "$0")/asked"\nexec cat "$(dirname "$0")/answer"\n'
    (folder / "kubectl").write_text(script)
    (folder / "kubectl").chmod(0o755)
    (folder / "config").write_text("the user's own")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_a_cluster_of_the_users_is_used_with_the_users_kubectl_and_left_as_it_was(users_kubectl: Path) -> None:
    crds = ("virtualservices.networking.istio.io", "prometheusrules.monitoring.coreos.com")
    (users_kubectl / "answer").write_text("".join(f"customresourcedefinition.apiextensions.k8s.io/{name}\n" for name in crds))
    config = users_kubectl / "config"
    assert CliRunner().invoke(main, ["up", "--kubeconfig", str(config)], catch_exceptions=False).exit_code == 0
    assert find(None) == Lab("external", "external", config)
    assert all(line.startswith(f"{config} get ") for line in (users_kubectl / "asked").read_text().splitlines())
    assert CliRunner().invoke(main, ["down"], catch_exceptions=False).exit_code == 0
    assert find(None) is None
    assert config.read_text() == "the user's own"


def test_a_cluster_of_the_users_without_what_we_need_is_refused_with_its_name(users_kubectl: Path) -> None:
    (users_kubectl / "answer").write_text("customresourcedefinition.apiextensions.k8s.io/virtualservices.networking.istio.io\n")
    refused = CliRunner().invoke(main, ["up", "--kubeconfig", str(users_kubectl / "config")])
    assert isinstance(refused.exception, MissingPrerequisiteError)
    assert "prometheusrules" in str(refused.exception)
    assert "virtualservices" not in str(refused.exception)


@pytest.mark.parametrize(("answer", "ready"), [("ok", True), ("[-]etcd failed", False), (None, False)])
def test_the_users_cluster_is_ready_when_it_says_so(users_kubectl: Path, answer: str | None, ready: bool) -> None:
    is_up(Lab("external", "external", users_kubectl / "config"))
    if answer is not None:
        (users_kubectl / "answer").write_text(answer)
    ran = CliRunner().invoke(main, ["status", "-o", "json"], catch_exceptions=False)
    assert (ran.exit_code, json.loads(ran.stdout)["ready"]) == (0 if ready else 1, ready)


def test_two_commands_on_one_lab_exclude_each_other() -> None:
    lab = Lab("fake", "fake")
    with exclusive(lab), pytest.raises(LabBusyError, match="'fake' is running"), exclusive(lab):
        raise AssertionError("both hold the lock")
    with exclusive(lab):
        assert (lab.directory / "lock").exists()


def test_a_second_real_node_is_refused_and_a_fake_one_is_not() -> None:
    _only_node(Lab("real", "real"))
    with pytest.raises(LabBusyError, match="down --name real"):
        _only_node(Lab("other", "real"))
    _only_node(Lab("real", "real"))
    _only_node(Lab("fake", "fake"))


@pytest.mark.parametrize("name", ["real", "other"])
def test_another_state_folder_does_not_evade_the_refusal(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _only_node(Lab("real", "real"))
    monkeypatch.setattr(paths, "STATE", tmp_path / "elsewhere")
    with pytest.raises(LabBusyError, match=f"PERFPOLICY_LAB_STATE={tmp_path}/state "):
        _only_node(Lab(name, "real"))


def test_a_node_from_before_owners_were_recorded_is_adopted_by_its_name_only() -> None:
    (paths.RUN / "real").mkdir(parents=True)
    with pytest.raises(LabBusyError):
        _only_node(Lab("other", "real"))
    _only_node(Lab("real", "real"))


def test_labs_of_other_names_have_other_ports() -> None:
    services = ("etcd", "apiserver", "kubelet", "kwok")
    labs = (Lab("real", "real"), Lab("fake", "fake"), Lab("unit", "fake"))
    ports = [lab.port(service) for lab in labs for service in services]
    assert len(set(ports)) == len(ports)
    assert all(1024 < port < 30000 for port in ports)


def test_a_sockets_path_is_short_enough_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "RUN", RUN)
    assert len(str(Lab("a-name-of-thirty-two-characters-", "real").containerd_socket) + ".ttrpc") <= 107
