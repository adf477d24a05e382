"""What one tenant does, or what is wrong in one namespace, does not hold up the others: told by what is done first, not by a clock."""

import json
import secrets
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event
from typing import Any

import pytest

from e2e.api import api_of
from e2e.cluster import Cluster, programmed, programmed_by_name
from e2e.operator_process import OperatorProcess
from e2e.policies import a_policy
from e2e.waiting import eventually
from perfpolicy.vocabulary import POLICY_LABEL

FLOOD, SICK, AMONG = 60, 20, 8
"""Policies of the noisy tenant, of the namespace whose writes hang (more than the operator has workers), beside the poisoned one."""
AMONG_TRUST, EDITS = 98, 20
"""Beside the poisoned one in `make trust`, and how many of them are edited."""
LATE_SECONDS = 2.0
"""The longest an edit may take beside it, but for one in twenty."""
SHARE = 6
"""Of the operator's workers, so many work for one namespace at the same time."""
HANG_SECONDS = 30
"""The longest the API server waits for a webhook."""
LABEL = "e2e-neighbours"


def apply(cluster: Cluster, namespace: str, *names: str) -> None:
    """Create policies of these names."""
    cluster.apply(*(a_policy(name, namespace, replicas=0) for name in names))


def edit(cluster: Cluster, namespace: str, name: str = "web") -> None:
    """Edit a policy, and wait until its children are as the edit says."""
    patch = {"spec": {"traffic": {"timeout": f"{secrets.randbelow(3000) + 3}s"}}}
    cluster.kubectl("patch", "pp", name, "-n", namespace, "--type=merge", "-p", json.dumps(patch))
    programmed(cluster, name, namespace, seconds=60)


def delay_of_edit(cluster: Cluster, namespace: str, name: str) -> float:
    """Seconds from the edit, kubectl included, until its children are as it says."""
    start = time.monotonic()
    edit(cluster, namespace, name)
    return time.monotonic() - start


def programmed_ones(cluster: Cluster, namespace: str) -> set[str]:
    """Names of the policies that are programmed."""
    return {name for name, done in programmed_by_name(cluster, namespace).items() if done}


@pytest.fixture
def other(cluster: Cluster) -> Iterator[str]:
    """A second namespace, gone after the test."""
    name = f"e2e-{secrets.token_hex(4)}"
    labels = {"istio-injection": "enabled", LABEL: name}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def webhook(namespace: str, port: int, policy: str = "") -> dict[str, Any]:
    """Asks somebody at the port before a Service of the namespace (of one policy, where it is named) may be written."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["services"]}
    hook = {
        "name": "neighbours.e2e.test",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {LABEL: namespace}},
        "objectSelector": {"matchLabels": {POLICY_LABEL: policy}} if policy else {},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": HANG_SECONDS,
    }
    metadata = {"name": namespace}
    api = "admissionregistration.k8s.io/v1"
    return {"apiVersion": api, "kind": "ValidatingWebhookConfiguration", "metadata": metadata, "webhooks": [hook]}


def a_service(namespace: str) -> dict[str, Any]:
    """One the webhook is asked about, whatever it selects."""
    metadata = {"name": "probe", "namespace": namespace, "labels": {POLICY_LABEL: "poison"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}


@pytest.fixture
def poisoned(cluster: Cluster, other: str) -> Iterator[str]:
    """The other namespace, where no Service of the policy called poison can be written: nobody listens where the webhook is asked."""
    cluster.apply(webhook(other, 9, "poison"))
    try:
        eventually(lambda: api_of(cluster.lab.kubeconfig).create_dry(a_service(other))[0] == 500)
        yield other
    finally:
        cluster.kubectl("delete", "validatingwebhookconfiguration", other, "--ignore-not-found")


@pytest.fixture
def hanging(cluster: Cluster, other: str) -> Iterator[socket.socket]:
    """Who is asked before a Service may be written in the other namespace: takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server, ThreadPoolExecutor() as beside:
        server.settimeout(HANG_SECONDS)
        cluster.apply(webhook(other, server.getsockname()[1]))
        try:
            # Said before the call is ended: another one would be left for the test, with nobody waiting for its answer.
            heard = Event()
            asked = beside.submit(hang_up, server, heard)
            while not (heard.is_set() or asked.done()):
                api_of(cluster.lab.kubeconfig).create_dry(a_service(other))
            asked.result()
            yield server
        finally:
            cluster.kubectl("delete", "validatingwebhookconfiguration", other)


def hang_up(server: socket.socket, heard: Event) -> None:
    """Take one call, say so, and end it."""
    with server.accept()[0]:
        heard.set()


def is_waited_for(call: socket.socket) -> bool:
    """The caller is still there."""
    call.setblocking(False)
    try:
        while call.recv(4096):
            pass
    except BlockingIOError:
        return True
    return False


def test_a_flood_of_one_tenant_does_not_hold_up_an_edit_of_another(
    cluster: Cluster, operator: OperatorProcess, mesh_namespace: str, other: str
) -> None:
    apply(cluster, mesh_namespace, "web")
    programmed(cluster, "web", mesh_namespace)
    operator.kill()
    apply(cluster, other, *(f"flood-{number}" for number in range(FLOOD)))
    # All of them wait for a worker when the edit comes.
    operator.start()
    edit(cluster, mesh_namespace)
    done = programmed_ones(cluster, other)
    assert len(done) < FLOOD / 2, f"{len(done)} of {FLOOD} policies of the flood were done first"


def test_a_poisoned_policy_is_told_and_holds_up_no_other(cluster: Cluster, operator: OperatorProcess, poisoned: str, trust: bool) -> None:
    names = {f"good-{number}" for number in range(AMONG_TRUST if trust else AMONG)}
    apply(cluster, poisoned, "poison", "web", *names)
    eventually(lambda: programmed_ones(cluster, poisoned) == names | {"web"}, seconds=60)
    eventually(lambda: cluster.condition("poison", poisoned, "Programmed") == ("Unknown", "Progressing"))
    edit(cluster, poisoned)
    if trust:
        delays = sorted(delay_of_edit(cluster, poisoned, f"good-{number}") for number in range(EDITS))
        print(f"edits beside it: {statistics.median(delays):.2f} s, {delays[-2]:.2f} s but for one in twenty")
        assert delays[-2] <= LATE_SECONDS
    cluster.kubectl("delete", "validatingwebhookconfiguration", poisoned)
    eventually(lambda: "poison" in programmed_ones(cluster, poisoned), seconds=60)


def test_writes_that_hang_in_one_namespace_hold_up_no_other(
    cluster: Cluster, operator: OperatorProcess, mesh_namespace: str, other: str, hanging: socket.socket
) -> None:
    apply(cluster, mesh_namespace, "web")
    programmed(cluster, "web", mesh_namespace)
    apply(cluster, other, *(f"sick-{number}" for number in range(SICK)))
    with ExitStack() as held:
        # So many of its policies are being worked on, and hang.
        calls = [held.enter_context(hanging.accept()[0]) for _ in range(SHARE)]
        edit(cluster, mesh_namespace)
        assert all(map(is_waited_for, calls)), "the edit had to wait until the API server gave up asking"
