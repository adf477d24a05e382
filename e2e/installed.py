"""An installed operator together with one policy it keeps, whose children and pods tell whether anything disturbed them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from e2e.api import api_of
from e2e.cluster import Cluster
from e2e.installation import Installation
from e2e.policies import API_VERSION
from e2e.waiting import eventually
from lab import workloads

HARDENED = {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}


def web_policy(namespace: str, name: str = "web", **spec: Any) -> dict[str, Any]:
    """A policy that owns its workload, hardened enough for restricted Pod Security; keyword arguments replace parts of its spec."""
    container = {"name": name, "imagePullPolicy": "IfNotPresent", "securityContext": HARDENED}
    deployment = {
        "image": "localhost/backend:lab",
        "replicas": 1,
        "ports": [{"name": "http", "port": workloads.PORT}],
        "probes": {"readiness": {"path": "/readyz", "period": "1s"}},
        "template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "PerformancePolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "className": "development",
            "workload": {"deployment": deployment},
            "service": {"port": 80},
            "traffic": {"circuitBreaker": {"consecutiveErrors": 5, "interval": "30s", "baseEjection": "30s", "maxEjected": "50%"}},
            "security": {"mtls": "Permissive"},
            "network": {"ingress": [{"fromPods": {"app": "client"}, "ports": [{"port": workloads.PORT}]}]},
            **spec,
        },
    }


@dataclass(frozen=True)
class Installed:
    """The installation, and in a namespace with restricted Pod Security a policy of every kind of child that needs no sidecar."""

    it: Installation
    namespace: str
    seconds: float
    """From the first command of the README to the policy's Ready=True."""
    since: int
    """Position of the audit log before the first of them."""

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return self.it.cluster

    def ready(self) -> bool:
        """The policy is Ready; the assertion shows its conditions otherwise."""
        conditions = self.conditions()
        assert conditions.get("Ready", ("",))[0] == "True", conditions
        return True

    def conditions(self) -> dict[str, tuple[str, str, str]]:
        """Status, reason and message of the policy's conditions."""
        policy = self.cluster.get("pp", "web", self.namespace) or {}
        return {c["type"]: (c["status"], c["reason"], c["message"]) for c in policy.get("status", {}).get("conditions", ())}

    def footprint(self) -> dict[str, tuple[str, str]]:
        """UID and generation of every child (the version where there is none), UID and restarts of every pod of the workload."""
        found: dict[str, tuple[str, str]] = {}
        for item in (self.cluster.get("pp", "web", self.namespace) or {"status": {"resources": []}})["status"]["resources"]:
            child = self.cluster.get(f"{item['kind']}.{item['group']}".rstrip("."), item["name"], self.namespace) or {"metadata": {}}
            metadata = child["metadata"]
            version = metadata.get("generation", metadata.get("resourceVersion", ""))
            found[f"{item['kind']} {item['name']}"] = (metadata.get("uid", ""), str(version))
        for pod in self.cluster.lab.get("pods", "-n", self.namespace)["items"]:
            restarts = sum(container["restartCount"] for container in pod["status"]["containerStatuses"])
            found[f"pod {pod['metadata']['name']}"] = (pod["metadata"]["uid"], str(restarts))
        return found

    def drift(self) -> str:
        """Delete the policy's Service; its UID."""
        uid = self.service()
        api_of(self.cluster.lab.kubeconfig).delete("service", "web", self.namespace)
        return uid

    def service(self) -> str:
        """UID of the policy's Service; empty without one."""
        found = self.cluster.get("service", "web", self.namespace)
        return str(found["metadata"]["uid"]) if found else ""

    def seconds_to_a_write_of(self, address: str, since: int, began: datetime, limit: float) -> float:
        """Disturb the policy until the operator at the address repairs it; seconds from `began` to its first write by the audit log."""
        while True:
            disturbed = self.drift()
            eventually(lambda uid=disturbed: self.service() not in ("", uid), seconds=limit)  # type: ignore[misc]
            for request in self.it.child_writes(since, self.namespace):
                if request.source == address:
                    return (datetime.fromisoformat(request.at) - began).total_seconds()
