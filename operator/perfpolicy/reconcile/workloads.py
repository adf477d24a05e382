"""How many pods each workload wants and has, fed by the watches of the workload kinds. Touches nothing outside memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from perfpolicy.reconcile.children import ChildRef
from perfpolicy.render.manifest import GroupKind

KINDS: Final = frozenset(
    {
        GroupKind("apps", "Deployment"),
        GroupKind("apps", "StatefulSet"),
        GroupKind("apps", "DaemonSet"),
        GroupKind("argoproj.io", "Rollout"),
    }
)


@dataclass(frozen=True, slots=True)
class Workload:
    """Replica counts of one workload. `generation`: of its spec; a controller that has not seen it yet counts as no pod available."""

    generation: int
    desired: int
    available: int


def workload_of(obj: Mapping[str, Any]) -> Workload:
    """Replica counts of a raw Deployment, StatefulSet, DaemonSet or Rollout. Pure."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    generation = metadata.get("generation", 0)
    if obj.get("kind") == "DaemonSet" or "desiredNumberScheduled" in status:
        desired, available = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        desired, available = spec.get("replicas", 1), status.get("availableReplicas", 0)
    seen = _number(status.get("observedGeneration", 0)) >= generation
    return Workload(generation, desired, available if seen else min(available, max(desired - 1, 0)))


def _number(value: Any) -> int:
    """Rollouts write their observedGeneration as text."""
    return int(value) if str(value).isdecimal() else 0


class Workloads:
    """Known workloads."""

    def __init__(self, on_change: Callable[[ChildRef, bool], None]) -> None:
        """`on_change` hears of a workload that came, went, or changed; the flag says that its spec is concerned, not only its pods."""
        self._on_change = on_change
        self._known: dict[ChildRef, Workload] = {}

    def get(self, ref: ChildRef) -> Workload | None:
        """The workload, if it exists."""
        return self._known.get(ref)

    def refs(self, kind: GroupKind) -> tuple[ChildRef, ...]:
        """Known workloads of a kind."""
        return tuple(ref for ref in self._known if ref.kind == kind)

    def put(self, ref: ChildRef, obj: Mapping[str, Any]) -> None:
        """The workload exists, as shown."""
        old, new = self._known.get(ref), workload_of(obj)
        self._known[ref] = new
        if old != new:
            self._on_change(ref, old is None or old.generation != new.generation)

    def drop(self, ref: ChildRef) -> None:
        """The workload is gone."""
        if self._known.pop(ref, None) is not None:
            self._on_change(ref, True)
