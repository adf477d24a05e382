"""The status of a policy, from what is known of it: an ordered chain of pure checks, one per condition.

Every check answers for its own condition only and sees what the earlier ones said. `lastTransitionTime` moves only when a condition's
status does. Unknown is said where nothing is known; it is never rounded to True or False.

Accepted -> Programmed -> WorkloadAvailable -> Ready do not depend on traffic: Ready does not flap with it. MetricsAvailable, TargetsMet and
BudgetHealthy speak about traffic. Reconciling, Stalled, Conflict, Suspended and Maintenance are present only when they are True.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from perfpolicy.api.status import (
    MAX_ANTIPATTERNS,
    MAX_RESOURCES,
    MESSAGE_MAX,
    AntiPatternStatus,
    ClassStatus,
    Condition,
    ResourceStatus,
    SettledStatus,
    Status,
    wire_time,
)
from perfpolicy.errors import Problem
from perfpolicy.evaluate import wire
from perfpolicy.evaluate.evaluation import Evaluation, told
from perfpolicy.policy.antipatterns import AGGRESSIVE_POLLING, MEMORY_GROWTH, AntiPattern
from perfpolicy.policy.model import ClassRef
from perfpolicy.vocabulary import ConditionStatus, ConditionType, Reason, Verdict

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


class Claim(NamedTuple):
    """One child withheld because somebody else owns its name or what it claims."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class AcceptedState:
    """What resolving the policy said. No problems and `class_ref` set: accepted. Neither: not looked at yet."""

    problems: tuple[Problem, ...] = ()
    class_ref: ClassRef | None = None
    workload: str = ""
    """Kind and name of the workload, for the column."""
    anti_patterns: tuple[AntiPattern, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgrammedState:
    """What applying the children said. Nothing set at all: not applied yet (`pending`)."""

    resources: tuple[ResourceStatus, ...] = ()
    conflicts: tuple[Claim, ...] = ()
    """What others claim and is therefore withheld."""
    reported: tuple[Claim, ...] = ()
    """What others claim too, though nothing is withheld for it."""
    missing: tuple[str, ...] = ()
    """Essential kinds the API server does not serve."""
    extras_missing: tuple[str, ...] = ()
    """Observability kinds it does not serve."""
    failures: tuple[str, ...] = ()
    """One message per child the API server refused: stays until somebody changes something."""
    waiting: tuple[str, ...] = ()
    """What is in the way and passes by itself: an answer that did not come, a former policy's child that is still being deleted. Of a
    suspended policy: what would be written.
    """
    refused: bool = False
    """Proxies of the workload refuse what istiod sends them."""
    observe_only: bool = False
    suspended: bool = False
    pending: bool = False
    settled: SettledStatus | None = None
    """All is as wanted, and what tells it again."""


@dataclass(frozen=True, slots=True)
class WorkloadState:
    """Replicas of the workload; `desired` None while it has not been seen."""

    desired: int | None = None
    available: int = 0


class Transition(NamedTuple):
    """A change worth an Event. `normal` False is a Warning."""

    reason: str
    message: str
    normal: bool


class _Said(NamedTuple):
    status: ConditionStatus
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class _Known:
    """Everything the checks may read; `said` grows as the chain goes."""

    accepted: AcceptedState
    programmed: ProgrammedState
    workload: WorkloadState
    evaluation: Evaluation | None
    said: dict[ConditionType, _Said] = field(default_factory=dict)


def build_status(
    previous: Status | None,
    generation: int,
    accepted: AcceptedState,
    programmed: ProgrammedState,
    workload: WorkloadState,
    evaluation: Evaluation | None,
    now: datetime,
) -> Status:
    """The whole status. Without an evaluation the last thresholds, objectives and health stay as they were, with their own times."""
    known = _Known(accepted, programmed, workload, evaluation)
    for kind, check in _CHAIN:
        answer = check(known)
        if answer is not None:
            known.said[kind] = answer
    before = previous or Status()
    measured = wire.Measured.of(evaluation) if evaluation is not None else wire.Measured.kept(before)
    shown = accepted.workload or before.summary.workload
    return Status(
        observed_generation=generation,
        conditions=tuple(_condition(previous, generation, kind, said, now) for kind, said in known.said.items()),
        thresholds=measured.thresholds,
        objectives=measured.objectives,
        health=measured.health,
        severity=measured.severity,
        class_=_class(accepted, before),
        # While not accepted nothing is applied, so the last good children are still there.
        resources=before.resources if _refused(accepted) else programmed.resources[:MAX_RESOURCES],
        settled=None if _refused(accepted) else programmed.settled,
        anti_patterns=before.anti_patterns if _refused(accepted) else tuple(_anti_patterns(accepted, evaluation, before)),
        summary=measured.summary.model_copy(update={"workload": wire.cut(shown, 128)}),
    )


def material_change(old: Status | None, new: Status) -> bool:
    """Whether `new` must be written at once: a verdict, a condition, the inventory or anything else but figures changed."""
    return old is None or wire.without_figures(old) != wire.without_figures(new)


def transitions(old: Status | None, new: Status) -> tuple[Transition, ...]:
    """What to tell as Events: each condition and verdict that changed its word since `old`. Equal statuses tell nothing, so nothing
    repeats.
    """
    return (*_condition_transitions(old, new), *_verdict_transitions(old, new))


def _condition_transitions(old: Status | None, new: Status) -> Iterable[Transition]:
    for condition in new.conditions:
        if condition.type is ConditionType.RECONCILING:
            continue
        before = old.condition(condition.type) if old is not None else None
        changed = before is None or (before.status, before.reason) != (condition.status, condition.reason)
        # The first "nothing known yet" is no news.
        if changed and not (before is None and condition.status is UNKNOWN):
            good = condition.status is not (TRUE if condition.type in _ABNORMAL else FALSE)
            yield Transition(f"{condition.type}{_word(condition)}", condition.message or str(condition.reason), good)


def _word(condition: Condition) -> str:
    return "" if condition.status is TRUE else str(condition.status)


def _verdict_transitions(old: Status | None, new: Status) -> Iterable[Transition]:
    """Only what became violated, or is no longer: that nothing is known is TargetsMet's to tell, once and not for every threshold."""
    before = _verdicts(old) if old is not None else {}
    for threshold in new.thresholds:
        if _newsworthy(before.get(threshold.name), threshold.verdict):
            text = f"{threshold.name} is {threshold.verdict}: {threshold.observed or 'no value'}, limit {threshold.limit}"
            yield Transition(f"Threshold{threshold.verdict}", text, threshold.verdict is not Verdict.VIOLATED)
    for objective in new.objectives:
        if _newsworthy(before.get(f"objective {objective.name}"), objective.verdict):
            text = f"objective {objective.name} is {objective.verdict}: error budget left {objective.budget_remaining or 'unknown'}"
            yield Transition(f"Objective{objective.verdict}", text, objective.verdict is not Verdict.VIOLATED)


def _newsworthy(before: Verdict | None, now: Verdict) -> bool:
    return before is not now and Verdict.VIOLATED in (before, now)


def _verdicts(status: Status) -> dict[str, Verdict]:
    """By name; objectives are set apart, for one may be called like a threshold."""
    return {item.name: item.verdict for item in status.thresholds} | {f"objective {item.name}": item.verdict for item in status.objectives}


def _anti_patterns(accepted: AcceptedState, evaluation: Evaluation | None, before: Status) -> Iterable[AntiPatternStatus]:
    polled = told(before, AGGRESSIVE_POLLING) if evaluation is None else evaluation.polled
    growing = told(before, MEMORY_GROWTH) if evaluation is None else evaluation.growing
    found = (*accepted.anti_patterns, *([AGGRESSIVE_POLLING] if polled else []), *([MEMORY_GROWTH] if growing else []))
    return map(wire.anti_pattern, found[:MAX_ANTIPATTERNS])


def _refused(accepted: AcceptedState) -> bool:
    return bool(accepted.problems) or accepted.class_ref is None


def _class(accepted: AcceptedState, before: Status) -> ClassStatus | None:
    if accepted.class_ref is None:
        return before.class_
    return ClassStatus(name=accepted.class_ref.name, generation=accepted.class_ref.generation)


def _condition(previous: Status | None, generation: int, kind: ConditionType, said: _Said, now: datetime) -> Condition:
    before = previous.condition(kind) if previous is not None else None
    unchanged = before is not None and before.status is said.status
    return Condition(
        type=kind,
        status=said.status,
        reason=said.reason,
        message=wire.cut(said.message, MESSAGE_MAX),
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before is not None and unchanged else now,
    )


def _accepted(known: _Known) -> _Said:
    problems = known.accepted.problems
    if problems:
        return _Said(FALSE, problems[0].reason, "; ".join(map(str, problems)))
    if known.accepted.class_ref is None:
        return _Said(UNKNOWN, Reason.PENDING, "not looked at yet")
    return _Said(TRUE, Reason.VALID, f"accepted with class {known.accepted.class_ref.name}")


def _programmed(known: _Known) -> _Said:
    state = known.programmed
    if known.said[ConditionType.ACCEPTED].status is not TRUE:
        return _Said(UNKNOWN, Reason.PENDING, "not accepted, so nothing is applied; the last good children stay")
    if state.suspended:
        if state.waiting:
            return _Said(UNKNOWN, Reason.SUSPENDED, f"{_SUSPENDED}, though the spec asks for it: {', '.join(state.waiting)}")
        return _Said(TRUE, Reason.SUSPENDED, f"{_SUSPENDED}, and nothing needs to be")
    if state.failures:
        return _Said(FALSE, Reason.APPLY_FAILED, "; ".join(state.failures))
    if state.missing:
        return _Said(
            FALSE, Reason.DEPENDENCY_MISSING, f"not served by the API server: {', '.join(state.missing)}; applied once its CRD appears"
        )
    if state.conflicts:
        return _Said(FALSE, state.conflicts[0].reason, "; ".join(claim.message for claim in state.conflicts))
    if state.waiting:
        return _Said(UNKNOWN, Reason.PROGRESSING, "; ".join(state.waiting))
    if state.pending:
        return _Said(UNKNOWN, Reason.PENDING, "children are not applied yet")
    if state.observe_only:
        return _Said(TRUE, Reason.OBSERVE_ONLY, "spec.mode is Observe: only rules and the dashboard are written")
    if state.refused:
        return _Said(FALSE, Reason.REJECTED, _REJECTED)
    if state.extras_missing:
        return _Said(TRUE, Reason.PARTIALLY_PROGRAMMED, f"without {', '.join(state.extras_missing)}: not served by the API server")
    return _Said(TRUE, Reason.PROGRAMMED, f"{len(state.resources)} objects applied")


_SUSPENDED: Final = "spec.suspend is All: nothing is written"
_REJECTED: Final = (
    "all objects are applied, but proxies of the workload's pods refuse the listeners istiod makes of them and keep those they had: the"
    " policy's EnvoyFilter is not in force, because of itself or of somebody else's for the same pods; the logs of istio-proxy say why"
)


def _workload(known: _Known) -> _Said:
    state = known.workload
    if state.desired is None:
        return _Said(UNKNOWN, Reason.PENDING, "the workload has not been seen yet")
    if state.desired == 0:
        return _Said(FALSE, Reason.SCALED_TO_ZERO, "the workload wants no replicas")
    text = f"{state.available} of {state.desired} replicas available"
    if state.available < state.desired:
        return _Said(FALSE, Reason.REPLICAS_UNAVAILABLE, text)
    return _Said(TRUE, Reason.AVAILABLE, text)


def _metrics(known: _Known) -> _Said:
    if known.evaluation is None:
        return _Said(UNKNOWN, Reason.PENDING, "not evaluated yet")
    return _Said(_METRICS[known.evaluation.source], known.evaluation.source, known.evaluation.source_message)


_METRICS: Final[Mapping[Reason, ConditionStatus]] = {
    Reason.OBSERVED: TRUE,
    Reason.PENDING: UNKNOWN,
    Reason.DIRECT_QUERIES: UNKNOWN,
    Reason.RULES_NOT_LOADED: FALSE,
    Reason.SOURCE_UNREACHABLE: FALSE,
    Reason.SEVERAL_SERIES: FALSE,
    Reason.NOT_A_NUMBER: FALSE,
    Reason.STALE_SAMPLE: FALSE,
}


def _targets(known: _Known) -> _Said:
    if known.evaluation is None:
        return _Said(UNKNOWN, Reason.PENDING, "not evaluated yet")
    outcomes = known.evaluation.thresholds
    if not outcomes:
        return _Said(UNKNOWN, Reason.NO_TARGETS, "the policy has no thresholds")
    broken = [wire.outcome_text(outcome) for outcome in outcomes if outcome.verdict is Verdict.VIOLATED]
    if broken:
        return _Said(FALSE, Reason.TARGETS_VIOLATED, "; ".join(broken))
    unclear = [outcome for outcome in outcomes if outcome.verdict is Verdict.UNKNOWN]
    if unclear:
        text = ", ".join(f"{outcome.threshold.name} ({outcome.reason})" for outcome in unclear)
        return _Said(UNKNOWN, unclear[0].reason or Reason.PENDING, f"cannot be judged: {text}")
    return _Said(TRUE, Reason.TARGETS_MET, f"all {len(outcomes)} thresholds are met")


def _budget(known: _Known) -> _Said:
    if known.evaluation is None:
        return _Said(UNKNOWN, Reason.PENDING, "not evaluated yet")
    outcomes = known.evaluation.objectives
    if not outcomes:
        return _Said(UNKNOWN, Reason.NO_OBJECTIVES, "the policy has no objectives")
    spent = [wire.budget_text(outcome) for outcome in outcomes if outcome.verdict is Verdict.VIOLATED]
    if spent:
        return _Said(FALSE, Reason.BUDGET_EXHAUSTED, "; ".join(spent))
    unclear = [outcome for outcome in outcomes if outcome.verdict is Verdict.UNKNOWN]
    if unclear:
        text = ", ".join(f"{outcome.objective.name} ({outcome.reason})" for outcome in unclear)
        return _Said(UNKNOWN, unclear[0].reason or Reason.PENDING, f"cannot be judged: {text}")
    text = "; ".join(wire.budget_text(outcome) for outcome in outcomes)
    partial = any(outcome.reason is Reason.PARTIAL_WINDOW for outcome in outcomes)
    return _Said(TRUE, Reason.PARTIAL_WINDOW if partial else Reason.BUDGET_LEFT, text)


def _ready(known: _Known) -> _Said:
    for kind in (ConditionType.ACCEPTED, ConditionType.PROGRAMMED, ConditionType.WORKLOAD_AVAILABLE):
        said = known.said[kind]
        if said.status is not TRUE:
            status = FALSE if said.status is FALSE else UNKNOWN
            return _Said(status, Reason.NOT_READY, f"{kind} is {said.status} ({said.reason}): {said.message}")
    return _Said(TRUE, Reason.READY, "accepted, programmed and the workload is available")


def _reconciling(known: _Known) -> _Said | None:
    """kstatus: present while work goes on that may yet succeed."""
    if known.accepted.problems or known.programmed.suspended or known.said[ConditionType.READY].status is TRUE:
        return None
    if _stalled(known) is not None:
        return None
    return _Said(TRUE, Reason.PROGRESSING, known.said[ConditionType.READY].message)


def _stalled(known: _Known) -> _Said | None:
    """kstatus: present when nothing will change without somebody changing something."""
    for kind in (ConditionType.ACCEPTED, ConditionType.PROGRAMMED):
        said = known.said[kind]
        if said.status is FALSE:
            return _Said(TRUE, said.reason, said.message)
    return None


def _conflict(known: _Known) -> _Said | None:
    conflicts = known.programmed.conflicts + known.programmed.reported
    if known.accepted.problems or not conflicts:
        return None
    return _Said(TRUE, conflicts[0].reason, "; ".join(claim.message for claim in conflicts))


def _suspended(known: _Known) -> _Said | None:
    return _Said(TRUE, Reason.SUSPENDED, _SUSPENDED) if known.programmed.suspended else None


def _maintenance(known: _Known) -> _Said | None:
    planned = known.evaluation.maintenance if known.evaluation is not None else None
    if planned is None or known.accepted.problems:
        return None
    text = f"{', '.join(planned.names)}, until {wire_time(planned.until)}: nothing is counted or judged, and alerts are silent"
    return _Said(TRUE, Reason.MAINTENANCE, text)


_CHAIN: Final[tuple[tuple[ConditionType, Callable[[_Known], _Said | None]], ...]] = (
    (ConditionType.ACCEPTED, _accepted),
    (ConditionType.PROGRAMMED, _programmed),
    (ConditionType.WORKLOAD_AVAILABLE, _workload),
    (ConditionType.METRICS_AVAILABLE, _metrics),
    (ConditionType.TARGETS_MET, _targets),
    (ConditionType.BUDGET_HEALTHY, _budget),
    (ConditionType.READY, _ready),
    (ConditionType.RECONCILING, _reconciling),
    (ConditionType.STALLED, _stalled),
    (ConditionType.CONFLICT, _conflict),
    (ConditionType.SUSPENDED, _suspended),
    (ConditionType.MAINTENANCE, _maintenance),
)
_ABNORMAL: Final = frozenset({ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.CONFLICT, ConditionType.SUSPENDED})
