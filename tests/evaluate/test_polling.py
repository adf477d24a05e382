"""Callers that go on asking although they are refused: found by what the rules record, and silent otherwise."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from perfpolicy.api.status import Status
from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate.conditions import AcceptedState, ProgrammedState, WorkloadState, build_status, material_change
from perfpolicy.evaluate.evaluation import EvaluationMemory, evaluate
from perfpolicy.policy import model
from perfpolicy.policy.antipatterns import AntiPattern
from perfpolicy.promql import names
from perfpolicy.promql.rules import rule_groups
from tests import builders as a
from tests.evaluate.answers import NOW, STEP, answer
from tests.promql import series
from tests.promql.conftest import Check, check
from tests.promql.promtool import Expect, Scenario, counter

__all__ = ["check"]
POLICY = a.a_policy()
MINUTE = timedelta(minutes=1)


def polled(offered: float, judged: float, before: bool = False, policy: model.Policy = POLICY, samples: int = 4) -> bool:
    """Whether polling is found in samples of these rates."""
    found = answer(policy, {names.OFFERED_RATE: offered, names.JUDGED_RATE: judged}, samples=samples)
    return evaluate(policy, found, EvaluationMemory(polled=before), NOW)[0].polled


@pytest.mark.parametrize(("refused", "expected"), [("12", {"found": 1}), ("1", {})])
def test_the_rules_record_what_it_is_found_by(check: Check, refused: str, expected: dict[str, float]) -> None:
    """From raw counters: 12/s refused beside 10/s are more than a fifth of what is offered, 1/s is not."""
    data = {series.requests(): counter(10, 15), series.requests("429", flags="RL"): counter(float(refused), 15)}
    share = f"1 - {names.JUDGED_RATE} / {names.OFFERED_RATE}"
    at = Expect(f"count({share} > 0.2)", 12 * MINUTE, {"{}": 1} if expected else {})
    check(rule_groups(POLICY)[:1], Scenario(data, [at]))
    assert polled(10 + float(refused), 10) is bool(expected)


@pytest.mark.parametrize(
    ("offered", "judged", "before", "expected"),
    [
        (100, 100, False, False),
        (100, 81, False, False),
        (100, 79, False, True),
        (100, 85, True, True),
        (100, 91, True, False),
        (0.05, 0.01, False, False),
        (0, 0, True, False),
    ],
)
def test_it_comes_above_a_fifth_and_goes_below_a_tenth_of_enough_requests(
    offered: float, judged: float, before: bool, expected: bool
) -> None:
    assert polled(offered, judged, before) is expected


def test_two_samples_are_not_enough_to_come_or_go() -> None:
    assert polled(100, 10, samples=2) is False
    assert polled(100, 100, before=True, samples=2) is True
    assert polled(100, 10, samples=3) is True


def test_a_burst_within_good_samples_is_none() -> None:
    """One sample of four; all four would be."""
    times = [(NOW - STEP * number).timestamp() for number in reversed(range(4))]
    judged = [[time, value] for time, value in zip(times, ("100", "100", "10", "100"), strict=True)]
    found = answer(POLICY, {names.OFFERED_RATE: 100, names.JUDGED_RATE: judged})
    assert not evaluate(POLICY, found, EvaluationMemory(), NOW)[0].polled


def test_a_sample_of_one_rate_alone_is_no_share() -> None:
    times = [(NOW - STEP * number).timestamp() for number in reversed(range(4))]
    offered, judged = ([[time, rate] for time in some] for some, rate in ((times, "100"), (times[:-1], "10")))
    found = answer(POLICY, {names.OFFERED_RATE: offered, names.JUDGED_RATE: judged})
    assert evaluate(POLICY, found, EvaluationMemory(), NOW)[0].polled


@pytest.mark.parametrize("garbage", ["", [NOW.timestamp() - 1, "NaN"], [NOW.timestamp() - 1, "+Inf"]])
def test_garbage_among_the_samples_is_no_sample(garbage: object) -> None:
    times = [(NOW - STEP * number).timestamp() for number in reversed(range(3))]
    rates = ((names.OFFERED_RATE, "100"), (names.JUDGED_RATE, "10"))
    found = answer(POLICY, {name: [*([time, rate] for time in times), garbage] for name, rate in rates})
    assert evaluate(POLICY, found, EvaluationMemory(), NOW + timedelta(seconds=1))[0].polled


def test_what_faults_and_a_cap_refuse_says_nothing_of_callers() -> None:
    fault = model.Fault(None, Decimal(0), 503, Decimal("0.5"))
    faulty = replace(POLICY, traffic=replace(POLICY.traffic, routes=(a.a_route(fault=fault),)))
    concurrency = a.a_full_policy().traffic.proxy.concurrency
    assert concurrency is not None
    capped = replace(POLICY, traffic=replace(POLICY.traffic, proxy=replace(POLICY.traffic.proxy, concurrency=concurrency)))
    assert polled(100, 10)
    assert not polled(100, 10, policy=faulty)
    assert not polled(100, 10, policy=capped)


def status(found: model.Policy, polling: bool, before: Status | None = None, evaluated: bool = True) -> Status:
    """The status of a policy that has an anti-pattern of its spec, too."""
    own = AntiPattern("UnboundedWait", "spec.traffic", "s", "i", "s")
    accepted = AcceptedState(class_ref=found.class_ref, anti_patterns=(own,))
    rates = {names.OFFERED_RATE: 100.0, names.JUDGED_RATE: 10.0 if polling else 100.0}
    evaluation = evaluate(found, answer(found, rates), EvaluationMemory.from_status(found, before), NOW)[0] if evaluated else None
    return build_status(before, 1, accepted, ProgrammedState(), WorkloadState(), evaluation, NOW)


def test_the_status_lists_it_with_what_to_do_and_is_written_when_it_comes_and_goes() -> None:
    quiet, polling = status(POLICY, polling=False), status(POLICY, polling=True)
    assert [item.name for item in quiet.anti_patterns] == ["UnboundedWait"]
    assert [item.name for item in polling.anti_patterns] == ["UnboundedWait", "AggressivePolling"]
    told = polling.anti_patterns[1]
    assert told.symptom.startswith("more than a fifth of the requests are refused by limits (429)")
    assert told.impact
    assert "Retry-After" in told.solution
    assert material_change(quiet, polling)
    assert material_change(polling, quiet)


def test_a_restart_and_a_source_that_does_not_answer_keep_what_was_said() -> None:
    polling = status(POLICY, polling=True)
    assert status(POLICY, polling=False, before=polling, evaluated=False).anti_patterns == polling.anti_patterns
    memory = EvaluationMemory.from_status(POLICY, polling)
    assert evaluate(POLICY, MetricsUnavailable("down"), memory, NOW)[0].polled
