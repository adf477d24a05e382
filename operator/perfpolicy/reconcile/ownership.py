"""Whose is an object that stands where a child should be? Pure.

Why it is asked before the first apply of a name: server-side apply onto somebody's object adds our ownerReference, and deleting the policy
would then delete their object.
"""

from dataclasses import dataclass
from enum import Enum, auto

from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.children import Child, ChildRef
from perfpolicy.vocabulary import ADOPT_ANNOTATION


class Ownership(Enum):
    """What may be done with the object."""

    ABSENT = auto()
    """Nothing is there: create it."""
    OURS = auto()
    """Ours, or left behind by us (our labels, no owner): apply."""
    ADOPT = auto()
    """Its owner allows the takeover by annotation: apply, forced."""
    FOREIGN = auto()
    """Somebody else's: never written."""
    WAIT = auto()
    """Ours under a former UID, or being deleted: it will be gone soon."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and for FOREIGN and WAIT why, naming the object and who has it."""

    ownership: Ownership
    message: str = ""


def judge(ref: ChildRef, child: Child | None, policy: PolicyKey, uid: str) -> Judgement:
    """Judge the live object (None: there is none) for the policy with this UID."""
    if child is None:
        return Judgement(Ownership.ABSENT)
    if child.deleting:
        return Judgement(Ownership.WAIT, f"{ref} is being deleted")
    if child.owner_uid:
        return _judge_owned(ref, child, policy, uid)
    if child.policy == policy.name:
        return Judgement(Ownership.OURS)
    if child.adopt == policy.name:
        return Judgement(Ownership.ADOPT)
    if child.policy:
        return Judgement(Ownership.FOREIGN, f"{ref} belongs to the policy {child.policy}")
    holder, remedy = child.manager or "somebody else", f"rename it, delete it, or annotate it {ADOPT_ANNOTATION}={policy.name}"
    return Judgement(Ownership.FOREIGN, f"{ref} exists and belongs to {holder}; {remedy}")


def _judge_owned(ref: ChildRef, child: Child, policy: PolicyKey, uid: str) -> Judgement:
    if child.owner_uid == uid:
        return Judgement(Ownership.OURS)
    if child.owned_by_policy and child.owner == policy.name:
        return Judgement(Ownership.WAIT, f"{ref} belongs to a deleted policy of the same name and is being collected")
    owner = f"the policy {child.owner}" if child.owned_by_policy else child.owner
    return Judgement(Ownership.FOREIGN, f"{ref} exists and is controlled by {owner}")


_PEOPLE = ("kubectl", "dashboard")


def routed_elsewhere(child: Child) -> str:
    """The controller that has taken spec.http of our VirtualService over, or an empty text.

    The list is atomic: forcing it back would fight that controller for ever. An edit by hand (kubectl) is drift and is repaired.
    """
    return "" if child.router.startswith(_PEOPLE) else child.router
