"""Wire format of routes: conditions, destinations, retries, faults, mirrors, headers, CORS, rewrites and redirects."""

from typing import Annotated, Literal

from pydantic import Field

from perfpolicy.api.base import (
    Atomic,
    Block,
    DnsLabel,
    Duration,
    HeaderName,
    HeaderValue,
    Host,
    HttpMethod,
    MatchText,
    Named,
    Percent,
    PositiveDuration,
    Rule,
    ServiceName,
    SetOf,
    UrlPath,
    Wire,
)

RetryCondition = Literal[
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream",
    "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
]  # fmt: skip


class PathMatch(Wire):
    """A condition on the request's path."""

    type: Literal["Exact", "Prefix", "Regex"]
    """Exact: the whole path. Prefix: its beginning. Regex: an RE2 expression for the whole path."""
    value: MatchText
    """What is compared."""

    RULES = (
        Rule(
            cel="self.type == 'Regex' || self.value.startsWith('/')",
            holds=lambda match: match.type == "Regex" or match.value.startswith("/"),
            message="a path begins with /",
            field="value",
        ),
    )


class ValueMatch(Wire):
    """A condition on a named value: a header or a query parameter."""

    name: HeaderName
    """Name, in lower case."""
    type: Literal["Exact", "Prefix", "Regex"] | None = None
    """How the value is compared. Left out: Exact."""
    value: MatchText
    """What is compared."""


class RouteMatch(Wire):
    """Conditions that must all hold."""

    path: PathMatch | None = None
    """Condition on the path."""
    method: HttpMethod | None = None
    """HTTP method."""
    headers: Annotated[Named[ValueMatch], Field(max_length=8)] | None = None
    """Conditions on request headers."""
    query: Annotated[Named[ValueMatch], Field(max_length=8)] | None = None
    """Conditions on query parameters."""

    RULES = (
        Rule(
            cel="has(self.path) || has(self.method) || (has(self.headers) && self.headers.size() > 0)"
            " || (has(self.query) && self.query.size() > 0)",
            holds=lambda m: bool(m.path or m.method or m.headers or m.query),
            message="set at least one of path, method, headers and query; leave out matches to match every request",
        ),
    )


class Retries(Block):
    """Tries again after a failure. Disabled: never, whatever the mesh's default."""

    attempts: Annotated[int, Field(ge=1, le=10)] | None = None
    """Tries after the first one. Left out: 3."""
    per_try_timeout: PositiveDuration | None = None
    """Longest duration of each try. Left out: 10s."""
    retry_on: SetOf[RetryCondition] | None = None
    """What is retried. Left out: 5xx, gateway-error, connect-failure, refused-stream."""


# Istio's own webhook refuses shares that its proxies would round to none.
_SMALLEST_FAULT = Rule(
    cel="double(self.percent.replace('%', '')) >= 0.0001 || double(self.percent.replace('%', '')) == 0.0",
    holds=lambda fault: float(fault.percent[:-1]) >= 0.0001 or float(fault.percent[:-1]) == 0,
    message="percent must be 0% or at least 0.0001%",
    field="percent",
)


class Delay(Wire):
    """Requests held back on purpose."""

    duration: PositiveDuration
    """How long."""
    percent: Percent
    """Share of requests."""

    RULES = (_SMALLEST_FAULT,)


class Abort(Wire):
    """Requests answered with an error on purpose."""

    status: Annotated[int, Field(ge=200, le=599)]
    """HTTP status of the answer."""
    percent: Percent
    """Share of requests."""

    RULES = (_SMALLEST_FAULT,)


class Fault(Wire):
    """Faults injected on purpose, to test the callers."""

    delay: Delay | None = None
    """Requests held back."""
    abort: Abort | None = None
    """Requests answered with an error."""

    RULES = (Rule("has(self.delay) || has(self.abort)", lambda f: bool(f.delay or f.abort), "set delay, abort, or both"),)


class Mirror(Wire):
    """A copy of the traffic, whose answers are thrown away."""

    service: ServiceName | None = None
    """A Service of the policy's namespace that gets the copy."""
    subset: DnsLabel | None = None
    """A subset of the workload that gets the copy."""
    percent: Percent | None = None
    """Share of the requests that is copied. Left out: 100%."""

    RULES = (
        Rule(
            cel="has(self.service) != has(self.subset)",
            holds=lambda mirror: (mirror.service is None) != (mirror.subset is None),
            message="set exactly one of service (of this namespace) and subset",
        ),
    )


class Header(Wire):
    """A header with its value."""

    name: HeaderName
    """Name, in lower case."""
    value: HeaderValue
    """Value; % is not allowed."""


class HeaderEdits(Wire):
    """Edits of headers."""

    set: Named[Header] | None = None
    """Headers replaced, or added where missing."""
    add: Named[Header] | None = None
    """Headers added beside those that exist."""
    remove: SetOf[HeaderName] | None = None
    """Headers taken away."""


class RouteHeaders(Wire):
    """Edits of the headers of a route."""

    request: HeaderEdits | None = None
    """Edits before the request is sent on."""
    response: HeaderEdits | None = None
    """Edits before the answer is sent back."""


class Origin(Wire):
    """Origins of web pages."""

    type: Literal["Exact", "Prefix", "Regex"] | None = None
    """How the Origin header is compared. Left out: Exact."""
    value: MatchText
    """What is compared, for example https://shop.example.com; * with Exact is every origin."""


class Cors(Wire):
    """Which web pages of other origins may call."""

    allow_origins: Annotated[Atomic[Origin], Field(min_length=1)]
    """Origins that may call."""
    allow_methods: SetOf[HttpMethod] | None = None
    """Methods they may use."""
    allow_headers: SetOf[HeaderName] | None = None
    """Request headers they may send."""
    expose_headers: SetOf[HeaderName] | None = None
    """Response headers they may read."""
    max_age: PositiveDuration | None = None
    """How long a browser may keep the answer to its preflight request."""
    credentials: Literal["Allowed", "Denied"] | None = None
    """Whether they may send cookies. Left out: Denied."""

    RULES = (
        Rule(
            cel="!has(self.credentials) || self.credentials != 'Allowed'"
            " || !self.allowOrigins.exists(o, o.value == '*' || o.value == '.*')",
            holds=lambda cors: cors.credentials != "Allowed" or not any(o.value in ("*", ".*") for o in cors.allow_origins),
            message="credentials: Allowed needs named origins: every origin (*) with cookies is refused by browsers",
            field="credentials",
        ),
    )


class Rewrite(Wire):
    """Change of the request before it is sent on."""

    prefix: UrlPath
    """Replaces the matched path prefix (or the whole path, where none matched)."""


class Redirect(Wire):
    """An answer that sends the client elsewhere."""

    path: UrlPath | None = None
    """Path the client is sent to. Left out: the one asked for."""
    host: Host | None = None
    """Host the client is sent to. Left out: the one asked for."""
    code: Literal[301, 302, 303, 307, 308] | None = None
    """Status of the answer. Left out: 301."""

    RULES = (Rule("has(self.path) || has(self.host)", lambda r: bool(r.path or r.host), "set path, host, or both"),)


class Destination(Wire):
    """A share of a route's requests."""

    subset: DnsLabel | None = None
    """Name of a subset. Left out: all pods."""
    weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percentage of the requests. Required with several destinations, which sum to 100."""


def _weights_sum(route: "Route") -> bool:
    weights = [d.weight for d in route.destinations or ()]
    return route.destinations is None or weights == [None] or (None not in weights and sum(w or 0 for w in weights) == 100)


class Route(Wire):
    """One route. Routes are tried in order; a request none matches is answered 404."""

    name: DnsLabel
    """Name of the route."""
    matches: Annotated[Atomic[RouteMatch], Field(max_length=8)] | None = None
    """Alternatives: the route applies when one of them matches. Left out: to every request."""
    rewrite: Rewrite | None = None
    """Change of the path."""
    redirect: Redirect | None = None
    """Answer with a redirect instead of sending the request on."""
    timeout: Duration | None = None
    """Longest duration of a request, all its tries together; 0s is no limit. Left out: spec.traffic.timeout."""
    retries: Retries | None = None
    """Retries of this route. Left out: spec.traffic.retries."""
    fault: Fault | None = None
    """Faults injected on purpose."""
    mirror: Mirror | None = None
    """Copy of the traffic."""
    headers: RouteHeaders | None = None
    """Edits of headers."""
    cors: Cors | None = None
    """Which web pages of other origins may call."""
    destinations: Annotated[Atomic[Destination], Field(min_length=1)] | None = None
    """Where requests go, by weight. Left out: to all pods."""

    RULES = (
        Rule(
            cel="!has(self.destinations) || (self.destinations.size() == 1 && !has(self.destinations[0].weight))"
            " || (self.destinations.all(d, has(d.weight)) && self.destinations.map(d, d.weight).sum() == 100)",
            holds=_weights_sum,
            message="weights must be set on all destinations and sum to 100",
            field="destinations",
        ),
        Rule(
            cel="!has(self.redirect) || (!has(self.destinations) && !has(self.rewrite) && !has(self.mirror) && !has(self.retries)"
            " && !has(self.timeout) && !has(self.fault))",
            holds=lambda r: r.redirect is None or not (r.destinations or r.rewrite or r.mirror or r.retries or r.timeout or r.fault),
            message="a redirect answers itself: remove destinations, rewrite, mirror, retries, timeout and fault",
            field="redirect",
        ),
    )
