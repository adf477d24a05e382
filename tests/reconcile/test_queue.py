"""Every key once, never on two workers, fair between namespaces, with back-off."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.queue import Work, WorkQueue


def a_queue(retry_min: float = 1.0, retry_max: float = 8.0) -> WorkQueue:
    return WorkQueue(retry_min, retry_max, spread=lambda: 1.0)


def key(text: str) -> PolicyKey:
    namespace, _, name = text.partition("/")
    return PolicyKey(namespace, name)


async def drain(queue: WorkQueue) -> list[tuple[str, Work]]:
    """Everything that waits, in the order it is handed out."""
    taken = []
    while len(queue):
        got, work = await queue.get()
        taken.append((str(got), work))
        queue.done(got)
    return taken


async def test_a_key_waits_once_and_its_work_adds_up() -> None:
    queue = a_queue()
    queue.add(key("a/x"), Work.STATUS)
    queue.add(key("a/x"), Work.RECONCILE)
    assert await drain(queue) == [("a/x", Work.STATUS | Work.RECONCILE)]


async def test_namespaces_take_turns() -> None:
    queue = a_queue()
    for name in ("a/1", "a/2", "a/3", "b/1", "c/1"):
        queue.add(key(name))
    assert [name for name, _ in await drain(queue)] == ["a/1", "b/1", "c/1", "a/2", "a/3"]


async def test_a_namespace_in_which_little_waits_does_not_wait_for_each_in_which_much_does() -> None:
    queue = a_queue()
    for namespace in range(50):
        for name in range(20):
            queue.add(key(f"busy-{namespace}/{name}"))
    for number in range(5):
        queue.add(key(f"small/{number}"))
        taken = [(await queue.get())[0] for _ in range(2)]
        assert sorted(got.namespace == "small" for got in taken) == [False, True]
        for got in taken:
            queue.done(got)


async def test_namespaces_in_which_little_waits_leave_half_of_the_turns_to_the_others() -> None:
    queue = a_queue()
    for name in range(30):
        queue.add(key(f"busy/{name}"))
    for namespace in range(100):
        queue.add(key(f"small-{namespace}/1"))
    taken = [(await queue.get())[0] for _ in range(40)]
    assert sum(got.namespace == "busy" for got in taken) == 20


async def test_what_waits_is_told_latest_first() -> None:
    ticks = iter(range(100))
    queue = WorkQueue(1.0, 8.0, clock=lambda: float(next(ticks)))
    for name in ("a/1", "b/1", "a/2", "a/1"):
        queue.add(key(name))
    assert queue.latest() == [key("a/1"), key("a/2"), key("b/1")]


async def test_a_key_being_worked_on_is_given_to_nobody_else_and_comes_again_afterwards() -> None:
    queue = a_queue()
    queue.add(key("a/x"))
    got, _ = await queue.get()
    queue.add(key("a/x"), Work.STATUS)
    assert len(queue) == 0
    assert not queue.idle
    queue.done(got)
    assert await drain(queue) == [("a/x", Work.STATUS)]
    assert queue.idle


async def test_a_worker_waits_for_work() -> None:
    queue = a_queue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add(key("a/x"))
    assert (await waiting)[0] == key("a/x")


async def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    queue = a_queue()
    assert [queue.retry(key("a/x")) for _ in range(5)] == [1, 2, 4, 8, 8]
    queue.succeeded(key("a/x"))
    assert queue.retry(key("a/x")) == 1


async def test_the_other_side_may_ask_for_a_longer_pause() -> None:
    assert a_queue().retry(key("a/x"), at_least=60) == 60


async def test_a_pause_is_per_key() -> None:
    queue = a_queue()
    queue.retry(key("a/x"))
    queue.retry(key("a/x"))
    assert queue.retry(key("a/y")) == 1


async def test_of_two_timers_the_sooner_one_counts() -> None:
    queue = a_queue()
    queue.add_after(key("a/x"), 30)
    queue.add_after(key("a/x"), 0)
    queue.add_after(key("a/x"), 60)
    assert (await asyncio.wait_for(queue.get(), 5))[0] == key("a/x")
    queue.done(key("a/x"))
    assert queue.idle


async def test_a_forgotten_key_does_not_come_back() -> None:
    queue = a_queue()
    queue.add_after(key("a/x"), 0)
    queue.forget(key("a/x"))
    queue.add_after(key("a/y"), 0.001)
    assert (await asyncio.wait_for(queue.get(), 5))[0] == key("a/y")
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))), st.integers(1, 4))
def test_whatever_is_added_comes_out_once_and_a_key_is_never_taken_twice(added: list[tuple[str, str]], workers: int) -> None:
    async def scenario() -> None:
        queue, taken, busy = a_queue(), [], set[PolicyKey]()

        async def work() -> None:
            while True:
                got, _ = await queue.get()
                assert got not in busy
                busy.add(got)
                await asyncio.sleep(0)
                taken.append(got)
                busy.discard(got)
                queue.done(got)

        for namespace, name in added:
            queue.add(PolicyKey(namespace, name))
        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        while not queue.idle:  # noqa: ASYNC110 - the workers are what is waited for
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(taken) == sorted({PolicyKey(*item) for item in added})

    asyncio.run(scenario())


async def test_the_oldest_is_the_one_that_waits_longest() -> None:
    now = 100.0
    queue = WorkQueue(1.0, 8.0, clock=lambda: now)
    assert queue.oldest == 0
    queue.add(key("a/1"))
    now = 103
    queue.add(key("b/1"))
    queue.add(key("a/1"), Work.STATUS)
    assert queue.oldest == 3
    await queue.get()
    assert queue.oldest == 0
    now = 105
    assert queue.oldest == 2


async def test_a_cleared_queue_holds_no_work_no_timers_and_no_failures() -> None:
    queue = a_queue(retry_min=0.001, retry_max=0.001)
    queue.add(key("a/1"))
    queue.retry(key("a/2"))
    queue.clear()
    await asyncio.sleep(0.01)
    assert (len(queue), queue.oldest, queue.idle) == (0, 0, True)
    queue.add(key("a/1"))
    assert await drain(queue) == [("a/1", Work.RECONCILE)]


async def test_a_worker_learns_since_when_it_has_to_know_everything() -> None:
    clock = iter(range(100))
    queue = WorkQueue(1.0, 8.0, spread=lambda: 1.0, clock=lambda: next(clock))
    queue.add(key("a/x"))
    queue.add(key("a/y"))
    first = next(clock)
    queue.add(key("a/x"), Work.STATUS)
    got, _ = await queue.get()
    asked = queue.asked(got)
    assert asked > first, "what was said while it waited counts"
    queue.add(got)
    assert queue.asked(got) == asked, "what is said while it is worked on is for the next time"
    queue.done(got)
    assert [queue.waiting("a"), queue.waiting("b")] == [2, 0]
    await queue.get()
    got, _ = await queue.get()
    assert queue.asked(got) > asked
    queue.done(got)
    assert list(queue._asked) == [key("a/y")]


async def test_a_namespace_whose_work_hangs_leaves_workers_to_others() -> None:
    queue = WorkQueue(1.0, 8.0, share=2)
    for name in ("a/1", "a/2", "a/3", "b/1"):
        queue.add(key(name))
    assert [str((await queue.get())[0]) for _ in range(3)] == ["a/1", "b/1", "a/2"]
    third = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert (third.done(), len(queue)) == (False, 1)
    queue.add(key("c/1"))
    assert (await third)[0] == key("c/1")
    last = asyncio.create_task(queue.get())
    queue.done(key("a/2"))
    assert (await last)[0] == key("a/3")
