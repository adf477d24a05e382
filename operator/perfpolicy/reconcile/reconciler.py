"""Walk one policy the whole way: spec, class, facts, model, children, status.

Level-triggered: every pass starts from what is known now, whatever it was that queued the policy. A pass that finds nothing different
writes nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from perfpolicy.api.performance_class import PerformanceClass
from perfpolicy.api.policy import PerformancePolicy, parse_policy
from perfpolicy.api.status import ResourceStatus, SettledStatus, Status
from perfpolicy.errors import ApiRejected, InvalidSpec, Problem, RenderError
from perfpolicy.evaluate.conditions import (
    AcceptedState,
    Claim,
    ProgrammedState,
    Transition,
    WorkloadState,
    build_status,
    material_change,
    transitions,
)
from perfpolicy.evaluate.evaluation import EvaluationMemory
from perfpolicy.policy.antipatterns import antipatterns
from perfpolicy.policy.classes import admits, granted, select_class
from perfpolicy.policy.facts import Facts, FactsNeeded, in_mesh, needed_facts
from perfpolicy.policy.model import Mode, Policy, PolicyKey
from perfpolicy.policy.resolve import resolve
from perfpolicy.promql.rules import rendered_revision, revision
from perfpolicy.reconcile import settled
from perfpolicy.reconcile.applier import Applier, Held, Outcome
from perfpolicy.reconcile.children import ChildRef
from perfpolicy.reconcile.foreign import AUTOSCALER, Withheld, workload_ref
from perfpolicy.reconcile.hub import NAMESPACE, SERVICE, Hub, host_token, pods_token, replicas_token
from perfpolicy.reconcile.policies import Classes, KnownPolicy, Policies
from perfpolicy.reconcile.ports import ObjectStore, StatusStore
from perfpolicy.reconcile.queue import Work
from perfpolicy.reconcile.state import PolicyState
from perfpolicy.render import prometheus_rule
from perfpolicy.render.manifest import GroupKind, Manifest
from perfpolicy.render.registry import KINDS, Rendering, render
from perfpolicy.telemetry import Result
from perfpolicy.vocabulary import ConditionType, Reason

_log = logging.getLogger(__name__)
_RECHECK = 60.0
"""Seconds until something nobody will tell us about (a refused child, a foreign object of an unwatched name) is tried again."""
_ELDER_FIRST = 0.2
"""Seconds to wait for an elder policy that has not been looked at yet."""
_NAMESPACE_FIRST, _NAMESPACE_LOOKS = 0.2, 25
"""A policy may be heard of before its namespace, whose labels say what class it may use and whether its pods are in the mesh. Seconds
between two looks, and how many; one that cannot be read at all is then taken for one without labels."""

Notify = Callable[[PolicyKey, str, Transition], None]
"""Tells an Event: policy, UID, transition."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What is to follow a pass. `retry`: again with back-off, not before `after` seconds; else `after` > 0 asks for another look then."""

    retry: bool = False
    after: float = 0.0
    result: Result = Result.UNCHANGED


@dataclass(slots=True)
class Reconciler:
    """Dependencies are ports and in-memory views; `served` is replaced whenever discovery finds other kinds."""

    policies: Policies
    classes: Classes
    hub: Hub
    objects: ObjectStore
    applier: Applier
    statuses: StatusStore
    notify: Notify
    now: Callable[[], datetime]
    states: dict[PolicyKey, PolicyState]
    requeue: Callable[[PolicyKey], None]
    asked: Callable[[PolicyKey], float]
    """When the work under way for a policy was asked for (time.monotonic)."""
    again: Callable[[PolicyKey], bool]
    """Whether its children are to be looked at again after the work under way."""
    resolved_changed: Callable[[PolicyState], None]
    """Hears of a policy that was accepted with another model than before: its provider is asked at once."""
    evaluate_new: Callable[[PolicyKey, PolicyState], None]
    """Says of a policy without a status what is known of its metrics already."""
    still_there: Callable[[KnownPolicy], Awaitable[bool]]
    """Asks the API server whether the policy exists and is not being deleted."""
    served: frozenset[GroupKind] = frozenset()

    async def process(self, key: PolicyKey, work: Work) -> Pass | None:
        """Do the work due for a policy; None where its children were not looked at, so that nothing is said about the next time."""
        known = self.policies.get(key)
        if known is None:
            self._forget(key)
            return Pass()
        state, status = self._state(known)
        if known.deleting or key.namespace in self.hub.terminating:
            # Judged, so that younger policies with the same claim do not wait for it.
            state.resolved, state.judged = None, True
            return Pass()
        following = await self._reconcile(known, state, status) if work & Work.RECONCILE or not state.judged else None
        await self._write_status(known, state, status, numbers=bool(work & Work.REFRESH))
        return following

    def _state(self, known: KnownPolicy) -> tuple[PolicyState, Status | None]:
        """What is remembered of it, and its status as far as we know."""
        state = self.states.get(known.key)
        if state is not None and state.uid == known.uid:
            return state, state.status
        state = self.states[known.key] = PolicyState(known.uid)
        return state, state.begin(known.status)

    def reset(self) -> None:
        """Forget what was remembered of every policy."""
        for key in list(self.states):
            self._forget(key)

    def _forget(self, key: PolicyKey) -> None:
        self.states.pop(key, None)
        self.hub.dependents.set(key, ())

    async def _reconcile(self, known: KnownPolicy, state: PolicyState, status: Status | None) -> Pass:
        undecided = self._undecided_elder(known.key)
        if undecided is not None:
            self.requeue(undecided)
            return Pass(after=_ELDER_FIRST)
        if known.key.namespace not in self.hub.namespaces and state.awaited < _NAMESPACE_LOOKS:
            state.awaited += 1
            return Pass(after=_NAMESPACE_FIRST)
        was_accepted, first = state.judged and state.resolved is not None, not state.judged
        try:
            policy = await self._accept(known)
        except InvalidSpec as error:
            state.accepted, state.resolved, state.evaluation = AcceptedState(problems=error.problems), None, None
        else:
            if self.policies.get(known.key) is None:
                # Deleted while it was looked at: a child written now would outlive it until the garbage collector looks.
                return Pass()
            self._take(state, policy, status)
        state.judged = True
        if was_accepted != (state.resolved is not None):
            for other in self.policies.claims.sharing(known.key):
                self.requeue(other)
        if state.resolved is None:
            state.generation = known.generation
            # What can be watched is watched; a right that is granted again is not.
            return Pass(after=_RECHECK, result=Result.REJECTED)
        inventory = tuple(_inventory(state.resolved, status))
        if self._misses(inventory) and not await self.still_there(known):
            # It took them along. That it went will be heard of; until then they would be made for nobody.
            return Pass(retry=True)
        # What the status says is believed once; the first resync looks for itself.
        before = status.settled if first and status is not None else state.settled
        is_settled = before is not None and self._is_settled(state.resolved, state, inventory, before, believed=first)
        following = Pass() if is_settled else await self._program(state.resolved, state, inventory)
        state.generation = known.generation
        return following

    def _undecided_elder(self, key: PolicyKey) -> PolicyKey | None:
        """An elder with a claim of ours that has not been looked at: only when it is accepted does its claim stand."""
        for elder, _ in self.policies.claims.elders(key):
            state = self.states.get(elder)
            if state is None or not state.judged:
                return elder
        return None

    async def _accept(self, known: KnownPolicy) -> Policy:
        """The resolved policy. Raises InvalidSpec with every problem; registers what the policy depends on in any case."""
        tokens: set[Hashable] = {ChildRef(NAMESPACE, "", known.key.namespace)}
        try:
            spec = parse_policy(known.raw())
            needed = needed_facts(spec)
            objects = tuple(_objects_of(needed))
            # A policy that creates its workload looks at the pods of the Deployment of its own name; its spec is drift's business.
            workload = objects[0] if needed.target is not None else ChildRef(GroupKind("apps", "Deployment"), *known.key)
            tokens |= {*objects, replicas_token(workload)}
            policy = await self._resolve(spec, needed)
            tokens |= {host_token(policy.service.fqdn), *map(host_token, policy.traffic.hosts), pods_token(known.key.namespace)}
            self._yield_to_elders(known.key)
        finally:
            self.hub.dependents.set(known.key, tokens)
        return policy

    async def _resolve(self, spec: PerformancePolicy, needed: FactsNeeded) -> Policy:
        cls: PerformanceClass = select_class(spec, self.classes)
        labels = self.hub.namespaces.get(needed.namespace, {})
        target = None
        if needed.target is not None:
            kind = GroupKind(needed.target.group, needed.target.kind)
            target = await self._read(kind, needed.namespace, needed.target.name, "spec.workload.targetRef")
        read = {name: await self._read(SERVICE, needed.namespace, name, "spec.workload.serviceRef") for name in sorted(needed.services)}
        services = {name: service for name, service in read.items() if service is not None}
        return resolve(spec, cls, Facts(labels, target, services, in_mesh(labels)))

    async def _read(self, kind: GroupKind, namespace: str, name: str, path: str) -> Manifest | None:
        try:
            return await self.objects.read(kind, namespace, name)
        except ApiRejected as error:
            raise InvalidSpec([Problem(path, f"{kind.kind} {name!r} cannot be read: {error}", Reason.TARGET_NOT_FOUND)]) from error

    def _yield_to_elders(self, key: PolicyKey) -> None:
        problems = [
            Problem("spec", f"the older policy {elder} already has the {claim}", Reason.CONFLICTED)
            for elder, claim in self.policies.claims.elders(key)
            if (state := self.states.get(elder)) is not None and state.resolved is not None
        ]
        if problems:
            raise InvalidSpec(problems)

    def _take(self, state: PolicyState, policy: Policy, status: Status | None) -> None:
        if policy == state.resolved:
            return
        if state.resolved is None:
            state.memory = EvaluationMemory.from_status(policy, status)
        state.resolved, state.direct = policy, None
        state.accepted = AcceptedState(
            class_ref=policy.class_ref,
            workload=f"{policy.workload.kind}/{policy.workload.name}",
            anti_patterns=antipatterns(policy),
        )
        self.resolved_changed(state)

    def _misses(self, inventory: Iterable[Held]) -> bool:
        """Some children that were made are gone, or cannot be seen right now."""
        return any(held.ref.kind in self.served and self.hub.children.get(held.ref) is None for held in inventory)

    async def _program(self, policy: Policy, state: PolicyState, inventory: tuple[Held, ...]) -> Pass:
        served = self.served
        try:
            rendering = render(policy, served)
        except RenderError as error:
            _log.exception("a policy cannot be rendered", extra={"policy": str(policy.key)})
            state.settled, state.held, state.programmed = None, inventory, ProgrammedState(failures=(str(error),))
            return Pass(after=_RECHECK, result=Result.ERROR)
        # What an Observe policy does not write it does not delete either: its other children stay as they are.
        prunable = frozenset(kind.group_kind for kind in KINDS if kind.observing) & served if policy.mode is Mode.OBSERVE else served
        if policy.suspended:
            due = tuple(map(str, self.applier.unapplied(policy, rendering.manifests, prunable)))
            missing = programmed(policy, rendering, Outcome()).missing
            state.settled, state.held = None, inventory
            state.programmed = ProgrammedState(suspended=True, waiting=(*due, *missing))
            return Pass()
        expected = _expected(policy, rendering, state.memory.expected)
        state.memory = replace(state.memory, expected=(policy, expected))
        withheld = self._withheld(policy)
        outside = self._outside(policy, withheld)
        outcome = await self.applier.apply(policy, rendering.manifests, withheld, inventory, prunable, self.asked(policy.key))
        self.hub.dependents.add(policy.key, outcome.blocked_by)
        state.held = tuple(sorted(outcome.held, key=lambda held: str(held.ref)))
        # What changed meanwhile may have come too late for what was already looked at: it has queued the policy.
        calm = not (outcome.held_up or rendering.missing or self.again(policy.key))
        digest = settled.digest(policy, outside, state.held, self.hub.children, judged=True) if calm else None
        state.settled = None if digest is None else SettledStatus(digest=digest, revision=expected)
        state.programmed = replace(programmed(policy, rendering, outcome), reported=self._reported(policy), settled=state.settled)
        if outcome.writes:
            _log.info("applied", extra={"policy": str(policy.key), "writes": outcome.writes})
        return _following(outcome)

    def _is_settled(
        self, policy: Policy, state: PolicyState, inventory: tuple[Held, ...], before: SettledStatus, *, believed: bool
    ) -> bool:
        """Whether nothing that decides on the children has changed since they were found as wanted; if so, notes that they still are.

        `believed`: by another process.
        """
        outside = self._outside(policy, self._withheld(policy))
        if before.digest != settled.digest(policy, outside, inventory, self.hub.children, judged=not believed):
            return False
        for held in inventory:
            self.hub.children.judge(held.ref)
        state.memory = replace(state.memory, expected=(policy, before.revision))
        state.held = inventory
        state.programmed = ProgrammedState(reported=self._reported(policy), observe_only=policy.mode is Mode.OBSERVE, settled=before)
        return True

    def _outside(self, policy: Policy, withheld: Iterable[GroupKind]) -> settled.Outside:
        scaled = self.hub.foreign.scales(workload_ref(policy))
        return settled.Outside(self.served, frozenset(withheld), scaled, self.applier.complete(AUTOSCALER))

    def _withheld(self, policy: Policy) -> dict[GroupKind, Withheld]:
        """Kinds that somebody else's object claims. An Observe policy claims nothing itself."""
        found: dict[GroupKind, Withheld] = {}
        if policy.mode is not Mode.OBSERVE:
            for claim in self.hub.foreign.withheld(policy, partial(self._entitled, policy)):
                found.setdefault(claim.kind, claim)
        return found

    def _reported(self, policy: Policy) -> tuple[Claim, ...]:
        if policy.mode is Mode.OBSERVE:
            return ()
        return tuple(Claim(claim.reason, claim.message) for claim in self.hub.foreign.reported(policy, partial(self._entitled, policy)))

    def _entitled(self, policy: Policy, namespace: str, host: str) -> bool:
        """Whether a route in another namespace for a host of the policy's is to be respected: it stands beside one of its gateways, or the
        class that grants the policy the host grants it, and one of the gateways, there too.
        """
        gateways = policy.traffic.gateways
        cls = next((cls for cls in self.classes if cls.metadata.name == policy.class_ref.name), None)
        labels = self.hub.namespaces.get(namespace, {})
        if cls is None or any(gateway.namespace == namespace for gateway in gateways):
            return True
        there = granted(cls, namespace, labels)
        reachable = any(there.gateway(gateway.namespace, gateway.name) for gateway in gateways)
        return admits(cls.spec.allowed_namespaces, namespace, labels) and reachable and there.host(host)

    async def _write_status(self, known: KnownPolicy, state: PolicyState, old: Status | None, *, numbers: bool) -> None:
        # The spec may be newer than what was last walked: this work may have been asked for before the edit, or the walk was given up.
        if not state.generation:
            return
        workload = self._workload(state)
        if old is None:
            self.evaluate_new(known.key, state)
        applied = replace(state.programmed, resources=tuple(map(_resource, state.held)), refused=state.memory.refused)
        new = build_status(old, state.generation, state.accepted, applied, workload, state.evaluation, self.now())
        if state.evaluation is None and state.resolved is not None and old is not None:
            new = with_last_words(old, new)
        figures = numbers and (old is None or new.to_wire() != old.to_wire())
        if new == old or not (figures or material_change(old, new)):
            return
        if await self.statuses.write(known.key, known.uid, new.to_wire()):
            state.keep_status(new)
            state.written_at = asyncio.get_running_loop().time()
            for transition in transitions(old, new):
                self.notify(known.key, known.uid, transition)

    def _workload(self, state: PolicyState) -> WorkloadState:
        policy = state.resolved
        if policy is None:
            return WorkloadState()
        seen = self.hub.workloads.get(workload_ref(policy))
        return WorkloadState() if seen is None else WorkloadState(seen.desired, seen.available)


_MEASURED = (ConditionType.METRICS_AVAILABLE, ConditionType.TARGETS_MET, ConditionType.BUDGET_HEALTHY)


def with_last_words(old: Status, new: Status) -> Status:
    """A status whose conditions about measurements are the last ones written: between a restart and the first cycle nothing new is known.

    Pure. Without it every restart would write each status twice.
    """
    kept = {kind: before for kind in _MEASURED if (before := old.condition(kind)) is not None}
    return new.model_copy(update={"conditions": tuple(kept.get(condition.type, condition) for condition in new.conditions)})


def programmed(policy: Policy, rendering: Rendering, outcome: Outcome) -> ProgrammedState:
    """What a pass over the children means for the status, less the inventory. Pure."""
    essential = {kind.group_kind for kind in KINDS if kind.essential}
    return ProgrammedState(
        conflicts=tuple(Claim(conflict.reason, conflict.message) for conflict in outcome.conflicts),
        missing=tuple(str(kind) for kind in rendering.missing if kind in essential),
        extras_missing=tuple(str(kind) for kind in rendering.missing if kind not in essential),
        failures=tuple(f"{refused.ref}: {refused.message}" for refused in outcome.refused if not refused.transient),
        waiting=(*(f"{refused.ref}: {refused.message}" for refused in outcome.refused if refused.transient), *outcome.waiting),
        observe_only=policy.mode is Mode.OBSERVE,
    )


def _expected(policy: Policy, rendering: Rendering, known: tuple[Policy, int] | None) -> int:
    """Which revision of the rules was rendered: read, where that is possible, for the evaluation not to build them again to find out."""
    for manifest in rendering.manifests:
        if manifest["kind"] == prometheus_rule.KIND.kind:
            return rendered_revision(manifest["spec"]["groups"])
    return known[1] if known is not None and known[0] == policy else revision(policy)


def _following(outcome: Outcome) -> Pass:
    result = Result.ERROR if outcome.refused else Result.APPLIED if outcome.writes else Result.UNCHANGED
    if outcome.again:
        return Pass(retry=True, after=outcome.retry_after, result=result)
    return Pass(after=_RECHECK if outcome.refused or outcome.blocked_by else 0.0, result=result)


def _objects_of(needed: FactsNeeded) -> Iterator[ChildRef]:
    if needed.target is not None:
        yield ChildRef(GroupKind(needed.target.group, needed.target.kind), needed.namespace, needed.target.name)
    for name in needed.services:
        yield ChildRef(SERVICE, needed.namespace, name)


def _inventory(policy: Policy, status: Status | None) -> Iterator[Held]:
    served = {kind.group_kind for kind in KINDS}
    for item in status.resources if status is not None else ():
        kind = GroupKind(item.group, item.kind)
        if kind in served:
            yield Held(ChildRef(kind, policy.key.namespace, item.name), item.version, item.uid)


def _resource(held: Held) -> ResourceStatus:
    return ResourceStatus(group=held.ref.kind.group, version=held.version, kind=held.ref.kind.kind, name=held.ref.name, uid=held.uid)
