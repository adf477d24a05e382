"""Istio's standard metrics as a source: which raw series belong to a policy, and which requests are judged.

Measured by the reporter the SLI names. The server's proxy is selected by destination_workload; the client's by destination_service, because
a request that found no healthy upstream carries destination_workload="unknown" and would vanish from the errors.

Offered requests are all the reporter saw. Judged requests leave out what our own limits, faults and protection answered (429, or a response
flag of theirs): those are counted apart and never burn budget, or protection would feed itself. The server's proxy counts every retry
attempt.

What the server's proxy reports is only believed of pods of the policy's own namespace. Clients are everywhere, so whoever can have a pod
scraped can add to what clients report.
"""

from bisect import bisect_left, bisect_right
from datetime import timedelta
from decimal import Decimal
from typing import Final

from perfpolicy.policy import model
from perfpolicy.policy.targets import BOUNDS_MS
from perfpolicy.promql.expr import Matcher, Op, Selector, literal_pattern

REQUESTS: Final = "istio_requests_total"
DURATION_BUCKET: Final = "istio_request_duration_milliseconds_bucket"
DURATION_SUM: Final = "istio_request_duration_milliseconds_sum"

# RL, RLSE: rate limited, or the limit service failed; FI, DI: injected abort or delay; UAEX: refused by external authorization.
OWN_FLAGS: Final = ("RL", "RLSE", "FI", "DI", "UAEX")
POOL_OVERFLOW: Final = "UO"
"""Rejected by a connection pool limit; ours only where the policy sets one."""
RESOURCE_EXHAUSTED: Final = "8"
"""The gRPC status our limits answer with."""
OPEN_FLAGS: Final = (POOL_OVERFLOW, "UH")
"""Circuit breaking: pool overflow, or no healthy host left (all ejected)."""
# Pod suffixes use no vowels and no 0, 1, 3 (apimachinery's SafeEncodeString), so `api` never matches a pod of `api-gateway`.
_SAFE: Final = "[bcdfghjklmnpqrstvwxz2456789]"
_GENERATE_NAME_MAX: Final = 58


def offered(policy: model.Policy, metric: str = REQUESTS) -> Selector:
    """All requests to the policy's workload that the SLI's reporter saw."""
    common = (Matcher("reporter", Op.EQ, policy.sli.reporter.value), *_there(policy))
    if policy.sli.reporter is model.Reporter.SOURCE:
        return Selector(metric, (*common, Matcher("destination_service", Op.EQ, policy.service.fqdn)))
    return Selector(
        metric,
        (
            *common,
            Matcher("destination_workload", Op.EQ, policy.workload.name),
            Matcher("destination_workload_namespace", Op.EQ, policy.key.namespace),
            # Set by Prometheus from the pod it scraped; the labels above are whatever that pod says. Any pod can say it is this workload.
            Matcher("namespace", Op.EQ, policy.key.namespace),
        ),
    )


def judged(policy: model.Policy, metric: str = REQUESTS) -> Selector:
    """The offered requests without those our own limits, faults and protection answered."""
    flags = OWN_FLAGS if policy.traffic.connection_pool is None else (*OWN_FLAGS, POOL_OVERFLOW)
    left = offered(policy, metric).where(Matcher("response_code", Op.NE, "429"), Matcher("response_flags", Op.NRE, _flagged(flags)))
    # Over gRPC a rejection is 200 with a status, and only the rate limit's carries a flag, seen by nobody but the rejecting proxy.
    if policy.traffic.proxy.rejects and _may_be_grpc(policy.service):
        left = left.where(Matcher("grpc_response_status", Op.NE, RESOURCE_EXHAUSTED))
    return left


def bad(policy: model.Policy) -> tuple[Selector, ...]:
    """Disjoint selectors of the judged requests that count as errors: bad HTTP codes, and bad gRPC statuses under a good HTTP code."""
    codes = "|".join(code.lower().replace("x", "[0-9]") for code in policy.sli.bad_codes)
    found = [judged(policy).where(Matcher("response_code", Op.RE, codes))] if codes else []
    if policy.sli.grpc_bad_codes and _may_be_grpc(policy.service):
        statuses = "|".join(map(str, policy.sli.grpc_bad_codes))
        apart = (Matcher("response_code", Op.NRE, codes),) if codes else ()
        found.append(
            judged(policy).where(Matcher("request_protocol", Op.EQ, "grpc"), Matcher("grpc_response_status", Op.RE, statuses), *apart)
        )
    return tuple(found)


def circuit_open(policy: model.Policy) -> Selector:
    """Requests the clients' proxies refused because the circuit was open; always source-reported, for the server never saw them."""
    return Selector(
        REQUESTS,
        (
            Matcher("reporter", Op.EQ, model.Reporter.SOURCE.value),
            Matcher("destination_service", Op.EQ, policy.service.fqdn),
            Matcher("response_flags", Op.RE, _flagged(OPEN_FLAGS)),
            *_there(policy),
        ),
    )


def containers(policy: model.Policy, metric: str) -> Selector:
    """cAdvisor series of the workload's application container, one or more per pod."""
    return Selector(
        metric,
        (
            Matcher("namespace", Op.EQ, policy.key.namespace),
            Matcher("pod", Op.RE, _pod_pattern(policy.workload)),
            Matcher("container", Op.EQ, policy.workload.container),
            *_there(policy),
        ),
    )


def recorded_bounds(policy: model.Policy) -> tuple[Decimal, ...]:
    """The bucket bounds (ms) worth recording, ascending, without +Inf.

    From the bound below a tenth of the smallest latency limit (a health check's worth of detail) to the bound above ten times the largest
    (a quantile beyond the last bound reads as that bound, and P0 starts above ten times the limit), and the bounds that objectives and the
    slow-request limit need.
    """
    limits = [Decimal(_ms(limit.maximum)) for limit in policy.thresholds.latency] or [Decimal(_ms(policy.metrics.slow_request))]
    low, high = min(limits) / 10, max(limits) * 10
    first = max(bisect_left(BOUNDS_MS, low + 1) - 1, 0)
    last = bisect_right(BOUNDS_MS, high)
    wanted = set(BOUNDS_MS[first : last + 1])
    wanted |= {bound_at_least(objective.threshold) for objective in policy.objectives if objective.threshold is not None}
    wanted.add(bound_at_least(policy.metrics.slow_request))
    return tuple(sorted(wanted))


def bound_at_least(limit: timedelta) -> Decimal:
    """The smallest bucket bound (ms) not below `limit`: a request beyond it is certainly slower. The last bound where none is left."""
    index = min(bisect_left(BOUNDS_MS, Decimal(_ms(limit))), len(BOUNDS_MS) - 1)
    return BOUNDS_MS[index]


def interval(policy: model.Policy, value_ms: float) -> tuple[Decimal, Decimal | None]:
    """The recorded bucket (lower, upper] in ms that a quantile was interpolated in; upper None is +Inf."""
    bounds = (Decimal(0), *recorded_bounds(policy))
    index = bisect_left(bounds, Decimal(repr(value_ms)))
    if index >= len(bounds):
        return bounds[-1], None
    return bounds[max(index - 1, 0)], bounds[max(index, 1)]


def bound_matcher(*bounds: Decimal, infinite: bool = False) -> Matcher:
    """Matches `le` in both spellings: "500" (as Istio writes it) and "500.0" (as Prometheus 3 stores it)."""
    spellings = [text for bound in bounds for text in (f"{bound:f}", f"{bound:.1f}")]
    patterns = [literal_pattern(text) for text in dict.fromkeys(spellings)] + (["\\+Inf"] if infinite else [])
    return Matcher("le", Op.RE, "|".join(patterns))


def _there(policy: model.Policy) -> tuple[Matcher, ...]:
    """The class's matchers, or their labels absent: a Prometheus of one cluster does not put its external labels on what it scrapes, while
    one of several clusters holds series of the others beside ours.
    """
    return tuple(
        Matcher(label, Op.RE, f"{literal_pattern(value)}|") if value else Matcher(label, Op.EQ, "")
        for label, value in policy.metrics.provider.matchers
    )


def _ms(value: timedelta) -> int:
    return value // timedelta(milliseconds=1)


def _flagged(flags: tuple[str, ...]) -> str:
    """Envoy joins several flags with commas."""
    return f"(.*,)?({'|'.join(flags)})(,.*)?"


def _may_be_grpc(service: model.Service) -> bool:
    """Istio sniffs the protocol of ports it takes for TCP, so only a Service of plain HTTP ports is certainly without gRPC."""
    return any(port.protocol is not model.Protocol.HTTP for port in service.ports)


def _pod_pattern(workload: model.Workload) -> str:
    name = literal_pattern(workload.name)
    if workload.kind == "StatefulSet":
        return f"{name}-[0-9]+"
    if workload.kind == "DaemonSet":
        if len(workload.name) + 1 <= _GENERATE_NAME_MAX:
            return f"{name}-{_SAFE}{{5}}"
    elif len(workload.name) + 12 <= _GENERATE_NAME_MAX:
        return f"{name}-{_SAFE}{{1,10}}-{_SAFE}{{5}}"
    # The API server cuts a generated name's base, hash and all.
    return f"{literal_pattern(workload.name[: _GENERATE_NAME_MAX - 1])}.*"
