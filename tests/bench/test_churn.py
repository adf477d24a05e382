"""What counts as a leak, by samples that are made up."""

import random
from dataclasses import replace

from bench.churn import Sample, Verdict, grown, grown_types, slope

RATE = 5.0


def samples(minutes: float = 45, *, mib_an_hour: float = 0.0, tasks: float = 0.0, files: float = 0.0) -> tuple[Sample, ...]:
    """One every 5 s, unquiet by some MiB, tasks and files, which grow by so many an hour beside."""
    noise = random.Random(1)  # noqa: S311 - made-up noise
    found = []
    for number in range(int(minutes * 12)):
        at = number * 5.0
        hours = at / 3600
        resident = int((120 + noise.uniform(0, 2) + mib_an_hour * hours) * 2**20)
        at_work, connected = 70 + noise.randrange(20) + int(tasks * hours), 40 + noise.randrange(8) + int(files * hours)
        found.append(Sample(at, resident, at_work, connected, number * 25, {}))
    return tuple(found)


def problems(found: tuple[Sample, ...]) -> str:
    """Of a run at the wanted rate."""
    return "; ".join(Verdict(found, RATE).problems())


def test_the_slope_of_a_line_is_found_through_noise() -> None:
    noise = random.Random(2)  # noqa: S311 - made-up noise
    found = slope([(at, 100 + 7 * at / 3600 + noise.uniform(-1, 1)) for at in range(0, 3600, 5)])
    assert abs(found.per_hour - 7) < found.error < 1


def test_what_comes_and_goes_is_no_leak() -> None:
    assert problems(samples()) == ""


def test_memory_that_grows_is_told_with_how_much_it_may_be_off() -> None:
    assert problems(samples(mib_an_hour=4)).startswith("memory grows by 4.")
    assert problems(samples(mib_an_hour=0.2)) == ""


def test_a_short_run_finds_a_large_leak_and_says_nothing_of_a_small_one() -> None:
    assert "memory" in problems(samples(5, mib_an_hour=60))
    assert problems(samples(5, mib_an_hour=2)) == ""
    assert slope([(0, 1.0), (5, 2.0)]).error == float("inf")


def test_a_task_or_a_file_that_stays_now_and_then_is_found() -> None:
    assert "asyncio tasks more" in problems(samples(tasks=40))
    assert "open files more" in problems(samples(files=40))


def test_a_run_that_fell_behind_proves_nothing() -> None:
    assert problems(tuple(replace(each, changes=each.changes // 2) for each in samples())) == "only 2.5 changes a second of 5 were made"


def test_only_what_does_not_go_again_has_grown() -> None:
    assert grown([5, 9, 5, 5, 9, 9, 5, 9]) == 0
    assert grown([5, 9, 6, 7, 9, 9, 8, 9]) == 3


def test_the_types_that_grew_are_named() -> None:
    found = tuple(replace(each, types={"state": number, "tuple": 5, "gone": -number}) for number, each in enumerate(samples(2)))
    assert [name for name, _ in grown_types(found)] == ["state"]
