"""What the pods' own proxies say of mutual TLS: how long their certificates are valid, and how many connections fail.

Certificates: Istio's agent says of the workload's own (`resource_name="default"`) how many seconds it has left. Envoy's own
`server.days_until_first_cert_expiring` counts whole days, and a workload certificate lives one. Nobody says how long it was made for; the
most seconds it had in the last three weeks do. Looked at once a day: a quarter of it is a quarter of the life of what lives four weeks, and
seven days for what lives longer. Looked at once an hour, in the last day: the same for what lives hours.

Handshakes: Envoy counts them per listener, and Istio's bootstrap keeps no listener's counters unless the pod asks (`STATS_MATCHER`).
"""

import json
from datetime import timedelta
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql.expr import Expr, Matcher, Op, aggregate, call
from perfpolicy.promql.scope import of_pods

CERTIFICATE_LEFT: Final = "istio_agent_cert_expiry_seconds"
"""Seconds until a certificate of a proxy expires, by `resource_name`."""
HANDSHAKES: Final = "envoy_listener_ssl_handshake"
"""Connections whose callers were authenticated."""
FAILURES: Final = (
    "envoy_listener_ssl_connection_error",
    "envoy_listener_ssl_fail_verify_error",
    "envoy_listener_ssl_fail_verify_no_cert",
    "envoy_listener_ssl_fail_verify_san",
)
"""Connections that failed: in the protocol (expired, unknown authority: the caller hangs up), by the caller's certificate, without one, by
its name. Envoy counts each in one of them."""
CONNECTIONS: Final = "envoy_listener_downstream_cx_active"

_INBOUND: Final = Matcher("listener_address", Op.RE, ".*_15006")
"""The listener of everything that comes to a sidecar."""
_COUNTERS: Final = r"(ssl\.(handshake|connection_error|fail_verify_(error|no_cert|san))|downstream_cx_active)"
STATS_MATCHER: Final = (
    "proxy.istio.io/config",
    json.dumps({"proxyStatsMatcher": {"inclusionRegexps": [rf"listener\..*_15006\.{_COUNTERS}"]}}),
)
"""The annotation of a pod whose proxy keeps these counters: six series a pod."""


def certificate_left(policy: model.Policy) -> Expr:
    """Seconds each certificate of each pod has left."""
    return of_pods(policy, CERTIFICATE_LEFT).instant()


def certificate_lifetimes(policy: model.Policy) -> tuple[Expr, Expr]:
    """What each certificate was made for, in seconds, as far as its pod is known: of those that live days, and of those that live hours."""
    left = certificate_left(policy)
    ways = ((timedelta(days=21), timedelta(days=1)), (timedelta(days=1), timedelta(hours=1)))
    days, hours = (call("max_over_time", left.sampled(window, every)) for window, every in ways)
    return days, hours


def handshakes(policy: model.Policy, window: timedelta) -> Expr:
    """Connections in `window` whose callers were authenticated."""
    return _counted(policy, HANDSHAKES, window)


def failed_handshakes(policy: model.Policy, window: timedelta) -> Expr:
    """Connections in `window` that failed before."""
    total, *more = (_counted(policy, metric, window) for metric in FAILURES)
    for each in more:
        total = total + each
    return total


def connections(policy: model.Policy) -> Expr:
    """Open connections to each pod."""
    return aggregate("max", of_pods(policy, CONNECTIONS, _INBOUND).instant(), ("pod",))


def _counted(policy: model.Policy, metric: str, window: timedelta) -> Expr:
    """Once for each pod, whatever number of jobs scrapes it."""
    return aggregate("sum", aggregate("max", call("increase", of_pods(policy, metric, _INBOUND).over(window)), ("pod",)))
