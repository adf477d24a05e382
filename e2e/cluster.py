"""The lab's cluster as the tests see it: kubectl, and what the API server's audit log says was done to it."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from e2e.api import api_of
from e2e.waiting import eventually
from lab import audit, mesh
from lab.errors import CommandError
from lab.lab import Lab, wait_established

OPERATOR_AGENT = "perfpolicy/"

CRDS = Path(__file__).resolve().parent.parent / "crds"
OUR_CRDS = ("performancepolicies.perfpolicy.io", "performanceclasses.perfpolicy.io")


@dataclass(frozen=True)
class Cluster:
    """One lab."""

    lab: Lab

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl; its output."""
        return self.lab.kubectl(*arguments, input=input)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """`kubectl apply` the objects, as a user does."""
        self.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """One object with its managedFields, or None where there is none."""
        return api_of(self.lab.kubeconfig).get(kind, name, namespace)

    def names(self, kinds: str, namespace: str, selector: str = "") -> set[str]:
        """Names of the objects of a kind, or of several separated by commas."""
        api = api_of(self.lab.kubeconfig)
        return {item["metadata"]["name"] for kind in kinds.split(",") for item in api.list(kind, namespace, selector)}

    def delete(self, kind: str, name: str, namespace: str) -> None:
        """Delete an object and do not wait for what follows."""
        self.kubectl("delete", kind, name, "-n", namespace, "--wait=false")

    def condition(self, name: str, namespace: str, kind: str) -> tuple[str, str]:
        """(status, reason) of a policy's condition; empty texts where it has none."""
        policy = self.get("pp", name, namespace)
        for condition in (policy or {}).get("status", {}).get("conditions", ()):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    def asked(self, since: int | datetime, namespace: str | None = None) -> list[audit.Request]:
        """What the operator asked of the API server since a moment or a position in the audit log; of one namespace, or of all."""
        found = audit.requests(self.lab.audit_log, since, OPERATOR_AGENT)
        return [one for one in found if one.agent.startswith(OPERATOR_AGENT) and namespace in (None, one.namespace)]

    def writes(self, since: int | datetime, namespace: str | None = None) -> Counter[audit.Request]:
        """Its writes (Events left out), counted."""
        return Counter(one for one in self.asked(since, namespace) if one.is_write and one.resource != "events")


def apply_crds(kubectl: Callable[..., str]) -> None:
    """Apply the CRDs of this checkout and wait until they are served."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    wait_established(kubectl, OUR_CRDS)


def exists(cluster: Cluster, kind: str) -> bool:
    """Whether the API server serves the kind, and kubectl knows it: it looks kinds up elsewhere than it writes their objects to."""
    try:
        cluster.kubectl("get", kind, "-A", "-o", "name")
    except CommandError:
        return False
    return True


def istioctl_is_content(cluster: Cluster, namespace: str) -> None:
    """`istioctl analyze` has no error and no warning about what is in the namespace now; the assertion shows them."""
    found = mesh.complaints(cluster.lab, namespace)
    assert found == [], found


def programmed_by_name(cluster: Cluster, namespace: str) -> dict[str, bool]:
    """Of every policy of a namespace, whether it is programmed."""
    policies = json.loads(cluster.kubectl("get", "pp", "-n", namespace, "-o", "json"))["items"]
    conditions = {policy["metadata"]["name"]: policy.get("status", {}).get("conditions", ()) for policy in policies}
    return {name: ("Programmed", "True") in {(each["type"], each["status"]) for each in found} for name, found in conditions.items()}


def programmed(cluster: Cluster, name: str, namespace: str, seconds: float = 30) -> dict[str, Any]:
    """Wait until the policy is programmed in its current generation; the policy."""

    def check() -> dict[str, Any]:
        policy = cluster.get("pp", name, namespace)
        assert policy is not None
        found = {c["type"]: c for c in policy.get("status", {}).get("conditions", ())}
        assert found.get("Programmed", {}).get("status") == "True", found.get("Programmed") or found
        assert found["Programmed"]["observedGeneration"] == policy["metadata"]["generation"]
        return policy

    return eventually(check, seconds)
