"""SLI, thresholds, objectives and metrics source: wire form to model. Pure."""

from dataclasses import dataclass
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


def sli(settings: wire.Sli) -> model.Sli:
    """What counts as bad."""
    return model.Sli(
        reporter=model.Reporter(filled(settings.reporter).lower()),
        bad_codes=tuple(filled(settings.bad_codes)),
        grpc_bad_codes=tuple(sorted(GRPC_NUMBERS[code] for code in filled(settings.grpc_bad_codes))),
    )


_ABOUT_REQUESTS: Final = ("thresholds.latency", "thresholds.errorRate", "thresholds.throughput", "objectives")


@dataclass(frozen=True, slots=True)
class Measured:
    """What of a workload its metrics tell. `bounds` (ms) is empty where they have no durations; `source`: its name in the API."""

    source: str
    requests: bool
    bounds: tuple[Decimal, ...]

    @property
    def durations(self) -> bool:
        """Whether latency is measured."""
        return self.requests and bool(self.bounds)


def measured_by(context: Resolution, source: model.Source, bounds: tuple[Decimal, ...], service: model.Service) -> Measured:
    """What can be promised of; on TCP Istio counts only bytes and connections."""
    requests = service.speaks_http or not isinstance(source, model.IstioSource)
    return Measured(filled(filled(context.settings.metrics).source), requests, bounds)


def refuse_unmeasured(context: Resolution, measured: Measured) -> None:
    """Reports what the policy promises though nothing measures it."""
    if not measured.requests:
        for name in _ABOUT_REQUESTS:
            value = context.layered.at(f"spec.{name}")
            if context.by_policy(f"spec.{name}") and value and value != {"mode": "Disabled"}:
                context.report(f"spec.{name}", "the Service has no HTTP or gRPC port, so there are no requests to measure: remove this")
    elif not measured.durations:
        reason = f"source: {measured.source} has no durations, so latency cannot be measured: remove this"
        if context.by_policy("spec.thresholds.latency") and filled(context.settings.thresholds).latency:
            context.report("spec.thresholds.latency", reason)
        for index, item in enumerate(context.settings.objectives or ()):
            if item.threshold and context.by_policy("spec.objectives"):
                context.report(f"spec.objectives[{index}]", reason)


def thresholds(context: Resolution, workload: model.Workload, measured: Measured) -> model.Thresholds:
    """Instant limits; what is disabled, left out or not measured is None. Reports a window without a recorded step."""
    settings = filled(context.settings.thresholds)
    window, shortest = parse_duration(filled(settings.window)), provider(context.cls).rule_interval
    if window < shortest:
        context.report("spec.thresholds.window", f"must be at least the class's metrics.ruleInterval, {format_duration(shortest)}")
    rate, error_rate, resources = settings.throughput, settings.error_rate, settings.resources
    for name, block in (("errorRate", error_rate), ("throughput", rate), ("resources", resources)):
        if block is not None and block.enabled and not block.model_dump(exclude_none=True, exclude={"mode"}):
            context.report(f"spec.thresholds.{name}", "set a limit, or mode: Disabled")
    throughput = model.Throughput(None, None, None)
    if rate and rate.enabled and measured.requests:
        throughput = model.Throughput(_number(rate.min), _number(rate.target), _number(rate.max))
    used = resources if resources and resources.enabled else wire.ResourceThreshold()
    latency = (
        model.LatencyLimit(item.quantile, Decimal(item.quantile[1:]) / 100, parse_duration(item.max)) for item in settings.latency or ()
    )
    return model.Thresholds(
        window=window,
        latency=tuple(sorted(latency, key=lambda limit: limit.quantile)) if measured.durations else (),
        error_rate=_ratio(error_rate.max) if error_rate and error_rate.enabled and measured.requests else None,
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


def objectives(context: Resolution, measured: Measured) -> tuple[model.Objective, ...]:
    """SLOs of what is measured; reports a latency threshold the source's histogram has no bucket for."""
    wanted = enumerate(context.settings.objectives or ())
    return tuple(
        _objective(context, index, item, measured)
        for index, item in wanted
        if (measured.durations if item.threshold else measured.requests)
    )


def _objective(context: Resolution, index: int, item: wire.Objective, measured: Measured) -> model.Objective:
    threshold = parse_duration(item.threshold) if item.threshold else None
    if threshold is not None and milliseconds(threshold) not in measured.bounds:
        # Bounds below a millisecond have no name in the API.
        allowed = ", ".join(format_duration(timedelta(milliseconds=int(bound))) for bound in measured.bounds if bound >= 1)
        message = f"{item.threshold} is not a bucket boundary of the {measured.source} metrics; use one of {allowed}"
        context.report(f"spec.objectives[{index}].threshold", message)
    return model.Objective(item.name, parse_percent(item.target), item.window_days, threshold)


def metrics_source(context: Resolution, source: model.Source, bounds: tuple[Decimal, ...]) -> model.MetricsSource:
    """How the policy is measured: its own settings and the class's provider."""
    settings = filled(context.settings.metrics)
    return model.MetricsSource(
        provider=provider(context.cls),
        source=source,
        bounds=bounds,
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
        query_offset=None if metrics.rule_query_offset is None else parse_duration(metrics.rule_query_offset),
        matchers=tuple((matcher.name, matcher.value) for matcher in metrics.matchers or ()),
    )


def _number(text: str | None) -> Decimal | None:
    return None if text is None else parse_decimal(text)


def _ratio(text: str | None) -> Decimal | None:
    return None if text is None else parse_percent(text)
