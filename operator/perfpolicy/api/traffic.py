"""Wire format of traffic: hosts and gateways, timeouts, subsets, load balancing, connection pools, circuit breaking, limits."""

from typing import Annotated, Literal

from pydantic import Field

from perfpolicy.api.base import (
    Block,
    DnsLabel,
    Duration,
    HeaderName,
    Host,
    Labels,
    Named,
    ObjectName,
    PositiveDuration,
    Rule,
    SetOf,
    WholePercent,
    Wire,
)
from perfpolicy.api.limits import Compression, Concurrency, Limit, RateLimit, ResponseHeaders
from perfpolicy.api.routes import Retries, Route


class GatewayRef(Wire):
    """An Istio Gateway."""

    namespace: DnsLabel
    """Namespace of the Gateway."""
    name: ObjectName
    """Name of the Gateway."""


class Subset(Wire):
    """Some of the workload's pods, chosen by further labels."""

    name: DnsLabel
    """Name of the subset."""
    labels: Annotated[Labels, Field(min_length=1)]
    """Labels its pods carry."""


class ConsistentHash(Wire):
    """What is hashed, so that equal requests reach the same pod."""

    atomic = True
    type: Literal["Header", "Cookie", "SourceIP"]
    """Header or Cookie, by name; or the address of the caller."""
    name: HeaderName | None = None
    """Name of the header or cookie."""

    RULES = (
        Rule(
            cel="(self.type == 'SourceIP') == !has(self.name)",
            holds=lambda h: (h.type == "SourceIP") == (h.name is None),
            message="name is required for type: Header and type: Cookie, and not allowed for type: SourceIP",
            field="name",
        ),
    )


class LoadBalancer(Block):
    """How a caller's proxy chooses a pod."""

    algorithm: Literal["RoundRobin", "LeastRequest", "Random", "ConsistentHash"] | None = None
    """RoundRobin: in turn. LeastRequest: the less busy of two. Random. ConsistentHash: by what is hashed. Left out: LeastRequest."""
    consistent_hash: ConsistentHash | None = None
    """What is hashed, for ConsistentHash."""
    warmup: PositiveDuration | None = None
    """A new pod's share grows over this time. For RoundRobin and LeastRequest."""


class ConnectionPool(Block):
    """Limits of what each caller's proxy opens to the workload. What exceeds them is answered 503 (flag UO)."""

    max_connections: Limit | None = None
    """Connections at once."""
    connect_timeout: PositiveDuration | None = None
    """Longest time to connect."""
    idle_timeout: PositiveDuration | None = None
    """A connection unused for so long is closed."""
    max_connection_duration: PositiveDuration | None = None
    """A connection older than this is drained and closed."""
    max_pending_requests: Limit | None = None
    """Requests waiting for a connection."""
    max_requests: Limit | None = None
    """Requests at once, over HTTP/2."""
    max_requests_per_connection: Limit | None = None
    """Requests after which a connection is closed."""


class CircuitBreaker(Block):
    """Pods that fail are left out for a while (outlier detection of each caller's proxy)."""

    consecutive_errors: Annotated[int, Field(ge=1, le=1000)] | None = None
    """5xx answers in a row after which a pod is left out. Left out: 5."""
    interval: PositiveDuration | None = None
    """Time between two looks at the pods. Left out: 30s."""
    base_ejection: PositiveDuration | None = None
    """Shortest time a pod is left out; grows with each repetition. Left out: 30s."""
    max_ejected: WholePercent | None = None
    """Largest share of the pods left out at once. Left out: 50%."""
    min_health: WholePercent | None = None
    """With a smaller share of healthy pods none is left out. Left out: 0%."""


def _subsets_declared(traffic: "Traffic") -> bool:
    if traffic.subsets is None:
        return True
    declared = {subset.name for subset in traffic.subsets}
    used = {d.subset for route in traffic.routes or () for d in route.destinations or () if d.subset}
    return used <= declared


def _catch_all_last(traffic: "Traffic") -> bool:
    return all(route.matches for route in (traffic.routes or [])[:-1])


class Traffic(Wire):
    """Routing and resilience of the requests to the workload."""

    hosts: Annotated[SetOf[Host], Field(max_length=16)] | None = None
    """Hosts clients outside the mesh use, each granted by the class. Inside the mesh the Service's own name is used."""
    gateways: (
        Annotated[
            list[GatewayRef],
            Field(
                max_length=8,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["namespace", "name"]},
            ),
        ]
        | None
    ) = None
    """Gateways the hosts are reached through, each granted by the class."""
    routes: Named[Route] | None = None
    """HTTP routes, tried in order. Left out: every request goes to all pods."""
    timeout: Duration | None = None
    """Longest duration of a request, all its tries together; 0s is no limit."""
    retries: Retries | None = None
    """Retries of every route that has none of its own."""
    subsets: Named[Subset] | None = None
    """Parts of the workload that routes can name."""
    load_balancer: LoadBalancer | None = None
    """How a pod is chosen."""
    connection_pool: ConnectionPool | None = None
    """Limits of connections and requests."""
    circuit_breaker: CircuitBreaker | None = None
    """Pods that fail are left out for a while."""
    rate_limit: RateLimit | None = None
    """Requests over the limit are answered 429. Granted by the class (envoyFilters), as the three below."""
    concurrency: Concurrency | None = None
    """Requests at once in each pod."""
    response_headers: ResponseHeaders | None = None
    """Headers on every answer."""
    compression: Compression | None = None
    """Compressed answers."""

    RULES = (
        Rule(
            cel="!has(self.subsets) || !has(self.routes) || self.routes.all(r, !has(r.destinations) || r.destinations.all(d,"
            " !has(d.subset) || self.subsets.exists(s, s.name == d.subset)))",
            holds=_subsets_declared,
            message="every subset a route names must be declared in spec.traffic.subsets",
            field="routes",
        ),
        Rule(
            cel="!has(self.routes) || self.routes.all(r, (has(r.matches) && r.matches.size() > 0)"
            " || r.name == self.routes[self.routes.size() - 1].name)",
            holds=_catch_all_last,
            message="a route without matches takes every request: only the last route may have none",
            field="routes",
        ),
    )
