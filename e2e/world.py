"""What the proofs of kinds stand on: two policies around real pods, in one namespace of the lab's real cluster.

`web` owns its Deployment and Service; `shop` targets two existing Deployments (stable and canary) behind an existing Service. Together they
ask for every kind of child. Few pods on purpose: the lab has two cores.
"""

import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from e2e.asking import Answer, Request, ask, ask_gateway
from e2e.cluster import Cluster
from e2e.operator_process import PROGRAM, OperatorProcess, free_port
from e2e.policies import API_VERSION
from e2e.waiting import eventually
from lab import backend_control, load, mesh, prometheus, tracing, workloads
from lab.lab import Lab

INGRESS_PRINCIPAL = f"cluster.local/ns/{mesh.SYSTEM}/sa/{mesh.INGRESS}"
LIMITED = {
    "name": "limited",
    "path": {"type": "Exact", "value": "/api/limited"},
    "requests": 2,
    "per": "1h",
    "by": [{"type": "Header", "name": "x-client"}],
}
"""The rate limit of `web`: each of its pods lets a client ask this path twice."""
CLOCKS = {"poll_min": "1", "poll_max": "2", "retry_max": "5", "sweep": "5", "discovery": "1"}
"""Settings of the operator with which nothing is waited for that need not be."""


def operator(lab: Lab, log: Path, namespaces: str, *, program: tuple[str, ...] = PROGRAM) -> OperatorProcess:
    """An operator for some namespaces only (separated by commas), beside others on the same cluster."""
    return OperatorProcess(lab, log, free_port(), program, namespaces=namespaces, **CLOCKS)


def web_policy(namespace: str, class_name: str, host: str) -> dict[str, Any]:
    """The policy that owns its workload: every kind of child."""
    probes = {"liveness": {"path": "/healthz"}, "readiness": {"path": "/readyz", "period": "1s", "failureThreshold": 1}}
    annotations = {
        # Faults are switched from outside the mesh; and Prometheus asks the metrics port itself, which STRICT would close.
        "traffic.sidecar.istio.io/excludeInboundPorts": str(backend_control.CONTROL_PORT),
        "prometheus.istio.io/merge-metrics": "false",
    }
    template = {
        "metadata": {"annotations": annotations},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "imagePullPolicy": "IfNotPresent"}]},
    }
    deployment = {
        "image": "localhost/backend:lab",
        "replicas": 2,
        "ports": [{"name": "http", "port": workloads.PORT}, {"name": "http-metrics", "port": workloads.METRICS_PORT}],
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
        "probes": probes,
        "env": [{"name": "SERVICE", "value": "web"}, {"name": "VERSION", "value": "from-the-policy"}],
        "template": template,
    }
    allowed = {"methods": ["GET"], "paths": ["/api/*"]}
    return _policy(
        "web",
        namespace,
        className=class_name,
        thresholds={**THRESHOLDS, "resources": {"cpu": "95%", "memory": "95%"}},
        workload={"deployment": deployment},
        service={"port": 80, "metricsPort": workloads.METRICS_PORT},
        traffic={
            "hosts": [host],
            "gateways": [{"namespace": mesh.SYSTEM, "name": mesh.GATEWAY}],
            "routes": [
                {
                    "name": "plain",
                    "matches": [{"path": {"type": "Prefix", "value": "/api/plain"}}],
                    "timeout": "1s",
                    "retries": {"mode": "Disabled"},
                },
                {"name": "rest"},
            ],
            "timeout": "10s",
            "retries": {"attempts": 3, "perTryTimeout": "3s", "retryOn": ["5xx"]},
            "circuitBreaker": {"consecutiveErrors": 3, "interval": "1s", "baseEjection": "3s", "maxEjected": "50%"},
            "rateLimit": {"local": {"routes": [LIMITED]}},
        },
        security={
            "mtls": "Strict",
            "defaultDeny": "Enabled",
            "allow": [
                {"from": {"namespaces": [load.NAMESPACE]}, "to": allowed},
                {"from": {"principals": [INGRESS_PRINCIPAL]}, "to": allowed},
            ],
        },
        network={
            "ingress": [{"fromNamespaces": {"kubernetes.io/metadata.name": load.NAMESPACE}, "ports": [{"port": workloads.PORT}]}],
            "egress": [{"toServices": [{"name": "shop"}]}],
        },
        scaling={"minReplicas": 2, "maxReplicas": 2, "target": {"cpu": "70%"}},
        disruptionBudget={"minAvailable": "2"},
        observability={
            "scrape": {"path": "/metrics", "podMonitor": "Enabled"},
            "dashboard": "Enabled",
            "tracing": {"sampling": "100%", "provider": tracing.PROVIDER},
        },
    )


def shop_policy(namespace: str, class_name: str) -> dict[str, Any]:
    """The policy for what exists already: a canary by header, and a weighted route."""
    weighted = [{"subset": "stable", "weight": 80}, {"subset": "canary", "weight": 20}]
    return _policy(
        "shop",
        namespace,
        className=class_name,
        workload={"targetRef": {"group": "apps", "kind": "Deployment", "name": "shop"}, "serviceRef": {"name": "shop"}},
        service={"metricsPort": workloads.METRICS_PORT},
        traffic={
            "subsets": [{"name": version, "labels": {"version": version}} for version in ("stable", "canary")],
            "routes": [
                {
                    "name": "canary",
                    "matches": [{"headers": [{"name": "x-canary", "value": "true"}]}],
                    "destinations": [{"subset": "canary"}],
                },
                {"name": "weighted", "matches": [{"path": {"type": "Prefix", "value": "/weighted"}}], "destinations": weighted},
                {"name": "stable", "destinations": [{"subset": "stable"}]},
            ],
        },
    )


THRESHOLDS = {"window": "30s", "latency": [{"quantile": "p95", "max": "500ms"}], "errorRate": {"max": "5%"}}


def _policy(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    objectives = [{"name": "availability", "sli": "Availability", "target": "99.9%", "windowDays": 30}]
    return {
        "apiVersion": API_VERSION,
        "kind": "PerformancePolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"thresholds": THRESHOLDS, "objectives": objectives, **spec},
    }


@dataclass(frozen=True)
class World:
    """One namespace of the real cluster with both policies' workloads. Use as a context manager; the operator is the caller's."""

    cluster: Cluster
    namespace: str

    @classmethod
    def new(cls, cluster: Cluster) -> Self:
        """A world in a namespace of its own."""
        return cls(cluster, f"kinds-{secrets.token_hex(3)}")

    @property
    def lab(self) -> Lab:
        """The lab."""
        return self.cluster.lab

    @property
    def host(self) -> str:
        """The external host `web` is granted."""
        return f"web.{self.namespace}.e2e.test"

    def __enter__(self) -> Self:
        self.lab.apply([workloads.namespace(self.namespace), self._class()])
        through = f"/api/through=http://web.{self.namespace}"
        shop = [workloads.backend("shop", self.namespace, version=version, upstream=through) for version in ("stable", "canary")]
        self.lab.apply([*shop, workloads.service("shop", self.namespace)])
        load.ensure(self.lab)
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")
        self.cluster.kubectl("delete", "performanceclass", self.namespace, "--ignore-not-found")

    def apply_policies(self) -> None:
        """Apply both policies and wait until both are Ready and every pod serves."""
        for name in ("shop", "shop-canary"):
            self.lab.wait_available(self.namespace, name, seconds=90)
        self.cluster.apply(web_policy(self.namespace, self.namespace, self.host), shop_policy(self.namespace, self.namespace))
        for name in ("web", "shop"):
            eventually(lambda name=name: self.ready(name), seconds=90)  # type: ignore[misc]

    def ready(self, name: str) -> bool:
        """The policy is Ready; the assertion shows its conditions otherwise."""
        policy = self.cluster.get("pp", name, self.namespace) or {}
        conditions = {c["type"]: (c["status"], c["reason"], c["message"]) for c in policy.get("status", {}).get("conditions", ())}
        assert conditions.get("Ready", ("",))[0] == "True", conditions
        return True

    def ask(self, service: str, path: str, method: str = "GET", times: int = 1, **headers: str) -> list[Answer]:
        """Ask a service from the pod with a sidecar."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.lab, "mesh", [Request(f"http://{service}.{self.namespace}{path}", method, named)] * times)

    def ask_url(self, url: str) -> Answer:
        """One GET from the pod with a sidecar."""
        return ask(self.lab, "mesh", [Request(url)])[0]

    def ask_from_outside(self, *urls: str) -> list[Answer]:
        """Ask from the pod without a sidecar: plaintext."""
        return ask(self.lab, "outside", [Request(url) for url in urls])

    def ask_gateway(self, host: str, path: str) -> Answer:
        """Ask through the ingress gateway."""
        return ask_gateway(mesh.environment(self.lab)["PERFPOLICY_LAB_INGRESS_URL"], host, path)

    def pods(self, app: str) -> dict[str, str]:
        """Addresses of the running pods of an app, by name."""
        return backend_control.pod_addresses(self.lab, self.namespace, f"app={app}")

    def faults(self, selector: str, **faults: float | bool) -> "Faults":
        """Set faults for a `with` block."""
        return Faults(self, selector, faults)

    def only(self, pod: str) -> str:
        """A selector for one pod."""
        self.cluster.kubectl("label", "pod", pod, "-n", self.namespace, "--overwrite", f"e2e={pod}")
        return f"e2e={pod}"

    def uid(self, policy: str) -> str:
        """UID of a policy."""
        found = self.cluster.get("pp", policy, self.namespace)
        assert found is not None, f"no policy {policy}"
        return str(found["metadata"]["uid"])

    def _class(self) -> dict[str, Any]:
        grant = {
            "name": "e2e",
            "gateways": [{"namespace": mesh.SYSTEM, "name": mesh.GATEWAY}],
            "hosts": [f"*.{self.namespace}.e2e.test"],
            "workloadCreation": "Allowed",
            "envoyFilters": "Allowed",
            "tracingProviders": [tracing.PROVIDER],
        }
        metrics = {"address": prometheus.url(self.lab), "scrapeInterval": "5s", "ruleInterval": "5s"}
        labels = {"dashboards": {"grafana_dashboard": "1"}, "monitors": {"prometheus": "lab"}}
        spec = {"allowedNamespaces": {"names": [self.namespace]}, "grants": [grant], "metrics": metrics, "labels": labels}
        return {"apiVersion": API_VERSION, "kind": "PerformanceClass", "metadata": {"name": self.namespace}, "spec": spec}


@dataclass(frozen=True)
class Faults(AbstractContextManager[None]):
    """Faults of some pods, cleared at the end."""

    world: World
    selector: str
    faults: Mapping[str, float | bool]

    def __enter__(self) -> None:
        backend_control.set_fault(self.world.lab, self.world.namespace, self.selector, **self.faults)

    def __exit__(self, *_: object) -> None:
        backend_control.clear_faults(self.world.lab, self.world.namespace, self.selector)

    def left(self) -> list[int]:
        """How many requests each pod would still fail."""
        found = backend_control.read_faults(self.world.lab, self.world.namespace, self.selector)
        return [int(each["fail_first_n"]) for each in found.values()]
