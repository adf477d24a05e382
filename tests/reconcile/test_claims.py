"""What policies claim, and who is the elder."""

from typing import Any

from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.claims import Claim, ClaimIndex, claims_of


def raw(name: str = "web", namespace: str = "ns", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def key(name: str, namespace: str = "ns") -> PolicyKey:
    return PolicyKey(namespace, name)


def test_a_policy_that_creates_its_workload_claims_its_own_name() -> None:
    assert claims_of(raw(workload={"deployment": {}})) == {Claim("workload", "ns", "Deployment/web"), Claim("Service", "ns", "web")}


def test_a_target_and_a_service_are_claimed_by_their_names() -> None:
    workload = {"targetRef": {"group": "apps", "kind": "StatefulSet", "name": "db"}, "serviceRef": {"name": "db-svc"}}
    assert claims_of(raw(workload=workload)) == {Claim("workload", "ns", "StatefulSet/db"), Claim("Service", "ns", "db-svc")}


def test_hosts_are_claimed_with_their_paths_in_the_whole_cluster() -> None:
    routes = [{"matches": [{"path": {"type": "Prefix", "value": "/a"}}, {"path": {"value": "/b", "type": "Exact"}}]}, {"name": "rest"}]
    claims = claims_of(raw(traffic={"hosts": ["x.test"], "routes": routes}))
    assert {claim for claim in claims if claim.what == "host"} == {Claim("host", "", f"x.test{path}") for path in ("/a", "/b", "/")}


def test_a_host_without_routes_is_claimed_whole() -> None:
    assert Claim("host", "", "x.test/") in claims_of(raw(traffic={"hosts": ["x.test"]}))


def test_nonsense_claims_nothing_and_breaks_nothing() -> None:
    assert claims_of({"metadata": {"name": "a", "namespace": "ns"}, "spec": None})
    assert claims_of(raw(workload=7, traffic={"hosts": "x", "routes": [3, {"matches": [None]}]}))


def index(*policies: tuple[str, str]) -> ClaimIndex:
    found, shared = ClaimIndex(), frozenset({Claim("workload", "ns", "Deployment/shared")})
    for name, created in policies:
        found.put(key(name), created, shared)
    return found


def test_the_older_is_the_elder_and_of_equally_old_ones_the_first_by_name() -> None:
    found = index(("young", "2026-02-01"), ("old", "2026-01-01"), ("also-young", "2026-02-01"))
    assert found.elders(key("old")) == []
    assert [elder.name for elder, _ in found.elders(key("young"))] == ["old", "also-young"]


def test_a_policy_that_goes_frees_its_claims() -> None:
    found = index(("young", "2026-02-01"), ("old", "2026-01-01"))
    assert found.sharing(key("old")) == {key("young")}
    found.remove(key("old"))
    assert found.elders(key("young")) == []
    assert found.sharing(key("old")) == frozenset()


def test_a_policy_that_claims_something_else_frees_what_it_had() -> None:
    found = index(("young", "2026-02-01"), ("old", "2026-01-01"))
    found.put(key("old"), "2026-01-01", frozenset({Claim("workload", "ns", "Deployment/other")}))
    assert found.elders(key("young")) == []
