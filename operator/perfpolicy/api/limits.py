"""Wire format of what the workload's own proxies do: rate limits, a concurrency cap, response headers, compression."""

from typing import Annotated, Literal

from pydantic import Field

from perfpolicy.api.base import Atomic, Block, DnsLabel, HeaderName, HttpMethod, Named, PositiveSeconds, Rule, Switch, Wire
from perfpolicy.api.routes import PathMatch

Limit = Annotated[int, Field(ge=1, le=1_000_000)]
# The rate limit service counts in these windows only.
Window = Annotated[str, Field(pattern="^(1s|1m|1h|24h)$", max_length=3)]


class Offer(Block):
    """A block whose figures a class may offer: they apply to policies that use the block, and to no other."""

    mode: Literal["Enabled", "Disabled", "Offered"] | None = None  # type: ignore[assignment]  # one more than a Block's
    """Disabled: nothing of this block is used, whatever the class says. Offered, in a class only: used by policies that name the block,
    if only as {}. Left out: Enabled."""

    @property
    def enabled(self) -> bool:
        """Whether the block is used."""
        return self.mode not in ("Disabled", "Offered")


class ClientKey(Wire):
    """What tells one client from another."""

    type: Literal["RemoteAddress", "Header"]
    """RemoteAddress: the caller's address; behind a gateway the client's own (the last of X-Forwarded-For, which callers inside the mesh
    can write themselves). Header: the value of a request header; requests without it count as one client."""
    name: HeaderName | None = None
    """Name of the header, in lower case."""

    RULES = (
        Rule(
            cel="(self.type == 'Header') == has(self.name)",
            holds=lambda key: (key.type == "Header") == (key.name is not None),
            message="name is required for type: Header, and not allowed for type: RemoteAddress",
            field="name",
        ),
    )


ClientKeys = Annotated[Atomic[ClientKey], Field(min_length=1, max_length=2)]
_DISTINCT = Rule(
    cel="!has(self.by) || self.by.size() < 2 || self.by[0] != self.by[1]",
    holds=lambda limit: not limit.by or len(limit.by) < 2 or limit.by[0] != limit.by[1],
    message="by names the same twice: each may appear once",
    field="by",
)


class RouteRateLimit(Wire):
    """A further limit for some of the requests."""

    name: DnsLabel
    """Name of the limit."""
    path: PathMatch | None = None
    """Condition on the path as the workload sees it, after rewrites and without the query."""
    method: HttpMethod | None = None
    """HTTP method."""
    requests: Limit
    """Requests let through."""
    per: PositiveSeconds | None = None
    """Time in which so many are let through. Left out: 1m."""
    by: ClientKeys | None = None
    """Every client has a limit of its own. Left out: all clients share it."""

    RULES = (
        Rule(
            cel="has(self.path) || has(self.method)",
            holds=lambda limit: bool(limit.path or limit.method),
            message="set path, method, or both; a limit of all requests is the requests beside routes",
        ),
        _DISTINCT,
    )


class LocalRateLimit(Block):
    """Limits each pod keeps for itself: n pods let n times as many requests through."""

    requests: Limit | None = None
    """Requests a pod lets through, all of them at once if nothing came for a while."""
    per: PositiveSeconds | None = None
    """Time in which so many are let through. Left out: 1m."""
    by: ClientKeys | None = None
    """Every client has a limit of its own. Left out: all clients share it."""
    routes: Annotated[Named[RouteRateLimit], Field(max_length=8)] | None = None
    """Further limits, each for some of the requests. A request must be within every limit it falls under."""

    RULES = (_DISTINCT,)


class GlobalRouteRateLimit(RouteRateLimit):
    """A further limit for some of the requests."""

    per: Window | None = None
    """Window in which so many are let through: 1s, 1m, 1h or 24h. Left out: 1m."""


class GlobalRateLimit(Block):
    """Limits all pods keep together, counted by the rate limit service the class names (spec.rateLimitService)."""

    requests: Limit | None = None
    """Requests all pods together let through."""
    per: Window | None = None
    """Window in which so many are let through: 1s, 1m, 1h or 24h. Left out: 1m."""
    by: ClientKeys | None = None
    """Every client has a limit of its own. Left out: all clients share it."""
    routes: Annotated[Named[GlobalRouteRateLimit], Field(max_length=8)] | None = None
    """Further limits, each for some of the requests. A request must be within every limit it falls under."""

    RULES = (_DISTINCT,)


class RateLimit(Offer):
    """Requests over the limit are answered 429 (gRPC: ResourceExhausted) by the workload's proxy."""

    local: LocalRateLimit | None = None
    """Limits each pod keeps for itself."""
    global_: GlobalRateLimit | None = Field(default=None, alias="global")
    """Limits all pods keep together."""


class Concurrency(Offer):
    """Requests at once in each pod. Those beyond are answered 429 (gRPC: ResourceExhausted) by the workload's proxy, at once."""

    mode: Literal["Fixed", "Adaptive", "Disabled", "Offered"] | None = None  # type: ignore[assignment]  # says how, too
    """Fixed: max at all times. Adaptive: as many as keep the latency near its measured minimum, never more than max. Disabled: no cap.
    Offered, in a class only: used by policies that name the block. Left out: Fixed."""
    max: Limit | None = None
    """Requests at once, of all clients together."""


class ResponseHeaders(Offer):
    """Headers the workload's proxy puts on every answer, those it gives itself included."""

    request_id: Switch | None = None
    """X-Request-ID: finds the request in logs and traces. Left out: Enabled."""
    response_time: Switch | None = None
    """X-Response-Time: milliseconds until the workload began to answer. Left out: Enabled."""
    security: Switch | None = None
    """X-Content-Type-Options: nosniff and X-Frame-Options: DENY. Left out: Enabled."""
    hsts_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    """Strict-Transport-Security for so many days, subdomains included: for hosts that are served over HTTPS only. Left out: not sent."""


class Compression(Offer):
    """Answers are compressed with gzip for clients that accept it."""

    min_bytes: Annotated[int, Field(ge=30, le=1_000_000)] | None = None
    """Shorter answers are left as they are. Left out: 1000."""
