"""Istio's standard metrics as a source: which raw series belong to a policy, and which requests are judged.

Measured by the reporter the SLI names. The server's proxy is selected by destination_workload; the client's by destination_service, because
a request that found no healthy upstream carries destination_workload="unknown" and would vanish from the errors.

Offered requests are all the reporter saw. Judged requests leave out what our own limits, faults and protection answered (429, or a response
flag of theirs): those are counted apart and never burn budget, or protection would feed itself. The server's proxy counts every retry
attempt.

What the server's proxy reports is only believed of pods of the policy's own namespace. Clients are everywhere, so whoever can have a pod
scraped can add to what clients report.
"""

from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql.expr import Matcher, Op, Selector
from perfpolicy.promql.scope import code_pattern, there

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


def offered(policy: model.Policy, metric: str = REQUESTS) -> Selector:
    """All requests to the policy's workload that the SLI's reporter saw."""
    common = (Matcher("reporter", Op.EQ, policy.sli.reporter.value), *there(policy))
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
    codes = code_pattern(policy.sli.bad_codes)
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
            *there(policy),
        ),
    )


def _flagged(flags: tuple[str, ...]) -> str:
    """Envoy joins several flags with commas."""
    return f"(.*,)?({'|'.join(flags)})(,.*)?"


def _may_be_grpc(service: model.Service) -> bool:
    """Istio sniffs the protocol of ports it takes for TCP, so only a Service of plain HTTP ports is certainly without gRPC."""
    return any(port.protocol is not model.Protocol.HTTP for port in service.ports)
