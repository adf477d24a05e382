"""The oracle itself: NetworkPolicy semantics on hand-written objects."""

from typing import Any

import pytest

from tests.reachability import Cluster, Host, Pod, selects

WEB = Pod("web", "a", {"app": "web"}, "10.0.0.1", {"http": 8080})
DB = Pod("db", "a", {"app": "db"}, "10.0.0.2")
FAR = Pod("far", "b", {"app": "web"}, "10.0.0.3")
NET = Host("net", "203.0.113.9")


def cluster(*specs: dict[str, Any]) -> Cluster:
    policies = tuple({"metadata": {"namespace": "a"}, "spec": {"podSelector": {}, **spec}} for spec in specs)
    return Cluster({"a": {"team": "a"}, "b": {"team": "b"}}, policies)


def test_without_policies_everybody_reaches_everybody() -> None:
    assert cluster().reaches(NET, WEB, 1)
    assert cluster().reaches(WEB, FAR, 1)


def test_an_empty_ingress_list_isolates_and_egress_stays_free() -> None:
    closed = cluster({"ingress": []})
    assert not closed.reaches(FAR, WEB, 80)
    assert closed.reaches(WEB, FAR, 80)


def test_an_egress_section_implies_its_policy_type_only_when_present() -> None:
    assert not cluster({"egress": []}).reaches(WEB, NET, 443)
    assert cluster({"policyTypes": ["Ingress"], "egress": []}).reaches(WEB, NET, 443)


def test_both_ends_must_agree() -> None:
    out_only = cluster({"policyTypes": ["Ingress", "Egress"], "egress": [{}]})
    assert not out_only.reaches(WEB, DB, 5432)
    assert out_only.reaches(WEB, FAR, 5432)


@pytest.mark.parametrize(
    ("peer", "reaches"),
    [
        ({"podSelector": {}}, {"db"}),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, {"far"}),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {"matchLabels": {"app": "db"}}}, set()),
        ({"namespaceSelector": {}}, {"db", "far"}),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/30"]}}, {"net"}),
    ],
)
def test_peers(peer: dict[str, Any], reaches: set[str]) -> None:
    some = cluster({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [peer]}]})
    assert {source.name for source in (DB, FAR, NET) if some.reaches(source, WEB, 80)} == reaches


@pytest.mark.parametrize(
    ("entry", "port", "protocol", "expected"),
    [
        ({"port": 80}, 80, "TCP", True),
        ({"port": 80}, 80, "UDP", False),
        ({"port": 80, "endPort": 90}, 85, "TCP", True),
        ({"port": 80, "endPort": 90}, 91, "TCP", False),
        ({"port": "http"}, 8080, "TCP", True),
        ({"port": "grpc"}, 8080, "TCP", False),
        ({"protocol": "UDP"}, 9, "UDP", True),
    ],
)
def test_ports(entry: dict[str, Any], port: int, protocol: str, expected: bool) -> None:
    assert cluster({"ingress": [{"ports": [entry]}]}).reaches(NET, WEB, port, protocol) is expected


def test_label_expressions() -> None:
    def one(operator: str, *values: str) -> bool:
        return selects({"matchExpressions": [{"key": "app", "operator": operator, "values": list(values)}]}, {"app": "web"})

    assert one("In", "web")
    assert one("Exists")
    assert not one("NotIn", "web")
    assert not one("DoesNotExist")
