"""Brings a lab up: the ordered list of steps, each safe to repeat, each named and timed."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import addons, components, controlplane, fake, host, mesh, node, paths
from lab.errors import LabBusyError, MissingPrerequisiteError
from lab.lab import Lab, Step, write_settings
from lab.progress import activity, console


def steps(lab: Lab, *, with_mesh: bool = True) -> list[Step]:
    """All steps for this kind of lab, in order."""
    if lab.node == "external":
        return [Step("the user's cluster", lambda: _external(lab))]
    common = [
        Step("packages of this machine", lambda: host.prerequisites(lab)),
        Step("components", lambda: components.build_all(_tools(lab, with_mesh))),
        Step("record of the machine", lambda: host.remember(lab)),
    ]
    if lab.node == "fake":
        return [*common, *controlplane.steps(lab), addons.crd_step(lab), *fake.steps(lab)]
    cluster = [
        *common,
        Step("interface", lambda: node.link(lab)),
        *controlplane.steps(lab),
        *node.steps(lab),
        addons.crd_step(lab),
        *addons.steps(lab),
    ]
    return [*cluster, *(mesh.steps(lab) if with_mesh else []), *addons.last_steps(lab)]


def _tools(lab: Lab, with_mesh: bool) -> list[str]:
    """Names of the components this kind of lab needs."""
    if lab.node == "fake":
        return ["kubernetes", "etcd", "kwok"]
    cluster = ["kubernetes", "etcd", "coredns", "metrics-server"]
    return [*cluster, "helm", "istio", "prometheus", "k6", "ratelimit"] if with_mesh else cluster


def up(lab: Lab, *, with_mesh: bool = True) -> dict[str, float]:
    """Run all steps and return the seconds each took; raises LabError from the first that fails."""
    taken: dict[str, float] = {}
    with exclusive(lab):
        _only_node(lab)
        (lab.directory / "lab.json").write_text(json.dumps({"node": lab.node, "kubeconfig": str(lab.kubeconfig)}))
        for number, step in enumerate(todo := steps(lab, with_mesh=with_mesh), start=1):
            started = time.monotonic()
            with activity(f"[{number}/{len(todo)}] {step.name}"):
                step.run()
            taken[step.name] = round(time.monotonic() - started, 1)
        (lab.directory / "times.json").write_text(json.dumps({"steps": taken, "builds": components.build_seconds()}, indent=1))
    return taken


@contextmanager
def exclusive(lab: Lab) -> Iterator[None]:
    """Hold the lab's lock; raises LabBusyError at once when another `up` or `down` has it."""
    lab.directory.mkdir(parents=True, exist_ok=True)
    with (lab.directory / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabBusyError(f"another `up` or `down` of lab {lab.name!r} is running; wait for it to end") from error
        yield


def _only_node(lab: Lab) -> None:
    """Claim this machine's real node; raise LabBusyError when another lab has it.

    Machine-wide, whatever the state folder or the network namespace: two kubelets share the control groups, and each
    ends the other's pods.
    """
    if lab.node != "real":
        return
    for other in paths.RUN.glob("*"):
        owner = other / _OWNER
        directory = Path(owner.read_text()) if owner.exists() else None
        if other != lab.run_dir or (directory is not None and directory != lab.directory):
            state = f"PERFPOLICY_LAB_STATE={directory.parent} " if directory else ""
            remedy = f"{state}python -m lab down --name {other.name}"
            raise LabBusyError(f"lab {other.name!r} has the real node of this machine: `{remedy}` first, or use --node fake")
    write_settings(lab.run_dir / _OWNER, str(lab.directory))


# Names the state folder of the lab that has the machine's node.
_OWNER = "owner"
_NEEDED = ("virtualservices.networking.istio.io", "prometheusrules.monitoring.coreos.com")


def _external(lab: Lab) -> None:
    """Check that a cluster of the user's has what the operator needs; nothing is installed into it."""
    present = lab.kubectl("get", "customresourcedefinitions", "-o", "name")
    missing = [name for name in _NEEDED if f"/{name}\n" not in present]
    if missing:
        raise MissingPrerequisiteError(
            f"the cluster of {lab.kubeconfig} has no {' and no '.join(missing)}: install Istio and the Prometheus operator's CRDs there"
        )
    console.print(f"{lab.kubeconfig}: has Istio's and the Prometheus operator's CRDs", markup=False)
