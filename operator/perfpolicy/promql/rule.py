"""Recording rules, alerts and groups as data, and the parts every rule of a policy is built from.

Every expression is parsed before it leaves (`checked`): one bad group makes Prometheus refuse the whole reload, for every tenant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from perfpolicy.policy import model
from perfpolicy.promql import buckets, names
from perfpolicy.promql.expr import Expr, Matcher, Op, Selector, call, check, duration, literal_pattern, relabel

BLOCK_STEPS: Final = 10
"""Steps in a block: 5 m at the default rule interval of 30 s."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A recording rule (`alert` False) or an alert."""

    name: str
    expr: Expr
    labels: Mapping[str, str]
    alert: bool = False
    hold: timedelta = timedelta(0)
    """Alerts only: how long the expression must hold before it fires (`for`)."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The rule as Prometheus spells it."""
        out: dict[str, Any] = {"alert" if self.alert else "record": self.name, "expr": str(self.expr)}
        if self.hold:
            out["for"] = duration(self.hold)
        out["labels"] = dict(self.labels)
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        return out


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """Rules evaluated in order at one time, every `interval`, as of `query_offset` before (None: as Prometheus is configured)."""

    name: str
    interval: timedelta
    query_offset: timedelta | None
    rules: tuple[Rule, ...]

    def to_dict(self) -> dict[str, Any]:
        """The group as Prometheus and PrometheusRule spell it."""
        late = {} if self.query_offset is None else {"query_offset": duration(self.query_offset)}
        return {"name": self.name, "interval": duration(self.interval), **late, "rules": [rule.to_dict() for rule in self.rules]}


def labels_of(policy: model.Policy) -> dict[str, str]:
    """What every recorded series and alert carries: the policy's identity and the class's matchers, which the queries ask for.

    Offline the uid is empty, which Prometheus reads as absent.
    """
    identity = {names.POLICY: policy.key.name, names.NAMESPACE: policy.key.namespace, names.UID: policy.identity.uid}
    return dict(policy.metrics.provider.matchers) | identity


def own(policy: model.Policy, series: str) -> Selector:
    """The policy's own recorded series of that name."""
    return Selector(series, _equal(*labels_of(policy).items()))


@lru_cache(maxsize=16)
def _equal(*labels: tuple[str, str]) -> tuple[Matcher, ...]:
    """Matchers for these labels; asked for by most expressions of a policy."""
    return tuple(Matcher(label, Op.EQ, value) for label, value in labels)


def block_of(provider: model.Provider) -> timedelta:
    """Length of a block."""
    return provider.rule_interval * BLOCK_STEPS


def record(policy: model.Policy, series: str, expr: Expr, **labels: str) -> Rule:
    """A recording rule with the policy's identity labels."""
    return Rule(series, expr, {**labels_of(policy), **labels})


def summed(policy: model.Policy, series: str, window: timedelta) -> Expr:
    """Sum of a policy's steps or blocks over `window`.

    One element: each is one series. A second one, written by somebody else, must carry one more label. It stays a second element, on its
    own, and whoever reads it sees several series where there must be one; an aggregation would have added it to the policy's figures.
    """
    return call("sum_over_time", own(policy, series).over(window))


def checked(groups: tuple[RuleGroup, ...]) -> tuple[RuleGroup, ...]:
    """The groups without empty ones, each expression parsed. Raises RenderError."""
    for group in groups:
        for rule in group.rules:
            check(rule.expr, f"rule {rule.name} in group {group.name}")
    return tuple(group for group in groups if group.rules)


def bucket_sum(policy: model.Policy, series: str, window: timedelta, bound: Decimal | None = None) -> Expr:
    """Requests up to `bound` (ms; None: all) in `window`, without the bound's label; one element, as in `summed`."""
    matcher = with_bounds(infinite=True) if bound is None else with_bounds(bound)
    return relabel(call("sum_over_time", own(policy, series).where(matcher).over(window)), names.BOUND)


def bucket_sums(policy: model.Policy, series: str, window: timedelta) -> Expr:
    """Requests by bucket in `window`, of the recorded bounds only: a bucket more would need no other label to move every quantile."""
    wanted = with_bounds(*buckets.recorded_bounds(policy), infinite=True)
    return call("sum_over_time", own(policy, series).where(wanted).over(window))


def with_bounds(*bounds: Decimal, infinite: bool = False) -> Matcher:
    """Matches `le` (ms) of recorded buckets, which have one spelling only, whatever the raw series have."""
    patterns = [literal_pattern(f"{bound:f}") for bound in bounds] + ([buckets.INFINITE] if infinite else [])
    return Matcher(names.BOUND, Op.RE, "|".join(patterns))


def one_spelling(buckets: Expr) -> Expr:
    """Raw buckets with `le` as recorded: "500" (as Istio writes it), not "500.0" (as Prometheus 3 stores it)."""
    return relabel(buckets, names.BOUND, "$1", r"(.+)\.0")
