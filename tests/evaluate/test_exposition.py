"""Live values of policies on /metrics: what the status says, in base units, and nothing of what is unknown."""

from decimal import Decimal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate.evaluation import Evaluation, EvaluationMemory, evaluate
from perfpolicy.evaluate.exposition import FAMILIES
from perfpolicy.policy import model
from perfpolicy.promql import names
from tests import builders as a
from tests.evaluate.answers import NOW, answer

P95 = f"{names.LATENCY_QUANTILE}/quantile=0.95"


def judged(changes: dict[str, float | None] | None = None, policy: model.Policy | None = None) -> Evaluation:
    policy = policy or a.a_policy()
    return evaluate(policy, answer(policy, changes), EvaluationMemory(), NOW)[0]


def samples(*evaluations: Evaluation) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """As prometheus_client reads them."""
    text = "".join(family.text(evaluations) for family in FAMILIES)
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    read = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(read) == len(found), "one sample of each name and labels"
    return read


def value(evaluation: Evaluation, name: str, **labels: str) -> float | None:
    key = evaluation.policy.key
    identity = {"policy_namespace": key.namespace, "policy": key.name}
    return samples(evaluation).get((f"perfpolicy_{name}", frozenset({**identity, **labels}.items())))


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("threshold_met", {"threshold": "p95"}, 1),
        ("threshold_observed_seconds", {"threshold": "p95"}, 0.4),
        ("threshold_limit_seconds", {"threshold": "p95"}, 0.5),
        ("threshold_observed_ratio", {"threshold": "errorRate"}, 0.005),
        ("threshold_limit_ratio", {"threshold": "errorRate"}, 0.05),
        ("threshold_observed_ratio", {"threshold": "memory"}, 0.5),
        ("threshold_observed_requests_per_second", {"threshold": "throughputMax"}, 1500),
        ("objective_met", {"objective": "availability"}, 1),
        ("objective_observed_ratio", {"objective": "availability"}, 0.9999),
        ("objective_target_ratio", {"objective": "availability"}, 0.999),
        ("objective_budget_left_ratio", {"objective": "availability"}, 0.9),
        ("objective_burn_rate", {"objective": "availability"}, 2),
        ("health_score", {}, 90),
    ],
)
def test_every_family_says_what_the_status_is_made_of(name: str, labels: dict[str, str], expected: float) -> None:
    assert value(judged(), name, **labels) == pytest.approx(expected)


def test_a_violation_is_0_and_an_unknown_verdict_neither() -> None:
    assert value(judged({P95: 0.6}), "threshold_met", threshold="p95") == 0
    assert value(judged({P95: None}), "threshold_met", threshold="p95") is None
    assert value(judged({P95: None}), "threshold_observed_seconds", threshold="p95") is None
    assert value(judged({P95: None}), "threshold_limit_seconds", threshold="p95") == 0.5
    overspent = judged({f"{names.PERIOD_BAD}/objective=availability": 300})
    assert value(overspent, "objective_met", objective="availability") == 0
    assert value(overspent, "objective_budget_left_ratio", objective="availability") == pytest.approx(-2)


def test_of_a_source_that_does_not_answer_only_what_was_promised_is_told() -> None:
    gone = evaluate(a.a_policy(), MetricsUnavailable("http://prometheus: refused"), EvaluationMemory(), NOW)[0]
    told = {name for name, _ in samples(gone)}
    limits = {f"perfpolicy_threshold_limit_{unit}" for unit in ("seconds", "ratio", "requests_per_second")}
    assert told == {*limits, "perfpolicy_objective_target_ratio"}


def test_a_threshold_that_is_taken_out_is_gone() -> None:
    with_cpu, without = a.a_policy(), a.a_policy(thresholds=a.thresholds(cpu=None))
    assert value(judged(policy=with_cpu), "threshold_limit_ratio", threshold="cpu") is not None
    assert not [labels for _, labels in samples(judged(policy=without)) if ("threshold", "cpu") in labels]


def test_policies_are_told_apart_and_small_figures_stay_numbers() -> None:
    web = a.a_policy()
    other = a.a_policy(namespace="bank", thresholds=a.thresholds(error_rate=Decimal("0.0000001")))
    both = samples(judged(policy=web), judged({names.ERROR_RATIO: 0}, other))
    assert len(both) == len(samples(judged(policy=web))) + len(samples(judged(policy=other)))
    assert value(judged(policy=other), "threshold_limit_ratio", threshold="errorRate") == 1e-7
