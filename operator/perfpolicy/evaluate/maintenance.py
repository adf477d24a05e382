"""Whether a policy is in planned maintenance."""

from dataclasses import dataclass
from datetime import datetime

from perfpolicy.policy.model import MaintenanceWindow, Policy
from perfpolicy.promql.maintenance import settling


@dataclass(frozen=True, slots=True)
class Maintenance:
    """The windows that last, and when the last of them ends."""

    names: tuple[str, ...]
    until: datetime


def active(policy: Policy, now: datetime) -> Maintenance | None:
    """The maintenance at `now`, until something is counted again; None outside of it."""
    longer = settling(policy.metrics.provider)
    lasting = [(window.name, begun + window.duration) for window in policy.maintenance if (begun := _begun(window, now)) is not None]
    found = [(name, end) for name, end in lasting if now < end + longer]
    return Maintenance(tuple(name for name, _end in found), max(end for _name, end in found)) if found else None


def _begun(window: MaintenanceWindow, now: datetime) -> datetime | None:
    """When the window began last; None before it ever did."""
    if now < window.start:
        return None
    return window.start if window.every is None else now - (now - window.start) % window.every
