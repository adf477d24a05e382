"""Towards the Service: subsets, TLS, balancing, pools, outlier detection."""

from datetime import timedelta

import pytest

from perfpolicy.policy import model
from perfpolicy.render import Manifest
from tests.builders import (
    a_circuit_breaker,
    a_connection_pool,
    a_load_balancer,
    a_policy,
    a_port,
    a_service,
    security,
    traffic,
)
from tests.render.support import all_of, spec_of


def balancer(balancer: model.LoadBalancer) -> Manifest:
    policy = a_policy(traffic=traffic(load_balancer=balancer))
    rendered: Manifest = spec_of(policy, "DestinationRule")["trafficPolicy"]["loadBalancer"]
    return rendered


def test_nothing_asked_for_renders_nothing() -> None:
    assert all_of(a_policy(security=security(mtls=model.Mtls.PERMISSIVE)), "DestinationRule") == {}


def test_strict_alone_says_istio_mutual() -> None:
    assert spec_of(a_policy(security=security(mtls=model.Mtls.STRICT)), "DestinationRule") == {
        "host": "operation-service.ce-hub.svc.cluster.local",
        "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}},
    }


def test_callers_are_not_told_to_use_mtls_towards_pods_without_a_sidecar() -> None:
    assert all_of(a_policy(in_mesh=False, security=security(mtls=model.Mtls.STRICT)), "DestinationRule") == {}


def test_subsets_alone_have_no_traffic_policy() -> None:
    spec = spec_of(a_policy(traffic=traffic(subsets=(model.Subset("canary", {"version": "canary"}),))), "DestinationRule")
    assert spec["subsets"] == [{"name": "canary", "labels": {"version": "canary"}}]
    assert "trafficPolicy" not in spec


@pytest.mark.parametrize(
    ("algorithm", "simple"),
    [
        (model.Algorithm.ROUND_ROBIN, "ROUND_ROBIN"),
        (model.Algorithm.LEAST_REQUEST, "LEAST_REQUEST"),
        (model.Algorithm.RANDOM, "RANDOM"),
    ],
)
def test_simple_balancing(algorithm: model.Algorithm, simple: str) -> None:
    assert balancer(a_load_balancer(algorithm=algorithm)) == {"simple": simple}


@pytest.mark.parametrize(
    ("hashed", "key"),
    [
        ({"hash_header": "x-user"}, {"httpHeaderName": "x-user"}),
        ({"hash_cookie": "session"}, {"httpCookie": {"name": "session", "ttl": "0s"}}),
        ({"hash_source_ip": True}, {"useSourceIp": True}),
    ],
)
def test_consistent_hash(hashed: dict[str, object], key: Manifest) -> None:
    assert balancer(a_load_balancer(algorithm=model.Algorithm.CONSISTENT_HASH, **hashed)) == {"consistentHash": key}


def test_warm_up() -> None:
    assert balancer(a_load_balancer(warmup=timedelta(minutes=1)))["warmup"] == {"duration": "60s"}


@pytest.mark.parametrize(
    ("locality", "rendered"),
    [
        (model.LocalityBalancing(True, {}, {}), {"enabled": True}),
        (model.LocalityBalancing(False, {}, {}), {"enabled": False}),
        (model.LocalityBalancing(True, {"eu": "us"}, {}), {"enabled": True, "failover": [{"from": "eu", "to": "us"}]}),
        (
            model.LocalityBalancing(True, {}, {"eu/*": {"eu/*": 80, "us": 20}}),
            {"enabled": True, "distribute": [{"from": "eu/*", "to": {"eu/*": 80, "us": 20}}]},
        ),
    ],
)
def test_localities(locality: model.LocalityBalancing, rendered: Manifest) -> None:
    assert balancer(a_load_balancer(locality=locality))["localityLbSetting"] == rendered


def test_every_algorithm_is_known() -> None:
    for algorithm in model.Algorithm:
        assert balancer(a_load_balancer(algorithm=algorithm, hash_source_ip=True))


def test_pool_of_an_http_service() -> None:
    pool = a_connection_pool(connect_timeout=timedelta(seconds=3), max_pending_requests=1, max_requests=2, max_requests_per_connection=3)
    assert spec_of(a_policy(traffic=traffic(connection_pool=pool)), "DestinationRule")["trafficPolicy"]["connectionPool"] == {
        "tcp": {"maxConnections": 10, "connectTimeout": "3s", "maxConnectionDuration": "3600s"},
        "http": {"http1MaxPendingRequests": 1, "http2MaxRequests": 2, "maxRequestsPerConnection": 3, "idleTimeout": "300s"},
    }


def test_pool_of_a_tcp_service_has_no_http_fields() -> None:
    service = a_service(ports=(a_port("tcp", 5432, 5432, model.Protocol.TCP),))
    policy = a_policy(service=service, traffic=traffic(connection_pool=a_connection_pool(max_pending_requests=1)))
    assert spec_of(policy, "DestinationRule")["trafficPolicy"]["connectionPool"] == {
        "tcp": {"maxConnections": 10, "maxConnectionDuration": "3600s", "idleTimeout": "300s"}
    }


def test_circuit_breaker_is_outlier_detection() -> None:
    policy = a_policy(traffic=traffic(circuit_breaker=a_circuit_breaker(min_health_percent=20)))
    assert spec_of(policy, "DestinationRule")["trafficPolicy"] == {
        "outlierDetection": {
            "consecutive5xxErrors": 5,
            "interval": "30s",
            "baseEjectionTime": "30s",
            "maxEjectionPercent": 50,
            "minHealthPercent": 20,
        }
    }
