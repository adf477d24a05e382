"""Text to numbers and back: durations, percentages, quantities, rates. Pure.

Below policy/ nobody meets a unit as text: `500ms` is a timedelta, `99.9%` is Decimal("0.999"), `250m` CPU is Decimal("0.25").
"""

import re
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache

DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
"""GEP-2257: one to four parts, each 1-5 digits and h, m, s or ms."""
PERCENT_PATTERN = r"^(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)%$"
DECIMAL_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,6})?$"
QUANTITY_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,6})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

_UNIT_MS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_SUFFIX = {
    "": Decimal(1),
    **{s: Decimal(1000) ** n for n, s in enumerate(("n", "u", "m"), -3)},
    **{s: Decimal(1000) ** n for n, s in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{s: Decimal(1024) ** n for n, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> timedelta:
    """`1h30m`, `500ms` (GEP-2257) to a timedelta; ValueError says the form."""
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration: use up to four parts such as 500ms, 30s, 5m, 1h30m")
    parts = re.findall(r"([0-9]+)(ms|h|m|s)", text)
    return timedelta(milliseconds=sum(int(n) * _UNIT_MS[u] for n, u in parts))


@lru_cache(maxsize=1024)
def format_duration(value: timedelta) -> str:
    """A timedelta as the shortest GEP-2257 text (`90s` becomes `1m30s`); zero is `0s`. Resolution: 1 ms."""
    rest = milliseconds(value)
    out = ""
    for unit in ("h", "m", "s", "ms"):
        count, rest = divmod(rest, _UNIT_MS[unit])
        out += f"{count}{unit}" if count else ""
    return out or "0s"


def milliseconds(value: timedelta) -> int:
    """Whole milliseconds of a timedelta."""
    return value // timedelta(milliseconds=1)


def parse_percent(text: str) -> Decimal:
    """`99.9%` to the ratio Decimal("0.999"); ValueError says the form."""
    if not re.fullmatch(PERCENT_PATTERN, text):
        raise ValueError(f"{text!r} is not a percentage: use a text such as 99.9%, from 0% to 100%")
    return Decimal(text[:-1]) / 100


def format_percent(ratio: Decimal | float) -> str:
    """A ratio as a percentage text without trailing zeros: 0.999 to `99.9%`."""
    text = f"{Decimal(str(ratio)) * 100:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"


def parse_quantity(text: str) -> Decimal:
    """A Kubernetes quantity (`250m`, `512Mi`) as a plain number of cores or bytes; ValueError says the form."""
    match = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)(?:[eE]([+-]?[0-9]{1,2})|([A-Za-z]*))", text)
    if match is None or (match[3] or "") not in _SUFFIX:
        raise ValueError(f"{text!r} is not a quantity: use a number with an optional suffix such as 250m, 2, 512Mi")
    return Decimal(match[1]).scaleb(int(match[2] or 0)) * _SUFFIX[match[3] or ""]


def parse_decimal(text: str) -> Decimal:
    """A plain decimal number written as text; ValueError says the form."""
    try:
        if not re.fullmatch(DECIMAL_PATTERN, text):
            raise InvalidOperation
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number: use digits such as 1000 or 0.1") from None
