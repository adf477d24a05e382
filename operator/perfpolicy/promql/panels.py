"""What a dashboard of a policy, and the one over all policies, show: queries as data. What Grafana makes of them is render/dashboard.py's.

A policy's panels are its six figures (requests, latency, errors, CPU, memory, connections) with its limits as lines, and what is left of
its budgets. What is recorded is read; the rest is computed while somebody looks. Series recorded every block are read as ranges: they meet
the lookback of five minutes, and one in five plain reads comes back empty.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names, objectives, proxies, recording, scope
from perfpolicy.promql.expr import Expr, Matcher, Op, Selector, aggregate, call, check, duration, number
from perfpolicy.promql.rule import block_of, bucket_sums, own


class Unit(StrEnum):
    """Grafana's names."""

    SHARE = "percentunit"
    SECONDS = "s"
    REQUESTS = "reqps"
    BYTES = "bytes"
    NUMBER = "short"


@dataclass(frozen=True, slots=True)
class Query:
    """`legend` may name labels of the series: `{{pod}}`."""

    expr: Expr
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph. `limits` are drawn as lines, `marks` as fainter ones."""

    title: str
    unit: Unit
    queries: tuple[Query, ...]
    limits: tuple[Decimal, ...] = ()
    marks: tuple[Decimal, ...] = ()
    description: str = ""


QUANTILES: Final = (Decimal("0.5"), Decimal("0.95"), Decimal("0.99"))
"""Shown whatever is promised."""
TOP: Final = 10
"""Policies in a panel of the overview."""
OVERVIEW_RANGE: Final = timedelta(minutes=15)
"""Three blocks at the default rule interval."""


def panels(policy: model.Policy) -> tuple[Panel, ...]:
    """The panels of one policy; about requests and latency only where they are measured, about proxies in a mesh. Raises RenderError."""
    found = [*_requests(policy), *_resources(policy), *_proxies(policy), *_budgets(policy)]
    return _checked(found, f"the dashboard of {policy.key}")


def overview() -> tuple[Panel, ...]:
    """The panels over all policies; `$namespace` is a variable of the dashboard: a regular expression. Raises RenderError."""
    series = "{{policy_namespace}}/{{policy}}"

    def of(name: str, *matchers: Matcher) -> Selector:
        return Selector(name, (Matcher(names.NAMESPACE, Op.RE, "$namespace"), *matchers))

    def extreme(which: str, values: Expr, legend: str = series) -> tuple[Query, ...]:
        return (Query(call(which, number(TOP), values), legend),)

    p95, burn = Matcher(names.QUANTILE, Op.EQ, "0.95"), Matcher(names.WINDOW, Op.EQ, "6h")
    budget = call("last_over_time", of(names.BUDGET_LEFT).over(OVERVIEW_RANGE))
    burning = call("last_over_time", of(names.BURN_RATE, burn).over(OVERVIEW_RANGE))
    firing = of("ALERTS", Matcher("alertstate", Op.EQ, "firing")).instant()
    loaded = aggregate("count", of(names.REVISION).instant(), (names.NAMESPACE,))
    objective = f"{series} {{{{objective}}}}"
    found = [
        Panel("Policies with loaded rules", Unit.NUMBER, (Query(loaded, "{{policy_namespace}}"),)),
        Panel("Firing alerts", Unit.NUMBER, (Query(aggregate("count", firing).otherwise(call("vector", number(0))), "alerts"),)),
        Panel("Least budget left", Unit.SHARE, extreme("bottomk", budget, objective), limits=(Decimal(0),)),
        Panel("Fastest burning budgets (6 h)", Unit.NUMBER, extreme("topk", burning, objective), marks=(Decimal(1),)),
        Panel("Highest error ratios", Unit.SHARE, extreme("topk", of(names.ERROR_RATIO).instant())),
        Panel("Slowest p95", Unit.SECONDS, extreme("topk", of(names.LATENCY_QUANTILE, p95).instant())),
        Panel("Most requests served well", Unit.REQUESTS, extreme("topk", of(names.SERVED_RATE).instant())),
        Panel("Most CPU of the limit", Unit.SHARE, extreme("topk", of(names.CPU_RATIO).instant())),
        Panel("Most memory of the limit", Unit.SHARE, extreme("topk", of(names.MEMORY_RATIO).instant())),
    ]
    return _checked(found, "the overview")


def _requests(policy: model.Policy) -> list[Panel]:
    if not policy.service.speaks_http and isinstance(policy.metrics.source, model.IstioSource):
        return []
    limits, rate = policy.thresholds, policy.thresholds.throughput
    requests = Panel(
        "Requests",
        Unit.REQUESTS,
        (Query(own(policy, names.OFFERED_RATE).instant(), "offered"), Query(own(policy, names.SERVED_RATE).instant(), "served well")),
        limits=_given(rate.minimum, rate.maximum),
        marks=_given(rate.target),
    )
    quantiles = sorted({*QUANTILES, *(limit.quantile for limit in limits.latency)})
    latency = Panel(
        "Latency",
        Unit.SECONDS,
        tuple(Query(_quantile(policy, quantile), f"p{(quantile * 100).normalize():f}") for quantile in quantiles),
        limits=tuple(Decimal(limit.maximum // timedelta(milliseconds=1)) / 1000 for limit in limits.latency),
    )
    errors = Panel(
        "Errors",
        Unit.SHARE,
        (Query(own(policy, names.ERROR_RATIO).instant(), "bad requests"),),
        limits=_given(limits.error_rate),
        marks=_given(limits.error_rate and limits.error_rate / 5),
    )
    return [requests, *([latency] if policy.metrics.bounds else []), errors]


def _quantile(policy: model.Policy, quantile: Decimal) -> Expr:
    if any(limit.quantile == quantile for limit in policy.thresholds.latency):
        return own(policy, names.LATENCY_QUANTILE).where(Matcher(names.QUANTILE, Op.EQ, f"{quantile.normalize():f}")).instant()
    buckets = bucket_sums(policy, names.DURATION_BUCKET_STEP, policy.thresholds.window)
    return call("histogram_quantile", number(quantile), buckets) / number(1000)


def _resources(policy: model.Policy) -> list[Panel]:
    """Shares of the limit where that is recorded, else what the containers use together (CPU) or the fullest uses (memory)."""
    recorded = {rule.name for rule in recording.resources(policy)}
    limits = policy.thresholds
    if names.CPU_RATIO in recorded:
        cpu = Panel("CPU", Unit.SHARE, (Query(own(policy, names.CPU_RATIO).instant(), "of the limit"),), limits=_given(limits.cpu))
    else:
        window = max(policy.thresholds.window, recording.CPU_WINDOW_MIN)
        used = call("rate", scope.containers(policy, "container_cpu_usage_seconds_total").over(window))
        cpu = Panel("CPU", Unit.NUMBER, (Query(aggregate("sum", used), "cores"),))
    if names.MEMORY_RATIO in recorded:
        memory = Panel(
            "Memory",
            Unit.SHARE,
            (Query(own(policy, names.MEMORY_RATIO).instant(), "fullest pod, of the limit"),),
            limits=_given(limits.memory),
        )
    else:
        used = scope.containers(policy, "container_memory_working_set_bytes").instant()
        memory = Panel("Memory", Unit.BYTES, (Query(aggregate("max", used), "fullest pod"),))
    return [cpu, memory]


def _proxies(policy: model.Policy) -> list[Panel]:
    if not policy.in_mesh:
        return []
    return [Panel("Connections", Unit.NUMBER, (Query(proxies.connections(policy), "{{pod}}"),), description="Open to each pod's proxy.")]


def _budgets(policy: model.Policy) -> list[Panel]:
    having = [objective for objective in policy.objectives if objectives.budget(objective)]
    if not having:
        return []
    recent = block_of(policy.metrics.provider) * 2
    left = call("last_over_time", own(policy, names.BUDGET_LEFT).over(recent))
    windows = Matcher(names.WINDOW, Op.RE, "|".join(duration(pair.long) for pair in objectives.BURN_ALERTS))
    burning = call("last_over_time", own(policy, names.BURN_RATE).where(windows).over(recent))
    factors = {pair.factor(objective) for objective in having for pair in objectives.BURN_ALERTS if pair.page}
    return [
        Panel("Error budget left", Unit.SHARE, (Query(left, "{{objective}}"),), limits=(Decimal(0),)),
        Panel(
            "Burn rates",
            Unit.NUMBER,
            (Query(burning, "{{objective}} {{window}}"),),
            limits=tuple(sorted(factors)),
            marks=(Decimal(1),),
            description="1 spends the budget exactly in the objective's window; the upper lines page.",
        ),
    ]


def _given(*values: Decimal | None) -> tuple[Decimal, ...]:
    return tuple(value for value in values if value is not None)


def _checked(found: list[Panel], where: str) -> tuple[Panel, ...]:
    for panel in found:
        for query in panel.queries:
            check(query.expr, f"panel {panel.title} of {where}")
    return tuple(found)
