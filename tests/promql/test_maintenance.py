"""Planned maintenance: an outage in a window costs nothing and fires nothing, the same outage outside does both.

promtool's time begins at 0, so windows are minutes after 1970.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from perfpolicy.evaluate.maintenance import active
from perfpolicy.policy import model
from perfpolicy.promql import names, proxies
from perfpolicy.promql.expr import call, number
from perfpolicy.promql.maintenance import outside, settling
from perfpolicy.promql.rule import RuleGroup
from perfpolicy.promql.rules import rule_groups
from perfpolicy.vocabulary import AlertName
from tests import builders as a
from tests.promql import series
from tests.promql.conftest import Check
from tests.promql.promtool import SCRAPE, Expect, Scenario, constant, counter, firing, silent

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY, WEEK = timedelta(days=1), timedelta(days=7)


def between(first: timedelta, last: timedelta, every: timedelta | None = None) -> model.MaintenanceWindow:
    return model.MaintenanceWindow("upgrade", EPOCH + first, last - first, every)


def alerting(*windows: model.MaintenanceWindow, **changes: Any) -> model.Policy:
    """A policy with every alert."""
    traffic, safe = a.traffic(circuit_breaker=a.a_circuit_breaker()), a.security(mtls=model.Mtls.STRICT)
    return a.a_policy(**{"maintenance": windows, "traffic": traffic, "security": safe, **changes})


def tier(policy: model.Policy, name: str) -> tuple[RuleGroup, ...]:
    return tuple(group for group in rule_groups(policy) if group.name.endswith(f"/{name}"))


def outage(first: int, last: int, minutes: int) -> dict[str, str]:
    """10 requests/s and as many failing ones from minute `first` to `last`."""
    before, during, after = first * 4, (last - first) * 4, (minutes - last) * 4
    failing = f"0x{before} 150+150x{during - 1} {150 * during}x{after}"
    return {series.requests(): counter(10, minutes), series.requests("503"): failing}


def burning(policy: model.Policy, low: float, high: float, at: timedelta) -> Expect:
    """The burn rate over an hour is recorded, between these."""
    name = series.recorded(policy, names.BURN_RATE, objective="availability", window="1h")
    return Expect(f"count({name} >= {low} <= {high})", at, {"{}": 1})


def test_an_outage_in_a_window_costs_and_fires_nothing(check: Check) -> None:
    policy = alerting(between(20 * MINUTE, 30 * MINUTE))
    times = [MINUTE * number for number in range(19, 59)]
    costs = [burning(policy, 0, 0, minute * MINUTE) for minute in (29, 31, 55)]
    check(tier(policy, "steps"), Scenario(outage(20, 30, 60), [*map(silent, times), *costs]))


@pytest.mark.parametrize("windows", [(), (between(32 * MINUTE, 45 * MINUTE),), (between(5 * MINUTE, 10 * MINUTE, DAY),)])
def test_the_same_outage_outside_costs_and_fires(check: Check, windows: tuple[model.MaintenanceWindow, ...]) -> None:
    policy = alerting(*windows)
    fires = fired_at(29 * MINUTE, AlertName.HIGH_ERROR_RATE, AlertName.ERROR_BUDGET_BURN)
    # In nine of 29 minutes half of the requests failed, in nine of 23 where a window was among them.
    share = 9 / (23 + 9) if windows and windows[0].every else 9 / (29 + 9)
    costs = burning(policy, 970 * share, 1030 * share, 29 * MINUTE)
    check(tier(policy, "steps"), Scenario(outage(20, 30, 60), [fires, costs]))


FAILING = {
    series.requests(): counter(10, 40),
    series.requests("503"): counter(10, 40),
    series.requests("503", "UO", "source"): counter(1, 40),
    **series.histogram({10000.0: 1.0}, 10, 40),
    series.container("container_cpu_usage_seconds_total"): counter(0.49, 40),
    series.container("container_memory_working_set_bytes"): constant(500 * 2**20, 40),
}
"""What fires every alert of the steps but MetricsAbsent."""


def fired_at(at: timedelta, *wanted_: AlertName) -> Expect:
    """Exactly these alerts fire, at whatever level."""
    wanted = {f'{{alertname="{name}"}}': 1.0 for name in wanted_}
    return Expect('group by (alertname) (ALERTS{alertstate="firing"})', at, wanted)


def test_every_alert_of_the_steps_is_silent_in_a_window_and_fires_after_it(check: Check) -> None:
    fires = (
        AlertName.HIGH_RESPONSE_TIME,
        AlertName.HIGH_ERROR_RATE,
        AlertName.HIGH_CPU_USAGE,
        AlertName.HIGH_MEMORY_USAGE,
        AlertName.CIRCUIT_BREAKER_OPEN,
        AlertName.ERROR_BUDGET_BURN,
    )
    policy = alerting(between(12 * MINUTE, 20 * MINUTE))
    before, after = fired_at(11 * MINUTE + 30 * SECOND, *fires), fired_at(37 * MINUTE, *fires)
    check(tier(policy, "steps"), Scenario(FAILING, [before, *(silent(MINUTE * number) for number in range(12, 22)), after]))


def test_metrics_that_are_absent_in_a_window_only_are_told_by_nobody(check: Check) -> None:
    def data() -> dict[str, str]:
        return {series.requests(): f"0+150x40 _x120 {150 * 40}+150x120"}

    def absent(*windows: model.MaintenanceWindow) -> model.Policy:
        alerts = model.Alerts({}, None, tuple(sorted(set(AlertName) - {AlertName.METRICS_ABSENT})))
        return alerting(*windows, observability=a.observability(alerts=alerts))

    times = [MINUTE * number for number in range(8, 60)]
    check(tier(absent(between(10 * MINUTE, 41 * MINUTE)), "steps"), Scenario(data(), list(map(silent, times))))
    check(tier(absent(), "steps"), Scenario(data(), [firing("MetricsAbsent/warning", at=35 * MINUTE)]))


def test_every_alert_of_the_blocks_is_silent_in_a_window_and_fires_after_it(check: Check) -> None:
    policy = alerting(between(100 * MINUTE, 200 * MINUTE))
    steps = {
        series.recorded(policy, names.JUDGED_STEP): constant(300, 400, 30 * SECOND),
        series.recorded(policy, names.ERRORS_STEP): constant(150, 400, 30 * SECOND),
        series.recorded(policy, names.REVISION): constant(1, 400, 30 * SECOND),
        series.proxy(proxies.CERTIFICATE_LEFT, resource_name="default"): "86400 600x800",
        series.inbound(proxies.HANDSHAKES): counter(10, 400, step=30 * SECOND),
        **{series.inbound(each): counter(1, 400, step=30 * SECOND) for each in proxies.FAILURES},
    }
    fires = (AlertName.ERROR_BUDGET_BURN, AlertName.CERTIFICATE_EXPIRING, AlertName.HANDSHAKE_FAILURES)
    expect = [
        fired_at(95 * MINUTE, *fires),
        *(silent(MINUTE * number) for number in (100, 105, 150, 195, 200)),
        fired_at(230 * MINUTE, *fires),
    ]
    check(tier(policy, "blocks"), Scenario(steps, expect, interval=30 * SECOND, evaluation=5 * MINUTE))


def test_no_request_of_a_window_is_counted_and_all_well_outside_are(check: Check) -> None:
    """Scrape k sees 2^k more failed requests: the sum of what was recorded tells which were counted."""
    policy = alerting(between(4 * MINUTE, 6 * MINUTE))
    first, last = 6, 44
    seen = [sum(2**scrape for scrape in range(first, upto + 1)) for upto in range(last + 1)]
    data = {series.requests(): constant(5, 13), series.requests("503"): " ".join(map(str, [*seen, *seen[-1:] * 6]))}
    near = policy.metrics.provider.rule_interval + SCRAPE * 2
    # What scrape k adds happened after scrape k - 1.
    never = [k for k in range(first, last + 1) if SCRAPE * k > 4 * MINUTE and SCRAPE * (k - 1) < 6 * MINUTE]
    before = [k for k in range(first, last + 1) if SCRAPE * k <= 4 * MINUTE - near]
    after = [k for k in range(first, last + 1) if SCRAPE * (k - 1) >= 6 * MINUTE + near]
    assert min(map(len, (never, before, after))) >= 6
    counted, end = f"sum(sum_over_time({series.recorded(policy, names.ERRORS_STEP)}[13m]))", 12 * MINUTE + 30 * SECOND
    expect = [
        Expect(f"floor({counted} / {2 ** min(bits)}) % {2 ** len(bits)}", end, {"{}": 2 ** len(bits) - 1 if wanted else 0})
        for bits, wanted in ((before, True), (never, False), (after, True))
    ]
    check(tier(policy, "steps"), Scenario(data, expect, fuzzy=False))


def test_rules_and_status_agree_at_every_edge(check: Check) -> None:
    """Random windows, looked at a second before and at each edge, and at random times."""
    random = Random(5)  # noqa: S311  # the same windows every time
    expect = []
    for _ in range(40):
        every = random.choice([None, DAY, WEEK])
        start = SECOND * random.randrange(0, 3 * DAY // SECOND)
        window = between(start, start + SECOND * random.randrange(60, DAY // SECOND - 1), every)
        policy = a.a_policy(maintenance=(window, between(9 * DAY, 9 * DAY + HOUR)))
        longest = window.duration + settling(policy.metrics.provider)
        begins = [start + (every or WEEK) * number for number in range(3)]
        edges = [edge for begin in begins for edge in (begin, begin + window.duration, begin + longest)]
        times = {moment - SECOND * back for moment in edges for back in (0, 1) if moment >= SECOND}
        counted = str(outside(policy, call("vector", number(1))))
        for at in sorted(times | {SECOND * random.randrange(0, 20 * DAY // SECOND)}):
            expect.append(Expect(counted, at, {} if active(policy, EPOCH + at) else {"{}": 1}))
    assert any(each.samples for each in expect)
    assert not all(each.samples for each in expect)
    check((), Scenario({}, expect, interval=HOUR, evaluation=HOUR))


def test_what_a_window_leaves_out_is_covered(check: Check) -> None:
    """Steps stop for an hour: with the window the blocks go on at 0; without it they are missing."""
    half = 30 * SECOND

    def stopped(value: float) -> str:
        return f"{value}x119 _x120 {value}x120"

    available = a.an_objective(window_days=1)
    fast = replace(available, name="fast", threshold=timedelta(milliseconds=500))
    planned = alerting(between(60 * MINUTE, 120 * MINUTE), objectives=(available, fast))
    for policy, blocks in ((planned, 36), (replace(planned, maintenance=()), 24)):
        bucket = {
            series.recorded(policy, names.DURATION_BUCKET_STEP, le=bound): stopped(300 if bound == "+Inf" else 290)
            for bound in ("500", "+Inf")
        }
        data = {
            series.recorded(policy, names.JUDGED_STEP): stopped(300),
            series.recorded(policy, names.ERRORS_STEP): stopped(3),
            series.recorded(policy, names.REVISION): constant(1, 200, half),
            **bucket,
        }
        expect = [
            Expect(
                f"round({series.recorded(policy, names.PERIOD_BLOCKS, objective=name)})",
                180 * MINUTE,
                {series.labels_of(policy, objective=name): blocks},
            )
            for name in ("availability", "fast")
        ]
        bad, total = (series.recorded(policy, name, objective="availability") for name in (names.PERIOD_BAD, names.PERIOD_TOTAL))
        expect.append(Expect(f"{bad} / {total}", 180 * MINUTE, {series.labels_of(policy, objective="availability"): 0.01}))
        check(tier(policy, "blocks"), Scenario(data, expect, interval=half, evaluation=5 * MINUTE))


def test_a_policy_without_windows_has_no_word_of_it() -> None:
    assert "time()" not in str([group.to_dict() for group in rule_groups(a.a_policy())])
