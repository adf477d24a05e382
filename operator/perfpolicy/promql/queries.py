"""What the operator asks a metrics backend in one cycle: a fixed handful of queries, whatever the number of policies.

Recorded series are read as ranges, so that a value arrives with its true sample time; a plain instant read stamps the time of the query,
which hides a rule that stopped. The range is four intervals: a sample older than three is stale, and only one more is seen at all.
Where rules are evaluated late, it is that much longer.

Many policies are asked for in shares, so that no answer is large: a third of them at a time, told apart by their UIDs.
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
SHARES: Final = ("[0-4]", "[5-9]", "[^0-9]")
"""What the UIDs of each share begin with: five, five and six of the sixteen digits of a UUID, and whatever is none."""

_STEPS: Final = (
    names.REVISION, names.OFFERED_RATE, names.SERVED_RATE, names.JUDGED_RATE, names.REFUSED, names.CPU_RATIO, names.MEMORY_RATIO,
    names.ERROR_RATIO, names.SLOW_RATIO, names.LATENCY_MEAN, names.LATENCY_QUANTILE,
)  # fmt: skip
_BLOCKS: Final = (names.BURN_RATE, names.PERIOD_BAD, names.PERIOD_TOTAL, names.PERIOD_BLOCKS, names.MEMORY_GROWTH)


@dataclass(frozen=True, slots=True)
class Query:
    """One instant query that answers for all policies of a provider, or for a share of them."""

    name: str
    text: str


def share_of(policy: model.Policy) -> int:
    """Which of SHARES a policy belongs to."""
    return next(index for index, first in enumerate(SHARES) if re.match(first, policy.identity.uid or "-"))


def threshold_queries(provider: model.Provider, share: int | None = None) -> tuple[Query, ...]:
    """What thresholds and the health score are judged by. The class's matchers (such as cluster="a") are in each. Raises RenderError."""
    return (_query(provider, "thresholds", _STEPS, share),)


def budget_queries(provider: model.Provider, share: int | None = None) -> tuple[Query, ...]:
    """What budgets and burn rates are judged by, and growing memory is found by, likewise.

    The windows recorded with every step are asked for apart: four blocks of them would be forty samples of each.
    """
    return (
        _query(provider, "fast burn rates", (names.BURN_RATE,), share, windows=objectives.STEP_WINDOWS),
        _query(provider, "budgets", _BLOCKS, share, blocks=True, windows=objectives.BLOCK_WINDOWS),
    )


def _query(
    provider: model.Provider,
    name: str,
    series: tuple[str, ...],
    share: int | None,
    blocks: bool = False,
    windows: tuple[timedelta, ...] = (),
) -> Query:
    """`windows`: of series that have one, only these."""
    interval: timedelta = block_of(provider) if blocks else provider.rule_interval
    matchers = (
        Matcher("__name__", Op.RE, "|".join(map(re.escape, series))),
        Matcher(names.UID, Op.NE, "") if share is None else Matcher(names.UID, Op.RE, f"{SHARES[share]}.*"),
        *([Matcher(names.WINDOW, Op.RE, "|".join(["", *map(duration, windows)]))] if windows else []),
        *(Matcher(label, Op.EQ, value) for label, value in provider.matchers),
    )
    expression = Selector("", matchers).over(interval * RANGE_INTERVALS + (provider.query_offset or timedelta()))
    check(expression, f"the {name} query")
    return Query(name, str(expression))
