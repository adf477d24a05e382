"""Collects one cycle's snapshot of a provider: all its policies in a handful of queries, in a thread, one at a time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate.observation import Rows, Snapshot, add_series
from perfpolicy.metrics.client import Backend, PrometheusBackend
from perfpolicy.policy.model import Policy, Provider
from perfpolicy.promql import direct
from perfpolicy.promql.queries import budget_queries, threshold_queries
from perfpolicy.telemetry import QUERIES, QUERY_SECONDS

T = TypeVar("T")


@dataclass(slots=True)
class _Lane:
    """One provider's backend, its single thread, and the collection under way."""

    backend: Backend
    thread: ThreadPoolExecutor
    running: "Future[Any] | None" = None


class MetricsSource:
    """Snapshots by provider. One request is in flight per provider; a backend that hangs costs one thread and no other provider.

    Questions about raw metrics have a thread and a connection of their own: no cycle waits for one.
    """

    def __init__(self, connect: Callable[[Provider], Backend] = PrometheusBackend) -> None:
        """`connect` makes the backend of a provider; tests give their own."""
        self._connect = connect
        self._lanes: dict[tuple[Provider, bool], _Lane] = {}
        """By provider, and whether for direct questions."""
        self._problems: dict[Provider, str] = {}

    def problems(self) -> dict[str, str]:
        """Providers whose last cycle got no answer, by address (and tenant), and why."""
        return {
            f"metrics {provider.address}{f' tenant {provider.tenant}' if provider.tenant else ''}": problem
            for provider, problem in self._problems.items()
        }

    async def collect(self, provider: Provider, share: int | None = None, budgets: bool = True) -> Snapshot:
        """The newest samples of every policy of `provider`, or of those in a share (of promql.queries.SHARES); `budgets`: with what budgets
        are judged by. Raises MetricsUnavailable, within the provider's timeout for these queries together.
        """
        try:
            snapshot = await self._collect(provider, share, budgets)
        except MetricsUnavailable as error:
            self._problems[provider] = str(error)
            raise
        self._problems.pop(provider, None)
        return snapshot

    async def collect_directly(self, provider: Provider, policies: Sequence[Policy]) -> Snapshot:
        """What the raw metrics of policies of `provider` say, in one query. Raises MetricsUnavailable, which is no problem of the source,
        and RenderError.
        """
        return await self._ask(provider, True, lambda backend: _collect_directly(backend, policies))

    async def _collect(self, provider: Provider, share: int | None, budgets: bool) -> Snapshot:
        return await self._ask(provider, False, lambda backend: _collect(provider, backend, share, budgets))

    async def _ask(self, provider: Provider, directly: bool, ask: Callable[[Backend], T]) -> T:
        lane = self._lane(provider, directly)
        if lane.running is not None and not lane.running.done():
            raise MetricsUnavailable(f"{provider.address}: still waiting for the answer to an earlier request")
        lane.running = lane.thread.submit(ask, lane.backend)
        answer: asyncio.Future[T] = asyncio.wrap_future(lane.running)
        # Nobody awaits an answer that comes too late; unread, its error would be logged as a defect, with every cycle of an outage.
        answer.add_done_callback(lambda late: late.cancelled() or late.exception())
        try:
            # Shielded: the thread cannot be stopped, and its result is what tells that it has ended.
            async with asyncio.timeout(provider.timeout.total_seconds()):
                return await asyncio.shield(answer)
        except TimeoutError as error:
            raise MetricsUnavailable(f"{provider.address}: no answer within {provider.timeout.total_seconds():g} s") from error

    def forget(self, used: frozenset[Provider]) -> None:
        """Let go of the threads and connections of providers that no policy uses any more."""
        for key in [key for key in self._lanes if key[0] not in used]:
            self._problems.pop(key[0], None)
            self._lanes.pop(key).thread.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Let go of everything."""
        self.forget(frozenset())

    def _lane(self, provider: Provider, directly: bool) -> _Lane:
        key = provider, directly
        if key not in self._lanes:
            self._lanes[key] = _Lane(self._connect(provider), ThreadPoolExecutor(1, thread_name_prefix="metrics"))
        return self._lanes[key]


def _collect(provider: Provider, backend: Backend, share: int | None, budgets: bool) -> Snapshot:
    rows: Rows = {}
    for query in (*threshold_queries(provider, share), *(budget_queries(provider, share) if budgets else ())):
        for series in _query(backend, query.text):
            if isinstance(series, dict):
                add_series(rows, series.get("metric"), series.get("values"))
    return Snapshot(rows, budgets)


def _collect_directly(backend: Backend, policies: Sequence[Policy]) -> Snapshot:
    question = direct.question(policies)
    asked = {str(index): {"__name__": rule.name, **rule.labels} for index, rule in enumerate(question.asked)}
    rows: Rows = {}
    for series in _query(backend, question.text):
        if isinstance(series, dict) and isinstance(labels := series.get("metric"), dict):
            add_series(rows, asked.get(str(labels.get(direct.ASKED))), series.get("values"))
    return Snapshot(rows)


def _query(backend: Backend, text: str) -> Sequence[Any]:
    started, result = time.monotonic(), "error"
    try:
        found = backend.query(text)
        result = "ok"
    finally:
        QUERIES.labels(result).inc()
        QUERY_SECONDS.observe(time.monotonic() - started)
    return found
