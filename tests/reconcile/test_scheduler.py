"""When metrics sources are asked, and which statuses follow."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from perfpolicy.errors import MetricsUnavailable, RenderError
from perfpolicy.evaluate.evaluation import evaluate
from perfpolicy.evaluate.observation import Rows, Snapshot
from perfpolicy.metrics.source import MetricsSource
from perfpolicy.policy.model import Policy, PolicyKey, Provider
from perfpolicy.promql import names
from perfpolicy.reconcile import scheduler
from perfpolicy.reconcile.queue import Work
from perfpolicy.reconcile.scheduler import Budget, Interval, Scheduler
from perfpolicy.reconcile.state import PolicyState
from tests.builders import a_metrics_source, a_policy, a_provider, an_objective
from tests.evaluate.answers import NOW, answer
from tests.virtual_time import run


def test_the_interval_grows_to_its_limit_and_falls_back_after_a_change() -> None:
    interval = Interval(5, 30, 1.2)
    seen = [round(interval.after(changed=False), 2) for _ in range(12)]
    assert seen[:3] == [6.0, 7.2, 8.64]
    assert seen[-1] == 30
    assert interval.after(changed=True) == 5


def test_the_budget_grants_a_rate_not_more() -> None:
    budget = Budget(5)
    assert budget.take(100, now=0) == 5
    assert budget.take(100, now=0.1) == 0
    assert budget.take(100, now=0.5) == 2
    assert budget.take(1, now=10) == 1
    assert budget.take(100, now=10) == 4, "what was not used is not saved up beyond a second"


def test_a_small_budget_still_grants_one_now_and_then() -> None:
    budget = Budget(0.5)
    assert [budget.take(3, now=second) for second in range(5)] == [1, 0, 1, 0, 1]


@dataclass
class FakeCollector:
    """Answers nothing, or fails; remembers who was asked."""

    asked: list[Provider] = field(default_factory=list)
    shares: list[tuple[int | None, bool]] = field(default_factory=list)
    rows: Rows = field(default_factory=dict)
    fails_for: int | None = None
    kept: list[frozenset[Provider]] = field(default_factory=list)
    error: MetricsUnavailable | None = None
    asked_directly: list[list[str]] = field(default_factory=list)
    direct_error: Exception | None = None
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: direct questions are answered."""

    async def collect(self, provider: Provider, share: int | None = None, budgets: bool = True) -> Snapshot:
        self.asked.append(provider)
        self.shares.append((share, budgets))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if share is not None and share == self.fails_for:
            raise MetricsUnavailable("down")
        return Snapshot(self.rows, budgets)

    async def collect_directly(self, provider: Provider, policies: Sequence[Policy]) -> Snapshot:
        self.asked_directly.append([policy.key.name for policy in policies])
        await self.may_answer.wait()
        if self.direct_error is not None:
            raise self.direct_error
        rows: Rows = {}
        for policy in policies:
            rows |= answer(policy, {names.REVISION: None}).rows
        return Snapshot(rows)

    def forget(self, used: frozenset[Provider]) -> None:
        self.kept.append(used)


class Bench:
    def __init__(self) -> None:
        self.collector = FakeCollector()
        self.states: dict[PolicyKey, PolicyState] = {}
        self.queued: list[tuple[PolicyKey, Work]] = []
        self.scheduler = Scheduler(
            self.collector,
            self.states,
            lambda key, work: self.queued.append((key, work)),
            lambda: NOW,
            lambda: Interval(60, 60, 1),
            Budget(1),
        )

    def add(self, name: str, provider: Provider, uid: str = "u") -> PolicyKey:
        policy = replace(a_policy(name=name, uid=uid), metrics=a_metrics_source(provider=provider))
        self.states[policy.key] = PolicyState("u", resolved=policy)
        return policy.key

    async def until(self, cycles: int) -> None:
        async with asyncio.timeout(5):
            while len(self.collector.asked) < cycles or self.scheduler._running:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[None]:
    """While the block lasts."""
    task = asyncio.create_task(scheduler.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with running(bench.scheduler):
        yield bench


async def test_one_cycle_answers_for_every_policy_of_a_provider(bench: Bench) -> None:
    one, other = a_provider(), a_provider(address="http://other:9090")
    keys = [bench.add(name, one) for name in ("a", "b", "c")]
    bench.add("d", other)
    bench.scheduler.poke(one)
    await bench.until(1)
    assert bench.collector.asked == [one]
    assert bench.queued == [(key, Work.STATUS) for key in keys]


async def test_a_verdict_that_stays_is_not_written_again(bench: Bench) -> None:
    provider = a_provider()
    bench.add("a", provider)
    bench.scheduler.poke(provider)
    await bench.until(1)
    bench.queued.clear()
    bench.scheduler._started.clear()
    bench.scheduler.poke(provider)
    await bench.until(2)
    assert bench.queued == []


async def test_a_source_that_does_not_answer_is_said_of_every_policy(bench: Bench) -> None:
    provider = a_provider()
    key = bench.add("a", provider)
    bench.collector.error = MetricsUnavailable("down")
    bench.scheduler.poke(provider)
    await bench.until(1)
    state = bench.states[key]
    assert state.evaluation is not None
    assert state.evaluation.source == "SourceUnreachable"


async def test_a_provider_nobody_uses_is_let_go(bench: Bench) -> None:
    used, unused = a_provider(), a_provider(address="http://unused:9090")
    bench.add("a", used)
    bench.scheduler.poke(unused)
    async with asyncio.timeout(5):
        while not bench.collector.kept:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert bench.collector.kept == [frozenset({used})]
    assert bench.collector.asked == []


async def test_a_burst_of_changes_is_answered_by_one_cycle(bench: Bench) -> None:
    provider = a_provider()
    bench.add("a", provider)
    for _ in range(20):
        bench.scheduler.poke(provider)
        await asyncio.sleep(0.001)
    await bench.until(1)
    assert len(bench.collector.asked) == 1


@pytest.mark.parametrize(("cycle", "cycles"), [(0.0, 60), (1.0, 12), (4.0, 6)])
def test_a_burst_leaves_four_fifths_of_the_time_to_other_work_up_to_ten_seconds(cycle: float, cycles: int) -> None:
    async def burst() -> int:
        bench, provider = Bench(), a_provider()
        bench.add("a", provider)
        collect = bench.collector.collect

        async def slow(*args: Any) -> Snapshot:
            await asyncio.sleep(cycle)
            return await collect(*args)

        bench.collector.collect = slow  # type: ignore[assignment, method-assign]
        async with running(bench.scheduler):
            for _ in range(600):
                bench.scheduler.poke(provider)
                await asyncio.sleep(0.1)
        return len(bench.collector.asked)

    assert abs(run(burst()) - cycles) <= 2


async def test_a_provider_that_nobody_uses_any_more_is_let_go_of_and_ends_nothing(bench: Bench) -> None:
    gone, used = a_provider(), a_provider(address="http://another:9090")
    bench.scheduler.poke(gone)
    async with asyncio.timeout(5):
        while not bench.collector.kept:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    bench.add("a", used)
    bench.scheduler.poke(used)
    await bench.until(1)
    assert bench.collector.asked == [used]


async def test_a_policy_that_cannot_be_evaluated_does_not_stop_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = a_provider()
    bench.add("poisoned", provider)
    healthy = bench.add("healthy", provider)
    honest = evaluate

    def poisoned(policy: Policy, *rest: Any) -> Any:
        if policy.key.name == "poisoned":
            raise ZeroDivisionError
        return honest(policy, *rest)

    monkeypatch.setattr(scheduler, "evaluate", poisoned)
    bench.scheduler.poke(provider)
    await bench.until(1)
    assert bench.queued == [(healthy, Work.STATUS)]


async def test_new_numbers_alone_share_the_budget_the_longest_unwritten_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = a_provider()
    for age, name in enumerate(("recent", "older", "oldest")):
        bench.states[bench.add(name, provider)].written_at = -float(age)
    rates = iter(range(100))

    def with_new_numbers(policy: Policy, *rest: Any) -> Any:
        evaluation, memory = evaluate(policy, *rest)
        return replace(evaluation, served=float(next(rates))), memory

    monkeypatch.setattr(scheduler, "evaluate", with_new_numbers)
    for cycle in (1, 2):
        bench.queued.clear()
        bench.scheduler._started.clear()
        bench.scheduler.poke(provider)
        await bench.until(cycle)
    assert [(key.name, work) for key, work in bench.queued] == [("oldest", Work.STATUS | Work.REFRESH)]


@pytest.mark.parametrize("error", [None, MetricsUnavailable("down")])
async def test_a_new_policy_is_evaluated_by_its_providers_last_cycle(bench: Bench, error: MetricsUnavailable | None) -> None:
    provider = a_provider()
    bench.add("old", provider)
    new = bench.states[bench.add("new", a_provider(address="http://other:9090"))]
    bench.collector.error = error
    bench.scheduler.poke(provider)
    await bench.until(1)
    assert new.resolved is not None
    bench.scheduler.evaluate_new(new.resolved.key, new)
    assert new.evaluation is None, "nothing is known of its provider"
    key = bench.add("newer", provider)
    bench.scheduler.evaluate_new(key, bench.states[key])
    said = bench.states[key].evaluation
    assert said is not None
    assert said.source == ("Pending" if error is None else "SourceUnreachable")
    bench.queued.clear()
    bench.scheduler._started.clear()
    bench.scheduler.poke(provider)
    await bench.until(2)
    assert bench.queued == [], "the next cycle says the same of it"


async def test_an_evaluation_is_not_replaced_by_an_older_cycle(bench: Bench) -> None:
    provider = a_provider()
    key = bench.add("a", provider)
    bench.scheduler.poke(provider)
    await bench.until(1)
    before = bench.states[key].evaluation
    assert before is not None
    bench.scheduler._last[provider] = MetricsUnavailable("down")
    bench.scheduler.evaluate_new(key, bench.states[key])
    assert bench.states[key].evaluation is before


async def test_a_leadership_begins_without_what_an_earlier_one_heard(bench: Bench) -> None:
    provider = a_provider()
    bench.add("a", provider)
    bench.scheduler.poke(provider)
    await bench.until(1)
    again = asyncio.create_task(bench.scheduler.run())
    await asyncio.sleep(0)
    assert bench.scheduler._last == {}
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


class Many(Bench):
    """A policy in each of the three shares."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = a_provider()
        self.keys = [self.add(f"p{digit}", self.provider, uid=f"{digit}0b0") for digit in "05a"]
        for key in self.keys:
            self.collector.rows |= answer(self.resolved(key)).rows

    def resolved(self, key: PolicyKey) -> Policy:
        policy = self.states[key].resolved
        assert policy is not None
        return policy

    async def cycle(self) -> list[tuple[int | None, bool]]:
        """What one cycle asked for."""
        self.collector.shares.clear()
        before = len(self.collector.asked)
        self.scheduler._started.clear()
        self.scheduler.poke(self.provider)
        await self.until(before + 1)
        return list(self.collector.shares)

    def left(self) -> list[float | None]:
        """Of each policy's budget; -1 while the policy is not judged at all."""
        found = [self.states[key].evaluation for key in self.keys]
        return [-1 if each is None else each.objectives[0].remaining for each in found]

    def sources(self) -> list[str | None]:
        found = [self.states[key].evaluation for key in self.keys]
        return [None if each is None else str(each.source) for each in found]


@pytest.fixture
async def many(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Many]:
    monkeypatch.setattr(scheduler, "MANY", 2)
    many = Many()
    async with running(many.scheduler):
        yield many


async def test_many_policies_are_asked_for_in_shares_and_about_the_budgets_of_one_in_turn(many: Many) -> None:
    assert await many.cycle() == [(1, False), (2, False), (0, True)]
    assert await many.cycle() == [(0, False), (2, False), (1, True)]
    assert await many.cycle() == [(0, False), (1, False), (2, True)]
    assert await many.cycle() == [(1, False), (2, False), (0, True)]


async def test_a_policy_whose_budgets_were_never_asked_about_waits_for_its_turn(many: Many) -> None:
    spent = pytest.approx(0.9)
    await many.cycle()
    assert many.left() == [spent, -1, -1], "nothing is said of the others, so their status stays what it was before a restart"
    await many.cycle()
    assert many.left() == [spent, spent, -1]
    await many.cycle()
    assert many.left() == [spent, spent, spent]


async def test_thresholds_are_judged_in_each_cycle_and_budgets_stay_until_they_are_asked_about(many: Many) -> None:
    for _ in range(3):
        await many.cycle()
    for key in many.keys:
        many.collector.rows |= answer(many.resolved(key), {names.SERVED_RATE: 7, f"{names.PERIOD_BAD}/objective=availability": 50}).rows
    await many.cycle()
    found = [many.states[key].evaluation for key in many.keys]
    assert [each.served for each in found if each is not None] == [7, 7, 7]
    assert many.left() == [pytest.approx(0.5), pytest.approx(0.9), pytest.approx(0.9)]


async def test_budgets_of_other_objectives_are_not_kept(many: Many) -> None:
    for _ in range(3):
        await many.cycle()
    state = many.states[many.keys[1]]
    before = state.evaluation
    state.resolved = replace(many.resolved(many.keys[1]), objectives=(an_objective(target=Decimal("0.99")),))
    await many.cycle()
    assert state.evaluation is before, "its turn is the next"
    await many.cycle()
    assert many.left()[1] == pytest.approx(0.99)


async def test_a_source_that_fails_is_asked_once_and_budgets_from_before_are_not_kept(many: Many) -> None:
    for _ in range(3):
        await many.cycle()
    many.collector.error = MetricsUnavailable("down")
    assert len(await many.cycle()) == 1
    assert many.sources() == ["SourceUnreachable"] * 3
    many.collector.error = None
    await many.cycle()
    assert many.sources() == ["SourceUnreachable", "Observed", "SourceUnreachable"], "one after the other, each with its budgets"
    await many.cycle()
    await many.cycle()
    assert many.sources() == ["Observed"] * 3
    assert many.left() == [pytest.approx(0.9)] * 3


async def test_a_source_that_fails_in_the_middle_is_said_of_those_it_did_not_answer_for(many: Many) -> None:
    for _ in range(3):
        await many.cycle()
    many.collector.fails_for = 2
    assert [share for share, _ in await many.cycle()] == [1, 2]
    assert many.sources() == ["SourceUnreachable", "Observed", "SourceUnreachable"]


@pytest.mark.parametrize("turns", range(6))
async def test_it_ends_when_it_is_cancelled_in_whatever_turn_of_the_loop_something_becomes_due(turns: int) -> None:
    bench, provider = Bench(), a_provider()
    bench.add("a", provider)
    running = asyncio.create_task(bench.scheduler.run())
    bench.scheduler.poke(provider)
    await bench.until(1)
    # It waits for the next cycle now, and is woken by an earlier one.
    bench.scheduler.poke(provider)
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=2)
    running.cancel()
    assert done, "an operator that is to stop, or has lost the Lease, would wait for ever"


class Silent:
    """A metrics source that does not answer."""

    def query(self, text: str) -> Any:
        raise MetricsUnavailable("no answer")


async def test_a_cycle_without_an_answer_keeps_no_policy_that_is_gone_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, provider = Bench(), a_provider()
    source, ask = MetricsSource(lambda _: Silent()), bench.collector.collect

    async def collect(provider: Provider, share: int | None = None, budgets: bool = True) -> Snapshot:
        await ask(provider, share, budgets)
        return await source.collect(provider, share, budgets)

    monkeypatch.setattr(bench.collector, "collect", collect)
    state = bench.states[bench.add("gone", provider)]
    running = asyncio.create_task(bench.scheduler.run())
    gc.collect()
    gc.disable()
    try:
        bench.scheduler.poke(provider)
        await bench.until(1)
        assert bench.scheduler._last
        bench.states.clear()
        assert sys.getrefcount(state) == 2, "`state` and the argument"
    finally:
        gc.enable()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        source.close()


def source_of(bench: Bench, key: PolicyKey) -> str | None:
    evaluation = bench.states[key].evaluation
    return None if evaluation is None else str(evaluation.source)


async def cycle(bench: Bench, provider: Provider) -> None:
    """One more cycle, and what is asked directly after it, where that is answered."""
    before = len(bench.collector.asked)
    bench.scheduler._started.clear()
    bench.scheduler.poke(provider)
    await bench.until(before + 1)
    for _ in range(20):
        await asyncio.sleep(0)


async def test_policies_whose_rules_are_not_loaded_are_judged_by_raw_metrics_in_one_query(bench: Bench) -> None:
    provider = a_provider()
    bench.collector.may_answer.set()
    keys = [bench.add(name, provider, uid=f"u-{name}") for name in ("a", "b")]
    await cycle(bench, provider)
    assert bench.collector.asked_directly == [["a", "b"]]
    for key in keys:
        evaluation = bench.states[key].evaluation
        assert evaluation is not None
        assert evaluation.source == "DirectQueries"
        assert {outcome.verdict for outcome in evaluation.thresholds} == {"Met"}
    assert [key for key, _ in bench.queued[-2:]] == keys
    await cycle(bench, provider)
    assert bench.collector.asked_directly == [["a", "b"]], "once in a rule interval"
    assert [source_of(bench, key) for key in keys] == ["DirectQueries"] * 2, "what was said holds in between"


async def test_policies_whose_rules_are_loaded_are_not_asked_about_directly(bench: Bench) -> None:
    provider = a_provider()
    key = bench.add("a", provider)
    policy = bench.states[key].resolved
    assert policy is not None
    bench.collector.rows = answer(policy).rows
    await cycle(bench, provider)
    assert source_of(bench, key) == "Observed"
    bench.collector.rows = answer(policy, {names.REVISION: 7}).rows
    await cycle(bench, provider)
    assert source_of(bench, key) == "Pending", "rules of an earlier spec: their last verdicts stand"
    assert bench.collector.asked_directly == []


async def test_a_bounded_number_of_policies_is_asked_about_after_a_cycle_and_the_others_after_the_next(bench: Bench) -> None:
    provider = a_provider()
    bench.collector.may_answer.set()
    keys = [bench.add(f"p{number:02d}", provider, uid=f"u{number}") for number in range(scheduler.DIRECT + 3)]
    await cycle(bench, provider)
    assert [source_of(bench, key) for key in keys] == ["DirectQueries"] * scheduler.DIRECT + ["Pending"] * 3
    await cycle(bench, provider)
    assert bench.collector.asked_directly[1] == ["p10", "p11", "p12"]
    assert {source_of(bench, key) for key in keys} == {"DirectQueries"}


@pytest.mark.parametrize("error", [MetricsUnavailable("query.max-samples"), RenderError("does not parse"), ZeroDivisionError()])
async def test_raw_metrics_that_do_not_answer_leave_the_policy_pending(bench: Bench, error: Exception) -> None:
    provider = a_provider()
    bench.collector.may_answer.set()
    bench.collector.direct_error = error
    key = bench.add("a", provider)
    await cycle(bench, provider)
    await cycle(bench, provider)
    assert (source_of(bench, key), bench.collector.asked_directly) == ("Pending", [["a"]])


async def test_cycles_go_on_while_raw_metrics_are_waited_for(bench: Bench) -> None:
    provider = a_provider()
    key = bench.add("a", provider)
    await cycle(bench, provider)
    await cycle(bench, provider)
    bench.add("b", provider, uid="later")
    await cycle(bench, provider)
    assert bench.collector.asked_directly == [["a"]], "one question at a time"
    policy = bench.states[key].resolved
    assert policy is not None
    bench.collector.rows = answer(policy).rows
    await cycle(bench, provider)
    assert source_of(bench, key) == "Observed"
    bench.collector.may_answer.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert source_of(bench, key) == "Observed", "an answer that comes too late says nothing"
    assert bench.states[key].direct is None
    await cycle(bench, provider)
    assert bench.collector.asked_directly[1] == ["b"]
