"""One hostile tenant beside others, with real users of the real API server: what SECURITY.md says cannot be done is tried.

What other modules try (test_admission, test_foreign, test_access, test_hostile, test_kinds, test_live_status) is not tried again.
"""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.access import role, rule
from e2e.cluster import Cluster, programmed
from e2e.operator_process import OperatorProcess
from e2e.policies import CHILDREN, CLASS, a_class, a_policy
from e2e.waiting import eventually, throughout
from lab.errors import CommandError

POLICIES = rule("perfpolicy.io", ["performancepolicies"], ["create", "get", "list", "update", "patch", "delete"])
HOSTILE = """x"} or vector(1) # {{ 7*7 }} {% raw %} {{ $labels.x }} ${x} \\n \\ ' ` [ ( .* &a *a << a: b"""
FLOOD = 25
HUGE = 4096


@pytest.fixture
def victim(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> str:
    """A namespace of somebody else's, with a programmed policy called web."""
    cluster.apply(a_policy("web", mesh_namespace, replicas=0))
    programmed(cluster, "web", mesh_namespace)
    return mesh_namespace


@pytest.fixture
def tenant(cluster: Cluster) -> Iterator[str]:
    """A namespace in the mesh whose tenant, a user of the same name, may write policies there and nothing else."""
    name = f"tenant-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "istio-injection=enabled")
    cluster.apply(*role(name, name, POLICIES))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def as_tenant(cluster: Cluster, tenant: str, *arguments: str, stdin: str | None = None) -> str:
    """kubectl by the tenant."""
    return cluster.kubectl(f"--as={tenant}", "--as-group=system:authenticated", *arguments, input=stdin)


def apply_as(cluster: Cluster, tenant: str, *policies: dict[str, Any]) -> None:
    """`kubectl apply` by the tenant."""
    as_tenant(cluster, tenant, "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(policies)}))


def hostile_policy(namespace: str) -> dict[str, Any]:
    """A policy that holds the hostile text wherever the schema lets it."""
    policy = a_policy("web", namespace, replicas=0)
    spec = policy["spec"]
    spec["workload"]["deployment"]["env"] = [{"name": "X", "value": HOSTILE + "\n---\nkind: Secret\nmetadata: {namespace: kube-system}\n"}]
    headers = [{"name": "x-one", "value": HOSTILE}]
    edits = {"request": {"set": [{"name": "x-two", "value": HOSTILE.replace("%", "")}]}}
    spec["traffic"]["routes"] = [{"name": "all", "matches": [{"headers": headers, "query": headers}], "headers": edits}]
    spec["observability"] = {"alerts": {"labels": {"team": HOSTILE.replace("{", "").replace("}", "")}}}
    return policy


def everything_of(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The children of web there, without what changes by itself."""
    found = {kind: cluster.get(kind, name.format(name="web"), namespace) for kind, name in CHILDREN.items()}
    return {kind: child and {"uid": child["metadata"]["uid"], "spec": child.get("spec")} for kind, child in found.items()}


def test_hostile_strings_change_nothing_outside_and_arrive_as_they_are(
    cluster: Cluster, operator: OperatorProcess, victim: str, tenant: str
) -> None:
    before, secrets_before = everything_of(cluster, victim), cluster.names("secrets", "kube-system")
    policy = hostile_policy(tenant)
    apply_as(cluster, tenant, policy)
    programmed(cluster, "web", tenant)
    deployment = cluster.get("deployment", "web", tenant)
    assert deployment is not None
    assert policy["spec"]["workload"]["deployment"]["env"][0] in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    route = (cluster.get("virtualservice", "web", tenant) or {})["spec"]["http"][0]
    assert route["match"][0]["headers"]["x-one"] == {"exact": HOSTILE} == route["match"][0]["queryParams"]["x-one"]
    rules = (cluster.get("prometheusrule", "web", tenant) or {})["spec"]["groups"]
    alerts = [rule for group in rules for rule in group["rules"] if "alert" in rule]
    assert {alert["labels"]["team"] for alert in alerts} == {policy["spec"]["observability"]["alerts"]["labels"]["team"].replace("$", "$")}
    assert {alert["labels"]["namespace"] for alert in alerts} == {tenant}
    assert (before, secrets_before) == (everything_of(cluster, victim), cluster.names("secrets", "kube-system"))


@pytest.mark.timeout(300)
def test_a_tenant_cannot_write_a_status_and_a_forged_inventory_deletes_nothing(
    cluster: Cluster, operator: OperatorProcess, victim: str, tenant: str
) -> None:
    apply_as(cluster, tenant, a_policy("web", tenant, replicas=0))
    programmed(cluster, "web", tenant)
    theirs = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "theirs", "namespace": tenant},
        "spec": {"podSelector": {}},
    }
    cluster.apply(theirs)
    resource = {"group": "networking.k8s.io", "version": "v1", "kind": "NetworkPolicy", "name": "theirs", "uid": "x"}
    patch = json.dumps({"status": {"resources": [resource]}})
    arguments = ("patch", "pp", "web", "-n", tenant, "--subresource=status", "--type=merge", "-p", patch)
    with pytest.raises(CommandError, match="Forbidden"):
        as_tenant(cluster, tenant, *arguments)
    # Somebody with the right to write statuses does it for them, and the operator goes on from there.
    cluster.kubectl(*arguments)
    operator.kill()
    operator.start()
    changed = a_policy("web", tenant, replicas=0)
    del changed["spec"]["network"]
    apply_as(cluster, tenant, changed)
    eventually(lambda: cluster.get("networkpolicy", "web", tenant) is None)
    programmed(cluster, "web", tenant)
    assert cluster.get("networkpolicy", "theirs", tenant) is not None


def test_without_the_grant_there_is_no_envoy_filter_no_workload_and_no_host(
    cluster: Cluster, operator: OperatorProcess, tenant: str
) -> None:
    cluster.apply(a_class(tenant, grants=[]))
    try:
        policy = a_policy("web", tenant, className=tenant)
        policy["spec"]["traffic"] |= {"hosts": ["victim.e2e.test"], "gateways": [{"namespace": "e2e", "name": "public"}]}
        apply_as(cluster, tenant, policy)
        eventually(lambda: cluster.condition("web", tenant, "Accepted") == ("False", "NotGranted"))
        message = cluster.kubectl("get", "pp", "web", "-n", tenant, "-o", "json")
        for path in ("spec.workload.deployment", "spec.traffic.hosts", "spec.traffic.gateways", "spec.traffic.compression"):
            assert path in message, path
        throughout(lambda: all(child is None for child in everything_of(cluster, tenant).values()), seconds=1)
    finally:
        cluster.kubectl("delete", "performanceclass", tenant)


def test_a_flood_of_policies_stops_at_the_quota_and_delays_nobody_else(
    cluster: Cluster, operator: OperatorProcess, victim: str, tenant: str
) -> None:
    quota = {"hard": {"count/performancepolicies.perfpolicy.io": str(FLOOD)}}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "policies", "namespace": tenant}, "spec": quota})
    path = "{.status.hard}"
    eventually(lambda: bool(cluster.kubectl("get", "resourcequota", "policies", "-n", tenant, "-o", f"jsonpath={path}")))
    flood = [a_policy(f"flood-{number}", tenant, replicas=0) for number in range(FLOOD + 5)]
    with pytest.raises(CommandError, match="exceeded quota"):
        apply_as(cluster, tenant, *flood)
    edited = a_policy("web", victim, replicas=0)
    edited["spec"]["traffic"]["timeout"] = "8s"
    cluster.apply(edited)
    programmed(cluster, "web", victim)


def test_a_huge_spec_is_refused_or_served_and_delays_nobody_else(
    cluster: Cluster, operator: OperatorProcess, victim: str, tenant: str
) -> None:
    process = operator.pid
    huge = a_policy("web", tenant, replicas=0, className=CLASS)
    huge["spec"]["workload"]["deployment"]["env"] = [{"name": f"X{number}", "value": "x" * HUGE} for number in range(64)]
    as_tenant(cluster, tenant, "create", "-f", "-", stdin=json.dumps(huge))
    programmed(cluster, "web", tenant)
    huge["metadata"]["name"] = "larger"
    huge["spec"]["workload"]["deployment"]["template"] = {"metadata": {"annotations": {"x": "x" * 3_000_000}}}
    with pytest.raises(CommandError, match=r"too large|limit|Too long"):
        as_tenant(cluster, tenant, "create", "-f", "-", stdin=json.dumps(huge))
    huge["spec"]["workload"]["deployment"]["template"] = {"metadata": {"annotations": {"x": "x" * 900_000}}}
    as_tenant(cluster, tenant, "create", "-f", "-", stdin=json.dumps(huge))
    eventually(lambda: cluster.condition("larger", tenant, "Accepted")[0] == "False")
    edited = a_policy("web", victim, replicas=0)
    edited["spec"]["traffic"]["timeout"] = "9s"
    cluster.apply(edited)
    programmed(cluster, "web", victim)
    assert (operator.running, operator.pid) == (True, process)
