"""Planned maintenance in rules: what is counted is recorded outside of it only, and alerts are silent in it.

The windows stand in every rule as arithmetic on `time()`: that reads no sample, and nobody can forge it, as they could a recorded series.
What every longer window is summed from is absent for that time, so it counts in none of them, now or when the window is taken out of the
spec again.
"""

from datetime import timedelta
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.expr import Expr, binary, call, number, seconds, total_of
from perfpolicy.promql.rule import block_of, own

_NOW: Final = call("time")


def settling(provider: model.Provider) -> timedelta:
    """How long after a window its last request may still turn up in a step: a step reaches so far back, one failed scrape included.

    So a window reaches at most this far beyond its ends, and nothing in it is ever counted.
    """
    return provider.rule_interval + provider.scrape_interval * 2 + lateness(provider)


def lateness(provider: model.Provider) -> timedelta:
    """How far in the past a step ends: a fifth of the scrape interval, more than a scrape takes.

    A sample carries the time its scrape began and is stored when it ended. Read without delay, a sample in between is missing from this
    step, and the next one takes it for known: its increase is lost, and as a target keeps its place in the interval, lost every time.
    """
    return provider.scrape_interval / 5


def outside(policy: model.Policy, expr: Expr, reach: timedelta = timedelta(0)) -> Expr:
    """`expr` but in maintenance; `reach`: how far back it reads beyond a step."""
    if not policy.maintenance:
        return expr
    return binary(expr, "unless", _during(policy, reach), "on ()")


def nothing_counted(policy: model.Policy) -> Expr | None:
    """0 with the policy's labels while a block may have no step because of maintenance; None where there are no windows.

    With it the blocks of a window are there, so that a budget's coverage does not take them for missing.
    """
    if not policy.maintenance:
        return None
    provider = policy.metrics.provider
    zero = own(policy, names.REVISION).instant() * number(0)
    return zero.also(_during(policy, block_of(provider) + provider.rule_interval), "on ()")


def _during(policy: model.Policy, reach: timedelta) -> Expr:
    """One element from a window's start until what reads `reach` beyond a step has nothing of it left."""
    longer = settling(policy.metrics.provider) + reach
    windows = [_within(window, longer) for window in policy.maintenance]
    return call("vector", total_of(windows)).above(0)


def _within(window: model.MaintenanceWindow, longer: timedelta) -> Expr:
    """A scalar: 1 in the window, `longer` included, else 0."""
    start, lasting = number(int(window.start.timestamp())), seconds(window.duration + longer)
    begun = binary(_NOW, ">= bool", start)
    since = _NOW - start
    if window.every is not None:
        since = binary(since, "%", seconds(window.every))
    return begun * binary(since, "< bool", lasting)
