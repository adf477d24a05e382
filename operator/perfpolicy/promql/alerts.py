"""Alerts of a policy, in the user's figures, on recorded series wherever one exists.

| alert | fires when | for | level |
|---|---|---|---|
| HighResponseTime | a latency quantile is above its limit / above 10 x its limit (500 ms and 5 s) | 2m | warning / critical |
| HighErrorRate | the error ratio is above a fifth of its limit / above its limit (1 % and 5 %) | 1m | warning / critical |
| HighCPUUsage | CPU is above 80 % / 90 % of the limit (never below the policy's own figure) | 5m | warning / critical |
| HighMemoryUsage | memory is above 85 % / 95 % of the limit (never below the policy's own figure) | 5m | warning / critical |
| CircuitBreakerOpen | clients' proxies answered with UO or UH | 1m | critical |
| ErrorBudgetBurn | both windows of a burn pair are above its factor | - | page: critical, ticket: warning |
| CertificateExpiring | a proxy's certificate has less than 25 % / 10 % of its life left (at most 7 / 2.3 days) | 10m | warning / critical |
| HandshakeFailures | connections fail before their callers are authenticated / more of them than succeed | 5m | warning / critical |
| MetricsAbsent | no requests were counted at all | 10m | warning |

Ratios over few requests say nothing: HighResponseTime, HighErrorRate and ErrorBudgetBurn also need spec.metrics.minimumRate, and a burn
alert needs more than one bad request. All are silent in planned maintenance.
Every alert carries the identity labels, so a silence or a route can name one policy, and
`namespace`, by which prometheus-operator keeps the routes of teams apart: no author may send into another's.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import istio, names, objectives, proxies
from perfpolicy.promql.expr import Expr, Matcher, Op, aggregate, binary, call, duration, number
from perfpolicy.promql.maintenance import outside
from perfpolicy.promql.rule import Rule, block_of, labels_of, own
from perfpolicy.units import format_duration, format_percent
from perfpolicy.vocabulary import AlertName

WARNING: Final = "warning"
CRITICAL: Final = "critical"
_CPU: Final = ((WARNING, Decimal("0.80")), (CRITICAL, Decimal("0.90")))
_MEMORY: Final = ((WARNING, Decimal("0.85")), (CRITICAL, Decimal("0.95")))
_OPEN_WINDOW: Final = timedelta(minutes=1)
_LEFT: Final = ((WARNING, Decimal("0.25")), (CRITICAL, Decimal("0.1")))
"""Istio renews at half the life."""
_HANDSHAKE_WINDOW: Final = timedelta(minutes=5)
_FEW_FAILURES: Final = 5
"""In a window: somebody who tried, not a caller who cannot."""


def alerts(policy: model.Policy) -> Iterator[Rule]:
    """Every alert evaluated each step that the policy asks for and has not disabled."""
    yield from _wanted(policy, _response_time, _error_rate, _resources, _circuit, _burn, _absent)


def slow_alerts(policy: model.Policy) -> Iterator[Rule]:
    """The same, of those evaluated each block: nobody is paged in minutes for what they look at, and they read many raw samples."""
    yield from _wanted(policy, _certificates, _handshakes)


def _wanted(policy: model.Policy, *families: Callable[[model.Policy], Iterator[Rule]]) -> Iterator[Rule]:
    if (wanted := policy.observability.alerts) is not None:
        yield from (rule for family in families for rule in family(policy) if rule.name not in wanted.disabled)


def follow_blocks(rule: Rule) -> bool:
    """Whether an alert reads nothing but what changes with a block."""
    slow = {duration(pair.short) for pair in objectives.BURN_ALERTS if objectives.follows_blocks(pair)}
    return rule.labels.get("short") in slow


def left_out(policy: model.Policy) -> tuple[str, ...]:
    """Why burn alerts that one might expect are not written, one sentence each."""
    if policy.observability.alerts is None:
        return ()
    pairs = ((alert, objective) for objective in policy.objectives for alert in objectives.BURN_ALERTS)
    return tuple(reason for alert, objective in pairs if (reason := objectives.why_not(alert, objective)))


def _response_time(policy: model.Policy) -> Iterator[Rule]:
    for limit in policy.thresholds.latency:
        quantile = f"{limit.quantile.normalize():f}"
        observed = own(policy, names.LATENCY_QUANTILE).where(Matcher(names.QUANTILE, Op.EQ, quantile)).instant()
        for level, maximum in ((WARNING, limit.maximum), (CRITICAL, limit.maximum * 10)):
            above = observed.above(Decimal(maximum // timedelta(milliseconds=1)) / 1000)
            yield _alert(
                policy,
                AlertName.HIGH_RESPONSE_TIME,
                level,
                _with_traffic(policy, above),
                timedelta(minutes=2),
                f"{limit.name} of {policy.key} is {{{{ $value | humanizeDuration }}}}, above {format_duration(maximum)}",
                # The series carries it anyway; promtool takes rules for duplicates that differ in their expressions only.
                {names.QUANTILE: quantile},
            )


def _error_rate(policy: model.Policy) -> Iterator[Rule]:
    limit = policy.thresholds.error_rate
    if limit is None:
        return
    for level, ratio in ((WARNING, limit / 5), (CRITICAL, limit)):
        above = own(policy, names.ERROR_RATIO).instant().above(ratio)
        text = f"{policy.key} fails {{{{ $value | humanizePercentage }}}} of its requests, above {format_percent(ratio)}"
        yield _alert(policy, AlertName.HIGH_ERROR_RATE, level, _with_traffic(policy, above), timedelta(minutes=1), text)


def _resources(policy: model.Policy) -> Iterator[Rule]:
    workload, limits = policy.workload, policy.thresholds
    for name, what, series, threshold, known, levels in (
        (AlertName.HIGH_CPU_USAGE, "CPU", names.CPU_RATIO, limits.cpu, workload.limits.cpu or workload.requests.cpu, _CPU),
        (
            AlertName.HIGH_MEMORY_USAGE,
            "memory",
            names.MEMORY_RATIO,
            limits.memory,
            workload.limits.memory or workload.requests.memory,
            _MEMORY,
        ),
    ):
        if threshold is None or not known:
            continue
        for level, figure in levels:
            ratio = max(figure, threshold)
            text = f"{policy.key} uses {{{{ $value | humanizePercentage }}}} of its {what}, above {format_percent(ratio)}"
            yield _alert(policy, name, level, own(policy, series).instant().above(ratio), timedelta(minutes=5), text)


def _circuit(policy: model.Policy) -> Iterator[Rule]:
    if policy.traffic.circuit_breaker is None and policy.traffic.connection_pool is None:
        return
    window = max(_OPEN_WINDOW, policy.metrics.provider.scrape_interval * 4)
    refused = aggregate("sum", call("increase", istio.circuit_open(policy).over(window))).above(0)
    text = f"clients' proxies refused {{{{ $value | humanize }}}} requests to {policy.key} in {duration(window)}: circuit open"
    yield _alert(policy, AlertName.CIRCUIT_BREAKER_OPEN, CRITICAL, refused, timedelta(minutes=1), text, reads=window)


def _certificates(policy: model.Policy) -> Iterator[Rule]:
    if not policy.in_mesh:
        return
    left = proxies.certificate_left(policy)
    for level, share in _LEFT:
        days, hours = (binary(left, "<", lifetime * number(share)) for lifetime in proxies.certificate_lifetimes(policy))
        text = f"a certificate of the pods of {policy.key} expires in {{{{ $value | humanizeDuration }}}} and was not renewed"
        expiring = aggregate("min", days.otherwise(hours))
        yield _alert(policy, AlertName.CERTIFICATE_EXPIRING, level, expiring, timedelta(minutes=10), text)


def _handshakes(policy: model.Policy) -> Iterator[Rule]:
    if not policy.in_mesh or policy.security.mtls is model.Mtls.DISABLE:
        return
    window = max(_HANDSHAKE_WINDOW, block_of(policy.metrics.provider))
    failed = proxies.failed_handshakes(policy, window).above(_FEW_FAILURES)
    text = f"{{{{ $value | humanize }}}} connections to {policy.key} failed in {duration(window)} before their callers were authenticated"
    for level, condition in ((WARNING, failed), (CRITICAL, failed.above(proxies.handshakes(policy, window)))):
        yield _alert(policy, AlertName.HANDSHAKE_FAILURES, level, condition, timedelta(minutes=5), text, reads=window)


def _burn(policy: model.Policy) -> Iterator[Rule]:
    for objective in policy.objectives:
        if not objectives.budget(objective):
            continue
        for pair in objectives.BURN_ALERTS:
            if objectives.why_not(pair, objective) is None:
                yield _burn_alert(policy, objective, pair)


def _burn_alert(policy: model.Policy, objective: model.Objective, pair: objectives.BurnAlert) -> Rule:
    factor = pair.factor(objective)
    burning = (
        objectives.burn_rate(policy, objective, pair.long)
        .above(factor)
        .also(objectives.burn_rate(policy, objective, pair.short).above(factor))
    )
    enough = Decimal(pair.long // timedelta(seconds=1)) * policy.metrics.minimum_rate
    guarded = burning.also(_significant(policy, objective, pair, enough), f"on ({', '.join(names.IDENTITY)})")
    text = (
        f"{policy.key} burns the error budget of {objective.name} at {{{{ $value | humanize }}}} times the sustainable rate "
        f"over {duration(pair.long)}, above {factor:.2f}"
    )
    labels = {names.OBJECTIVE: objective.name, "long": duration(pair.long), "short": duration(pair.short)}
    return _alert(policy, AlertName.ERROR_BUDGET_BURN, CRITICAL if pair.page else WARNING, guarded, timedelta(0), text, labels)


def _significant(policy: model.Policy, objective: model.Objective, pair: objectives.BurnAlert, enough: Decimal) -> Expr:
    """More than one bad request among `enough`. Bad requests are worked out of the burn rate: their sum would be read a second time.

    Interpolated counts are rarely whole: 1.5 separates one bad request from two.
    """
    requests = aggregate("max", objectives.total_sum(policy, pair.long).at_least(enough), names.IDENTITY)
    bad_share = objectives.burn_rate(policy, objective, pair.long) * number(objectives.budget(objective))
    return binary(requests, "*", bad_share, f"on ({', '.join(names.IDENTITY)})").above(Decimal("1.5"))


def _absent(policy: model.Policy) -> Iterator[Rule]:
    if policy.metrics.no_traffic_met:
        return
    gone = call("absent_over_time", own(policy, names.JUDGED_STEP).over(policy.metrics.provider.rule_interval * 4))
    text = f"no requests to {policy.key} are counted: no traffic since its pods started, no sidecar, or nothing scrapes it"
    yield _alert(policy, AlertName.METRICS_ABSENT, WARNING, gone, timedelta(minutes=10), text)


def _with_traffic(policy: model.Policy, condition: Expr) -> Expr:
    enough = own(policy, names.JUDGED_RATE).instant().at_least(policy.metrics.minimum_rate)
    return condition.also(enough, f"on ({', '.join(names.IDENTITY)})")


def _alert(
    policy: model.Policy,
    name: AlertName,
    level: str,
    expr: Expr,
    hold: timedelta,
    summary: str,
    labels: Mapping[str, str] = MappingProxyType({}),
    *,
    reads: timedelta = timedelta(0),
) -> Rule:
    """`summary` is ours and may hold template expressions; what the user wrote is escaped. `reads`: how far back into raw samples."""
    wanted = policy.observability.alerts
    theirs = {key: plain(value) for key, value in wanted.labels.items()} if wanted else {}
    annotations = {"summary": summary}
    if wanted and wanted.runbook:
        annotations["runbook_url"] = plain(wanted.runbook)
    theirs |= {**labels, **labels_of(policy), "namespace": policy.key.namespace, "severity": level}
    return Rule(name.value, outside(policy, expr, reads), theirs, True, hold, annotations)


def plain(text: str) -> str:
    """User text as Prometheus' templates print it back: they expand labels and annotations, and `{{ query }}` there runs a query."""
    return text.replace("{{", '{{"{{"}}')
