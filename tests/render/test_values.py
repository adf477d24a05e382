"""Units in the rendered APIs' own form, checked by reading them back where there is a reader."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfpolicy.render import values
from perfpolicy.units import parse_quantity


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0, "0s"), (500, "0.5s"), (30_000, "30s"), (1, "0.001s"), (3_600_000, "3600s"), (1_250, "1.25s")]
)
def test_istio_duration(milliseconds: int, text: str) -> None:
    assert values.istio_duration(timedelta(milliseconds=milliseconds)) == text


@given(st.integers(0, 10**9))
def test_istio_duration_loses_nothing(milliseconds: int) -> None:
    text = values.istio_duration(timedelta(milliseconds=milliseconds))
    assert text is not None
    assert Decimal(text.removesuffix("s")) * 1000 == milliseconds


@pytest.mark.parametrize(("ratio", "number"), [("0.001", 0.1), ("0.0001", 0.01), ("1", 100), ("0.5", 50), ("0.00000001", 1e-6)])
def test_percent_number(ratio: str, number: float) -> None:
    assert values.percent_number(Decimal(ratio)) == number


@pytest.mark.parametrize(("cores", "text"), [("0.25", "250m"), ("2", "2"), ("1.5", "1500m"), ("0.0001", "1m")])
def test_cpu(cores: str, text: str) -> None:
    assert values.cpu(Decimal(cores)) == text


@pytest.mark.parametrize(("size", "text"), [(512 * 1024**2, "512Mi"), (1024, "1Ki"), (1000, "1000"), (3 * 1024**4, "3Ti"), (0, "0")])
def test_memory(size: int, text: str) -> None:
    assert values.memory(Decimal(size)) == text


@given(st.integers(0, 2**60))
def test_memory_loses_nothing(size: int) -> None:
    text = values.memory(Decimal(size))
    assert text is not None
    assert parse_quantity(text) == size


@pytest.mark.parametrize(("milliseconds", "whole"), [(0, 0), (1, 1), (1000, 1), (1001, 2)])
def test_seconds_round_up(milliseconds: int, whole: int) -> None:
    assert values.seconds(timedelta(milliseconds=milliseconds)) == whole


@pytest.mark.parametrize("name", ["duration", "percent", "cpu", "memory", "seconds", "string_match", "some"])
def test_absence_passes_through_filters(name: str) -> None:
    assert values.FILTERS[name](None) is None
