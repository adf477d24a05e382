"""Synthetic raw series of the workload in tests/builders.py, as Istio and cAdvisor name them."""

from perfpolicy.policy import model
from perfpolicy.policy.sources import ISTIO_BOUNDS_MS
from perfpolicy.promql import istio
from tests.promql.promtool import counter

POD = "operation-service-7d9f8c6b5-x2x4z"


def requests(code: str = "200", flags: str = "-", reporter: str = "destination", **labels: str) -> str:
    """One istio_requests_total series."""
    return _istio(istio.REQUESTS, code, flags, reporter, **labels)


def histogram(shares: dict[float, float], per_second: float, minutes: float, mean_ms: float = 50, code: str = "200") -> dict[str, str]:
    """The latency histogram of `per_second` requests: share of requests up to each bound (ms), in Prometheus 3's spelling of le."""
    found = {}
    for bound in ISTIO_BOUNDS_MS:
        share = max((value for upper, value in shares.items() if upper <= bound), default=0.0)
        found[_istio(istio.DURATION_BUCKET, code, "-", "destination", le=f"{bound:.1f}")] = counter(share * per_second, minutes)
    found[_istio(istio.DURATION_BUCKET, code, "-", "destination", le="+Inf")] = counter(per_second, minutes)
    found[_istio(istio.DURATION_SUM, code, "-", "destination")] = counter(mean_ms * per_second, minutes)
    return found


def container(metric: str, pod: str = POD, **labels: str) -> str:
    """One cAdvisor series of the application container."""
    return _text(metric, {"namespace": "ce-hub", "pod": pod, "container": "operation-service", **labels})


def proxy(metric: str, pod: str = POD, **labels: str) -> str:
    """One series of a pod's own proxy, as its agent serves it."""
    return _text(metric, {"namespace": "ce-hub", "pod": pod, "job": "kubernetes-pods", **labels})


def inbound(metric: str, **labels: str) -> str:
    """One series of the proxy's listener for what comes to the pod."""
    return proxy(metric, **{"listener_address": "0.0.0.0_15006", **labels})


def recorded(policy: model.Policy, series: str, **labels: str) -> str:
    """One recorded series of a policy."""
    identity = {"policy": policy.key.name, "policy_namespace": policy.key.namespace, "policy_uid": policy.identity.uid}
    return _text(series, {**identity, **labels})


def labels_of(policy: model.Policy, **labels: str) -> str:
    """The labels of a recorded series, without its name."""
    return recorded(policy, "", **labels)


def _istio(metric: str, code: str, flags: str, reporter: str, **labels: str) -> str:
    base = {
        "reporter": reporter,
        "destination_workload": "operation-service",
        "destination_workload_namespace": "ce-hub",
        "namespace": "ce-hub",
        "destination_service": "operation-service.ce-hub.svc.cluster.local",
        "request_protocol": "http",
        "response_code": code,
        "response_flags": flags,
        "grpc_response_status": "",
        "pod": POD,
        "job": "istio-proxies",
        "instance": "10.0.0.1:15020",
    }
    return _text(metric, {**base, **labels})


def _text(metric: str, labels: dict[str, str]) -> str:
    return metric + "{" + ", ".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}"
