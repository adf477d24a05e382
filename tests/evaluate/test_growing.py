"""Memory that grows towards its limit: found by what the rules expect of it (tests/promql/test_growth.py), and silent otherwise."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from perfpolicy.api.status import Status
from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate.conditions import AcceptedState, ProgrammedState, WorkloadState, build_status, material_change
from perfpolicy.evaluate.evaluation import EvaluationMemory, evaluate
from perfpolicy.evaluate.observation import Snapshot
from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.reconcile.scheduler import verdicts
from tests import builders as a
from tests.evaluate.answers import NOW, STEP, answer

POLICY = a.a_policy()
BLOCK = STEP * 10
FLAT, FULL = ("0",) * 3, ("1.4", "1.2", "1")


def of_blocks(*growth: str, policy: model.Policy = POLICY) -> Snapshot:
    """An answer with these values, block by block up to now."""
    times = [(NOW - BLOCK * number).timestamp() for number in reversed(range(len(growth)))]
    return answer(policy, {names.MEMORY_GROWTH: [[time, value] for time, value in zip(times, growth, strict=True)] if growth else None})


def grows(*growth: str, before: bool = False, policy: model.Policy = POLICY) -> bool:
    """Whether growth is found in samples of these values."""
    return evaluate(policy, of_blocks(*growth, policy=policy), EvaluationMemory(growing=before), NOW)[0].growing


@pytest.mark.parametrize(
    ("growth", "before", "expected"),
    [
        (FLAT, False, False),
        (("0.9", "0.9", "0.9"), False, False),
        (FULL, False, True),
        (("0.5", "0.5", "0.5"), True, True),
        (("0.5", "0.6", "0.9"), False, False),
        (("0.4", "0.4", "0.4"), True, False),
        (("-3", "-3", "-3"), True, False),
        ((), True, True),
        ((), False, False),
    ],
)
def test_it_comes_when_the_room_will_be_filled_and_goes_when_not_half_of_it(growth: tuple[str, ...], before: bool, expected: bool) -> None:
    assert grows(*growth, before=before) is expected


def test_two_blocks_are_not_enough_to_come_or_go() -> None:
    assert grows("2", "2") is False
    assert grows("0", "0", before=True) is True
    assert grows("2", "2", "0.9") is False
    assert grows("0", "0", "0.6", before=True) is True
    assert grows("0", "2", "2", "2") is True


@pytest.mark.parametrize("garbage", ["NaN", "+Inf", "much"])
def test_garbage_among_the_samples_is_no_sample(garbage: str) -> None:
    assert grows(*FULL[:2], garbage, FULL[2]) is True
    assert grows(*FULL[:2], garbage) is False


def test_blocks_of_a_rule_that_stopped_say_nothing() -> None:
    late = NOW + BLOCK * 4
    found = answer(POLICY, {names.MEMORY_GROWTH: [[(NOW - BLOCK * n).timestamp(), "2"] for n in (2, 1, 0)]}, at=late)
    assert not evaluate(POLICY, found, EvaluationMemory(), late)[0].growing


@pytest.mark.parametrize(
    "changes", [{"thresholds": a.thresholds(memory=None)}, {"workload": a.a_workload(limits=model.Resources())}], ids=["threshold", "limit"]
)
def test_without_a_threshold_or_a_limit_there_is_none(changes: dict[str, Any]) -> None:
    policy = a.a_policy(**changes)
    assert not grows(*FULL, before=True, policy=policy)


def test_maintenance_and_a_cycle_that_does_not_ask_about_blocks_leave_it_as_it_was() -> None:
    planned = replace(POLICY, maintenance=(a.a_window(start=NOW - timedelta(minutes=1), every=None),))
    for before in (False, True):
        assert grows(*(FLAT if before else FULL), before=before, policy=planned) is before
        assert evaluate(POLICY, of_blocks(), EvaluationMemory(growing=before), NOW, budgets=())[0].growing is before


def status(growth: tuple[str, ...], before: Status | None = None, evaluated: bool = True) -> Status:
    accepted = AcceptedState(class_ref=POLICY.class_ref)
    memory = EvaluationMemory.from_status(POLICY, before)
    evaluation = evaluate(POLICY, of_blocks(*growth), memory, NOW)[0] if evaluated else None
    return build_status(before, 1, accepted, ProgrammedState(), WorkloadState(), evaluation, NOW)


def test_the_status_lists_it_with_what_to_do_and_is_written_when_it_comes_and_goes() -> None:
    flat, full = status(FLAT), status(FULL)
    assert not flat.anti_patterns
    told = full.anti_patterns[0]
    assert (told.name, told.path, len(full.anti_patterns)) == ("MemoryGrowth", "spec.workload", 1)
    assert told.symptom.startswith("memory was above the day before all day long")
    assert "killed at the limit" in told.impact
    assert "heap profile" in told.solution
    assert material_change(flat, full)
    assert material_change(full, flat)
    one, other = (evaluate(POLICY, of_blocks(*growth), EvaluationMemory(), NOW)[0] for growth in (FLAT, FULL))
    assert verdicts(one) != verdicts(other)


def test_a_restart_and_a_source_that_does_not_answer_keep_what_was_said() -> None:
    full = status(FULL)
    assert status(FLAT, before=full, evaluated=False).anti_patterns == full.anti_patterns
    memory = EvaluationMemory.from_status(POLICY, full)
    assert evaluate(POLICY, MetricsUnavailable("down"), memory, NOW)[1].growing
    assert status((), before=full).anti_patterns == full.anti_patterns
