"""The domain: one policy with its class, every default filled, every unit parsed. Frozen and pure.

`policy/resolve.py` is the only place that builds these; everything below it (render, promql, evaluate) reads them and never meets a raw
dict, a None meaning "default", or a unit as text. A None here means "not asked for". Durations are timedelta, ratios and rates are Decimal
(1 = 100 %; requests per second), CPU is cores, memory is bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple


class PolicyKey(NamedTuple):
    """Identity of a policy in the cluster's namespaces (not across re-creation: see Identity.uid)."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Identity:
    """The policy object itself. `uid` is empty when rendered offline, and so are ownerReferences then."""

    key: PolicyKey
    uid: str
    generation: int


class Mode(StrEnum):
    """Observe writes only the policy's rules and dashboard."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class Protocol(StrEnum):
    """Decided by a Service port's appProtocol, else by its name's prefix, else TCP (Istio's own rule)."""

    HTTP = "http"
    GRPC = "grpc"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Port:
    """One port of the policy's Service. `target` is the container port, by number."""

    name: str
    number: int
    target: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Resources:
    """Requests or limits of the application container; None where the pod spec has none."""

    cpu: Decimal | None = None
    memory: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP probe of the application container."""

    path: str
    port: int
    initial_delay: timedelta
    period: timedelta
    timeout: timedelta
    failure_threshold: int


@dataclass(frozen=True, slots=True)
class OwnedDeployment:
    """A Deployment the policy creates. `template` is a PodTemplateSpec merged under what the named fields say."""

    image: str
    replicas: int
    container_ports: tuple[Port, ...]
    env: Mapping[str, str]
    liveness: Probe | None
    readiness: Probe | None
    template: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """The pods a policy speaks about. `selector`: the labels that select exactly them (also used by every workloadSelector).

    Where the policy refers to a Service it is that Service's selector, which may span several versions of the workload. `pod_labels`: all
    labels of the pods, as far as the pod template says.
    """

    kind: str
    name: str
    selector: Mapping[str, str]
    container: str
    requests: Resources
    limits: Resources
    owned: OwnedDeployment | None
    pod_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Its API group: Rollouts are Argo's."""
        return "argoproj.io" if self.kind == "Rollout" else "apps"


@dataclass(frozen=True, slots=True)
class Service:
    """The Service in front of the workload. `owned`: the policy creates it. `fqdn` is its mesh host."""

    name: str
    fqdn: str
    owned: bool
    ports: tuple[Port, ...]
    metrics_port: int | None
    """Container port of the metrics endpoint."""

    @property
    def speaks_http(self) -> bool:
        """Whether a port besides the metrics port speaks HTTP or gRPC: only then can requests be routed, retried and counted."""
        return any(port.protocol is not Protocol.TCP for port in self.ports if port.target != self.metrics_port)


class Reporter(StrEnum):
    """Whose proxy measured: the server's or the client's."""

    DESTINATION = "destination"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Sli:
    """What counts as a bad request. `bad_codes` are three-digit codes or classes (`5xx`); gRPC codes are numbers."""

    reporter: Reporter
    bad_codes: tuple[str, ...]
    grpc_bad_codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LatencyLimit:
    """quantile in (0, 1), `name` as written (`p95`)."""

    name: str
    quantile: Decimal
    maximum: timedelta


@dataclass(frozen=True, slots=True)
class Throughput:
    """Requests per second. `minimum` is violated only when offered >= minimum and served < minimum."""

    minimum: Decimal | None
    target: Decimal | None
    maximum: Decimal | None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Instant limits judged over `window`. Ratios: error_rate of requests, cpu and memory of limits (requests where no limit)."""

    window: timedelta
    latency: tuple[LatencyLimit, ...]
    error_rate: Decimal | None
    throughput: Throughput
    cpu: Decimal | None
    memory: Decimal | None


@dataclass(frozen=True, slots=True)
class Objective:
    """An SLO with an error budget of 1 - target over window_days. `threshold` set: share of requests faster than it; None: availability."""

    name: str
    target: Decimal
    window_days: int
    threshold: timedelta | None


@dataclass(frozen=True, slots=True)
class IstioSource:
    """Istio's standard metrics."""


@dataclass(frozen=True, slots=True)
class EnvoySource:
    """Upstream statistics of one Envoy cluster, from proxies of the policy's namespace."""

    cluster: str


@dataclass(frozen=True, slots=True)
class HttpSource:
    """The application's own counter of requests and histogram of seconds."""

    requests: str
    durations: str
    native: bool
    code_label: str
    path_label: str
    excluded_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counters:
    """Series by name and matchers: (label, operator, unquoted value)."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class CustomSource:
    """Counters of the policy's namespace, of any name."""

    requests: Counters
    bad: Counters


Source = IstioSource | EnvoySource | HttpSource | CustomSource


@dataclass(frozen=True, slots=True)
class MetricsSource:
    """How and where the policy is measured; address etc. come from the class.

    `bounds`: upper bounds (ms) of the source's latency buckets, ascending, without +Inf; empty where it measures no durations.
    """

    provider: "Provider"
    source: Source
    bounds: tuple[Decimal, ...]
    minimum_rate: Decimal
    no_data_hold: bool
    no_traffic_met: bool
    slow_request: timedelta
    """A request slower than this is slow for the health score."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One metrics backend: all policies with an equal Provider are asked together. `matchers` go into every query and rule."""

    address: str
    tenant: str | None
    auth_file: str | None
    timeout: timedelta
    scrape_interval: timedelta
    rule_interval: timedelta
    query_offset: timedelta | None
    """How late rules are evaluated; None where that is left to Prometheus."""
    matchers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class GatewayRef:
    """A Gateway granted by the class."""

    namespace: str
    name: str


class MatchKind(StrEnum):
    """Istio StringMatch."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class StringMatch:
    """One Istio StringMatch."""

    kind: MatchKind
    value: str


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All parts must match; several RouteMatches of a route are alternatives."""

    path: StringMatch | None
    method: StringMatch | None
    headers: tuple[tuple[str, StringMatch], ...]
    query: tuple[tuple[str, StringMatch], ...]


@dataclass(frozen=True, slots=True)
class Retries:
    """`attempts` retries after the first try, each bounded by per_try_timeout. 0 attempts: never retried, whatever the mesh's default."""

    attempts: int
    per_try_timeout: timedelta
    retry_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Injected by the client's proxy. Percentages are ratios."""

    delay: timedelta | None
    delay_ratio: Decimal
    abort_status: int | None
    abort_ratio: Decimal


@dataclass(frozen=True, slots=True)
class Destination:
    """Share of a route; `subset` None means all pods. Weights of a route sum to 100."""

    subset: str | None
    weight: int


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Edits of request or response headers."""

    set: Mapping[str, str] = field(default_factory=dict)
    add: Mapping[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cors:
    """CORS policy of a route."""

    allow_origins: tuple[StringMatch, ...]
    allow_methods: tuple[str, ...]
    allow_headers: tuple[str, ...]
    expose_headers: tuple[str, ...]
    max_age: timedelta | None
    allow_credentials: bool


@dataclass(frozen=True, slots=True)
class Redirect:
    """Answer with a redirect instead of routing."""

    path: str | None
    host: str | None
    code: int


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP route. No matches: everything. `timeout`/`retries` are already the route's or the policy's.

    A timeout of zero is explicitly no limit.
    """

    name: str
    matches: tuple[RouteMatch, ...]
    rewrite_prefix: str | None
    redirect: Redirect | None
    timeout: timedelta | None
    retries: Retries | None
    fault: Fault | None
    mirror: "Mirror | None"
    request_headers: HeaderEdits
    response_headers: HeaderEdits
    cors: Cors | None
    destinations: tuple[Destination, ...]


@dataclass(frozen=True, slots=True)
class Mirror:
    """Copy a share of the traffic to a Service of the same namespace (its FQDN here), or to a subset of the own one."""

    host: str
    subset: str | None
    ratio: Decimal


@dataclass(frozen=True, slots=True)
class Subset:
    """Pods of the workload that also carry these labels."""

    name: str
    labels: Mapping[str, str]


class Algorithm(StrEnum):
    """Load balancers; values are the API's."""

    ROUND_ROBIN = "RoundRobin"
    LEAST_REQUEST = "LeastRequest"
    RANDOM = "Random"
    CONSISTENT_HASH = "ConsistentHash"


@dataclass(frozen=True, slots=True)
class LocalityBalancing:
    """Preference of near pods. Not `enabled`: none, whatever the mesh's default.

    `failover`: the region that takes over, by region. `distribute`: shares in percent by the pods' locality, by the callers' locality.
    """

    enabled: bool
    failover: Mapping[str, str]
    distribute: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """`hash_*`: exactly one is set when the algorithm is ConsistentHash. `locality` None: as the mesh has it."""

    algorithm: Algorithm
    hash_header: str | None
    hash_cookie: str | None
    hash_source_ip: bool
    warmup: timedelta | None
    locality: LocalityBalancing | None = None


@dataclass(frozen=True, slots=True)
class ConnectionPool:
    """Per client proxy. Overflow is answered 503 with the flag UO."""

    max_connections: int | None
    connect_timeout: timedelta | None
    idle_timeout: timedelta | None
    max_connection_duration: timedelta | None
    max_pending_requests: int | None
    max_requests: int | None
    max_requests_per_connection: int | None


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Istio outlierDetection."""

    consecutive_errors: int
    interval: timedelta
    base_ejection: timedelta
    max_ejected_percent: int
    min_health_percent: int


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`requests` in `per`, for each client. `name` is empty for the limit of all requests.

    `clients`: what tells clients apart, header names, None for the remote address; empty: all are one client. `path` is compared without
    the query.
    """

    name: str
    path: StringMatch | None
    method: str | None
    requests: int
    per: timedelta
    clients: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class RateLimitService:
    """The service that counts for all pods together, at the mesh host `host`. `closed`: requests it gives no answer for are refused."""

    namespace: str
    host: str
    port: int
    closed: bool
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class GlobalRateLimits:
    """Limits all pods keep together; `per` is one of the service's windows: a second, a minute, an hour or a day."""

    limits: tuple[RateLimit, ...]
    service: RateLimitService


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Requests at once in each pod. `adaptive`: fewer where more would make them slower."""

    maximum: int
    adaptive: bool


@dataclass(frozen=True, slots=True)
class ResponseHeaders:
    """Headers put on every answer. `hsts`: how long clients are to insist on HTTPS."""

    request_id: bool
    response_time: bool
    security: bool
    hsts: timedelta | None


@dataclass(frozen=True, slots=True)
class Proxy:
    """What the proxies of the workload's own pods do to requests. `rate_limits`: those each pod keeps for itself. `compress_from`: bytes an
    answer needs to be compressed.
    """

    rate_limits: tuple[RateLimit, ...] = ()
    concurrency: Concurrency | None = None
    response_headers: ResponseHeaders | None = None
    compress_from: int | None = None
    global_limits: GlobalRateLimits | None = None

    @property
    def rejects(self) -> bool:
        """Whether it answers some requests 429, over gRPC ResourceExhausted."""
        return bool(self.rate_limits) or self.global_limits is not None or self.concurrency is not None


@dataclass(frozen=True, slots=True)
class Traffic:
    """Routing and resilience. `hosts` are external hosts, reached through `gateways`; the mesh host is the Service's FQDN."""

    hosts: tuple[str, ...]
    gateways: tuple[GatewayRef, ...]
    routes: tuple[Route, ...]
    subsets: tuple[Subset, ...]
    load_balancer: LoadBalancer | None
    connection_pool: ConnectionPool | None
    circuit_breaker: CircuitBreaker | None
    proxy: Proxy = field(default_factory=Proxy)


class Mtls(StrEnum):
    """PeerAuthentication modes; values are Istio's."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


@dataclass(frozen=True, slots=True)
class AccessSource:
    """Who: the lists are alternatives within, and all non-empty lists must match (AND), as in Istio."""

    principals: tuple[str, ...]
    namespaces: tuple[str, ...]
    ip_blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccessTarget:
    """What: all non-empty lists must match. `ports` are container ports."""

    methods: tuple[str, ...]
    paths: tuple[str, ...]
    ports: tuple[int, ...]
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One rule: `source` AND `target`. None matches everybody / everything."""

    source: AccessSource | None
    target: AccessTarget | None


@dataclass(frozen=True, slots=True)
class Security:
    """`mtls` None: no PeerAuthentication. `default_deny`: an ALLOW policy exists even without rules, so nothing else gets in."""

    mtls: Mtls | None
    allow: tuple[AccessRule, ...]
    deny: tuple[AccessRule, ...]
    default_deny: bool


@dataclass(frozen=True, slots=True)
class NetworkPort:
    """Port (a text is the name of a container port) and L4 protocol (TCP, UDP, SCTP) of a network rule."""

    port: int | str
    protocol: str


@dataclass(frozen=True, slots=True)
class NetworkPeer:
    """One peer. Exactly one of cidr or the selectors is set; None namespace_labels means the own namespace."""

    namespace_labels: Mapping[str, str] | None
    pod_labels: Mapping[str, str] | None
    cidr: str | None
    cidr_except: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkRule:
    """Peers are alternatives; no ports means all ports."""

    peers: tuple[NetworkPeer, ...]
    ports: tuple[NetworkPort, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """NetworkPolicy rules beyond what the policy itself needs (istiod, DNS, gateway, Prometheus, probes), which render adds.

    None for a direction: that direction is not restricted.
    """

    ingress: tuple[NetworkRule, ...] | None
    egress: tuple[NetworkRule, ...] | None
    mesh_namespace: str
    metrics_namespace: str
    """Namespace labels `kubernetes.io/metadata.name` of istiod, of Prometheus, and of the ingress gateway's pods."""
    gateway_namespace: str = "istio-system"


@dataclass(frozen=True, slots=True)
class ScalingStep:
    """The number of pods changes by at most `value` pods or percent of them (`type`: Pods, Percent) within `period`."""

    type: str
    value: int
    period: timedelta


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """Of one direction. `select`: Max, Min or Disabled; what is None or empty is Kubernetes' own default."""

    window: timedelta | None
    select: str | None
    steps: tuple[ScalingStep, ...]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Pods between `minimum` and `maximum`, by the application container's mean use in percent of its requests; one use at least is set."""

    minimum: int
    maximum: int
    cpu_percent: int | None
    memory_percent: int | None
    up: ScalingRules | None = None
    down: ScalingRules | None = None


@dataclass(frozen=True, slots=True)
class DisruptionBudget:
    """Pods an eviction may or must not take: a number, or a share (Decimal) of those wanted. Exactly one is set."""

    max_unavailable: int | Decimal | None
    min_available: int | Decimal | None


@dataclass(frozen=True, slots=True)
class Scrape:
    """Scraping of the application's own metrics endpoint."""

    path: str
    interval: timedelta
    pod_monitor: bool = False


@dataclass(frozen=True, slots=True)
class Alerts:
    """None in Observability means no alerts. `disabled`: names of alerts left out."""

    labels: Mapping[str, str]
    runbook: str | None
    disabled: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tracing:
    """Spans of the pods' proxies. `sampling`: share of the requests that begin a trace; None: no spans. `provider` None: the mesh's own."""

    sampling: Decimal | None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class AccessLogs:
    """Lines of the pods' proxies, taken by `provider`; not `enabled`: none, wherever they go by the mesh's configuration."""

    provider: str
    enabled: bool = True
    failed_only: bool = False


@dataclass(frozen=True, slots=True)
class Observability:
    """What is written for others to load, with the labels by which they find it; `rule_labels` go on the PrometheusRule (or ConfigMap).

    None for `tracing` or `access_logs`: the mesh decides.
    """

    scrape: Scrape | None
    alerts: Alerts | None
    rule_labels: Mapping[str, str]
    monitor_labels: Mapping[str, str] = field(default_factory=dict)
    dashboard: bool = False
    dashboard_labels: Mapping[str, str] = field(default_factory=dict)
    tracing: Tracing | None = None
    access_logs: AccessLogs | None = None


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A time in which nothing is counted. `every` None: once; else the time from one start to the next, above `duration`."""

    name: str
    start: datetime
    duration: timedelta
    every: timedelta | None


@dataclass(frozen=True, slots=True)
class ClassRef:
    """The class that filled this policy."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, resolved."""

    identity: Identity
    class_ref: ClassRef
    mode: Mode
    suspended: bool
    workload: Workload
    service: Service
    sli: Sli
    thresholds: Thresholds
    objectives: tuple[Objective, ...]
    metrics: MetricsSource
    traffic: Traffic
    security: Security
    network: Network | None
    observability: Observability
    in_mesh: bool = True
    scaling: Scaling | None = None
    disruption_budget: DisruptionBudget | None = None
    maintenance: tuple[MaintenanceWindow, ...] = ()

    @property
    def key(self) -> PolicyKey:
        """Namespace and name."""
        return self.identity.key
