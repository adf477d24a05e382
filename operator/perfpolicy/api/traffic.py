"""Wire format of traffic: hosts and gateways, timeouts, subsets, load balancing, connection pools, circuit breaking, limits."""

from typing import Annotated, Literal

from pydantic import Field

from perfpolicy.api.base import (
    Atomic,
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
    Switch,
    WholePercent,
    Wire,
)
from perfpolicy.api.limits import Compression, Concurrency, Limit, RateLimit, ResponseHeaders
from perfpolicy.api.routes import Retries, Route

_PLACE = "[A-Za-z0-9]([-A-Za-z0-9_]{0,61}[A-Za-z0-9])?"
Region = Annotated[str, Field(pattern=f"^{_PLACE}$", max_length=63)]
# As Istio's webhook reads it: at most three parts, * only as the last one.
LocalityText = Annotated[str, Field(pattern=f"^(\\*|{_PLACE}(/{_PLACE}){{0,2}}|{_PLACE}(/{_PLACE})?/\\*)$", max_length=191)]


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


class LocalityFailover(Wire):
    """The region that takes over."""

    from_: Region = Field(alias="from")
    """Region of the callers, whose own pods have failed."""
    to: Region
    """Region that answers them then."""

    RULES = (Rule("self.from != self.to", lambda f: f.from_ != f.to, "from and to must be different regions", field="to"),)


class LocalityShare(Wire):
    """A share of the requests."""

    locality: LocalityText
    """Where the pods are: region, region/zone or region/zone/subzone; * at the end for all below."""
    weight: Annotated[int, Field(ge=1, le=100)]
    """Percentage of the requests."""


class LocalityDistribution(Wire):
    """How the requests of some callers are shared out."""

    from_: LocalityText = Field(alias="from")
    """Where the callers are: region, region/zone or region/zone/subzone; * at the end for all below."""
    to: Annotated[Atomic[LocalityShare], Field(min_length=1, max_length=8)]
    """Where their requests go; pods elsewhere get none. Weights sum to 100."""

    RULES = (
        Rule(
            cel="self.to.map(t, t.weight).sum() == 100",
            holds=lambda d: sum(share.weight for share in d.to) == 100,
            message="weights must sum to 100",
            field="to",
        ),
    )


class LocalityBalancing(Block):
    """Which pods are preferred by where they are (topology.kubernetes.io/region and zone of their nodes). Enabled alone: the caller's own
    subzone, zone, region, then the others. A preferred place is left when its pods fail, which traffic.circuitBreaker finds out; without
    it only shares have an effect."""

    atomic = True
    mode: Switch | None = None
    """Disabled: pods are chosen wherever they are, even with a circuitBreaker, where Istio would prefer near ones. Left out: Enabled."""
    failover: Annotated[Atomic[LocalityFailover], Field(min_length=1)] | None = None
    """Which region takes over when a region fails, in place of any."""
    distribute: Annotated[Atomic[LocalityDistribution], Field(min_length=1, max_length=8)] | None = None
    """Shares in place of preferences."""

    RULES = (
        Rule(
            cel="!has(self.failover) || !has(self.distribute)",
            holds=lambda locality: locality.failover is None or locality.distribute is None,
            message="set failover or distribute, not both",
            field="distribute",
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
    locality: LocalityBalancing | None = None
    """Which pods are preferred by where they are."""


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
