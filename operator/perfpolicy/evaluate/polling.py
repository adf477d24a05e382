"""Callers that go on asking although they are refused: the share of offered requests that is not judged, which our limits answered.

Over spec.thresholds.window, so a burst is none. Found after three samples above a fifth, over after three below a tenth, as it was in
between: an anti-pattern comes and goes with a status write. Not of policies that inject faults or cap concurrency: what those refuse
says nothing of how often anybody asks.
"""

from typing import Final

from perfpolicy.evaluate.observation import Observation, Reading, sample_name
from perfpolicy.policy.model import Policy
from perfpolicy.promql import names

FOUND: Final = 0.2
OVER: Final = 0.1
SAMPLES: Final = 3


def polled(policy: Policy, reading: Reading, before: bool) -> bool:
    """Whether callers poll aggressively; `before`: as last said."""
    if policy.traffic.proxy.concurrency is not None or any(route.fault is not None for route in policy.traffic.routes):
        return False
    interval, least = policy.metrics.provider.rule_interval, float(policy.metrics.minimum_rate)
    offered, judged = (reading.observe(sample_name(series), interval) for series in (names.OFFERED_RATE, names.JUDGED_RATE))
    if not before and _newest_is_low(offered, judged, least):
        return False
    left = {time: value for value, time in judged.since(None)}
    shares = [_share(value, left[time], least) for value, time in offered.since(None) if time in left][-SAMPLES:]
    if len(shares) == SAMPLES and min(shares) > FOUND:
        return True
    return before and not (len(shares) == SAMPLES and max(shares) < OVER)


def _newest_is_low(offered: Observation, judged: Observation, least: float) -> bool:
    """Whether the newest share, which is one of those looked at, is none to find polling by: of most policies no other need be made."""
    one, other = offered.newest, judged.newest
    return one is not None and other is not None and one.time == other.time and _share(one.value, other.value, least) <= FOUND


def _share(offered: float, judged: float, least: float) -> float:
    """The share of requests that was refused, where there are enough."""
    return 1 - judged / offered if offered >= least and offered > 0 else 0.0
