"""Who reaches whom under the rendered NetworkPolicy, judged by the independent oracle."""

from dataclasses import replace

import pytest

from perfpolicy.policy import model
from perfpolicy.render import Manifest, render
from tests.builders import a_full_policy, a_peer, a_policy, a_port, a_service, network, observability, traffic
from tests.examples import policies
from tests.reachability import Cluster, Host, Pod

NAMESPACES = {
    name: {"kubernetes.io/metadata.name": name, **more}
    for name, more in {
        "ce-hub": {},
        "istio-system": {},
        "edge": {},
        "monitoring": {},
        "kube-system": {},
        "ingress": {"name": "ingress-system"},
        "rate-limit": {},
        "other": {},
    }.items()
}

OWN = Pod("own", "ce-hub", {"app": "operation-service", "version": "canary"}, "10.0.0.1")
DATABASE = Pod("database", "ce-hub", {"app": "postgresql"}, "10.0.0.2")
NEIGHBOUR = Pod("neighbour", "ce-hub", {"app": "neighbour"}, "10.0.0.3")
ISTIOD = Pod("istiod", "istio-system", {"app": "istiod"}, "10.0.1.1")
GATEWAY = Pod("gateway", "istio-system", {"istio": "ingress"}, "10.0.1.2")
EDGE = Pod("edge", "edge", {"istio": "ingress"}, "10.0.1.3")
PROMETHEUS = Pod("prometheus", "monitoring", {"app": "prometheus"}, "10.0.2.1")
DNS = Pod("dns", "kube-system", {"k8s-app": "kube-dns"}, "10.0.3.1")
INGRESS = Pod("ingress", "ingress", {}, "10.0.4.1")
RATE_LIMIT = Pod("ratelimit", "rate-limit", {"app": "ratelimit"}, "10.0.6.1")
STRANGER = Pod("stranger", "other", {"app": "operation-service"}, "10.0.5.1")
NODE = Host("node", "192.168.0.10")
NODE_DNS = Host("node-dns", "169.254.20.10")
INTERNET = Host("internet", "203.0.113.9")

MUST_REACH = [
    (GATEWAY, OWN, 8080, "TCP"),
    (PROMETHEUS, OWN, 15020, "TCP"),
    (PROMETHEUS, OWN, 15090, "TCP"),
    (PROMETHEUS, OWN, 9090, "TCP"),
    (NODE, OWN, 15021, "TCP"),
    (NODE, OWN, 15020, "TCP"),
    (INGRESS, OWN, 8080, "TCP"),
    (OWN, ISTIOD, 15012, "TCP"),
    (OWN, RATE_LIMIT, 8081, "TCP"),
    (OWN, DNS, 53, "UDP"),
    (OWN, DNS, 53, "TCP"),
    (OWN, NODE_DNS, 53, "UDP"),
    (OWN, DATABASE, 5432, "TCP"),
    (NEIGHBOUR, DATABASE, 5432, "TCP"),
    (STRANGER, NEIGHBOUR, 80, "TCP"),
]
MUST_NOT_REACH = [
    (STRANGER, OWN, 8080, "TCP"),
    (STRANGER, OWN, 9090, "TCP"),
    (STRANGER, OWN, 15090, "TCP"),
    (NEIGHBOUR, OWN, 8080, "TCP"),
    (INTERNET, OWN, 8080, "TCP"),
    (NODE, OWN, 8080, "TCP"),
    (INGRESS, OWN, 9090, "TCP"),
    (INGRESS, OWN, 8080, "UDP"),
    (GATEWAY, OWN, 9090, "TCP"),
    (EDGE, OWN, 8080, "TCP"),
    (PROMETHEUS, OWN, 8080, "TCP"),
    (OWN, ISTIOD, 443, "TCP"),
    (OWN, ISTIOD, 53, "UDP"),
    (OWN, RATE_LIMIT, 6379, "TCP"),
    (OWN, GATEWAY, 80, "TCP"),
    (OWN, DATABASE, 22, "TCP"),
    (OWN, NEIGHBOUR, 5432, "TCP"),
    (OWN, STRANGER, 80, "TCP"),
    (OWN, INTERNET, 443, "TCP"),
    (OWN, INTERNET, 53, "UDP"),
]


def network_policies(policy: model.Policy) -> tuple[Manifest, ...]:
    return tuple(manifest for manifest in render(policy).manifests if manifest["kind"] == "NetworkPolicy")


def cluster(policy: model.Policy) -> Cluster:
    return Cluster(NAMESPACES, network_policies(policy))


@pytest.mark.parametrize(("source", "target", "port", "protocol"), MUST_REACH, ids=lambda v: getattr(v, "name", str(v)))
def test_must_reach(source: Pod | Host, target: Pod | Host, port: int, protocol: str) -> None:
    assert cluster(a_full_policy()).reaches(source, target, port, protocol)


@pytest.mark.parametrize(("source", "target", "port", "protocol"), MUST_NOT_REACH, ids=lambda v: getattr(v, "name", str(v)))
def test_must_not_reach(source: Pod | Host, target: Pod | Host, port: int, protocol: str) -> None:
    assert not cluster(a_full_policy()).reaches(source, target, port, protocol)


def test_the_database_tier_of_the_examples() -> None:
    (policy,) = (policy for policy in policies("runeframe") if policy.key.name == "postgresql")
    reached = Cluster({**NAMESPACES, "runeframe": {}}, network_policies(policy))
    database = Pod("database", "runeframe", policy.workload.selector, "10.0.7.1")
    backend, page = (Pod(tier, "runeframe", {"tier": tier}, "10.0.7.2") for tier in ("backend", "frontend"))
    foreign = Pod("foreign", "other", {"tier": "backend"}, "10.0.7.3")
    assert reached.reaches(backend, database, 5432)
    assert [reached.reaches(*way) for way in ((backend, database, 22), (page, database, 5432), (foreign, database, 5432))] == [False] * 3
    assert [reached.reaches(database, end, port) for end, port in ((backend, 8080), (INTERNET, 443))] == [False] * 2
    assert reached.reaches(database, DNS, 53, "UDP")


def test_nothing_asked_for_renders_nothing() -> None:
    assert network_policies(a_policy()) == ()
    assert network_policies(a_policy(network=network(ingress=None, egress=None))) == ()


def test_one_direction_leaves_the_other_free() -> None:
    inwards, outwards = (cluster(a_policy(network=network(**{side: None}))) for side in ("egress", "ingress"))
    assert (inwards.reaches(OWN, INTERNET, 443), inwards.reaches(STRANGER, OWN, 8080)) == (True, False)
    assert (outwards.reaches(OWN, INTERNET, 443), outwards.reaches(STRANGER, OWN, 8080)) == (False, True)


def test_gateways_get_in_only_where_the_policy_uses_them() -> None:
    gateways = traffic(gateways=(model.GatewayRef("istio-system", "public"),))
    assert not cluster(a_policy(network=network())).reaches(GATEWAY, OWN, 8080)
    assert not cluster(a_policy(network=network(), traffic=gateways)).reaches(GATEWAY, OWN, 8080)


def test_gateway_pods_and_the_namespace_of_the_gateway_object_both_get_in() -> None:
    policy = a_full_policy(network=network(gateway_namespace="edge"))
    assert cluster(policy).reaches(EDGE, OWN, 8080)
    assert cluster(policy).reaches(GATEWAY, OWN, 8080)


def test_outside_the_mesh_only_prometheus_and_dns_are_needed() -> None:
    outside = cluster(a_policy(network=network(), in_mesh=False))
    assert outside.reaches(PROMETHEUS, OWN, 9090)
    assert outside.reaches(OWN, DNS, 53, "UDP")
    assert not any(outside.reaches(NODE, OWN, port) for port in (15020, 15021))
    assert not outside.reaches(OWN, ISTIOD, 15012)


def test_the_rate_limit_service_is_reached_only_where_it_counts() -> None:
    assert not cluster(a_policy(network=network())).reaches(OWN, RATE_LIMIT, 8081)


def test_without_a_mesh_or_metrics_nobody_gets_in() -> None:
    policy = a_policy(network=network(), in_mesh=False, service=a_service(metrics_port=None))
    (manifest,) = network_policies(policy)
    assert manifest["spec"]["ingress"] == []
    assert not cluster(policy).reaches(PROMETHEUS, OWN, 9090)


def test_metrics_on_the_application_port_are_reached_by_gateway_and_prometheus() -> None:
    policy = a_full_policy(service=a_service(metrics_port=8080))
    assert cluster(policy).reaches(GATEWAY, OWN, 8080)
    assert cluster(policy).reaches(PROMETHEUS, OWN, 8080)


def test_a_metrics_port_of_the_service_is_not_the_gateways() -> None:
    policy = a_full_policy(service=a_service(ports=(a_port(), a_port("http-metrics", 9090, 9090))))
    assert not cluster(policy).reaches(GATEWAY, OWN, 9090)


@pytest.mark.parametrize(
    ("peer", "reaches"),
    [
        (a_peer(pod_labels=None), ["database", "neighbour"]),
        (a_peer(), ["database", "neighbour"]),
        (a_peer(pod_labels={"app": "neighbour"}), ["neighbour"]),
        (a_peer(namespace_labels={}, pod_labels=None), ["database", "neighbour", "stranger"]),
        (a_peer(namespace_labels={}, pod_labels={"app": "operation-service"}), ["stranger"]),
        (a_peer(pod_labels=None, cidr="0.0.0.0/0", cidr_except=("10.0.0.0/16",)), ["internet"]),
    ],
)
def test_authors_peers(peer: model.NetworkPeer, reaches: list[str]) -> None:
    policy = a_policy(network=network(ingress=(model.NetworkRule((peer,), ()),)))
    sources = (DATABASE, NEIGHBOUR, STRANGER, INTERNET)
    assert [source.name for source in sources if cluster(policy).reaches(source, OWN, 7)] == reaches


def test_a_rule_without_peers_and_ports_admits_everything() -> None:
    policy = a_policy(network=network(ingress=(model.NetworkRule((), ()),)))
    assert cluster(policy).reaches(STRANGER, OWN, 1)


def test_named_ports_of_the_target_are_kept() -> None:
    rule = model.NetworkRule((a_peer(pod_labels={"app": "postgresql"}),), (model.NetworkPort("sql", "TCP"),))
    policy = a_policy(network=network(egress=(rule,)))
    assert cluster(policy).reaches(OWN, replace(DATABASE, ports={"sql": 5433}), 5433)


def test_scraping_switched_off_closes_the_metrics_port() -> None:
    policy = a_policy(network=network(), observability=observability(scrape=None))
    assert not cluster(policy).reaches(PROMETHEUS, OWN, 9090)
    assert cluster(policy).reaches(PROMETHEUS, OWN, 15090)
