"""Takes the spans that the mesh's proxies report, and gives them back by trace: the backend, as Zipkin's API has it.

The mesh knows it as the extension provider PROVIDER; it is nobody's default, so proxies report only where a Telemetry
says so. May touch: the namespace `tracing`.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from lab.backend_control import pod_addresses
from lab.lab import Lab, Step
from lab.mesh_images import BACKEND
from lab.workloads import PORT as APPLICATION
from lab.workloads import namespace

NAMESPACE = "tracing"
PROVIDER = "zipkin"
PORT = 9411
_LABELS = {"app": PROVIDER}


def steps(lab: Lab) -> list[Step]:
    """The step that brings it up; it needs the mesh's images."""
    return [Step("trace receiver", lambda: _up(lab))]


def provider() -> dict[str, Any]:
    """How the mesh's configuration speaks of it."""
    return {"name": PROVIDER, "zipkin": {"service": f"{PROVIDER}.{NAMESPACE}.svc.cluster.local", "port": PORT}}


def spans(lab: Lab, trace: str) -> list[dict[str, Any]]:
    """What was reported of a trace, in Zipkin's form; proxies report every 5 s, or after 5 spans."""
    (address,) = pod_addresses(lab, NAMESPACE, f"app={PROVIDER}").values()
    request = urllib.request.Request(f"http://{address}:{PORT}/api/v2/trace/{trace}")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
        return list(json.load(answer))


def _up(lab: Lab) -> None:
    container = {
        "name": PROVIDER,
        "image": BACKEND,
        "imagePullPolicy": "Never",
        "env": [{"name": "SERVICE", "value": PROVIDER}, {"name": "ZIPKIN_PORT", "value": str(PORT)}],
        "ports": [{"name": "http-zipkin", "containerPort": PORT}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": APPLICATION}, "periodSeconds": 1},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": PROVIDER, "namespace": NAMESPACE, "labels": _LABELS},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": {"containers": [container]}},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": PROVIDER, "namespace": NAMESPACE, "labels": _LABELS},
        "spec": {"selector": _LABELS, "ports": [{"name": "http-zipkin", "port": PORT}]},
    }
    lab.apply([namespace(NAMESPACE, injected=False), deployment, service])
    lab.wait_available(NAMESPACE, PROVIDER)
