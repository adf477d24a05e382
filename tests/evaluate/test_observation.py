"""A sample or one of the reasons why there is none; whatever a backend sends, nothing crashes and nothing becomes a value."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.evaluate.observation import Observation, Reading, Row, Rows, SampleName, Snapshot, add_series, points, sample_name
from perfpolicy.promql import names
from perfpolicy.vocabulary import Reason
from tests import builders as a
from tests.evaluate.answers import NOW, STEP, answer, labels_of

NAME = sample_name("s")


def observe(rows: Mapping[SampleName, Row] | MetricsUnavailable, name: SampleName = NAME) -> Observation:
    return Reading(rows, NOW, timedelta()).observe(name, STEP)


def seen(*values: Any, series: int = 1) -> Observation:
    return observe({NAME: Row(points(values), series)})


def ago(seconds: float, value: str = "1") -> list[Any]:
    return [NOW.timestamp() - seconds, value]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], Reason.NO_DATA),
        ([ago(91)], Reason.STALE_SAMPLE),
        ([ago(-91)], Reason.STALE_SAMPLE),
        ([ago(89)], None),
        ([ago(0, "NaN")], Reason.NOT_A_NUMBER),
        ([ago(0, "+Inf")], Reason.NOT_A_NUMBER),
        ([ago(0, "-Inf")], Reason.NOT_A_NUMBER),
        ([ago(30), ago(0, "NaN")], Reason.NOT_A_NUMBER),
        ([ago(30, "NaN"), ago(0)], None),
        ([ago(0, "garbage")], Reason.NOT_A_NUMBER),
        ([["garbage", "1"]], Reason.NOT_A_NUMBER),
        ([[1e300, "1"]], Reason.NOT_A_NUMBER),
        (["xy"], Reason.NOT_A_NUMBER),
        ([None], Reason.NOT_A_NUMBER),
        ([[1]], Reason.NOT_A_NUMBER),
    ],
)
def test_reasons(values: list[Any], reason: Reason | None) -> None:
    assert seen(*values).reason is reason
    assert (seen(*values).newest is None) is (reason is not None)


def test_an_absent_series_is_no_data() -> None:
    assert observe({}).reason is Reason.NO_DATA


def test_several_series_are_not_one() -> None:
    assert seen(ago(0), series=2).reason is Reason.SEVERAL_SERIES


def test_an_unreachable_source_has_no_sample() -> None:
    assert observe(MetricsUnavailable("down")).reason is Reason.SOURCE_UNREACHABLE


def test_samples_come_in_time_order_and_finite() -> None:
    observation = seen(ago(0, "3"), ago(60, "1"), ago(30, "NaN"))
    assert [sample.value for sample in observation.since(None)] == [1, 3]
    assert [sample.value for sample in observation.since(NOW - timedelta(seconds=60))] == [3]
    assert observation.newest is not None
    assert observation.newest.time == NOW


def test_rows_of_another_uid_belong_to_somebody_else() -> None:
    policy = a.a_policy()
    assert answer(policy, uid="forged").of(policy) == {}
    assert answer(policy).of(policy) != {}


def reason_with(*labels: dict[str, str]) -> Reason | None:
    """Why there is no error ratio of a policy whose own series has the first of the label sets, and somebody else's the others."""
    rows: Rows = {}
    for extra in labels:
        add_series(rows, labels_of(a.a_policy(), names.ERROR_RATIO, **extra), [ago(0, "0.5" if extra == labels[0] else "0")])
    add_series(rows, labels_of(a.a_policy(), names.REVISION, **labels[0]), [ago(0)])
    observation = observe(Snapshot(rows).of(a.a_policy()), sample_name(names.ERROR_RATIO))
    assert observation.newest is None or observation.newest.value == 0.5
    return observation.reason


@pytest.mark.parametrize("added_by_the_backend", [{}, {"cluster": "a", "replica": "0"}])
def test_a_row_with_a_label_more_than_the_revision_belongs_to_nobody(added_by_the_backend: dict[str, str]) -> None:
    assert reason_with(added_by_the_backend, {**added_by_the_backend, "forged": "yes"}) is None
    assert reason_with(added_by_the_backend, added_by_the_backend) is Reason.SEVERAL_SERIES


@pytest.mark.parametrize("forged", [(), (names.REVISION,)])
def test_where_the_revision_does_not_tell_there_are_several_series(forged: tuple[str, ...]) -> None:
    rows: Rows = {}
    for extra in ({}, {"forged": "yes"}):
        for series in (names.ERROR_RATIO, *forged):
            add_series(rows, labels_of(a.a_policy(), series, **extra), [ago(0)])
    own = Snapshot(rows).of(a.a_policy())
    assert observe(own, sample_name(names.ERROR_RATIO)).reason is Reason.SEVERAL_SERIES


def test_series_that_are_not_labelled_as_ours_are_dropped() -> None:
    rows: Rows = {}
    labels: Any
    for labels in (
        {},
        {"__name__": "x"},
        {**labels_of(a.a_policy(), "x"), names.UID: ""},
        None,
        [],
        "x",
        {**labels_of(a.a_policy(), "x"), names.POLICY: 7},
    ):
        add_series(rows, labels, [ago(0)])
    add_series(rows, labels_of(a.a_policy(), "x"), "not a list")
    assert rows == {}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(ANYTHING, ANYTHING)
def test_no_answer_can_crash_the_filing_of_rows(labels: Any, values: Any) -> None:
    rows: Rows = {}
    add_series(rows, labels, values)
    assert all(isinstance(part, str) and part for owner in rows for part in owner)
    Snapshot(rows).of(a.a_policy())


@given(st.lists(ANYTHING | st.tuples(st.floats() | st.integers(), st.text(max_size=5) | st.floats()).map(list), max_size=5))
def test_no_row_can_crash_an_observation_or_give_what_is_not_finite(values: list[Any]) -> None:
    observation = seen(*values)
    assert all(math.isfinite(sample.value) for sample in observation.since(None))
    assert (observation.reason is None) == bool(list(observation.since(None)))


@given(st.floats(min_value=0, max_value=90), st.floats(allow_nan=False, allow_infinity=False))
def test_a_fresh_finite_sample_is_kept_exactly(age: float, value: float) -> None:
    observation = seen(ago(age, repr(value)))
    assert observation.newest is not None
    assert observation.newest.value == value
    assert NOW - observation.newest.time <= timedelta(seconds=91)
    assert observation.newest.time.tzinfo == UTC
    assert isinstance(observation.newest.time, datetime)


@pytest.mark.parametrize("more", [{"cluster": "a"}, {names.QUANTILE: None}, {"cluster": None}, {names.WINDOW: 7}])
def test_an_odd_or_unknown_label_keeps_a_row_apart_from_the_policy_s_own(more: dict[str, Any]) -> None:
    rows: Rows = {}
    own = labels_of(a.a_policy(), names.ERROR_RATIO)
    for labels, value in ((own, "0.5"), ({**own, **more}, "0"), ({**own, "__name__": names.REVISION}, "1")):
        add_series(rows, labels, [ago(0, value)])
    newest = observe(Snapshot(rows).of(a.a_policy()), sample_name(names.ERROR_RATIO)).newest
    assert newest is not None
    assert newest.value == 0.5


@pytest.mark.parametrize("label", ["__name__", names.NAMESPACE, names.POLICY, names.UID])
@pytest.mark.parametrize("value", [None, "", 7, [], {}])
def test_a_row_without_a_whole_identity_belongs_to_nobody(label: str, value: Any) -> None:
    rows: Rows = {}
    for labels in (
        labels_of(a.a_policy(), "x") | {label: value},
        labels_of(a.a_policy(), "y"),
        labels_of(a.a_policy(), "y") | {label: value},
    ):
        add_series(rows, labels, [ago(0)])
    assert [list(named) for apart in rows.values() for named in apart.values()] == [[sample_name("y")]]
