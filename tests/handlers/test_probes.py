"""The probes fail for what a restart cures or what is not known yet, and for nothing else; the metrics are the documented ones."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import ClientConnectionResetError, web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from perfpolicy.evaluate.evaluation import Evaluation, EvaluationMemory, evaluate
from perfpolicy.handlers import lag, probes
from perfpolicy.handlers.events import KopfThread
from perfpolicy.handlers.lag import LoopLag
from perfpolicy.handlers.probes import application
from perfpolicy.runtime import Runtime
from tests import builders as a
from tests.evaluate.answers import NOW, answer

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


class FakeQueue:
    oldest = 7.5

    def __len__(self) -> int:
        return 3


class FakeRuntime:
    """A leader of two policies."""

    ready = leads = True
    queue = FakeQueue()

    def __init__(self) -> None:
        self.found_stuck: dict[str, str] = {}

    def stuck(self) -> dict[str, str]:
        return dict(self.found_stuck)

    def problems(self) -> dict[str, str]:
        return {"metrics http://prometheus": "connection refused"}

    def absent(self) -> list[str]:
        return ["rollouts.argoproj.io"]

    def leadership(self) -> dict[str, Any]:
        return {"leads": True, "identity": "pod-1_ab", "holder": "pod-1_ab"}

    def watch_ages(self) -> dict[str, float]:
        return {"services": 12.0}

    def conditions(self) -> Counter[tuple[str, str]]:
        return Counter({("Ready", "True"): 2, ("Conflict", "True"): 1})

    def evaluations(self) -> list[Evaluation]:
        policies = (a.a_policy(name=f"web-{number}") for number in range(2))
        return [evaluate(policy, answer(policy), EvaluationMemory(), NOW)[0] for policy in policies]


class FakeKopf:
    alive = True


class Bench:
    def __init__(self) -> None:
        self.runtime, self.kopf = FakeRuntime(), FakeKopf()
        self.client: TestClient[Any, Any]

    async def get(self, path: str) -> tuple[int, Any]:
        answer = await self.client.get(path)
        return answer.status, await answer.json()

    async def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = await (await self.client.get("/metrics")).text()
        families = text_string_to_metric_families(text)
        return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(lag, "_EVERY", 0.01)
    bench = Bench()
    app = application(cast(Runtime, bench.runtime), cast(KopfThread, bench.kopf))
    async with TestClient(TestServer(app)) as client:
        bench.client = client
        yield bench


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_what_runs_lives(bench: Bench) -> None:
    assert await bench.get("/healthz") == (200, {"live": True, "problems": {}})


async def test_a_process_whose_kopf_thread_has_ended_is_restarted(bench: Bench) -> None:
    bench.kopf.alive = False
    assert await bench.get("/healthz") == (500, {"live": False, "problems": {"kopf": "its thread has ended"}})


async def test_a_process_with_a_stuck_watch_is_restarted(bench: Bench) -> None:
    bench.runtime.found_stuck = {"watch services": "nothing heard for 900 s"}
    assert await bench.get("/healthz") == (500, {"live": False, "problems": {"watch services": "nothing heard for 900 s"}})


async def test_a_process_whose_loop_hardly_turns_is_restarted_but_not_for_one_pause(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_LAG_LIMIT", 0.2)
    stuck = True

    async def hog() -> None:
        while stuck:
            time.sleep(0.3)  # noqa: ASYNC251 - what must not happen in an event loop
            await asyncio.sleep(0)

    hogging = asyncio.create_task(hog())

    async def is_late() -> bool:
        return (await bench.get("/healthz"))[0] == 500

    await eventually(is_late)
    stuck = False
    await hogging

    async def is_in_time() -> bool:
        return (await bench.get("/healthz"))[0] == 200

    await eventually(is_in_time)
    found = await bench.samples()
    assert found["perfpolicy_loop_lag_seconds", frozenset()] > 0.2, "a scrape still sees what happened since the last one"


async def test_readiness_is_about_having_seen_everything_and_about_nothing_else(bench: Bench) -> None:
    assert await bench.get("/readyz") == (200, {"ready": True})
    bench.runtime.ready = False
    assert await bench.get("/readyz") == (503, {"ready": False})


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_the_verbose_answer_tells_who_leads_and_all_that_is_wrong(bench: Bench, ready: bool, status: int) -> None:
    bench.runtime.ready = ready
    assert await bench.get("/readyz?verbose") == (
        status,
        {
            "ready": ready,
            "leader": {"leads": True, "identity": "pod-1_ab", "holder": "pod-1_ab"},
            "problems": {"metrics http://prometheus": "connection refused"},
            "absentKinds": ["rollouts.argoproj.io"],
        },
    )


async def test_gauges_are_looked_up_when_they_are_scraped(bench: Bench) -> None:
    found = {(name, tuple(sorted(labels))): value for (name, labels), value in (await bench.samples()).items()}
    assert found["perfpolicy_leader", ()] == 1
    assert found["perfpolicy_queue_depth", ()] == 3
    assert found["perfpolicy_queue_oldest_seconds", ()] == 7.5
    assert found["perfpolicy_watch_age_seconds", (("kind", "services"),)] == 12
    assert found["perfpolicy_policies", (("condition", "Ready"), ("status", "True"))] == 2
    assert found["perfpolicy_policies", (("condition", "Conflict"), ("status", "True"))] == 1


async def test_a_scrape_may_ask_for_some_metrics_only(bench: Bench) -> None:
    names = ("perfpolicy_queue_depth", "perfpolicy_threshold_met", "perfpolicy_reconcile_total")
    answer = await bench.client.get("/metrics", params=[("name[]", name) for name in names])
    found = {sample.name for family in text_string_to_metric_families(await answer.text()) for sample in family.samples}
    assert found == set(names)


async def test_a_scrape_that_was_given_up_is_no_defect(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def closed(*_: object) -> None:
        raise ClientConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(web.StreamResponse, "write", closed)
    await bench.client.get("/metrics")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_values_of_every_policy_stand_beside_what_the_operator_says_of_itself(bench: Bench) -> None:
    found = await bench.samples()
    told = {dict(labels)["policy"] for name, labels in found if name == "perfpolicy_threshold_met"}
    assert told == {"web-0", "web-1"}
    answer = await bench.client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_a_standby_has_no_queue_to_worry_about(bench: Bench) -> None:
    bench.runtime.leads = False
    found = {name: value for (name, labels), value in (await bench.samples()).items() if not labels}
    assert (found["perfpolicy_leader"], found["perfpolicy_queue_depth"], found["perfpolicy_queue_oldest_seconds"]) == (0, 0, 0)


async def test_counters_are_there_before_the_first_event(bench: Bench) -> None:
    found = await bench.samples()
    results = {dict(labels)["result"] for name, labels in found if name == "perfpolicy_reconcile_total"}
    assert results == {"applied", "unchanged", "rejected", "error"}
    assert {dict(labels)["result"] for name, labels in found if name == "perfpolicy_prometheus_queries_total"} == {"ok", "error"}


async def test_the_documented_metrics_are_the_ones_there_are(bench: Bench) -> None:
    text = await (await bench.client.get("/metrics")).text()
    kinds = dict(re.findall(r"^# TYPE (perfpolicy_\w+) (\w+)$", text, re.MULTILINE))
    documented = dict(re.findall(r"^\| `(perfpolicy_\w+)`[^|]*\| (\w+) ", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == kinds


async def test_lag_is_what_a_callback_waits_beyond_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "_EVERY", 0.01)
    measured = LoopLag()
    assert (measured.last, measured.longest) == (0, 0)
    task = asyncio.create_task(measured.run())
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251 - what is measured

    async def is_over() -> bool:
        await asyncio.sleep(0.01)
        return measured.last < 0.08 <= measured.longest

    await eventually(is_over)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
