"""Error budgets and burn rates of a policy's objectives, by the SRE workbook's windows.

A burn rate of 1 spends the budget exactly in the objective's window. The workbook's windows (for 30 days: 5m & 1h at 14.4, 30m & 6h at 6,
2h & 1d at 3, 6h & 3d at 1) stay as they are and the factors follow the objective's window: factor = budget share x window / long window, so
a page always means that 2 % (or 5 %) of the budget went in the long window.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.buckets import bound_at_least
from perfpolicy.promql.expr import Expr, Matcher, Op, Selector, aggregate, call, duration, number, relabel
from perfpolicy.promql.rule import Rule, block_of, bucket_sum, own, record, summed, with_bounds

_LOWEST_FACTOR: Final = Decimal("0.9")
"""Below it an alert would fire on a service that keeps its promise (28 days still gives 0.93)."""


@dataclass(frozen=True, slots=True)
class BurnAlert:
    """One pair of windows; `factor` for the objective at hand."""

    page: bool
    short: timedelta
    long: timedelta
    share: Decimal
    """Part of the budget that is gone after `long` at this burn rate."""

    def factor(self, objective: model.Objective) -> Decimal:
        """The burn rate that spends `share` in `long`."""
        return self.share * Decimal(timedelta(days=objective.window_days) / self.long)


BURN_ALERTS: Final = (
    BurnAlert(True, timedelta(minutes=5), timedelta(hours=1), Decimal("0.02")),
    BurnAlert(True, timedelta(minutes=30), timedelta(hours=6), Decimal("0.05")),
    BurnAlert(False, timedelta(hours=2), timedelta(days=1), Decimal("0.1")),
    BurnAlert(False, timedelta(hours=6), timedelta(days=3), Decimal("0.1")),
)
_COUNTED: Final = timedelta(days=1)
_SAMPLED: Final = timedelta(hours=1)
STEP_WINDOWS: Final = (timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=1))
"""Windows summed from steps, every step: a page alert must not wait for a block."""
BLOCK_WINDOWS: Final = (timedelta(hours=2), timedelta(hours=6), timedelta(days=1), timedelta(days=3))


def budget(objective: model.Objective) -> Decimal:
    """The share of requests that may be bad."""
    return 1 - objective.target


def follows_blocks(pair: BurnAlert) -> bool:
    """Whether both windows of a pair change with a block only, so that nothing is gained by looking at every step."""
    return pair.short in BLOCK_WINDOWS and pair.long in BLOCK_WINDOWS


def why_not(alert: BurnAlert, objective: model.Objective) -> str | None:
    """Why this burn alert is left out for this objective, or None when it is written."""
    factor = alert.factor(objective)
    pair = f"{duration(alert.short)} & {duration(alert.long)}"
    if factor * budget(objective) >= 1:
        return f"burn alert {pair} of {objective.name} can never fire: {factor:f} times its budget is above 100 %"
    if factor < _LOWEST_FACTOR:
        return f"burn alert {pair} of {objective.name} would fire while the promise is kept: its factor is {factor:.2f}"
    return None


def burn_rates(policy: model.Policy, windows: tuple[timedelta, ...]) -> Iterator[Rule]:
    """Burn rate of every objective over each of `windows`. Absent, not NaN, where there were no requests."""
    for objective in policy.objectives:
        if not budget(objective):
            continue
        for window in windows:
            ratio = bad_sum(policy, objective, window) / total_sum(policy, window).above(0)
            labels = {names.OBJECTIVE: objective.name, names.WINDOW: duration(window)}
            yield record(policy, names.BURN_RATE, ratio / number(budget(objective)), **labels)


def periods(policy: model.Policy) -> Iterator[Rule]:
    """Bad and total requests over each objective's window, what they leave of its budget, and how many blocks of it were recorded."""
    for objective in policy.objectives:
        window = timedelta(days=objective.window_days)
        label, of = {names.OBJECTIVE: objective.name}, Matcher(names.OBJECTIVE, Op.EQ, objective.name)
        yield record(policy, names.PERIOD_BAD, _bad(policy, objective, window, names.ERRORS_BLOCK, names.DURATION_BUCKET_BLOCK), **label)
        yield record(policy, names.PERIOD_TOTAL, summed(policy, names.JUDGED_BLOCK, window), **label)
        if allowed := budget(objective):
            spent = own(policy, names.PERIOD_BAD).where(of).instant() / own(policy, names.PERIOD_TOTAL).where(of).instant().above(0)
            yield record(policy, names.BUDGET_LEFT, number(1) - spent / number(allowed), **label)
        counted = _count(policy, _counted(policy, objective), window)
        yield record(policy, names.PERIOD_BLOCKS, relabel(counted, names.BOUND), **label)


def _count(policy: model.Policy, series: Selector, window: timedelta) -> Expr:
    """How many blocks `window` holds. Only the last day is counted one by one, so that a young policy knows; of what is older one block an
    hour stands for all, for a third count over the whole window costs as much as the errors themselves.
    """
    lately = call("count_over_time", series.over(min(window, _COUNTED)))
    if window <= _COUNTED:
        return lately
    block = block_of(policy.metrics.provider)
    sampled = call("count_over_time", call("last_over_time", series.over(block)).sampled(window - _COUNTED, _SAMPLED, _COUNTED))
    return lately + (sampled * number(Decimal(_SAMPLED / block))).otherwise(lately * number(0))


def bad_sum(policy: model.Policy, objective: model.Objective, window: timedelta) -> Expr:
    """Bad requests of an objective in a burn window."""
    if window in STEP_WINDOWS:
        return _bad(policy, objective, window, names.ERRORS_STEP, names.DURATION_BUCKET_STEP)
    return _bad(policy, objective, window, names.ERRORS_BLOCK, names.DURATION_BUCKET_BLOCK)


def total_sum(policy: model.Policy, window: timedelta) -> Expr:
    """Judged requests in a burn window."""
    return summed(policy, names.JUDGED_STEP if window in STEP_WINDOWS else names.JUDGED_BLOCK, window)


def _bad(policy: model.Policy, objective: model.Objective, window: timedelta, errors: str, buckets: str) -> Expr:
    if objective.threshold is None:
        return summed(policy, errors, window)
    bound = bound_at_least(policy, objective.threshold)
    return call("clamp_min", bucket_sum(policy, buckets, window) - bucket_sum(policy, buckets, window, bound), number(0))


def _counted(policy: model.Policy, objective: model.Objective) -> Selector:
    if objective.threshold is None:
        return own(policy, names.ERRORS_BLOCK)
    bound = bound_at_least(policy, objective.threshold)
    return own(policy, names.DURATION_BUCKET_BLOCK).where(with_bounds(bound))


def burn_rate(policy: model.Policy, objective: model.Objective, window: timedelta) -> Expr:
    """The newest recorded burn rate over one window, without the window label, so that two windows join.

    Read as a range: a series recorded every 5 m meets the 5 m lookback, and one in five plain reads comes back empty.
    """
    matchers = Matcher(names.OBJECTIVE, Op.EQ, objective.name), Matcher(names.WINDOW, Op.EQ, duration(window))
    tier = policy.metrics.provider.rule_interval if window in STEP_WINDOWS else block_of(policy.metrics.provider)
    newest = call("last_over_time", own(policy, names.BURN_RATE).where(*matchers).over(tier * 2))
    return aggregate("max", newest, (*names.IDENTITY, names.OBJECTIVE))
