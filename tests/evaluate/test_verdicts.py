"""Verdicts change after 3 bad or 5 good distinct samples, and only finite, fresh, single ones count."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate.evaluation import EvaluationMemory, evaluate
from perfpolicy.evaluate.verdicts import FORGET_INTERVALS, Outcome, Threshold, Track, advance, thresholds
from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.vocabulary import Reason, Verdict
from tests import builders as a
from tests.evaluate.answers import NOW, STEP, answer

POLICY = a.a_policy()
FORGET = STEP * FORGET_INTERVALS
MET, VIOLATED, UNKNOWN = Verdict.MET, Verdict.VIOLATED, Verdict.UNKNOWN


def decided(pattern: str, start: Verdict = UNKNOWN) -> Verdict:
    """What a track says after samples g(ood) and b(ad), one step apart; a dot is a step without one."""
    track = Track(Decimal(1), NOW, start)
    samples = [(NOW + STEP * index, letter == "b") for index, letter in enumerate(pattern) if letter != "."]
    return advance(track, samples, FORGET).decided


@pytest.mark.parametrize(
    ("start", "pattern", "verdict"),
    [
        (UNKNOWN, "", UNKNOWN),
        (UNKNOWN, "gg", UNKNOWN),
        (UNKNOWN, "ggg", MET),
        (UNKNOWN, "bb", UNKNOWN),
        (UNKNOWN, "bbb", VIOLATED),
        (UNKNOWN, "bgbgbg", UNKNOWN),
        (MET, "bb", MET),
        (MET, "bbg", MET),
        (MET, "bbgbb", MET),
        (MET, "bbb", VIOLATED),
        (MET, "b.b.b", VIOLATED),
        (VIOLATED, "gggg", VIOLATED),
        (VIOLATED, "ggggb", VIOLATED),
        (VIOLATED, "ggggbgggg", VIOLATED),
        (VIOLATED, "ggggg", MET),
        (MET, "g" + "." * 10 + "b", UNKNOWN),
        (MET, "g" + "." * 9 + "b", MET),
    ],
)
def test_hysteresis(start: Verdict, pattern: str, verdict: Verdict) -> None:
    assert decided(pattern, start) is verdict


def test_the_same_sample_seen_often_counts_once() -> None:
    track = advance(Track(Decimal(1), NOW, MET), [(NOW, True)] * 9, FORGET)
    for _poll in range(9):
        track = advance(track, [(NOW, True)], FORGET)
    assert track.decided is MET


def test_older_samples_than_the_last_counted_are_skipped() -> None:
    track = advance(Track(Decimal(1), NOW, MET, last=NOW), [(NOW - STEP * n, True) for n in range(5)], FORGET)
    assert (track.decided, track.last) == (MET, NOW)


@given(st.lists(st.booleans(), max_size=30))
def test_polling_often_decides_as_polling_once(bad: list[bool]) -> None:
    samples = [(NOW + STEP * index, is_bad) for index, is_bad in enumerate(bad)]
    once = advance(Track(Decimal(1), NOW), samples, FORGET)
    often = Track(Decimal(1), NOW)
    for index in range(len(samples)):
        often = advance(often, samples[max(0, index - 3) : index + 1], FORGET)
    assert often == once


def outcome(name: str, changes: dict[str, object], policy: model.Policy = POLICY) -> Outcome:
    evaluation, _memory = evaluate(policy, answer(policy, changes), EvaluationMemory(), NOW)  # type: ignore[arg-type]
    return next(item for item in evaluation.thresholds if item.threshold.name == name)


P95 = f"{names.LATENCY_QUANTILE}/quantile=0.95"


@pytest.mark.parametrize(
    ("name", "changes", "verdict", "reason"),
    [
        ("p95", {}, MET, None),
        ("p95", {P95: 0.5}, MET, None),
        ("p95", {P95: 0.501}, VIOLATED, None),
        ("p95", {P95: None}, UNKNOWN, Reason.NO_DATA),
        ("p95", {P95: float("nan")}, UNKNOWN, Reason.NOT_A_NUMBER),
        ("p95", {P95: float("inf")}, UNKNOWN, Reason.NOT_A_NUMBER),
        ("p95", {names.JUDGED_RATE: 0.05, P95: 9}, UNKNOWN, Reason.LOW_TRAFFIC),
        ("p95", {names.JUDGED_RATE: 0, P95: None}, UNKNOWN, Reason.LOW_TRAFFIC),
        ("p95", {names.JUDGED_RATE: None}, UNKNOWN, Reason.NO_DATA),
        ("errorRate", {names.ERROR_RATIO: 0.05}, MET, None),
        ("errorRate", {names.ERROR_RATIO: 0.0501}, VIOLATED, None),
        ("throughputMin", {names.OFFERED_RATE: 1500, names.SERVED_RATE: 900}, VIOLATED, None),
        ("throughputMin", {names.OFFERED_RATE: 900, names.SERVED_RATE: 900}, MET, None),
        ("throughputMin", {names.OFFERED_RATE: None, names.SERVED_RATE: 900}, MET, None),
        ("throughputTarget", {names.OFFERED_RATE: 5000, names.SERVED_RATE: 4999}, VIOLATED, None),
        ("throughputTarget", {names.OFFERED_RATE: 4999, names.SERVED_RATE: 4998}, MET, None),
        ("throughputMax", {names.OFFERED_RATE: 10001}, VIOLATED, None),
        ("throughputMax", {names.OFFERED_RATE: 10000}, MET, None),
        ("cpu", {names.CPU_RATIO: 0.71}, VIOLATED, None),
        ("cpu", {names.CPU_RATIO: 0.71, names.JUDGED_RATE: None}, VIOLATED, None),
        ("memory", {names.MEMORY_RATIO: None}, UNKNOWN, Reason.NO_DATA),
    ],
)
def test_verdicts_of_a_full_range(name: str, changes: dict[str, object], verdict: Verdict, reason: Reason | None) -> None:
    judged = outcome(name, changes)
    assert (judged.verdict, judged.reason) == (verdict, reason)


def test_a_stale_series_gives_no_verdict() -> None:
    old = [[(NOW - timedelta(seconds=91 + 30 * n)).timestamp(), "0.1"] for n in range(4)]
    assert outcome("p95", {P95: old}).reason is Reason.STALE_SAMPLE


def test_no_traffic_is_met_only_where_the_policy_says_so() -> None:
    lenient = a.a_policy(metrics=a.a_metrics_source(no_traffic_met=True))
    judged = outcome("p95", {names.JUDGED_RATE: 0.0}, lenient)
    assert (judged.verdict, judged.reason) == (MET, Reason.LOW_TRAFFIC)
    assert outcome("p95", {names.JUDGED_RATE: None}, lenient).verdict is UNKNOWN


def run(policy: model.Policy, *changes: dict[str, object] | MetricsUnavailable) -> list[Verdict]:
    """The shown verdict of p95 after each cycle, one step apart, four samples an answer at first and one later."""
    memory, verdicts = EvaluationMemory(), []
    for index, change in enumerate(changes):
        now = NOW + STEP * index
        snapshot = change if isinstance(change, MetricsUnavailable) else answer(policy, change, now, samples=1 if index else 4)  # type: ignore[arg-type]
        evaluation, memory = evaluate(policy, snapshot, memory, now)
        verdicts.append(next(item.verdict for item in evaluation.thresholds if item.threshold.name == "p95"))
    return verdicts


def test_a_gap_shows_unknown_and_then_what_was_decided() -> None:
    bad: dict[str, object] = {P95: 9.0}
    assert run(POLICY, bad, {P95: None}, MetricsUnavailable("down"), {}, {}, {}, {}, {}) == [
        VIOLATED,
        UNKNOWN,
        UNKNOWN,
        *[VIOLATED] * 4,
        MET,
    ]


def test_no_data_holds_the_verdict_where_the_policy_says_so() -> None:
    holding = a.a_policy(metrics=a.a_metrics_source(no_data_hold=True))
    assert run(holding, {P95: 9.0}, {P95: None}, MetricsUnavailable("down")) == [VIOLATED] * 3
    assert run(holding, {P95: None}) == [UNKNOWN]


def test_since_moves_only_when_the_shown_verdict_does() -> None:
    memory, since = EvaluationMemory(), []
    for index in range(8):
        now = NOW + STEP * index
        value = 0.1 if index < 2 else 9.0
        evaluation, memory = evaluate(POLICY, answer(POLICY, {P95: value}, now, samples=4 if not index else 1), memory, now)
        since.append(next(item.since for item in evaluation.thresholds if item.threshold.name == "p95"))
    assert since == [NOW] * 4 + [NOW + STEP * 4] * 4


def test_a_new_limit_starts_afresh() -> None:
    _evaluation, memory = evaluate(POLICY, answer(POLICY), EvaluationMemory(), NOW)
    stricter = a.a_policy(thresholds=a.thresholds(error_rate=Decimal("0.001")))
    evaluation, _memory = evaluate(stricter, answer(stricter, samples=1), memory, NOW)
    verdicts = {item.threshold.name: item.verdict for item in evaluation.thresholds}
    assert verdicts["errorRate"] is UNKNOWN
    assert verdicts["p95"] is MET


def test_every_threshold_has_its_own_name() -> None:
    found = list(thresholds(POLICY))
    rates = ["throughputMin", "throughputTarget", "throughputMax"]
    assert [item.name for item in found] == ["p50", "p95", "p99", "errorRate", *rates, "cpu", "memory"]
    assert all(isinstance(item, Threshold) for item in found)


VALUES: st.SearchStrategy[object] = st.one_of(st.floats(), st.sampled_from(["NaN", "+Inf", "-Inf", "x", None, []]))


@given(st.lists(st.tuples(st.floats() | st.just(NOW.timestamp()), VALUES).map(list), max_size=6), st.integers(0, 3))
def test_nothing_a_backend_sends_decides_a_verdict_unless_three_fresh_finite_samples_say_so(raw: list[object], extra: int) -> None:
    judged = outcome("p95", {P95: raw + [[(NOW - STEP * n).timestamp(), "NaN"] for n in range(extra)]})
    finite = {pair[0] for pair in raw if usable(pair)}  # type: ignore[index]
    if len(finite) < 3:
        assert judged.verdict is UNKNOWN


def usable(pair: object) -> bool:
    """Whether a raw sample could count at all."""
    try:
        time, value = float(pair[0]), float(pair[1])  # type: ignore[index]
    except (TypeError, ValueError):
        return False
    return abs(time) < 1e12 and abs(value) < float("inf")


def test_the_clock_is_only_what_is_passed_in() -> None:
    later = datetime(2031, 1, 1, tzinfo=NOW.tzinfo)
    evaluation, _memory = evaluate(POLICY, answer(POLICY, at=later), EvaluationMemory(), later)
    assert {item.verdict for item in evaluation.thresholds} == {MET}
