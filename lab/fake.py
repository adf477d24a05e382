"""Fake nodes by kwok: pods become Ready at once and run nothing. For scale, and for machines that cannot have a node.

What this cannot prove, and says so: no container runs, no traffic flows, no sidecar, no mTLS, no logs or exec, no CPU or
memory figures, no NodePort. May touch: the state folder, the cluster.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.components import binary, module_dir
from lab.controlplane import client_kubeconfig
from lab.lab import Lab, Step, wait
from lab.processes import http_ok

CANNOT_PROVE = "fake nodes run no containers: traffic, sidecars, mTLS, logs, exec, CPU and memory figures are not proved by this lab"
NODES = 3
_STAGES = ("pod/fast", "node/fast", "node/heartbeat-with-lease")


def steps(lab: Lab) -> list[Step]:
    """The steps that bring the fake nodes up."""
    return [Step("kwok", lambda: _kwok(lab)), Step("fake nodes", lambda: _nodes(lab))]


def _kwok(lab: Lab) -> None:
    stages = _stages(lab)
    port = lab.port("kwok")
    command: list[str | Path] = [
        binary("kwok"),
        f"--kubeconfig={client_kubeconfig(lab, 'perfpolicy-lab:kwok', groups=('system:masters',))}",
        "--manage-all-nodes=true",
        f"--server-address=127.0.0.1:{port}",
        "--node-lease-duration-seconds=40",
        *(f"--config={stage}" for stage in stages),
    ]
    lab.supervisor.start("kwok", command, settings=stages)
    lab.supervisor.await_ready("kwok", lambda: http_ok(f"http://127.0.0.1:{port}/healthz"), seconds=60)


def _stages(lab: Lab) -> list[Path]:
    """Copies of kwok's own stages (none are built in): the module cache may be cleaned while kwok runs."""
    source = module_dir("kwok", "sigs.k8s.io/kwok") / "kustomize/stage"
    folder = lab.directory / "kwok"
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Path] = []
    for stage in _STAGES:
        for path in sorted((source / stage).glob("*.yaml")):
            if path.name != "kustomization.yaml":
                found.append(Path(shutil.copyfile(path, folder / f"{stage.replace('/', '-')}-{path.name}")))
    return found


def _nodes(lab: Lab) -> None:
    capacity = {"cpu": "256", "memory": "1Ti", "pods": "20000"}
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"fake-{index}", "labels": {"type": "kwok", "kubernetes.io/hostname": f"fake-{index}"}},
            "status": {"capacity": capacity, "allocatable": capacity},
        }
        for index in range(NODES)
    ]
    present = lab.kubectl("get", "nodes", "-o", "name")
    missing = [node for node in nodes if f"node/{node['metadata']['name']}\n" not in present]  # type: ignore[index]
    if missing:
        lab.apply(missing)

    def ready() -> bool:
        items = lab.get("nodes")["items"]
        return (
            sum(any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", [])) for node in items)
            >= NODES
        )

    wait(f"{NODES} fake nodes being Ready", ready, seconds=60)
