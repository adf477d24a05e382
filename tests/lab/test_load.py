"""A load is translated into k6's words and back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lab.load import Load, Result, Target, result_of, script

TARGETS = (Target("http://a/x"), Target("http://b/y", headers={"Host": "b.example"}, method="POST", body="{}", weight=9))


def config(load: Load) -> dict[str, Any]:
    """The settings inside the script."""
    found = re.search(r"^const config = (.*);$", script(load), re.MULTILINE)
    assert found
    return dict(json.loads(found[1]))


def metrics(**counts: int) -> dict[str, Any]:
    times = {"avg": 2.5, "max": 9.0, "p(50)": 2.0, "p(95)": 5.0, "p(99)": 8.0}
    counters = {name: {"values": {"count": count, "rate": 1.0}} for name, count in counts.items()}
    return {**counters, "http_reqs": {"values": {"count": 99, "rate": 33.3}}, "http_req_duration": {"values": times}}


@pytest.mark.parametrize(("rate", "expected"), [(100, (100, "1s")), (0.5, (30, "1m")), (2.0, (2, "1s"))])
def test_a_rate_becomes_whole_numbers(rate: float, expected: tuple[int, str]) -> None:
    found = config(Load(rate, 1, TARGETS))
    assert (found["rate"], found["timeUnit"]) == expected


def test_targets_keep_all_they_have() -> None:
    found = config(Load(10, 1.5, TARGETS, timeout_seconds=0.25))
    assert found["targets"][1] == {"url": "http://b/y", "headers": {"Host": "b.example"}, "method": "POST", "body": "{}", "weight": 9}
    assert (found["duration"], found["timeout"]) == ("1500ms", "250ms")


def test_requests_in_flight_are_bounded() -> None:
    assert config(Load(100_000, 1, TARGETS))["most"] == 2000
    found = config(Load(1000, 1, TARGETS, in_flight=3))
    assert (found["ready"], found["most"]) == (3, 3)


def test_a_header_to_count_is_named_as_k6_shows_it() -> None:
    found = config(Load(1, 1, TARGETS, count_header=("x-version", ("stable", "canary"))))
    assert (found["header"], found["headerValues"]) == ("X-Version", ["stable", "canary"])


@pytest.mark.parametrize(("rate", "seconds", "targets"), [(1, 0, TARGETS), (1, 3601, TARGETS), (0, 1, TARGETS), (1, 1, ())])
def test_an_endless_or_empty_load_is_refused(rate: float, seconds: float, targets: tuple[Target, ...]) -> None:
    with pytest.raises(ValueError, match="load"):
        Load(rate, seconds, targets)


def test_answers_are_summed_over_targets_and_told_apart() -> None:
    counted = metrics(
        target_0_status_200=5,
        target_0_status_503=1,
        target_1_status_200=10,
        target_1_status_429=3,
        target_1_status_0=1,
        dropped_iterations=7,
    )
    found = result_of(counted, Load(1, 1, TARGETS))
    assert found == Result(
        sent=20,
        served=15,
        dropped=7,
        rate=33.3,
        error_share=0.1,
        statuses={0: 1, 200: 15, 429: 3, 503: 1},
        by_target=({200: 5, 503: 1}, {0: 1, 200: 10, 429: 3}),
        by_header={},
        mean_ms=2.5,
        p50_ms=2.0,
        p95_ms=5.0,
        p99_ms=8.0,
        max_ms=9.0,
    )


def test_a_status_nobody_foresaw_is_counted_and_is_no_success() -> None:
    found = result_of(metrics(target_0_status_other=2), Load(1, 1, TARGETS))
    assert (found.sent, found.served, found.statuses) == (2, 0, {-1: 2})


def test_answers_are_counted_by_header() -> None:
    found = result_of(metrics(target_0_status_200=4, header_1=3), Load(1, 1, TARGETS, count_header=("x-version", ("stable", "canary"))))
    assert found.by_header == {"stable": 0, "canary": 3}


def test_nothing_sent_is_no_latency_rather_than_zero() -> None:
    found = result_of({}, Load(1, 1, TARGETS))
    assert (found.sent, found.rate, found.p95_ms) == (0, 0.0, None)
