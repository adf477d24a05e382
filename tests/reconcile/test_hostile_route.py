"""Nobody in another namespace takes a policy's route away by claiming the host of its Service."""

import pytest

from perfpolicy.reconcile.children import ChildRef
from perfpolicy.reconcile.foreign import VIRTUAL_SERVICE
from tests.reconcile.test_reconciler import WEB, Bench, raw_class, raw_policy


async def test_a_route_of_another_namespace_for_our_service_is_told_and_ours_is_written() -> None:
    bench = Bench()
    metadata = {"name": "theirs", "namespace": "elsewhere", "uid": "t", "resourceVersion": "1"}
    bench.hub.put(VIRTUAL_SERVICE, {"metadata": metadata, "spec": {"hosts": ["web.ns.svc.cluster.local"]}})
    bench.classes.put(raw_class())
    bench.policies.put(raw_policy(traffic={"timeout": "10s"}))
    await bench.settle()
    assert ChildRef(VIRTUAL_SERVICE, "ns", "web") in bench.api.objects
    conditions = {condition.type: condition for condition in bench.states[WEB].status.conditions}  # type: ignore[union-attr]
    assert (conditions["Conflict"].status, conditions["Conflict"].reason) == ("True", "HostClaimed")
    assert "VirtualService elsewhere/theirs" in conditions["Conflict"].message
    assert conditions["Programmed"].status == "True"


@pytest.mark.parametrize(
    ("namespace", "withheld"), [("friends", True), ("edge", True), ("ns", True), ("strangers", False), ("lost", False)]
)
async def test_only_who_may_claim_an_external_host_withholds_our_route(namespace: str, withheld: bool) -> None:
    """Those are our own namespace, the gateway's, and those the class grants host and gateway, and itself, too."""
    bench = Bench()
    granted = {
        "name": "web",
        "namespaces": {"names": ["ns", "friends", "lost"]},
        "hosts": ["*.example.test"],
        "gateways": [{"namespace": "edge", "name": "public"}],
        "workloadCreation": "Allowed",
    }
    metadata = {"name": "theirs", "namespace": namespace, "uid": "t", "resourceVersion": "1"}
    bench.hub.put(VIRTUAL_SERVICE, {"metadata": metadata, "spec": {"hosts": ["api.example.test"], "gateways": ["edge/public"]}})
    bench.classes.put(raw_class(allowedNamespaces={"names": ["ns", "friends", "strangers"]}, grants=[granted]))
    bench.policies.put(raw_policy(traffic={"hosts": ["api.example.test"], "gateways": [{"namespace": "edge", "name": "public"}]}))
    await bench.settle()
    assert (ChildRef(VIRTUAL_SERVICE, "ns", "web-gateway") in bench.api.objects) is not withheld
    assert bench.condition("Conflict") == ("True", "HostClaimed")
    assert bench.condition("Programmed")[0] == ("False" if withheld else "True")
