"""How fast requests may follow each other."""

import pytest

from perfpolicy.cluster.pace import Pace


class Clock:
    """One that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("per_second", [0.5, 1.0, 4.0])
def test_a_seconds_worth_goes_at_once_and_the_others_wait_their_turn(per_second: float) -> None:
    pace, burst = Pace(per_second, Clock()), max(1, int(per_second))
    assert [pace.take() for _ in range(burst + 3)] == pytest.approx([0.0] * burst + [number / per_second for number in (1, 2, 3)])


def test_what_was_not_used_is_not_saved_beyond_a_second() -> None:
    clock = Clock()
    pace = Pace(4.0, clock)
    for _ in range(4):
        pace.take()
    clock.now += 0.5
    assert [pace.take() for _ in range(3)] == pytest.approx([0.0, 0.0, 0.25])
    clock.now += 1000
    assert [pace.take() for _ in range(5)] == pytest.approx([0.0] * 4 + [0.25])
