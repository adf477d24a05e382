"""The health score: 0 to 100 from errors, mean latency and slow requests.

5 % errors, 1000 ms mean latency and 10 % slow requests each cost their whole part.
"""

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["Healthy", "Acceptable", "Degraded"]

DEGRADED_BELOW: Final = 70
ACCEPTABLE_BELOW: Final = 90


@dataclass(frozen=True, slots=True)
class Health:
    """The score's parts, at most 40, 40 and 20."""

    errors: float
    latency: float
    slow: float

    @property
    def score(self) -> float:
        """0 to 100."""
        return self.errors + self.latency + self.slow

    @property
    def level(self) -> Level:
        """Degraded below 70, Acceptable below 90; judged on the rounded score, which is the one people see."""
        score = round(self.score)
        if score < DEGRADED_BELOW:
            return "Degraded"
        return "Acceptable" if score < ACCEPTABLE_BELOW else "Healthy"


def health_of(error_ratio: float, mean_ms: float, slow_ratio: float) -> Health:
    """The score of an error ratio (0 to 1), a mean latency in ms and a ratio of slow requests (0 to 1)."""
    return Health(
        errors=_part(40, 800 * error_ratio),
        latency=_part(40, mean_ms / 25),
        slow=_part(20, 200 * slow_ratio),
    )


def _part(most: float, cost: float) -> float:
    return min(most, max(0.0, most - cost))
