"""Policies measured by something else than Istio, all by the same requests: k6 -> `edge`, an Envoy -> `nu`, the lab's backend.

`edge` is judged by Envoy's own statistics, `nu` by its native histogram, `jobs` by nu's counters, which its PromQL selects; `planned` by
the same, but is in maintenance at first. No sidecars: nothing but the source tells them of a request. nu fails and is slow from its start,
so that each has something to say. `late` has rules that are evaluated a minute late, over the counters of `beta` of the story's own. Bad to
it is an answer that is not: there are too many until beta fails, and then there are more requests than it promised.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from e2e.live_policies import ERROR_EVERY, FAIL_RATIO, FAULT_RATE, RATE, WINDOW_SECONDS
from e2e.policies import API_VERSION
from lab import workloads
from lab.mesh_images import PROXY
from perfpolicy.api.status import wire_time

EDGE, NU, JOBS = SOURCES = ("edge", "nu", "jobs")
PLANNED, LATE = "planned", "late"
NEWBORN = "newborn"
"""What follows `nu`, with the same workload: a policy of its own, whose rules are never written."""
MAINTENANCE: Final = timedelta(seconds=90)
"""How long it lasts after the policies are there: into the first load, well before the end of the run."""
OFFSET = timedelta(minutes=1)
"""How late the rules of `late` are evaluated: far more than three of their intervals, after which a sample is stale."""
_BETA: Final = 'reporter="destination", destination_workload="beta"'
LATENCY_MS = 160
"""Far from the bounds of any bucket that is told: classic (100, 250], native a tenth wide."""
_ADMIN_PORT: Final = 9901
_COUNTERS: Final = {
    "source": "Custom",
    "custom": {"requests": f'http_requests_total{{pod=~"{NU}-.*"}}', "bad": f'http_requests_total{{pod=~"{NU}-.*", code=~"5.."}}'},
}
_METRICS: Final[Mapping[str, Mapping[str, Any]]] = {
    EDGE: {"source": "Envoy", "envoy": {"cluster": NU}},
    NU: {"source": "HTTP", "http": {"histogram": "Native"}},
    JOBS: _COUNTERS,
    PLANNED: _COUNTERS,
    LATE: {
        "source": "Custom",
        "custom": {"requests": f"istio_requests_total{{{_BETA}}}", "bad": f'istio_requests_total{{{_BETA}, response_code="200"}}'},
    },
}


def objects(namespace: str) -> list[dict[str, Any]]:
    """The workloads; those of `jobs`, `planned` and `late` have no pods."""
    faults = {"latency_ms": LATENCY_MS, "error_ratio": FAIL_RATIO}
    nu = workloads.backend(NU, namespace, faults=faults, merge_metrics=False)
    edge, *empty = workloads.backend(EDGE, namespace), *(workloads.backend(name, namespace, replicas=0) for name in (JOBS, PLANNED, LATE))
    for each in (nu, edge):
        each["spec"]["template"]["metadata"]["labels"] |= {"sidecar.istio.io/inject": "false"}
    nu["spec"]["template"]["metadata"]["annotations"] |= {"prometheus.io/scrape": "native"}
    edge["spec"]["template"] |= _envoy(edge["spec"]["template"])
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": EDGE, "namespace": namespace}}
    return [{**settings, "data": {"envoy.json": json.dumps(_bootstrap(namespace))}}, nu, edge, *empty] + [
        workloads.service(name, namespace) for name in (*SOURCES, PLANNED, LATE)
    ]


def policy(name: str, namespace: str, class_name: str) -> dict[str, Any]:
    """A policy of one source; its promises are broken by nu's errors, not by its latency."""
    latency = [{"quantile": "p50", "max": "500ms"}, {"quantile": "p95", "max": "1s"}] if name in (EDGE, NU) else []
    late = name == LATE
    spec = {
        "className": class_name,
        "workload": {"targetRef": {"group": "apps", "kind": "Deployment", "name": name}, "serviceRef": {"name": name}},
        "thresholds": {
            "window": f"{WINDOW_SECONDS}s",
            "latency": latency,
            "errorRate": {"max": f"{100 - 50 / ERROR_EVERY:g}%" if late else "5%"},
            "throughput": {"max": f"{(RATE + FAULT_RATE) / 2:g}" if late else "1000"},
        },
        "objectives": [{"name": "availability", "sli": "Availability", "target": "99.9%", "windowDays": 30}],
        "metrics": dict(_METRICS[name]),
    }
    if name == PLANNED:
        since = timedelta(hours=1)
        window = {"name": "upgrade", "start": wire_time(datetime.now(UTC) - since), "duration": f"{(since + MAINTENANCE).seconds}s"}
        spec["maintenance"] = [window]
    return {"apiVersion": API_VERSION, "kind": "PerformancePolicy", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def newborn(namespace: str, class_name: str) -> dict[str, Any]:
    """A policy of nu's workload that is suspended from its start, so that no rules of it ever reach Prometheus."""
    found = policy(NU, namespace, class_name)
    return {**found, "metadata": {"name": NEWBORN, "namespace": namespace}, "spec": {**found["spec"], "suspend": "All"}}


def _envoy(template: Mapping[str, Any]) -> dict[str, Any]:
    """A pod template with a plain Envoy for a backend, scraped at its admin port."""
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(_ADMIN_PORT), "prometheus.io/path": "/stats/prometheus"}
    container = {
        "name": "app",
        "image": PROXY,
        "imagePullPolicy": "Never",
        "command": ["/usr/local/bin/envoy", "-c", "/etc/edge/envoy.json", "--concurrency", "1", "--log-level", "warn"],
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/edge"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": _ADMIN_PORT}, "periodSeconds": 1},
    }
    spec = {"containers": [container], "volumes": [{"name": "settings", "configMap": {"name": EDGE}}], "terminationGracePeriodSeconds": 1}
    return {"metadata": {"labels": template["metadata"]["labels"], "annotations": annotations}, "spec": spec}


def _bootstrap(namespace: str) -> dict[str, Any]:
    """One listener, one cluster. The request's own ID goes on: the backend's fault is decided by it."""
    http = "envoy.extensions.filters"
    router = {"name": "router", "typed_config": {"@type": f"type.googleapis.com/{http}.http.router.v3.Router"}}
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": NU}}]}
    manager = {
        "@type": f"type.googleapis.com/{http}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [router],
    }
    listener = {
        "name": "http",
        "address": _address("0.0.0.0", workloads.PORT),  # noqa: S104  # in a pod
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoint = {"endpoint": {"address": _address(f"{NU}.{namespace}.svc.cluster.local", 80)}}
    cluster = {
        "name": NU,
        "type": "STRICT_DNS",
        "load_assignment": {"cluster_name": NU, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {
        "admin": {"address": _address("0.0.0.0", _ADMIN_PORT)},  # noqa: S104  # Prometheus asks there
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
