"""SLI, thresholds, objectives and metrics source: wire form to model. Pure."""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from perfpolicy.api import targets as wire
from perfpolicy.api.performance_class import ClassMetrics, PerformanceClass
from perfpolicy.policy import model
from perfpolicy.policy.resolution import Resolution, filled
from perfpolicy.units import format_duration, milliseconds, parse_decimal, parse_duration, parse_percent

GRPC_NUMBERS: Final = {
    "Cancelled": 1,
    "Unknown": 2,
    "InvalidArgument": 3,
    "DeadlineExceeded": 4,
    "NotFound": 5,
    "AlreadyExists": 6,
    "PermissionDenied": 7,
    "ResourceExhausted": 8,
    "FailedPrecondition": 9,
    "Aborted": 10,
    "OutOfRange": 11,
    "Unimplemented": 12,
    "Internal": 13,
    "Unavailable": 14,
    "DataLoss": 15,
    "Unauthenticated": 16,
}

BOUNDS_MS: Final = tuple(
    Decimal(bound)
    for bound in (
        "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000", "300000", "600000",
        "1800000", "3600000",
    )
)  # fmt: skip
"""Upper bounds of Istio's default histogram buckets, in milliseconds."""

_NAMEABLE_MS: Final = tuple(int(bound) for bound in BOUNDS_MS if bound >= 1)
"""Those a duration in whole milliseconds can name."""


def sli(settings: wire.Sli) -> model.Sli:
    """What counts as bad."""
    return model.Sli(
        reporter=model.Reporter(filled(settings.reporter).lower()),
        bad_codes=tuple(filled(settings.bad_codes)),
        grpc_bad_codes=tuple(sorted(GRPC_NUMBERS[code] for code in filled(settings.grpc_bad_codes))),
    )


_ABOUT_REQUESTS: Final = ("thresholds.latency", "thresholds.errorRate", "thresholds.throughput", "objectives")


def refuse_requests_on_tcp(context: Resolution) -> None:
    """Reports promises about requests on a Service that has none; Istio counts only bytes and connections there."""
    for name in _ABOUT_REQUESTS:
        value = context.layered.at(f"spec.{name}")
        if context.by_policy(f"spec.{name}") and value and value != {"mode": "Disabled"}:
            context.report(f"spec.{name}", "the Service has no HTTP or gRPC port, so there are no requests to measure: remove this")


def thresholds(context: Resolution, workload: model.Workload, service: model.Service) -> model.Thresholds:
    """Instant limits; what is disabled or left out is None, and on TCP what is about requests. Reports a window without a recorded step."""
    settings = filled(context.settings.thresholds)
    window, shortest = parse_duration(filled(settings.window)), provider(context.cls).rule_interval
    if window < shortest:
        context.report("spec.thresholds.window", f"must be at least the class's metrics.ruleInterval, {format_duration(shortest)}")
    rate, error_rate, resources = settings.throughput, settings.error_rate, settings.resources
    for name, block in (("errorRate", error_rate), ("throughput", rate), ("resources", resources)):
        if block is not None and block.enabled and not block.model_dump(exclude_none=True, exclude={"mode"}):
            context.report(f"spec.thresholds.{name}", "set a limit, or mode: Disabled")
    throughput = model.Throughput(None, None, None)
    if rate and rate.enabled and service.speaks_http:
        throughput = model.Throughput(_number(rate.min), _number(rate.target), _number(rate.max))
    used = resources if resources and resources.enabled else wire.ResourceThreshold()
    latency = (
        model.LatencyLimit(item.quantile, Decimal(item.quantile[1:]) / 100, parse_duration(item.max)) for item in settings.latency or ()
    )
    return model.Thresholds(
        window=window,
        latency=tuple(sorted(latency, key=lambda limit: limit.quantile)) if service.speaks_http else (),
        error_rate=_ratio(error_rate.max) if error_rate and error_rate.enabled and service.speaks_http else None,
        throughput=throughput,
        cpu=_share(context, "cpu", used.cpu, workload.limits.cpu or workload.requests.cpu),
        memory=_share(context, "memory", used.memory, workload.limits.memory or workload.requests.memory),
    )


def _share(context: Resolution, name: str, limit: str | None, whole: Decimal | None) -> Decimal | None:
    """A share of the container's `whole`; where there is none nothing can be measured: reported, or left out if the class asks for it."""
    if limit is not None and not whole:
        path = f"spec.thresholds.resources.{name}"
        if context.by_policy(path):
            context.report(path, f"the container has neither limit nor request: set resources.limits.{name} or resources.requests.{name}")
        return None
    return _ratio(limit)


def objectives(context: Resolution, service: model.Service) -> tuple[model.Objective, ...]:
    """SLOs, none on TCP; reports a latency threshold the source's histogram has no bucket for."""
    if not service.speaks_http:
        return ()
    return tuple(_objective(context, index, item) for index, item in enumerate(context.settings.objectives or ()))


def _objective(context: Resolution, index: int, item: wire.Objective) -> model.Objective:
    threshold = parse_duration(item.threshold) if item.threshold else None
    if threshold is not None and milliseconds(threshold) not in _NAMEABLE_MS:
        allowed = ", ".join(format_duration(timedelta(milliseconds=bound)) for bound in _NAMEABLE_MS)
        context.report(
            f"spec.objectives[{index}].threshold", f"{item.threshold} is not a bucket boundary of the Istio metrics; use one of {allowed}"
        )
    return model.Objective(item.name, parse_percent(item.target), item.window_days, threshold)


def metrics_source(context: Resolution) -> model.MetricsSource:
    """How the policy is measured: its own settings and the class's provider."""
    settings = filled(context.settings.metrics)
    return model.MetricsSource(
        provider=provider(context.cls),
        minimum_rate=parse_decimal(filled(settings.minimum_rate)),
        no_data_hold=settings.no_data == "Hold",
        no_traffic_met=settings.no_traffic == "Met",
        slow_request=parse_duration(filled(settings.slow_request)),
    )


def provider(cls: PerformanceClass) -> model.Provider:
    """The class's metrics backend."""
    metrics = cls.spec.metrics or ClassMetrics()
    return model.Provider(
        address=(metrics.address or "http://prometheus.monitoring.svc:9090").rstrip("/"),
        tenant=metrics.tenant,
        auth_file=metrics.auth_file,
        timeout=parse_duration(metrics.timeout or "10s"),
        scrape_interval=parse_duration(metrics.scrape_interval or "15s"),
        rule_interval=parse_duration(metrics.rule_interval or "30s"),
        matchers=tuple((matcher.name, matcher.value) for matcher in metrics.matchers or ()),
    )


def _number(text: str | None) -> Decimal | None:
    return None if text is None else parse_decimal(text)


def _ratio(text: str | None) -> Decimal | None:
    return None if text is None else parse_percent(text)
