"""An evaluation in the status' words: figures as text, columns, and what of a status is a figure."""

from dataclasses import dataclass
from typing import Any, Final

from perfpolicy.api.status import (
    MAX_BURN_RATES,
    MAX_OBJECTIVES,
    MAX_THRESHOLDS,
    TEXT_MAX,
    AntiPatternStatus,
    BurnRate,
    HealthStatus,
    ObjectiveStatus,
    Status,
    Summary,
    ThresholdStatus,
)
from perfpolicy.evaluate.budget import BudgetOutcome
from perfpolicy.evaluate.evaluation import Evaluation
from perfpolicy.evaluate.health import Health
from perfpolicy.evaluate.text import exact, figure, significant
from perfpolicy.evaluate.verdicts import Outcome
from perfpolicy.policy.antipatterns import AntiPattern
from perfpolicy.policy.model import Policy
from perfpolicy.promql import buckets, names
from perfpolicy.promql.expr import duration
from perfpolicy.units import format_percent
from perfpolicy.vocabulary import Reason, Severity, Verdict

_NOTHING: Final = "-"


@dataclass(frozen=True, slots=True)
class Measured:
    """The part of a status that comes from metrics."""

    thresholds: tuple[ThresholdStatus, ...]
    objectives: tuple[ObjectiveStatus, ...]
    health: HealthStatus | None
    severity: Severity | None
    summary: Summary

    @staticmethod
    def of(evaluation: Evaluation) -> "Measured":
        """What an evaluation says."""
        return Measured(
            tuple(_threshold(evaluation.policy, outcome) for outcome in evaluation.thresholds[:MAX_THRESHOLDS]),
            tuple(_objective(outcome) for outcome in evaluation.objectives[:MAX_OBJECTIVES]),
            _health(evaluation.health),
            evaluation.severity,
            _summary(evaluation),
        )

    @staticmethod
    def kept(status: Status) -> "Measured":
        """What a status said before."""
        return Measured(status.thresholds, status.objectives, status.health, status.severity, status.summary)


def outcome_text(outcome: Outcome) -> str:
    """One violated threshold in words."""
    unit, limit = outcome.threshold.unit, exact(outcome.threshold.limit, outcome.threshold.unit)
    observed = "unknown" if outcome.sample is None else figure(outcome.sample.value, unit)
    return f"{outcome.threshold.name} {observed}, limit {limit}"


def budget_text(outcome: BudgetOutcome) -> str:
    """One objective's budget in words."""
    if outcome.remaining is None:
        return f"{outcome.objective.name}: budget unknown"
    text = f"{outcome.objective.name}: {figure(outcome.remaining, '%')} of the error budget left"
    if outcome.reason is Reason.PARTIAL_WINDOW and outcome.coverage is not None:
        return f"{text}, over {figure(outcome.coverage, '%')} of its {outcome.objective.window_days} days"
    return text


def anti_pattern(found: AntiPattern) -> AntiPatternStatus:
    """A finding within the status' bounds."""
    return AntiPatternStatus(
        name=cut(found.name, 63),
        path=cut(found.path, 253),
        symptom=cut(found.symptom, TEXT_MAX),
        impact=cut(found.impact, TEXT_MAX),
        solution=cut(found.solution, TEXT_MAX),
    )


def cut(text: str, most: int) -> str:
    """The text, shortened to `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def without_figures(status: Status) -> dict[str, Any]:
    """A status without what changes with every sample: figures, times of samples, and messages that repeat figures."""
    plain = status.to_wire()
    plain.pop("summary", None)
    plain.pop("health", None)
    # An outdated one costs the next start a look at the children.
    plain.pop("settled", None)
    for item in (*plain["thresholds"], *plain["objectives"]):
        for key in ("observed", "interval", "sampleTime", "budgetRemaining", "coverage", "exhaustedAt", "burnRates"):
            item.pop(key, None)
    for condition in plain["conditions"]:
        if condition["type"] in ("MetricsAvailable", "TargetsMet", "BudgetHealthy"):
            condition.pop("message", None)
    plain["health"] = status.health.level if status.health is not None else None
    return plain


def _threshold(policy: Policy, outcome: Outcome) -> ThresholdStatus:
    threshold, sample = outcome.threshold, outcome.sample
    between = None
    if sample is not None and threshold.series.series == names.LATENCY_QUANTILE:
        lower, upper = buckets.interval(policy, sample.value * 1000)
        between = f"{lower:f}ms–" + ("∞" if upper is None else f"{upper:f}ms")
    return ThresholdStatus(
        name=threshold.name,
        limit=exact(threshold.limit, threshold.unit),
        observed=None if sample is None else figure(sample.value, threshold.unit),
        interval=between,
        verdict=outcome.verdict,
        reason=outcome.reason,
        since=outcome.since,
        sample_time=None if sample is None else sample.time,
    )


def _objective(outcome: BudgetOutcome) -> ObjectiveStatus:
    return ObjectiveStatus(
        name=outcome.objective.name,
        target=format_percent(outcome.objective.target),
        observed=None if outcome.good is None else f"{significant(outcome.good * 100, 5)}%",
        budget_remaining=None if outcome.remaining is None else figure(outcome.remaining, "%"),
        coverage=None if outcome.coverage is None else figure(outcome.coverage, "%"),
        exhausted_at=outcome.exhausted_at,
        burn_rates=tuple(BurnRate(window=duration(window), rate=significant(rate)) for window, rate in outcome.burn[:MAX_BURN_RATES]),
        verdict=outcome.verdict,
        reason=outcome.reason,
        since=outcome.since,
        sample_time=None if outcome.sample is None else outcome.sample.time,
    )


def _health(health: Health | None) -> HealthStatus | None:
    if health is None:
        return None
    return HealthStatus(
        score=round(health.score), errors=round(health.errors), latency=round(health.latency), slow=round(health.slow), level=health.level
    )


def _summary(evaluation: Evaluation) -> Summary:
    met = sum(outcome.verdict is Verdict.MET for outcome in evaluation.thresholds)
    return Summary(
        met=f"{met}/{len(evaluation.thresholds)}" if evaluation.thresholds else _NOTHING,
        p95=_observed(evaluation, "p95"),
        errors=_observed(evaluation, "errorRate"),
        budget=_budget_column(evaluation),
        health=_NOTHING if evaluation.health is None else str(round(evaluation.health.score)),
        severity=_NOTHING if evaluation.severity is None else str(evaluation.severity),
        rps=_NOTHING if evaluation.served is None else figure(evaluation.served, ""),
        workload=f"{evaluation.policy.workload.kind}/{evaluation.policy.workload.name}"[:128],
    )


def _observed(evaluation: Evaluation, name: str) -> str:
    for outcome in evaluation.thresholds:
        if outcome.threshold.name == name and outcome.sample is not None:
            return figure(outcome.sample.value, outcome.threshold.unit)
    return _NOTHING


def _budget_column(evaluation: Evaluation) -> str:
    known = [(outcome.remaining, outcome.reason) for outcome in evaluation.objectives if outcome.remaining is not None]
    if not known:
        return _NOTHING
    remaining, reason = min(known, key=lambda item: item[0])
    return ("~" if reason is Reason.PARTIAL_WINDOW else "") + figure(remaining, "%")
