"""The operator while the API server is away, and when it may not do what it needs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from e2e.cluster import Cluster
from e2e.operator_process import OperatorProcess
from e2e.policies import CHILDREN, a_policy
from e2e.waiting import eventually

ROOT = Path(__file__).parent.parent


def problems(operator: OperatorProcess) -> dict[str, str]:
    """What the operator says is wrong, but for the tests' metrics source, which is never there."""
    found: dict[str, str] = operator.readiness()["problems"]
    return {about: problem for about, problem in found.items() if not about.startswith("metrics ")}


def is_programmed(cluster: Cluster, namespace: str) -> bool:
    """The policy called web is programmed."""
    return cluster.condition("web", namespace, "Programmed") == ("True", "Programmed")


def test_an_api_server_that_dies_and_comes_back_is_only_waited_for(
    cluster: Cluster, operator: OperatorProcess, mesh_namespace: str
) -> None:
    cluster.apply(a_policy("web", mesh_namespace))
    eventually(lambda: is_programmed(cluster, mesh_namespace))
    process = operator.pid
    recorded = json.loads((cluster.lab.directory / "pids" / "kube-apiserver.json").read_text())
    os.kill(recorded["pid"], signal.SIGKILL)
    try:
        eventually(lambda: len(problems(operator)) > 3)
    finally:
        subprocess.run([sys.executable, "-m", "lab", "up", "--node", "fake", "--no-mesh", "--name", cluster.lab.name], cwd=ROOT, check=True)
    for kind in ("service", "virtualservice"):
        cluster.delete(kind, CHILDREN[kind].format(name="web"), mesh_namespace)
        eventually(lambda kind=kind: bool(cluster.get(kind, "web", mesh_namespace)), seconds=60)  # type: ignore[misc]
    cluster.apply(a_policy("second", mesh_namespace))
    eventually(lambda: cluster.condition("second", mesh_namespace, "Programmed")[0] == "True", seconds=60)
    eventually(lambda: problems(operator) == {}, seconds=60)
    assert operator.running
    assert operator.pid == process
