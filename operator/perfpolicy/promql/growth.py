"""Memory that grows from day to day: what a leak does, and neither daily traffic, a garbage collector, a release nor a warm-up.

The least of an hour is what no collection frees. It is compared with the same hour of the day before, all through a day: what goes up and
down with the traffic gains nothing, what stepped up once or fell (pods restarted) gained nothing at some hour of it. What is left is taken
to go on for as long as was looked back, and to slow down as it did: a cache that fills up gains less each day, a leak as much.

So it takes pods that live for two days. What fills its memory sooner is met by the threshold on memory, and by HighMemoryUsage.
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.expr import call, number
from perfpolicy.promql.rule import Rule, block_of, own, record

_FLOOR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_EVERY: Final = timedelta(hours=3)
_LOOKS: Final = 9
"""How often the gain is looked at: a day, and once before it, when what stepped up within the day had not yet."""
_MISSED_LOOKS: Final = 1
_AHEAD_DAYS: Final = 2
_LEAST_GAIN: Final = Decimal("0.01")
"""Of the limit, in a day. Below it nothing grows."""
_LEAST_ROOM: Final = Decimal("0.05")
"""Of the limit. Closer to it the noise of what does not grow would reach it."""


def watched(policy: model.Policy) -> bool:
    """Whether growth is looked for: the threshold records memory, and there is a limit to grow to. A request is none."""
    return policy.thresholds.memory is not None and bool(policy.workload.limits.memory)


def growth(policy: model.Policy) -> Iterator[Rule]:
    """The floor of memory, what it gains in a day, and how much of the room above it that fills: 1 or more, all of it."""
    if not watched(policy):
        return
    block = block_of(policy.metrics.provider)
    floor, gain = own(policy, names.MEMORY_FLOOR), own(policy, names.MEMORY_GAIN)
    yield record(policy, names.MEMORY_FLOOR, call("min_over_time", own(policy, names.MEMORY_RATIO).over(_FLOOR)))
    yield record(policy, names.MEMORY_GAIN, floor.instant() - call("last_over_time", floor.back(_DAY).over(block * 2)))
    gains = call("last_over_time", gain.over(block * 2)).sampled(_EVERY * _LOOKS, _EVERY)
    least = call("clamp_min", call("min_over_time", gains), number(0))
    most = call("clamp_min", call("max_over_time", gains), number(_LEAST_GAIN))
    room = call("clamp_min", number(1) - floor.instant(), number(_LEAST_ROOM))
    # Today's gain itself, not only the least: after a restart it is negative at once.
    expected = gain.instant() * number(_AHEAD_DAYS) * least / most
    known = call("count_over_time", gains).at_least(_LOOKS - _MISSED_LOOKS)
    yield record(policy, names.MEMORY_GROWTH, (expected / room).also(known))
