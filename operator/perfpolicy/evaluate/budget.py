"""Error budgets: what is left, how much of the window was recorded, and when it runs out."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from perfpolicy.evaluate.observation import Observation, Reading, Sample, SampleName, sample_name
from perfpolicy.policy.model import Objective, Policy
from perfpolicy.promql import names, objectives
from perfpolicy.promql.expr import duration
from perfpolicy.promql.rule import block_of
from perfpolicy.vocabulary import Reason, Verdict

FULL_COVERAGE: Final = 0.99
"""Below it the window is partial: a young policy, or a backend that keeps less than the window."""
_NO_RATIO: Final = frozenset({Reason.LOW_TRAFFIC, Reason.NOT_A_NUMBER})
_EXHAUSTION_WINDOW: Final = timedelta(hours=1)
REPORTED_WINDOWS: Final = tuple(sorted({*objectives.STEP_WINDOWS, *objectives.BLOCK_WINDOWS}))


class BudgetOutcome(NamedTuple):
    """One objective judged. Ratios: 1 is everything; `remaining` is negative when overspent. Figures are None while unknown."""

    objective: Objective
    verdict: Verdict
    reason: Reason | None
    since: datetime
    good: float | None = None
    remaining: float | None = None
    coverage: float | None = None
    exhausted_at: datetime | None = None
    burn: tuple[tuple[timedelta, float], ...] = ()
    sample: Sample | None = None


def judge_budget(policy: Policy, objective: Objective, reading: Reading, before: tuple[Verdict, datetime] | None) -> BudgetOutcome:
    """The budget of one objective. `before`: the last verdict and since when it held. No hysteresis: a month's sum does not flap."""
    block, now = block_of(policy.metrics.provider), reading.now
    bad, total, blocks = (
        reading.observe(sample_name(series, objective=objective.name), block)
        for series in (names.PERIOD_BAD, names.PERIOD_TOTAL, names.PERIOD_BLOCKS)
    )
    verdict, reason, coverage = _verdict(policy, objective, bad, total, blocks)
    if verdict is Verdict.UNKNOWN and reason is not Reason.LOW_TRAFFIC and policy.metrics.no_data_hold and before is not None:
        verdict = before[0]
    since = before[1] if before is not None and before[0] is verdict else now
    burn = _burn(policy, objective, reading)
    if bad.newest is None or total.newest is None or coverage is None or reason in _NO_RATIO:
        return BudgetOutcome(objective, verdict, reason, since, coverage=coverage, burn=burn)
    ratio = bad.newest.value / total.newest.value
    remaining = _remaining(objective, ratio)
    runs_out = _exhausted_at(objective, remaining, dict(burn), now) if coverage >= FULL_COVERAGE else None
    return BudgetOutcome(objective, verdict, reason, since, 1 - ratio, remaining, coverage, runs_out, burn, bad.newest)


def _verdict(
    policy: Policy, objective: Objective, bad: Observation, total: Observation, blocks: Observation
) -> tuple[Verdict, Reason | None, float | None]:
    """Verdict, reason, coverage."""
    if bad.newest is None or total.newest is None or blocks.newest is None:
        return Verdict.UNKNOWN, bad.reason or total.reason or blocks.reason, None
    recorded = blocks.newest.value * block_of(policy.metrics.provider).total_seconds()
    coverage = min(1.0, max(0.0, recorded / timedelta(days=objective.window_days).total_seconds()))
    if total.newest.value <= 0:
        verdict = Verdict.MET if policy.metrics.no_traffic_met else Verdict.UNKNOWN
        return verdict, Reason.LOW_TRAFFIC, coverage
    # Two finite numbers can still have no finite quotient: a total next to zero is a backend's nonsense, not a spent budget.
    left = _remaining(objective, bad.newest.value / total.newest.value)
    if not math.isfinite(left):
        return Verdict.UNKNOWN, Reason.NOT_A_NUMBER, coverage
    partial = None if coverage >= FULL_COVERAGE else Reason.PARTIAL_WINDOW
    return (Verdict.MET if left > 0 else Verdict.VIOLATED), partial, coverage


def _remaining(objective: Objective, bad_ratio: float) -> float:
    budget = float(objectives.budget(objective))
    if budget <= 0:
        return 1.0 if bad_ratio <= 0 else -1.0
    return 1 - bad_ratio / budget


def _burn(policy: Policy, objective: Objective, reading: Reading) -> tuple[tuple[timedelta, float], ...]:
    step, block, found = policy.metrics.provider.rule_interval, block_of(policy.metrics.provider), []
    for window, of_step, name in _burn_rates(objective.name):
        newest = reading.observe(name, step if of_step else block).newest
        if newest is not None:
            found.append((window, newest.value))
    return tuple(found)


@lru_cache(maxsize=1024)
def _burn_rates(objective: str) -> tuple[tuple[timedelta, bool, SampleName], ...]:
    """Every window of an objective, whether it is recorded with each step, and as what."""
    return tuple(
        (window, window in objectives.STEP_WINDOWS, sample_name(names.BURN_RATE, objective=objective, window=duration(window)))
        for window in REPORTED_WINDOWS
    )


def _exhausted_at(objective: Objective, remaining: float, burn: Mapping[timedelta, float], now: datetime) -> datetime | None:
    """When the budget runs out at the last hour's rate, if it does within one window from now."""
    rate = burn.get(_EXHAUSTION_WINDOW, 0.0)
    if remaining <= 0 or rate <= 0 or remaining / rate >= 1:
        return None
    return now + timedelta(days=objective.window_days) * (remaining / rate)
