"""One evaluation of one policy: from a provider's snapshot to verdicts, and what must be remembered until the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from perfpolicy.api.status import Status
from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate import budget, severity
from perfpolicy.evaluate.budget import BudgetOutcome
from perfpolicy.evaluate.growing import grows
from perfpolicy.evaluate.health import Health, health_of
from perfpolicy.evaluate.maintenance import Maintenance, active
from perfpolicy.evaluate.observation import STALE_INTERVALS, Direct, Reading, Snapshot, sample_name
from perfpolicy.evaluate.polling import polled
from perfpolicy.evaluate.text import exact
from perfpolicy.evaluate.verdicts import Outcome, Threshold, Track, hold, judge, silence, suspend, thresholds, unloaded
from perfpolicy.policy.antipatterns import AGGRESSIVE_POLLING, MEMORY_GROWTH, AntiPattern
from perfpolicy.policy.model import Policy, Proxy
from perfpolicy.promql import names
from perfpolicy.promql.rules import revision
from perfpolicy.vocabulary import ConditionType, Reason, Severity, Verdict


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the metrics say about a policy. `source` is the reason of MetricsAvailable; None stands for "cannot be said"."""

    policy: Policy
    source: Reason
    source_message: str
    thresholds: tuple[Outcome, ...]
    objectives: tuple[BudgetOutcome, ...]
    health: Health | None
    severity: Severity | None
    served: float | None
    """Served requests per second."""
    refused: bool
    """Proxies of the workload refuse what istiod sends them, as last measured."""
    maintenance: Maintenance | None = None
    """Planned maintenance that lasts."""
    polled: bool = False
    """Callers poll aggressively, as last measured."""
    growing: bool = False
    """Memory grows towards its limit, as last measured."""


@dataclass(frozen=True, slots=True)
class EvaluationMemory:
    """What one policy's evaluation carries to the next."""

    tracks: Mapping[str, Track] = field(default_factory=dict)
    budgets: Mapping[str, tuple[Verdict, datetime]] = field(default_factory=dict)
    unloaded_since: datetime | None = None
    """Since when the backend has not had this policy's present rules."""
    unrecorded: bool = False
    """The backend answers, and has had no rules of this policy at all for less than three intervals: raw metrics are worth a question."""
    refused: bool = False
    polled: bool = False
    growing: bool = False
    expected: tuple[Policy, int] | None = None
    """The rules' revision and the policy it was computed for: computing it costs milliseconds, so it is done once per change."""

    @staticmethod
    def from_status(policy: Policy, status: Status | None) -> "EvaluationMemory":
        """Start from the last verdicts somebody wrote, so that a restart or a new leader neither flaps nor forgets."""
        if status is None:
            return EvaluationMemory()
        written = {item.name: item for item in status.thresholds}
        tracks = {
            threshold.name: Track.resume(threshold.limit, before.verdict, before.since, before.sample_time)
            for threshold in thresholds(policy)
            if (before := written.get(threshold.name)) is not None and before.limit == exact(threshold.limit, threshold.unit)
        }
        budgets = {item.name: (item.verdict, item.since) for item in status.objectives}
        programmed = status.condition(ConditionType.PROGRAMMED)
        refused = programmed is not None and programmed.reason is Reason.REJECTED
        polled, growing = told(status, AGGRESSIVE_POLLING), told(status, MEMORY_GROWTH)
        return EvaluationMemory(tracks, budgets, refused=refused, polled=polled, growing=growing)


def evaluate(
    policy: Policy,
    snapshot: Snapshot | MetricsUnavailable,
    memory: EvaluationMemory,
    now: datetime,
    budgets: tuple[BudgetOutcome, ...] | None = None,
    direct: Direct | None = None,
) -> tuple[Evaluation, EvaluationMemory]:
    """Judge every threshold and objective of a policy. `budgets`: as judged before, where the snapshot does not tell; `direct`: what
    thresholds are judged by while no rules are loaded. Never raises for anything a backend may have answered.
    """
    late = policy.metrics.provider.query_offset or timedelta()
    reading = Reading(snapshot if isinstance(snapshot, MetricsUnavailable) else snapshot.of(policy), now, late)
    expected = memory.expected if memory.expected is not None and memory.expected[0] == policy else (policy, revision(policy))
    source, message, unloaded_since = _source(policy, reading, expected[1], memory.unloaded_since)
    unrecorded = (
        source is Reason.PENDING and reading.observe(sample_name(names.REVISION), policy.metrics.provider.rule_interval).newest is None
    )
    measured = reading
    if unrecorded and direct is not None and direct.rows:
        source, message = Reason.DIRECT_QUERIES, f"{message}: values are of its raw metrics"
        measured = Reading(direct.rows, now, late)
    maintenance = active(policy, now)
    silent = silence(policy, measured)
    outcomes: list[Outcome] = []
    tracks: dict[str, Track] = {}
    for threshold in thresholds(policy):
        outcome, track = _judge(policy, source, maintenance, threshold, measured, memory.tracks.get(threshold.name), silent)
        outcomes.append(outcome)
        tracks[threshold.name] = track
    if budgets is None:
        budgets = tuple(budget.judge_budget(policy, item, reading, memory.budgets.get(item.name)) for item in policy.objectives)
    known = source is Reason.OBSERVED
    refusing = _value(policy, reading, names.REFUSED) if known else None
    refused = policy.traffic.proxy != Proxy() and (memory.refused if refusing is None else refusing > 0)
    polling = polled(policy, reading, memory.polled) if known else memory.polled
    growing = grows(policy, reading, memory.growing) if known and maintenance is None else memory.growing
    evaluation = Evaluation(
        policy=policy,
        source=source,
        source_message=message,
        thresholds=tuple(outcomes),
        objectives=budgets,
        health=_health(policy, reading) if known and maintenance is None else None,
        severity=severity.worst(outcomes),
        served=_value(policy, measured, names.SERVED_RATE) if known or source is Reason.DIRECT_QUERIES else None,
        refused=refused,
        maintenance=maintenance,
        polled=polling,
        growing=growing,
    )
    verdicts = {outcome.objective.name: (outcome.verdict, outcome.since) for outcome in budgets}
    return evaluation, EvaluationMemory(tracks, verdicts, unloaded_since, unrecorded, refused, polling, growing, expected)


def told(status: Status, what: AntiPattern) -> bool:
    """Whether a status lists an anti-pattern."""
    return any(found.name == what.name for found in status.anti_patterns)


def _judge(
    policy: Policy,
    source: Reason,
    maintenance: Maintenance | None,
    threshold: Threshold,
    reading: Reading,
    track: Track | None,
    silent: Reason | None,
) -> tuple[Outcome, Track]:
    """While other rules than the present ones are loaded, the last verdict stands; after three intervals there is none."""
    if source is Reason.PENDING:
        return hold(policy, threshold, reading, track)
    if source is Reason.RULES_NOT_LOADED:
        return unloaded(threshold, track, reading.now)
    if maintenance is not None:
        return suspend(policy, threshold, reading, track)
    return judge(policy, threshold, reading, track, silent)


def _source(policy: Policy, reading: Reading, expected: int, unloaded_since: datetime | None) -> tuple[Reason, str, datetime | None]:
    """Whether the backend answers and has this policy's present rules: reason, message, and since when it has not."""
    provider, now = policy.metrics.provider, reading.now
    if isinstance(reading.rows, MetricsUnavailable):
        return Reason.SOURCE_UNREACHABLE, f"no answer from {reading.rows}", unloaded_since
    loaded = reading.observe(sample_name(names.REVISION), provider.rule_interval)
    if loaded.newest is not None and loaded.newest.value == expected:
        return Reason.OBSERVED, f"{provider.address} carries this policy's series", None
    if loaded.reason in (Reason.SEVERAL_SERIES, Reason.NOT_A_NUMBER):
        return loaded.reason, f"{names.REVISION} of this policy is not one finite value: somebody else writes series in its name", None
    since = unloaded_since or now
    if loaded.reason is Reason.STALE_SAMPLE:
        why = "its rules are not evaluated any more, or its clock and the operator's disagree"
        return (
            loaded.reason,
            f"{provider.address} has no sample of this policy from the last {STALE_INTERVALS} rule intervals: {why}",
            since,
        )
    what = "other rules of this policy than the present ones" if loaded.newest is not None else "no rules of this policy"
    if now - since < provider.rule_interval * STALE_INTERVALS:
        return Reason.PENDING, f"{provider.address} has {what} loaded yet", since
    return Reason.RULES_NOT_LOADED, f"{provider.address} has {what} loaded: {_hint(policy)}", since


def _hint(policy: Policy) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(policy.observability.rule_labels.items()))
    name = policy.class_ref.name
    if not labels:
        return f"class {name} puts no spec.labels.rules on rule objects; set those its Prometheus selects rules by"
    carried = f"rule objects carry {labels} (class {name}, spec.labels.rules)"
    return f"{carried}; does its Prometheus select rules by them, and load them without error?"


def _value(policy: Policy, reading: Reading, series: str) -> float | None:
    newest = reading.observe(sample_name(series), policy.metrics.provider.rule_interval).newest
    return None if newest is None else newest.value


def _health(policy: Policy, reading: Reading) -> Health | None:
    """The health score, or None where traffic is too low to judge or an input is missing."""
    rate = _value(policy, reading, names.JUDGED_RATE)
    if rate is None or rate < policy.metrics.minimum_rate:
        return None
    errors, mean, slow = (_value(policy, reading, series) for series in (names.ERROR_RATIO, names.LATENCY_MEAN, names.SLOW_RATIO))
    if errors is None or mean is None or slow is None:
        return None
    return health_of(errors, mean * 1000, slow)
