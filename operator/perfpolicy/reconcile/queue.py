"""Work waiting to be done: every key at most once, never on two workers, fair between namespaces, with back-off per key.

Why fair: a namespace that creates five hundred policies at once must not delay an edit in another one. Namespaces take turns; within one,
first come, first served. Every other turn is one of those in which little waits: beside fifty in which much does, an edit would else wait
for fifty policies of theirs; and those have half of the turns still. And a namespace whose writes hang (a webhook that does not answer,
say) must not hold every worker: no namespace is given more than its share of them. The clock is injected so that tests need not wait.
"""

import asyncio
import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from enum import IntFlag
from itertools import chain

from perfpolicy.policy.model import PolicyKey

_LITTLE = 10
"""Keys that may wait in a namespace for it to be one of those in which little waits."""


class Work(IntFlag):
    """What is due for a policy; kinds of work add up while a key waits."""

    STATUS = 1
    """Write the status again from what is known."""
    REFRESH = 2
    """The same, though only numbers changed."""
    RECONCILE = 4
    """Walk the whole way from the spec to the children."""


class WorkQueue:
    """Deduplicating queue of policies. Not thread-safe: one event loop."""

    def __init__(
        self,
        retry_min: float,
        retry_max: float,
        spread: Callable[[], float] = lambda: random.uniform(0.8, 1.2),  # noqa: S311 - spreads load, guards nothing
        clock: Callable[[], float] = time.monotonic,
        share: int = 1_000_000,
    ) -> None:
        """`retry_min`, `retry_max`: seconds of the first and the longest pause after failures; `spread`: factor applied to each pause;
        `share`: keys of one namespace that may be worked on at the same time.
        """
        self._share = share
        self._retry_min, self._retry_max, self._spread, self._clock = retry_min, retry_max, spread, clock
        self._little: OrderedDict[str, deque[PolicyKey]] = OrderedDict()
        self._much: OrderedDict[str, deque[PolicyKey]] = OrderedDict()
        """Keys that wait, by namespace, in the order of the namespaces' turns."""
        self._turn_of_little = True
        self._work: dict[PolicyKey, Work] = {}
        self._since: dict[PolicyKey, float] = {}
        """Of every key that waits, the oldest first: since when."""
        self._running: dict[PolicyKey, Work] = {}
        self._busy: Counter[str] = Counter()
        """Keys being worked on, by namespace."""
        self._asked: dict[PolicyKey, float] = {}
        """Of every key that waits or is worked on: when work for it was last added before it was taken."""
        self._timers: dict[PolicyKey, asyncio.TimerHandle] = {}
        self._failures: dict[PolicyKey, int] = {}
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        """Keys waiting for a worker."""
        return len(self._work)

    @property
    def idle(self) -> bool:
        """Nothing is waiting and nothing is running; keys in a pause do not count."""
        return not self._work and not self._running

    def waiting(self, namespace: str) -> int:
        """Keys of a namespace waiting for a worker."""
        return len(self._line(namespace))

    def asked(self, key: PolicyKey) -> float:
        """When the work under way for a key was asked for (by the clock): whatever was true before then, the worker has to see."""
        return self._asked[key]

    def again(self, key: PolicyKey) -> bool:
        """Whether a reconcile was added for a key since a worker took it."""
        return bool(self._running.get(key, Work(0)) & Work.RECONCILE)

    @property
    def oldest(self) -> float:
        """Seconds the key has waited that waits longest; 0 where none does."""
        return next((self._clock() - since for since in self._since.values()), 0.0)

    def latest(self) -> list[PolicyKey]:
        """Keys that wait for a worker, those asked for last first."""
        return sorted(self._work, key=self._asked.__getitem__, reverse=True)

    def clear(self) -> None:
        """Drop everything that waits, now or behind a timer, and all failures. Nothing may be running."""
        for timer in self._timers.values():
            timer.cancel()
        for memory in (self._little, self._much, self._work, self._since, self._asked, self._timers, self._failures):
            memory.clear()

    def add(self, key: PolicyKey, work: Work = Work.RECONCILE) -> None:
        """Queue work; merged with what already waits. A key being worked on comes again afterwards."""
        if key in self._running:
            self._running[key] |= work
            return
        if key not in self._work:
            self._line_up(key)
            self._since[key] = self._clock()
        self._work[key] = self._work.get(key, Work(0)) | work
        self._asked[key] = self._clock()
        self._ready.set()

    def add_after(self, key: PolicyKey, seconds: float, work: Work = Work.RECONCILE) -> None:
        """Queue work later; replaces an earlier timer of the key only when this one is sooner."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + seconds:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key, work)

    def retry(self, key: PolicyKey, at_least: float = 0.0) -> float:
        """Queue a reconcile after this key's back-off, and at least after `at_least` seconds. Returns the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = max(at_least, min(self._retry_max, self._retry_min * 2.0 ** min(failures, 16)) * self._spread())
        self.add_after(key, pause)
        return pause

    def succeeded(self, key: PolicyKey) -> None:
        """Forget the key's failures."""
        self._failures.pop(key, None)

    def forget(self, key: PolicyKey) -> None:
        """Drop timers and failures of a policy that is gone."""
        self.succeeded(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def get(self) -> tuple[PolicyKey, Work]:
        """The next key and what is due for it; nobody else gets the key until `done`."""
        while (namespace := self._next()) is None:
            self._ready.clear()
            await self._ready.wait()
        keys = self._little.pop(namespace, None) or self._much.pop(namespace)
        key = keys.popleft()
        if keys:
            (self._little if len(keys) <= _LITTLE else self._much)[namespace] = keys
        self._turn_of_little = not self._turn_of_little
        self._busy[namespace] += 1
        self._running[key] = Work(0)
        del self._since[key]
        return key, self._work.pop(key)

    def done(self, key: PolicyKey) -> None:
        """The worker is finished with the key; work added meanwhile is queued now."""
        again = self._running.pop(key)
        del self._asked[key]
        self._busy[key.namespace] -= 1
        if not self._busy[key.namespace]:
            del self._busy[key.namespace]
        if self._work:
            self._ready.set()
        if again:
            self.add(key, again)

    def _next(self) -> str | None:
        """The namespace whose turn it is; None where none waits that has not got its share."""
        lines = (self._little, self._much) if self._turn_of_little else (self._much, self._little)
        return next((namespace for namespace in chain(*lines) if self._busy[namespace] < self._share), None)

    def _line(self, namespace: str) -> deque[PolicyKey]:
        return self._little.get(namespace) or self._much.get(namespace) or deque()

    def _line_up(self, key: PolicyKey) -> None:
        keys = self._line(key.namespace)
        keys.append(key)
        if len(keys) == 1:
            self._little[key.namespace] = keys
        elif len(keys) == _LITTLE + 1:
            self._much[key.namespace] = self._little.pop(key.namespace)

    def _due(self, key: PolicyKey, work: Work) -> None:
        del self._timers[key]
        self.add(key, work)
