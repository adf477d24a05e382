"""Numbers as the status shows them: two to three significant digits with their unit, never a float."""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from perfpolicy.units import format_duration, format_percent

_DIGITS: Final = 3
_THOUSANDS: Final = ((10**9, "G"), (10**6, "M"), (10**3, "k"))
_PLAIN: Final = range(-9, 15)
"""Decimal exponents written in full; a backend's nonsense beyond them must still fit its field."""


def significant(value: Decimal | float, digits: int = _DIGITS) -> str:
    """A finite number rounded to significant digits, without trailing zeros; with an exponent only far outside of what is measured."""
    number = _decimal(value)
    if number == 0:
        return "0"
    if number.adjusted() not in _PLAIN:
        return f"{number:.{digits - 1}e}"
    rounded = round(number, digits - 1 - number.adjusted())
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def figure(value: Decimal | float, unit: str) -> str:
    """A value in its unit as text: "s" seconds (shown in ms below 1 s), "%" a ratio, "/s" a rate; anything else is a plain number."""
    number = _decimal(value)
    if unit == "s":
        return f"{significant(number * 1000)}ms" if number < 1 else f"{significant(number)}s"
    if unit == "%":
        return f"{significant(number * 100)}%"
    return f"{_scaled(number)}{unit}"


def exact(limit: Decimal, unit: str) -> str:
    """A limit of the spec in its unit, unrounded, so that two limits never read the same."""
    if unit == "s":
        return format_duration(timedelta(milliseconds=int(limit * 1000)))
    return format_percent(limit) if unit == "%" else f"{limit:f}{unit}"


def _decimal(value: Decimal | float) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else value


def _scaled(number: Decimal) -> str:
    for factor, suffix in _THOUSANDS:
        if 10 * factor <= number < factor * 10**6:
            return f"{significant(number / factor)}{suffix}"
    return significant(number)
