"""The latency buckets of a policy's source: which are recorded, and where a limit or a quantile falls among them.

Bounds are in milliseconds, whatever the source counts in.
"""

from bisect import bisect_left, bisect_right
from datetime import timedelta
from decimal import Decimal
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql.expr import Matcher, Op, literal_pattern

INFINITE: Final = "\\+Inf"


def recorded_bounds(policy: model.Policy) -> tuple[Decimal, ...]:
    """The bucket bounds (ms) worth recording, ascending, without +Inf.

    From the bound below a tenth of the smallest latency limit (a health check's worth of detail) to the bound above ten times the largest
    (a quantile beyond the last bound reads as that bound, and P0 starts above ten times the limit), and the bounds that objectives and the
    slow-request limit need.
    """
    known = policy.metrics.bounds
    if not known:
        return ()
    limits = [Decimal(_ms(limit.maximum)) for limit in policy.thresholds.latency] or [Decimal(_ms(policy.metrics.slow_request))]
    low, high = min(limits) / 10, max(limits) * 10
    first = max(bisect_left(known, low + 1) - 1, 0)
    last = bisect_right(known, high)
    wanted = set(known[first : last + 1])
    wanted |= {bound_at_least(policy, objective.threshold) for objective in policy.objectives if objective.threshold is not None}
    wanted.add(bound_at_least(policy, policy.metrics.slow_request))
    return tuple(sorted(wanted))


def bound_at_least(policy: model.Policy, limit: timedelta) -> Decimal:
    """The smallest bucket bound (ms) not below `limit`: a request beyond it is certainly slower. The last bound where none is left."""
    known = policy.metrics.bounds
    index = min(bisect_left(known, Decimal(_ms(limit))), len(known) - 1)
    return known[index]


def interval(policy: model.Policy, value_ms: float) -> tuple[Decimal, Decimal | None]:
    """The recorded bucket (lower, upper] in ms that a quantile was interpolated in; upper None is +Inf."""
    bounds = (Decimal(0), *recorded_bounds(policy))
    index = bisect_left(bounds, Decimal(repr(value_ms)))
    if index >= len(bounds):
        return bounds[-1], None
    return bounds[max(index - 1, 0)], bounds[max(index, 1)]


def bound_patterns(*bounds: Decimal) -> tuple[str, ...]:
    """Patterns for `le` of raw buckets in both spellings: "500" (as most write it) and "500.0" (as Prometheus 3 stores it)."""
    plain = [f"{bound.normalize():f}" for bound in bounds]
    spellings = [spelling for text in plain for spelling in ((text,) if "." in text else (text, f"{text}.0"))]
    return tuple(map(literal_pattern, spellings))


def one_of(*patterns: str) -> Matcher:
    """Matches `le` by any of the patterns."""
    return Matcher("le", Op.RE, "|".join(patterns))


def _ms(value: timedelta) -> int:
    return value // timedelta(milliseconds=1)
