"""A sample, or the reason there is none. The only module that reads what a metrics backend answered.

Six kinds of no sample, six reasons: NoData, NotANumber, SeveralSeries, StaleSample, SourceUnreachable here, and LowTraffic where ratios are
judged (verdicts.py). None of them is ever 0, Met, or a trigger.

A row belongs to a policy by namespace, name and UID. Rows of another UID (a former policy of that name, or forged ones) belong to nobody
and are never read. Rows in a policy's name that carry one label more stand apart, by those labels; the backend may put such labels on all
of them (Thanos and Mimir do), so the ones that stand with the revision of the rules are the policy's, and the others are nobody's. Only
while somebody forges that series, too, is nothing known: a forged block of the past does not spoil a budget until its window has passed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.policy.model import Policy
from perfpolicy.promql import names
from perfpolicy.vocabulary import Reason

LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
"""A sample's time beyond it is garbage."""
STALE_INTERVALS: Final = 3
"""A sample further from now than this many rule intervals, in the past or (where clocks disagree) in the future, is stale."""
_DISTINGUISHING: Final = (names.OBJECTIVE, names.QUANTILE, names.WINDOW)
"""Sorted."""


class Owner(NamedTuple):
    """Whose rows: one incarnation of a policy."""

    namespace: str
    name: str
    uid: str


class SampleName(NamedTuple):
    """A recorded series of one policy; `label` is its quantile, objective or window labels, sorted."""

    series: str
    labels: tuple[tuple[str, str], ...] = ()


Point = tuple[float, float]
"""One sample: unix seconds, -inf where it was garbage, so that it is never the newest beside a good one; and its value. A plain tuple:
an answer has a hundred thousand."""


@dataclass(slots=True)
class Row:
    """The samples of one name, as the backend ordered them, and how many series claimed the name."""

    points: tuple[Point, ...]
    series: int = 1


Extra = tuple[tuple[str, str], ...]
"""Labels beyond those the rules write, sorted."""
Rows = dict[Owner, dict[Extra, dict[SampleName, Row]]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One cycle's answer for all policies of a provider."""

    rows: Rows = field(default_factory=dict)
    budgets: bool = True
    """What budgets are judged by was asked for, too."""

    def of(self, policy: Policy) -> Mapping[SampleName, Row]:
        """The rows of a policy; empty where there are none. All in its name together where its revision does not tell which."""
        apart = self.rows.get(Owner(policy.key.namespace, policy.key.name, policy.identity.uid), {})
        told = [rows for rows in apart.values() if _REVISION in rows]
        return told[0] if len(told) == 1 else _together(apart.values())


@dataclass(frozen=True, slots=True)
class Direct:
    """What raw metrics said of one policy whose rules are not loaded, and when they were asked; no rows: nothing yet."""

    asked: datetime
    rows: Mapping[SampleName, Row] = field(default_factory=dict)


class Sample(NamedTuple):
    """A finite value and when it was measured."""

    value: float
    time: datetime


class Observation(NamedTuple):
    """The newest sample of a name, or `reason` why there is none. `points` as they came: few are looked at again."""

    newest: Sample | None = None
    reason: Reason | None = None
    points: Sequence[Point] = ()

    def since(self, time: datetime | None) -> list[Sample]:
        """The finite samples newer than that in time order; None: all of them."""
        least = -math.inf if time is None else time.timestamp()
        newer = sorted([point for point in self.points if point[0] > least])
        return [Sample(value, _moment(at)) for at, value in newer if math.isfinite(value)]


@lru_cache(maxsize=4096)
def _moment(time: float) -> datetime:
    """One object for all that a rule group recorded at once."""
    return datetime.fromtimestamp(time, UTC)


@lru_cache(maxsize=4096)
def sample_name(series: str, **labels: str) -> SampleName:
    """The name of a recorded series, e.g. sample_name(LATENCY_QUANTILE, quantile="0.95")."""
    return SampleName(series, tuple(sorted(labels.items())))


_REVISION: Final = sample_name(names.REVISION)
_OWNER: Final = (names.NAMESPACE, names.POLICY, names.UID)
_IDENTITY: Final = ("__name__", *_OWNER)
_WRITTEN: Final = frozenset({*_IDENTITY, *_DISTINGUISHING})


def _together(apart: Iterable[Mapping[SampleName, Row]]) -> Mapping[SampleName, Row]:
    merged: dict[SampleName, Row] = {}
    for rows in apart:
        for name, row in rows.items():
            merged[name] = Row(row.points, row.series + (merged[name].series if name in merged else 0))
    return merged


def add_series(rows: Rows, labels: Any, values: Any) -> None:
    """File one series of a backend's answer under its owner; what is not labelled as ours, or is garbage, is dropped. `values`: a tuple
    (JSON has none) is of points already, read by metrics/answer.py.
    """
    if not isinstance(labels, dict) or not isinstance(values, list | tuple):
        return
    label: Callable[[str], Any] = labels.get
    owner = Owner(label(names.NAMESPACE), label(names.POLICY), label(names.UID))
    try:
        named = _name(label("__name__"), label(names.OBJECTIVE), label(names.QUANTILE), label(names.WINDOW))
        apart = rows.get(owner)
    except TypeError:
        return  # a list or an object for a label
    if named is None:
        return
    if apart is None:
        if not all(isinstance(part, str) and part for part in owner):
            return
        apart = rows[owner] = {}
    name, written = named
    extra = () if len(labels) == written else _extra(labels)
    found = apart.get(extra)
    if found is None:
        found = apart[extra] = {}
    row = found.get(name)
    if row is None:
        found[name] = Row(values if isinstance(values, tuple) else points(values))
    else:
        row.series += 1


@lru_cache(maxsize=4096)
def _name(series: Any, *distinguishing: Any) -> tuple[SampleName, int] | None:
    """One object for the series of that name of all policies, and how many labels the rules write on it."""
    if not isinstance(series, str) or not series:
        return None
    labels = tuple((label, str(value)) for label, value in zip(_DISTINGUISHING, distinguishing, strict=True) if value is not None)
    return SampleName(series, labels), len(labels) + len(_IDENTITY)


def _extra(labels: Mapping[Any, Any]) -> Extra:
    return tuple(sorted((str(label), str(value)) for label, value in labels.items() if label not in _WRITTEN or value is None))


def points(values: Iterable[Any]) -> tuple[Point, ...]:
    """Raw samples ([[unix seconds, "value"], ...]) as numbers."""
    return tuple([_point(value) for value in values])


class Reading:
    """One policy's rows at one moment; each name, which has one interval, is read once, however many thresholds ask for it."""

    def __init__(self, rows: Mapping[SampleName, Row] | MetricsUnavailable, now: datetime, late: timedelta) -> None:
        """`late`: how much older than their evaluation samples are on purpose."""
        self.rows, self.now, self._meant = rows, now, (now - late).timestamp()
        self._read: dict[SampleName, Observation] = {}

    def observe(self, name: SampleName, interval: timedelta) -> Observation:
        """The samples of `name`, whose series is recorded every `interval`. Never raises, whatever the backend sent."""
        found = self._read.get(name)
        if found is None:
            found = self._read[name] = self._observe(name, interval)
        return found

    def _observe(self, name: SampleName, interval: timedelta) -> Observation:
        if isinstance(self.rows, MetricsUnavailable):
            return _NOTHING[Reason.SOURCE_UNREACHABLE]
        row = self.rows.get(name)
        if row is None or not row.points:
            return _NOTHING[Reason.NO_DATA]
        if row.series > 1:
            return _NOTHING[Reason.SEVERAL_SERIES]
        time, value = max(row.points)
        if time == -math.inf:
            return _NOTHING[Reason.NOT_A_NUMBER]
        if abs(self._meant - time) > interval.total_seconds() * STALE_INTERVALS:
            return _NOTHING[Reason.STALE_SAMPLE]
        if not math.isfinite(value):
            return _NOTHING[Reason.NOT_A_NUMBER]
        return Observation(Sample(value, _moment(time)), None, row.points)


_NOTHING: Final = {reason: Observation(reason=reason) for reason in Reason}
_GARBAGE: Final[Point] = (-math.inf, math.nan)


def _point(item: Any) -> Point:
    if not isinstance(item, list) or len(item) != 2:
        return _GARBAGE
    try:
        time, value = float(item[0]), float(item[1])
    except (TypeError, ValueError, OverflowError):
        return _GARBAGE
    return (time, value) if 0 <= time < LATEST else _GARBAGE
