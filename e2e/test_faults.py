"""Whatever goes wrong between the operator and the API server, and whenever: the end is that of the undisturbed run (after Sieve).

`make trust` plays every fault at every write and event; without it a few are played, always the same ones.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.fault_proxy import Fault
from e2e.faults import REASONS, Away, BlackHole, CutWrite, Drop, Gone, Kill, Late, Lose, OldLists, Refuse, RefuseReads, Slow
from e2e.faulty_site import SERVICE, Api, House, Site, State, differences, inconsistent, until
from e2e.policies import a_class, a_policy
from perfpolicy.cluster.status import POLICIES
from perfpolicy.render import KINDS
from perfpolicy.runtime import CLASSES

AT_ONCE, ROOMS = 3, 6
"""Operators side by side, and how many plays share one."""
RECOVERY = 180.0
"""Seconds to reach the end: long, because machines are slow; what never ends there is what is looked for."""
SEED = 7
SAMPLE = {"create": ("kill-", "cut-", "refuse-"), "update": ("drop-", "refuse-")}
"""What is played where not everything is: one of each, by trace and beginning of the title."""
AT_LEAST = 8
"""So many effective writes and so many events each trace of the sample has: it is drawn before they are counted."""


def before(namespace: str) -> dict[str, Any]:
    """A policy with a child of every kind."""
    return a_policy("web", namespace, replicas=0)


def after(namespace: str) -> dict[str, Any]:
    """The same, changed so that children of every verb follow: written anew, left alone, deleted."""
    changed = before(namespace)
    changed["spec"]["traffic"]["timeout"] = "7s"
    changed["spec"]["security"] = {"mtls": "Permissive"}
    changed["spec"]["workload"]["deployment"]["image"] = "localhost/backend:other"
    del changed["spec"]["network"], changed["spec"]["traffic"]["compression"]
    return changed


def path(namespace: str) -> str:
    """Of the policy."""
    return POLICIES.path(namespace, "web")


async def create(api: Api, namespace: str) -> None:
    """A new policy."""
    status, answer = await api.apply(before(namespace), path(namespace))
    assert status == 201, answer


async def update(api: Api, namespace: str) -> None:
    """A changed policy."""
    status, answer = await api.apply(after(namespace), path(namespace))
    assert status == 200, answer


async def delete(api: Api, namespace: str) -> None:
    """A policy that goes."""
    await api.delete(path(namespace))


async def drift(api: Api, namespace: str) -> None:
    """A child that is deleted, and one that says something else."""
    # Nobody else applies with force: what the user claims, the operator takes back.
    spec = {"spec": {"trafficPolicy": {"outlierDetection": {"interval": "77s"}}}}
    manifest = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "web"}, **spec}
    status, answer = await api.apply(manifest, f"/apis/networking.istio.io/v1/namespaces/{namespace}/destinationrules/web")
    assert status == 200, answer
    await api.delete(f"/api/v1/namespaces/{namespace}/services/web")


async def create_in_class(api: Api, namespace: str) -> None:
    """A new policy, of a class that only the namespace uses."""
    await put_class(api, namespace)
    policy = before(namespace)
    policy["spec"]["className"] = namespace
    status, answer = await api.apply(policy, path(namespace))
    assert status == 201, answer


async def edit_class(api: Api, namespace: str) -> None:
    """A changed class: what its policies leave out is another, and so are their rules."""
    defaults = {"traffic": {"connectionPool": {"maxConnections": 50}}, "security": {"defaultDeny": "Enabled"}}
    await put_class(
        api, namespace, defaults=defaults, metrics={"address": "http://127.0.0.1:9", "matchers": [{"name": "cluster", "value": "one"}]}
    )


async def put_class(api: Api, namespace: str, **spec: Any) -> None:
    """The class of a namespace."""
    status, answer = await api.apply(a_class(namespace, **spec), CLASSES.path(None, namespace))
    assert status in (200, 201), answer


Act = Callable[[Api, str], Awaitable[None]]
TRACES: dict[str, tuple[Act | None, Act]] = {
    "create": (None, create),
    "update": (create, update),
    "delete": (create, delete),
    "drift": (create, drift),
    "class": (create_in_class, edit_class),
}
"""What has happened before, and what happens while something goes wrong."""


@dataclass(frozen=True)
class Ending:
    """What a play left behind. `writes`, `events`: how many there were in which something could go wrong."""

    state: State
    counted: Counter[tuple[str, str, str]]
    writes: int
    events: int


@dataclass(frozen=True)
class Scene:
    """One play of a trace, and the fault for a site. `alone`: it takes an operator of its own; `empty`: the policy is gone in the end;
    `everywhere`: the fault concerns what is of no namespace.
    """

    trace: str
    title: str
    fault: Callable[[Site], Fault]
    alone: bool = False
    empty: bool = False
    everywhere: bool = False


async def undisturbed(site: Site, trace: str) -> Ending:
    """The play in which nothing goes wrong."""
    await prepare(site, trace)
    site.line.arm(Fault())
    await TRACES[trace][1](site.house.api, site.namespace)
    await settled(site)
    assert not [write for write in site.line.writes if write.is_idle], site.line.writes
    if trace != "delete":
        # Waited for: the policy's own generation does not tell when a class is followed.
        await until(partial(unlike, site), RECOVERY)
        await site.quiet()
    return Ending(await site.house.api.state(site.namespace), site.counted(), site.line.effective, site.line.events)


async def play(site: Site, scene: Scene, undisturbed: Awaitable[Ending]) -> str:
    """What was wrong in the end; empty where all was well."""
    try:
        await prepare(site, scene.trace)
        wanted = await undisturbed
        await _play(site, scene, {} if scene.empty else wanted.state)
        if not scene.empty:
            # That none is missing, the state has shown; an API server that is short of time may answer 504 and create all the same.
            assert not site.counted() - wanted.counted, f"created or deleted more than once: {site.counted() - wanted.counted}"
    except AssertionError as error:
        return f"{scene.trace} {scene.title}: {error}\n{site.house.process.log.read_text()[-1500:]}"
    return ""


async def _play(site: Site, scene: Scene, wanted: State) -> None:
    fault, act = scene.fault(site), TRACES[scene.trace][1]
    if isinstance(fault, OldLists):
        # Everything is over when the operator is started again, beside an API server that lags behind.
        fault.version = (await site.house.api.get(POLICIES.path(site.namespace)))["metadata"]["resourceVersion"]
        await act(site.house.api, site.namespace)
        await reached(site, wanted)
        await site.quiet()
        site.line.arm(fault)
        await site.house.restart()
    else:
        site.line.arm(Fault() if scene.everywhere else fault)
        if scene.everywhere:
            site.house.proxy.line("").arm(fault)
        await act(site.house.api, site.namespace)
    await reached(site, wanted)
    await site.quiet()
    await reached(site, wanted)
    idle = [write for write in site.line.writes if write.is_idle]
    assert len(idle) <= fault.idle_writes, f"writes without a change: {idle}"


async def prepare(site: Site, trace: str) -> None:
    """What has happened before."""
    past = TRACES[trace][0]
    if past is not None:
        await past(site.house.api, site.namespace)
        await settled(site)


async def settled(site: Site) -> None:
    """Wait until the policy is programmed, or gone with all its children, and nothing is written any more."""

    async def complaint() -> str:
        found = await site.house.api.get(path(site.namespace))
        if not found:
            return ", ".join(await site.house.api.state(site.namespace))
        conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", ())}
        programmed = conditions.get("Programmed", {})
        is_over = programmed.get("status") == "True" and programmed.get("observedGeneration") == found["metadata"]["generation"]
        return "" if is_over and conditions["MetricsAvailable"]["reason"] == "SourceUnreachable" else f"not settled: {conditions}"

    await until(complaint, RECOVERY)
    await site.quiet()


async def unlike(site: Site) -> str:
    """Where the children are not what spec and class render to."""
    return "; ".join(await inconsistent(site.house.api, site.namespace, "web"))


async def reached(site: Site, wanted: State) -> None:
    """Wait for a state."""

    async def complaint() -> str:
        return "; ".join(differences(wanted, await site.house.api.state(site.namespace))[:5])

    await until(complaint, RECOVERY)


def scenes(trace: str, writes: int, events: int) -> Iterator[Scene]:
    """Every fault at every write and every event of a trace that has so many."""
    for k in range(1, writes + 1):
        for when, answered in (("before", False), ("after", True)):
            yield Scene(trace, f"kill-{when}-{k}", _killing(k, answered=answered), alone=True)
            yield Scene(trace, f"cut-{when}-{k}", _always(partial(CutWrite, k, answered)))
        yield from (Scene(trace, f"refuse-{status}-{k}", _always(partial(Refuse, k, status))) for status in REASONS)
        if trace == "create":
            yield Scene(trace, f"gone-{k}", _losing(k, kill=False), empty=True)
            yield Scene(trace, f"kill-and-gone-{k}", _losing(k, kill=True), alone=True, empty=True)
    yield from (Scene(trace, f"drop-{n}", _always(partial(Drop, n))) for n in range(1, events + 1))
    yield from (Scene(trace, f"reads-{status}", _always(partial(RefuseReads, status))) for status in REASONS)
    yield Scene(trace, "slow", _always(partial(Slow, 1.0)))
    yield Scene(trace, "late", _always(partial(Late, 2.0)))
    yield Scene(trace, "silent-policies", _always(partial(BlackHole, frozenset({POLICIES.plural}))))
    yield Scene(trace, "silent-children", _always(partial(BlackHole, frozenset(kind.plural for kind in KINDS))))
    if trace == "class":
        yield Scene(trace, "lost-class", lambda site: Lose(CLASSES.plural, site.namespace), alone=True, everywhere=True)
        yield Scene(trace, "silent-classes", _always(partial(BlackHole, frozenset({CLASSES.plural}))), alone=True, everywhere=True)
    yield Scene(trace, "old-lists", _always(partial(OldLists, "")), alone=True)


def _always(make: Callable[[], Fault]) -> Callable[[Site], Fault]:
    return lambda _: make()


def _killing(k: int, *, answered: bool) -> Callable[[Site], Fault]:
    return lambda site: Kill(k, answered, lambda: site.house.process.pid)


def _losing(k: int, *, kill: bool) -> Callable[[Site], Fault]:
    return lambda site: Gone(k, path(site.namespace), (lambda: site.house.process.pid) if kill else None)


def sample() -> list[Scene]:
    """One of each sort."""
    chance = random.Random(SEED)  # noqa: S311 - a choice, not a secret
    every = {trace: list(scenes(trace, AT_LEAST, AT_LEAST)) for trace in SAMPLE}
    return [
        chance.choice([scene for scene in every[trace] if scene.title.startswith(title)])
        for trace, titles in SAMPLE.items()
        for title in titles
    ]


def houses(chosen: Iterable[Scene]) -> Iterator[list[Scene]]:
    """Which plays share an operator."""
    yield from ([scene] for scene in chosen if scene.alone)
    shared = [scene for scene in chosen if not scene.alone]
    yield from (shared[n : n + ROOMS] for n in range(0, len(shared), ROOMS))


@pytest.mark.timeout(6 * 3600)
async def test_the_end_is_that_of_the_undisturbed_run(cluster: Cluster, tmp_path: Path, trust: bool) -> None:
    cluster.apply(a_class())
    api, room = Api(cluster.lab), asyncio.Semaphore(AT_ONCE)
    traces = tuple(TRACES if trust else SAMPLE)
    endings: dict[str, asyncio.Future[Ending]] = {trace: asyncio.get_running_loop().create_future() for trace in traces}

    async def end(site: Site, trace: str) -> None:
        try:
            endings[trace].set_result(await undisturbed(site, trace))
        except BaseException as error:
            endings[trace].set_exception(error)
            raise

    async def first() -> None:
        async with room, House(cluster.lab, api, tmp_path / "undisturbed", len(traces)) as made:
            await asyncio.gather(*map(end, made.sites, traces))

    async def house(number: int, plays: list[Scene]) -> list[str]:
        async with room, House(cluster.lab, api, tmp_path / str(number), len(plays)) as made:
            return await asyncio.gather(*map(play, made.sites, plays, (endings[scene.trace] for scene in plays)))

    try:
        async with asyncio.TaskGroup() as group:
            begun = group.create_task(first())
            if trust:
                await begun
                chosen = [
                    scene for trace, ending in endings.items() for scene in scenes(trace, ending.result().writes, ending.result().events)
                ]
            else:
                chosen = sample()
            played = [group.create_task(house(number, plays)) for number, plays in enumerate(houses(chosen))]
    finally:
        await api.close()
    met = ", ".join(f"{trace}: {ending.result().writes} writes, {ending.result().events} events" for trace, ending in endings.items())
    problems = [problem for each in played for problem in each.result() if problem]
    print(f"{len(chosen)} plays, {len(problems)} with problems ({met}): {', '.join(f'{scene.trace} {scene.title}' for scene in chosen)}")
    assert problems == [], "\n\n".join(problems)


CLOCKS = {"poll_min": "1", "poll_max": "2"}
"""Those an operator has, but for its looks at Prometheus: no net of the faulty site's clocks is below what is timed."""
AWAY = 300
"""Seconds of an outage."""


async def followed(site: Site) -> str:
    """What is not yet done of a drift and an update that came together."""
    policy, service = await site.house.api.get(path(site.namespace)), await site.house.api.get(SERVICE.path(site.namespace, "web"))
    seen = {each["type"]: each.get("observedGeneration") for each in policy["status"]["conditions"]}["Programmed"]
    return "" if seen == policy["metadata"]["generation"] and service else f"generation {seen}, Service: {bool(service)}"


async def test_silent_watches_are_noticed_within_a_minute(cluster: Cluster, tmp_path: Path, trust: bool) -> None:
    if not trust:
        pytest.skip("takes a minute: make trust")
    cluster.apply(a_class())
    api = Api(cluster.lab)
    async with House(cluster.lab, api, tmp_path / "silent", clocks=CLOCKS) as house:
        site = house.sites[0]
        await prepare(site, "update")
        site.line.arm(BlackHole(frozenset({POLICIES.plural, *(kind.plural for kind in KINDS)})))
        start = time.monotonic()
        await drift(api, site.namespace)
        await update(api, site.namespace)
        await until(partial(followed, site), 60)
        print(f"noticed after {time.monotonic() - start:.0f} s")
    await api.close()


@pytest.mark.timeout(900)
async def test_an_api_server_that_is_away_for_minutes_is_waited_for_and_nothing_is_lost(
    cluster: Cluster, tmp_path: Path, trust: bool
) -> None:
    if not trust:
        pytest.skip(f"takes {AWAY} s: make trust")
    cluster.apply(a_class())
    api = Api(cluster.lab)

    async def outage(*, hangs: bool) -> None:
        async with House(cluster.lab, api, tmp_path / f"away-{hangs}", clocks=CLOCKS) as house:
            site, fault = house.sites[0], Away(hangs)
            await prepare(site, "update")
            site.arm(fault)
            await drift(api, site.namespace)
            await update(api, site.namespace)
            end = time.monotonic() + AWAY
            while time.monotonic() < end:
                assert await asyncio.to_thread(house.process.is_live), "a kubelet would restart it"
                await asyncio.sleep(1)
            assert await followed(site), "it was not away"
            fault.back.set()
            await until(partial(followed, site), 60)
            print(f"{'hanging' if hangs else 'refusing'}: caught up {time.monotonic() - end:.0f} s after {AWAY} s")
            await site.quiet()
            assert not await unlike(site)
            assert house.ends == [], "restarted"

    await asyncio.gather(outage(hangs=True), outage(hangs=False))
    await api.close()
