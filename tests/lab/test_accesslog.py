"""Access log entries become the labels Istio's own filter would give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lab.accesslog import FORMAT, Inventory, Pod, Service, key_of, labels_of, pod_from, service_from, workload_of

CLIENT_SAN = "spiffe://cluster.local/ns/load/sa/default"
SERVER_SAN = "spiffe://cluster.local/ns/ce-hub/sa/operation-service"


def pod(name: str = "operation-service-7d9f-abcde", **changes: Any) -> Pod:
    values: dict[str, Any] = {
        "name": name,
        "namespace": "ce-hub",
        "uid": f"uid-{name}",
        "address": "10.213.0.5",
        "workload": "operation-service",
        "labels": {"app": "operation-service", "version": "stable"},
        "named_ports": {"http": 8080},
        "gateway": False,
        "has_proxy": True,
    }
    return Pod(**{**values, **changes})


SERVER = pod()
CLIENT = pod("k6-1", namespace="load", address="10.213.0.9", workload="k6", labels={"app": "k6"}, named_ports={})
SERVICE = Service("operation-service", "ce-hub", {"app": "operation-service"}, frozenset({"http"}), "2026-01-02T00:00:00Z")
KNOWN = Inventory({SERVER.address: SERVER, CLIENT.address: CLIENT}, (SERVICE,))


def entry(**changes: Any) -> dict[str, Any]:
    """What a sidecar logs for one request it received; every key of FORMAT is there, None where Envoy has no value."""
    values: dict[str, Any] = {
        **dict.fromkeys(FORMAT),
        "duration": 12,
        "protocol": "HTTP/1.1",
        "authority": "operation-service.ce-hub",
        "response_code": 200,
        "response_flags": "-",
        "upstream_cluster": "inbound|8080||",
        "upstream_host": "10.213.0.5:8080",
        "downstream_local_address": "10.213.0.5:8080",
        "downstream_peer_address": "10.213.0.9:41234",
        "downstream_local_san": SERVER_SAN,
        "downstream_peer_san": CLIENT_SAN,
    }
    return {**values, **changes}


OUTBOUND: Mapping[str, Any] = {
    "upstream_cluster": "outbound|80|stable|operation-service.ce-hub.svc.cluster.local",
    "downstream_local_address": "10.214.3.3:80",
    "downstream_peer_address": "10.213.0.9:55555",
    "downstream_peer_san": None,
    "downstream_local_san": None,
    "upstream_local_san": CLIENT_SAN,
    "upstream_peer_san": SERVER_SAN,
}


def labels(logged: Mapping[str, Any], proxy: Pod, inventory: Inventory = KNOWN) -> dict[str, str]:
    key = key_of(logged)
    assert key is not None
    return labels_of(key, proxy, inventory)


def test_a_received_request_is_reported_by_its_destination() -> None:
    assert labels(entry(), SERVER) == {
        "reporter": "destination",
        "source_workload": "k6",
        "source_workload_namespace": "load",
        "source_principal": CLIENT_SAN,
        "source_app": "k6",
        "source_version": "unknown",
        "source_canonical_service": "k6",
        "source_canonical_revision": "latest",
        "source_cluster": "Kubernetes",
        "destination_workload": "operation-service",
        "destination_workload_namespace": "ce-hub",
        "destination_principal": SERVER_SAN,
        "destination_app": "operation-service",
        "destination_version": "stable",
        "destination_canonical_service": "operation-service",
        "destination_canonical_revision": "stable",
        "destination_cluster": "Kubernetes",
        "destination_service": "operation-service.ce-hub.svc.cluster.local",
        "destination_service_name": "operation-service",
        "destination_service_namespace": "ce-hub",
        "request_protocol": "http",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
    }


def test_a_sent_request_is_reported_by_its_source() -> None:
    found = labels(entry(**OUTBOUND), CLIENT)
    expected = {
        "reporter": "source",
        "source_workload": "k6",
        "source_principal": CLIENT_SAN,
        "destination_workload": "operation-service",
        "destination_principal": SERVER_SAN,
        "destination_version": "stable",
        "destination_service": "operation-service.ce-hub.svc.cluster.local",
        "destination_service_name": "operation-service",
        "destination_service_namespace": "ce-hub",
        "connection_security_policy": "unknown",
    }
    assert {name: found[name] for name in expected} == expected


def test_both_reporters_have_the_same_label_names() -> None:
    assert labels(entry(), SERVER).keys() == labels(entry(**OUTBOUND), CLIENT).keys()


def test_plaintext_is_told_from_mutual_tls() -> None:
    found = labels(entry(downstream_peer_san=None), SERVER)
    assert (found["connection_security_policy"], found["source_principal"]) == ("none", "unknown")


def test_a_request_that_reached_no_upstream_keeps_its_service_and_flags() -> None:
    found = labels(entry(**{**OUTBOUND, "upstream_host": None, "response_code": 503, "response_flags": "UH"}), CLIENT)
    assert (found["destination_service_name"], found["destination_workload"]) == ("operation-service", "unknown")
    assert (found["response_code"], found["response_flags"]) == ("503", "UH")


def test_a_client_that_left_is_code_0() -> None:
    assert labels(entry(response_code=None, response_flags="DC"), SERVER)["response_code"] == "0"


@pytest.mark.parametrize(
    ("content_type", "protocol", "status"),
    [("application/grpc", "grpc", "14"), ("application/grpc+proto", "grpc", "14"), ("application/json", "http", ""), (None, "http", "")],
)
def test_grpc_is_known_by_its_content_type(content_type: str | None, protocol: str, status: str) -> None:
    found = labels(entry(content_type=content_type, grpc_status=14), SERVER)
    assert (found["request_protocol"], found["grpc_response_status"]) == (protocol, status)


def test_a_connection_that_is_no_http_request_is_not_counted() -> None:
    assert key_of(entry(protocol=None, response_flags="NR", response_code=0)) is None


def test_an_entry_without_cluster_is_inbound_when_it_came_to_the_pods_own_address() -> None:
    refused = entry(upstream_cluster=None, upstream_host=None, response_code=403)
    found = labels(refused, SERVER)
    assert (found["reporter"], found["destination_service_name"]) == ("destination", "operation-service")
    sent = labels({**refused, "downstream_local_address": "10.214.3.3:80"}, SERVER)
    assert (sent["reporter"], sent["destination_service"]) == ("source", "operation-service.ce-hub")


def test_a_gateway_reports_as_source_though_requests_come_to_its_own_address() -> None:
    gateway = pod("ingress-1", namespace="istio-system", address="10.213.0.7", workload="istio-ingress", gateway=True)
    found = labels(entry(upstream_cluster=None, upstream_host=None, response_code=404, downstream_local_address="10.213.0.7:80"), gateway)
    assert (found["reporter"], found["source_workload"], found["response_code"]) == ("source", "istio-ingress", "404")


def test_the_host_a_client_invents_makes_no_series_of_its_own_where_the_service_is_known() -> None:
    assert key_of(entry(authority="a.example")) == key_of(entry(authority="b.example"))
    assert key_of(entry(downstream_peer_address="10.213.0.9:1")) == key_of(entry(downstream_peer_address="10.213.0.9:2"))


def test_a_request_to_no_service_is_named_by_its_cluster() -> None:
    found = labels(entry(**{**OUTBOUND, "upstream_cluster": "PassthroughCluster", "authority": "api.example.com"}), CLIENT)
    assert (found["destination_service_name"], found["destination_service"]) == ("PassthroughCluster", "api.example.com")


def test_of_several_services_on_a_port_the_oldest_is_the_destination() -> None:
    older = Service("operations", "ce-hub", {"app": "operation-service"}, frozenset({8080}), "2026-01-01T00:00:00Z")
    elsewhere = Service("other", "prod", {"app": "operation-service"}, frozenset({8080}), "2025-01-01T00:00:00Z")
    other_port = Service("metrics", "ce-hub", {"app": "operation-service"}, frozenset({9090}), "2025-01-01T00:00:00Z")
    found = labels(entry(), SERVER, Inventory(KNOWN.pods_by_address, (SERVICE, elsewhere, other_port, older)))
    assert found["destination_service_name"] == "operations"


def test_a_service_without_selector_owns_no_pod() -> None:
    found = labels(entry(), SERVER, Inventory({}, (Service("headless", "ce-hub", {}, frozenset({8080}), "2026-01-01T00:00:00Z"),)))
    assert found["destination_service_name"] == "unknown"


@pytest.mark.parametrize(
    ("metadata", "workload"),
    [
        (
            {
                "name": "web-5f6b-x1",
                "labels": {"pod-template-hash": "5f6b"},
                "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "web-5f6b"}],
            },
            "web",
        ),
        ({"name": "db-0", "ownerReferences": [{"controller": True, "kind": "StatefulSet", "name": "db"}]}, "db"),
        ({"name": "bare"}, "bare"),
        ({"name": "x", "labels": {"service.istio.io/workload-name": "given"}}, "given"),
    ],
)
def test_a_pods_workload_is_what_istio_calls_it(metadata: dict[str, Any], workload: str) -> None:
    assert workload_of(metadata) == workload


def test_a_pod_is_read_from_its_api_object() -> None:
    document = {
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "p"}},
        "spec": {
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090}]}],
            "initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}],
        },
        "status": {"phase": "Running", "podIP": "10.213.0.5"},
    }
    found = pod_from(document)
    assert (found.address, found.has_proxy, found.gateway, dict(found.named_ports)) == ("10.213.0.5", True, False, {"http": 8080})
    ended = pod_from({**document, "status": {"phase": "Succeeded", "podIP": "10.213.0.5"}})
    assert (ended.address, ended.has_proxy) == ("", False)


def test_a_service_is_read_from_its_api_object() -> None:
    found = service_from(
        {
            "metadata": {"name": "s", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"selector": {"app": "p"}, "ports": [{"port": 80, "targetPort": "http"}, {"port": 9090}]},
        }
    )
    assert found.ports == frozenset({"http", 9090})
