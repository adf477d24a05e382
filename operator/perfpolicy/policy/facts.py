"""What must be read from the cluster to resolve a policy, and which of it a policy needs. Pure data; reading it is the caller's work.

The operator fills these from its watches, the command line from the other documents of the files it was given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from perfpolicy.api.policy import PerformancePolicy
from perfpolicy.api.workload import TargetRef


@dataclass(frozen=True, slots=True)
class FactsNeeded:
    """What to read, all in `namespace`. `target` None: the policy creates its workload."""

    namespace: str
    target: TargetRef | None
    services: frozenset[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read. A raw object that does not exist is None, or absent from `services`."""

    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    target: Mapping[str, Any] | None = None
    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    in_mesh: bool = True


def needed_facts(policy: PerformancePolicy) -> FactsNeeded:
    """The objects `resolve` will look at: the target, its Service, and the Services of the policy's own egress rules and mirrors."""
    workload, network, traffic = policy.spec.workload, policy.spec.network, policy.spec.traffic
    names = {service.name for rule in (network.egress if network else None) or () for service in rule.to_services or ()}
    names |= {route.mirror.service for route in (traffic.routes if traffic else None) or () if route.mirror and route.mirror.service}
    if workload.service_ref:
        names.add(workload.service_ref.name)
    return FactsNeeded(policy.metadata.namespace, workload.target_ref, frozenset(names))


INJECT_LABEL: Final = "sidecar.istio.io/inject"


def in_mesh(namespace_labels: Mapping[str, str]) -> bool:
    """Whether Istio injects sidecars into the namespace's pods by the namespace's labels (pods may still opt in or out)."""
    said = namespace_labels.get("istio-injection")
    return said == "enabled" or (said is None and "istio.io/rev" in namespace_labels)


def pods_in_mesh(facts: Facts, pod_labels: Mapping[str, str]) -> bool:
    """Whether pods with these labels get a sidecar: their own label decides, except in a namespace that forbids injection."""
    said = pod_labels.get(INJECT_LABEL)
    if said == "false":
        return False
    return facts.in_mesh or (said == "true" and facts.namespace_labels.get("istio-injection") != "disabled")


def is_ambient(namespace_labels: Mapping[str, str]) -> bool:
    """Whether the namespace's pods are in the ambient mesh, which has no sidecars to configure or measure."""
    return namespace_labels.get("istio.io/dataplane-mode") == "ambient"


def leads_elsewhere(service: Mapping[str, Any]) -> str | None:
    """Why a Service's `spec` may lead out of its namespace; None where it cannot.

    A gateway or a mirroring proxy calls it under its own identity: behind an ExternalName, or Endpoints its owner wrote, might stand a
    Service of somebody else's, which refuses that owner.
    """
    if service.get("type") == "ExternalName":
        return "is of type ExternalName, which leads out of the namespace"
    return None if service.get("selector") else "has no selector: its addresses may be anybody's"
