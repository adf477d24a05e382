"""Every source counts the same things: judged requests, errors, and durations in milliseconds, of the policy's own pods only."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from perfpolicy.policy import model
from perfpolicy.policy.sources import ISTIO_BOUNDS_MS
from perfpolicy.promql import names, sources
from perfpolicy.promql.rules import rule_groups
from tests import builders as a
from tests.promql import promtool, series
from tests.promql.conftest import Check
from tests.promql.promtool import Expect, Scenario, counter

AT = timedelta(minutes=9)
BOUNDS = tuple(map(Decimal, (100, 250, 500, 1000, 2500)))
HTTP = model.HttpSource("http_requests_total", "http_request_duration_seconds", False, "code", "path", ("/healthz", "/a.b"))
ENVOY = model.EnvoySource('shop|"80"')
CUSTOM = model.CustomSource(model.Counters("jobs_total", (("queue", "=", 'a"b\\c'),)), model.Counters("jobs_failed_total", ()))


def policy_of(source: model.Source, bounds: tuple[Decimal, ...] = BOUNDS, **changes: Any) -> model.Policy:
    latency = {} if bounds else {"thresholds": a.thresholds(latency=())}
    return a.a_policy(metrics=a.a_metrics_source(source=source, bounds=bounds), **{**latency, **changes})


def raw(metric: str, **labels: str) -> str:
    base = {"namespace": "ce-hub", "pod": series.POD, "job": "pods", "instance": "10.0.0.1:9090"}
    values = ", ".join(f'{key}="{value}"' for key, value in sorted((base | labels).items()))
    return f"{metric}{{{values}}}"


def told(policy: model.Policy, expected: Mapping[str, float], data: Mapping[str, str], check: Check) -> None:
    """The values of recorded series: `name` or `name/le`."""
    found = []
    for name, value in expected.items():
        series_name, _, bound = name.partition("/")
        labels = {"le": bound} if bound else {}
        matcher = f'{{le="{bound}"}}' if bound else ""
        found.append(Expect(series_name + matcher, AT, {series.recorded(policy, series_name, **labels): value}))
    check(rule_groups(policy)[:1], Scenario(data, found))


def test_the_applications_own_counters(check: Check) -> None:
    data = {
        raw("http_requests_total", code="200", path="/"): counter(9, 12),
        raw("http_requests_total", code="503", path="/"): counter(1, 12),
        raw("http_requests_total", code="5xx", path="/other"): counter(0.5, 12),
        raw("http_requests_total", code="429", path="/"): counter(5, 12),
        raw("http_requests_total", code="500", path="/healthz"): counter(7, 12),
        raw("http_requests_total", code="500", path="/a.b"): counter(7, 12),
        # Another workload's pod, and another namespace's that carries our pod's name.
        raw("http_requests_total", code="500", path="/", pod="operation-service-canary-7d9f8c6b5-x2x4z"): counter(100, 12),
        raw("http_requests_total", code="500", path="/", namespace="other"): counter(100, 12),
    }
    expected = {names.OFFERED_STEP: 15.5 * 30, names.JUDGED_STEP: 10.5 * 30, names.ERRORS_STEP: 1.5 * 30}
    told(policy_of(HTTP), expected, data, check)


@pytest.mark.parametrize("spelled", ["1", "1.0"])
def test_seconds_become_milliseconds(check: Check, spelled: str) -> None:
    metric = "http_request_duration_seconds"
    data = {
        raw(f"{metric}_bucket", code="200", le="0.25"): counter(8, 12),
        raw(f"{metric}_bucket", code="200", le="0.2"): counter(1, 12),
        raw(f"{metric}_bucket", code="200", le=spelled): counter(9, 12),
        raw(f"{metric}_bucket", code="200", le="+Inf"): counter(10, 12),
        raw(f"{metric}_bucket", code="429", le="+Inf"): counter(50, 12),
        raw(f"{metric}_sum", code="200"): counter(2, 12),
        raw("http_requests_total", code="200"): counter(10, 12),
    }
    bucket = names.DURATION_BUCKET_STEP
    expected = {f"{bucket}/250": 240, f"{bucket}/1000": 270, f"{bucket}/+Inf": 300, names.DURATION_SUM_STEP: 60000}
    told(policy_of(HTTP), expected | {names.LATENCY_MEAN: 0.2, names.SLOW_RATIO: 0.1}, data, check)


def test_a_native_histogram_is_read_like_a_classic_one(check: Check) -> None:
    source = model.HttpSource("http_requests_total", "http_request_duration_seconds", True, "code", "path", ())
    # Schema 0: upper bounds 0.25, 0.5, 1, 2 s from offset -2; 12 requests a scrape, a quarter of them in each bucket, 9 s together.
    growth = "{{schema:0 sum:9 count:12 offset:-2 buckets:[3 3 3 3]}}"
    data = {
        raw("http_request_duration_seconds", code="200"): f"{growth}+{growth}x60",
        raw("http_requests_total", code="200"): counter(0.8, 15),
    }
    bucket = names.DURATION_BUCKET_STEP
    bounds = (*ISTIO_BOUNDS_MS, Decimal(2000))
    expected = {f"{bucket}/250": 6, f"{bucket}/500": 12, f"{bucket}/1000": 18, f"{bucket}/+Inf": 24, names.DURATION_SUM_STEP: 18000}
    told(policy_of(source, tuple(sorted(bounds))), expected | {f"{bucket}/2000": 24}, data, check)


def test_a_native_histogram_that_starts_anew_or_stands_still_poisons_nothing(check: Check) -> None:
    source = model.HttpSource("http_requests_total", "http_request_duration_seconds", True, "code", "path", ())
    high, low = (f"{{{{schema:0 sum:{n} count:{n} offset:-2 buckets:[{n} 0 0 0]}}}}" for n in (900, 3))
    data = {
        raw("http_request_duration_seconds", code="200"): f"{high}x20 {low}x40",
        raw("http_requests_total", code="200"): counter(1, 15),
    }
    told(policy_of(source, ISTIO_BOUNDS_MS), {f"{names.DURATION_BUCKET_STEP}/500": 0, f"{names.DURATION_BUCKET_STEP}/+Inf": 0}, data, check)
    summed = Expect(f'sum_over_time({names.DURATION_BUCKET_STEP}{{le="+Inf"}}[9m]) >= bool 0', AT, {_only_labels(policy_of(source)): 1})
    check(rule_groups(policy_of(source))[:1], Scenario(data, [summed]))


def _only_labels(policy: model.Policy) -> str:
    return series.recorded(policy, "", le="+Inf")


def test_envoys_upstream_statistics(check: Check) -> None:
    cluster = r"shop|\"80\""
    data = {
        raw("envoy_cluster_upstream_rq", envoy_cluster_name=cluster, envoy_response_code="200"): counter(9, 12),
        raw("envoy_cluster_upstream_rq", envoy_cluster_name=cluster, envoy_response_code="503"): counter(1, 12),
        raw("envoy_cluster_upstream_rq", envoy_cluster_name=cluster, envoy_response_code="429"): counter(2, 12),
        raw("envoy_cluster_upstream_rq", envoy_cluster_name="other", envoy_response_code="503"): counter(9, 12),
        raw("envoy_cluster_upstream_rq_time_bucket", envoy_cluster_name=cluster, le="250"): counter(9, 12),
        raw("envoy_cluster_upstream_rq_time_bucket", envoy_cluster_name=cluster, le="+Inf"): counter(10, 12),
        raw("envoy_cluster_upstream_rq_time_sum", envoy_cluster_name=cluster): counter(500, 12),
    }
    expected = {names.OFFERED_STEP: 360, names.JUDGED_STEP: 300, names.ERRORS_STEP: 30, f"{names.DURATION_BUCKET_STEP}/250": 270}
    told(policy_of(ENVOY, ISTIO_BOUNDS_MS), expected | {names.DURATION_SUM_STEP: 15000}, data, check)


def test_custom_counters(check: Check) -> None:
    data = {
        raw("jobs_total", queue=r"a\"b\\c"): counter(10, 12),
        raw("jobs_total", queue="other"): counter(10, 12),
        raw("jobs_failed_total"): counter(2, 12),
        raw("jobs_failed_total", namespace="other"): counter(50, 12),
    }
    expected = {names.OFFERED_STEP: 300, names.JUDGED_STEP: 300, names.ERRORS_STEP: 60, names.ERROR_RATIO: 0.2}
    told(policy_of(CUSTOM, ()), expected, data, check)
    assert sources.durations(policy_of(CUSTOM, ())) is None


HOSTILE = '"}) or vector(1) # \\ \n {{ query }}'


@pytest.mark.parametrize(
    "source",
    [
        model.EnvoySource(HOSTILE),
        model.HttpSource("a", "b", False, "c", "d", (HOSTILE, "/(")),
        model.HttpSource("a", "b", True, "c", "d", (HOSTILE,)),
        model.CustomSource(model.Counters("a", (("x", "=", HOSTILE),)), model.Counters("b", (("x", "!~", "a|b"),))),
    ],
    ids=["Envoy", "HTTP", "HTTP native", "Custom"],
)
def test_prometheus_takes_the_rules_whatever_the_values_are(source: model.Source, tmp_path: Path) -> None:
    promtool.run(tmp_path, rule_groups(policy_of(source, () if isinstance(source, model.CustomSource) else BOUNDS)), Scenario({}, []))
