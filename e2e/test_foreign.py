"""Objects of others that claim what a policy would: named in a Conflict, never written, and still there when the policy is gone."""

import json
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.operator_process import OperatorProcess
from e2e.policies import a_class, a_policy
from e2e.waiting import eventually, throughout

GATEWAY = {"namespace": "e2e", "name": "public"}


def service(namespace: str) -> dict[str, Any]:
    """A Service of the policy's name."""
    spec = {"selector": {"app": "theirs"}, "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace}, "spec": spec}


def virtual_service(name: str, host: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A VirtualService for one host."""
    http = [{"route": [{"destination": {"host": "theirs"}}]}]
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": metadata,
        "spec": {"hosts": [host], "http": http, **spec},
    }


FOREIGN = {
    "same-name-service": (service, "ForeignObject"),
    "same-name-route": (lambda namespace: virtual_service("web", "theirs", namespace), "ForeignObject"),
    "same-host": (lambda namespace: virtual_service("theirs", "web", namespace), "HostClaimed"),
    "same-external-host": (
        lambda namespace: virtual_service("theirs", f"{namespace}.e2e.test", namespace, gateways=["e2e/public"]),
        "HostClaimed",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_it_is_named_left_alone_and_outlives_the_policy(
    cluster: Cluster, operator: OperatorProcess, mesh_namespace: str, case: str
) -> None:
    make, reason = FOREIGN[case]
    theirs = make(mesh_namespace)
    kind, name = theirs["kind"].lower(), theirs["metadata"]["name"]
    cluster.apply(theirs)
    before = cluster.get(kind, name, mesh_namespace)
    cluster.apply(policy(mesh_namespace))
    eventually(lambda: cluster.condition("web", mesh_namespace, "Conflict") == ("True", reason))
    message = condition_message(cluster, mesh_namespace)
    assert f"{theirs['kind']} {mesh_namespace}/{name}" in message
    assert "kubectl" in message, "the manager is named"
    assert cluster.condition("web", mesh_namespace, "Ready")[0] == "False"
    # Only that object, or that kind where a host is claimed, is withheld: the others are written.
    eventually(lambda: cluster.get("peerauthentication", "web", mesh_namespace) is not None)
    ours = cluster.names(kind, mesh_namespace, "app.kubernetes.io/managed-by=perfpolicy")
    assert ours == ({"web-gateway"} if case == "same-name-route" else set())
    cluster.delete("pp", "web", mesh_namespace)
    eventually(lambda: cluster.get("peerauthentication", "web", mesh_namespace) is None)
    throughout(lambda: cluster.get(kind, name, mesh_namespace) == before, seconds=2)


def test_it_is_taken_over_only_by_the_annotation_and_by_the_policy_it_names(
    cluster: Cluster, operator: OperatorProcess, mesh_namespace: str
) -> None:
    cluster.apply(service(mesh_namespace), policy(mesh_namespace))
    eventually(lambda: cluster.condition("web", mesh_namespace, "Conflict") == ("True", "ForeignObject"))
    cluster.kubectl("annotate", "service", "web", "-n", mesh_namespace, "perfpolicy.io/adopt=somebody-else")
    throughout(lambda: "ownerReferences" not in (cluster.get("service", "web", mesh_namespace) or {})["metadata"], seconds=3)
    cluster.kubectl("label", "service", "web", "-n", mesh_namespace, "app.kubernetes.io/managed-by=perfpolicy")
    throughout(lambda: "ownerReferences" not in (cluster.get("service", "web", mesh_namespace) or {})["metadata"], seconds=3)
    cluster.kubectl("annotate", "service", "web", "-n", mesh_namespace, "--overwrite", "perfpolicy.io/adopt=web")
    eventually(lambda: (cluster.get("service", "web", mesh_namespace) or {})["spec"]["selector"] == {"app": "web"})
    eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed")[0] == "True")


def policy(namespace: str) -> dict[str, Any]:
    """A policy with an external host of its own."""
    made = a_policy("web", namespace)
    made["spec"]["traffic"] |= {"hosts": [f"{namespace}.e2e.test"], "gateways": [GATEWAY]}
    return made


def condition_message(cluster: Cluster, namespace: str) -> str:
    """What the Conflict says."""
    conditions = json.loads(cluster.kubectl("get", "pp", "web", "-n", namespace, "-o", "json"))["status"]["conditions"]
    return next(str(condition["message"]) for condition in conditions if condition["type"] == "Conflict")


def test_a_route_in_a_namespace_not_granted_our_host_is_told_and_ours_is_written(
    cluster: Cluster, operator: OperatorProcess, mesh_namespace: str
) -> None:
    hostile = f"{mesh_namespace}-hostile"
    granted = {"name": "own", "namespaces": {"names": [mesh_namespace]}, "workloadCreation": "Allowed", "envoyFilters": "Allowed"}
    grants = [{**granted, "hosts": ["*.e2e.test"], "gateways": [GATEWAY]}]
    cluster.apply(a_class(mesh_namespace, grants=grants))
    cluster.kubectl("create", "namespace", hostile)
    try:
        cluster.apply(virtual_service("theirs", f"{mesh_namespace}.e2e.test", hostile, gateways=["e2e/public"]))
        wanted = policy(mesh_namespace)
        wanted["spec"]["className"] = mesh_namespace
        cluster.apply(wanted)
        eventually(lambda: cluster.condition("web", mesh_namespace, "Conflict") == ("True", "HostClaimed"))
        assert f"VirtualService {hostile}/theirs" in condition_message(cluster, mesh_namespace)
        eventually(lambda: cluster.get("virtualservice", "web-gateway", mesh_namespace) is not None)
        eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("True", "Programmed"))
    finally:
        cluster.kubectl("delete", "namespace", hostile, "--wait=false")
        cluster.kubectl("delete", "performanceclass", mesh_namespace)
