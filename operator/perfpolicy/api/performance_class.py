"""Wire format of PerformanceClass: the admin's side, which fills, limits and grants."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from perfpolicy.api.base import (
    DnsLabel,
    Duration,
    Host,
    Labels,
    Named,
    ObjectName,
    Percent,
    PortNumber,
    PositiveDuration,
    PositiveSeconds,
    PromLabelName,
    Rule,
    ServiceName,
    SetOf,
    Wire,
)
from perfpolicy.api.limits import Limit
from perfpolicy.api.observability import RESERVED_LABELS, ProviderName
from perfpolicy.api.parse import dump, parse
from perfpolicy.api.policy import Metadata, PolicySettings
from perfpolicy.api.traffic import GatewayRef
from perfpolicy.vocabulary import API_VERSION, CLASS_KIND, DEFAULT_CLASS_ANNOTATION


class LabelSelector(Wire):
    """Objects by their labels."""

    match_labels: Annotated[Labels, Field(min_length=1)]
    """Labels the object carries, all of them."""


class AllowedNamespaces(Wire):
    """Namespaces by name or by labels; either is enough."""

    names: Annotated[SetOf[DnsLabel], Field(max_length=256)] | None = None
    """Names of namespaces."""
    selector: LabelSelector | None = None
    """Labels of namespaces."""


class RequestRate(Wire):
    """A number of requests in a time."""

    requests: Limit
    """Requests."""
    per: PositiveSeconds
    """The time."""


class Limits(Wire):
    """What no policy of the class may pass. A policy that does is refused, with the limit named."""

    min_mtls: Literal["Permissive", "Strict"] | None = None
    """The weakest security.mtls a policy may have."""
    default_deny: Literal["Required"] | None = None
    """Required: security.defaultDeny must be Enabled."""
    network: Literal["Required"] | None = None
    """Required: network.ingress must restrict who connects."""
    max_timeout: PositiveDuration | None = None
    """The longest timeout; a policy without one passes it, too."""
    max_retry_attempts: Annotated[int, Field(ge=0, le=10)] | None = None
    """The most retries of a request."""
    max_connections: Limit | None = None
    """The largest connectionPool.maxConnections; a policy without one passes it, too."""
    max_request_rate: RequestRate | None = None
    """The highest traffic.rateLimit.local of a pod, or of a client where it has by; a policy without one passes it, too."""
    max_concurrency: Limit | None = None
    """The largest traffic.concurrency.max; a policy without one passes it, too."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The most replicas of a Deployment a policy creates, and the largest scaling.maxReplicas."""
    max_fault: Percent | None = None
    """The largest share of requests a fault may be injected into; 0% forbids faults."""
    max_sampling: Percent | None = None
    """The largest observability.tracing.sampling."""


class Grant(Wire):
    """What policies of some namespaces may use outside their namespace, or create beyond their authors' own rights."""

    name: DnsLabel
    """Name of the grant."""
    namespaces: AllowedNamespaces | None = None
    """Namespaces it is for. Left out: all that may use the class."""
    gateways: (
        Annotated[
            list[GatewayRef],
            Field(
                max_length=16,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["namespace", "name"]},
            ),
        ]
        | None
    ) = None
    """Gateways policies may attach hosts to."""
    hosts: Annotated[SetOf[Host], Field(max_length=64)] | None = None
    """Hosts policies may claim; *.example.com grants every host below example.com."""
    workload_creation: Literal["Allowed", "Denied"] | None = None
    """Allowed: policies may create Deployments (workload.deployment). Left out: Denied."""
    service_accounts: Annotated[SetOf[ObjectName], Field(max_length=64)] | None = None
    """ServiceAccounts of the namespace that pods of such Deployments may run as, besides default."""
    envoy_filters: Literal["Allowed", "Denied"] | None = None
    """Allowed: policies may configure their own pods' proxies beyond Istio's API (traffic.rateLimit, concurrency, responseHeaders,
    compression). Left out: Denied."""
    custom_metrics: Literal["Allowed", "Denied"] | None = None
    """Allowed: policies may select counters of their namespace by PromQL (metrics.source: Custom). Left out: Denied."""
    tracing_providers: SetOf[ProviderName] | None = None
    """Extension providers of the mesh's configuration that policies may send spans to, besides the one in the class's defaults."""
    access_log_providers: SetOf[ProviderName] | None = None
    """Those that policies may send access log lines to, besides envoy and the one in the class's defaults."""


class Matcher(Wire):
    """A label every series must have."""

    name: PromLabelName
    """Name of the label."""
    value: Annotated[str, Field(pattern="^[ -~]*$", max_length=253)]
    """Its value."""


_OURS: Final = (*RESERVED_LABELS, "le", "window")


class ClassMetrics(Wire):
    """The Prometheus that holds the measurements."""

    address: Annotated[str, Field(pattern="^https?://[A-Za-z0-9]([A-Za-z0-9.:/_-]*[A-Za-z0-9/_-])?$", max_length=512)] | None = None
    """Its address. Left out: http://prometheus.monitoring.svc:9090."""
    namespace: DnsLabel | None = None
    """Namespace its pods run in; network policies let it scrape. Left out: monitoring."""
    tenant: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.|-]*$", max_length=150)] | None = None
    """Sent as X-Scope-OrgID, for Mimir and Thanos."""
    auth_file: Annotated[str, Field(pattern="^/[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$", max_length=256)] | None = (
        None
    )
    """File in the operator's pod whose content is sent as bearer token."""
    timeout: PositiveDuration | None = None
    """Longest wait for an answer. Left out: 10s."""
    scrape_interval: PositiveDuration | None = None
    """Time between two scrapes of the proxies. Left out: 15s."""
    rule_interval: PositiveDuration | None = None
    """Time between two evaluations of the rules. Left out: 30s."""
    rule_query_offset: Duration | None = None
    """How late rules are evaluated, for samples that arrive late (remote write). Rule groups carry it (`query_offset`, from Prometheus 2.53
    and Prometheus Operator 0.76 on), and what they record is read as that much older. Left out: groups carry nothing, and 0s is taken.
    Where Prometheus sets `rule_query_offset` for all rules, set the same here."""
    matchers: Named[Matcher] | None = None
    """Labels put into every query and rule, for example the cluster where one Prometheus serves several. Rules also take raw series that
    lack the label: a Prometheus of one cluster adds such labels only to what leaves it."""

    RULES = (
        Rule(
            cel=f"!has(self.matchers) || !self.matchers.exists(m, m.name in [{', '.join(map(repr, _OURS))}])",
            holds=lambda metrics: not {matcher.name for matcher in metrics.matchers or ()} & set(_OURS),
            message=f"a matcher may have any name but {', '.join(_OURS)}: the rules set those",
            field="matchers",
        ),
    )


class ClassLabels(Wire):
    """Labels that make the cluster's tools load what the operator writes."""

    rules: Labels | None = None
    """Labels of the PrometheusRule (or ConfigMap) objects, as the Prometheus object's ruleSelector asks for."""
    monitors: Labels | None = None
    """Labels of the PodMonitor objects, as the Prometheus object's podMonitorSelector asks for."""
    dashboards: Labels | None = None
    """Labels of the ConfigMaps with dashboards, as Grafana's sidecar asks for."""


class Mesh(Wire):
    """Where the mesh runs."""

    namespace: DnsLabel | None = None
    """Namespace of istiod. Left out: istio-system."""
    gateway_namespace: DnsLabel | None = None
    """Namespace of the ingress gateway's pods. Left out: that of istiod."""
    cluster_domain: Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=128)] | None = None
    """DNS domain of Services. Left out: cluster.local."""


class RateLimitService(Wire):
    """Envoy's rate limit service (github.com/envoyproxy/ratelimit), which counts for traffic.rateLimit.global. It must know the domain
    perfpolicy; the figures come with each request."""

    namespace: DnsLabel
    """Namespace of its Service and pods."""
    name: ServiceName
    """Name of its Service, which must be visible to the policies' proxies."""
    port: PortNumber | None = None
    """Port of its Service, and of its pods: network policies let the policies' pods reach it. Left out: 8081."""
    failure_mode: Literal["Open", "Closed"] | None = None
    """What becomes of requests it gives no answer for. Open: let through. Closed: answered 503. Left out: Open."""
    timeout: PositiveDuration | None = None
    """Longest wait for its answer, which every request that is counted waits for. Left out: 100ms."""


class ClassSpec(Wire):
    """What the class fills, limits and grants."""

    allowed_namespaces: AllowedNamespaces | None = None
    """Namespaces whose policies may use the class. Left out: all."""
    defaults: PolicySettings | None = None
    """Fills what a policy leaves out: objects field by field, lists as a whole."""
    limits: Limits | None = None
    """What no policy may pass."""
    grants: Named[Grant] | None = None
    """What policies may use outside their namespace; grants for the same namespace add up."""
    metrics: ClassMetrics | None = None
    """The Prometheus that holds the measurements."""
    labels: ClassLabels | None = None
    """Labels that make the cluster's tools load what the operator writes."""
    mesh: Mesh | None = None
    """Where the mesh runs."""
    rate_limit_service: RateLimitService | None = None
    """Counts what traffic.rateLimit.global limits. Left out: no policy may ask for that."""


class PerformanceClass(Wire):
    """A set of defaults, limits and grants for policies: what IngressClass is to Ingress."""

    metadata: Metadata
    spec: ClassSpec

    RULES = (
        Rule(
            cel="self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
            holds=lambda cls: len(cls.metadata.name) <= 63 and "." not in cls.metadata.name,
            message="the name must have at most 63 characters and no dots",
        ),
    )

    @cached_property
    def default_values(self) -> Mapping[str, Any]:
        """The defaults in wire form: asked for every policy of the class."""
        return dump(self.spec.defaults) if self.spec.defaults else {}

    @property
    def is_default(self) -> bool:
        """Whether policies without className use it."""
        return self.metadata.annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"


def parse_class(obj: Mapping[str, Any]) -> PerformanceClass:
    """A PerformanceClass from a raw object; InvalidSpec carries every problem with its field path."""
    return parse(obj, PerformanceClass, API_VERSION, CLASS_KIND)
