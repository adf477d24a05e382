"""Brings up a real Istio on the lab's node: istiod, sidecar injection, an ingress gateway; then what observes it.

Charts and CRDs are Istio's own, read from its Go module. What differs from a user's mesh is only what a vanilla Envoy
forces: it has neither Istio's metadata exchange nor istio.stats, so both are off and metrics come from the access logs
(see accesslog.py). May touch: the lab's cluster.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab import mesh_images, prometheus, tracing
from lab.accesslog import FORMAT
from lab.components import binary, module_dir
from lab.errors import CommandError
from lab.lab import Lab, Step

SYSTEM = "istio-system"
INGRESS = "istio-ingress"  # Deployment, Service and ServiceAccount of the gateway; its pods carry the label istio=ingress
GATEWAY = "public"  # the admin's Gateway object, in SYSTEM
INGRESS_NODE_PORT = 30080
_CHARTS = "manifests/charts"


def steps(lab: Lab) -> list[Step]:
    """The steps that bring mesh and observation up."""
    return [
        *prometheus.steps(lab),
        Step("mesh images", lambda: mesh_images.import_all(lab)),
        *tracing.steps(lab),
        Step("Gateway API definitions", lambda: _gateway_api(lab)),
        Step("istiod", lambda: _istiod(lab)),
        Step("ingress gateway", lambda: _ingress(lab)),
    ]


def environment(lab: Lab) -> dict[str, str]:
    """What `lab env` prints for mesh and observation."""
    return {
        "PERFPOLICY_PROMETHEUS_URL": prometheus.url(lab),
        "PERFPOLICY_LAB_INGRESS_URL": f"http://{lab.host}:{INGRESS_NODE_PORT}",
    }


def istio_charts() -> Path:
    """The folder with Istio's charts, in its Go module."""
    return module_dir("istio", "istio.io/istio") / _CHARTS


def istiod_values() -> dict[str, Any]:
    """Values for Istio's istiod chart: one small replica, JSON access logs in FORMAT, and what a vanilla Envoy needs."""
    return {
        "autoscaleEnabled": False,
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "telemetry": {"enabled": False},
        "env": {
            # Istio's own filters, which only Istio's build of Envoy has.
            "PILOT_ENABLE_METADATA_EXCHANGE": "false",
            "PILOT_DISABLE_MX_ALPN": "true",
            "PILOT_ENABLE_ALPN_FILTER": "false",
        },
        "global": {
            "hub": "localhost",
            "tag": "lab",
            "imagePullPolicy": "Never",
            # Analysis messages in the status of Istio's objects; off in most users' clusters.
            "istiod": {"enableAnalysis": True},
            "defaultPodDisruptionBudget": {"enabled": False},
            # Requests are small so that dozens of pods fit on a laptop; limits are the chart's.
            "proxy": {"resources": {"requests": {"cpu": "10m", "memory": "40Mi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}}},
        },
        "meshConfig": {
            "accessLogFile": "/dev/stdout",
            "accessLogEncoding": "JSON",
            "accessLogFormat": json.dumps(dict(FORMAT)),
            "defaultProviders": {"metrics": []},
            "extensionProviders": [tracing.provider()],
        },
    }


def ingress_values() -> dict[str, Any]:
    """Values for Istio's gateway chart."""
    ports = [
        {"name": "status-port", "port": 15021, "protocol": "TCP", "targetPort": 15021},
        {"name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": INGRESS_NODE_PORT},
    ]
    return {
        "service": {"type": "NodePort", "ports": ports},
        "imagePullPolicy": "Never",
        "autoscaling": {"enabled": False},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        # The shortest the probe of a laptop's gateway needs; the chart's own waits 15 s between two.
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1, "failureThreshold": 30},
    }


def public_gateway() -> dict[str, Any]:
    """The admin's Gateway that policies may be granted: plain HTTP on port 80 for any host."""
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": GATEWAY, "namespace": SYSTEM},
        "spec": {"selector": {"istio": "ingress"}, "servers": [server]},
    }


def analyze(lab: Lab, namespace: str | None = None) -> list[dict[str, Any]]:
    """The findings of `istioctl analyze` on a namespace, or on all: code, level (Error, Warning, Info), message, origin.

    Raises CommandError when istioctl itself failed.
    """
    scope = ["--namespace", namespace] if namespace else ["--all-namespaces"]
    command: list[str | Path] = [binary("istioctl"), "analyze", *scope, "--kubeconfig", lab.kubeconfig, "--output", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    # Findings of level Error end it with a status of their own; only what prints no list has failed.
    if not ran.stdout.lstrip().startswith("["):
        raise CommandError(f"istioctl analyze ended with {ran.returncode}: {ran.stderr[-2000:].strip()}")
    return list(json.loads(ran.stdout))


def complaints(lab: Lab, namespace: str) -> list[dict[str, Any]]:
    """The findings of `analyze` that are Errors or Warnings, without the one istioctl has for every EnvoyFilter there is."""
    inherent = "EnvoyFilter exposes internal implementation details"
    return [each for each in analyze(lab, namespace) if each["level"] != "Info" and inherent not in each["message"]]


def _gateway_api(lab: Lab) -> None:
    folder = module_dir("istio", "sigs.k8s.io/gateway-api") / "config/crd/standard"
    text = "\n---\n".join(path.read_text() for path in sorted(folder.glob("*.yaml")))
    _once(lab, "gateway-api", text, "crd/httproutes.gateway.networking.k8s.io", lambda: lab.apply(text))


def _istiod(lab: Lab) -> None:
    charts = istio_charts()
    definitions = yaml.load_all((charts / "base/files/crd-all.gen.yaml").read_text(), Loader=yaml.CSafeLoader)
    # The core has applied them server-side; helm refuses to install what it does not own.
    excluded = sorted(each["metadata"]["name"] for each in definitions)
    validator = "validatingwebhookconfiguration/istiod-default-validator"
    _release(lab, "istio-base", charts / "base", {"base": {"excludedCRDs": excluded}}, validator)
    _release(lab, "istiod", charts / "istio-control/istio-discovery", istiod_values(), "deployment/istiod")
    lab.wait_available(SYSTEM, "istiod")


def _ingress(lab: Lab) -> None:
    _release(lab, INGRESS, istio_charts() / "gateway", ingress_values(), f"deployment/{INGRESS}")
    lab.apply([public_gateway()])
    lab.wait_available(SYSTEM, INGRESS)


def _release(lab: Lab, name: str, chart: Path, values: Mapping[str, Any], witness: str) -> None:
    text = yaml.safe_dump(dict(values))
    command = ["upgrade", "--install", name, str(chart), "--namespace", SYSTEM, "--create-namespace", "--values", "-"]
    _once(lab, f"helm-{name}", f"{chart}\n{text}", witness, lambda: lab.helm(*command, input=text))


def _once(lab: Lab, name: str, content: str, witness: str, act: Callable[[], object]) -> None:
    """Run `act` unless it already succeeded in this lab with the same `content` and the object `witness` is still there.

    A second `up` is then a matter of seconds, and one after something was deleted repairs it.
    """
    record = lab.directory / "applied" / name
    digest = hashlib.sha256(content.encode()).hexdigest()
    same = record.exists() and record.read_text() == digest
    if same and lab.kubectl("-n", SYSTEM, "get", witness, "--ignore-not-found", "-o", "name"):
        return
    act()
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(digest)
