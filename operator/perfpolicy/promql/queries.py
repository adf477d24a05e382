"""What the operator asks a metrics backend in one cycle: a fixed handful of queries, whatever the number of policies.

Recorded series are read as ranges, so that a value arrives with its true sample time; a plain instant read stamps the time of the query,
which hides a rule that stopped. The range is four intervals: a sample older than three is stale, and only one more is seen at all.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.expr import Matcher, Op, Selector, check
from perfpolicy.promql.rule import block_of

RANGE_INTERVALS: Final = 4

_TRAFFIC: Final = (names.REVISION, names.OFFERED_RATE, names.SERVED_RATE, names.JUDGED_RATE, names.REFUSED)
_RATIOS: Final = (names.ERROR_RATIO, names.SLOW_RATIO, names.LATENCY_MEAN)
_PERIODS: Final = (names.PERIOD_BAD, names.PERIOD_TOTAL, names.PERIOD_BLOCKS)
_FAMILIES: Final = (
    ("traffic", _TRAFFIC, False),
    ("ratios", _RATIOS, False),
    ("latency", (names.LATENCY_QUANTILE,), False),
    ("resources", (names.CPU_RATIO, names.MEMORY_RATIO), False),
    ("burn rates", (names.BURN_RATE,), True),
    ("budgets", _PERIODS, True),
)


@dataclass(frozen=True, slots=True)
class Query:
    """One instant query that answers for all policies of a provider."""

    name: str
    text: str


def cycle_queries(provider: model.Provider) -> tuple[Query, ...]:
    """At most six queries; the class's matchers (such as cluster="a") are in each. Raises RenderError."""
    return tuple(_query(provider, name, series, blocks) for name, series, blocks in _FAMILIES)


def _query(provider: model.Provider, name: str, series: tuple[str, ...], blocks: bool) -> Query:
    interval: timedelta = block_of(provider) if blocks else provider.rule_interval
    matchers = (
        Matcher("__name__", Op.RE, "|".join(map(re.escape, series))),
        Matcher(names.UID, Op.NE, ""),
        *(Matcher(label, Op.EQ, value) for label, value in provider.matchers),
    )
    expression = Selector("", matchers).over(interval * RANGE_INTERVALS)
    check(expression, f"the {name} query")
    return Query(name, str(expression))
