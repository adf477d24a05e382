"""A missing right, an unreachable Prometheus and an absent CRD: told and counted, and no reason to restart or to take out of service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.operator_process import PROGRAM, OperatorProcess, free_port
from e2e.policies import a_class, a_policy
from e2e.waiting import eventually
from e2e.world import CLOCKS
from lab.controlplane import client_kubeconfig
from perfpolicy.render.registry import KINDS
from perfpolicy.runtime import WATCHED
from perfpolicy.vocabulary import CLASS_PLURAL, GROUP, POLICY_PLURAL

MISSING = "services"
USER = "perfpolicy-e2e-restricted"


def rule(group: str, resource: str, *verbs: str) -> dict[str, Any]:
    """One rule of a role."""
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


def role(name: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A ClusterRole and its binding to the user of the same name."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name.removesuffix(":more")}
    made = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    return [
        {**made, "kind": "ClusterRole", "rules": rules},
        {**made, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]},
    ]


@pytest.fixture
def restricted(cluster: Cluster, mesh_namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator that may do everything it does, but for Services."""
    rules = [rule(each.group, each.plural, "get", "list", "watch") for each in WATCHED if each.plural != MISSING]
    rules += [rule(kind.group, kind.plural, "create", "patch", "delete") for kind in KINDS if kind.plural != MISSING]
    rules += [rule(GROUP, plural, "get", "list", "watch") for plural in (POLICY_PLURAL, CLASS_PLURAL)]
    rules += [rule(GROUP, f"{POLICY_PLURAL}/status", "patch"), rule("events.k8s.io", "events", "create", "patch")]
    cluster.apply(a_class(), *role(USER, rules))
    settings = {**CLOCKS, "namespaces": mesh_namespace, "kubeconfig": str(client_kubeconfig(cluster.lab, USER))}
    with OperatorProcess(cluster.lab, tmp_path / "operator.log", free_port(), PROGRAM, **settings) as process:
        yield process
    for name in (USER, f"{USER}:more"):
        cluster.kubectl("delete", "clusterrole,clusterrolebinding", name, "--ignore-not-found")


def test_what_is_missing_is_told_and_counted_and_passes_by_itself(
    cluster: Cluster, mesh_namespace: str, restricted: OperatorProcess
) -> None:
    cluster.apply(a_policy("web", mesh_namespace))

    def told() -> None:
        found = restricted.readiness()
        problems = found["problems"]
        assert {"watch services", "list services", "get services", "metrics http://127.0.0.1:9"} <= set(problems), problems
        assert "forbidden" in problems["get services"]
        assert "rollouts.argoproj.io" in found["absentKinds"]
        assert found["ready"]

    eventually(told)
    assert 'perfpolicy_api_requests_total{code="403",kind="services",verb="get"}' in restricted.metrics()
    assert 'perfpolicy_prometheus_queries_total{result="error"}' in restricted.metrics()
    eventually(restricted.is_live)
    eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("False", "ApplyFailed"))

    cluster.apply(*role(f"{USER}:more", [rule("", MISSING, "get", "list", "watch", "create", "patch", "delete")]))
    eventually(lambda: "watch services" not in restricted.readiness()["problems"], seconds=60)
    # Nobody tells an operator of a right it was given: what was refused is tried again once a minute, or when the policy is touched.
    cluster.kubectl("annotate", "pp", "web", "-n", mesh_namespace, "touched=yes")
    eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("True", "Programmed"))
    eventually(lambda: 'perfpolicy_policies{condition="Programmed",status="True"} 1.0' in restricted.metrics())
