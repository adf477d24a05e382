"""When to ask which metrics source: one heap of due providers, not a timer per policy.

A provider is asked every `poll_min` seconds, growing by `poll_factor` to `poll_max` while nothing changes, and at once after a change. One
cycle answers for all its policies. Verdicts are written at once; new numbers alone share a small budget, the longest unwritten first.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate.evaluation import Evaluation, evaluate
from perfpolicy.evaluate.observation import Snapshot
from perfpolicy.policy.model import Policy, PolicyKey, Provider
from perfpolicy.reconcile.queue import Work
from perfpolicy.reconcile.state import PolicyState

_log = logging.getLogger(__name__)
_BREATH = 50
"""Policies evaluated before other tasks get a turn."""
_GAP = 1.0
"""Seconds between two cycles of a provider at least: a burst of changes is answered by one cycle a second, not one each."""


class Collector(Protocol):
    """The metrics sources."""

    async def collect(self, provider: Provider) -> Snapshot:
        """One cycle's samples of every policy of the provider. Raises MetricsUnavailable."""

    def forget(self, used: frozenset[Provider]) -> None:
        """Let go of every other provider."""


class Interval:
    """Polling interval of one provider. Pure."""

    def __init__(self, least: float, most: float, factor: float) -> None:
        self._least, self._most, self._factor = least, most, factor
        self.seconds = least

    def after(self, changed: bool) -> float:
        """Seconds until the next cycle."""
        self.seconds = self._least if changed else min(self._most, self.seconds * self._factor)
        return self.seconds


class Budget:
    """Token bucket holding at most one second's worth (and at least one). Pure: the caller brings the time."""

    def __init__(self, per_second: float) -> None:
        self._rate, self._size = per_second, max(1.0, per_second)
        self._tokens, self._at = self._size, 0.0

    def take(self, wanted: int, now: float) -> int:
        """How many of `wanted` are allowed at time `now` (seconds)."""
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted


class Scheduler:
    """Runs the evaluation cycles and queues the statuses they change."""

    def __init__(
        self,
        collector: Collector,
        states: dict[PolicyKey, PolicyState],
        enqueue: Callable[[PolicyKey, Work], None],
        now: Callable[[], datetime],
        interval: Callable[[], Interval],
        budget: Budget,
    ) -> None:
        self._collector, self._states, self._enqueue, self._now = collector, states, enqueue, now
        self._new_interval, self._budget = interval, budget
        self._intervals: dict[Provider, Interval] = {}
        self._due: dict[Provider, float] = {}
        self._heap: list[tuple[float, int, Provider]] = []
        self._started: dict[Provider, float] = {}
        self._last: dict[Provider, Snapshot | MetricsUnavailable] = {}
        """What the last cycle says of a policy whose rules the provider has not seen yet."""
        self._order = itertools.count()
        self._running: dict[Provider, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    def poke(self, provider: Provider) -> None:
        """Something changed for a policy of this provider: ask it now and begin anew with the short interval."""
        self._intervals.setdefault(provider, self._new_interval()).after(changed=True)
        now = asyncio.get_running_loop().time()
        self._schedule(provider, max(now, self._started.get(provider, now - _GAP) + _GAP))

    def evaluate_new(self, key: PolicyKey, state: PolicyState) -> None:
        """Evaluate a new policy from its provider's last cycle, in which it cannot have been; nothing where there was none.

        So its first status is whole, instead of being written again a moment later by the cycle it waits for.
        """
        policy = state.resolved
        if policy is not None and state.evaluation is None and (last := self._last.get(policy.metrics.provider)) is not None:
            self._evaluate_one(key, policy, state, last, self._now())

    async def run(self) -> None:
        """Run until cancelled; may be run again then."""
        self._running.clear()
        self._last.clear()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for provider in self._take_due(loop.time()):
                    self._started[provider] = loop.time()
                    task = group.create_task(self._cycle(provider))
                    self._running[provider] = task
                pause = self._heap[0][0] - loop.time() if self._heap else None
                try:
                    await asyncio.wait_for(self._wake.wait(), pause if pause is None else max(pause, 0.001))
                except TimeoutError:
                    continue

    def _schedule(self, provider: Provider, at: float) -> None:
        if self._due.get(provider, float("inf")) <= at:
            return
        self._due[provider] = at
        heapq.heappush(self._heap, (at, next(self._order), provider))
        self._wake.set()

    def _take_due(self, now: float) -> Iterable[Provider]:
        while self._heap and self._heap[0][0] <= now:
            at, _, provider = heapq.heappop(self._heap)
            if self._due.get(provider) == at and provider not in self._running:
                del self._due[provider]
                yield provider

    async def _cycle(self, provider: Provider) -> None:
        try:
            members = [(key, state) for key, state in self._states.items() if _provider(state) == provider]
            if not members:
                self._retire(provider)
                return
            changed = await self._evaluate(provider, members)
        finally:
            del self._running[provider]
        pause = self._intervals.setdefault(provider, self._new_interval()).after(changed)
        due = self._due.pop(provider, None)
        at = asyncio.get_running_loop().time() + pause
        self._schedule(provider, at if due is None else min(at, due))

    def _retire(self, provider: Provider) -> None:
        for memory in (self._intervals, self._started, self._last):
            memory.pop(provider, None)
        used = frozenset(used for state in self._states.values() if (used := _provider(state)) is not None)
        self._collector.forget(used)

    async def _evaluate(self, provider: Provider, members: list[tuple[PolicyKey, PolicyState]]) -> bool:
        snapshot: Snapshot | MetricsUnavailable
        try:
            snapshot = await self._collector.collect(provider)
        except MetricsUnavailable as error:
            _log.debug("no metrics", extra={"provider": provider.address, "problem": str(error)})
            snapshot = error
        self._last[provider] = snapshot if isinstance(snapshot, MetricsUnavailable) else Snapshot()
        now, said_something = self._now(), False
        refreshed: list[tuple[float, PolicyKey]] = []
        for count, (key, state) in enumerate(members, 1):
            if self._states.get(key) is not state or state.resolved is None:
                continue
            before = state.evaluation
            after = self._evaluate_one(key, state.resolved, state, snapshot, now)
            if after is None:
                continue
            if before is None or verdicts(before) != verdicts(after):
                said_something = True
                self._enqueue(key, Work.STATUS)
            elif before != after:
                refreshed.append((state.written_at, key))
            if count % _BREATH == 0:
                await asyncio.sleep(0)
        refreshed.sort()
        for _, key in refreshed[: self._budget.take(len(refreshed), asyncio.get_running_loop().time())]:
            self._enqueue(key, Work.STATUS | Work.REFRESH)
        return said_something

    @staticmethod
    def _evaluate_one(
        key: PolicyKey, policy: Policy, state: PolicyState, snapshot: Snapshot | MetricsUnavailable, now: datetime
    ) -> Evaluation | None:
        try:
            state.evaluation, state.memory = evaluate(policy, snapshot, state.memory, now)
        except Exception:  # noqa: BLE001 - a defect met by one policy must not end the evaluation of the others; it is logged in full
            _log.exception("a policy cannot be evaluated", extra={"policy": str(key)})
            return None
        return state.evaluation


def _provider(state: PolicyState) -> Provider | None:
    return state.resolved.metrics.provider if state.resolved is not None else None


def verdicts(evaluation: Evaluation) -> tuple[object, ...]:
    """What of an evaluation is a word rather than a number. Pure."""
    return (
        evaluation.source,
        evaluation.refused,
        evaluation.maintenance,
        tuple((outcome.verdict, outcome.reason) for outcome in evaluation.thresholds),
        tuple((outcome.verdict, outcome.reason) for outcome in evaluation.objectives),
        evaluation.severity,
        None if evaluation.health is None else evaluation.health.level,
    )
