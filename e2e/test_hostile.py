"""One author's policy is nobody else's trouble, whatever it holds."""

import json
from collections.abc import Iterator

import pytest

from e2e.cluster import Cluster
from e2e.operator_process import OperatorProcess
from e2e.policies import a_policy
from e2e.waiting import eventually

DEEP = '{"a":' * 9_000 + "1" + "}" * 9_000
"""The API server takes 10,000 levels, of which an object's own parts and its managedFields need some."""


@pytest.fixture
def deep(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> Iterator[str]:
    """A namespace with a policy whose pod template is nested that deeply; nobody reads it here, for Python cannot."""
    policy = a_policy("deep", mesh_namespace)
    policy["spec"]["workload"]["deployment"]["template"] = {"spec": "HERE"}
    cluster.kubectl("create", "-f", "-", input=json.dumps(policy).replace('"HERE"', DEEP))
    yield mesh_namespace
    cluster.delete("pp", "deep", mesh_namespace)


def accepted(cluster: Cluster, name: str, namespace: str) -> str:
    """Status and message of the policy's condition Accepted."""
    path = '{.status.conditions[?(@.type=="Accepted")].status} {.status.conditions[?(@.type=="Accepted")].message}'
    return cluster.kubectl("get", "pp", name, "-n", namespace, "-o", f"jsonpath={path}")


def image(cluster: Cluster, namespace: str) -> str:
    """The image of web's Deployment."""
    found = cluster.get("deployment", "web", namespace)
    return "" if found is None else str(found["spec"]["template"]["spec"]["containers"][0]["image"])


def test_a_policy_as_deep_as_the_api_server_takes_stops_neither_the_operator_nor_other_policies(
    cluster: Cluster, operator: OperatorProcess, deep: str
) -> None:
    process = operator.pid
    eventually(lambda: accepted(cluster, "deep", deep).startswith("False"))
    assert "too deep" in accepted(cluster, "deep", deep)
    policy = a_policy("web", deep, replicas=0)
    cluster.apply(policy)
    eventually(lambda: cluster.condition("web", deep, "Programmed") == ("True", "Programmed"))
    policy["spec"]["workload"]["deployment"]["image"] = "localhost/backend:other"
    cluster.apply(policy)
    eventually(lambda: image(cluster, deep) == "localhost/backend:other")
    assert (operator.running, operator.pid) == (True, process)


def test_an_operator_that_starts_beside_it_serves_the_others(cluster: Cluster, operator: OperatorProcess, deep: str) -> None:
    operator.kill()
    cluster.apply(a_policy("web", deep, replicas=0))
    operator.start()
    eventually(lambda: cluster.condition("web", deep, "Programmed") == ("True", "Programmed"))
    cluster.kubectl("delete", "service", "web", "-n", deep)
    eventually(lambda: cluster.get("service", "web", deep) is not None)
    assert operator.running
