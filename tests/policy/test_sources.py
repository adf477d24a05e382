"""Where requests are counted: what each source becomes, and what is refused with which reason."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from perfpolicy.policy import model
from perfpolicy.policy.sources import ISTIO_BOUNDS_MS, counters
from tests.policy.support import problems, resolved

HTTP = {"metrics": {"source": "HTTP", "http": {}}}
CUSTOM = {"metrics": {"source": "Custom", "custom": {"requests": "jobs_total", "bad": 'jobs_total{ok="no"}'}}}
GRANTED = {"grants": [{"name": "all", "workloadCreation": "Allowed", "customMetrics": "Allowed"}]}
FAST = {"name": "fast", "sli": "Latency", "threshold": "250ms", "target": "99%", "windowDays": 30}


def refused(policy: dict[str, Any], cls: dict[str, Any] | None = None) -> dict[str, str]:
    return {problem.path: problem.message for problem in problems(policy, cls)}


def test_istio_is_the_source_that_nobody_names() -> None:
    found = resolved().metrics
    assert (found.source, found.bounds) == (model.IstioSource(), ISTIO_BOUNDS_MS)


def test_envoy_has_istios_buckets() -> None:
    found = resolved({"metrics": {"source": "Envoy", "envoy": {"cluster": "shop|80"}}}).metrics
    assert (found.source, found.bounds) == (model.EnvoySource("shop|80"), ISTIO_BOUNDS_MS)


def test_http_takes_the_usual_names() -> None:
    found = resolved(HTTP).metrics
    assert found.source == model.HttpSource("http_requests_total", "http_request_duration_seconds", False, "code", "path", ())
    assert found.bounds == tuple(map(Decimal, (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)))


def test_http_names_are_the_authors_or_the_classs() -> None:
    names = {"requests": "calls_total", "codeLabel": "status", "buckets": ["1s", "200ms", "1000ms"]}
    cls = {"defaults.metrics": {"source": "HTTP", "http": names}, "defaults.sli": {"excludePaths": ["/healthz"]}}
    found = resolved({"metrics.http": {"pathLabel": "route"}}, cls).metrics
    assert found.source == model.HttpSource("calls_total", "http_request_duration_seconds", False, "status", "route", ("/healthz",))
    assert found.bounds == (Decimal(200), Decimal(1000))


def test_a_native_histogram_has_every_boundary_that_is_asked_for() -> None:
    policy = {"metrics": {"source": "HTTP", "http": {"histogram": "Native"}}, "objectives": [{**FAST, "threshold": "333ms"}]}
    policy["thresholds"] = {"latency": [{"quantile": "p95", "max": "444ms"}]}
    assert set(resolved(policy).metrics.bounds) == {*ISTIO_BOUNDS_MS, Decimal(333), Decimal(444)}
    assert resolved(policy).objectives[0].threshold == timedelta(milliseconds=333)


@pytest.mark.parametrize(("source", "block"), [("Envoy", "envoy"), ("HTTP", "http"), ("Custom", "custom")])
def test_a_source_needs_its_block(source: str, block: str) -> None:
    (message,) = (text for path, text in refused({"metrics": {"source": source}}).items() if path == f"spec.metrics.{block}")
    assert f"required for source: {source}" in message


def test_a_block_of_another_source_is_refused() -> None:
    assert refused({"metrics.http": {}}) == {"spec.metrics.http": "only read with source: HTTP; the source is Istio"}
    # A class may hold it ready for those that choose the source.
    assert refused({}, {"defaults.metrics": {"http": {"requests": "calls_total"}}}) == {}


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        ({**HTTP, "sli": {"reporter": "Source"}}, "spec.sli.reporter"),
        ({**HTTP, "sli": {"grpcBadCodes": ["Internal"]}}, "spec.sli.grpcBadCodes"),
        ({**CUSTOM, "sli": {"badCodes": ["5xx"]}}, "spec.sli.badCodes"),
        ({"sli": {"excludePaths": ["/healthz"]}}, "spec.sli.excludePaths"),
        ({**CUSTOM, "thresholds.latency": [{"quantile": "p95", "max": "1s"}]}, "spec.thresholds.latency"),
        ({**CUSTOM, "objectives": [FAST]}, "spec.objectives[0]"),
        ({"metrics": {"source": "HTTP", "http": {"histogram": "Native", "buckets": ["1s"]}}}, "spec.metrics.http.buckets"),
    ],
)
def test_what_a_source_cannot_tell_is_refused(policy: dict[str, Any], path: str) -> None:
    assert list(refused(policy, GRANTED)) == [path]


def test_an_objective_sits_on_a_boundary_of_its_own_source() -> None:
    policy = {"metrics": {"source": "HTTP", "http": {"buckets": ["100ms", "300ms"]}}, "objectives": [FAST]}
    assert refused(policy) == {
        "spec.objectives[0].threshold": "250ms is not a bucket boundary of the HTTP metrics; use one of 100ms, 300ms"
    }


def test_what_a_class_promises_and_custom_counters_cannot_tell_is_left_out() -> None:
    latency = {"latency": [{"quantile": "p95", "max": "1s"}]}
    assert resolved(CUSTOM, {**GRANTED, "defaults.thresholds": latency}).thresholds.latency == ()


def test_custom_metrics_are_granted() -> None:
    (message,) = refused(CUSTOM).values()
    assert message == "class plain does not grant namespace shops custom metrics (customMetrics: Allowed)"
    found = resolved(CUSTOM, GRANTED).metrics
    assert found.source == model.CustomSource(model.Counters("jobs_total", ()), model.Counters("jobs_total", (("ok", "=", "no"),)))
    assert found.bounds == ()
    # What the class itself selects needs no grant.
    assert refused({}, {"defaults.metrics": CUSTOM["metrics"]}) == {}


def test_requests_on_a_tcp_service_can_be_promised_where_the_application_counts_them() -> None:
    tcp = {"service.appProtocol": "Tcp", "thresholds.errorRate": {"max": "1%"}}
    assert list(refused(tcp)) == ["spec.thresholds.errorRate"]
    assert resolved({**tcp, **HTTP}).thresholds.error_rate == Decimal("0.01")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("jobs_total{", "does not parse as PromQL"),
        ('jobs_total{ok=~"("}', "does not parse as PromQL"),
        ("sum(jobs_total)", "this is an aggregation"),
        ("rate(jobs_total[5m])", "this is a function call"),
        ("jobs_total[5m]", "this is a range"),
        ("jobs_total[5m:1m]", "this is a subquery"),
        ("jobs_total + jobs_total", "this is an operation"),
        ("-jobs_total", "this is an operation"),
        ("(jobs_total)", "this is parentheses"),
        ("1", "this is a number"),
        ("jobs_total offset 5m", "without offset and @"),
        ("jobs_total @ 5", "without offset and @"),
        ('{__name__=~"jobs.*"}', "must name its metric"),
        ('jobs_total{__name__="x"}', "does not parse as PromQL"),
        ("perfpolicy:judged:step", "is recorded by the rules"),
        ('jobs_total{a="1" or b="2"}', "is not Prometheus' PromQL"),
        ('jobs_total{namespace="other"}', "leaves the policy's namespace"),
        ('jobs_total{namespace=~"shops"}', "leaves the policy's namespace"),
        ('jobs_total{namespace!="shops"}', "leaves the policy's namespace"),
        ('jobs_total{ok=~"a{2000}"}', "RE2, which Prometheus uses"),
        ('jobs_total{ok=~"(?x)a b"}', "RE2, which Prometheus uses"),
    ],
)
def test_a_custom_selector_that_is_none_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        counters(text, "shops")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1", "a number, and gives a scalar, not counters"),
        ("time()", "a function call, and gives a scalar, not counters"),
        ("scalar(jobs_total)", "a function call, and gives a scalar, not counters"),
        ("-(1 + 2)", "an operation, and gives a scalar, not counters"),
        ('"jobs_total"', "a text, and gives a string, not counters"),
        ("jobs_total[5m]", "a range: write it without [...], and gives a range vector: samples, not the newest one"),
        ("(jobs_total)[5m:1m]", "a subquery, and gives a range vector: samples, not the newest one"),
        ("sum by (queue, code) (jobs_total)", "an aggregation, and gives several series, one for each queue, code"),
        ("sum without (pod) (jobs_total)", "an aggregation, and gives several series, one for each set of labels without pod"),
        ("sum by (queue) (bad_total) / sum by (queue) (jobs_total)", "an operation, and gives several series, one for each queue"),
        ("100 * sum by (queue) (jobs_total)", "an operation, and gives several series, one for each queue"),
        ("rate(bad_total[5m]) / rate(jobs_total[5m])", "an operation"),
        ("time() - jobs_total", "an operation"),
        ("sum(jobs_total)", "an aggregation"),
        ("sum by () (jobs_total)", "an aggregation"),
        ("vector(1)", "a function call"),
    ],
)
def test_what_an_expression_gives_instead_of_counters_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="must be one selector") as refusal:
        counters(text, "shops")
    assert str(refusal.value) == f'must be one selector of counters, such as jobs_total{{queue="mail"}}; this is {told}'


def test_it_is_told_at_its_field() -> None:
    ratio = "sum by (queue) (bad_total) / sum by (queue) (jobs_total)"
    custom = {"metrics": {"source": "Custom", "custom": {"requests": "time()", "bad": ratio}}}
    found = refused(custom, GRANTED)
    assert found["spec.metrics.custom.requests"].endswith("this is a function call, and gives a scalar, not counters")
    assert found["spec.metrics.custom.bad"].endswith("gives several series, one for each queue")


def test_the_own_namespace_may_be_named() -> None:
    assert counters('jobs_total{namespace="shops"}', "shops").name == "jobs_total"
