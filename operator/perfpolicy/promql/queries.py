"""What the operator asks a metrics backend in one cycle: a fixed handful of queries, whatever the number of policies.

Recorded series are read as ranges, so that a value arrives with its true sample time; a plain instant read stamps the time of the query,
which hides a rule that stopped. The range is four intervals: a sample older than three is stale, and only one more is seen at all.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names, objectives
from perfpolicy.promql.expr import Matcher, Op, Selector, check, duration
from perfpolicy.promql.rule import block_of

RANGE_INTERVALS: Final = 4

_PRESENT: Final = (
    names.REVISION, names.OFFERED_RATE, names.SERVED_RATE, names.JUDGED_RATE, names.REFUSED, names.CPU_RATIO, names.MEMORY_RATIO,
)  # fmt: skip
_RATIOS: Final = (names.ERROR_RATIO, names.SLOW_RATIO, names.LATENCY_MEAN)
_PERIODS: Final = (names.PERIOD_BAD, names.PERIOD_TOTAL, names.PERIOD_BLOCKS)
_FAMILIES: Final = (
    ("traffic and resources", _PRESENT, False, ()),
    ("ratios", _RATIOS, False, ()),
    ("latency", (names.LATENCY_QUANTILE,), False, ()),
    # Apart: four blocks of what is recorded with every step would be forty samples of each.
    ("fast burn rates", (names.BURN_RATE,), False, objectives.STEP_WINDOWS),
    ("slow burn rates", (names.BURN_RATE,), True, objectives.BLOCK_WINDOWS),
    ("budgets", _PERIODS, True, ()),
)
"""What is asked for together: series, whether they are recorded with each block, and of which windows (none: they have none)."""


@dataclass(frozen=True, slots=True)
class Query:
    """One instant query that answers for all policies of a provider."""

    name: str
    text: str


def cycle_queries(provider: model.Provider) -> tuple[Query, ...]:
    """At most six queries; the class's matchers (such as cluster="a") are in each. Raises RenderError."""
    return tuple(_query(provider, *family) for family in _FAMILIES)


def _query(provider: model.Provider, name: str, series: tuple[str, ...], blocks: bool, windows: tuple[timedelta, ...]) -> Query:
    interval: timedelta = block_of(provider) if blocks else provider.rule_interval
    matchers = (
        Matcher("__name__", Op.RE, "|".join(map(re.escape, series))),
        Matcher(names.UID, Op.NE, ""),
        *([Matcher(names.WINDOW, Op.RE, "|".join(map(duration, windows)))] if windows else []),
        *(Matcher(label, Op.EQ, value) for label, value in provider.matchers),
    )
    expression = Selector("", matchers).over(interval * RANGE_INTERVALS)
    check(expression, f"the {name} query")
    return Query(name, str(expression))
