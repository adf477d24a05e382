"""In planned maintenance nothing is judged, the budget goes on as it was, and the status says so."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from perfpolicy.api.status import Status
from perfpolicy.evaluate.conditions import AcceptedState, ProgrammedState, WorkloadState, build_status, transitions
from perfpolicy.evaluate.evaluation import EvaluationMemory, evaluate
from perfpolicy.evaluate.maintenance import active
from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.maintenance import settling
from perfpolicy.reconcile.scheduler import verdicts
from perfpolicy.vocabulary import ConditionStatus, ConditionType, Reason, Verdict
from tests import builders as a
from tests.evaluate.answers import NOW, STEP, answer

SECOND, HOUR, DAY, WEEK = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1), timedelta(days=7)
SETTLING = settling(a.a_provider())
TERRIBLE = {names.ERROR_RATIO: 0.9, f"{names.LATENCY_QUANTILE}/quantile=0.95": 30.0, names.MEMORY_RATIO: 0.99}


def with_windows(*windows: model.MaintenanceWindow, hold: bool = False) -> model.Policy:
    return a.a_policy(maintenance=windows, metrics=a.a_metrics_source(no_data_hold=hold))


def lasting(name: str = "upgrade", since: timedelta = HOUR, duration: timedelta = HOUR * 2) -> model.MaintenanceWindow:
    """A window that began `since` ago."""
    return a.a_window(name=name, start=NOW - since, duration=duration, every=None)


def status(policy: model.Policy, memory: EvaluationMemory | None = None, now: datetime = NOW, before: Status | None = None) -> Status:
    evaluation, _memory = evaluate(policy, answer(policy, TERRIBLE, at=now), memory or EvaluationMemory(), now)
    accepted = AcceptedState(class_ref=policy.class_ref)
    return build_status(before, 1, accepted, ProgrammedState(), WorkloadState(1, 1), evaluation, now)


def test_the_status_names_the_windows_and_until_when() -> None:
    said = status(with_windows(lasting(), lasting("patches", HOUR, HOUR * 3), a.a_window()))
    condition = said.condition(ConditionType.MAINTENANCE)
    assert condition is not None
    assert (condition.status, condition.reason) == (ConditionStatus.TRUE, Reason.MAINTENANCE)
    assert condition.message == "upgrade, patches, until 2026-11-21T12:00:00Z: nothing is counted or judged, and alerts are silent"
    news = [each for each in transitions(None, said) if each.reason == "Maintenance"]
    assert [(each.message, each.normal) for each in news] == [(condition.message, True)]


def test_outside_of_it_the_status_says_nothing() -> None:
    ended = lasting(since=HOUR * 3)
    assert status(with_windows(ended, a.a_window())).condition(ConditionType.MAINTENANCE) is None


def test_nothing_is_judged_and_the_budget_goes_on() -> None:
    said = status(with_windows(lasting()))
    assert {(item.verdict, item.reason) for item in said.thresholds} == {(Verdict.UNKNOWN, Reason.MAINTENANCE)}
    assert next(item for item in said.thresholds if item.name == "memory").observed == "99%"
    assert [(item.verdict, item.budget_remaining) for item in said.objectives] == [(Verdict.MET, "90%")]
    assert (said.health, said.severity) == (None, None)
    targets, budget = said.condition(ConditionType.TARGETS_MET), said.condition(ConditionType.BUDGET_HEALTHY)
    assert targets is not None
    assert (targets.status, targets.reason) == (ConditionStatus.UNKNOWN, Reason.MAINTENANCE)
    assert budget is not None
    assert budget.status is ConditionStatus.TRUE


def test_the_same_is_judged_outside_of_it() -> None:
    said = status(with_windows(lasting(since=HOUR * 3)))
    assert {item.name for item in said.thresholds if item.verdict is Verdict.VIOLATED} == {"p95", "errorRate", "memory"}


def test_its_begin_is_written_at_once_although_no_verdict_changes() -> None:
    nothing = a.thresholds(latency=(), error_rate=None, throughput=model.Throughput(None, None, None), cpu=None, memory=None)
    policy = a.a_policy(thresholds=nothing, objectives=(), maintenance=(a.a_window(start=NOW, every=None),))
    before, after = (evaluate(policy, answer(policy, at=now), EvaluationMemory(), now)[0] for now in (NOW - SECOND, NOW))
    assert verdicts(before) != verdicts(after)


def test_with_hold_the_last_verdicts_stay() -> None:
    policy = with_windows(lasting(), hold=True)
    good = evaluate(policy, answer(policy, at=NOW - HOUR * 2), EvaluationMemory(), NOW - HOUR * 2)[1]
    assert {item.verdict for item in status(policy, good).thresholds} == {Verdict.MET}


def test_that_the_rules_are_not_loaded_is_told_in_it_too() -> None:
    policy = with_windows(lasting())
    nothing = answer(policy, {names.REVISION: None})
    memory = EvaluationMemory(unloaded_since=NOW - STEP * 3)
    assert {outcome.reason for outcome in evaluate(policy, nothing, memory, NOW)[0].thresholds} == {Reason.RULES_NOT_LOADED}


SPANS = st.integers(0, 3 * WEEK // SECOND).map(lambda number: SECOND * number)


@given(start=SPANS, duration=st.integers(60, DAY // SECOND - 1), every=st.sampled_from([None, DAY, WEEK]), now=SPANS)
def test_a_window_lasts_from_its_start_until_something_is_counted_again(
    start: timedelta, duration: int, every: timedelta | None, now: timedelta
) -> None:
    window = model.MaintenanceWindow("any", NOW + start, SECOND * duration, every)
    begins = [window.start + (every or WEEK) * number for number in range(30 if every else 1)]
    over = [begin for begin in begins if begin <= NOW + now < begin + window.duration + SETTLING]
    found = active(with_windows(window), NOW + now)
    assert (found is not None) == bool(over)
    if found is not None:
        assert found.until == over[-1] + window.duration
