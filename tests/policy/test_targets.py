"""Promises and their measurement in the model."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from perfpolicy.policy import model
from perfpolicy.policy.sources import ISTIO_BOUNDS_MS
from tests.policy.support import problems, resolved, targeted

OBJECTIVE = {"name": "up", "sli": "Availability", "target": "99.9%", "windowDays": 30}


def test_texts_become_numbers() -> None:
    found = resolved(
        {
            "workload.deployment.resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}},
            "thresholds": {
                "window": "1m",
                "latency": [{"quantile": "p99.9", "max": "2s"}, {"quantile": "p50", "max": "100ms"}],
                "errorRate": {"max": "5%"},
                "throughput": {"min": "1000", "target": "5000", "max": "10000"},
                "resources": {"cpu": "70%", "memory": "80%"},
            },
        }
    ).thresholds
    assert found == model.Thresholds(
        window=timedelta(minutes=1),
        latency=(
            model.LatencyLimit("p50", Decimal("0.5"), timedelta(milliseconds=100)),
            model.LatencyLimit("p99.9", Decimal("0.999"), timedelta(seconds=2)),
        ),
        error_rate=Decimal("0.05"),
        throughput=model.Throughput(Decimal(1000), Decimal(5000), Decimal(10000)),
        cpu=Decimal("0.7"),
        memory=Decimal("0.8"),
    )


def test_disabled_and_left_out_limits_are_none() -> None:
    cls = {"defaults.thresholds": {"errorRate": {"max": "5%"}, "throughput": {"min": "1"}, "resources": {"cpu": "1%"}}}
    off = {"mode": "Disabled"}
    found = resolved({"thresholds": {"errorRate": off, "throughput": off, "resources": off}}, cls).thresholds
    assert (found.error_rate, found.throughput, found.cpu, found.memory) == (None, model.Throughput(None, None, None), None, None)
    assert found.latency == ()


@pytest.mark.parametrize("block", ["errorRate", "throughput", "resources"])
def test_a_limit_without_figure_is_refused(block: str) -> None:
    assert [p.path for p in problems({f"thresholds.{block}": {"mode": "Enabled"}})] == [f"spec.thresholds.{block}"]


def test_a_window_must_hold_a_recorded_step() -> None:
    (problem,) = problems({"thresholds.window": "20s"})
    assert (problem.path, "ruleInterval, 30s" in problem.message) == ("spec.thresholds.window", True)
    assert problems({"thresholds.window": "20s"}, {"metrics.ruleInterval": "10s"}) == []


def test_objectives() -> None:
    latency = {"name": "fast", "sli": "Latency", "target": "99%", "windowDays": 7, "threshold": "500ms"}
    assert resolved({"objectives": [OBJECTIVE, latency]}).objectives == (
        model.Objective("up", Decimal("0.999"), 30, None),
        model.Objective("fast", Decimal("0.99"), 7, timedelta(milliseconds=500)),
    )


def test_a_latency_objective_sits_on_a_bucket_boundary() -> None:
    latency = {"name": "fast", "sli": "Latency", "target": "99%", "windowDays": 7, "threshold": "300ms"}
    (problem,) = problems({"objectives": [latency]})
    assert problem.path == "spec.objectives[0].threshold"
    assert "use one of 1ms, 5ms, 10ms, 25ms, 50ms, 100ms, 250ms, 500ms, 1s, 2s500ms, 5s, 10s, 30s, 1m, 5m, 10m, 30m, 1h" in problem.message


def test_the_sli_defaults_are_the_documented_ones() -> None:
    assert resolved().sli == model.Sli(model.Reporter.DESTINATION, ("5xx",), (2, 4, 13, 14, 15))
    assert resolved({"sli": {"reporter": "Source", "badCodes": ["500", "429"], "grpcBadCodes": []}}).sli == model.Sli(
        model.Reporter.SOURCE, ("500", "429"), ()
    )


def test_the_metrics_source_is_the_classs() -> None:
    cls = {
        "metrics": {
            "address": "https://mimir.corp/prometheus/",
            "tenant": "shop",
            "authFile": "/etc/auth/token",
            "timeout": "3s",
            "scrapeInterval": "5s",
            "ruleInterval": "10s",
            "ruleQueryOffset": "1m",
            "matchers": [{"name": "cluster", "value": 'a"b'}],
        }
    }
    found = resolved({"metrics": {"noData": "Hold", "noTraffic": "Met", "minimumRate": "2.5", "slowRequest": "250ms"}}, cls).metrics
    assert found == model.MetricsSource(
        provider=model.Provider(
            address="https://mimir.corp/prometheus",
            tenant="shop",
            auth_file="/etc/auth/token",
            timeout=timedelta(seconds=3),
            scrape_interval=timedelta(seconds=5),
            rule_interval=timedelta(seconds=10),
            query_offset=timedelta(minutes=1),
            matchers=(("cluster", 'a"b'),),
        ),
        source=model.IstioSource(),
        bounds=ISTIO_BOUNDS_MS,
        minimum_rate=Decimal("2.5"),
        no_data_hold=True,
        no_traffic_met=True,
        slow_request=timedelta(milliseconds=250),
    )


def test_the_metrics_defaults_are_the_documented_ones() -> None:
    found = resolved().metrics
    assert (found.minimum_rate, found.slow_request, found.no_data_hold, found.no_traffic_met) == (
        Decimal("0.1"),
        timedelta(seconds=1),
        False,
        False,
    )
    assert (found.provider.address, found.provider.timeout) == ("http://prometheus.monitoring.svc:9090", timedelta(seconds=10))
    assert (found.provider.scrape_interval, found.provider.rule_interval) == (timedelta(seconds=15), timedelta(seconds=30))


def test_alerts_are_written_unless_disabled() -> None:
    assert resolved().observability.alerts == model.Alerts({}, None, ())
    assert resolved({"observability.alerts": {"mode": "Disabled"}}).observability.alerts is None
    alerts = {"labels": {"team": "a"}, "runbook": "https://wiki/x", "disabled": ["HighErrorRate"]}
    assert resolved({"observability.alerts": alerts}).observability.alerts == model.Alerts(
        {"team": "a"}, "https://wiki/x", ("HighErrorRate",)
    )


def test_scraping_needs_a_metrics_port() -> None:
    assert [p.path for p in problems({"observability.scrape": {}})] == ["spec.service.metricsPort"]
    found = resolved({"observability.scrape": {}, "service.metricsPort": 9090}, {"metrics.scrapeInterval": "5s"}).observability.scrape
    assert found == model.Scrape("/metrics", timedelta(seconds=5))
    slower = {"observability.scrape": {"interval": "1m"}, "service.metricsPort": 9090}
    assert resolved(slower).observability.scrape == model.Scrape("/metrics", timedelta(minutes=1))


def test_a_pod_monitor_is_refused_where_its_port_is_the_applications_own_and_closed() -> None:
    spec = {"observability.scrape": {"podMonitor": "Enabled"}, "service.metricsPort": 9090}
    scrape = resolved(spec).observability.scrape
    assert scrape is not None
    assert scrape.pod_monitor
    shared = {
        "workload": {"targetRef": {"group": "apps", "kind": "Deployment", "name": "shop"}, "serviceRef": {"name": "shop"}},
        "observability.scrape": {"podMonitor": "Enabled"},
        "service": {"metricsPort": 8080},
    }
    assert [p.path for p in problems(shared, facts=targeted())] == ["spec.observability.scrape.podMonitor"]
    assert problems(shared, facts=replace(targeted(), in_mesh=False)) == []


def test_a_classs_scraping_waits_for_a_metrics_port() -> None:
    assert resolved({}, {"defaults.observability.scrape.path": "/m"}).observability.scrape is None


def test_rule_labels_are_the_classs() -> None:
    assert dict(resolved({}, {"labels.rules": {"release": "prom"}}).observability.rule_labels) == {"release": "prom"}


def test_mode_and_suspend() -> None:
    assert (resolved().mode, resolved().suspended) == (model.Mode.ENFORCE, False)
    changed = resolved({"mode": "Observe", "suspend": "All"})
    assert (changed.mode, changed.suspended) == (model.Mode.OBSERVE, True)


@pytest.mark.parametrize("name", ["cpu", "memory"])
def test_a_share_of_a_limit_needs_a_limit_or_request(name: str) -> None:
    limit = {f"thresholds.resources.{name}": "70%"}
    (problem,) = problems(limit)
    assert problem.path == f"spec.thresholds.resources.{name}"
    assert f"resources.limits.{name} or resources.requests.{name}" in problem.message
    by_class = resolved({}, {f"defaults.thresholds.resources.{name}": "70%"}).thresholds
    assert (by_class.cpu, by_class.memory) == (None, None)
