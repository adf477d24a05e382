"""Scraping of the application for a Prometheus run by prometheus-operator."""

from datetime import timedelta
from typing import Any

from perfpolicy.policy import model
from perfpolicy.render import EVERYTHING, GroupKind, render
from tests import builders as a
from tests.render.support import all_of, spec_of

POD_MONITOR = GroupKind("monitoring.coreos.com", "PodMonitor")
STATS = model.Scrape("/stats", timedelta(seconds=25), True)


def monitored(**changes: Any) -> model.Policy:
    return a.a_policy(observability=a.observability(scrape=STATS), **changes)


def test_the_pods_metrics_port_is_asked_at_the_path_and_interval() -> None:
    assert spec_of(monitored(), "PodMonitor") == {
        "selector": {"matchLabels": {"app": "operation-service"}},
        "podMetricsEndpoints": [{"portNumber": 9090, "path": "/stats", "interval": "25s"}],
    }


def test_it_carries_the_classs_labels() -> None:
    assert all_of(monitored(), "PodMonitor")["operation-service"]["metadata"]["labels"]["prometheus"] == "lab"


def test_it_is_written_only_where_it_is_asked_for() -> None:
    assert all_of(a.a_policy(), "PodMonitor") == {}
    assert all_of(a.a_policy(observability=a.observability(scrape=None)), "PodMonitor") == {}


def test_the_port_it_asks_is_the_one_that_strict_leaves_open() -> None:
    policy = monitored(security=a.security(mtls=model.Mtls.STRICT, default_deny=True))
    (endpoint,) = spec_of(policy, "PodMonitor")["podMetricsEndpoints"]
    assert spec_of(policy, "PeerAuthentication")["portLevelMtls"] == {str(endpoint["portNumber"]): {"mode": "PERMISSIVE"}}
    (allowed,) = spec_of(policy, "AuthorizationPolicy", "operation-service-allow")["rules"]
    assert allowed["to"] == [{"operation": {"methods": ["GET"], "paths": [endpoint["path"]], "ports": [str(endpoint["portNumber"])]}}]


def test_without_its_definition_the_rest_is_written_and_it_is_named() -> None:
    rendering = render(monitored(), EVERYTHING - {POD_MONITOR})
    assert rendering.missing == (POD_MONITOR,)
    assert [manifest["kind"] for manifest in rendering.manifests] == ["PrometheusRule"]
