"""Objects of others that claim what a policy would: named in a Conflict, never written, and still there when the policy is gone."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.operator_process import OperatorProcess
from e2e.policies import CHILDREN, a_class, a_policy
from e2e.waiting import eventually, throughout
from lab import audit
from lab.lab import wait_established

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


def destination_rule(namespace: str) -> dict[str, Any]:
    """A DestinationRule for the policy's Service, of another name."""
    spec = {"host": f"web.{namespace}.svc.cluster.local", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}
    metadata = {"name": "theirs", "namespace": namespace}
    return {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec}


FOREIGN = {
    "same-name-service": (service, "ForeignObject"),
    "same-name-route": (lambda namespace: virtual_service("web", "theirs", namespace), "ForeignObject"),
    "same-host": (lambda namespace: virtual_service("theirs", "web", namespace), "HostClaimed"),
    "same-host-rule": (destination_rule, "HostClaimed"),
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
    conditions = (cluster.get("pp", "web", namespace) or {}).get("status", {}).get("conditions", ())
    return next((str(condition["message"]) for condition in conditions if condition["type"] == "Conflict"), "")


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


@pytest.fixture
def keda(cluster: Cluster) -> Iterator[None]:
    """ScaledObject as a kind; nobody acts on it."""
    name = "scaledobjects.keda.sh"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "ScaledObject", "listKind": "ScaledObjectList", "plural": "scaledobjects", "singular": "scaledobject"}
    spec = {"group": "keda.sh", "scope": "Namespaced", "names": names, "versions": [version]}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name}, "spec": spec}
    cluster.apply(crd)
    wait_established(cluster.kubectl, [name])
    yield
    cluster.kubectl("delete", "crd", name, "--wait=false")


OF_OTHERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "poddisruptionbudget": (
        "policy/v1",
        "PodDisruptionBudget",
        "helm",
        {"maxUnavailable": 1, "selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}},
    ),
    "peerauthentication": (
        "security.istio.io/v1",
        "PeerAuthentication",
        "kustomize",
        {"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "PERMISSIVE"}},
    ),
    "telemetry": ("telemetry.istio.io/v1", "Telemetry", "argocd-controller", {"selector": {"matchLabels": {"app": "web"}}}),
    "horizontalpodautoscaler": (
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "flagger",
        {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 1},
    ),
    "scaledobject": ("keda.sh/v1alpha1", "ScaledObject", "keda-operator", {"scaleTargetRef": {"name": "web"}, "triggers": []}),
}
"""What claims the pods of the policy `web`, or scales its Deployment: apiVersion, kind, who manages it, spec. None has a name of ours."""
WITHHELD = {kind for kind in OF_OTHERS if kind in CHILDREN}


def written_by_others(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """Everything of theirs that no controller of Kubernetes writes; of what has no controller here, resourceVersion and all."""
    found = {kind: cluster.get(kind, "theirs", namespace) for kind in OF_OTHERS}
    for kind in ("poddisruptionbudget", "horizontalpodautoscaler"):
        theirs = found[kind]
        assert theirs is not None
        del theirs["status"], theirs["metadata"]["resourceVersion"]
        theirs["metadata"]["managedFields"] = [each for each in theirs["metadata"]["managedFields"] if not each.get("subresource")]
    return found


@pytest.mark.usefixtures("keda", "operator")
def test_who_selects_the_same_pods_or_scales_them_is_named_and_only_that_kind_of_ours_is_withheld(
    cluster: Cluster, mesh_namespace: str
) -> None:
    since = audit.position(cluster.lab.audit_log)
    for api_version, kind, manager, spec in OF_OTHERS.values():
        metadata = {"name": "theirs", "namespace": mesh_namespace}
        text = json.dumps({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
        cluster.kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", input=text)
    before = written_by_others(cluster, mesh_namespace)

    def named(*kinds: str) -> None:
        message = condition_message(cluster, mesh_namespace)
        known = {kind: f"{of[1]} {mesh_namespace}/theirs ({of[2]})" for kind, of in OF_OTHERS.items()}
        assert {kind for kind, words in known.items() if words in message} == set(kinds), message

    def ours() -> set[str]:
        return {kind for kind, name in CHILDREN.items() if cluster.get(kind, name.format(name="web"), mesh_namespace) is not None}

    cluster.apply(a_policy("web", mesh_namespace))
    # KEDA's own word comes before the autoscaler it would make of it.
    eventually(lambda: named("poddisruptionbudget", "peerauthentication", "telemetry", "scaledobject"))
    eventually(lambda: ours() == set(CHILDREN) - WITHHELD)
    assert cluster.condition("web", mesh_namespace, "Ready")[0] == "False"
    cluster.delete("pp", "web", mesh_namespace)
    eventually(lambda: ours() == set())
    assert written_by_others(cluster, mesh_namespace) == before
    if cluster.lab.node != "external":
        assert "theirs" not in {write.name for write in cluster.writes(since, mesh_namespace)}
    cluster.apply(a_policy("web", mesh_namespace))
    cluster.delete("scaledobject", "theirs", mesh_namespace)
    eventually(lambda: named(*WITHHELD))
    for kind in WITHHELD:
        cluster.delete(kind, "theirs", mesh_namespace)
    eventually(lambda: ours() == set(CHILDREN))
    eventually(lambda: cluster.condition("web", mesh_namespace, "Conflict") == ("", ""))
