"""Evaluations in Prometheus' words: live values of every policy on /metrics, in base units.

Made when somebody scrapes, from the evaluations the statuses are built from, so they cost no memory, are of the last cycle, and are gone
with the policy, the threshold or the leadership. What is unknown is left out: no verdict is neither 1 nor 0.

The text is made here and not by prometheus_client's collectors, whose objects for a hundred thousand samples would cost a second of the
event loop and tens of MiB a scrape. Labels need no escaping: the API server holds each name to a pattern without quotes and backslashes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from perfpolicy.evaluate.budget import BudgetOutcome
from perfpolicy.evaluate.evaluation import Evaluation
from perfpolicy.evaluate.verdicts import Outcome
from perfpolicy.promql import names
from perfpolicy.vocabulary import Verdict

THRESHOLD: Final = "threshold"
BURN_WINDOW: Final = timedelta(hours=1)

Number = float | Decimal | bool | None
Values = Iterator[tuple[str, Number]]
"""More labels, as they are written, and the value; None: unknown."""


@dataclass(frozen=True, slots=True)
class Family:
    """One gauge of all policies."""

    name: str
    help: str
    values: Callable[[Evaluation], Values]

    def text(self, evaluations: Iterable[Evaluation]) -> str:
        """The family in Prometheus' text format."""
        return "".join((f"# HELP {self.name} {self.help}\n# TYPE {self.name} gauge\n", *self._lines(evaluations)))

    def _lines(self, evaluations: Iterable[Evaluation]) -> Iterator[str]:
        for evaluation in evaluations:
            key = evaluation.policy.key
            start = f'{self.name}{{{names.NAMESPACE}="{key.namespace}",{names.POLICY}="{key.name}"'
            for labels, value in self.values(evaluation):
                if value is not None:
                    yield f"{start}{labels}}} {float(value)!r}\n"


def _of_thresholds(value: Callable[[Outcome], Number], unit: str | None = None) -> Callable[[Evaluation], Values]:
    """`unit`: of thresholds in it only."""

    def values(evaluation: Evaluation) -> Values:
        for outcome in evaluation.thresholds:
            if unit is None or outcome.threshold.unit == unit:
                yield f',{THRESHOLD}="{outcome.threshold.name}"', value(outcome)

    return values


def _of_objectives(value: Callable[[BudgetOutcome], Number]) -> Callable[[Evaluation], Values]:
    def values(evaluation: Evaluation) -> Values:
        for outcome in evaluation.objectives:
            yield f',{names.OBJECTIVE}="{outcome.objective.name}"', value(outcome)

    return values


def _health(evaluation: Evaluation) -> Values:
    yield "", None if evaluation.health is None else evaluation.health.score


def _met(outcome: Outcome | BudgetOutcome) -> bool | None:
    return None if outcome.verdict is Verdict.UNKNOWN else outcome.verdict is Verdict.MET


def _observed(outcome: Outcome) -> float | None:
    return None if outcome.sample is None else outcome.sample.value


def _limit(outcome: Outcome) -> Decimal:
    return outcome.threshold.limit


FAMILIES: Final = (
    Family("perfpolicy_threshold_met", "1: the threshold is met; 0: violated; absent: unknown.", _of_thresholds(_met)),
    *(
        Family(f"perfpolicy_threshold_{what}_{unit}", f"{says}, {of}.", _of_thresholds(value, written))
        for unit, written, of in (
            ("seconds", "s", "of latency"),
            ("ratio", "%", "of errors, CPU and memory"),
            ("requests_per_second", "/s", "of throughput"),
        )
        for what, says, value in (("observed", "Newest value of a threshold", _observed), ("limit", "Limit of a threshold", _limit))
    ),
    Family("perfpolicy_objective_met", "1: the objective has budget left; 0: it is spent; absent: unknown.", _of_objectives(_met)),
    Family(
        "perfpolicy_objective_observed_ratio",
        "Share of good requests in the objective's window.",
        _of_objectives(lambda outcome: outcome.good),
    ),
    Family(
        "perfpolicy_objective_target_ratio",
        "Promised share of good requests.",
        _of_objectives(lambda outcome: outcome.objective.target),
    ),
    Family(
        "perfpolicy_objective_budget_left_ratio",
        "Share of the error budget that is left; negative when overspent.",
        _of_objectives(lambda outcome: outcome.remaining),
    ),
    Family(
        "perfpolicy_objective_burn_rate",
        "How fast the budget was spent in the last hour; 1 spends it exactly in the objective's window.",
        _of_objectives(lambda outcome: dict(outcome.burn).get(BURN_WINDOW)),
    ),
    Family("perfpolicy_health_score", "Health score, 0 to 100; absent: unknown.", _health),
)
