"""What a render module and the rest of the package agree on: manifests, kinds, and the metadata every child carries. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from perfpolicy import vocabulary
from perfpolicy.policy.model import Policy

Manifest = dict[str, Any]
"""One Kubernetes object as plain JSON data."""


class GroupKind(NamedTuple):
    """A kind without its version: what the API server is asked about. The core group is empty."""

    group: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


@dataclass(frozen=True, slots=True)
class Child:
    """One object to render: its name, what its template reads, and labels beyond the two that every child carries.

    `beneath`: a partial manifest in the author's own words, merged beneath what the template says.
    """

    name: str
    values: Mapping[str, object]
    labels: Mapping[str, str] = field(default_factory=dict)
    beneath: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChildKind:
    """One kind of child: a render module, a template of the same stem, a golden, and a row in docs/children.md.

    `asked`: CEL over a policy's `spec`, true where its author, and not only its class, asks for the kind; `asked_by`: the fields that
    do, for people. The admission policy is made of them (tools/access.py).
    `suffixes`: what it appends to the policy's name for its objects (empty where the names come from the spec). `essential`: without it the
    policy is not programmed. `observing`: written in mode Observe too. `stand_in`: written besides where the kind
    `stands_in_for` is not served.
    """

    group: str
    version: str
    kind: str
    plural: str
    template: str
    build: Callable[[Policy], tuple[Child, ...]]
    asked: str
    asked_by: str
    suffixes: tuple[str, ...] = ("",)
    essential: bool = True
    observing: bool = False
    stands_in_for: GroupKind | None = None
    stand_in: Callable[[Policy], tuple[Child, ...]] | None = None

    @property
    def group_kind(self) -> GroupKind:
        """Group and kind."""
        return GroupKind(self.group, self.kind)

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


ALWAYS: Final = "true"
"""CEL for `ChildKind.asked`: every policy asks for the kind."""

OPENS_METRICS: Final = "(has(spec.service) && has(spec.service.metricsPort))"
"""CEL for `ChildKind.asked`: the author opens a port in what the class's defaults closed."""


def used(block: str) -> str:
    """CEL for `ChildKind.asked`: the block at this path is written, and not as `mode: Disabled`."""
    return f"(has({block}) && (!has({block}.mode) || {block}.mode != 'Disabled'))"


def metadata(policy: Policy, child: Child) -> Manifest:
    """Name, namespace, labels and, once the policy has a uid, the ownerReference.

    The namespace is the policy's own and nothing else can set it. blockOwnerDeletion stays unset: nothing waits for us when a policy is
    deleted in the foreground, and the operator needs no right on finalizers.
    """
    key = policy.key
    labels = {**child.labels, vocabulary.MANAGED_BY_LABEL: vocabulary.MANAGED_BY, vocabulary.POLICY_LABEL: key.name}
    data: Manifest = {"name": child.name, "namespace": key.namespace, "labels": labels}
    if policy.identity.uid:
        data["ownerReferences"] = [
            {
                "apiVersion": vocabulary.API_VERSION,
                "kind": vocabulary.POLICY_KIND,
                "name": key.name,
                "uid": policy.identity.uid,
                "controller": True,
            }
        ]
    return data
