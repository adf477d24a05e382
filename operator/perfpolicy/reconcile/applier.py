"""Make the cluster hold exactly a policy's children: judge, apply what differs, prune what is no longer wanted.

Children are applied one after the other in the order they were rendered (protection before what it protects, subsets before routes), so a
crash after any write leaves a state that was wanted, and the next pass goes on from there.

Who says how many replicas a Deployment has: the manifest, until somebody scales it through the scale subresource (then that one), or an
autoscaler is there or wanted. Nothing is written for that alone: the autoscaler takes the field with its first change. Any write of ours
leaves the field out, though. That removes it where it is still ours, and the API server then fills in 1; so before, it is handed, as it is,
to a field manager of its own. Without an autoscaler the manifest's figure counts again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from perfpolicy.errors import ApiRejected, ApiUnavailable
from perfpolicy.policy.model import Policy
from perfpolicy.reconcile.children import Child, ChildCache, ChildRef, Since, observe, other_manager
from perfpolicy.reconcile.fieldset import owns, with_digest
from perfpolicy.reconcile.foreign import AUTOSCALER, VIRTUAL_SERVICE, Withheld
from perfpolicy.reconcile.inventory import to_prune
from perfpolicy.reconcile.ownership import Ownership, judge, routed_elsewhere
from perfpolicy.reconcile.ports import Finder, ObjectStore
from perfpolicy.render.manifest import GroupKind, Manifest
from perfpolicy.vocabulary import APPLIED_ANNOTATION, REPLICAS_MANAGER, Reason

_HPA_CONTROLLER: Final = "kube-controller-manager"
"""Field manager of what HorizontalPodAutoscalers write through the scale subresource; it stays when the last of them is gone."""
_UNANSWERED: Final = 2
"""After so many requests in a row without an answer the rest of a policy is left for the next pass."""


@dataclass(frozen=True, slots=True)
class Held:
    """One child the policy holds."""

    ref: ChildRef
    version: str
    uid: str


class Wanted(NamedTuple):
    """One child as it is to be. `since`: what was read before then (time.monotonic) is read anew; `recorded`: the inventory has it;
    `scaled`: an autoscaler says how many replicas it has.
    """

    manifest: Manifest
    since: float
    recorded: bool
    scaled: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """One child that could not be applied. `transient`: worth another try soon."""

    ref: ChildRef
    message: str
    transient: bool


@dataclass(slots=True)
class Outcome:
    """What one pass over a policy's children did."""

    held: list[Held] = field(default_factory=list)
    conflicts: list[Withheld] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    blocked_by: set[ChildRef] = field(default_factory=set)
    """Foreign objects that stand where a child should be."""
    writes: int = 0
    unanswered: int = 0
    retry_after: float = 0.0

    @property
    def held_up(self) -> bool:
        """Not everything is as wanted."""
        return bool(self.conflicts or self.refused or self.waiting)

    @property
    def again(self) -> bool:
        """Something is worth another try soon."""
        return bool(self.waiting) or any(refused.transient for refused in self.refused)


class Applier:
    """Applies and prunes through the ports; keeps nothing but what it tells the child cache."""

    def __init__(
        self,
        objects: ObjectStore,
        finder: Finder,
        children: ChildCache,
        complete: Callable[[GroupKind], bool],
        scaled: Callable[[ChildRef], bool],
    ) -> None:
        """`complete`: whether the cache knows every object of a kind right now, not only ours. Asked anew each time: a kind that comes back
        or may no longer be listed leaves the cache empty though objects are there. `scaled`: whether somebody else's autoscaler scales it.
        """
        self._objects, self._finder, self._children, self._complete, self._scaled = objects, finder, children, complete, scaled

    async def apply(
        self,
        policy: Policy,
        manifests: Iterable[Manifest],
        withheld: Mapping[GroupKind, Withheld],
        inventory: Iterable[Held],
        prunable: frozenset[GroupKind],
        since: float,
    ) -> Outcome:
        """Apply the manifests, except withheld kinds, and prune what the inventory or the cluster holds beyond them.

        What has to be read first is read as it was at some moment after `since` (time.monotonic).

        Only kinds in `prunable` are pruned, the ones the manifests were rendered for: a kind left out because the API server did not show
        it is still wanted, and one left out because the policy only observes stays as it is.
        """
        outcome = Outcome()
        desired: dict[ChildRef, Manifest] = {ref_of(manifest): manifest for manifest in manifests}
        before = {held.ref: held for held in inventory}
        # An autoscaler that is no longer wanted goes first: else it and the manifest would both say how many replicas there are.
        await self._prune(policy, before, desired, prunable & {AUTOSCALER}, since, outcome)
        autoscaled = self._has_autoscaler(policy, desired)
        for ref, manifest in desired.items():
            if outcome.unanswered >= _UNANSWERED:
                outcome.refused.append(Refused(ref, "not tried: the API server does not answer", transient=True))
            elif ref.kind in withheld:
                self._withhold(policy, ref, manifest, withheld[ref.kind], outcome)
            else:
                wanted = Wanted(manifest, since, ref in before, autoscaled or self._scaled(ref))
                await self._apply_guarded(policy, ref, wanted, outcome)
        complete = not (outcome.refused or outcome.waiting)
        kept = {held.ref for held in outcome.held}
        outcome.held += [held for ref, held in before.items() if ref not in kept and not (complete and ref.kind in prunable)]
        if complete:
            await self._prune(policy, before, desired, prunable - {AUTOSCALER}, since, outcome)
        return outcome

    def complete(self, kind: GroupKind) -> bool:
        """Whether every object of a kind is known right now, not only ours."""
        return self._complete(kind)

    def unapplied(self, policy: Policy, manifests: Iterable[Manifest], prunable: frozenset[GroupKind]) -> tuple[ChildRef, ...]:
        """What `apply` would write or delete, by what is known without asking."""
        desired = {ref_of(manifest): manifest for manifest in manifests}
        owned = self._children.owned(policy.identity.uid)
        autoscaled = self._has_autoscaler(policy, desired)

        def applied(ref: ChildRef, manifest: Manifest) -> bool:
            child = self._children.get(ref)
            if child is None or child.deleting or ref not in owned:
                return False
            return self._due(child, Wanted(manifest, 0.0, True, autoscaled or self._scaled(ref))) is None

        different = {ref for ref, manifest in desired.items() if not applied(ref, manifest)}
        superfluous = {ref for ref in owned if ref not in desired and ref.kind in prunable}
        return tuple(sorted(different | superfluous, key=str))

    def _has_autoscaler(self, policy: Policy, desired: Iterable[ChildRef]) -> bool:
        """Of its own: wanted, or still there."""
        return any(ref.kind == AUTOSCALER for ref in (*desired, *self._children.owned(policy.identity.uid)))

    def _withhold(self, policy: Policy, ref: ChildRef, manifest: Manifest, why: Withheld, outcome: Outcome) -> None:
        """Not written, but what we already have there stays: whoever claims our host later must not be able to take our route away."""
        if why not in outcome.conflicts:
            outcome.conflicts.append(why)
        child = self._children.get(ref)
        if child is not None and child.owner_uid == policy.identity.uid:
            self._hold(ref, manifest, child, outcome)

    async def _apply_guarded(self, policy: Policy, ref: ChildRef, wanted: Wanted, outcome: Outcome) -> None:
        try:
            with self._children.writing(ref):
                await self._apply_one(policy, ref, wanted, outcome)
            outcome.unanswered = 0
        except ApiUnavailable as error:
            outcome.unanswered += 1
            outcome.retry_after = max(outcome.retry_after, error.retry_after or 0.0)
            outcome.refused.append(Refused(ref, str(error), transient=True))
        except ApiRejected as error:
            outcome.unanswered = 0
            outcome.refused.append(Refused(ref, str(error), transient=error.status in (404, 409)))

    async def _apply_one(self, policy: Policy, ref: ChildRef, wanted: Wanted, outcome: Outcome) -> None:
        child = await self._live(ref, wanted.since, recorded=wanted.recorded)
        judgement = judge(ref, child, policy.key, policy.identity.uid)
        if judgement.ownership is Ownership.FOREIGN:
            self._conflict(ref, judgement.message, outcome)
        elif judgement.ownership is Ownership.WAIT:
            outcome.waiting.append(judgement.message)
        elif child is None:
            await self._create(ref, wanted, outcome)
        else:
            await self._update(ref, child, wanted, judgement.ownership, outcome)

    async def _live(self, ref: ChildRef, since: float, *, recorded: bool) -> Child | None:
        # Absence of what the inventory records is never believed unseen: taken for new, our own object would be let go of in `_create`.
        child = self._children.get(ref)
        if child is not None or (self._complete(ref.kind) and not recorded):
            return child
        metadata = await self._finder.find(ref.kind, ref.namespace, ref.name, since)
        return None if metadata is None else observe(metadata)

    async def _create(self, ref: ChildRef, wanted: Wanted, outcome: Outcome) -> None:
        # Unforced: should somebody create the object between our look and this write, their fields are not overwritten.
        manifest = wanted.manifest
        applied = await self._objects.apply(with_digest(manifest), force=False)
        outcome.writes += 1
        if not applied.created and (manager := other_manager(applied.metadata.get("managedFields", ()))):
            # Merged into an object that had just appeared: let go of exactly what was written.
            await self._objects.apply(_empty(manifest, applied.metadata["uid"]), force=True)
            self._conflict(ref, f"{ref} was created by {manager} just now", outcome)
            return
        self._hold(ref, manifest, observe(applied.metadata).judged(), outcome)

    async def _update(self, ref: ChildRef, child: Child, wanted: Wanted, ownership: Ownership, outcome: Outcome) -> None:
        manifest = wanted.manifest
        router = routed_elsewhere(child) if ref.kind == VIRTUAL_SERVICE else ""
        if router and ownership is Ownership.OURS:
            self._conflict(ref, f"spec.http of {ref} is managed by {router}", outcome)
            return
        content = self._due(child, wanted)
        if content is None:
            self._hold(ref, manifest, child.judged(), outcome)
            return
        content["metadata"] = {**content["metadata"], "uid": child.uid}
        try:
            if self._yields_replicas(child, wanted) and not child.replicas:
                await self._hand_over_replicas(ref, child, manifest, outcome)
            applied = await self._objects.apply(content, force=True)
        except ApiRejected as error:
            if error.status in (404, 409):
                self._children.learn(ref, None)
            raise
        outcome.writes += 1
        self._hold(ref, manifest, observe(applied.metadata).judged(), outcome)

    def _due(self, child: Child, wanted: Wanted) -> Manifest | None:
        """What is to be applied onto a child; None where it is as wanted."""
        content = with_digest(wanted.manifest)
        if not self._is_converged(child, content) and self._yields_replicas(child, wanted):
            content = with_digest(_without_replicas(wanted.manifest))
        return None if self._is_converged(child, content) else content

    def _yields_replicas(self, child: Child, wanted: Wanted) -> bool:
        """Whether somebody else says how many replicas there are."""
        if "replicas" not in wanted.manifest.get("spec", {}):
            return False
        # Its last word stays in managedFields when the autoscaler is gone. Where they cannot be listed, there may be one.
        forgotten = child.scaler == _HPA_CONTROLLER and self._complete(AUTOSCALER)
        return wanted.scaled or (bool(child.scaler) and not forgotten)

    async def _hand_over_replicas(self, ref: ChildRef, child: Child, manifest: Manifest, outcome: Outcome) -> None:
        """Give spec.replicas, with the value it has, to REPLICAS_MANAGER, so that it stays when our own apply leaves it out."""
        live = await self._objects.read(ref.kind, ref.namespace, ref.name)
        if live is None:
            # Whatever it means, our own apply must not come first: it would leave one replica.
            raise ApiRejected(f"{ref} is not found any more", 404)
        replicas = (live.get("spec") or {}).get("replicas")
        if replicas is None:
            return
        # Unforced: a conflict means that somebody has changed it since it was read, or something else; the next pass reads it again.
        await self._objects.apply({**_empty(manifest, child.uid), "spec": {"replicas": replicas}}, force=False, manager=REPLICAS_MANAGER)
        outcome.writes += 1

    @staticmethod
    def _is_converged(child: Child, wanted: Manifest) -> bool:
        if child.applied != wanted["metadata"]["annotations"][APPLIED_ANNOTATION]:
            return False
        # What the API server answered to our own apply stands, even where it lacks something of the manifest: it drops some empty lists.
        return child.since is Since.UNTOUCHED or (child.since is Since.UNJUDGED and owns(child.fields, wanted, child.owner_uid))

    def _hold(self, ref: ChildRef, manifest: Manifest, child: Child, outcome: Outcome) -> None:
        self._children.learn(ref, child)
        outcome.held.append(Held(ref, manifest["apiVersion"].rpartition("/")[2], child.uid))

    @staticmethod
    def _conflict(ref: ChildRef, message: str, outcome: Outcome) -> None:
        outcome.conflicts.append(Withheld(ref.kind, Reason.FOREIGN_OBJECT, message))
        outcome.blocked_by.add(ref)

    async def _prune(
        self,
        policy: Policy,
        before: Mapping[ChildRef, Held],
        desired: Iterable[ChildRef],
        prunable: frozenset[GroupKind],
        since: float,
        outcome: Outcome,
    ) -> None:
        uid = policy.identity.uid
        for ref in to_prune(before, self._children.owned(uid), desired):
            if ref.kind not in prunable:
                continue
            try:
                child = await self._live(ref, since, recorded=ref in before)
                if child is None or child.owner_uid != uid or child.deleting:
                    continue
                with self._children.writing(ref):
                    if await self._objects.delete(ref.kind, ref.namespace, ref.name, child.uid):
                        outcome.writes += 1
                    self._children.learn(ref, None)
            except (ApiUnavailable, ApiRejected) as error:
                transient = isinstance(error, ApiUnavailable)
                outcome.refused.append(Refused(ref, str(error), transient))
                if ref in before:
                    outcome.held.append(before[ref])


def ref_of(manifest: Manifest) -> ChildRef:
    """The kind and name of a manifest."""
    group, _, _ = manifest["apiVersion"].rpartition("/")
    return ChildRef(GroupKind(group, manifest["kind"]), manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def _empty(manifest: Manifest, uid: str) -> Manifest:
    metadata = {"name": manifest["metadata"]["name"], "namespace": manifest["metadata"]["namespace"], "uid": uid}
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata}


def _without_replicas(manifest: Manifest) -> Manifest:
    return {**manifest, "spec": {name: value for name, value in manifest["spec"].items() if name != "replicas"}}
