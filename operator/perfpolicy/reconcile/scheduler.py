"""When to ask which metrics source: one heap of due providers, not a timer per policy.

A provider is asked every `poll_min` seconds, growing by `poll_factor` to `poll_max` while nothing changes, and at once after a change. One
cycle answers for all its policies. Verdicts are written at once; new numbers alone share a small budget, the longest unwritten first.

Of many policies a cycle asks share by share, so that no answer is large, and the next share is on its way while one is judged; and it asks
about the budgets of one share only, for those change once in ten steps: the others' stay as they were judged up to two cycles ago.

After a cycle, while the next one is waited for, one query asks raw metrics about some of the policies whose rules are not loaded yet.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple, Protocol

from perfpolicy.errors import MetricsUnavailable, RenderError
from perfpolicy.evaluate.budget import BudgetOutcome
from perfpolicy.evaluate.evaluation import Evaluation, evaluate
from perfpolicy.evaluate.observation import Direct, Snapshot
from perfpolicy.policy.model import Policy, PolicyKey, Provider
from perfpolicy.promql.queries import SHARES, share_of
from perfpolicy.reconcile.queue import Work
from perfpolicy.reconcile.state import PolicyState
from perfpolicy.vocabulary import Reason

_log = logging.getLogger(__name__)
_BREATH = 50
"""Policies evaluated before other tasks get a turn."""
DIRECT = 10
"""Policies whose raw metrics are asked for after a cycle at most: some 50 KB of query."""
MANY = 1000
"""Above so many policies of a provider they are asked for in shares."""
_GAP, _GAP_MOST = 1.0, 10.0
"""Seconds from one cycle of a provider to the next at least: a burst of changes is answered by one cycle a second, not one each."""
_REST = 5
"""Times as long as a cycle took: with thousands of policies the evaluation of all of them would else be most of what is done in a burst."""


class Collector(Protocol):
    """The metrics sources."""

    async def collect(self, provider: Provider, share: int | None = None, budgets: bool = True) -> Snapshot:
        """One cycle's samples of every policy of the provider, or of a share of them. Raises MetricsUnavailable."""

    async def collect_directly(self, provider: Provider, policies: Sequence[Policy]) -> Snapshot:
        """What the raw metrics of these policies of the provider say. Raises MetricsUnavailable and RenderError."""

    def forget(self, used: frozenset[Provider]) -> None:
        """Let go of every other provider."""


Member = tuple[PolicyKey, PolicyState]


class Part(NamedTuple):
    """Policies of a provider that are asked for together; `share` None: all of them."""

    share: int | None
    budgets: bool
    members: list[Member]


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
        self._lasted: dict[Provider, float] = {}
        """Seconds of the last cycle."""
        self._last: dict[Provider, Snapshot | MetricsUnavailable] = {}
        """What the last cycle says of a policy whose rules the provider has not seen yet."""
        self._turn: dict[Provider, int] = {}
        """Whose budgets are asked about next, where policies are asked for in shares."""
        self._order = itertools.count()
        self._running: dict[Provider, asyncio.Task[None]] = {}
        self._asked_directly: set[Provider] = set()
        """Of which an answer about raw metrics is waited for."""
        self._wake = asyncio.Event()

    def poke(self, provider: Provider) -> None:
        """Something changed for a policy of this provider: ask it now and begin anew with the short interval."""
        self._intervals.setdefault(provider, self._new_interval()).after(changed=True)
        now, gap = asyncio.get_running_loop().time(), max(_GAP, min(_GAP_MOST, _REST * self._lasted.get(provider, 0.0)))
        self._schedule(provider, max(now, self._started.get(provider, now - gap) + gap))

    def evaluate_new(self, key: PolicyKey, state: PolicyState) -> None:
        """Evaluate a new policy from its provider's last cycle, in which it cannot have been; nothing where there was none.

        So its first status is whole, instead of being written again a moment later by the cycle it waits for.
        """
        policy = state.resolved
        if policy is not None and state.evaluation is None and (last := self._last.get(policy.metrics.provider)) is not None:
            self._evaluate_one(key, policy, state, last, self._now())

    async def run(self) -> None:
        """Run until cancelled; may be run again then."""
        for memory in (self._running, self._last, self._asked_directly):
            memory.clear()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for provider in self._take_due(loop.time()):
                    self._started[provider] = loop.time()
                    task = group.create_task(self._cycle(provider))
                    self._running[provider] = task
                pause = self._heap[0][0] - loop.time() if self._heap else None
                # Not wait_for: before Python 3.12 it forgets a cancellation that comes together with what is waited for.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause if pause is None else max(pause, 0.001)):
                        await self._wake.wait()

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
        self._lasted[provider] = asyncio.get_running_loop().time() - self._started[provider]
        pause = self._intervals.setdefault(provider, self._new_interval()).after(changed)
        due = self._due.pop(provider, None)
        at = asyncio.get_running_loop().time() + pause
        self._schedule(provider, at if due is None else min(at, due))
        # The next cycle comes in its time whatever becomes of this.
        await self._evaluate_directly(provider, members)

    def _retire(self, provider: Provider) -> None:
        for memory in (self._intervals, self._started, self._lasted, self._last, self._turn):
            memory.pop(provider, None)
        used = frozenset(used for state in self._states.values() if (used := _provider(state)) is not None)
        self._collector.forget(used)

    async def _evaluate(self, provider: Provider, members: list[Member]) -> bool:
        parts = self._parts(provider, members)
        refreshed: list[tuple[float, PolicyKey]] = []
        said_something = False
        asked = asyncio.create_task(self._ask(provider, parts[0]))
        try:
            for part, following in itertools.zip_longest(parts, parts[1:]):
                answer = await asked
                # One that does not answer is not asked for the others: the same is said of them.
                if following is not None and isinstance(answer, Snapshot):
                    asked = asyncio.create_task(self._ask(provider, following))
                said_something |= await self._judge(part, answer, refreshed)
        finally:
            asked.cancel()
        self._last[provider] = answer if isinstance(answer, MetricsUnavailable) else Snapshot()
        refreshed.sort()
        for _, key in refreshed[: self._budget.take(len(refreshed), asyncio.get_running_loop().time())]:
            self._enqueue(key, Work.STATUS | Work.REFRESH)
        return said_something

    def _parts(self, provider: Provider, members: list[Member]) -> list[Part]:
        if len(members) <= MANY:
            return [Part(None, True, members)]
        turn = self._turn[provider] = (self._turn.get(provider, -1) + 1) % len(SHARES)
        parts = [Part(share, share == turn, []) for share in range(len(SHARES))]
        for key, state in members:
            if state.resolved is not None:
                parts[share_of(state.resolved)].members.append((key, state))
        # Nothing is judged while the first answer is awaited: the longest one comes last.
        return sorted(parts, key=lambda part: part.budgets)

    async def _ask(self, provider: Provider, part: Part) -> Snapshot | MetricsUnavailable:
        try:
            return await self._collector.collect(provider, part.share, part.budgets)
        except MetricsUnavailable as error:
            _log.debug("no metrics", extra={"provider": provider.address, "problem": str(error)})
            # Its traceback names this frame's callers and the answer that holds it: a circle, in which every policy of the cycle would wait
            # for Python to look for garbage.
            return error.with_traceback(None)

    async def _judge(self, part: Part, answer: Snapshot | MetricsUnavailable, refreshed: list[tuple[float, PolicyKey]]) -> bool:
        """Whether a verdict changed. Policies of new numbers alone are added to `refreshed`."""
        now, said_something = self._now(), False
        for count, (key, state) in enumerate(part.members, 1):
            if self._states.get(key) is not state or state.resolved is None:
                continue
            before = state.evaluation
            after = self._evaluate_one(key, state.resolved, state, answer, now)
            if after is None:
                continue
            if before is None or verdicts(before) != verdicts(after):
                said_something = True
                self._enqueue(key, Work.STATUS)
            elif before != after:
                refreshed.append((state.written_at, key))
            if count % _BREATH == 0:
                await asyncio.sleep(0)
        return said_something

    async def _evaluate_directly(self, provider: Provider, members: list[Member]) -> None:
        """Evaluate some policies whose rules are not loaded by their raw metrics. Each is asked about once in a rule interval, those never
        asked about first; the others, and all where no answer comes, stay as they are.
        """
        now = self._now()
        due = [(key, state, policy) for key, state in members if (policy := state.resolved) is not None and _is_due(state, policy, now)]
        if not due or provider in self._asked_directly:
            return
        due.sort(key=lambda each: (each[1].direct is not None, each[1].direct.asked if each[1].direct else now))
        del due[DIRECT:]
        for _, state, _ in due:
            state.direct = Direct(now, state.direct.rows if state.direct is not None else {})
        self._asked_directly.add(provider)
        try:
            answer = await self._collector.collect_directly(provider, [policy for _, _, policy in due])
        except (MetricsUnavailable, RenderError) as error:
            _log.debug("no raw metrics", extra={"provider": provider.address, "problem": str(error)})
            return
        except Exception:  # noqa: BLE001 - a defect met here must not end the evaluation of everybody; it is logged in full
            _log.exception("raw metrics cannot be asked for", extra={"provider": provider.address})
            return
        finally:
            self._asked_directly.discard(provider)
        for key, state, policy in due:
            if self._states.get(key) is not state or state.resolved is not policy or not state.memory.unrecorded:
                continue
            state.direct = Direct(now, answer.of(policy))
            before, last = state.evaluation, self._last.get(provider, Snapshot())
            after = self._evaluate_one(key, policy, state, last, self._now())
            if before is not None and after is not None and verdicts(before) != verdicts(after):
                self._enqueue(key, Work.STATUS)

    @staticmethod
    def _evaluate_one(
        key: PolicyKey, policy: Policy, state: PolicyState, answer: Snapshot | MetricsUnavailable, now: datetime
    ) -> Evaluation | None:
        """None where nothing new can be said: because of a defect, or because its budgets were not asked about and nothing is known of them
        yet (after a start, an outage or a change of the objectives), so that its turn is waited for.
        """
        budgets = None
        if isinstance(answer, Snapshot) and not answer.budgets:
            budgets = _kept(policy, state.evaluation)
            if budgets is None:
                return None
        try:
            state.evaluation, state.memory = evaluate(policy, answer, state.memory, now, budgets, state.direct)
        except Exception:  # noqa: BLE001 - a defect met by one policy must not end the evaluation of the others; it is logged in full
            _log.exception("a policy cannot be evaluated", extra={"policy": str(key)})
            return None
        if not state.memory.unrecorded:
            state.direct = None
        return state.evaluation


def _is_due(state: PolicyState, policy: Policy, now: datetime) -> bool:
    """Whether raw metrics may say something new of a policy whose rules are not loaded."""
    return state.memory.unrecorded and (state.direct is None or now - state.direct.asked >= policy.metrics.provider.rule_interval)


def _kept(policy: Policy, before: Evaluation | None) -> tuple[BudgetOutcome, ...] | None:
    """The budgets as last judged, if that was by an answer and of the same objectives."""
    if before is None or before.source is Reason.SOURCE_UNREACHABLE:
        return None
    judged = tuple(outcome.objective for outcome in before.objectives)
    return before.objectives if judged == policy.objectives else None


def _provider(state: PolicyState) -> Provider | None:
    return state.resolved.metrics.provider if state.resolved is not None else None


def verdicts(evaluation: Evaluation) -> tuple[object, ...]:
    """What of an evaluation is a word rather than a number. Pure."""
    return (
        evaluation.source,
        evaluation.refused,
        evaluation.polled,
        evaluation.growing,
        evaluation.maintenance,
        [(outcome.verdict, outcome.reason) for outcome in evaluation.thresholds],
        [(outcome.verdict, outcome.reason) for outcome in evaluation.objectives],
        evaluation.severity,
        None if evaluation.health is None else evaluation.health.level,
    )
