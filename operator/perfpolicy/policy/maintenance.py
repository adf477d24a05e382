"""Planned maintenance: wire form to model. Pure."""

from collections.abc import Iterable
from datetime import datetime

from perfpolicy.api import maintenance as wire
from perfpolicy.policy import model
from perfpolicy.units import parse_duration


def resolve_maintenance(windows: Iterable[wire.MaintenanceWindow]) -> tuple[model.MaintenanceWindow, ...]:
    """The windows in the order they were written."""
    return tuple(
        model.MaintenanceWindow(
            window.name,
            datetime.fromisoformat(window.start),
            parse_duration(window.duration),
            wire.EVERY[window.repeat] if window.repeat else None,
        )
        for window in windows
    )
