"""Memory that grows from day to day towards the limit: found by what the rules expect of it (promql/growth.py).

Found after three samples that say two days more will fill what room is left, over after three that say not even half of it: a sample is
five minutes, and an anti-pattern comes and goes with a status write.
"""

from typing import Final

from perfpolicy.evaluate.observation import Reading, sample_name
from perfpolicy.policy.model import Policy
from perfpolicy.promql import names
from perfpolicy.promql.growth import watched
from perfpolicy.promql.rule import block_of

FOUND: Final = 1.0
OVER: Final = 0.5
SAMPLES: Final = 3


def grows(policy: Policy, reading: Reading, before: bool) -> bool:
    """Whether memory grows towards its limit; `before`: as last said, which stays where nothing is known or blocks were not asked about."""
    if not watched(policy):
        return False
    growth = reading.observe(sample_name(names.MEMORY_GROWTH), block_of(policy.metrics.provider))
    filled = [value for value, _ in growth.since(None)][-SAMPLES:]
    if len(filled) == SAMPLES and min(filled) >= FOUND:
        return True
    return before and not (len(filled) == SAMPLES and max(filled) < OVER)
