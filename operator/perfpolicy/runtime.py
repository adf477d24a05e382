"""Composition root: settings to adapters to reconciler, and the tasks that run them.

The only module that knows both the ports and who fills them. kopf feeds it through `policy_seen` and its siblings (see handlers/).

What every replica does: watch, list, discover, sweep; nothing of it writes. What the leader does beyond is `_lead`, run by the election
while the Lease is held (at once where there is no election). All writes go through one ApiClient, which asks the election before each.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from perfpolicy.cluster.client import ApiClient, Credentials
from perfpolicy.cluster.discovery import Discovery
from perfpolicy.cluster.events import EventWriter, Notice
from perfpolicy.cluster.lease import LeaderElection
from perfpolicy.cluster.lookup import Lookup
from perfpolicy.cluster.namespaces import NAMESPACES, NamespaceLook
from perfpolicy.cluster.objects import Objects
from perfpolicy.cluster.resource import Resource
from perfpolicy.cluster.status import POLICIES, StatusWriter
from perfpolicy.cluster.watch import KindWatch
from perfpolicy.errors import ApiRejected, ApiUnavailable, PerfPolicyError
from perfpolicy.evaluate.conditions import Transition
from perfpolicy.evaluate.evaluation import Evaluation
from perfpolicy.metrics.source import MetricsSource
from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile import foreign, workloads
from perfpolicy.reconcile.applier import Applier
from perfpolicy.reconcile.class_file import ClassFile
from perfpolicy.reconcile.hub import NAMESPACE, SERVICE, Hub
from perfpolicy.reconcile.policies import Classes, KnownPolicy, Policies
from perfpolicy.reconcile.queue import Work, WorkQueue
from perfpolicy.reconcile.reconciler import Pass, Reconciler
from perfpolicy.reconcile.scheduler import Budget, Interval, Scheduler
from perfpolicy.reconcile.state import PolicyState
from perfpolicy.render.manifest import GroupKind
from perfpolicy.render.registry import KINDS, prepare
from perfpolicy.settings import Settings
from perfpolicy.telemetry import RECONCILE_SECONDS, RECONCILES, Result
from perfpolicy.vocabulary import CLASS_KIND, CLASS_PLURAL, GROUP, MANAGED_BY, MANAGED_BY_LABEL, VERSION

_log = logging.getLogger(__name__)
T = TypeVar("T")

CLASSES: Final = Resource(GROUP, VERSION, CLASS_KIND, CLASS_PLURAL, namespaced=False)
_CHILDREN: Final = tuple(Resource(kind.group, kind.version, kind.kind, kind.plural) for kind in KINDS)
_OBSERVED: Final = (
    NAMESPACES,
    Resource("", "v1", "Service", "services"),
    Resource("apps", "v1", "Deployment", "deployments"),
    Resource("apps", "v1", "StatefulSet", "statefulsets"),
    Resource("apps", "v1", "DaemonSet", "daemonsets"),
    Resource("argoproj.io", "v1alpha1", "Rollout", "rollouts"),
    Resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
)
WATCHED: Final = tuple(dict.fromkeys((*_CHILDREN, *_OBSERVED)))
_WHOLE: Final = foreign.KINDS | workloads.KINDS
_UNFILTERED: Final = _WHOLE | {SERVICE, NAMESPACE}
_CHILD_KINDS: Final = frozenset(kind.group_kind for kind in KINDS)
_SYNC_POLL = 0.05
_SYNC_PAUSE = 1.0
"""Seconds kopf is given to deliver a first list of what there is; twice as many for each list after it."""
_SYNC_PATIENCE = 30.0
_REACHABLE = 30.0
"""Seconds within which an API server that is there has answered something: discovery alone asks every few seconds."""
_REQUEUES_PER_SECOND = 100.0
"""How fast all policies are looked at again after a class or the served kinds changed."""


class Runtime:
    """The running operator, without kopf."""

    def __init__(self, settings: Settings, api: ApiClient, election: LeaderElection | None = None) -> None:
        """`election`: decides when this process leads; None: from the start."""
        self.settings = settings
        self._api, self._election = api, election
        self.queue = WorkQueue(settings.retry_min, settings.retry_max, share=_share(settings))
        self.hub = Hub(self.queue.add, _CHILD_KINDS)
        self.policies = Policies(self.queue.add)
        self.classes = Classes(self._class_changed)
        self.states: dict[PolicyKey, PolicyState] = {}
        self._events = EventWriter(api, socket.gethostname())
        resources = {GroupKind(resource.group, resource.kind): resource for resource in (*WATCHED, POLICIES, CLASSES)}
        self._objects = Objects(api, resources)
        self._metrics = MetricsSource()
        self._scheduler = Scheduler(
            self._metrics,
            self.states,
            self.queue.add,
            _now,
            lambda: Interval(settings.poll_min, settings.poll_max, settings.poll_factor),
            Budget(settings.status_writes_per_second),
        )
        self._reconciler = Reconciler(
            policies=self.policies,
            classes=self.classes,
            hub=self.hub,
            objects=self._objects,
            applier=Applier(
                self._objects, Lookup(self._objects, self.queue.waiting), self.hub.children, self._is_complete, self.hub.foreign.scales
            ),
            statuses=StatusWriter(api),
            notify=self._notify,
            now=_now,
            states=self.states,
            requeue=self.queue.add,
            asked=self.queue.asked,
            again=self.queue.again,
            resolved_changed=self._resolved_changed,
            evaluate_new=self._scheduler.evaluate_new,
            still_there=self._still_there,
        )
        look = NamespaceLook(api, self.hub, settings.namespaces, settings.sweep) if settings.namespaces else None
        self._watches = {resource: self._watch(resource) for resource in WATCHED if look is None or resource != NAMESPACES}
        self._namespaces = look
        self._class_file = None if settings.class_file is None else ClassFile(settings.class_file, self.classes, settings.discovery)
        self.kinds = (POLICIES, CLASSES) if self._class_file is None else (POLICIES,)
        """Our own kinds, as far as they are read from the cluster."""
        self.serving: frozenset[Resource] = frozenset()
        """Those of them the API server serves."""
        self._absent: frozenset[Resource] = frozenset()
        self._discovery = Discovery(api, (*WATCHED, *self.kinds), self._served_changed, settings.discovery)
        self.ready = False

    @classmethod
    async def connect(cls, settings: Settings) -> "Runtime":
        """Runtime on the API server the settings name. Raises SettingsError."""
        if not settings.lease:
            return cls(settings, await ApiClient.connect(settings))
        # Not the host name alone: a restarted container is another process, which must not believe it holds what the former one held.
        identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
        election = await LeaderElection.connect(settings, identity)
        return cls(settings, await ApiClient.connect(settings, identity, lambda: election.holds), election)

    async def credentials(self) -> Credentials:
        """How kopf reaches the same API server."""
        return await self._api.credentials()

    def policy_seen(self, raw: Mapping[str, Any]) -> None:
        """A policy exists, as shown."""
        self.policies.put(raw)

    def policy_gone(self, raw: Mapping[str, Any]) -> None:
        """A policy was deleted."""
        metadata = raw["metadata"]
        self.policies.drop(PolicyKey(metadata["namespace"], metadata["name"]), metadata["uid"])

    def class_seen(self, raw: Mapping[str, Any]) -> None:
        """A class exists, as shown."""
        self.classes.put(raw)

    def class_gone(self, raw: Mapping[str, Any]) -> None:
        """A class was deleted."""
        self.classes.drop(raw["metadata"]["name"])

    def problems(self) -> dict[str, str]:
        """What is wrong right now, by what it is about: watches, rights, the Lease, namespaces, classes and metrics sources."""
        watches = {f"watch {watch.resource.plural}": watch.problem for watch in self._watches.values() if watch.problem}
        classes = {f"{CLASS_KIND} {name}": str(error) for name, error in self.classes.problems.items()}
        lease = {"lease": self._election.problem} if self._election is not None and self._election.problem else {}
        looks = {
            name: look.problem
            for name, look in (("namespaces", self._namespaces), ("class file", self._class_file))
            if look is not None and look.problem
        }
        return self._api.problems() | watches | lease | looks | classes | self._metrics.problems()

    def absent(self) -> list[str]:
        """Kinds the API server does not serve, as `plural.group`; what needs one of them waits for its CRD."""
        return sorted(f"{resource.plural}.{resource.group}" for resource in self._absent)

    def leadership(self) -> dict[str, Any]:
        """Who leads: `identity` of this replica and `holder` of the Lease, both empty where there is no election."""
        election = self._election
        return {
            "leads": self.leads,
            "identity": "" if election is None else election.identity,
            "holder": "" if election is None else election.holder,
        }

    def stuck(self) -> dict[str, str]:
        """What only a new process cures, by what it is about: a watch that hears nothing and does not know it, of an API server that
        answers other requests. One that is refused or cut off is tried again anyway, and an API server that is away is waited for.
        """
        if self._api.answered > _REACHABLE:
            return {}
        return {
            f"watch {watch.resource.plural}": f"nothing heard for {watch.age:.0f} s though it counts as connected"
            for watch in self._watches.values()
            if watch.stuck
        }

    def watch_ages(self) -> dict[str, float]:
        """Seconds since each watch last heard anything, by plural."""
        return {watch.resource.plural: age for watch in self._watches.values() if (age := watch.age) is not None}

    def conditions(self) -> Counter[tuple[str, str]]:
        """How many policies have which condition with which status; nothing where another replica leads."""
        found: Counter[tuple[str, str]] = Counter()
        for said, count in Counter(state.said for state in self.states.values()).items() if self.leads else ():
            for each in said:
                found[each] += count
        return found

    def evaluations(self) -> list[Evaluation]:
        """What the last cycles said of each accepted policy; nothing where another replica leads."""
        states = self.states.values() if self.leads else ()
        return [state.evaluation for state in states if state.resolved is not None and state.evaluation is not None]

    @property
    def leads(self) -> bool:
        """This process may write."""
        return self.ready and (self._election is None or self._election.holds)

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for watch in self._watches.values():
                    group.create_task(watch.run(), name=f"watch {watch.resource.plural}")
                if self._namespaces is not None:
                    group.create_task(self._namespaces.run(), name="namespaces")
                if self._class_file is not None:
                    self._class_file.look()
                    group.create_task(self._class_file.run(), name="class file")
                group.create_task(self._discovery.run(), name="discovery")
                group.create_task(self._events.run(), name="events")
                prepare()
                await self._synchronise()
                self.ready = True
                _log.info("synchronised", extra={"policies": len(self.policies), "classes": len(self.classes.names())})
                group.create_task(self._every(self.settings.sweep, "sweep", self._sweep), name="sweep")
                await (self._lead() if self._election is None else self._election.run(self._lead))
        finally:
            self.ready = False
            self._metrics.close()
            await self._api.close()
            if self._election is not None:
                await self._election.close()

    async def _lead(self) -> None:
        """What only the leader does, until cancelled: walk every policy, and then whatever changes.

        Begins with what is in the cluster: what an earlier leadership of this process remembers was changed by another leader since. What
        changed last, with nobody to follow it, comes first.
        """
        changed = self.queue.latest()
        self._reconciler.reset()
        self.queue.clear()
        if self._election is not None:
            # What the former leader wrote last may not have been delivered yet.
            await self._attempt("sweep", self._sweep)
        for key in dict.fromkeys([*changed, *self.policies]):
            if self.policies.get(key) is not None:
                self.queue.add(key)
        async with asyncio.TaskGroup() as group:
            for number in range(self.settings.workers):
                group.create_task(self._work(), name=f"worker {number}")
            group.create_task(self._scheduler.run(), name="scheduler")
            group.create_task(self._resync(), name="resync")

    async def _synchronise(self) -> None:
        """Wait until everything a decision is based on has been seen once: acting earlier would undo what only is not known yet."""
        for watch in self._watches.values():
            await watch.settled.wait()
        if self._namespaces is not None:
            await self._namespaces.settled.wait()
        deadline, seconds = asyncio.get_running_loop().time() + _SYNC_PATIENCE, _SYNC_PAUSE
        while not await self._attempt("catch up", partial(self._has_caught_up, seconds)):
            if asyncio.get_running_loop().time() > deadline:
                await self._attempt("sweep", self._sweep)
                return
            await asyncio.sleep(_SYNC_PAUSE)
            seconds *= 2

    async def _has_caught_up(self, seconds: float) -> bool:
        """Whether kopf delivers every policy and class there is now within so many seconds. One deleted meanwhile it never will."""
        policies, classes = await self._list(POLICIES, self._objects.list_metadata), await self._class_names()
        waiting = True
        until = asyncio.get_running_loop().time() + seconds
        while waiting and asyncio.get_running_loop().time() < until:
            behind = self.policies.stale(policies)[1]
            missing = classes - self.classes.names()
            waiting = bool(behind or missing)
            if waiting:
                await asyncio.sleep(_SYNC_POLL)
        return not waiting

    async def _list(
        self, resource: Resource, read: Callable[[GroupKind, str | None], Awaitable[list[dict[str, Any]]]]
    ) -> list[dict[str, Any]]:
        """What `read` finds of every policy (of our namespaces) or class; nothing where the CRD is not installed."""
        namespaces: tuple[str | None, ...] = self.settings.namespaces if resource.namespaced and self.settings.namespaces else (None,)
        kind, found = GroupKind(resource.group, resource.kind), []
        for namespace in namespaces:
            try:
                found += await read(kind, namespace)
            except ApiRejected as error:
                if error.status != 404:
                    raise
        return found

    async def _class_names(self) -> frozenset[str]:
        """Names of the classes there are."""
        if self._class_file is not None:
            return self.classes.names()
        return frozenset(item["name"] for item in await self._list(CLASSES, self._objects.list_metadata))

    async def _sweep(self) -> None:
        """Find policies and classes that came, went or changed unseen."""
        gone, behind = self.policies.stale(await self._list(POLICIES, self._objects.list_metadata))
        for key in gone:
            self.policies.drop(key)
        for key in behind:
            # Each for itself: one that cannot be read or kept must not hide the others.
            await self._attempt(f"read {key}", partial(self._read_again, key))
        if self._class_file is not None:
            return
        # Whole: they are few, and reading one by one would take a right more.
        classes = await self._list(CLASSES, self._objects.list_whole)
        for name in self.classes.names() - {raw["metadata"]["name"] for raw in classes}:
            self.classes.drop(name)
        for raw in classes:
            self.classes.put(raw)

    async def _read_again(self, key: PolicyKey) -> None:
        raw = await self._objects.read(GroupKind(POLICIES.group, POLICIES.kind), key.namespace, key.name)
        if raw is not None:
            self.policies.put(raw)

    async def _still_there(self, known: KnownPolicy) -> bool:
        raw = await self._objects.read(GroupKind(POLICIES.group, POLICIES.kind), *known.key)
        return raw is not None and raw["metadata"]["uid"] == known.uid and "deletionTimestamp" not in raw["metadata"]

    async def _resync(self) -> None:
        while True:
            keys = list(self.policies)
            for key in keys:
                self.queue.add(key)
                await asyncio.sleep(self.settings.resync / len(keys))
            if not keys:
                await asyncio.sleep(min(self.settings.resync, 60.0))

    async def _every(self, seconds: float, name: str, job: Callable[[], Awaitable[Any]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._attempt(name, job)

    async def _attempt(self, name: str, job: Callable[[], Awaitable[T]]) -> T | None:
        """The job's answer; None where it failed, which is logged."""
        try:
            return await job()
        except PerfPolicyError as error:
            _log.warning("a job failed", extra={"job": name, "problem": str(error)})
        except Exception:  # noqa: BLE001 - a defect met by one job must not end the operator for everybody; it is logged in full
            _log.exception("a job met a defect", extra={"job": name})
        return None

    async def _work(self) -> None:
        while True:
            # A walk that finds all as it should be waits for nothing: thousands of them would keep the Lease waiting, and the probes.
            await asyncio.sleep(0)
            key, work = await self.queue.get()
            started = time.monotonic()
            try:
                result = await self._walk(key, work)
            finally:
                self.queue.done(key)
                if self.policies.get(key) is None:
                    self.queue.forget(key)
            if result is not None:
                seconds = time.monotonic() - started
                RECONCILES.labels(result).inc()
                RECONCILE_SECONDS.observe(seconds)
                _log.debug("walked", extra={"policy": str(key), "result": result, "seconds": round(seconds, 3)})

    async def _walk(self, key: PolicyKey, work: Work) -> Result | None:
        """How it ended; None where only the status was looked at."""
        try:
            following = await self._reconciler.process(key, work)
            self._follow(key, following)
        except ApiUnavailable as error:
            pause = self.queue.retry(key, error.retry_after or 0.0)
            _log.warning("will try again", extra={"policy": str(key), "seconds": round(pause, 1), "problem": str(error)})
        except Exception:  # noqa: BLE001 - a defect met by one policy must not stop the others; it is logged in full and tried again
            pause = self.queue.retry(key)
            _log.exception("a policy cannot be reconciled", extra={"policy": str(key), "seconds": round(pause, 1)})
        else:
            return None if following is None else following.result
        return Result.ERROR

    def _follow(self, key: PolicyKey, following: Pass | None) -> None:
        if following is None:
            return
        if following.retry:
            self.queue.retry(key, following.after)
            return
        self.queue.succeeded(key)
        if following.after:
            self.queue.add_after(key, following.after)

    def _is_complete(self, kind: GroupKind) -> bool:
        """Whether every object of a child kind is known: watched without a selector, and listed since the kind was last served."""
        return kind in _UNFILTERED and any(watch.complete for resource, watch in self._watches.items() if _kind(resource) == kind)

    def _watch(self, resource: Resource) -> KindWatch:
        kind = GroupKind(resource.group, resource.kind)
        return KindWatch(
            self._api,
            resource,
            self.hub,
            selector="" if kind in _UNFILTERED else f"{MANAGED_BY_LABEL}={MANAGED_BY}",
            whole=kind in _WHOLE,
            namespaces=self.settings.namespaces,
            timeout=self.settings.watch_timeout,
            relist=self.settings.relist,
        )

    def _served_changed(self, served: frozenset[Resource]) -> None:
        kinds = frozenset(GroupKind(resource.group, resource.kind) for resource in served)
        self._absent = frozenset({*WATCHED, *self.kinds}) - served
        _log.info("served kinds", extra={"missing": self.absent()})
        self.serving = served & set(self.kinds)
        self._reconciler.served = kinds & _CHILD_KINDS
        for resource, watch in self._watches.items():
            watch.set_served(resource in served)
        self._requeue(self.policies)

    def _class_changed(self, name: str) -> None:
        self._requeue(key for key in self.policies if (known := self.policies.get(key)) and known.class_name in (name, ""))

    def _requeue(self, keys: Iterable[PolicyKey]) -> None:
        """All of them, a bounded number a second."""
        if not self.ready:
            return
        for number, key in enumerate(keys):
            self.queue.add_after(key, number / _REQUEUES_PER_SECOND)

    def _resolved_changed(self, state: PolicyState) -> None:
        if state.resolved is not None:
            self._scheduler.poke(state.resolved.metrics.provider)

    def _notify(self, key: PolicyKey, uid: str, transition: Transition) -> None:
        self._events.emit(Notice(key, uid, transition.reason, transition.message, not transition.normal))


def _share(settings: Settings) -> int:
    """How many workers may work for one namespace at the same time."""
    return settings.workers if len(settings.namespaces) == 1 else max(1, settings.workers * 3 // 4)


def _kind(resource: Resource) -> GroupKind:
    return GroupKind(resource.group, resource.kind)


def _now() -> datetime:
    return datetime.now(UTC)
