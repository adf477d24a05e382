"""What thresholds are judged by, read from raw counters: for a policy whose rules Prometheus has not loaded yet.

The same series of the same source, with the same matchers, that the steps are read from; but one increase over the window instead of a sum
of steps nobody recorded. It extrapolates, and does not see the first sample of an error series: good enough until the rules are loaded.
Evaluated on the grid of the rule interval over as far as recorded series are read, so that samples are as distinct as recorded ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names, recording, sources
from perfpolicy.promql.buckets import INFINITE, bound_patterns, one_of, recorded_bounds
from perfpolicy.promql.expr import Expr, Selector, aggregate, call, check, number, relabel, seconds, total_of
from perfpolicy.promql.maintenance import lateness, outside
from perfpolicy.promql.queries import RANGE_INTERVALS
from perfpolicy.promql.rule import Rule, record

SCRAPES: Final = 4
"""Scrape intervals an increase is read over at least."""
ASKED: Final = "asked"
"""Label of what is answered: which of `Question.asked` it is. One label, for `or` does not tell series apart by their names."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query for policies of one provider. `asked`: the series each value stands for."""

    text: str
    asked: tuple[Rule, ...]


def question(policies: Sequence[model.Policy]) -> Question:
    """The newest values of policies of one provider (at least one). Raises RenderError."""
    provider = policies[0].metrics.provider
    asked = tuple(rule for policy in policies for rule in values(policy))
    each = (relabel(rule.expr, ASKED, str(index)) for index, rule in enumerate(asked))
    late = provider.query_offset or timedelta()
    expression = reduce(Expr.otherwise, each).sampled(provider.rule_interval * RANGE_INTERVALS, provider.rule_interval, late)
    check(expression, "the direct query")
    return Question(str(expression), asked)


def values(policy: model.Policy) -> Iterator[Rule]:
    """The series of `recording.window_values` and `recording.resources` that thresholds are judged by."""
    window = max(policy.thresholds.window, policy.metrics.provider.scrape_interval * SCRAPES)

    def increase(selector: Selector) -> Expr:
        return call("increase", selector.back(lateness(policy.metrics.provider)).over(window))

    raw = sources.requests(policy)
    judged = aggregate("sum", increase(raw.judged))
    nothing = judged * number(0)
    bad = total_of(aggregate("sum", increase(selector)).otherwise(nothing) for selector in raw.bad) if raw.bad else nothing
    found = [
        record(policy, names.OFFERED_RATE, aggregate("sum", increase(raw.offered)) / seconds(window)),
        record(policy, names.JUDGED_RATE, judged / seconds(window)),
        record(policy, names.SERVED_RATE, (judged - bad) / seconds(window)),
        record(policy, names.ERROR_RATIO, bad / judged.above(0)),
    ]
    histogram = sources.durations(policy)
    if histogram is not None:
        if histogram.buckets is None:
            buckets = aggregate("sum", increase(histogram.total))
        else:
            bounds = bound_patterns(*(bound / histogram.unit for bound in recorded_bounds(policy)))
            buckets = aggregate("sum", increase(histogram.buckets.where(one_of(*bounds, INFINITE))), (names.BOUND,))
        for limit in policy.thresholds.latency:
            value = call("histogram_quantile", number(limit.quantile), buckets).at_least(0) * number(histogram.unit) / number(1000)
            found.append(record(policy, names.LATENCY_QUANTILE, value, **{names.QUANTILE: f"{limit.quantile.normalize():f}"}))
    for rule in found:
        yield Rule(rule.name, outside(policy, rule.expr, window), rule.labels)
    yield from recording.resources(policy)
