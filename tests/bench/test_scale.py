"""How the figures of many policies are told."""

from dataclasses import replace

from bench.scale import Size, markdown

MIB = 2**20
SMALL = Size(
    policies=100,
    operator=6.0,
    bare=5.0,
    idle=80 * MIB,
    resident=110 * MIB,
    edits=(0.05,) * 19 + (0.3,),
    flood=2.0,
    beside=(0.1, 0.2, 0.9),
    steady=0.006,
    steady_writes=0,
    restart=2.0,
    restart_writes=0,
    restarted=100 * MIB,
    first_write=15.5,
    walked=15.9,
    walked_writes=2,
    kopf=4 * MIB,
)


def rows(*sizes: Size) -> dict[str, list[str]]:
    """The table's cells but for the goals, by the name of the row."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(list(sizes)).splitlines()]
    assert {len(row) for row in cells} == {2 + len(sizes)}
    return {row[0]: row[2:] for row in cells}


def test_what_a_policy_takes_is_told_from_one_size_to_the_next() -> None:
    found = rows(SMALL, replace(SMALL, policies=1124, restarted=140 * MIB, kopf=24 * MIB))
    assert found["memory of each policy more, after a restart"] == ["", "40.0 KiB"]
    assert found["of it kopf's own"] == ["", "20.0 KiB"]


def test_ratios_come_first_and_the_late_ones_count() -> None:
    found = rows(SMALL)
    assert found["until all are Programmed, beside bare asyncio"] == ["1.20 × (6.0 / 5.0 s)"]
    assert rows(replace(SMALL, bare=None))["until all are Programmed, beside bare asyncio"] == ["6.0 s"]
    assert found["edit of one until its status says so, p50 / p95"] == ["50 / 50 ms"]
    assert found["the same of a tenant with 10, while all are edited"] == ["200 / 900 ms (2.0 s)"]
