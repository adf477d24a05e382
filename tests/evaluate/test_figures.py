"""Health, severity, budgets, and the texts they become."""

import math
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfpolicy.evaluate import severity
from perfpolicy.evaluate.budget import BudgetOutcome
from perfpolicy.evaluate.evaluation import Evaluation, EvaluationMemory, evaluate
from perfpolicy.evaluate.health import health_of
from perfpolicy.evaluate.severity import degradation, severity_of
from perfpolicy.evaluate.text import exact, figure, significant
from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.vocabulary import Reason, Severity, Verdict
from tests import builders as a
from tests.evaluate.answers import NOW, answer

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def judged(changes: dict[str, float | None] | None = None, policy: model.Policy | None = None) -> Evaluation:
    policy = policy or a.a_policy()
    return evaluate(policy, answer(policy, changes), EvaluationMemory(), NOW)[0]


@pytest.mark.parametrize(
    ("errors", "mean_ms", "slow", "score", "level"),
    [
        (0, 0, 0, 100, "Healthy"),
        (0.05, 0, 0, 60, "Degraded"),
        (0, 1000, 0, 60, "Degraded"),
        (0, 0, 0.1, 80, "Acceptable"),
        (0.01, 50, 0.01, 88, "Acceptable"),
        (0.0025, 100, 0.01, 92, "Healthy"),
        (0, 250, 0, 90, "Healthy"),
        (0, 750, 0, 70, "Acceptable"),
        (0, 775, 0, 69, "Degraded"),
        (1, 60_000, 1, 0, "Degraded"),
    ],
)
def test_health_score(errors: float, mean_ms: float, slow: float, score: float, level: str) -> None:
    health = health_of(errors, mean_ms, slow)
    assert health.score == pytest.approx(score)
    assert health.level == level


@given(FINITE, FINITE, FINITE)
def test_the_health_score_is_between_0_and_100_whatever_was_measured(errors: float, mean: float, slow: float) -> None:
    assert 0 <= health_of(errors, mean, slow).score <= 100


@pytest.mark.parametrize("missing", [names.ERROR_RATIO, names.LATENCY_MEAN, names.SLOW_RATIO, names.JUDGED_RATE])
def test_health_is_unknown_while_an_input_is(missing: str) -> None:
    assert judged().health is not None
    assert judged({missing: None}).health is None


def test_health_is_unknown_below_the_minimum_rate() -> None:
    assert judged({names.JUDGED_RATE: 0.09}).health is None


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.5, Severity.NONE),
        (1.49, Severity.NONE),
        (1.5, Severity.P2),
        (2.99, Severity.P2),
        (3, Severity.P1),
        (10, Severity.P1),
        (10.01, Severity.P0),
        (math.inf, Severity.P0),
    ],
)
def test_severity_of_a_ratio(ratio: float, expected: Severity) -> None:
    assert severity_of(ratio) is expected


@pytest.mark.parametrize(
    ("observed", "limit", "lower", "ratio"), [(10, 5, False, 2), (5, 10, True, 2), (0, 10, True, math.inf), (1, 0, False, math.inf)]
)
def test_degradation_is_inverted_for_lower_bounds(observed: float, limit: float, lower: bool, ratio: float) -> None:
    assert degradation(observed, limit, lower) == ratio


def test_severity_is_that_of_the_worst_violated_threshold() -> None:
    p99 = f"{names.LATENCY_QUANTILE}/quantile=0.99"
    assert judged().severity is Severity.NONE
    assert judged({names.ERROR_RATIO: 0.08}).severity is Severity.P2
    assert judged({names.ERROR_RATIO: 0.08, p99: 12}).severity is Severity.P0
    assert judged({names.OFFERED_RATE: 1500, names.SERVED_RATE: 300}).severity is Severity.P1


def test_severity_is_unknown_while_no_threshold_is_known() -> None:
    policy = a.a_policy(thresholds=a.thresholds(cpu=None, memory=None))
    evaluation = judged({names.JUDGED_RATE: None}, policy)
    assert severity.worst(evaluation.thresholds) is None
    assert evaluation.severity is None


def budget(bad: float | None, total: float | None, blocks: float | None = 8640, **changes: float) -> BudgetOutcome:
    series = {names.PERIOD_BAD: bad, names.PERIOD_TOTAL: total, names.PERIOD_BLOCKS: blocks}
    return judged({f"{name}/objective=availability": value for name, value in series.items()}).objectives[0]


@pytest.mark.parametrize(
    ("bad", "total", "blocks", "verdict", "reason", "remaining"),
    [
        (10, 100_000, 8640, Verdict.MET, None, 0.9),
        (0, 100_000, 8640, Verdict.MET, None, 1),
        (100, 100_000, 8640, Verdict.VIOLATED, None, 0),
        (300, 100_000, 8640, Verdict.VIOLATED, None, -2),
        (10, 100_000, 8000, Verdict.MET, Reason.PARTIAL_WINDOW, 0.9),
        (300, 100_000, 5, Verdict.VIOLATED, Reason.PARTIAL_WINDOW, -2),
        (0, 0, 8640, Verdict.UNKNOWN, Reason.LOW_TRAFFIC, None),
        (None, 100_000, 8640, Verdict.UNKNOWN, Reason.NO_DATA, None),
        (10, 100_000, None, Verdict.UNKNOWN, Reason.NO_DATA, None),
        (math.nan, 100_000, 8640, Verdict.UNKNOWN, Reason.NOT_A_NUMBER, None),
        (10, math.inf, 8640, Verdict.UNKNOWN, Reason.NOT_A_NUMBER, None),
    ],
)
def test_budgets(
    bad: float | None, total: float | None, blocks: float | None, verdict: Verdict, reason: Reason | None, remaining: float | None
) -> None:
    outcome = budget(bad, total, blocks)
    assert (outcome.verdict, outcome.reason) == (verdict, reason)
    assert outcome.remaining == (None if remaining is None else pytest.approx(remaining))


def test_time_to_exhaustion_follows_the_last_hours_burn_rate() -> None:
    # Nine tenths left at twice the sustainable rate: 13.5 of 30 days.
    assert budget(10, 100_000).exhausted_at == NOW + timedelta(days=13, hours=12)


@pytest.mark.parametrize(("bad", "blocks", "burn"), [(10, 8000, 2), (300, 8640, 2), (10, 8640, 0), (10, 8640, 0.5), (10, 8640, -1)])
def test_time_to_exhaustion_is_left_out(bad: float, blocks: float, burn: float) -> None:
    name = "availability"
    evaluation = judged(
        {
            f"{names.PERIOD_BAD}/objective={name}": bad,
            f"{names.PERIOD_BLOCKS}/objective={name}": blocks,
            f"{names.BURN_RATE}/objective={name}/window=1h": burn,
        }
    )
    assert evaluation.objectives[0].exhausted_at is None


def test_blocks_are_fresh_for_three_blocks_not_three_steps() -> None:
    policy = a.a_policy()
    later = NOW + timedelta(minutes=14)
    outcome = evaluate(policy, answer(policy), EvaluationMemory(), later)[0].objectives[0]
    assert outcome.verdict is Verdict.MET
    assert outcome.burn == ()
    stale = evaluate(policy, answer(policy), EvaluationMemory(), NOW + timedelta(minutes=16))[0].objectives[0]
    assert (stale.verdict, stale.reason) == (Verdict.UNKNOWN, Reason.STALE_SAMPLE)


def test_a_budget_holds_its_verdict_without_data_where_the_policy_says_so() -> None:
    policy = a.a_policy(metrics=a.a_metrics_source(no_data_hold=True))
    _first, memory = evaluate(policy, answer(policy), EvaluationMemory(), NOW)
    held, _memory = evaluate(policy, answer(policy, {f"{names.PERIOD_BAD}/objective=availability": None}), memory, NOW)
    assert (held.objectives[0].verdict, held.objectives[0].reason) == (Verdict.MET, Reason.NO_DATA)


def test_an_objective_of_everything_has_no_budget_to_divide_by() -> None:
    policy = a.a_policy(objectives=(a.an_objective(target=Decimal(1)),))
    assert judged({f"{names.PERIOD_BAD}/objective=availability": 0}, policy).objectives[0].verdict is Verdict.MET
    assert judged({f"{names.PERIOD_BAD}/objective=availability": 1}, policy).objectives[0].verdict is Verdict.VIOLATED


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0412345, "s", "41.2ms"),
        (0.5, "s", "500ms"),
        (1.0, "s", "1s"),
        (12.345, "s", "12.3s"),
        (0.0005, "%", "0.05%"),
        (0.123456, "%", "12.3%"),
        (-2.0, "%", "-200%"),
        (0.0, "%", "0%"),
        (999.6, "/s", "1000/s"),
        (9876.0, "/s", "9880/s"),
        (12345.0, "/s", "12.3k/s"),
        (3.2e7, "/s", "32M/s"),
        (1e300, "/s", "1.00e+300/s"),
        (1e-300, "s", "1.00e-297ms"),
        (0.1 + 0.2, "", "0.3"),
    ],
)
def test_figures_have_two_or_three_significant_digits(value: float, unit: str, text: str) -> None:
    assert figure(value, unit) == text


@given(FINITE, st.sampled_from(["s", "%", "/s", ""]))
def test_any_finite_figure_fits_its_field(value: float, unit: str) -> None:
    assert 0 < len(figure(value, unit)) <= 32
    assert len(significant(value, 5)) <= 31


@pytest.mark.parametrize(
    ("limit", "unit", "text"), [(Decimal("0.5"), "s", "500ms"), (Decimal("0.0505"), "%", "5.05%"), (Decimal(10250), "/s", "10250/s")]
)
def test_limits_are_exact(limit: Decimal, unit: str, text: str) -> None:
    assert exact(limit, unit) == text


def test_burn_rates_are_reported_by_window() -> None:
    policy = replace(a.a_policy(), identity=a.a_policy().identity)
    outcome = judged({f"{names.BURN_RATE}/objective=availability/window=6h": 0.5}, policy).objectives[0]
    assert outcome.burn == ((timedelta(hours=1), 2.0), (timedelta(hours=6), 0.5))
