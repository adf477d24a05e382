"""Prometheus as a host process, and what feeds it: the metrics exporter, pods by annotation, the kubelet's containers.

It listens on the node's address, which pods and this machine reach and no other machine does; in the cluster it also is
prometheus.monitoring:9090. May touch: the lab's state folder and processes, and the namespace `monitoring`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from lab import paths
from lab.components import binary
from lab.errors import CommandError
from lab.lab import Lab, Step
from lab.processes import http_ok

# Short, so that a broken promise shows within seconds: what users run at 15 to 30 s.
SCRAPE_SECONDS = float(os.environ.get("PERFPOLICY_LAB_SCRAPE_SECONDS", "5"))
# Longer than a day's demo, far shorter than a disk.
_RETENTION = "6h"
_READY_SECONDS = 60.0
NAMESPACE = "monitoring"
# Of the kubelet's hundreds of series per container, the two families the policies are about.
_CONTAINER_SERIES = "container_cpu_usage_seconds_total|container_memory_working_set_bytes"
# Of a sidecar's hundreds of series: certificates, handshakes and connections.
_SIDECAR_SERIES = "istio_agent_cert_expiry_seconds|envoy_listener_(ssl|downstream_cx)_.*"
# A sidecar puts all its series together for every scrape.
_SIDECARS_SECONDS = 15.0


def steps(lab: Lab) -> list[Step]:
    """The steps that bring observation up; they need the API server."""
    return [
        Step("metrics exporter", lambda: _exporter(lab)),
        Step("Prometheus", lambda: _prometheus(lab)),
        Step("rule loader", lambda: _rule_loader(lab)),
    ]


def url(lab: Lab) -> str:
    """Address of the lab's Prometheus, for this machine and for pods."""
    return f"http://{lab.host}:{lab.port('prometheus')}"


def rules_directory(lab: Lab) -> Path:
    """The folder whose *.yaml Prometheus loads as rules; the rule loader owns it."""
    return lab.directory / "prometheus" / "rules"


def scrapes_directory(lab: Lab) -> Path:
    """The folder whose *.yaml Prometheus loads as scrape jobs; the rule loader owns it, too."""
    return lab.directory / "prometheus" / "scrapes"


def query(lab: Lab, promql: str) -> list[dict[str, Any]]:
    """An instant query now; returns the rows of the result ({"metric", "value"}). Raises CommandError when it is refused."""
    return _api(lab, f"query?{urllib.parse.urlencode({'query': promql})}")["result"]  # type: ignore[no-any-return]


def targets(lab: Lab, job: str) -> list[dict[str, Any]]:
    """The active targets of a scrape job, with their health and last error."""
    return [target for target in _api(lab, "targets?state=active")["activeTargets"] if target["labels"]["job"] == job]


def rule_groups(lab: Lab) -> list[dict[str, Any]]:
    """The rule groups Prometheus has loaded, with each rule's health."""
    return list(_api(lab, "rules")["groups"])


def _api(lab: Lab, path: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url(lab)}/api/v1/{path}", timeout=30) as answer:
            return dict(json.load(answer)["data"])
    except urllib.error.HTTPError as error:
        raise CommandError(f"Prometheus answered {error.code} to {path}: {error.read(2000).decode()}") from error


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool, e.g. ("check", "rules", path) or ("test", "rules", path); the caller judges the status."""
    return subprocess.run([binary("promtool"), *arguments], capture_output=True, text=True, check=False)


def config(lab: Lab) -> dict[str, Any]:
    """Prometheus' configuration."""
    kubeconfig = str(lab.kubeconfig)
    return {
        "global": {
            "scrape_interval": f"{SCRAPE_SECONDS:g}s",
            "scrape_timeout": f"{min(SCRAPE_SECONDS, 10):g}s",
            "evaluation_interval": f"{SCRAPE_SECONDS:g}s",
        },
        "rule_files": [str(rules_directory(lab) / "*.yaml")],
        "scrape_config_files": [str(scrapes_directory(lab) / "*.yaml")],
        "scrape_configs": [
            {
                "job_name": "istio-proxies",
                "honor_labels": True,
                "http_sd_configs": [{"url": f"http://127.0.0.1:{lab.port('exporter')}/sd", "refresh_interval": "2s"}],
            },
            _pods_job(kubeconfig),
            _native_job(kubeconfig),
            _sidecars_job(kubeconfig),
            _containers_job(kubeconfig, lab.pki / "admin.token"),
            {"job_name": "lab-exporter", "static_configs": [{"targets": [f"127.0.0.1:{lab.port('exporter')}"]}]},
            {"job_name": "prometheus", "static_configs": [{"targets": [f"{lab.host}:{lab.port('prometheus')}"]}]},
        ],
    }


def _native_job(kubeconfig: str) -> dict[str, Any]:
    """Pods that ask for native histograms, by the annotation's value `native`: a job apart, for istio-agents answer no Protobuf."""
    return {**_pods_job(kubeconfig, "native"), "job_name": "native-pods", "scrape_native_histograms": True}


def _pods_job(kubeconfig: str, asked: str = "true") -> dict[str, Any]:
    """Pods that ask for it by annotation, in plaintext straight at their address: what STRICT mTLS must not break."""
    annotation = "__meta_kubernetes_pod_annotation_prometheus_io_"
    return {
        "job_name": "kubernetes-pods",
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": kubeconfig}],
        "relabel_configs": [
            {"source_labels": [f"{annotation}scrape"], "regex": asked, "action": "keep"},
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running", "action": "keep"},
            # Native sidecars are init containers: each would give the same address a second time.
            {"source_labels": ["__meta_kubernetes_pod_container_init"], "regex": "true", "action": "drop"},
            {"source_labels": [f"{annotation}scheme"], "regex": "(https?)", "target_label": "__scheme__"},
            {"source_labels": [f"{annotation}path"], "regex": "(.+)", "target_label": "__metrics_path__"},
            {
                "source_labels": ["__meta_kubernetes_pod_ip", f"{annotation}port"],
                "separator": ":",
                "regex": r"(.+):(\d+)",
                "target_label": "__address__",
                "replacement": "$1:$2",
            },
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
            {"source_labels": ["__meta_kubernetes_pod_label_app"], "regex": "(.+)", "target_label": "app"},
            {"source_labels": ["__meta_kubernetes_pod_label_version"], "regex": "(.+)", "target_label": "version"},
        ],
        # The agent's own run time is of no use here; it is half of what a sidecar says.
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": "istio_agent_.*", "action": "drop"}],
    }


def _sidecars_job(kubeconfig: str) -> dict[str, Any]:
    """What sidecars say of mutual TLS and of their connections, at the port where Istio's own PodMonitor asks them."""
    return {
        "job_name": "sidecars",
        "scrape_interval": f"{max(SCRAPE_SECONDS, _SIDECARS_SECONDS):g}s",
        "metrics_path": "/stats/prometheus",
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": kubeconfig}],
        "relabel_configs": [
            {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "http-envoy-prom", "action": "keep"},
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running", "action": "keep"},
            {"source_labels": ["__meta_kubernetes_pod_ip"], "target_label": "__address__", "replacement": "$1:15020"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        ],
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": _SIDECAR_SERIES, "action": "keep"}],
    }


def _containers_job(kubeconfig: str, token: Path) -> dict[str, Any]:
    return {
        "job_name": "kubelet",
        "scheme": "https",
        "metrics_path": "/metrics/cadvisor",
        "authorization": {"credentials_file": str(token)},
        "tls_config": {"insecure_skip_verify": True},
        "kubernetes_sd_configs": [{"role": "node", "kubeconfig_file": kubeconfig}],
        "relabel_configs": [{"source_labels": ["__meta_kubernetes_node_name"], "target_label": "node"}],
        "metric_relabel_configs": [
            {"source_labels": ["__name__"], "regex": _CONTAINER_SERIES, "action": "keep"},
            # Cgroups that are no pod's.
            {"source_labels": ["pod"], "regex": "", "action": "drop"},
            {"regex": "id|name", "action": "labeldrop"},
        ],
    }


def _exporter(lab: Lab) -> None:
    listen = f"127.0.0.1:{lab.port('exporter')}"
    _python(lab, "exporter", "--kubeconfig", str(lab.kubeconfig), "--listen", listen, "--pod-logs", str(lab.directory / "pod-logs"))
    lab.supervisor.await_ready("exporter", lambda: http_ok(f"http://{listen}/healthz"), seconds=_READY_SECONDS)


def _prometheus(lab: Lab) -> None:
    folder = lab.directory / "prometheus"
    for loaded in (rules_directory(lab), scrapes_directory(lab)):
        loaded.mkdir(parents=True, exist_ok=True)
    settings = folder / "prometheus.yaml"
    settings.write_text(yaml.safe_dump(config(lab), sort_keys=False))
    command: list[str | Path] = [
        binary("prometheus"),
        f"--config.file={settings}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--storage.tsdb.retention.time={_RETENTION}",
        f"--web.listen-address={lab.host}:{lab.port('prometheus')}",
        "--web.enable-lifecycle",
    ]
    lab.supervisor.start("prometheus", command, settings=[settings])
    lab.supervisor.await_ready("prometheus", lambda: http_ok(f"{url(lab)}/-/ready"), seconds=_READY_SECONDS)
    lab.apply(_in_cluster(lab))


def _in_cluster(lab: Lab) -> list[dict[str, Any]]:
    """prometheus.monitoring:9090 for pods: a Service without selector and its one endpoint on the host."""
    metadata = {"name": "prometheus", "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": "http", "port": 9090, "targetPort": lab.port("prometheus")}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "prometheus"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": lab.port("prometheus")}],
            "endpoints": [{"addresses": [lab.host], "conditions": {"ready": True}}],
        },
    ]


def _rule_loader(lab: Lab) -> None:
    found = {
        "kubeconfig": lab.kubeconfig,
        "directory": rules_directory(lab),
        "scrapes": scrapes_directory(lab),
        "prometheus": url(lab),
        "promtool": binary("promtool"),
    }
    _python(lab, "rule_loader", *(text for name, value in found.items() for text in (f"--{name}", str(value))))


def _python(lab: Lab, module: str, *arguments: str) -> None:
    """Start one of the lab's own daemons, named like its module with a dash; an edit of its sources restarts it."""
    sources = [paths.SOURCE / f"{name}.py" for name in (module, *_IMPORTS[module])]
    lab.supervisor.start(
        module.replace("_", "-"), [sys.executable, "-m", f"lab.{module}", *arguments], settings=sources, cwd=paths.SOURCE.parent
    )


_IMPORTS = {"exporter": ("accesslog", "crilog", "kubewatch"), "rule_loader": ("kubewatch",)}
