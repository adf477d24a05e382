"""Charts rendered by the lab's helm: no cluster, and no repository is asked."""

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfpolicy import yaml_text
from tests import lab_tools

ROOT: Final = Path(__file__).resolve().parents[2]
MAIN: Final = ROOT / "charts" / "perfpolicy"
CRDS: Final = ROOT / "charts" / "perfpolicy-crds"
NAMESPACE: Final = "perfpolicy-system"

Manifest = dict[str, Any]


class HelmError(Exception):
    """helm refused; the message is its own."""


def helm(*args: str, given: str = "") -> str:
    """What helm prints; `given` is its standard input. Raises HelmError."""
    tool = lab_tools.required("helm", "helm")
    done = subprocess.run([str(tool), *args], cwd=ROOT, input=given, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise HelmError(done.stderr)
    return done.stdout


def template(values: Mapping[str, Any], *flags: str, chart: Path = MAIN) -> list[Manifest]:
    """The objects of a release named perfpolicy, tests included, in the order helm prints them. Raises HelmError."""
    return _template(yaml_text.dump(dict(values)), flags, chart)


@cache
def _template(values: str, flags: tuple[str, ...], chart: Path) -> list[Manifest]:
    text = helm("template", "perfpolicy", str(chart), "--namespace", NAMESPACE, "--values", "-", *flags, given=values)
    return [manifest for manifest in yaml_text.load_all(text) if manifest]


def one(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The only object of the kind, or the one of that name."""
    found = [each for each in manifests if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


EVERYTHING: Final[Mapping[str, Any]] = {
    "fullnameOverride": "perfpolicy-main",
    "replicas": 3,
    "image": {
        "repository": "images.example.com/perfpolicy",
        "tag": "1.2.3",
        "digest": f"sha256:{'0123456789abcdef' * 4}",
        "pullPolicy": "Always",
    },
    "imagePullSecrets": [{"name": "pull"}],
    "serviceAccount": {"name": "operator", "annotations": {"example.com/owner": "platform"}},
    "prometheus": {
        "address": "https://mimir.example.com/prometheus",
        "namespace": "mimir",
        "tenant": "team-a",
        "timeout": "5s",
        "ruleLabels": {"release": "monitoring"},
        "auth": {"secretName": "prometheus-token", "secretKey": "bearer"},
    },
    "classes": {
        "development": None,
        "staging": {"spec": {"metrics": {"tenant": "team-b"}, "labels": {"rules": {"prometheus": "staging"}}}},
        "gold": {"spec": {"defaults": {"thresholds": {"errorRate": {"max": "0.1%"}}}}},
    },
    "log": {"level": "debug", "format": "text"},
    "settings": {"workers": 32, "relist": 1200.5},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca-bundle"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs", "readOnly": True}],
    "resources": {"requests": {"cpu": "1"}},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["system"]}]}]
            }
        }
    },
    "tolerations": [{"key": "pool", "operator": "Equal", "value": "system", "effect": "NoSchedule"}],
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "perfpolicy"}},
        }
    ],
    "podAnnotations": {"example.com/note": "scraped"},
    "podLabels": {"team": "platform"},
    "networkPolicy": {
        "ingressFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mimir"}}}],
        "apiServerPorts": [6443],
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 9090, "protocol": "TCP"}]}],
    },
    "serviceMonitor": {
        "enabled": True,
        "interval": "15s",
        "metricRelabelings": [{"sourceLabels": ["__name__"], "regex": "perfpolicy_(threshold|objective|health)_.*", "action": "drop"}],
        "labels": {"release": "monitoring"},
    },
    "alerts": {"enabled": True, "labels": {"release": "monitoring"}},
    "dashboard": {"enabled": True, "labels": {"grafana_folder": "platform"}},
}
NAMESPACED: Final[Mapping[str, Any]] = {"scope": {"namespaces": ["ce-hub", "runeframe"]}, "workloads": {"create": False}}
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {"default": {}, "everything": EVERYTHING, "namespaced": NAMESPACED}
