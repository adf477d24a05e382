"""What the steps of resolving share: the inputs, the merged settings, and the list of problems they add to. Pure."""

from dataclasses import dataclass, field
from typing import TypeVar

from perfpolicy.api.performance_class import Mesh, PerformanceClass
from perfpolicy.api.policy import PerformancePolicy, PolicySettings
from perfpolicy.errors import Problem
from perfpolicy.policy.classes import Granted
from perfpolicy.policy.facts import Facts
from perfpolicy.policy.layers import Layered
from perfpolicy.vocabulary import Reason

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resolution:
    """One policy on its way into the model. Steps read everything, and report what is wrong instead of raising."""

    policy: PerformancePolicy
    cls: PerformanceClass
    facts: Facts
    settings: PolicySettings
    layered: Layered
    granted: Granted
    problems: list[Problem] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """The policy's namespace."""
        return self.policy.metadata.namespace

    def report(self, path: str, message: str, reason: Reason = Reason.INVALID) -> None:
        """Adds a problem."""
        self.problems.append(Problem(path, message, reason))

    def fqdn(self, service: str, namespace: str | None = None) -> str:
        """Mesh host of a Service of the policy's namespace, or of another."""
        mesh = self.cls.spec.mesh or Mesh()
        return f"{service}.{namespace or self.namespace}.svc.{mesh.cluster_domain or 'cluster.local'}"

    @property
    def in_root_namespace(self) -> bool:
        """Whether the policy lives in the mesh's root namespace: there Istio takes what selects pods to select those of every namespace."""
        return self.namespace == ((self.cls.spec.mesh or Mesh()).namespace or "istio-system")

    def by_policy(self, path: str) -> bool:
        """Whether the policy itself, not its class, set something at `path`."""
        return self.layered.by_policy(path)


def filled(value: T | None) -> T:
    """A value the defaults always fill; a None here is a default missing from layers.py."""
    if value is None:
        raise RuntimeError("a setting without a built-in default reached the model: add it to policy/layers.py")
    return value
