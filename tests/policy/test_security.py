"""Encryption, authorization and network rules in the model."""

from typing import Any, ClassVar

import pytest

from perfpolicy.policy import model
from perfpolicy.policy.facts import Facts
from perfpolicy.vocabulary import Reason
from tests.policy.support import a_raw_service, problems, resolved

PRINCIPAL = "cluster.local/ns/istio-system/sa/istio-ingress"


@pytest.mark.parametrize(
    ("written", "expected"),
    [("Strict", model.Mtls.STRICT), ("Permissive", model.Mtls.PERMISSIVE), ("Disabled", model.Mtls.DISABLE), ("Inherit", None)],
)
def test_mtls_modes(written: str, expected: model.Mtls | None) -> None:
    assert resolved({"security.mtls": written}).security.mtls is expected


def test_nothing_asked_for_is_nothing_written() -> None:
    assert resolved().security == model.Security(None, (), (), default_deny=False)
    assert resolved().network is None


OBJECTS: dict[str, Any] = {
    "security.mtls": "Permissive",
    "security.allow": [{"from": {"namespaces": ["bank"]}}],
    "security.deny": [{"from": {"namespaces": ["bank"]}}],
    "security.defaultDeny": "Enabled",
}


@pytest.mark.parametrize("field", OBJECTS)
class TestInTheRootNamespace:
    """There a selector reaches pods of every namespace."""

    ROOT: ClassVar[dict[str, Any]] = {"mesh.namespace": "shops"}

    def test_what_selects_pods_is_refused_by_name(self, field: str) -> None:
        (problem,) = problems({field: OBJECTS[field]}, self.ROOT)
        assert (problem.path, problem.reason) == (f"spec.{field}", Reason.TARGET_UNSUPPORTED)
        assert "shops is the mesh's root namespace" in problem.message

    def test_it_is_refused_when_only_the_class_asks(self, field: str) -> None:
        assert [p.path for p in problems({}, {**self.ROOT, f"defaults.{field}": OBJECTS[field]})] == [f"spec.{field}"]

    def test_it_is_accepted_where_nothing_is_written(self, field: str) -> None:
        assert problems({field: OBJECTS[field], "mode": "Observe"}, self.ROOT) == []

    def test_it_is_accepted_elsewhere(self, field: str) -> None:
        assert problems({field: OBJECTS[field]}) == []


def test_a_policy_without_such_objects_may_live_in_the_root_namespace() -> None:
    asked = {"security.mtls": "Inherit", "traffic.timeout": "5s", "network.ingress": []}
    assert problems(asked, {"mesh.namespace": "shops", "defaults.security.mtls": "Strict"}) == []


def test_from_and_to_stay_in_one_rule() -> None:
    rule = {"from": {"principals": [PRINCIPAL]}, "to": {"methods": ["GET"], "paths": ["/api/*"], "ports": [8080]}}
    assert resolved({"security.allow": [rule]}).security.allow == (
        model.AccessRule(model.AccessSource((PRINCIPAL,), (), ()), model.AccessTarget(("GET",), ("/api/*",), (8080,), ())),
    )


def test_a_side_left_out_is_none() -> None:
    (rule,) = resolved({"security.deny": [{"from": {"namespaces": ["bank"]}}]}).security.deny
    assert rule == model.AccessRule(model.AccessSource((), ("bank",), ()), None)


@pytest.mark.parametrize("block", ["10.0.0.0/33", "10.0.0.1/8", "300.0.0.0/8", "fe80::/129", "::::/8"])
def test_an_address_range_that_is_none_is_refused(block: str) -> None:
    changes = {"security.allow": [{"from": {"ipBlocks": [block]}}], "network.egress": [{"toCIDRs": [{"cidr": block}]}]}
    assert [p.path for p in problems(changes)] == ["spec.network.egress[0].toCIDRs[0].cidr", "spec.security.allow[0].from.ipBlocks[0]"]


def network(changes: dict[str, Any], facts: Facts | None = None) -> model.Network:
    found = resolved({f"network.{key}": value for key, value in changes.items()}, facts=facts).network
    assert found is not None
    return found


def test_a_direction_left_out_is_not_restricted_and_an_empty_one_is() -> None:
    found = network({"ingress": []})
    assert (found.ingress, found.egress) == ((), None)


def test_a_disabled_network_is_none() -> None:
    assert resolved({"network": {"mode": "Disabled"}}, {"defaults.network.ingress": []}).network is None


def test_labels_of_namespaces_and_pods_are_one_peer() -> None:
    (rule,) = (
        network(
            {"ingress": [{"fromNamespaces": {"name": "ingress-system"}, "fromPods": {"app": "proxy"}, "ports": [{"port": 8080}]}]}
        ).ingress
        or ()
    )
    assert rule.peers == (model.NetworkPeer({"name": "ingress-system"}, {"app": "proxy"}, None),)
    assert rule.ports == (model.NetworkPort(8080, "TCP"),)


def test_pods_alone_are_those_of_the_own_namespace() -> None:
    (rule,) = network({"egress": [{"toPods": {"tier": "db"}, "ports": [{"port": 53, "protocol": "UDP"}]}]}).egress or ()
    assert rule == model.NetworkRule((model.NetworkPeer(None, {"tier": "db"}, None),), (model.NetworkPort(53, "UDP"),))


def test_ranges_are_alternatives_to_labels() -> None:
    (rule,) = (
        network({"ingress": [{"fromPods": {"a": "b"}, "fromCIDRs": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]}]}).ingress or ()
    )
    assert rule.peers == (model.NetworkPeer(None, {"a": "b"}, None), model.NetworkPeer(None, None, "10.0.0.0/8", ("10.1.0.0/16",)))


@pytest.mark.parametrize("hole", ["11.0.0.0/16", "fe80::/10"])
def test_a_hole_outside_its_range_is_refused(hole: str) -> None:
    changes = {"network.ingress": [{"fromCIDRs": [{"cidr": "10.0.0.0/8", "except": [hole]}]}]}
    assert [p.path for p in problems(changes)] == ["spec.network.ingress[0].fromCIDRs[0].except[0]"]


def test_a_service_becomes_its_pods_and_target_ports() -> None:
    ports = [{"port": 80, "targetPort": 8080}, {"port": 53, "protocol": "UDP"}, {"port": 81, "targetPort": "admin"}]
    facts = Facts(services={"rooms": a_raw_service("rooms", selector={"app": "rooms"}, ports=ports)})
    (rule,) = network({"egress": [{"toServices": [{"name": "rooms"}]}]}, facts).egress or ()
    assert rule.peers == (model.NetworkPeer(None, {"app": "rooms"}, None),)
    assert rule.ports == (model.NetworkPort(8080, "TCP"), model.NetworkPort(53, "UDP"), model.NetworkPort("admin", "TCP"))


def test_ports_of_the_rule_win_over_those_of_its_services() -> None:
    facts = Facts(services={"rooms": a_raw_service("rooms")})
    rules = network({"egress": [{"toServices": [{"name": "rooms"}], "toPods": {"a": "b"}, "ports": [{"port": 9}]}]}, facts).egress or ()
    assert [rule.ports for rule in rules] == [(model.NetworkPort(9, "TCP"),)] * 2


def test_services_beside_labels_keep_their_own_ports() -> None:
    facts = Facts(services={"rooms": a_raw_service("rooms", ports=[{"port": 80}])})
    labels, service = network({"egress": [{"toServices": [{"name": "rooms"}], "toPods": {"a": "b"}}]}, facts).egress or ()
    assert labels.ports == ()
    assert service.ports == (model.NetworkPort(80, "TCP"),)


def test_a_service_that_is_missing_or_selects_nothing_is_reported() -> None:
    changes = {"network.egress": [{"toServices": [{"name": "gone"}, {"name": "outside"}]}]}
    found = problems(changes, facts=Facts(services={"outside": a_raw_service("outside", selector=None)}))
    assert [(p.path, p.reason) for p in found] == [
        ("spec.network.egress[0].toServices[0]", Reason.TARGET_NOT_FOUND),
        ("spec.network.egress[0].toServices[1]", Reason.TARGET_UNSUPPORTED),
    ]


def test_namespaces_of_mesh_gateway_and_metrics_are_the_classs() -> None:
    found = network({"ingress": []})
    assert (found.mesh_namespace, found.gateway_namespace, found.metrics_namespace) == ("istio-system", "istio-system", "monitoring")
    other = resolved(
        {"network.ingress": []}, {"mesh.namespace": "mesh", "mesh.gatewayNamespace": "edge", "metrics.namespace": "prom"}
    ).network
    assert other is not None
    assert (other.mesh_namespace, other.gateway_namespace, other.metrics_namespace) == ("mesh", "edge", "prom")
