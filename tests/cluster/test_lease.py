"""Leader election: one writes, the others wait; judged by each one's own clock, never by times others wrote."""

import asyncio
import copy
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfpolicy.cluster import lease
from perfpolicy.cluster.client import Answer, ApiClient
from perfpolicy.cluster.lease import LeaderElection, LeaseView
from perfpolicy.errors import ApiRejected, ApiUnavailable, SettingsError
from tests.virtual_time import VirtualLoop, run

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_lease(holder: str, version: int = 1, **spec: Any) -> dict[str, Any]:
    shown = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": f"2020-01-01T00:00:{version:02}.000000Z", **spec}
    return {"metadata": {"name": "op", "resourceVersion": str(version), "managedFields": [{}]}, "spec": shown}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(clock: Clock) -> LeaseView:
    return LeaseView("me", 15, 10.0, clock)


def test_nobody_leads_from_the_start_and_a_lease_that_does_not_exist_is_free(view: LeaseView) -> None:
    view.see(None)
    assert view.left == 0
    assert view.free_in == 0


def test_another_ones_lease_is_free_only_after_it_has_not_changed_for_its_own_duration(view: LeaseView, clock: Clock) -> None:
    view.see(a_lease("other", leaseDurationSeconds=20))
    clock.now += 19
    view.see(a_lease("other", 7, leaseDurationSeconds=20, renewTime="2020-01-01T00:00:01.000000Z"))
    assert view.free_in == 1, "a new version that says the same is no renewal"
    view.see(a_lease("other", 8, leaseDurationSeconds=20))
    assert view.free_in == 20
    clock.now += 21
    assert view.free_in == 0


def test_the_times_written_in_a_lease_are_never_compared(view: LeaseView) -> None:
    view.see(a_lease("other", renewTime="1970-01-01T00:00:00.000000Z"))
    assert view.free_in == 15
    view.see(a_lease("other", renewTime="2999-01-01T00:00:00.000000Z"))
    assert view.free_in == 15


def test_a_released_lease_and_an_own_one_are_free_at_once(view: LeaseView) -> None:
    view.see(a_lease("", leaseDurationSeconds=1))
    assert view.free_in == 0
    view.see(a_lease("me"))
    assert view.free_in == 0
    assert view.left == 0, "that the Lease names us does not say that we renewed it in time"


def test_a_lease_that_was_deleted_is_left_to_its_holder_for_its_duration(view: LeaseView, clock: Clock) -> None:
    view.see(a_lease("other"))
    clock.now += 5
    view.see(None)
    assert view.free_in == 10
    assert "resourceVersion" not in view.claim("op", NOW)["metadata"]


def test_leadership_lasts_until_the_deadline_after_the_renewal_was_asked_for(view: LeaseView, clock: Clock) -> None:
    asked = clock.now
    clock.now += 4
    view.won(a_lease("me"), asked)
    assert view.left == 6
    clock.now += 6
    assert view.left == 0
    view.won(a_lease("me", 2), clock.now)
    view.lose()
    assert view.left == 0


def test_a_claim_counts_transitions_and_is_based_on_the_version_seen(view: LeaseView) -> None:
    view.see(None)
    assert view.claim("op", NOW) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "op"},
        "spec": {
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T12:00:00.000000Z",
            "renewTime": "2026-01-01T12:00:00.000000Z",
            "leaseTransitions": 0,
        },
    }
    view.see(a_lease("other", 5, leaseTransitions=3, acquireTime="then"))
    taken = view.claim("op", NOW)
    assert taken["metadata"] == {"name": "op", "resourceVersion": "5"}
    assert taken["spec"]["leaseTransitions"] == 4
    assert taken["spec"]["acquireTime"] == "2026-01-01T12:00:00.000000Z"
    view.won(a_lease("me", 6, leaseTransitions=4, acquireTime="then"), 0)
    renewed = view.claim("op", NOW)
    assert (renewed["spec"]["leaseTransitions"], renewed["spec"]["acquireTime"]) == (4, "then")
    assert view.release("op", NOW)["spec"]["holderIdentity"] == ""


class Server:
    """One Lease, with the API server's checks of versions and names."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.log: list[tuple[str, str, int]] = []
        """(who, verb, code)."""

    def handle(self, who: str, method: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        code = self._code(method, body)
        self.log.append((who, method, code))
        if code != 200:
            raise ApiRejected(f"{method}: {code}", code)
        if body is not None:
            self.version += 1
            self.lease = copy.deepcopy({**body, "metadata": {"name": "op", "resourceVersion": str(self.version)}})
        assert self.lease is not None
        return copy.deepcopy(self.lease)

    def _code(self, method: str, body: Mapping[str, Any] | None) -> int:
        if method == "POST":
            return 200 if self.lease is None else 409
        if self.lease is None:
            return 404
        based_on = None if body is None else body["metadata"]["resourceVersion"]
        return 200 if body is None or based_on == self.lease["metadata"]["resourceVersion"] else 409

    @property
    def holder(self) -> str:
        return "" if self.lease is None else str(self.lease["spec"]["holderIdentity"])


class Replica:
    """One process that takes part, with the network between it and the server."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server = name, server
        self.delay, self.lost_request, self.lost_answer = (0.0, 0.0), False, False
        self.leading = 0
        self.led = 0
        self.asleep = 0.0
        """Seconds the machine slept: timers stood still, its clock did not."""
        loop = asyncio.get_running_loop()

        def clock() -> float:
            return loop.time() + self.asleep

        view = LeaseView(name, 15, 10.0, clock)
        self.election = LeaderElection(cast(ApiClient, self), view, "ns", "op", 2.0, clock)
        self.task = asyncio.create_task(self.election.run(self.lead))

    async def lead(self) -> None:
        self.leading += 1
        self.led += 1
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.leading -= 1

    async def request(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> Answer:
        assert path == "/apis/coordination.k8s.io/v1/namespaces/ns/leases" + ("" if method == "POST" else "/op")
        before, after = self.delay
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(before)
                if self.lost_request:
                    await asyncio.Event().wait()
                answer = Answer(200, self.server.handle(self.name, method, body), {})
                await asyncio.sleep(after)
                if self.lost_answer:
                    await asyncio.Event().wait()
        except TimeoutError as error:
            raise ApiUnavailable(f"{method} {path}: no answer") from error
        return answer

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(check: Any, within: float) -> float:
    """Virtual seconds until the check holds."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while not check():
        assert loop.time() - start <= within, "too late"
        await asyncio.sleep(0.01)
    return loop.time() - start


def test_the_first_one_leads_and_renews_and_the_second_waits() -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        two = Replica("two", server)
        await asyncio.sleep(600)
        assert (one.leading, two.leading) == (1, 0)
        assert not two.election.holds
        assert {method for who, method, _ in server.log if who == "two"} == {"GET"}
        assert sum(method == "PUT" for _, method, _ in server.log) <= 301
        assert two.election.holder == "one"
        for each in (one, two):
            await each.stop()

    run(story())


def test_a_released_lease_is_taken_within_one_look_and_counted() -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        two = Replica("two", server)
        await asyncio.sleep(30)
        await one.stop()
        assert server.holder == ""
        assert not one.election.holds
        assert await until(lambda: two.leading, 3) <= 2.1
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 1
        await two.stop()

    run(story())


@pytest.mark.parametrize("seed", range(20))
def test_a_leader_that_dies_is_replaced_after_the_duration_and_one_look_at_most(seed: int) -> None:
    async def story() -> None:
        random.seed(seed)
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        two = Replica("two", server)
        await asyncio.sleep(20 + seed / 7)
        one.lost_request = True
        assert 13 - 2 <= await until(lambda: two.leading, 20) <= 17.5
        for each in (one, two):
            await each.stop()

    run(story())


def test_a_leader_cut_off_stops_before_its_lease_can_be_taken_and_stands_by_again() -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        two = Replica("two", server)
        await asyncio.sleep(30)
        one.lost_request = True
        assert await until(lambda: not one.election.holds, 12) <= 10
        assert await until(lambda: not one.leading, 1) <= 0.1, "its work is cancelled, not only held back"
        assert not two.leading
        await until(lambda: two.leading, 8)
        assert "no answer" in one.election.problem
        one.lost_request = False
        await asyncio.sleep(10)
        assert one.election.problem == ""
        assert not one.leading
        await two.stop()
        await until(lambda: one.leading, 3)
        assert one.led == 2
        await one.stop()

    run(story())


def test_one_lost_answer_costs_nothing() -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        one.lost_answer = True
        await asyncio.sleep(6)
        one.lost_answer = False
        await asyncio.sleep(60)
        assert one.led == 1
        assert one.election.holds
        await one.stop()

    run(story())


def test_a_leader_whose_lease_was_deleted_or_edited_by_hand_keeps_it() -> None:
    async def story() -> None:
        server = Server()
        one, two = Replica("one", server), Replica("two", server)
        await until(lambda: one.leading or two.leading, 3)
        leader = one if one.leading else two
        server.lease = None
        await asyncio.sleep(30)
        assert server.lease is not None
        server.lease["metadata"]["resourceVersion"] = "edited"
        await asyncio.sleep(30)
        assert (leader.led, one.led + two.led) == (1, 1)
        for each in (one, two):
            await each.stop()

    run(story())


def test_a_leader_whose_lease_was_given_to_somebody_else_stops_at_its_next_renewal() -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        server.handle("admin", "PUT", a_lease("another", server.version))
        assert await until(lambda: not one.leading, 5) <= 2.1
        assert not one.election.holds
        await one.stop()
        assert server.holder == "another", "what is not held is not released"

    run(story())


@pytest.mark.parametrize("machine", [False, True], ids=["process", "machine"])
def test_what_was_stopped_wakes_without_the_right_to_write_and_asks_before_it_claims(machine: bool) -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        server.handle("two", "PUT", a_lease("two", server.version))
        server.log.clear()
        if machine:
            one.asleep = 60
        else:
            cast(VirtualLoop, asyncio.get_running_loop()).skip(60)
        assert not one.election.holds, "in the very moment it wakes"
        await until(lambda: not one.leading, 2.1)
        await asyncio.sleep(5)
        assert {method for _, method, _ in server.log} == {"GET"}
        await one.stop()

    run(story())


def test_a_leader_that_overslept_begins_anew_even_where_nobody_holds_the_lease_any_more() -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        server.handle("two", "PUT", a_lease("", server.version))
        one.asleep = 60
        await asyncio.sleep(5)
        assert (one.leading, one.led) == (1, 2)
        await one.stop()

    run(story())


def test_a_defect_in_the_leaders_work_ends_the_process_and_releases_the_lease() -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)

        async def fail() -> None:
            raise ValueError("a defect")

        one.lead = fail  # type: ignore[method-assign]
        one.task.cancel()
        with pytest.raises(ExceptionGroup):
            await one.election.run(fail)
        assert server.holder == ""

    run(story())


def test_an_unreachable_server_does_not_hold_the_end_up() -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        await until(lambda: one.leading, 1)
        one.lost_request = True
        before = asyncio.get_running_loop().time()
        await one.stop()
        assert asyncio.get_running_loop().time() - before <= 2.1

    run(story())


def test_a_missing_right_is_told_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        server = Server()
        one = Replica("one", server)
        allowed, refused = server.handle, ApiRejected("leases is forbidden", 403)

        def refuse(who: str, method: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
            raise refused

        server.handle = refuse  # type: ignore[method-assign]
        await asyncio.sleep(30)
        assert "forbidden" in one.election.problem
        server.handle = allowed  # type: ignore[method-assign]
        await until(lambda: one.leading, 3)
        assert one.election.problem == ""
        await one.stop()

    run(story())
    assert sum("out of reach" in record.message for record in caplog.records) == 1


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_never_do_two_hold_the_lease_at_once(seed: int) -> None:
    """Three replicas, a network that delays and loses requests and answers, restarts: at most one may write at any moment."""

    async def story() -> None:
        dice, server = random.Random(seed), Server()  # noqa: S311
        replicas = [Replica(name, server) for name in ("one", "two", "three")]
        for _ in range(400):
            await asyncio.sleep(dice.uniform(0.05, 1.0))
            unlucky = dice.choice(replicas)
            unlucky.delay = (dice.choice((0, 0, 0.1, 3)), dice.choice((0, 0, 0.1, 3, 4.9)))
            unlucky.lost_request, unlucky.lost_answer = dice.random() < 0.1, dice.random() < 0.1
            assert sum(each.election.holds for each in replicas) <= 1
            assert sum(each.leading and each.election.holds for each in replicas) <= 1
        for each in replicas:
            each.delay, each.lost_request, each.lost_answer = (0, 0), False, False
        await until(lambda: any(each.leading for each in replicas), 30)
        for each in replicas:
            await each.stop()

    run(story())


def test_the_namespace_is_the_pods_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lease, "_OWN_NAMESPACE", tmp_path / "namespace")
    with pytest.raises(SettingsError, match="PERFPOLICY_LEASE_NAMESPACE"):
        lease.own_namespace()
    (tmp_path / "namespace").write_text("perfpolicy-system\n")
    assert lease.own_namespace() == "perfpolicy-system"
