"""Growing memory: a leak is found while its pods have a day left to live, and nothing else memory does is."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.rule import RuleGroup
from perfpolicy.promql.rules import rule_groups
from tests import builders as a
from tests.promql import series
from tests.promql.conftest import Check
from tests.promql.promtool import Expect, Scenario

HOUR, BLOCK = timedelta(hours=1), timedelta(minutes=5)
PER_HOUR = 12
POLICY = a.a_policy()
LIMIT = 512 * 2**20
MEMORY = (names.MEMORY_RATIO, names.MEMORY_FLOOR, names.MEMORY_GAIN, names.MEMORY_GROWTH)
DICE = Random(7)  # noqa: S311 - only has to differ

Level = Callable[[float], float | None]
"""The fullest pod's share of its limit by hours since the beginning; None: there is no pod."""


def day(hour: float) -> float:
    """From -1 in the night to 1 at noon."""
    return -math.cos(hour / 24 * math.tau)


def tooth(hour: float, every: float) -> float:
    """0 to just below 1, again and again."""
    return hour % every / every


def served(hour: float) -> float:
    """Hours of full load that daily traffic amounts to: none in the night."""
    return sum(max(0.0, day(step / 2)) for step in range(int(hour * 2))) / 2


def noise(by: float) -> float:
    return DICE.gauss(0, by)


def rules(policy: model.Policy = POLICY) -> tuple[RuleGroup, ...]:
    """The rules of memory, from raw series on."""
    return tuple(replace(group, rules=tuple(rule for rule in group.rules if rule.name in MEMORY)) for group in rule_groups(policy))


def samples(level: Level, hours: float, since: float = 0) -> str:
    """One value every five minutes."""
    levels = (level(step / PER_HOUR) if step >= since * PER_HOUR else None for step in range(round(hours * PER_HOUR)))
    return " ".join("_" if share is None else f"{share * LIMIT:.0f}" for share in levels)


def scenario(hours: float, *expect: Expect, **pods: str) -> Scenario:
    data = {
        series.container("container_memory_working_set_bytes", f"operation-service-7d9f8c6b5-{pod}"): text for pod, text in pods.items()
    }
    return Scenario(data, expect, interval=BLOCK, evaluation=BLOCK)


def known(condition: str, hour: float) -> Expect:
    """The growth is recorded at that time and fulfils the condition."""
    return Expect(f"count({names.MEMORY_GROWTH} {condition})", hour * HOUR, {"{}": 1})


def never(hours: float) -> Expect:
    """Not found up to then."""
    return Expect(f"max_over_time({names.MEMORY_GROWTH}[30d]) >= 1", hours * HOUR, {})


LEAKS: dict[str, Level] = {
    "a steady one": lambda hour: 0.2 + 0.005 * hour,
    "a fast one": lambda hour: 0.2 + 0.009 * hour,
    "beside garbage that is collected, and daily load": lambda hour: 0.2 + 0.005 * hour + 0.1 * tooth(hour, 0.4) + 0.05 * day(hour),
    "of requests, and in the night there are none": lambda hour: 0.2 + 0.012 * served(hour),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found_a_day_before_it_reaches_the_limit_and_not_a_week_before(check: Check, leak: str) -> None:
    level = LEAKS[leak]
    end = next(hour for hour in range(24 * 30) if (level(hour) or 0) >= 1)
    first = f"min_over_time(timestamp({names.MEMORY_GROWTH} >= 1)[30d:1h])"
    in_time = Expect(f"count({first} >= {(end - 72) * 3600} <= {(end - 24) * 3600})", end * HOUR, {"{}": 1})
    # At the limit, and a little above that of a spec that is behind.
    stays = Expect(f"count(min_over_time({names.MEMORY_GROWTH}[1d]) >= 0.5)", (end + 6) * HOUR, {"{}": 1})
    check(rules(), scenario(end + 6, in_time, stays, x2x4z=samples(level, end + 7)))


OTHERS: dict[str, Level] = {
    "what stays, close to the limit": lambda _: 0.97 + noise(0.005),
    "garbage, collected every few minutes": lambda hour: 0.5 + 0.45 * tooth(hour, 0.4) + noise(0.01),
    "garbage, collected every few hours": lambda hour: 0.4 + 0.55 * tooth(hour, 7),
    "garbage, collected once in a day and a half": lambda hour: 0.35 + 0.6 * tooth(hour, 37),
    "daily load": lambda hour: 0.6 + 0.35 * day(hour) + noise(0.01),
    "daily load with little of it at weekends": lambda hour: 0.3 + 0.6 * max(0.0, day(hour)) * (1 if hour // 24 not in (2, 3) else 0.3),
    "a cache that fills up in a day": lambda hour: 0.9 * (1 - math.exp(-hour / 12)),
    "a cache that fills up in days": lambda hour: 0.9 * (1 - math.exp(-hour / 36)),
    "a release that takes more": lambda hour: 0.3 if hour < 100 else 0.8,
    "a leak in pods that are restarted every night": lambda hour: 0.2 + 0.7 * tooth(hour, 24),
    "pods that are gone in the night, busier each day": lambda hour: 0.1 * (hour // 24 + hour % 24 / 6) if 8 <= hour % 24 < 18 else None,
    "pods of less than two days": lambda hour: 0.2 + 0.017 * (hour - 100) if hour >= 100 else None,
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_leak_is_not_found(check: Check, other: str) -> None:
    level = OTHERS[other]
    hours = 144 if level(0) is None else 168
    check(rules(), scenario(hours, never(hours), *([known("< 1", hours)] if level(0) is not None else []), x2x4z=samples(level, hours)))


def old(hour: float) -> float:
    return 0.2 + 0.008 * hour


def new(hour: float) -> float:
    """The same leak in a pod that came at hour 72."""
    return old(hour - 72)


@pytest.mark.parametrize(
    "pods",
    [
        {"x2x4z": f"{samples(old, 73)} {samples(lambda hour: new(hour + 73), 95)}"},
        {"x2x4z": samples(old, 73), "bbbbb": samples(new, 168, since=72)},
    ],
    ids=["restarted in place", "replaced by a pod that came an hour before"],
)
def test_a_restart_ends_it_at_once_and_two_days_must_pass_again(check: Check, pods: dict[str, str]) -> None:
    silent = Expect(f"max_over_time({names.MEMORY_GROWTH}[46h]) > 0", 119 * HOUR, {})
    check(rules(), scenario(168, known(">= 1", 72.9), known("< 0", 73.1), silent, known(">= 1", 150), **pods))


def test_hours_without_samples_do_not_hide_a_leak(check: Check) -> None:
    """Nothing is known while the two looks of it are missing, its own and the one a day after; nor is anything said then."""

    def level(hour: float) -> float | None:
        return None if 61.5 <= hour < 63.5 else 0.2 + 0.008 * hour

    unknown = [Expect(names.MEMORY_GROWTH, hour * HOUR, {}) for hour in (63, 88)]
    found = [known(">= 1", hour) for hour in (61, 64, 72, 86, 90)]
    check(rules(), scenario(90, *unknown, *found, x2x4z=samples(level, 91)))


def test_what_others_record_in_the_policys_name_stays_apart(check: Check) -> None:
    forged = {series.recorded(POLICY, names.MEMORY_RATIO, forged="1"): "0+0.0007x1300"}
    apart = {series.recorded(POLICY, names.MEMORY_GROWTH): 0}
    mine = Expect(f'{names.MEMORY_GROWTH}{{forged=""}}', 100 * HOUR, apart)
    theirs = Expect(f'count({names.MEMORY_GROWTH}{{forged="1"}} >= 1)', 100 * HOUR, {"{}": 1})
    flat = scenario(100, mine, theirs, x2x4z=samples(lambda _: 0.5, 101))
    check(rules(), replace(flat, series={**flat.series, **forged}))


@pytest.mark.parametrize(
    "changes",
    [{"thresholds": a.thresholds(memory=None)}, {"workload": a.a_workload(limits=model.Resources())}],
    ids=["no threshold", "a request only"],
)
def test_it_is_looked_for_where_memory_is_recorded_and_has_a_limit(changes: dict[str, Any]) -> None:
    assert {rule.name for group in rules() for rule in group.rules} == {*MEMORY}
    policy = a.a_policy(**changes)
    assert not {rule.name for group in rules(policy) for rule in group.rules} & {*MEMORY[1:]}


def test_it_needs_no_objective() -> None:
    assert names.MEMORY_GROWTH in {rule.name for group in rules(a.a_policy(objectives=())) for rule in group.rules}
