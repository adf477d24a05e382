"""How far a violated threshold is from its limit, as the severity people are called out by."""

import math
from collections.abc import Iterable
from typing import Final

from perfpolicy.evaluate.verdicts import Outcome
from perfpolicy.vocabulary import Severity, Verdict

P2_RATIO: Final = 1.5
P1_RATIO: Final = 3.0
P0_RATIO: Final = 10.0
_ORDER: Final = (Severity.NONE, Severity.P2, Severity.P1, Severity.P0)


def severity_of(ratio: float) -> Severity:
    """Severity of a degradation ratio (1 = at the limit): from 1.5 P2, from 3 P1, above 10 P0."""
    if ratio > P0_RATIO:
        return Severity.P0
    if ratio >= P1_RATIO:
        return Severity.P1
    return Severity.P2 if ratio >= P2_RATIO else Severity.NONE


def degradation(observed: float, limit: float, lower: bool) -> float:
    """Observed / limit, inverted for lower bounds; infinite where that divides by 0."""
    worse, base = (limit, observed) if lower else (observed, limit)
    return worse / base if base > 0 else math.inf


def worst(outcomes: Iterable[Outcome]) -> Severity | None:
    """Severity of the worst threshold whose verdict is Violated; NONE where all known ones are Met, None where nothing is known."""
    found: list[Severity] = []
    for outcome in outcomes:
        if outcome.verdict is Verdict.MET:
            found.append(Severity.NONE)
        elif outcome.verdict is Verdict.VIOLATED and outcome.sample is not None:
            limit = outcome.threshold.limit
            found.append(severity_of(degradation(outcome.sample.value, float(limit), outcome.threshold.lower)))
    return max(found, key=_ORDER.index, default=None)
