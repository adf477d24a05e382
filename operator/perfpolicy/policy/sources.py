"""Where requests are counted: the metrics source, wire form to model, and what it refuses. Pure.

What an author writes for a source reaches PromQL as names and matchers, never as text: a custom selector is parsed here, taken apart, and
put together again with the policy's namespace in it.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Final

import promql_parser

from perfpolicy.api import targets as wire
from perfpolicy.policy import model
from perfpolicy.policy.re2 import is_re2
from perfpolicy.policy.resolution import Resolution, filled
from perfpolicy.units import parse_duration

ISTIO_BOUNDS_MS: Final = tuple(
    Decimal(bound)
    for bound in (
        "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000", "300000", "600000",
        "1800000", "3600000",
    )
)  # fmt: skip
"""Upper bounds of Istio's and Envoy's default histogram buckets, in milliseconds."""

_MILLISECOND: Final = timedelta(milliseconds=1)
_NAMESPACE: Final = "namespace"
_SCALAR: Final = "a scalar, not counters"
_OURS: Final = "perfpolicy:"
_KINDS: Final = {
    "AggregateExpr": "an aggregation",
    "BinaryExpr": "an operation",
    "Call": "a function call",
    "MatrixSelector": "a range: write it without [...]",
    "NumberLiteral": "a number",
    "ParenExpr": "parentheses",
    "StringLiteral": "a text",
    "SubqueryExpr": "a subquery",
    "UnaryExpr": "an operation",
}
_OPERATORS: Final = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}


def resolve_source(context: Resolution) -> model.Source:
    """The source of a policy; reports what it lacks, what it may not use, and what it would not read."""
    settings = filled(context.settings.metrics)
    kind = filled(settings.source)
    for name, reader in (("envoy", "Envoy"), ("http", "HTTP"), ("custom", "Custom")):
        if kind != reader and context.by_policy(f"spec.metrics.{name}"):
            context.report(f"spec.metrics.{name}", f"only read with source: {reader}; the source is {kind}")
    _refuse_what_is_not_told(context, kind)
    if kind == "Envoy" and settings.envoy is not None:
        return model.EnvoySource(settings.envoy.cluster)
    if kind == "HTTP" and settings.http is not None:
        return _http(context, settings.http)
    if kind == "Custom" and settings.custom is not None:
        return _custom(context, settings.custom)
    if kind != "Istio":
        hint = {"Envoy": "envoy: the name of the cluster", "HTTP": "http; {} takes the usual names", "Custom": "custom: the counters"}
        context.report(f"spec.metrics.{kind.lower()}", f"required for source: {kind} ({hint[kind]})")
    return model.IstioSource()


def bounds(context: Resolution, source: model.Source) -> tuple[Decimal, ...]:
    """Upper bounds (ms) of the source's buckets. A native histogram has any: those asked for, and between them Istio's, to interpolate."""
    if isinstance(source, model.CustomSource):
        return ()
    http = filled(context.settings.metrics).http
    if isinstance(source, model.HttpSource) and http is not None:
        named = (filled(http.buckets)) if not source.native else _limits(context)
        found = {Decimal(parse_duration(text) // _MILLISECOND) for text in named}
        return tuple(sorted(found | set(ISTIO_BOUNDS_MS) if source.native else found))
    return ISTIO_BOUNDS_MS


def _limits(context: Resolution) -> list[str]:
    settings = context.settings
    latency = [limit.max for limit in settings.thresholds.latency or ()] if settings.thresholds else []
    objectives = [objective.threshold for objective in settings.objectives or () if objective.threshold]
    return [*latency, *objectives, filled(filled(settings.metrics).slow_request)]


def _refuse_what_is_not_told(context: Resolution, kind: str) -> None:
    """Reports SLI settings of the policy that its source has no label for: they would change nothing."""
    if kind != "Istio" and context.by_policy("spec.sli.reporter"):
        context.report("spec.sli.reporter", f"only source: Istio has reporters; the source is {kind}: remove this")
    if kind != "Istio" and context.by_policy("spec.sli.grpcBadCodes"):
        context.report("spec.sli.grpcBadCodes", f"only source: Istio tells gRPC codes; the source is {kind}: remove this")
    if kind == "Custom" and context.by_policy("spec.sli.badCodes"):
        context.report("spec.sli.badCodes", "with source: Custom, spec.metrics.custom.bad says what is bad: remove this")
    if kind != "HTTP" and context.by_policy("spec.sli.excludePaths"):
        message = f"the metrics of source: {kind} have no path; only source: HTTP has, in its pathLabel"
        context.report("spec.sli.excludePaths", message)


def _http(context: Resolution, settings: wire.HttpSource) -> model.HttpSource:
    native = settings.histogram == "Native"
    if native and context.by_policy("spec.metrics.http.buckets"):
        context.report("spec.metrics.http.buckets", "a native histogram has no buckets of its own: remove this, or set histogram: Classic")
    return model.HttpSource(
        requests=filled(settings.requests),
        durations=filled(settings.durations),
        native=native,
        code_label=filled(settings.code_label),
        path_label=filled(settings.path_label),
        excluded_paths=tuple(filled(context.settings.sli).exclude_paths or ()),
    )


def _custom(context: Resolution, settings: wire.CustomSource) -> model.Source:
    if context.by_policy("spec.metrics.custom") and not context.granted.custom_metrics:
        name, namespace = context.cls.metadata.name, context.namespace
        context.report("spec.metrics.custom", f"class {name} does not grant namespace {namespace} custom metrics (customMetrics: Allowed)")
    found = []
    for name, text in (("requests", settings.requests), ("bad", settings.bad)):
        try:
            found.append(counters(text, context.namespace))
        except ValueError as error:
            context.report(f"spec.metrics.custom.{name}", str(error))
    return model.CustomSource(*found) if len(found) == 2 else model.IstioSource()


def counters(text: str, namespace: str) -> model.Counters:
    """A selector of counters in `namespace`, taken apart. ValueError says what is wrong with it."""
    try:
        parsed = promql_parser.parse(text)
    except ValueError as error:
        raise ValueError(f"does not parse as PromQL: {error}") from error
    if not isinstance(parsed, promql_parser.VectorSelector):
        kind = _KINDS.get(type(parsed).__name__, "something else")
        given = _given(parsed)
        told = f"{kind}, and gives {given}" if given else kind
        raise ValueError(f'must be one selector of counters, such as jobs_total{{queue="mail"}}; this is {told}')
    if parsed.offset is not None or parsed.at is not None:
        raise ValueError("must be a plain selector, without offset and @: the rules say when it is read")
    if parsed.name is None:
        raise ValueError("must name its metric before the braces")
    if parsed.name.startswith(_OURS):
        raise ValueError(f"{parsed.name} is recorded by the rules of a policy: select what the workload itself counts")
    if parsed.matchers.or_matchers:
        raise ValueError("`or` between matchers is not Prometheus' PromQL: use a regular expression, =~")
    return model.Counters(parsed.name, tuple(_matcher(matcher, namespace) for matcher in parsed.matchers.matchers))


def _given(parsed: promql_parser.Expr) -> str:
    """What an expression evaluates to that is no plain vector; empty: that."""
    match parsed:
        case promql_parser.NumberLiteral():
            return _SCALAR
        case promql_parser.StringLiteral():
            return "a string, not counters"
        case promql_parser.MatrixSelector() | promql_parser.SubqueryExpr():
            return "a range vector: samples, not the newest one"
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            return _given(parsed.expr)
        case promql_parser.Call():
            return _SCALAR if str(parsed.func.return_type) == "ValueType.Scalar" else ""
        case promql_parser.BinaryExpr():
            left, right = _given(parsed.lhs), _given(parsed.rhs)
            return left if left == right else next((given for given in (left, right) if given not in ("", _SCALAR)), "")
        case promql_parser.AggregateExpr() if parsed.modifier is not None:
            labels = ", ".join(parsed.modifier.labels)
            every = str(parsed.modifier.type) == "AggModifierType.By"
            return f"several series, one for each {labels if every else f'set of labels without {labels}'}" if labels else ""
    return ""


def _matcher(matcher: promql_parser.Matcher, namespace: str) -> tuple[str, str, str]:
    operator = _OPERATORS[str(matcher.op)]
    if matcher.name == _NAMESPACE and (operator, matcher.value) != ("=", namespace):
        raise ValueError(f'leaves the policy\'s namespace: namespace{operator}"{matcher.value}"; leave it out, {namespace} is put in')
    if operator in ("=~", "!~") and not is_re2(matcher.value):
        raise ValueError(f"{matcher.name}{operator}: RE2, which Prometheus uses, does not read the expression {matcher.value!r}")
    return matcher.name, operator, matcher.value
