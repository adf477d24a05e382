"""Wire format of what the policy writes for the people and tools that watch: alert rules, scraping, traces and access logs."""

from typing import Annotated, Final, Literal

from pydantic import Field

from perfpolicy.api.base import Block, Percent, PlainText, PositiveSeconds, PromLabelName, Rule, SetOf, UrlPath, Wire

# vocabulary.AlertName, as a type checker and pydantic read it; a test keeps the two equal.
Alert = Literal[
    "HighResponseTime", "HighErrorRate", "HighCPUUsage", "HighMemoryUsage", "CircuitBreakerOpen", "ErrorBudgetBurn",
    "CertificateExpiring", "HandshakeFailures", "MetricsAbsent",
]  # fmt: skip

RESERVED_LABELS: Final = (
    "alertname", "namespace", "severity", "policy", "policy_namespace", "policy_uid", "objective", "quantile", "long", "short",
)  # fmt: skip
"""Labels the rules set themselves: a value of the author's would have no effect."""


# As in the mesh's configuration, extensionProviders[].name.
ProviderName = Annotated[str, Field(pattern="^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$", max_length=128)]


class Alerts(Block):
    """Prometheus alerts on the thresholds and objectives of the policy."""

    labels: Annotated[dict[PromLabelName, PlainText], Field(max_length=8)] | None = None
    """Labels added to every alert, for example the team it is routed to."""
    runbook: Annotated[str, Field(pattern="^https?://[A-Za-z0-9][!-z|~]*$", max_length=512)] | None = None
    """Address of the runbook, put on every alert."""
    disabled: SetOf[Alert] | None = None
    """Names of alerts that are left out."""

    RULES = (
        Rule(
            cel=f"!has(self.labels) || !self.labels.exists(key, key in [{', '.join(repr(name) for name in RESERVED_LABELS)}])",
            holds=lambda alerts: not set(alerts.labels or ()) & set(RESERVED_LABELS),
            message=f"labels may have any name but {', '.join(RESERVED_LABELS)}: those are set by the rules",
            field="labels",
        ),
    )


class Scrape(Block):
    """Scraping of the application's own metrics endpoint at spec.service.metricsPort."""

    path: UrlPath | None = None
    """Path of the endpoint. Left out: /metrics."""
    pod_monitor: Literal["Enabled", "Disabled"] | None = None
    """A PodMonitor, with the class's labels.monitors, for a Prometheus run by prometheus-operator. Left out: Disabled."""
    interval: PositiveSeconds | None = None
    """Time between two scrapes, in the PodMonitor. Left out: the class's metrics.scrapeInterval."""


class Tracing(Block):
    """Spans of the requests the workload's pods receive and send, reported by their proxies."""

    mode: Literal["Enabled", "Disabled"] | None = None
    """Disabled: no spans, whatever the class and the mesh say. Left out: Enabled."""
    sampling: Percent | None = None
    """Share of the requests that begin a trace here, for example 10%; what a caller has decided stands. Left out: 10%."""
    provider: ProviderName | None = None
    """Who takes the spans: one of those the class grants (grants[].tracingProviders). Left out: the mesh's default one."""


class AccessLogs(Block):
    """A line for requests the workload's pods receive and send, written by their proxies."""

    mode: Literal["Enabled", "Disabled"] | None = None
    """Disabled: no lines, whatever the class and the mesh say. Left out: Enabled."""
    requests: Literal["All", "Failed"] | None = None
    """All: every request. Failed: those answered 400 or more (gRPC: not OK), and those never answered. Left out: All."""
    provider: ProviderName | None = None
    """Who takes the lines: one of those the class grants (grants[].accessLogProviders), or envoy, which every mesh has: it writes them to
    the proxy's output. Left out: envoy."""


class Observability(Wire):
    """Alert rules, scraping, traces and access logs."""

    alerts: Alerts | None = None
    """Alerts. Left out: they are written."""
    scrape: Scrape | None = None
    """Scraping of the application. Left out: it is not scraped."""
    tracing: Tracing | None = None
    """Traces. Left out: the mesh decides."""
    access_logs: AccessLogs | None = None
    """Access logs. Left out: the mesh decides."""
    dashboard: Literal["Enabled", "Disabled"] | None = None
    """A Grafana dashboard of the policy, in a ConfigMap with the class's labels.dashboards. Left out: Disabled."""
