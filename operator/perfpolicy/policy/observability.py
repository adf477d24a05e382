"""What is written for the people and tools that watch, and what the pods' proxies tell: wire form to model. Pure."""

from typing import Final

from perfpolicy.api.observability import AccessLogs, Observability, Scrape, Tracing
from perfpolicy.api.performance_class import ClassLabels
from perfpolicy.policy import model
from perfpolicy.policy.layers import WHEN_USED
from perfpolicy.policy.resolution import Resolution, filled
from perfpolicy.policy.targets import provider
from perfpolicy.units import parse_duration, parse_percent
from perfpolicy.vocabulary import Reason

_ENVOY: Final = str(WHEN_USED[AccessLogs]["provider"])
_NAME_HTTP: Final = "name its port http or grpc, or set appProtocol"


def resolve_observability(context: Resolution, service: model.Service, *, in_mesh: bool) -> model.Observability:
    """Alerts, scraping, dashboard, traces and access logs."""
    settings = filled(context.settings.observability)
    alerts, labels = settings.alerts, context.cls.spec.labels or ClassLabels()
    return model.Observability(
        scrape=_scrape(context, settings.scrape, service, in_mesh=in_mesh),
        alerts=model.Alerts(dict(alerts.labels or {}), alerts.runbook, tuple(sorted(alerts.disabled or ())))
        if alerts and alerts.enabled
        else None,
        rule_labels=dict(labels.rules or {}),
        monitor_labels=dict(labels.monitors or {}),
        dashboard=settings.dashboard == "Enabled",
        dashboard_labels=dict(labels.dashboards or {}),
        tracing=_tracing(context, settings.tracing, service, in_mesh=in_mesh),
        access_logs=_access_logs(context, settings.access_logs, service, in_mesh=in_mesh),
    )


def _scrape(context: Resolution, scrape: Scrape | None, service: model.Service, *, in_mesh: bool) -> model.Scrape | None:
    if scrape is None or not scrape.enabled:
        return None
    if service.metrics_port is None:
        if context.by_policy("spec.observability.scrape"):
            context.report("spec.service.metricsPort", "required for observability.scrape: the port of the metrics endpoint")
        return None
    monitored, path = scrape.pod_monitor == "Enabled", "spec.observability.scrape.podMonitor"
    if monitored and in_mesh and all(port.target == service.metrics_port for port in service.ports):
        monitored = False
        if context.by_policy(path):
            context.report(path, "the metrics are on the application's own port, which stays closed to Prometheus: give them another port")
    interval = parse_duration(scrape.interval) if scrape.interval else provider(context.cls).scrape_interval
    return model.Scrape(filled(scrape.path), interval, monitored)


def _tracing(context: Resolution, settings: Tracing | None, service: model.Service, *, in_mesh: bool) -> model.Tracing | None:
    path = "spec.observability.tracing"
    if settings is None or not _told(context, path, in_mesh=in_mesh):
        return None
    if not settings.enabled:
        return model.Tracing(None)
    if not service.speaks_http:
        if context.by_policy(path):
            context.report(path, f"the Service has no HTTP or gRPC port, and only requests are traced: {_NAME_HTTP}")
        return None
    usual = _of_class(context).tracing
    allowed = context.granted.tracing_providers | {usual.provider if usual else None}
    _check_provider(context, f"{path}.provider", settings.provider, allowed)
    return model.Tracing(parse_percent(filled(settings.sampling)), settings.provider)


def _access_logs(context: Resolution, settings: AccessLogs | None, service: model.Service, *, in_mesh: bool) -> model.AccessLogs | None:
    path = "spec.observability.accessLogs"
    if settings is None or not _told(context, path, in_mesh=in_mesh):
        return None
    if not settings.enabled:
        # Named, because Istio takes an empty list of providers for the mesh's own, and where there is none for nothing said.
        return model.AccessLogs(_ENVOY, enabled=False)
    usual, failed = _of_class(context).access_logs, settings.requests == "Failed"
    if failed and not service.speaks_http:
        failed = False
        if context.by_policy(f"{path}.requests"):
            context.report(
                f"{path}.requests", f"the Service has no HTTP or gRPC port: a connection is not answered; {_NAME_HTTP}, or set All"
            )
    allowed = context.granted.access_log_providers | {_ENVOY, usual.provider if usual else None}
    _check_provider(context, f"{path}.provider", settings.provider, allowed)
    return model.AccessLogs(filled(settings.provider), failed_only=failed)


def _told(context: Resolution, path: str, *, in_mesh: bool) -> bool:
    """Whether the pods' proxies can be told so; reports why not where the policy itself asked for it."""
    problem = ""
    if not in_mesh:
        problem = f"the pods have no sidecar that could do this: label the namespace {context.namespace} istio-injection=enabled"
    elif context.in_root_namespace:
        problem = f"{context.namespace} is the mesh's root namespace, where no Telemetry is written: leave it out"
    if problem and context.by_policy(path):
        context.report(path, problem, Reason.TARGET_UNSUPPORTED)
    return not problem


def _check_provider(context: Resolution, path: str, name: str | None, allowed: frozenset[str | None]) -> None:
    """`allowed`: what the class grants, and what it names itself."""
    if name is not None and name not in allowed:
        granted = ", ".join(sorted(filter(None, allowed))) or "none"
        message = (
            f"class {context.cls.metadata.name} does not grant namespace {context.namespace} the provider {name}; it grants: {granted}"
        )
        context.report(path, message, Reason.NOT_GRANTED)


def _of_class(context: Resolution) -> Observability:
    defaults = context.cls.spec.defaults
    return (defaults.observability if defaults else None) or Observability()
