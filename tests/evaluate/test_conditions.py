"""The status: every condition from the first write, each check on its own words, times that move only with a change."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perfpolicy.api.status import ResourceStatus, Status, parse_status
from perfpolicy.errors import MetricsUnavailable, Problem
from perfpolicy.evaluate.conditions import (
    AcceptedState,
    Claim,
    ProgrammedState,
    WorkloadState,
    build_status,
    material_change,
    transitions,
)
from perfpolicy.evaluate.evaluation import Evaluation, EvaluationMemory, evaluate
from perfpolicy.evaluate.observation import Direct, Snapshot
from perfpolicy.policy.antipatterns import AntiPattern
from perfpolicy.policy.model import Policy, Throughput
from perfpolicy.promql import names
from perfpolicy.vocabulary import ConditionStatus, ConditionType, Reason, Severity, Verdict
from tests import builders as a
from tests.evaluate.answers import GOOD, NOW, STEP, answer

POLICY = a.a_policy()
FIRST = [
    ConditionType.ACCEPTED,
    ConditionType.PROGRAMMED,
    ConditionType.WORKLOAD_AVAILABLE,
    ConditionType.METRICS_AVAILABLE,
    ConditionType.TARGETS_MET,
    ConditionType.BUDGET_HEALTHY,
    ConditionType.READY,
]
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
ACCEPTED = AcceptedState(class_ref=POLICY.class_ref, workload="Deployment/operation-service")
PROGRAMMED = ProgrammedState(resources=(ResourceStatus(version="v1", kind="Service", name="x"),))
RUNNING = WorkloadState(5, 5)
P95 = f"{names.LATENCY_QUANTILE}/quantile=0.95"


def evaluation(changes: dict[str, Any] | None = None, policy: Policy = POLICY) -> Evaluation:
    return evaluate(policy, answer(policy, changes), EvaluationMemory(), NOW)[0]


def status(previous: Status | None = None, generation: int = 1, **changes: Any) -> Status:
    """A good status, with changes of build_status' arguments."""
    known = {"accepted": ACCEPTED, "programmed": PROGRAMMED, "workload": RUNNING, "evaluation": evaluation(), "now": NOW, **changes}
    return build_status(previous, generation, **known)


def word(built: Status, kind: ConditionType) -> tuple[ConditionStatus, Reason]:
    condition = built.condition(kind)
    assert condition is not None
    return condition.status, condition.reason


def test_the_first_write_has_all_conditions_though_nothing_is_known() -> None:
    built = build_status(None, 3, AcceptedState(), ProgrammedState(pending=True), WorkloadState(), None, NOW)
    assert [condition.type for condition in built.conditions] == [*FIRST, ConditionType.RECONCILING]
    assert {condition.status for condition in built.conditions[:7]} == {UNKNOWN}
    assert {condition.observed_generation for condition in built.conditions} == {3}


def test_when_all_is_well_only_the_first_seven_are_there() -> None:
    built = status()
    assert [condition.type for condition in built.conditions] == FIRST
    assert {condition.status for condition in built.conditions} == {TRUE}


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"accepted": AcceptedState(problems=(Problem("spec.x", "no"),))}, ConditionType.ACCEPTED, (FALSE, Reason.INVALID)),
        (
            {"accepted": AcceptedState(problems=(Problem("spec.className", "gone", Reason.CLASS_NOT_FOUND),))},
            ConditionType.ACCEPTED,
            (FALSE, Reason.CLASS_NOT_FOUND),
        ),
        ({"accepted": AcceptedState(problems=(Problem("spec.x", "no"),))}, ConditionType.PROGRAMMED, (UNKNOWN, Reason.PENDING)),
        ({"accepted": AcceptedState(problems=(Problem("spec.x", "no"),))}, ConditionType.STALLED, (TRUE, Reason.INVALID)),
        ({"accepted": AcceptedState(problems=(Problem("spec.x", "no"),))}, ConditionType.READY, (FALSE, Reason.NOT_READY)),
        (
            {"programmed": ProgrammedState(missing=("networking.istio.io/VirtualService",))},
            ConditionType.PROGRAMMED,
            (FALSE, Reason.DEPENDENCY_MISSING),
        ),
        ({"programmed": ProgrammedState(missing=("networking.istio.io/VirtualService",))}, ConditionType.READY, (FALSE, Reason.NOT_READY)),
        (
            {"programmed": ProgrammedState(extras_missing=("ServiceMonitor",))},
            ConditionType.PROGRAMMED,
            (TRUE, Reason.PARTIALLY_PROGRAMMED),
        ),
        ({"programmed": ProgrammedState(extras_missing=("ServiceMonitor",))}, ConditionType.READY, (TRUE, Reason.READY)),
        ({"programmed": ProgrammedState(failures=("Service x: 422",))}, ConditionType.PROGRAMMED, (FALSE, Reason.APPLY_FAILED)),
        ({"programmed": replace(PROGRAMMED, refused=True)}, ConditionType.PROGRAMMED, (FALSE, Reason.REJECTED)),
        ({"programmed": replace(PROGRAMMED, refused=True)}, ConditionType.READY, (FALSE, Reason.NOT_READY)),
        ({"programmed": replace(PROGRAMMED, refused=True)}, ConditionType.STALLED, (TRUE, Reason.REJECTED)),
        ({"programmed": ProgrammedState(refused=True, observe_only=True)}, ConditionType.PROGRAMMED, (TRUE, Reason.OBSERVE_ONLY)),
        ({"programmed": ProgrammedState(pending=True)}, ConditionType.PROGRAMMED, (UNKNOWN, Reason.PENDING)),
        ({"programmed": ProgrammedState(pending=True)}, ConditionType.RECONCILING, (TRUE, Reason.PROGRESSING)),
        ({"programmed": ProgrammedState(observe_only=True)}, ConditionType.PROGRAMMED, (TRUE, Reason.OBSERVE_ONLY)),
        ({"programmed": ProgrammedState(suspended=True)}, ConditionType.SUSPENDED, (TRUE, Reason.SUSPENDED)),
        (
            {"programmed": ProgrammedState(conflicts=(Claim(Reason.HOST_CLAIMED, "VirtualService other (istioctl)"),))},
            ConditionType.CONFLICT,
            (TRUE, Reason.HOST_CLAIMED),
        ),
        (
            {"programmed": ProgrammedState(conflicts=(Claim(Reason.HOST_CLAIMED, "VirtualService other (istioctl)"),))},
            ConditionType.PROGRAMMED,
            (FALSE, Reason.HOST_CLAIMED),
        ),
        (
            {"programmed": ProgrammedState(reported=(Claim(Reason.HOST_CLAIMED, "VirtualService far/other (istioctl)"),))},
            ConditionType.CONFLICT,
            (TRUE, Reason.HOST_CLAIMED),
        ),
        (
            {"programmed": ProgrammedState(reported=(Claim(Reason.HOST_CLAIMED, "VirtualService far/other (istioctl)"),))},
            ConditionType.READY,
            (TRUE, Reason.READY),
        ),
        ({"workload": WorkloadState(5, 4)}, ConditionType.WORKLOAD_AVAILABLE, (FALSE, Reason.REPLICAS_UNAVAILABLE)),
        ({"workload": WorkloadState(0, 0)}, ConditionType.WORKLOAD_AVAILABLE, (FALSE, Reason.SCALED_TO_ZERO)),
        ({"workload": WorkloadState()}, ConditionType.WORKLOAD_AVAILABLE, (UNKNOWN, Reason.PENDING)),
        ({"workload": WorkloadState()}, ConditionType.READY, (UNKNOWN, Reason.NOT_READY)),
        ({"evaluation": evaluation({P95: 9})}, ConditionType.TARGETS_MET, (FALSE, Reason.TARGETS_VIOLATED)),
        ({"evaluation": evaluation({P95: 9})}, ConditionType.READY, (TRUE, Reason.READY)),
        ({"evaluation": evaluation({P95: None})}, ConditionType.TARGETS_MET, (UNKNOWN, Reason.NO_DATA)),
        ({"evaluation": evaluation({P95: None, names.ERROR_RATIO: 0.5})}, ConditionType.TARGETS_MET, (FALSE, Reason.TARGETS_VIOLATED)),
        (
            {"evaluation": evaluation({f"{names.PERIOD_BAD}/objective=availability": 500})},
            ConditionType.BUDGET_HEALTHY,
            (FALSE, Reason.BUDGET_EXHAUSTED),
        ),
        (
            {"evaluation": evaluation({f"{names.PERIOD_BLOCKS}/objective=availability": 5})},
            ConditionType.BUDGET_HEALTHY,
            (TRUE, Reason.PARTIAL_WINDOW),
        ),
        ({"evaluation": None}, ConditionType.METRICS_AVAILABLE, (UNKNOWN, Reason.PENDING)),
    ],
)
def test_conditions(changes: dict[str, Any], kind: ConditionType, expected: tuple[ConditionStatus, Reason]) -> None:
    assert word(status(**changes), kind) == expected


def test_without_thresholds_or_objectives_nothing_is_promised() -> None:
    none = a.a_policy(
        objectives=(),
        thresholds=replace(a.thresholds(latency=(), error_rate=None, cpu=None, memory=None), throughput=Throughput(None, None, None)),
    )
    built = status(evaluation=evaluation(policy=none))
    assert word(built, ConditionType.TARGETS_MET) == (UNKNOWN, Reason.NO_TARGETS)
    assert word(built, ConditionType.BUDGET_HEALTHY) == (UNKNOWN, Reason.NO_OBJECTIVES)


def test_a_transition_time_moves_only_with_the_status() -> None:
    first = status()
    later = NOW + timedelta(hours=1)
    same = status(first, generation=2, now=later, programmed=ProgrammedState(extras_missing=("ServiceMonitor",)))
    assert {condition.last_transition_time for condition in same.conditions} == {NOW}
    assert {condition.observed_generation for condition in same.conditions} == {2}
    changed = status(first, now=later, workload=WorkloadState(5, 4))
    moved = {condition.type for condition in changed.conditions if condition.last_transition_time == later}
    assert moved == {ConditionType.WORKLOAD_AVAILABLE, ConditionType.READY, ConditionType.RECONCILING}


def test_while_not_accepted_the_last_good_children_are_still_listed() -> None:
    refused = AcceptedState(problems=(Problem("spec.x", "no"),))
    built = status(status(), accepted=refused, programmed=ProgrammedState(), evaluation=None)
    assert [resource.kind for resource in built.resources] == ["Service"]
    assert built.class_ is not None
    assert built.summary.workload == "Deployment/operation-service"


def test_without_an_evaluation_the_last_figures_stay_with_their_times() -> None:
    first = status()
    kept = status(first, evaluation=None, now=NOW + STEP)
    assert (kept.thresholds, kept.objectives, kept.health, kept.summary) == (
        first.thresholds,
        first.objectives,
        first.health,
        first.summary,
    )


def test_columns() -> None:
    built = status(evaluation=evaluation({P95: 0.612, names.ERROR_RATIO: 0.0123, f"{names.PERIOD_BLOCKS}/objective=availability": 5}))
    assert built.summary.model_dump() == {
        "met": "8/9",
        "p95": "612ms",
        "errors": "1.23%",
        "budget": "~90%",
        "health": "84",
        "severity": "None",
        "rps": "1490",
        "workload": "Deployment/operation-service",
    }


def test_columns_show_a_dash_for_what_is_unknown() -> None:
    down = evaluate(POLICY, MetricsUnavailable("connection refused"), EvaluationMemory(), NOW)[0]
    built = status(evaluation=down)
    assert word(built, ConditionType.METRICS_AVAILABLE) == (FALSE, Reason.SOURCE_UNREACHABLE)
    assert word(built, ConditionType.TARGETS_MET) == (UNKNOWN, Reason.SOURCE_UNREACHABLE)
    assert {built.summary.p95, built.summary.errors, built.summary.budget, built.summary.health, built.summary.severity} == {"-"}
    assert built.summary.met == "0/9"
    assert word(built, ConditionType.READY) == (TRUE, Reason.READY)


def test_a_quantile_names_the_bucket_it_was_interpolated_in() -> None:
    found = {item.name: item.interval for item in status().thresholds}
    assert found["p95"] == "250ms–500ms"
    assert found["errorRate"] is None


def test_a_status_survives_the_wire() -> None:
    built = status(accepted=replace(ACCEPTED, anti_patterns=(AntiPattern("A", "spec.x", "s" * 999, "i", "x"),)))
    wire = json.loads(json.dumps(built.to_wire()))
    assert parse_status(json.dumps(wire).encode()) == built
    assert wire["conditions"][0]["lastTransitionTime"] == "2026-11-21T10:00:00Z"
    assert wire["class"] == {"name": "production", "generation": 1}


@pytest.mark.parametrize("wire", [None, {}, "x", [], {"conditions": 7}, {"conditions": [{"type": "Accepted"}]}])
def test_a_status_that_is_not_ours_is_rebuilt(wire: Any) -> None:
    assert parse_status(json.dumps(wire).encode()) is None


def test_a_status_of_the_schemas_defaults_is_read() -> None:
    wire = {
        "conditions": [
            {"type": "Accepted", "status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z"}
        ]
    }
    assert parse_status(json.dumps(wire).encode()) is not None


def test_no_floats_on_the_wire() -> None:
    def floats(value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(floats, value.values()))
        return any(map(floats, value)) if isinstance(value, list) else isinstance(value, float)

    assert not floats(status().to_wire())


def test_messages_are_cut_to_their_bound() -> None:
    problems = tuple(Problem(f"spec.x[{index}]", "wrong " * 20) for index in range(99))
    condition = status(accepted=AcceptedState(problems=problems)).condition(ConditionType.ACCEPTED)
    assert condition is not None
    assert len(condition.message) == 1024


def test_figures_alone_are_no_material_change() -> None:
    first = status()
    assert material_change(None, first)
    assert not material_change(first, status(first, now=NOW + STEP, evaluation=evaluation({P95: 0.3, names.LATENCY_MEAN: 0.11})))
    assert material_change(first, status(first, evaluation=evaluation({P95: 9})))
    assert material_change(first, status(first, workload=WorkloadState(5, 4)))
    assert material_change(first, status(first, generation=2))
    assert material_change(first, status(first, programmed=ProgrammedState()))


def test_transitions_tell_what_changed_and_nothing_twice() -> None:
    first = status()
    assert transitions(first, first) == ()
    bad = status(first, evaluation=evaluation({P95: 9}))
    told = transitions(first, bad)
    assert [(event.reason, event.normal) for event in told] == [("TargetsMetFalse", False), ("ThresholdViolated", False)]
    assert "p95 9s, limit 500ms" in told[0].message
    assert transitions(bad, status(bad, evaluation=evaluation({P95: 9.5}))) == ()


def test_an_end_of_traffic_is_one_event_not_one_for_every_threshold() -> None:
    first = status()
    quiet = status(first, evaluation=evaluation({names.JUDGED_RATE: 0}))
    assert [event.reason for event in transitions(first, quiet)] == ["TargetsMetUnknown"]


def test_the_end_of_a_violation_is_told() -> None:
    bad = status(evaluation=evaluation({P95: 9}))
    assert [event.reason for event in transitions(bad, status(bad))] == ["TargetsMet", "ThresholdMet"]


def test_the_first_look_at_nothing_is_no_news() -> None:
    assert transitions(None, build_status(None, 1, AcceptedState(), ProgrammedState(pending=True), WorkloadState(), None, NOW)) == ()


def source_after(*loaded: bool, revision_of: Policy = POLICY) -> Reason:
    """The reason of MetricsAvailable after cycles one step apart in which the rules were loaded or not."""
    memory, found = EvaluationMemory(), Reason.PENDING
    for index, there in enumerate(loaded):
        now = NOW + STEP * index
        result, memory = evaluate(POLICY, answer(POLICY, {} if there else {names.REVISION: None}, now), memory, now)
        found = result.source
    return found


@pytest.mark.parametrize(
    ("loaded", "reason"),
    [
        ((False,), Reason.PENDING),
        ((False,) * 3, Reason.PENDING),
        ((False,) * 4, Reason.RULES_NOT_LOADED),
        ((False,) * 4 + (True,), Reason.OBSERVED),
        ((False,) * 3 + (True, False), Reason.PENDING),
    ],
)
def test_rules_not_loaded_is_said_after_three_intervals(loaded: tuple[bool, ...], reason: Reason) -> None:
    assert source_after(*loaded) is reason


def test_rules_not_loaded_hints_at_the_classes_labels() -> None:
    memory = EvaluationMemory(unloaded_since=NOW - STEP * 3)
    result, _memory = evaluate(POLICY, answer(POLICY, {names.REVISION: None}), memory, NOW)
    built = status(evaluation=result)
    condition = built.condition(ConditionType.METRICS_AVAILABLE)
    assert condition is not None
    assert (condition.status, condition.reason) == (FALSE, Reason.RULES_NOT_LOADED)
    assert "prometheus=lab (class production, spec.labels.rules)" in condition.message
    assert {item.verdict for item in built.thresholds} == {Verdict.UNKNOWN}


def directly(changes: dict[str, float | None] | None = None, at: datetime = NOW) -> Direct:
    """What raw metrics say, as of a grid of the rule interval."""
    return Direct(at, answer(POLICY, {names.REVISION: None, **(changes or {})}, at).of(POLICY))


def test_while_no_rules_are_loaded_raw_metrics_decide_and_the_status_says_so() -> None:
    result, memory = evaluate(POLICY, Snapshot(), EvaluationMemory(), NOW, direct=directly({P95: 9}))
    built = status(evaluation=result)
    condition = built.condition(ConditionType.METRICS_AVAILABLE)
    assert condition is not None
    assert (condition.status, condition.reason) == (UNKNOWN, Reason.DIRECT_QUERIES)
    assert "no rules of this policy loaded yet: values are of its raw metrics" in condition.message
    shown = {item.name: (item.observed, item.verdict) for item in built.thresholds}
    assert shown["p95"] == ("9s", Verdict.VIOLATED)
    assert shown["errorRate"] == ("0.5%", Verdict.MET)
    assert built.summary.rps == "1490"
    assert memory.unrecorded


def test_raw_metrics_are_listened_to_for_three_intervals_and_not_beside_rules_of_any_spec() -> None:
    _, memory = evaluate(POLICY, Snapshot(), EvaluationMemory(), NOW)
    late = NOW + STEP * 3
    result, memory = evaluate(POLICY, Snapshot(), memory, late, direct=directly(at=late))
    assert (result.source, memory.unrecorded) == (Reason.RULES_NOT_LOADED, False)
    assert {outcome.verdict for outcome in result.thresholds} == {Verdict.UNKNOWN}
    result, memory = evaluate(POLICY, answer(POLICY, {names.REVISION: 7}), EvaluationMemory(), NOW, direct=directly())
    assert (result.source, memory.unrecorded) == (Reason.PENDING, False)
    result, _ = evaluate(POLICY, answer(POLICY, {P95: 9}), EvaluationMemory(), NOW, direct=directly())
    assert (result.source, result.severity) == (Reason.OBSERVED, Severity.P0)
    result, _ = evaluate(POLICY, MetricsUnavailable("down"), EvaluationMemory(), NOW, direct=directly())
    assert result.source is Reason.SOURCE_UNREACHABLE


def test_raw_metrics_that_said_nothing_or_long_ago_decide_nothing() -> None:
    assert evaluate(POLICY, Snapshot(), EvaluationMemory(), NOW, direct=Direct(NOW))[0].source is Reason.PENDING
    result, _ = evaluate(POLICY, Snapshot(), EvaluationMemory(), NOW, direct=directly(at=NOW - STEP * 3.1))
    assert {(outcome.verdict, outcome.reason) for outcome in result.thresholds} == {(Verdict.UNKNOWN, Reason.STALE_SAMPLE)}


@pytest.mark.parametrize("late", [STEP * 3.1, STEP * -3.1])
def test_rules_that_are_evaluated_no_more_and_clocks_that_disagree_are_told_apart_from_rules_not_loaded(late: timedelta) -> None:
    result, memory = evaluate(POLICY, answer(POLICY, {P95: 9}, NOW - late), EvaluationMemory(), NOW)
    built = status(evaluation=result)
    condition = built.condition(ConditionType.METRICS_AVAILABLE)
    assert condition is not None
    assert (condition.status, condition.reason) == (FALSE, Reason.STALE_SAMPLE)
    assert "clock" in condition.message
    assert {(item.verdict, item.reason) for item in built.thresholds} == {(Verdict.UNKNOWN, Reason.STALE_SAMPLE)}
    assert memory.unloaded_since == NOW, "and where they vanish, it counts from here"


def test_what_is_recorded_late_on_purpose_is_not_stale() -> None:
    late = replace(POLICY, metrics=replace(POLICY.metrics, provider=replace(POLICY.metrics.provider, query_offset=STEP * 4)))
    result, _memory = evaluate(late, answer(late, {P95: 9}, NOW - STEP * 5), EvaluationMemory(), NOW)
    assert result.source is Reason.OBSERVED
    assert {item.verdict for item in result.thresholds} == {Verdict.VIOLATED, Verdict.MET}
    stale, _memory = evaluate(late, answer(late, {P95: 9}, NOW - STEP * 7.1), EvaluationMemory(), NOW)
    assert stale.source is Reason.STALE_SAMPLE


def test_while_older_rules_are_loaded_the_last_verdicts_stand() -> None:
    _first, memory = evaluate(POLICY, answer(POLICY, {P95: 9}), EvaluationMemory(), NOW)
    held, memory = evaluate(POLICY, answer(POLICY, {names.REVISION: 7}, NOW + STEP), memory, NOW + STEP)
    verdicts = {item.threshold.name: (item.verdict, item.reason) for item in held.thresholds}
    assert held.source is Reason.PENDING
    assert verdicts["p95"] == (Verdict.VIOLATED, Reason.PENDING)


FILTERED = a.a_policy(traffic=a.traffic(proxy=a.a_proxy(compress_from=1)))


def test_that_proxies_refuse_is_what_was_measured_last() -> None:
    memory, found = EvaluationMemory(), []
    for refusing in (None, 0, 1, None, 0):
        evaluation, memory = evaluate(FILTERED, answer(FILTERED, {names.REFUSED: refusing}), memory, NOW)
        assert evaluation.refused is memory.refused
        found.append(evaluation.refused)
    assert found == [False, False, True, True, False]


def test_an_outage_of_the_source_mends_nothing() -> None:
    memory = EvaluationMemory(refused=True)
    assert evaluate(FILTERED, MetricsUnavailable("down"), memory, NOW)[1].refused
    assert not evaluate(POLICY, MetricsUnavailable("down"), memory, NOW)[1].refused, "a policy without filters has none to refuse"


def test_after_a_restart_proxies_still_refuse() -> None:
    refusing = status(programmed=replace(PROGRAMMED, refused=True))
    assert EvaluationMemory.from_status(FILTERED, refusing).refused
    assert not EvaluationMemory.from_status(FILTERED, status()).refused


def test_a_restart_goes_on_from_the_status() -> None:
    first = status(evaluation=evaluation({P95: 9}))
    again = parse_status(json.dumps(first.to_wire()).encode())
    memory = EvaluationMemory.from_status(POLICY, again)
    resumed, _memory = evaluate(POLICY, answer(POLICY, at=NOW + STEP, samples=1), memory, NOW + STEP)
    p95 = next(item for item in resumed.thresholds if item.threshold.name == "p95")
    assert (p95.verdict, p95.since) == (Verdict.VIOLATED, NOW)
    assert resumed.objectives[0].since == NOW


def test_a_restart_after_the_limit_changed_starts_afresh() -> None:
    memory = EvaluationMemory.from_status(a.a_policy(thresholds=a.thresholds(latency=(), error_rate=Decimal("0.01"))), status())
    assert "errorRate" not in memory.tracks
    assert "cpu" in memory.tracks


@given(
    st.dictionaries(
        st.sampled_from([names.REVISION, *GOOD]),
        st.floats() | st.none(),
    )
)
@example(changes={f"{names.PERIOD_TOTAL}/objective=availability": 1.1e-308})  # finite, and no finite ratio of anything
def test_no_answer_can_crash_a_status(changes: dict[str, Any]) -> None:
    built = status(evaluation=evaluation(changes))
    assert len(built.conditions) >= 7
    assert parse_status(json.dumps(built.to_wire()).encode()) is not None


_TIMES = st.integers(-4, 2).map(lambda steps: (NOW + STEP * steps).timestamp())
_VALUES = st.floats().map(repr) | st.sampled_from(["+Inf", "-Inf", "NaN", "", "0x1p3", "1_000", "٣", "1e999", "x" * 10_000])
_RAW = st.tuples(_TIMES | st.floats(), _VALUES | st.floats() | st.none()).map(list) | st.text(max_size=3) | st.none() | st.lists(st.none())


@given(st.dictionaries(st.sampled_from([names.REVISION, *GOOD]), st.lists(_RAW, max_size=4)))
def test_whatever_a_backend_sends_the_status_is_one_the_api_server_takes(changes: dict[str, Any]) -> None:
    wire = status(evaluation=evaluation(changes)).to_wire()
    assert Status.model_validate_json(json.dumps(wire, allow_nan=False), strict=False).to_wire() == wire
    assert "nan" not in json.dumps(wire).lower().replace("notanumber", "")
