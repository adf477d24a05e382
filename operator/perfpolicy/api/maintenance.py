"""Wire format of planned maintenance: when nothing is counted."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from perfpolicy.api.base import DnsLabel, Named, PositiveSeconds, Rule, Wire
from perfpolicy.units import parse_duration

EVERY: Final = {"Daily": timedelta(days=1), "Weekly": timedelta(days=7)}
_SHORTEST: Final = timedelta(minutes=1)
_LONGEST: Final = timedelta(days=7)


def _of_the_calendar(text: str) -> str:
    """As the API server's date-time is: no 30th of February."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not in the calendar") from None
    return text


UtcTime = Annotated[
    str,
    Field(
        pattern="^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$",
        max_length=30,
        json_schema_extra={"format": "date-time"},
    ),
    AfterValidator(_of_the_calendar),
]


class MaintenanceWindow(Wire):
    """A time in which requests count neither as good nor as bad, nothing is judged, and alerts are silent."""

    name: DnsLabel
    """Name of the window, told in the status while it lasts."""
    start: UtcTime
    """When it begins, in UTC, for example 2026-12-06T02:00:00Z; with `repeat` when it begins for the first time."""
    duration: PositiveSeconds
    """How long it lasts, from 1m to 168h."""
    repeat: Literal["Daily", "Weekly"] | None = None
    """Daily: every day from then on at the same time in UTC. Weekly: every seven days. Left out: once."""

    RULES = (
        Rule(
            cel="duration(self.duration) >= duration('1m') && duration(self.duration) <= duration('168h')",
            holds=lambda window: _SHORTEST <= parse_duration(window.duration) <= _LONGEST,
            message="duration must be between 1m and 168h",
            field="duration",
        ),
        Rule(
            cel="!has(self.repeat) || duration(self.duration) < duration(self.repeat == 'Daily' ? '24h' : '168h')",
            holds=lambda window: window.repeat is None or parse_duration(window.duration) < EVERY[window.repeat],
            message="duration must be below 24h with repeat: Daily, and below 168h with repeat: Weekly",
            field="duration",
        ),
    )


MaintenanceWindows = Annotated[Named[MaintenanceWindow], Field(max_length=8)]
