"""A cycle: all policies of a provider in one snapshot, one request in flight per provider."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate.observation import Owner, sample_name
from perfpolicy.metrics.source import MetricsSource
from perfpolicy.policy.model import Provider
from perfpolicy.promql import direct, names
from perfpolicy.promql.queries import budget_queries, threshold_queries
from tests import builders as a
from tests.evaluate.answers import labels_of

PROVIDER = a.a_provider(timeout=timedelta(seconds=5))
QUERIES = [query.text for query in (*threshold_queries(PROVIDER), *budget_queries(PROVIDER))]


class Backend:
    """Answers by a function; counts queries."""

    def __init__(self, answer: Callable[[str], Sequence[Any]]) -> None:
        self.answer = answer
        self.queries: list[str] = []

    def query(self, text: str) -> Sequence[Any]:
        self.queries.append(text)
        return self.answer(text)


def series(policy: Any, name: str = names.ERROR_RATIO) -> dict[str, Any]:
    return {"metric": labels_of(policy, name), "values": [[1.0, "2"]]}


async def test_all_policies_arrive_in_at_most_six_queries() -> None:
    policies = [a.a_policy(name=f"p{index}", uid=f"u{index}") for index in range(50)]
    backend = Backend(lambda text: [series(policy) for policy in policies] if names.ERROR_RATIO in text else [])
    source = MetricsSource(lambda _provider: backend)
    snapshot = await source.collect(PROVIDER)
    assert set(snapshot.rows) == {Owner("ce-hub", f"p{index}", f"u{index}") for index in range(50)}
    assert backend.queries == QUERIES
    assert len(backend.queries) <= 6
    source.close()


async def test_garbage_between_series_is_dropped() -> None:
    good = series(a.a_policy())
    backend = Backend(lambda text: [None, 7, {}, {"metric": 1, "values": 2}, good] if names.ERROR_RATIO in text else [])
    source = MetricsSource(lambda _provider: backend)
    assert len((await source.collect(PROVIDER)).rows) == 1
    source.close()


async def test_one_failing_query_fails_the_cycle() -> None:
    def answer(text: str) -> Sequence[Any]:
        if names.CPU_RATIO in text:
            raise MetricsUnavailable("down")
        return []

    source = MetricsSource(lambda _provider: Backend(answer))
    with pytest.raises(MetricsUnavailable, match="down"):
        await source.collect(PROVIDER)
    source.close()


async def test_a_hanging_backend_is_given_up_asked_once_and_stops_nobody_else() -> None:
    release = threading.Event()
    hanging = Backend(lambda _text: (release.wait(30) and []) or [])
    slow = a.a_provider(address="http://slow", timeout=timedelta(milliseconds=50))

    def connect(provider: Provider) -> Backend:
        return hanging if provider == slow else Backend(lambda _text: [])

    source = MetricsSource(connect)
    with pytest.raises(MetricsUnavailable, match=r"no answer within 0\.05 s"):
        await source.collect(slow)
    with pytest.raises(MetricsUnavailable, match="still waiting"):
        await source.collect(slow)
    assert len(hanging.queries) == 1
    assert (await source.collect(PROVIDER)).rows == {}
    release.set()
    snapshot = None
    async with asyncio.timeout(5):
        while snapshot is None:
            try:
                snapshot = await source.collect(slow)
            except MetricsUnavailable:
                await asyncio.sleep(0.01)
    assert snapshot.rows == {}
    source.close()


async def test_forgotten_providers_are_connected_anew() -> None:
    connected: list[Provider] = []

    def connect(provider: Provider) -> Backend:
        connected.append(provider)
        return Backend(lambda _text: [])

    source = MetricsSource(connect)
    other = a.a_provider(tenant="b")
    for provider in (PROVIDER, other, PROVIDER):
        await source.collect(provider)
    assert connected == [PROVIDER, other]
    source.forget(frozenset({other}))
    for provider in (PROVIDER, other):
        await source.collect(provider)
    assert connected == [PROVIDER, other, PROVIDER]
    source.close()


async def test_what_raw_metrics_say_arrives_as_if_it_were_recorded() -> None:
    policies = [a.a_policy(name=f"p{index}", uid=f"u{index}") for index in range(2)]
    per_policy = len(direct.question(policies).asked) // 2
    values: dict[str, Any] = {"values": [[1.0, "0.5"], [2.0, "0.25"]]}
    answers = [{"metric": {direct.ASKED: number}, **values} for number in ("3", str(per_policy + 5), "x", "99")]
    backend = Backend(lambda _text: [7, {"metric": 1}, *answers])
    source = MetricsSource(lambda _provider: backend)
    snapshot = await source.collect_directly(PROVIDER, policies)
    assert backend.queries == [direct.question(policies).text]
    assert {name: row.points for name, row in snapshot.of(policies[0]).items()} == {
        sample_name(names.ERROR_RATIO): ((1.0, 0.5), (2.0, 0.25))
    }
    assert set(snapshot.of(policies[1])) == {sample_name(names.LATENCY_QUANTILE, quantile="0.95")}
    source.close()


async def test_a_question_about_raw_metrics_that_hangs_or_fails_is_no_cycle_s_problem() -> None:
    release = threading.Event()
    hanging = a.a_provider(timeout=timedelta(milliseconds=200))

    def answer(text: str) -> Sequence[Any]:
        if direct.ASKED in text:
            release.wait(30)
        return []

    source = MetricsSource(lambda _provider: Backend(answer))
    with pytest.raises(MetricsUnavailable, match="no answer within"):
        await source.collect_directly(hanging, [a.a_policy()])
    assert (await source.collect(hanging)).rows == {}
    assert source.problems() == {}
    release.set()
    source.close()


def queries(result: str) -> float:
    return REGISTRY.get_sample_value("perfpolicy_prometheus_queries_total", {"result": result}) or 0.0


async def test_queries_are_counted_and_a_provider_that_does_not_answer_is_told_until_it_does() -> None:
    reachable = False

    def answer(text: str) -> Sequence[Any]:
        if not reachable:
            raise MetricsUnavailable("connection refused")
        return []

    ok, failed = queries("ok"), queries("error")
    source = MetricsSource(lambda _provider: Backend(answer))
    with pytest.raises(MetricsUnavailable):
        await source.collect(PROVIDER)
    assert source.problems() == {f"metrics {PROVIDER.address}": "connection refused"}
    reachable = True
    await source.collect(PROVIDER)
    assert source.problems() == {}
    assert (queries("ok") - ok, queries("error") - failed) == (len(QUERIES), 1)
    source.close()


async def test_a_provider_nobody_uses_any_more_is_no_problem() -> None:
    def answer(text: str) -> Sequence[Any]:
        raise MetricsUnavailable("connection refused")

    tenant = a.a_provider(tenant="team-a")
    source = MetricsSource(lambda _provider: Backend(answer))
    with pytest.raises(MetricsUnavailable):
        await source.collect(tenant)
    assert list(source.problems()) == [f"metrics {tenant.address} tenant team-a"]
    source.forget(frozenset())
    assert source.problems() == {}
