"""What the proxies of the workload's own pods do beyond Istio's API: rate limits, a concurrency cap, response headers, compression.

Envoy's own filters, placed right before the router: behind authorization, so that what is refused spends nobody's tokens. Only on the
application's ports, so that scraping the metrics port spends none either, and only on the pods of the workloadSelector.

A global limit travels with each request: the descriptor names the policy, and its figures are the descriptor's limit override, which Envoy
reads from metadata that the filter before it puts there. So the rate limit service is configured once, with a domain and no limits, and
what a policy asks for stays in its namespace. A counter's key begins with the policy's namespace and name, neither of which can have a `/`
or a `_`, so no value of a header reaches the counters of another policy.

The fixed concurrency cap is Envoy's adaptive_concurrency with equal bounds, which leaves nothing to adapt: of Envoy's limits of requests at
once it is the one that answers 429 and can be set by a filter (Istio fills the circuit breaker of the inbound cluster itself, and Envoy
reads the first).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any, Final

from perfpolicy.policy.model import MatchKind, Policy, Protocol, RateLimit, StringMatch
from perfpolicy.render.manifest import Child, ChildKind, used
from perfpolicy.render.ports import http_ports, targets
from perfpolicy.units import milliseconds

ADDRESS: Final = "remote_address"
"""The key of a descriptor's entry is Envoy's own for an address. Those below cannot meet a header's, which has a / in it."""
ROUTE: Final = "route"
WITHOUT: Final = "without"
POLICY: Final = "policy"
DOMAIN: Final = "perfpolicy"
"""The rate limit service's name for what all policies count."""
ALL: Final = "*"
"""Name of the limit of all requests among its metadata, beside those of routes, which cannot have a *."""
_UNITS: Final = {timedelta(seconds=1): "SECOND", timedelta(minutes=1): "MINUTE", timedelta(hours=1): "HOUR", timedelta(days=1): "DAY"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a descriptor and the action that fills it: `value` where `matchers` match, the value of `header`, or the address."""

    key: str
    value: str | None = None
    header: str | None = None
    matchers: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is counted for itself: a token bucket, or a counter of the rate limit service, for every distinct descriptor."""

    entries: tuple[Entry, ...]
    limit: RateLimit

    @property
    def figures(self) -> str:
        """Where the metadata have the limit's figures."""
        return _figures_name(self.limit)


def build(policy: Policy) -> tuple[Child, ...]:
    """One EnvoyFilter for the workload's pods where anything of it is asked for."""
    proxy, ports = policy.traffic.proxy, http_ports(policy.service)
    headers = tuple(_headers(policy))
    if not ports or not (proxy.rejects or headers or proxy.compress_from):
        return ()
    counted = proxy.global_limits
    shared = next((limit for limit in proxy.rate_limits if not limit.name and not limit.clients), None)
    values = {
        "selector": policy.workload.selector,
        "ports": targets(ports),
        "limits": proxy.rate_limits,
        "shared": shared,
        "buckets": tuple(bucket for limit in proxy.rate_limits if limit is not shared for bucket in _buckets(limit)),
        "counted": counted,
        "domain": DOMAIN,
        "cluster": f"outbound|{counted.service.port}||{counted.service.host}" if counted else "",
        "figures": {_figures_name(limit): _figures(limit) for limit in counted.limits} if counted else {},
        "global_buckets": tuple(bucket for limit in counted.limits for bucket in _global_buckets(policy, limit)) if counted else (),
        "retry_after": str(max(map(_seconds_to_a_token, proxy.rate_limits), default=1)),
        "concurrency": proxy.concurrency,
        "grpc": any(port.protocol is Protocol.GRPC for port in ports),
        "headers": headers,
        "compress_from": proxy.compress_from,
    }
    return (Child(policy.key.name, values),)


def _buckets(limit: RateLimit) -> Iterator[Bucket]:
    """One, and one for each combination of headers a request may lack: Envoy makes no descriptor, and so no limit, of a missing header."""
    route = (Entry(ROUTE, limit.name, matchers=tuple(_matchers(limit))),) if limit.name else ()
    for entries in product(*map(_of_client, limit.clients)):
        yield Bucket((*route, *entries), limit)


def _global_buckets(policy: Policy, limit: RateLimit) -> Iterator[Bucket]:
    """The same, counted under the policy's name."""
    for bucket in _buckets(limit):
        yield Bucket((Entry(POLICY, str(policy.key)), *bucket.entries), limit)


def _figures_name(limit: RateLimit) -> str:
    return limit.name or ALL


def _figures(limit: RateLimit) -> dict[str, Any]:
    """A limit as Envoy reads overrides from metadata."""
    return {"requests_per_unit": limit.requests, "unit": _UNITS[limit.per]}


def _of_client(header: str | None) -> tuple[Entry, ...]:
    if header is None:
        return (Entry(ADDRESS),)
    absent = {"name": header, "present_match": True, "invert_match": True}
    return (Entry(f"header/{header}", header=header), Entry(WITHOUT, header, matchers=(absent,)))


def _matchers(limit: RateLimit) -> Iterable[dict[str, Any]]:
    if limit.path is not None:
        yield {"name": ":path", "string_match": _path(limit.path)}
    if limit.method is not None:
        yield {"name": ":method", "string_match": {"exact": limit.method}}


def _path(match: StringMatch) -> dict[str, Any]:
    """Envoy's :path carries the query."""
    if match.kind is MatchKind.PREFIX:
        return {"prefix": match.value}
    expression = re.escape(match.value) if match.kind is MatchKind.EXACT else f"(?:{match.value})"
    return {"safe_regex": {"regex": f"{expression}(\\?.*)?"}}


def _seconds_to_a_token(limit: RateLimit) -> int:
    """Envoy fills buckets evenly, not all at once at the end of `per`; rounded up, because Retry-After knows whole seconds only."""
    return -(-milliseconds(limit.per) // (1000 * limit.requests))


def _headers(policy: Policy) -> Iterator[tuple[str, str]]:
    """Names and values; what is between % is filled in by Envoy, and a header whose value comes out empty is not sent."""
    headers = policy.traffic.proxy.response_headers
    if headers is None:
        return
    if headers.request_id:
        yield "x-request-id", "%REQ(X-REQUEST-ID)%"
    if headers.response_time:
        yield "x-response-time", "%RESPONSE_DURATION%"
    if headers.security:
        yield "x-content-type-options", "nosniff"
        yield "x-frame-options", "DENY"
    if headers.hsts is not None:
        yield "strict-transport-security", f"max-age={milliseconds(headers.hsts) // 1000}; includeSubDomains"


KIND = ChildKind(
    group="networking.istio.io",
    version="v1alpha3",
    kind="EnvoyFilter",
    plural="envoyfilters",
    template="envoy_filter.yaml.j2",
    build=build,
    asked=(
        f"has(spec.traffic) && ({used('spec.traffic.rateLimit')} || {used('spec.traffic.concurrency')}"
        f" || {used('spec.traffic.responseHeaders')} || {used('spec.traffic.compression')})"
    ),
    asked_by="spec.traffic.rateLimit, concurrency, responseHeaders or compression",
)
