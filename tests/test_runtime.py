"""Who leads writes, who stands by does not; and what a job that fails does to the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from e2e.policies import CHILDREN, a_class
from e2e.policies import a_policy as burst_policy
from perfpolicy import runtime
from perfpolicy.cluster import lookup
from perfpolicy.cluster.client import Answer, ApiClient
from perfpolicy.cluster.lease import LeaderElection
from perfpolicy.cluster.status import POLICIES
from perfpolicy.errors import ApiRejected, ApiUnavailable, NotLeading
from perfpolicy.evaluate.evaluation import EvaluationMemory, evaluate
from perfpolicy.evaluate.observation import Snapshot
from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.queue import Work
from perfpolicy.reconcile.reconciler import Reconciler
from perfpolicy.reconcile.state import PolicyState
from perfpolicy.render.manifest import GroupKind
from perfpolicy.runtime import CLASSES, WATCHED, Runtime
from perfpolicy.settings import Settings
from tests import builders

WEB = PolicyKey("ns", "web")


def a_policy(version: int = 5, status: dict[str, Any] | None = None) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "ns", "uid": "u", "resourceVersion": str(version), "generation": 1}
    return {"metadata": metadata, "spec": {"className": "missing"}, "status": status}


def shown_class(name: str, generation: int) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-{name}", "generation": generation, "resourceVersion": str(generation)}
    return {**a_class(), "metadata": metadata}


class Api:
    """An API server that serves every kind, holds one policy and refuses writes of who does not lead."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, Any]] = []
        self.reads: list[str] = []
        self.seconds = 0.0
        """What each answer takes."""
        self.may_write: Callable[[], bool] = lambda: True
        self.policies = [a_policy()]
        self.classes: list[dict[str, Any]] = []
        self.going: list[dict[str, Any]] = []
        self.refused: dict[str, ApiRejected] = {}
        self.closed = False

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Answer:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if method != "GET":
            if not self.may_write():
                raise NotLeading("no")
            self.writes.append((path, body))
            return Answer(200, {"metadata": {"uid": f"u{len(self.writes)}"}}, {})
        self.reads.append(path)
        if path == "/apis":
            return Answer(200, {"items": [_discovered(resource) for resource in (*WATCHED, POLICIES, CLASSES)]}, {})
        if path in self.refused:
            raise self.refused[path]
        if path.endswith("/performancepolicies"):
            items = [*self.policies, *([self.going.pop()] if self.going else [])]
            return Answer(200, {"items": items, "metadata": {"resourceVersion": "1"}}, {})
        if path.endswith("/performancepolicies/web"):
            return Answer(200, self.policies[0], {})
        if path == "/api/v1/namespaces":
            return Answer(200, {"items": [{"metadata": {"name": "ns", "uid": "n"}}], "metadata": {"resourceVersion": "1"}}, {})
        if path.endswith(f"/{CLASSES.plural}"):
            return Answer(200, {"items": self.classes, "metadata": {"resourceVersion": "1"}}, {})
        if path.rpartition("/")[2] not in {resource.plural for resource in WATCHED}:
            raise ApiRejected("not found", 404)
        return Answer(200, {"items": [], "metadata": {"resourceVersion": "1"}}, {})

    async def stream(self, path: str, *, on_open: Callable[[], None], **_: Any) -> AsyncIterator[dict[str, Any]]:
        on_open()
        await asyncio.Event().wait()
        yield {}

    async def close(self) -> None:
        self.closed = True

    answered = 0.0

    def problems(self) -> dict[str, str]:
        return {"patch deployments": "deployments is forbidden"}

    def statuses(self) -> list[Mapping[str, Any]]:
        return [body["status"] for path, body in self.writes if path.endswith("/status")]


def _discovered(resource: Any) -> dict[str, Any]:
    kinds = [{"responseKind": {"kind": resource.kind}}]
    return {"metadata": {"name": resource.group}, "versions": [{"version": resource.version, "resources": kinds}]}


class Election:
    """Leads when told to."""

    identity, holder, problem = "me", "me", ""

    def __init__(self) -> None:
        self.holds = self.leading = False
        self.changed = asyncio.Event()

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            while not self.holds:
                await self._change()
            work, self.leading = asyncio.create_task(lead()), True
            try:
                while self.holds:
                    await self._change()
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                self.leading = False

    async def _change(self) -> None:
        await self.changed.wait()
        self.changed.clear()

    def set(self, holds: bool) -> None:
        self.holds = holds
        self.changed.set()

    async def close(self) -> None:
        pass


class Bench:
    def __init__(self, *, election: bool, policy: bool = True) -> None:
        self.api = Api()
        if not policy:
            self.api.policies.clear()
        self.election = Election() if election else None
        self.runtime = Runtime(Settings(), cast(ApiClient, self.api), cast(LeaderElection | None, self.election))
        if self.election is not None:
            self.api.may_write = lambda: self.election is not None and self.election.holds
        for seen in self.api.policies:
            self.runtime.policy_seen(seen)
        self.task = asyncio.create_task(self.runtime.run())

    async def until(self, check: Callable[[], Any], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not check():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def standby() -> AsyncIterator[Bench]:
    bench = Bench(election=True)
    await bench.until(lambda: bench.runtime.ready)
    yield bench
    await bench.stop()


async def test_without_an_election_the_process_leads_once_it_is_synchronised() -> None:
    bench = Bench(election=False)
    assert not bench.runtime.leads
    await bench.until(bench.api.statuses)
    assert bench.runtime.leads
    await bench.stop()
    assert bench.api.closed
    assert not bench.runtime.ready


async def test_a_policy_deleted_while_the_operator_starts_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the list taken at the start, and kopf never shows it."""
    monkeypatch.setattr(runtime, "_SYNC_PAUSE", 0.01)
    bench = Bench(election=True)
    bench.api.going = [{"metadata": {**a_policy()["metadata"], "name": "going"}}]
    await bench.until(lambda: bench.runtime.ready)
    assert not bench.api.going
    await bench.stop()


async def test_a_standby_is_ready_and_knows_everything_but_neither_works_nor_writes(standby: Bench) -> None:
    await asyncio.sleep(0.05)
    assert standby.runtime.ready
    assert not standby.runtime.leads
    assert list(standby.runtime.policies) == [WEB]
    assert standby.runtime.states == {}
    assert standby.api.writes == []


async def test_a_standby_that_becomes_the_leader_works_at_once(standby: Bench) -> None:
    assert standby.election is not None
    standby.election.set(True)
    await standby.until(standby.api.statuses)
    assert standby.runtime.leads


async def test_walks_that_wait_for_nothing_let_everything_else_have_its_turn(standby: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restart, when nothing is to be written: the Lease must be renewed in between."""
    walked: list[PolicyKey] = []

    async def process(_: Reconciler, key: PolicyKey, __: Work) -> None:
        walked.append(key)

    monkeypatch.setattr(Reconciler, "process", process)
    for number in range(500):
        seen = {**a_policy(), "metadata": {**a_policy()["metadata"], "namespace": f"ns{number % 10}", "name": f"p{number}"}}
        standby.api.policies.append(seen)
        standby.runtime.policy_seen(seen)
    assert standby.election is not None
    standby.election.set(True)
    turns = []
    while len(walked) < 500:
        await asyncio.sleep(0)
        turns.append(len(walked))
    most = max(after - before for before, after in pairwise(turns))
    assert most <= standby.runtime.settings.workers


async def test_what_changed_while_nobody_led_comes_first(standby: Bench) -> None:
    for name in ("a", "b", "c", "d"):
        seen = {**a_policy(), "metadata": {**a_policy()["metadata"], "name": name}}
        standby.api.policies.append(seen)
        standby.runtime.policy_seen(seen)
    for name in ("d", "c", "gone"):
        standby.runtime.queue.add(PolicyKey("ns", name))
    assert standby.election is not None
    standby.election.set(True)
    await standby.until(lambda: len(standby.api.statuses()) == 5)
    written = [path.split("/")[-2] for path, _ in standby.api.writes if path.endswith("/status")]
    assert written[:2] == ["c", "d"]


async def test_classes_that_came_changed_or_went_unseen_are_found_by_looking(standby: Bench) -> None:
    for name in ("changed", "gone"):
        standby.runtime.class_seen(shown_class(name, 1))
    standby.api.classes = [shown_class("changed", 2), shown_class("new", 1)]
    assert standby.election is not None
    standby.election.set(True)
    await standby.until(standby.api.statuses)
    assert {cls.metadata.name: cls.metadata.generation for cls in standby.runtime.classes} == {"changed": 2, "new": 1}


async def regain(bench: Bench, meanwhile: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Lead, lose the lease to somebody who writes another status, lead again: the statuses written since."""
    assert bench.election is not None
    bench.election.set(True)
    await bench.until(bench.api.statuses)
    bench.election.set(False)
    await bench.until(lambda: bench.election is not None and not bench.election.leading)
    assert bench.runtime.ready
    before, old = len(bench.api.statuses()), bench.runtime.states[WEB]
    bench.api.policies[:] = [a_policy(9, meanwhile(dict(bench.api.statuses()[-1])))]
    bench.election.set(True)
    await bench.until(lambda: bench.runtime.states.get(WEB, old) is not old and bench.runtime.queue.idle)
    return bench.api.statuses()[before:]


async def test_a_leader_that_leads_again_corrects_what_another_one_wrote_meanwhile(standby: Bench) -> None:
    def accept(status: dict[str, Any]) -> dict[str, Any]:
        return {**status, "conditions": [{**condition, "status": "True"} for condition in status["conditions"]]}

    corrected = await regain(standby, accept)
    assert [condition["status"] for condition in corrected[-1]["conditions"] if condition["type"] == "Accepted"] == ["False"]


async def test_a_leader_that_leads_again_writes_nothing_where_nothing_differs(standby: Bench) -> None:
    assert await regain(standby, lambda status: status) == []


async def test_a_job_that_fails_is_logged_and_ends_nothing(standby: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(error: Exception) -> int:
        raise error

    async def succeed() -> int:
        return 7

    assert await standby.runtime._attempt("good", succeed) == 7
    assert await standby.runtime._attempt("unlucky", lambda: fail(ApiUnavailable("down"))) is None
    assert await standby.runtime._attempt("broken", lambda: fail(ZeroDivisionError())) is None
    found = [(record.message, vars(record)["job"], record.exc_info is not None) for record in caplog.records]
    assert ("a job failed", "unlucky", False) in found
    assert ("a job met a defect", "broken", True) in found


async def test_a_job_can_be_cancelled(standby: Bench) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await standby.runtime._attempt("endless", asyncio.Event().wait)


@pytest.mark.parametrize(
    ("kind", "complete"),
    [
        (GroupKind("networking.istio.io", "VirtualService"), True),
        (GroupKind("", "Service"), True),
        (GroupKind("networking.k8s.io", "NetworkPolicy"), False),
        (GroupKind("", "Secret"), False),
    ],
)
async def test_a_kind_is_complete_where_it_is_watched_without_a_selector(standby: Bench, kind: GroupKind, complete: bool) -> None:
    assert standby.runtime._is_complete(kind) is complete


async def test_a_kind_is_not_complete_while_it_is_not_served(standby: Bench) -> None:
    standby.runtime._served_changed(frozenset(resource for resource in WATCHED if resource.kind != "VirtualService"))
    assert not standby.runtime._is_complete(GroupKind("networking.istio.io", "VirtualService"))
    assert standby.runtime._is_complete(GroupKind("", "Service"))


async def test_everything_that_is_wrong_is_told_by_what_it_is_about(standby: Bench) -> None:
    runtime = standby.runtime
    runtime._watches[WATCHED[0]].problem = "reset"
    runtime.class_seen({"metadata": {"name": "gold", "uid": "u"}, "spec": {"limits": 7}})
    assert standby.election is not None
    standby.election.problem = "leases is forbidden"
    runtime._served_changed(frozenset(resource for resource in WATCHED if resource.kind != "VirtualService"))
    problems = runtime.problems()
    assert set(problems) == {f"watch {WATCHED[0].plural}", "patch deployments", "lease", "PerformanceClass gold"}
    assert problems["lease"] == "leases is forbidden"
    assert "virtualservices.networking.istio.io" in runtime.absent()
    assert runtime.leadership() == {"leads": False, "identity": "me", "holder": "me"}


async def test_only_a_watch_that_does_not_know_of_its_silence_is_stuck_and_only_while_the_api_server_answers(
    standby: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert standby.runtime.stuck() == {}
    loop = asyncio.get_running_loop()
    late = loop.time() + 4 * Settings().watch_timeout + 1
    monkeypatch.setattr(loop, "time", lambda: late)
    assert set(standby.runtime.stuck()) == {f"watch {resource.plural}" for resource in WATCHED}
    standby.api.answered = 31.0
    assert standby.runtime.stuck() == {}, "an API server that is away is waited for"


async def test_policies_are_counted_by_condition_by_the_leader_only(standby: Bench) -> None:
    assert standby.election is not None
    assert standby.runtime.conditions() == {}
    standby.election.set(True)
    await standby.until(lambda: WEB in standby.runtime.states and standby.runtime.states[WEB].said)
    assert standby.runtime.conditions()["Accepted", "False"] == 1
    standby.election.set(False)
    assert standby.runtime.conditions() == {}


async def test_values_are_told_of_accepted_policies_by_the_leader_only(standby: Bench) -> None:
    assert standby.election is not None
    standby.election.set(True)
    await standby.until(lambda: standby.runtime.leads and WEB in standby.runtime.states)
    policy = builders.a_policy(namespace="ns", name="web")
    state = standby.runtime.states[WEB] = PolicyState("u", resolved=policy)
    assert standby.runtime.evaluations() == []
    state.evaluation, _ = evaluate(policy, Snapshot(), EvaluationMemory(), datetime.now(UTC))
    assert standby.runtime.evaluations() == [state.evaluation]
    state.resolved = None
    assert standby.runtime.evaluations() == [], "refused or being deleted: nobody evaluates it any more"
    state.resolved = policy
    standby.election.set(False)
    assert standby.runtime.evaluations() == []


async def test_walks_are_counted_and_at_debug_logged_by_how_they_ended(caplog: pytest.LogCaptureFixture) -> None:
    def walks(result: str) -> float:
        return REGISTRY.get_sample_value("perfpolicy_reconcile_total", {"result": result}) or 0.0

    caplog.set_level("DEBUG", "perfpolicy")
    rejected, failed = walks("rejected"), walks("error")
    bench = Bench(election=False)
    await bench.until(lambda: walks("rejected") > rejected)
    bench.api.may_write = lambda: False
    edited = a_policy(8)
    edited["metadata"]["generation"] = 2
    edited["spec"] = {"className": "another"}
    bench.runtime.policy_seen(edited)
    await bench.until(lambda: walks("error") > failed)
    await bench.stop()
    said = [(vars(record)["policy"], vars(record)["result"]) for record in caplog.records if record.getMessage() == "walked"]
    assert (said[0], said[-1]) == (("ns/web", "rejected"), ("ns/web", "error"))


async def test_a_burst_of_policies_costs_few_reads_and_one_status_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_FRESH_SECONDS", 600.0)  # not timed: machines are slow at times
    bench, count = Bench(election=False, policy=False), 100
    await bench.until(lambda: bench.runtime.leads, seconds=60)
    bench.runtime.class_seen({**a_class(), "metadata": {"name": "e2e", "uid": "c", "generation": 1}})
    bench.runtime.hub.namespaces["ns"] = {"istio-injection": "enabled"}
    bench.api.reads.clear()
    bench.api.seconds = 0.002

    def create(number: int) -> None:
        policy = burst_policy(f"p{number}", "ns", replicas=0)
        policy["metadata"] |= {"uid": f"u{number}", "resourceVersion": "5", "generation": 1}
        bench.runtime.policy_seen(policy)

    create(0)
    await bench.until(lambda: bench.runtime._scheduler._last, seconds=60)
    for number in range(1, count):
        create(number)
    await bench.until(lambda: len({path for path, _ in bench.api.writes if path.endswith("/status")}) == count, seconds=60)
    await bench.until(lambda: bench.runtime.queue.idle, seconds=60)
    names = [path for path, _ in bench.api.writes if not path.endswith("/status") and "/events/" not in path]
    looks = Counter(path for path in bench.api.reads if "/namespaces/ns/" in path)
    assert len(names) == len(set(names)) == count * len(CHILDREN), "each child once"
    assert looks.total() < count / 4, looks
    assert len(bench.api.statuses()) <= 1.05 * count
    await bench.stop()
