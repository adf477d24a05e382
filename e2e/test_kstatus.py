"""What kstatus says of policies, asked by a program that waits with it: `helm install --wait` (Helm 4)."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.policies import a_policy
from lab.components import binary
from perfpolicy.yaml_text import dump_all

CHART = "apiVersion: v2\nname: {name}\nversion: 0.1.0\n"
Waiting = Callable[[dict[str, Any], str], "subprocess.Popen[str]"]


@pytest.fixture
def install(cluster: Cluster, mesh_namespace: str, tmp_path: Path) -> Waiting:
    """Starts an installation, or an upgrade, of a chart with one policy, which waits so long for it."""

    def start(policy: dict[str, Any], timeout: str) -> "subprocess.Popen[str]":
        name = policy["metadata"]["name"]
        chart = tmp_path / name
        (chart / "templates").mkdir(parents=True, exist_ok=True)
        (chart / "Chart.yaml").write_text(CHART.format(name=name))
        (chart / "templates/policy.yaml").write_text(dump_all([policy]))
        where = ["--namespace", mesh_namespace, "--kubeconfig", cluster.lab.kubeconfig]
        command = [binary("helm"), "upgrade", "--install", name, chart, *where, "--wait", "--timeout", timeout]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


@pytest.mark.usefixtures("operator")
def test_it_waits_until_a_policy_is_in_force_and_calls_a_refused_one_failed(
    install: Waiting, cluster: Cluster, mesh_namespace: str
) -> None:
    nobodys: dict[str, Any] = {"className": "nobodys"}
    cases = {
        "good": (a_policy("good", mesh_namespace), "60s"),
        "refused": (a_policy("refused", mesh_namespace, **nobodys), "10s"),
        "starting": (a_policy("starting", mesh_namespace, replicas=0), "10s"),
        "suspended": (a_policy("suspended", mesh_namespace, suspend="All"), "10s"),
    }
    started = {name: install(policy, timeout) for name, (policy, timeout) in cases.items()}
    said = {name: (process.communicate(timeout=90)[0], process.returncode) for name, process in started.items()}
    assert said["good"][1] == 0, said["good"][0]
    for name, status in (("refused", "Failed"), ("starting", "InProgress"), ("suspended", "InProgress")):
        text, code = said[name]
        assert code != 0, text
        assert f"PerformancePolicy/{mesh_namespace}/{name} not ready. status: {status}" in text, text
    # In force, and left as it is.
    process = install(a_policy("good", mesh_namespace, suspend="All"), "30s")
    text, _ = process.communicate(timeout=90)
    assert process.returncode == 0, text
    assert cluster.condition("good", mesh_namespace, "Suspended") == ("True", "Suspended")
