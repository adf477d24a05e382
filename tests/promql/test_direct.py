"""Values read from raw counters while the rules are not loaded: those the rules would record, of the same series and no others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import promql_parser
import pytest

from perfpolicy.policy import model
from perfpolicy.promql import direct, names
from perfpolicy.promql.rule import RuleGroup, checked
from perfpolicy.promql.rules import rule_groups
from perfpolicy.reconcile.scheduler import DIRECT
from tests import builders as a
from tests.promql import series
from tests.promql.conftest import Check
from tests.promql.promtool import Expect, Scenario, counter

MINUTE = timedelta(minutes=1)
POLICY = a.a_policy()
SOURCES: dict[str, model.Source] = {
    "Istio": model.IstioSource(),
    "Envoy": model.EnvoySource("outbound|80||api"),
    "HTTP": model.HttpSource("http_requests_total", "http_duration_seconds", False, "code", "path", ("/healthz",)),
    "native": model.HttpSource("http_requests_total", "http_duration_seconds", True, "code", "path", ()),
    "Custom": model.CustomSource(model.Counters("jobs_total", ()), model.Counters("jobs_failed_total", (("queue", "=~", "a|b"),))),
}


def of_source(name: str) -> model.Policy:
    bounds: tuple[Decimal, ...] = () if name == "Custom" else POLICY.metrics.bounds
    return replace(POLICY, metrics=a.a_metrics_source(source=SOURCES[name], bounds=bounds))


def group(policy: model.Policy) -> tuple[RuleGroup, ...]:
    """The direct values, recorded by a rule each, so that promtool can look at them."""
    return checked((RuleGroup("direct", timedelta(seconds=30), None, tuple(direct.values(policy))),))


def data() -> dict[str, str]:
    """10 good and 1 bad requests/s, 2/s that our own limits answered, and as many of somebody else's pods."""
    return {
        series.requests(): counter(10, 15),
        series.requests("503"): counter(1, 15),
        series.requests("429", flags="RL"): counter(2, 15),
        series.requests("500", namespace="evil", pod="forger", instance="10.0.0.66:80"): counter(1000, 15),
        **series.histogram({100: 0.5, 250: 0.9, 500: 1.0}, 11, 15),
        series.container("container_memory_working_set_bytes"): "268435456x60",
        series.container("container_cpu_usage_seconds_total"): counter(0.25, 15),
    }


VALUES = {
    names.OFFERED_RATE: 13,
    names.JUDGED_RATE: 11,
    names.SERVED_RATE: 10,
    names.ERROR_RATIO: 1 / 11,
    names.CPU_RATIO: 0.5,
    names.MEMORY_RATIO: 0.5,
}


@pytest.mark.parametrize("groups", [group(POLICY), rule_groups(POLICY)[:1]], ids=["direct", "recorded"])
def test_raw_counters_say_what_the_rules_would_record(check: Check, groups: tuple[RuleGroup, ...]) -> None:
    at = 12 * MINUTE
    expected = [Expect(name, at, {series.recorded(POLICY, name): value}) for name, value in VALUES.items()]
    latencies = {"0.5": 0.1, "0.95": 0.375, "0.99": 0.475}
    quantiles = {series.recorded(POLICY, names.LATENCY_QUANTILE, quantile=each): value for each, value in latencies.items()}
    check(groups, Scenario(data(), [*expected, Expect(names.LATENCY_QUANTILE, at, quantiles)]))


def test_without_an_error_series_there_are_no_errors_and_without_requests_nothing_is_said(check: Check) -> None:
    found = {series.requests(): f"{counter(10, 5)} {'3000x40'}"}
    none = Expect(names.ERROR_RATIO, 4 * MINUTE, {series.recorded(POLICY, names.ERROR_RATIO): 0})
    silent = [Expect(name, 14 * MINUTE, {}) for name in (names.ERROR_RATIO, names.LATENCY_QUANTILE, names.CPU_RATIO)]
    check(group(POLICY), Scenario(found, [none, *silent]))


def test_nothing_is_read_of_planned_maintenance(check: Check) -> None:
    begins = datetime.fromtimestamp(0, UTC)
    window = model.MaintenanceWindow("upgrade", begins, timedelta(minutes=5), None)
    policy = replace(POLICY, maintenance=(window,))
    after = Expect(names.OFFERED_RATE, 14 * MINUTE, {series.recorded(policy, names.OFFERED_RATE): 13})
    check(group(policy), Scenario(data(), [Expect(names.OFFERED_RATE, 9 * MINUTE, {}), after]))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("matchers", [(), (("cluster", "a"),)])
def test_every_selector_is_held_to_the_namespace_and_the_class_s_matchers(source: str, matchers: tuple[tuple[str, str], ...]) -> None:
    policy = of_source(source)
    provider = replace(policy.metrics.provider, matchers=matchers)
    policy = replace(policy, metrics=replace(policy.metrics, provider=provider))
    found = list(_selectors(promql_parser.parse(direct.question([policy]).text)))
    assert len(found) >= 6
    for selector in found:
        told = {(matcher.name, str(matcher.op), matcher.value) for matcher in selector.matchers.matchers}
        assert ("namespace", "MatchOp.Equal", "ce-hub") in told
        assert not matchers or ("cluster", "MatchOp.Re", "a|") in told
        assert not (selector.name or "").startswith("perfpolicy:")


@pytest.mark.parametrize("policy", [*map(of_source, SOURCES), a.a_full_policy()])
def test_one_query_of_as_many_policies_as_are_asked_about_parses(policy: model.Policy) -> None:
    policies = [policy] * DIRECT
    question = direct.question(policies)
    parsed = promql_parser.parse(question.text)
    assert isinstance(parsed, promql_parser.SubqueryExpr)
    assert len(question.asked) == DIRECT * len(list(direct.values(policy)))
    assert len(question.text) < 100_000
    judged_by = {rule.name for rule in direct.values(policy)}
    assert {names.OFFERED_RATE, names.JUDGED_RATE, names.SERVED_RATE, names.ERROR_RATIO} <= judged_by


def test_where_rules_are_evaluated_late_raw_metrics_are_read_as_late() -> None:
    provider = replace(POLICY.metrics.provider, query_offset=timedelta(minutes=1))
    late = replace(POLICY, metrics=replace(POLICY.metrics, provider=provider))
    assert direct.question([late]).text.endswith("[2m:30s] offset 1m")


def _selectors(expression: Any) -> Any:
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
        return
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if (part := getattr(expression, name, None)) is not None:
            yield from _selectors(part)
    for argument in getattr(expression, "args", ()):
        yield from _selectors(argument)
