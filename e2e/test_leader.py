"""Two operators with one Lease: one writes, the other takes over in time, and who has lost the Lease writes nothing."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from e2e.cluster import Cluster, programmed_by_name
from e2e.fault_proxy import FaultProxy
from e2e.faults import Away
from e2e.operator_process import PROGRAM, OperatorProcess, free_port
from e2e.policies import a_class, a_policy
from e2e.waiting import eventually
from e2e.world import CLOCKS
from lab import audit

BRIEF = {"lease_duration": "6", "lease_renew_deadline": "4", "lease_retry": "0.5"}
"""Clocks for a claim that is not about them: brief, and long enough that who runs on a busy machine keeps the Lease."""
POLICIES = 30
TERMINATED_SECONDS, KILLED_SECONDS = 3.0, 20.0


class Pair:
    """Two operators of one namespace, both ready. Use as a context manager."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, kubeconfig: str = "", **settings: str) -> None:
        """`kubeconfig`: of the first one."""
        self.cluster, self.namespace = cluster, namespace
        given = {**CLOCKS, "namespaces": namespace, "lease": "e2e", "lease_namespace": namespace, **settings}
        own = {"kubeconfig": kubeconfig or str(cluster.lab.kubeconfig)}
        one, two = folder / "one.log", folder / "two.log"
        self.operators = [
            OperatorProcess(cluster.lab, one, free_port(), PROGRAM, **given, **own),
            OperatorProcess(cluster.lab, two, free_port(), PROGRAM, **given),
        ]

    def __enter__(self) -> "Pair":
        for each in self.operators:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.operators:
            if each.running:
                each.send(signal.SIGCONT)
            each.stop()

    def roles(self) -> tuple[OperatorProcess, OperatorProcess]:
        """The leader and the standby, once there are both."""

        def found() -> tuple[OperatorProcess, OperatorProcess]:
            leading = [each for each in self.operators if each.readiness()["leader"]["leads"]]
            assert len(leading) == 1, [each.readiness() for each in self.operators]
            return leading[0], next(each for each in self.operators if each is not leading[0])

        return eventually(found, seconds=30)

    def asked(self, since: int, agent: str) -> list[audit.Request]:
        """What one of them asked of the API server since a position in the audit log."""
        return [one for one in audit.requests(self.cluster.lab.audit_log, since, agent) if agent in one.agent]

    def writes(self, since: int, agent: str) -> list[audit.Request]:
        """What one of them wrote, but for the Lease."""
        return [one for one in self.asked(since, agent) if one.is_write and one.resource != "leases"]

    def drift(self) -> None:
        """Something the leader has to repair."""
        self.cluster.delete("service", "web", self.namespace)

    def taken_over(self, since: int, agent: str, start: datetime, seconds: float) -> float:
        """Seconds from `start` to the first write of one of them since a position, as the API server dates it."""

        def wrote() -> str:
            writes = self.writes(since, agent)
            assert writes, f"{agent} has written nothing"
            return min(write.at for write in writes)

        return (datetime.fromisoformat(eventually(wrote, seconds)) - start).total_seconds()


def identity(operator: OperatorProcess) -> str:
    """Its name in the Lease and in the audit log."""
    name: str = operator.readiness()["leader"]["identity"]
    return name


def waiting(cluster: Cluster, namespace: str) -> set[str]:
    """Names of the policies that are not programmed."""
    return {name for name, done in programmed_by_name(cluster, namespace).items() if not done}


@pytest.fixture
def pair(cluster: Cluster, mesh_namespace: str, tmp_path: Path) -> Iterator[Pair]:
    """Two operators with the default clocks, and one policy that is programmed."""
    cluster.apply(a_class())
    with Pair(cluster, mesh_namespace, tmp_path) as pair:
        cluster.apply(a_policy("web", mesh_namespace))
        eventually(lambda: not waiting(cluster, mesh_namespace))
        yield pair


def test_a_leader_that_ends_or_is_killed_is_replaced_in_time(pair: Pair) -> None:
    log = pair.cluster.lab.audit_log
    leader, standby = pair.roles()
    first, second = identity(leader), identity(standby)
    assert standby.readiness()["leader"]["holder"] == first
    assert "perfpolicy_leader 1.0" in leader.metrics()
    assert "perfpolicy_leader 0.0" in standby.metrics()
    assert pair.writes(0, first)
    assert pair.writes(0, second) == [], "a standby writes nothing"

    since, start = audit.position(log), datetime.now(UTC)
    leader.send(signal.SIGTERM)
    pair.drift()
    terminated = pair.taken_over(since, second, start, TERMINATED_SECONDS + 5)
    assert leader.ended(seconds=10) == 0
    eventually(lambda: pair.cluster.get("service", "web", pair.namespace) is not None)
    children = {(one.verb, one.resource) for one in pair.writes(since, second)} - {("patch", "performancepolicies/status")}
    assert children - {("patch", "events")} == {("patch", "services")}, "what the former leader wrote is not written again"

    leader.start()
    third = identity(leader)
    since, start = audit.position(log), datetime.now(UTC)
    standby.kill()
    pair.drift()
    killed = pair.taken_over(since, third, start, KILLED_SECONDS + 5)
    print(f"\nnext write after SIGTERM {terminated:.1f} s, after SIGKILL {killed:.1f} s")
    assert terminated <= TERMINATED_SECONDS
    assert killed <= KILLED_SECONDS
    lease = pair.cluster.get("lease", "e2e", pair.namespace)
    assert lease is not None
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == (third, 2)


def interrupted(pair: Pair, interrupt: Callable[[], object], resume: Callable[[], object]) -> None:
    """The first one leads, is interrupted in the middle of its work until the other has taken over, and writes nothing afterwards."""
    cluster, namespace = pair.cluster, pair.namespace
    leader, standby = pair.roles()
    if leader is not pair.operators[0]:
        # It was too slow to keep the Lease while the other was started.
        leader.stop()
        leader.start()
        leader, standby = pair.roles()
    assert leader is pair.operators[0]
    former, successor = identity(leader), identity(standby)
    start = audit.position(cluster.lab.audit_log)
    # It is interrupted while they are still being made: whoever is slower, there is something left to write.
    with ThreadPoolExecutor() as beside:
        applied = beside.submit(cluster.apply, *(a_policy(f"web-{number}", namespace) for number in range(POLICIES)))
        eventually(lambda: len(pair.writes(start, former)) > 20)
        interrupt()
        applied.result()
    assert waiting(cluster, namespace), "there was nothing left to write"
    eventually(lambda: bool(pair.writes(start, successor)), seconds=15)
    since = audit.position(cluster.lab.audit_log)
    resume()
    # It is back when it has looked at the Lease a few times, as standbys do.
    eventually(lambda: len(pair.asked(since, former)) > 10 and leader.readiness()["leader"]["holder"] == successor)
    eventually(lambda: not waiting(cluster, namespace), seconds=60)
    # A renewal that was on its way in that moment is refused, as it names the Lease's former version.
    assert [one for one in pair.asked(since, former) if one.is_write and (one.resource, one.code) != ("leases", 409)] == []
    assert len([one for one in pair.asked(since, former) if one.resource == "leases"]) > 3
    assert leader.running
    assert (leader.readiness()["ready"], leader.readiness()["leader"]["leads"]) == (True, False)
    assert standby.readiness()["leader"]["leads"]


def test_a_leader_that_was_stopped_writes_nothing_after_it_wakes(cluster: Cluster, mesh_namespace: str, tmp_path: Path) -> None:
    cluster.apply(a_class())
    with Pair(cluster, mesh_namespace, tmp_path, **BRIEF) as pair:
        leader = pair.operators[0]
        interrupted(pair, lambda: leader.send(signal.SIGSTOP), lambda: leader.send(signal.SIGCONT))


async def test_a_leader_that_was_cut_off_writes_nothing_after_it_is_connected_again(
    cluster: Cluster, mesh_namespace: str, tmp_path: Path
) -> None:
    cluster.apply(a_class())
    loop, proxy, away = asyncio.get_running_loop(), FaultProxy(cluster.lab, tmp_path), Away(hangs=True)

    def cut() -> None:
        for concerned in (mesh_namespace, ""):
            proxy.line(concerned).arm(away)

    def play() -> None:
        with Pair(cluster, mesh_namespace, tmp_path, str(proxy.kubeconfig), **BRIEF) as pair:
            interrupted(pair, lambda: loop.call_soon_threadsafe(cut), lambda: loop.call_soon_threadsafe(away.back.set))

    await proxy.open()
    try:
        await asyncio.to_thread(play)
    finally:
        await proxy.close()
