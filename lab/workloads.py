"""Manifests of workloads for tests and demos: the lab's backend as a Deployment, and its Service.

Pure: nothing is applied here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lab.backend_control import CONTROL_PORT
from lab.mesh_images import BACKEND

PORT = 8080
METRICS_PORT = 9090


def namespace(name: str, *, injected: bool = True, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A Namespace, by default one whose pods get a sidecar."""
    marks = {"istio-injection": "enabled"} if injected else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**marks, **(labels or {})}}}


def backend(
    name: str,
    namespace: str,
    *,
    version: str = "stable",
    replicas: int = 1,
    upstream: str = "",
    faults: Mapping[str, float | bool] | None = None,
    resources: Mapping[str, Mapping[str, str]] | None = None,
    merge_metrics: bool = True,
) -> dict[str, Any]:
    """A Deployment of the backend, labelled app=`name` and version=`version`; one per version, named `name`-`version`
    except for stable.

    `upstream` is "prefix=url[,…]": paths another service answers. `faults` hold from the start of every pod. With
    `merge_metrics` Istio's agent serves the application's metrics beside Envoy's on 15020 (its default) and rewrites the
    scrape annotations; without it Prometheus asks the metrics port itself.
    """
    labels = {"app": name, "version": version}
    variables = {"SERVICE": name, "VERSION": version, "UPSTREAM": upstream, "FAULTS": json.dumps(dict(faults)) if faults else ""}
    pod_name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    ports = {"http": PORT, "control": CONTROL_PORT, "metrics": METRICS_PORT}
    container = {
        "name": "app",
        "image": BACKEND,
        "imagePullPolicy": "Never",
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "env": [*({"name": key, "value": value} for key, value in variables.items() if value), pod_name],
        "resources": resources or {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": PORT}, "periodSeconds": 2},
        # Endpoints take a moment to leave every proxy: a rollout under load loses nothing.
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 10},
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS_PORT),
        "prometheus.io/path": "/metrics",
        "prometheus.istio.io/merge-metrics": str(merge_metrics).lower(),
        # Faults are switched from outside the mesh, whatever the policies under test say.
        "traffic.sidecar.istio.io/excludeInboundPorts": str(CONTROL_PORT),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name if version == "stable" else f"{name}-{version}", "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": {"containers": [container]}},
        },
    }


def service(name: str, namespace: str) -> dict[str, Any]:
    """The Service over all versions of the backend `name`: 80 for the application, 9090 for its metrics."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "selector": {"app": name},
            "ports": [
                {"name": "http", "port": 80, "targetPort": PORT},
                {"name": "http-metrics", "port": METRICS_PORT, "targetPort": METRICS_PORT},
            ],
        },
    }
