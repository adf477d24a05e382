"""What runs inside every lab's cluster: CRDs of Istio and of the Prometheus operator, CoreDNS and metrics-server.

CRDs are read from the pinned modules' own folders. May touch: the cluster, and the lab's containerd for images.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

from lab.components import binary, module_dir
from lab.images import import_image, oci_image
from lab.lab import Lab, Step, wait_established
from lab.node import DNS_IP

Object = dict[str, Any]


def crd_step(lab: Lab) -> Step:
    """Apply the CRDs of Istio and of the Prometheus operator."""
    return Step("CRDs of Istio and the Prometheus operator", lambda: _crds(lab))


def steps(lab: Lab) -> list[Step]:
    """The steps for cluster DNS and the resource metrics API; they need a real node."""
    return [Step("CoreDNS", lambda: _coredns(lab)), Step("metrics-server", lambda: _metrics_server(lab))]


def last_steps(lab: Lab) -> list[Step]:
    """What is only waited for at the end: metrics-server has its first figures after two of its 15 s rounds."""
    return [Step("metrics-server has figures", lambda: lab.wait_available("kube-system", "metrics-server"))]


# Not those that describe servers to run (Prometheus, Alertmanager, ThanosRuler, …): no operator runs here, and their
# schemas alone cost the API server several seconds.
_MONITORING = ("prometheusrules", "servicemonitors", "podmonitors", "probes")


def crd_files() -> list[Path]:
    """The CRD files of the pinned Istio and of the Prometheus operator's kinds that something in the lab reads or writes."""
    istio = module_dir("istio", "istio.io/istio") / "manifests/charts/base/files/crd-all.gen.yaml"
    operator = module_dir("prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
    return [istio, *(operator / f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml" for kind in _MONITORING)]


# Not parsed as YAML: PyYAML stumbles over the enum value `=` in these files.
_NAME = re.compile(r"^metadata:\n(?:  .*\n)*?  name: (\S+)$", re.MULTILINE)


def _crds(lab: Lab) -> None:
    files = crd_files()
    names = [name for path in files for name in _NAME.findall(path.read_text())]
    present = lab.kubectl("get", "customresourcedefinitions", "-o", "name")
    if any(f"/{name}\n" not in present for name in names):
        lab.kubectl(
            "apply", "--server-side", "--force-conflicts", "--field-manager=perfpolicy-lab", *(f"--filename={path}" for path in files)
        )
        wait_established(lab.kubectl, names)


def _apply_once(lab: Lab, name: str, objects: list[Object]) -> None:
    """Apply objects unless the Deployment `name` carries the same content's hash already."""
    digest = hashlib.sha256(yaml.safe_dump_all(objects).encode()).hexdigest()[:16]
    for each in objects:
        if each["kind"] == "Deployment":
            each["metadata"].setdefault("annotations", {})["perfpolicy-lab/content"] = digest
    lookup = (
        "-n",
        "kube-system",
        "get",
        "deployment",
        name,
        "--ignore-not-found",
        "-o",
        r"jsonpath={.metadata.annotations.perfpolicy-lab/content}",
    )
    if lab.kubectl(*lookup) != digest:
        lab.apply(objects)


def _coredns(lab: Lab) -> None:
    image = import_image(
        lab, oci_image("localhost/coredns", "lab", {"/coredns": binary("coredns")}, entrypoint=["/coredns"], user="65532:65532")
    )
    container = {
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [{"containerPort": 1053, "protocol": "UDP"}, {"containerPort": 1053, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    ports = [{"name": f"dns-{protocol.lower()}", "port": 53, "targetPort": 1053, "protocol": protocol} for protocol in ("UDP", "TCP")]
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    _apply_once(
        lab,
        "coredns",
        [
            *_account("coredns", rules),
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta("coredns"), "data": {"Corefile": _COREFILE}},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": _meta("kube-dns"),
                "spec": {"clusterIP": DNS_IP, "selector": {"app": "coredns"}, "ports": ports},
            },
            _deployment("coredns", container, [{"name": "config", "configMap": {"name": "coredns"}}]),
        ],
    )
    lab.wait_available("kube-system", "coredns")


# No forward: the lab has no way to the outside, and a quick NXDOMAIN beats a time-out.
_COREFILE = """\
.:1053 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    cache 5
    reload
}
"""


def _metrics_server(lab: Lab) -> None:
    image = oci_image(
        "localhost/metrics-server", "lab", {"/metrics-server": binary("metrics-server")}, entrypoint=["/metrics-server"], user="65532:65532"
    )
    container = {
        "image": import_image(lab, image),
        "args": [
            "--cert-dir=/certificates",
            "--secure-port=10250",
            # Must exceed its 10 s kubelet time-out.
            "--metric-resolution=15s",
            "--kubelet-use-node-status-port",
            "--kubelet-insecure-tls",
            "--kubelet-preferred-address-types=InternalIP",
        ],
        "ports": [{"containerPort": 10250}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 10250, "scheme": "HTTPS"}, "periodSeconds": 2, "failureThreshold": 3},
        "volumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
    }
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    service = {"selector": {"app": "metrics-server"}, "ports": [{"name": "https", "port": 443, "targetPort": 10250}]}
    api = {
        "service": {"name": "metrics-server", "namespace": "kube-system"},
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "insecureSkipTLSVerify": True,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    auth_reader = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _meta("metrics-server-auth-reader"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader"},
        "subjects": [_subject("metrics-server")],
    }
    _apply_once(
        lab,
        "metrics-server",
        [
            *_account("metrics-server", rules),
            _cluster_binding("metrics-server:system:auth-delegator", "system:auth-delegator", "metrics-server"),
            auth_reader,
            {"apiVersion": "v1", "kind": "Service", "metadata": _meta("metrics-server"), "spec": service},
            _deployment("metrics-server", container, [{"name": "certificates", "emptyDir": {}}]),
            {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": api},
        ],
    )


def _meta(name: str) -> Object:
    return {"name": name, "namespace": "kube-system", "labels": {"app": name}}


def _subject(name: str) -> Object:
    return {"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}


def _cluster_binding(name: str, role: str, account: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [_subject(account)],
    }


def _account(name: str, rules: list[Object]) -> list[Object]:
    role = f"system:{name}"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(name)},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules},
        _cluster_binding(role, role, name),
    ]


def _deployment(name: str, container: Object, volumes: list[Object]) -> Object:
    hardened = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    full = {
        "name": name,
        "imagePullPolicy": "Never",
        "securityContext": hardened,
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
        **container,
    }
    pod = {
        "serviceAccountName": name,
        "priorityClassName": "system-cluster-critical",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [full],
        "volumes": volumes,
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta(name), "spec": spec}
