"""Every alert fires on raw series that deserve it and is silent beside them: an alert that can never fire is worse than none."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from perfpolicy.policy import model
from perfpolicy.promql import alerts, names, objectives, proxies
from perfpolicy.promql.expr import duration
from perfpolicy.promql.rule import RuleGroup
from perfpolicy.promql.rules import rule_groups
from perfpolicy.vocabulary import AlertName
from tests import builders as a
from tests.promql import series
from tests.promql.conftest import Check
from tests.promql.promtool import Expect, Scenario, constant, counter, firing, silent

MINUTE = timedelta(minutes=1)
ALL_FAST = {10.0: 1.0}


def alerting(*kept: AlertName, **changes: Any) -> model.Policy:
    """A policy with only the alerts a test is about."""
    wanted = model.Alerts(labels={}, runbook=None, disabled=tuple(sorted(set(AlertName) - set(kept))))
    return a.a_policy(observability=a.observability(alerts=wanted), **changes)


def steps(policy: model.Policy) -> tuple[RuleGroup, ...]:
    return rule_groups(policy)[:1]


def healthy(minutes: float, per_second: float = 10) -> dict[str, str]:
    return {series.requests(): counter(per_second, minutes), **series.histogram(ALL_FAST, per_second, minutes)}


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        pytest.param(250, (), id="p95 of 250 ms is silent"),
        pytest.param(1000, ("HighResponseTime/warning",), id="p95 of 1 s warns"),
        pytest.param(10000, ("HighResponseTime/warning", "HighResponseTime/critical"), id="p95 of 10 s is critical"),
    ],
)
def test_high_response_time(check: Check, bound: float, expected: tuple[str, ...]) -> None:
    policy = alerting(AlertName.HIGH_RESPONSE_TIME, thresholds=a.thresholds(latency=a.thresholds().latency[1:2]))
    data = {series.requests(): counter(10, 12), **series.histogram({10.0: 0.9, bound: 1.0}, 10, 12)}
    check(steps(policy), Scenario(data, [firing(*expected, at=10 * MINUTE)]))


def test_high_response_time_waits_two_minutes(check: Check) -> None:
    policy = alerting(AlertName.HIGH_RESPONSE_TIME, thresholds=a.thresholds(latency=a.thresholds().latency[1:2]))
    data = {series.requests(): counter(10, 12), **series.histogram({10.0: 0.9, 1000.0: 1.0}, 10, 12)}
    check(steps(policy), Scenario(data, [silent(2 * MINUTE), firing("HighResponseTime/warning", at=4 * MINUTE)]))


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        pytest.param(0.05, (), id="0.5 % is silent"),
        pytest.param(0.2, ("HighErrorRate/warning",), id="2 % warns"),
        pytest.param(1.0, ("HighErrorRate/warning", "HighErrorRate/critical"), id="9 % is critical"),
    ],
)
def test_high_error_rate(check: Check, errors: float, expected: tuple[str, ...]) -> None:
    policy = alerting(AlertName.HIGH_ERROR_RATE)
    data = {series.requests(): counter(10, 12), series.requests("503"): counter(errors, 12)}
    check(steps(policy), Scenario(data, [firing(*expected, at=10 * MINUTE)]))


def test_high_error_rate_is_silent_below_the_minimum_rate(check: Check) -> None:
    policy = alerting(AlertName.HIGH_ERROR_RATE)
    data = {series.requests("503"): counter(0.05, 12)}
    check(steps(policy), Scenario(data, [silent(10 * MINUTE)]))


def test_high_error_rate_does_not_count_our_own_rejections(check: Check) -> None:
    policy = alerting(AlertName.HIGH_ERROR_RATE)
    data = {
        series.requests(): counter(10, 12),
        series.requests("429", "RL"): counter(10, 12),
        series.requests("503", "FI"): counter(10, 12),
        series.requests("503", "DI,FI"): counter(10, 12),
        series.requests("429"): counter(10, 12),
    }
    check(steps(policy), Scenario(data, [silent(10 * MINUTE)]))


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        pytest.param(0.35, (), id="70 % is silent"),
        pytest.param(0.42, ("HighCPUUsage/warning",), id="84 % warns"),
        pytest.param(0.49, ("HighCPUUsage/warning", "HighCPUUsage/critical"), id="98 % is critical"),
    ],
)
def test_high_cpu_usage(check: Check, cores: float, expected: tuple[str, ...]) -> None:
    policy = alerting(AlertName.HIGH_CPU_USAGE)
    data = {series.container("container_cpu_usage_seconds_total"): counter(cores, 15)}
    check(steps(policy), Scenario(data, [firing(*expected, at=12 * MINUTE)]))


@pytest.mark.parametrize(
    ("mebibytes", "expected"),
    [
        pytest.param(410, (), id="80 % is silent"),
        pytest.param(450, ("HighMemoryUsage/warning",), id="88 % warns"),
        pytest.param(500, ("HighMemoryUsage/warning", "HighMemoryUsage/critical"), id="98 % is critical"),
    ],
)
def test_high_memory_usage_looks_at_the_fullest_pod(check: Check, mebibytes: float, expected: tuple[str, ...]) -> None:
    policy = alerting(AlertName.HIGH_MEMORY_USAGE)
    data = {
        series.container("container_memory_working_set_bytes"): constant(100 * 2**20, 12),
        series.container("container_memory_working_set_bytes", "operation-service-7d9f8c6b5-bbbbb"): constant(mebibytes * 2**20, 12),
    }
    check(steps(policy), Scenario(data, [firing(*expected, at=10 * MINUTE)]))


def test_resource_alerts_ignore_pods_of_a_workload_with_a_longer_name(check: Check) -> None:
    policy = alerting(AlertName.HIGH_MEMORY_USAGE)
    data = {series.container("container_memory_working_set_bytes", "operation-service-canary-7d9f8c6b5-x2x4z"): constant(500 * 2**20, 12)}
    check(steps(policy), Scenario(data, [silent(10 * MINUTE)]))


@pytest.mark.parametrize("flag", ["UO", "UH", "UF,UH"])
def test_circuit_breaker_open_sees_requests_that_reached_no_pod(check: Check, flag: str) -> None:
    policy = alerting(AlertName.CIRCUIT_BREAKER_OPEN, traffic=a.traffic(circuit_breaker=a.a_circuit_breaker()))
    refused = series.requests("503", flag, "source", destination_workload="unknown", destination_workload_namespace="unknown")
    check(steps(policy), Scenario({refused: counter(1, 12)}, [firing("CircuitBreakerOpen/critical", at=5 * MINUTE)]))


def test_circuit_breaker_open_is_silent_on_other_failures(check: Check) -> None:
    policy = alerting(AlertName.CIRCUIT_BREAKER_OPEN, traffic=a.traffic(circuit_breaker=a.a_circuit_breaker()))
    data = {series.requests("503", "UF", "source"): counter(1, 12), series.requests("503", "UO", "destination"): counter(1, 12)}
    check(steps(policy), Scenario(data, [silent(5 * MINUTE)]))


DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def certificates(**changes: Any) -> model.Policy:
    """A policy with no group but the one of the certificates' alerts."""
    return alerting(AlertName.CERTIFICATE_EXPIRING, objectives=(), **changes)


def left(seconds: timedelta, of: timedelta) -> str:
    """A certificate's seconds left, falling from `seconds` for as long as `of`, one value in five minutes."""
    return f"{seconds.total_seconds():.0f}-300x{int(of / timedelta(minutes=5))}"


def blocks(policy: model.Policy) -> tuple[RuleGroup, ...]:
    return tuple(group for group in rule_groups(policy) if group.name.endswith("/blocks"))


def expiry(data: dict[str, str], *expect: Expect) -> Scenario:
    """Evaluated as the group of blocks is."""
    return Scenario(data, expect, interval=5 * MINUTE, evaluation=5 * MINUTE)


def test_certificate_expiring_warns_at_a_quarter_of_a_days_life_and_is_critical_at_a_tenth(check: Check) -> None:
    data = {series.proxy(proxies.CERTIFICATE_LEFT, resource_name="default"): left(DAY, 25 * HOUR)}
    warned, critical = "CertificateExpiring/warning", "CertificateExpiring/critical"
    times = [(17.9, ()), (18.4, (warned,)), (21.5, (warned,)), (21.9, (warned, critical)), (24.5, (warned, critical))]
    check(blocks(certificates()), expiry(data, *(firing(*names, at=hours * HOUR) for hours, names in times)))


def test_certificate_expiring_is_silent_while_certificates_are_renewed_at_half_their_life(check: Check) -> None:
    renewed = " ".join([left(DAY, 12 * HOUR)] * 4)
    data = {
        series.proxy(proxies.CERTIFICATE_LEFT, resource_name="default"): renewed,
        series.proxy(proxies.CERTIFICATE_LEFT, resource_name="file-root:/etc/ca.pem"): left(3650 * DAY, 2 * DAY),
        series.proxy(proxies.CERTIFICATE_LEFT, pod="other-7d9f8c6b5-x2x4z", resource_name="default"): left(DAY, DAY),
    }
    check(blocks(certificates()), expiry(data, *(silent(hours * HOUR) for hours in (1, 11.9, 12.1, 23.9, 47))))


def test_certificate_expiring_warns_seven_days_before_the_end_of_what_lives_longer(check: Check) -> None:
    data = {series.proxy(proxies.CERTIFICATE_LEFT, resource_name="default"): left(30 * DAY, 28 * DAY)}
    # Every 5 m, as the group is, promtool takes a minute for four weeks.
    warned, critical = "CertificateExpiring/warning", "CertificateExpiring/critical"
    times = [(22.75, ()), (23.5, (warned,)), (27, (warned,)), (28, (warned, critical))]
    expect = [firing(*names, at=days * DAY) for days, names in times]
    check(blocks(certificates()), Scenario(data, expect, interval=5 * MINUTE, evaluation=3 * HOUR))


@pytest.mark.parametrize(
    ("failed", "succeeded", "expected"),
    [
        pytest.param(4 / 300, 10, (), id="four in five minutes are silent"),
        pytest.param(0.1, 10, ("HandshakeFailures/warning",), id="one of a hundred warns"),
        pytest.param(0.1, 0.05, ("HandshakeFailures/warning", "HandshakeFailures/critical"), id="more than succeed are critical"),
    ],
)
@pytest.mark.parametrize("metric", proxies.FAILURES)
def test_handshake_failures(check: Check, metric: str, failed: float, succeeded: float, expected: tuple[str, ...]) -> None:
    data = {series.inbound(each): counter(0, 20) for each in proxies.FAILURES}
    data |= {series.inbound(metric): counter(failed, 20), series.inbound(proxies.HANDSHAKES): counter(succeeded, 20)}
    expect = [silent(5 * MINUTE), firing(*expected, at=15 * MINUTE)]
    check(blocks(alerting(AlertName.HANDSHAKE_FAILURES, objectives=())), Scenario(data, expect, evaluation=5 * MINUTE))


def test_handshake_failures_count_a_pod_once_whoever_scrapes_it_and_only_what_comes_to_it(check: Check) -> None:
    data = {series.inbound(each, job=job): counter(4 / 300, 20) for each in proxies.FAILURES[:1] for job in ("pods", "envoy-stats")}
    data |= {series.inbound(each): counter(0, 20) for each in proxies.FAILURES[1:]}
    data |= {series.proxy(proxies.FAILURES[0], listener_address="0.0.0.0_15090"): counter(1, 20)}
    policy = alerting(AlertName.HANDSHAKE_FAILURES, objectives=())
    check(blocks(policy), Scenario(data, [silent(15 * MINUTE)], evaluation=5 * MINUTE))


def test_pods_without_proxies_have_no_alerts_about_them() -> None:
    outside, open_ = a.a_policy(in_mesh=False), a.a_policy(security=a.security(mtls=model.Mtls.DISABLE))
    assert {AlertName.CERTIFICATE_EXPIRING, AlertName.HANDSHAKE_FAILURES}.isdisjoint(alert_names(outside))
    assert AlertName.HANDSHAKE_FAILURES not in alert_names(open_)


def alert_names(policy: model.Policy) -> set[str]:
    return {rule.name for rule in (*alerts.alerts(policy), *alerts.slow_alerts(policy))}


def test_metrics_absent(check: Check) -> None:
    policy = alerting(AlertName.METRICS_ABSENT)
    check(steps(policy), Scenario({"unrelated": constant(1, 20)}, [firing("MetricsAbsent/warning", at=15 * MINUTE)]))


def test_metrics_absent_is_silent_with_traffic(check: Check) -> None:
    policy = alerting(AlertName.METRICS_ABSENT)
    check(steps(policy), Scenario(healthy(20), [silent(15 * MINUTE)]))


BURNING = alerting(AlertName.ERROR_BUDGET_BURN)
PAGE, TICKET = "ErrorBudgetBurn/critical", "ErrorBudgetBurn/warning"


def alerts_only(policy: model.Policy) -> list[RuleGroup]:
    return [RuleGroup("alerts", MINUTE, None, tuple(alerts.alerts(policy)))]


def test_error_budget_burn_pages_from_raw_series(check: Check) -> None:
    # 3 % errors burn a budget of 0.1 % at 30 times: above 14.4 over 5m and 1h.
    data = {series.requests(): counter(10, 70), series.requests("500"): counter(0.3, 70)}
    check(steps(BURNING), Scenario(data, [firing(PAGE, at=65 * MINUTE)]))


def test_error_budget_burn_of_a_latency_objective_pages_from_raw_series(check: Check) -> None:
    slow = a.an_objective(name="fast", target=Decimal("0.99"), threshold=timedelta(milliseconds=500))
    policy = alerting(AlertName.ERROR_BUDGET_BURN, objectives=(slow,))
    data = {series.requests(): counter(10, 70), **series.histogram({500.0: 0.8, 1000.0: 1.0}, 10, 70)}
    check(steps(policy), Scenario(data, [firing(PAGE, at=65 * MINUTE)]))


def test_error_budget_burn_is_silent_while_the_promise_is_kept(check: Check) -> None:
    data = {series.requests(): counter(10, 70), series.requests("500"): counter(0.008, 70)}
    check(steps(BURNING), Scenario(data, [silent(65 * MINUTE)]))


def test_a_single_error_in_a_quiet_hour_does_not_page(check: Check) -> None:
    # 0.2 requests/s is above the minimum rate; with a budget of 0.01 % one error burns at 14.5 times over the hour.
    quiet = alerting(AlertName.ERROR_BUDGET_BURN, objectives=(a.an_objective(target=Decimal("0.9999")),))
    data = {series.requests(): counter(0.15, 70), series.requests("500"): "5x200 6x80"}
    check(steps(quiet), Scenario(data, [silent(51 * MINUTE), silent(60 * MINUTE)]))


def test_two_errors_in_a_quiet_hour_page_where_the_budget_is_that_small(check: Check) -> None:
    quiet = alerting(AlertName.ERROR_BUDGET_BURN, objectives=(a.an_objective(target=Decimal("0.9999")),))
    data = {series.requests(): counter(0.15, 70), series.requests("500"): "5x200 7x80"}
    check(steps(quiet), Scenario(data, [firing(PAGE, at=52 * MINUTE)]))


PAIRS = [pytest.param(pair, id=f"{pair.short} and {pair.long}") for pair in objectives.BURN_ALERTS]


@pytest.mark.parametrize("pair", PAIRS)
def test_each_burn_pair_fires_when_both_windows_burn(check: Check, pair: objectives.BurnAlert) -> None:
    factor = float(pair.factor(BURNING.objectives[0]))
    check(alerts_only(BURNING), burn_scenario(pair, factor * 1.01, factor * 1.01, fires=True))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("long", "short"), [(1.01, 0.99), (0.99, 1.01)])
def test_each_burn_pair_is_silent_when_one_window_does_not_burn(
    check: Check, pair: objectives.BurnAlert, long: float, short: float
) -> None:
    factor = float(pair.factor(BURNING.objectives[0]))
    check(alerts_only(BURNING), burn_scenario(pair, factor * long, factor * short, fires=False))


def burn_scenario(pair: objectives.BurnAlert, long: float, short: float, *, fires: bool) -> Scenario:
    """Recorded burn rates of one pair only, beside blocks and steps full of requests with many errors."""
    five, minutes = timedelta(minutes=5), 130
    rates = {pair.long: long, pair.short: short}
    data = {
        series.recorded(BURNING, names.BURN_RATE, objective="availability", window=duration(window)): constant(rate, minutes, five)
        for window, rate in rates.items()
    }
    for judged, errors in ((names.JUDGED_BLOCK, names.ERRORS_BLOCK), (names.JUDGED_STEP, names.ERRORS_STEP)):
        data[series.recorded(BURNING, judged)] = constant(3000, minutes, five)
        data[series.recorded(BURNING, errors)] = constant(300, minutes, five)
    expected = (PAGE if pair.page else TICKET,) if fires else ()
    # On a sample: page rates are read as ranges of one minute. Evaluated as the group of the alert is.
    every = five if objectives.follows_blocks(pair) else timedelta(seconds=30)
    return Scenario(data, [firing(*expected, at=timedelta(hours=2))], interval=five, evaluation=every)


def test_tickets_are_looked_at_with_every_block_and_pages_with_every_step() -> None:
    by_step, by_block = ([rule.labels["long"] for rule in group.rules if rule.alert] for group in rule_groups(BURNING))
    assert (by_step, by_block) == (["1h", "6h"], ["24h", "72h"])


def test_a_burn_alert_that_could_never_fire_is_left_out_with_its_reason() -> None:
    loose = alerting(AlertName.ERROR_BUDGET_BURN, objectives=(a.an_objective(target=Decimal("0.9")),))
    windows = {rule.labels["long"] for rule in alerts.alerts(loose)}
    assert windows == {"6h", "24h", "72h"}
    assert alerts.left_out(loose) == ("burn alert 5m & 1h of availability can never fire: 14.40 times its budget is above 100 %",)


def test_a_burn_alert_that_would_fire_while_the_promise_is_kept_is_left_out() -> None:
    short = alerting(AlertName.ERROR_BUDGET_BURN, objectives=(a.an_objective(window_days=7),))
    assert {rule.labels["long"] for rule in alerts.alerts(short)} == {"1h", "6h"}
    assert len(alerts.left_out(short)) == 2


@pytest.mark.parametrize(("days", "expected"), [(30, ["14.4", "6", "3", "1"]), (28, ["13.44", "5.6", "2.8", "0.93"])])
def test_burn_factors_follow_the_objectives_window(days: int, expected: list[str]) -> None:
    objective = a.an_objective(window_days=days)
    assert [
        f"{float(pair.factor(objective)):.4g}"[: len(text)] for pair, text in zip(objectives.BURN_ALERTS, expected, strict=True)
    ] == expected


def test_an_objective_without_any_budget_has_no_burn_alert() -> None:
    assert list(alerts.alerts(alerting(AlertName.ERROR_BUDGET_BURN, objectives=(a.an_objective(target=Decimal(1)),)))) == []


def test_disabled_alerts_are_left_out() -> None:
    assert alert_names(alerting(AlertName.HIGH_ERROR_RATE)) == {"HighErrorRate"}


def test_every_alert_name_is_written_by_a_full_policy() -> None:
    assert alert_names(a.a_full_policy()) == set(AlertName)


def test_user_labels_and_runbook_are_carried_and_never_expanded() -> None:
    hostile = model.Alerts(
        labels={"team": '{{ query "up" }}', "severity": "none", "policy": "x"}, runbook="https://run/{{ .x }}", disabled=()
    )
    rules = list(alerts.alerts(a.a_policy(observability=a.observability(alerts=hostile))))
    assert rules
    for rule in rules:
        assert rule.labels["team"] == '{{"{{"}} query "up" }}'
        assert rule.labels["severity"] in (alerts.WARNING, alerts.CRITICAL)
        assert rule.labels["namespace"] == "ce-hub"
        assert rule.labels["policy"] == "operation-service"
        assert rule.annotations["runbook_url"] == 'https://run/{{"{{"}} .x }}'


def test_no_alerts_without_observability_alerts() -> None:
    assert alert_names(a.a_policy(observability=a.observability(alerts=None))) == set()


def test_escaped_braces_read_back_as_written(check: Check) -> None:
    wanted = model.Alerts(labels={"team": "{{ 1 }}"}, runbook=None, disabled=tuple(sorted(set(AlertName) - {AlertName.METRICS_ABSENT})))
    policy = a.a_policy(observability=a.observability(alerts=wanted))
    absent = replace(firing(at=15 * MINUTE), expr='count by (team) (ALERTS{alertstate="firing"})', samples={'{team="{{ 1 }}"}': 1})
    check(steps(policy), Scenario({"unrelated": constant(1, 20)}, [absent]))
