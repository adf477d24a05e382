"""Thresholds and their verdicts, with hysteresis.

A verdict changes after 3 bad or 5 good *distinct* samples in a row, told apart by their own timestamps: polling faster does not decide
sooner. A threshold nobody has decided yet is decided by 3 equal samples. What was decided is kept through a gap and shown again when data
returns; after a gap of ten intervals it is forgotten. A new limit starts afresh.

After a restart or a change of leader `Track.resume` starts from the verdict in the status; only the count of samples in a row starts at 0.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from perfpolicy.evaluate.observation import Observation, Reading, Sample, SampleName, sample_name
from perfpolicy.policy.model import Policy, Thresholds
from perfpolicy.promql import names
from perfpolicy.vocabulary import Reason, Verdict

BAD_SAMPLES: Final = 3
GOOD_SAMPLES: Final = 5
FORGET_INTERVALS: Final = 10
_JUDGED_RATE: Final = sample_name(names.JUDGED_RATE)
_OFFERED_RATE: Final = sample_name(names.OFFERED_RATE)


@dataclass(frozen=True, slots=True)
class Threshold:
    """One limit of a policy. `series` is what it is judged by; `traffic`: it says nothing without enough requests."""

    name: str
    limit: Decimal
    series: SampleName
    unit: str
    lower: bool = False
    traffic: bool = True


class Track(NamedTuple):
    """What is remembered of one threshold. `decided` is the hysteresis' state, `shown` what the status says."""

    limit: Decimal
    since: datetime
    decided: Verdict = Verdict.UNKNOWN
    shown: Verdict = Verdict.UNKNOWN
    against: int = 0
    """Samples in a row that speak against `decided`; while undecided, samples in a row of the `leaning`."""
    leaning: Verdict = Verdict.UNKNOWN
    last: datetime | None = None
    """Time of the newest sample that was counted."""

    @staticmethod
    def resume(limit: Decimal, verdict: Verdict, since: datetime, last: datetime | None) -> "Track":
        """The track of a verdict read back from a status."""
        return Track(limit, since, verdict, verdict, 0, Verdict.UNKNOWN, last)


class Outcome(NamedTuple):
    """One threshold judged: the shown verdict, why it is Unknown or held, and the newest sample."""

    threshold: Threshold
    verdict: Verdict
    reason: Reason | None
    since: datetime
    sample: Sample | None


def thresholds(policy: Policy) -> tuple[Threshold, ...]:
    """Every threshold of a policy, in the order the status lists them."""
    return _thresholds(policy.thresholds, str(policy.thresholds.throughput))


@lru_cache(maxsize=1024)
def _thresholds(wanted: Thresholds, _spelling: str) -> tuple[Threshold, ...]:
    """The same objects for all policies of the same limits, as most have them from their class. 100 equals 100.0, but is shown as spelt."""
    return tuple(_each(wanted))


def _each(wanted: Thresholds) -> Iterator[Threshold]:
    for limit in wanted.latency:
        series = sample_name(names.LATENCY_QUANTILE, quantile=f"{limit.quantile.normalize():f}")
        yield Threshold(limit.name, Decimal(limit.maximum // timedelta(microseconds=1)) / 1_000_000, series, "s")
    if wanted.error_rate is not None:
        yield Threshold("errorRate", wanted.error_rate, sample_name(names.ERROR_RATIO), "%")
    if wanted.throughput.minimum is not None:
        yield Threshold("throughputMin", wanted.throughput.minimum, sample_name(names.SERVED_RATE), "/s", lower=True)
    if wanted.throughput.target is not None:
        yield Threshold("throughputTarget", wanted.throughput.target, sample_name(names.SERVED_RATE), "/s", lower=True)
    if wanted.throughput.maximum is not None:
        yield Threshold("throughputMax", wanted.throughput.maximum, sample_name(names.OFFERED_RATE), "/s")
    if wanted.cpu is not None:
        yield Threshold("cpu", wanted.cpu, sample_name(names.CPU_RATIO), "%", traffic=False)
    if wanted.memory is not None:
        yield Threshold("memory", wanted.memory, sample_name(names.MEMORY_RATIO), "%", traffic=False)


def silence(policy: Policy, reading: Reading) -> Reason | None:
    """Why nothing can be said of requests: too few of them are judged, or it is not known how many."""
    rate = reading.observe(_JUDGED_RATE, policy.metrics.provider.rule_interval)
    if rate.newest is None:
        return rate.reason
    return Reason.LOW_TRAFFIC if rate.newest.value < policy.metrics.minimum_rate else None


def judge(policy: Policy, threshold: Threshold, reading: Reading, track: Track | None, silent: Reason | None) -> tuple[Outcome, Track]:
    """The verdict of one threshold from this cycle's rows and what is remembered of it. `silent`: what `silence` says of the reading."""
    interval, now = policy.metrics.provider.rule_interval, reading.now
    track = _track(threshold, track, now)
    observation = reading.observe(threshold.series, interval)
    # Low traffic comes before no data: a ratio without requests is absent on purpose.
    reason = (silent if threshold.traffic else None) or observation.reason
    if reason is not None:
        return _without(policy, threshold, track, reason, observation.newest, now)
    track = advance(track, _judged(policy, threshold, reading, observation, track.last), interval * FORGET_INTERVALS)
    track = show(track, track.decided, now)
    reason = Reason.PENDING if track.decided is Verdict.UNKNOWN else None
    return Outcome(threshold, track.shown, reason, track.since, observation.newest), track


def hold(policy: Policy, threshold: Threshold, reading: Reading, track: Track | None) -> tuple[Outcome, Track]:
    """The verdict as it was, while the rules that are loaded are not the policy's present ones."""
    track = _track(threshold, track, reading.now)
    newest = reading.observe(threshold.series, policy.metrics.provider.rule_interval).newest
    return Outcome(threshold, track.shown, Reason.PENDING, track.since, newest), track


def suspend(policy: Policy, threshold: Threshold, reading: Reading, track: Track | None) -> tuple[Outcome, Track]:
    """No verdict in planned maintenance."""
    track = _track(threshold, track, reading.now)
    newest = reading.observe(threshold.series, policy.metrics.provider.rule_interval).newest
    return _without(policy, threshold, track, Reason.MAINTENANCE, newest, reading.now)


def unloaded(threshold: Threshold, track: Track | None, now: datetime) -> tuple[Outcome, Track]:
    """No verdict: nobody evaluates the policy's present rules."""
    track = show(_track(threshold, track, now), Verdict.UNKNOWN, now)
    return Outcome(threshold, Verdict.UNKNOWN, Reason.RULES_NOT_LOADED, track.since, None), track


def advance(track: Track, samples: Iterable[tuple[datetime, bool]], forget: timedelta) -> Track:
    """Count samples (time, bad) in time order; those not newer than the last counted one are skipped."""
    for time, is_bad in samples:
        if track.last is not None and time <= track.last:
            continue
        if track.last is not None and time - track.last > forget:
            track = track._replace(decided=Verdict.UNKNOWN, against=0, leaning=Verdict.UNKNOWN)
        track = _count(track, time, Verdict.VIOLATED if is_bad else Verdict.MET)
    return track


def show(track: Track, verdict: Verdict, now: datetime) -> Track:
    """The track with `verdict` shown; `since` moves only when that is a change."""
    return track if track.shown is verdict else track._replace(shown=verdict, since=now)


def _track(threshold: Threshold, track: Track | None, now: datetime) -> Track:
    """The track to go on with: a new limit starts afresh."""
    return track if track is not None and track.limit == threshold.limit else Track(threshold.limit, now)


def _count(track: Track, time: datetime, says: Verdict) -> Track:
    decided, against = track.decided, 0
    if says is not decided:
        against = track.against + 1 if says is track.leaning else 1
        if against >= (GOOD_SAMPLES if says is Verdict.MET and decided is Verdict.VIOLATED else BAD_SAMPLES):
            decided, against = says, 0
    # Spelt out, not replace(): this is done for every threshold of every policy in every cycle.
    return Track(track.limit, track.since, decided, track.shown, against, says, time)


def _without(
    policy: Policy, threshold: Threshold, track: Track, reason: Reason, sample: Sample | None, now: datetime
) -> tuple[Outcome, Track]:
    if reason is Reason.LOW_TRAFFIC:
        verdict = Verdict.MET if policy.metrics.no_traffic_met else Verdict.UNKNOWN
    else:
        verdict = track.shown if policy.metrics.no_data_hold else Verdict.UNKNOWN
    track = show(track, verdict, now)
    return Outcome(threshold, verdict, reason, track.since, sample), track


def _judged(
    policy: Policy, threshold: Threshold, reading: Reading, observation: Observation, since: datetime | None
) -> list[tuple[datetime, bool]]:
    """(time, bad) per sample newer than `since`. Throughput breaks its lower bound only where as much was offered at the same time."""
    limit, samples = float(threshold.limit), observation.since(since)
    if not threshold.lower:
        return [(time, value > limit) for value, time in samples]
    below = [(time, value < limit) for value, time in samples]
    if not any(bad for _, bad in below):
        return below
    offered = reading.observe(_OFFERED_RATE, policy.metrics.provider.rule_interval)
    asked = {time for value, time in offered.since(since) if value >= limit}
    return [(time, bad and time in asked) for time, bad in below]
