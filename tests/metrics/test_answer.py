"""An answer read in one pass says the same as one parsed and read sample by sample."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfpolicy.evaluate.observation import Rows, add_series
from perfpolicy.metrics import answer
from perfpolicy.promql import names
from tests import builders as a
from tests.evaluate.answers import labels_of

LABELS = labels_of(a.a_policy(), names.ERROR_RATIO)


def text(*values: Any, labels: Any = LABELS, **more: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"result": [{"metric": labels, "values": list(values)}]}, **more}).encode()


def filed(read: Any) -> str:
    """What is filed of an answer. As text: NaN equals nothing."""
    rows: Rows = {}
    for series in read["data"]["result"]:
        add_series(rows, series["metric"], series["values"])
    return repr(rows)


def test_samples_are_numbers() -> None:
    read = answer.read(text([1, "0.5"], [2.5, "+Inf"], infos=["x"]))
    assert read == {"data": {"result": [{"metric": LABELS, "values": ((1.0, 0.5), (2.5, float("inf")))}]}}


def test_warnings_are_kept() -> None:
    assert answer.read(text(warnings=["partial"]))["warnings"] == ["partial"]


ODD: tuple[Any, ...] = (
    None, 7, [], [1], [1, "2", 3], [None, "1"], ["1", "1"], ["NaN", "1"], [-1, "1"], [1e300, "1"], [float("nan"), "1"], [True, "1"],
    [1, None], [1, ""], [1, "x"], [1, " 2 "], [1, "1_0"], [1, "0x1p-3"], [1, "1e400"], [1, "-0"], [1, "\u0661"], [1, True], [1, [2]],
    [1, "NaN"], [1, "-Inf"], [1, 2], [1, float("inf")],
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_sample_is_what_it_is_to_python(odd: Any) -> None:
    written = text([1, "2"], odd)
    assert filed(answer.read(written)) == filed(json.loads(written))


@given(st.lists(st.tuples(st.floats() | st.integers() | st.text(max_size=3), st.floats().map(repr) | st.text(max_size=6)), max_size=4))
def test_whatever_samples_there_are(values: list[Any]) -> None:
    written = text(*values)
    assert filed(answer.read(written)) == filed(json.loads(written))


@pytest.mark.parametrize("labels", [None, [], {"__name__": 7}, {**LABELS, "more": None}, {**LABELS, names.UID: []}])
def test_odd_labels_are_left_to_who_files_them(labels: Any) -> None:
    written = text([1, "2"], labels=labels)
    assert answer.read(written) == json.loads(written)


@pytest.mark.parametrize("depth", [300, 10_000])
def test_nesting_as_deep_as_python_takes_is_parsed(depth: int) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(60_000)
    try:
        assert answer.read(text(odd=json.loads("[" * depth + "]" * depth)))["data"]["result"]
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("broken", [b"", b"<html>", b'{"data"', b"\xff\xfe\x00"])
def test_what_is_not_json_is_no_answer(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|codec"):
        answer.read(broken)
