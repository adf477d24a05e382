"""The class and the policies of the live-status tests, scaled to two cores: five-second rules, a window of three of them."""

import hashlib
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

from e2e.policies import API_VERSION
from lab.backend_control import CONTROL_PORT
from lab.load import Target
from lab.mesh_images import BACKEND
from lab.workloads import METRICS_PORT

RULE_SECONDS, WINDOW_SECONDS = 5, 15
RATE, FAULT_RATE = 30.0, 50.0
"""Requests/s to each policy; FAULT_RATE to `beta` while its promises are broken: above its throughput minimum, which RATE is below."""
LATENCY_MS, MEMORY_MIB, CPU_BURN_MS = 550, 84, 9
"""550 ms: against p50 100 ms 5.5 times, p95 500 ms 1.1 times, p99 2 s kept. 84 of 128 MiB: above 60 %, far
enough from being killed for it. 9 ms at FAULT_RATE: 90 % of 500m; the limit of 20 % is passed long before a range of 45 s is full."""
ERROR_EVERY = 5
"""One request in so many fails: 20 % against a limit of 5 %."""
FAIL_RATIO = 0.5
"""The fault's own setting. Who fails is decided by X-Request-ID, and only two IDs are ever sent, so the share is exactly 1/ERROR_EVERY."""
ISTIO: Final[Mapping[str, Any]] = {"source": "Istio"}
APPLICATION: Final[Mapping[str, Any]] = {"source": "HTTP", "http": {}}


def live_class(name: str, namespace: str, address: str, **more: str) -> dict[str, Any]:
    """A class for one namespace whose metrics are at `address`; `more` of its metrics."""
    metrics = {"address": address, "timeout": "3s", "scrapeInterval": "5s", "ruleInterval": f"{RULE_SECONDS}s", **more}
    grants = [{"name": "all", "workloadCreation": "Allowed", "customMetrics": "Allowed"}]
    spec = {"allowedNamespaces": {"names": [namespace]}, "grants": grants, "metrics": metrics}
    return {"apiVersion": API_VERSION, "kind": "PerformanceClass", "metadata": {"name": name}, "spec": spec}


def live_policy(
    name: str,
    namespace: str,
    class_name: str,
    latency: Mapping[str, str],
    throughput: Mapping[str, str],
    cpu: str = "70%",
    source: Mapping[str, Any] = ISTIO,
) -> dict[str, Any]:
    """A policy with every kind of target, and the one pod it measures."""
    workload = {
        "image": BACKEND,
        "replicas": 1,
        "ports": [{"name": "http", "port": 8080}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
        "probes": {"readiness": {"path": "/readyz", "period": "1s"}},
        # Makes Go collect while the fault holds memory (or the pod would be killed for its garbage), and soon after it lets go.
        "env": [{"name": "SERVICE", "value": name}, {"name": "GOMEMLIMIT", "value": "88MiB"}],
        "template": {
            "metadata": {
                "annotations": {
                    "traffic.sidecar.istio.io/excludeInboundPorts": str(CONTROL_PORT),
                    "prometheus.io/scrape": "true",
                    "prometheus.io/port": str(METRICS_PORT),
                }
            },
            "spec": {"containers": [{"name": "app", "imagePullPolicy": "Never"}], "terminationGracePeriodSeconds": 1},
        },
    }
    spec = {
        "className": class_name,
        "workload": {"deployment": workload},
        "service": {"port": 80},
        "thresholds": {
            "window": f"{WINDOW_SECONDS}s",
            "latency": [{"quantile": quantile, "max": limit} for quantile, limit in latency.items()],
            "errorRate": {"max": "5%"},
            "throughput": dict(throughput),
            "resources": {"cpu": cpu, "memory": "60%"},
        },
        "objectives": [{"name": "availability", "sli": "Availability", "target": "99.9%", "windowDays": 30}],
        "metrics": dict(source),
    }
    return {"apiVersion": API_VERSION, "kind": "PerformancePolicy", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def targets(name: str, namespace: str) -> list[Target]:
    """Requests to a policy's Service, one in ERROR_EVERY with the ID that the error fault picks."""
    url = f"http://{name}.{namespace}/"
    good, bad = _request_id(fails=False), _request_id(fails=True)
    return [
        Target(url, {"X-Request-Id": good}, weight=ERROR_EVERY - 1),
        Target(url, {"X-Request-Id": bad}),
    ]


def _request_id(fails: bool) -> str:
    """An ID that the backend's error fault picks at FAIL_RATIO, or not: as lab/backend/faults.go decides."""
    for number in count():
        name = f"e2e-{number}"
        share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
        if (share < FAIL_RATIO) is fails:
            return name
    raise AssertionError("count() ended")


def forged_rules(namespace: str, policies: Mapping[str, str], victims_namespace: str, diluted: str) -> dict[str, Any]:
    """A PrometheusRule of another namespace that says all is well in the name of `policies` (name -> uid); requests
    only in the name of `diluted`, for they stay in the budget's long window.

    Final values and the steps they are summed from; once with a UID of nobody, and once with the victim's own UID and one more label:
    without it their samples would lie among the victim's own. A bucket needs no more label, its bound is one: "10.0" is not "10".
    """
    values: dict[str, tuple[str, dict[str, str]]] = {
        "perfpolicy:errors:ratio": ("vector(0)", {}),
        "perfpolicy:latency_seconds:quantile": ("vector(0.001)", {"quantile": "0.5"}),
        "perfpolicy:judged:step": ("vector(100000)", {}),
        "perfpolicy:errors:step": ("vector(0)", {}),
        "perfpolicy:duration_milliseconds_bucket:step": ("vector(100000)", {"le": "10"}),
    }
    rules = []
    for name, uid in policies.items():
        identity = {"policy": name, "policy_namespace": victims_namespace}
        for series, (expression, labels) in values.items():
            if series in ("perfpolicy:judged:step", "perfpolicy:errors:step") and name != diluted:
                continue
            rules.append({"record": series, "expr": expression, "labels": {**identity, **labels, "policy_uid": "forged"}})
            rules.append({"record": series, "expr": expression, "labels": {**identity, **labels, "policy_uid": uid, "forged": "1"}})
        for bound in ("7", "10.0"):
            labels = {**identity, "policy_uid": uid, "le": bound}
            rules.append({"record": "perfpolicy:duration_milliseconds_bucket:step", "expr": "vector(100000)", "labels": labels})
    group = {"name": "forged", "interval": f"{RULE_SECONDS}s", "rules": rules}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "forged", "namespace": namespace},
        "spec": {"groups": [group]},
    }
