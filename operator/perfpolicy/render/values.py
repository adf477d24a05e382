"""Values in the form the rendered APIs want them: Istio durations, percentages, quantities. Pure.

Each is a template filter and lets None pass: what was not asked for stays absent.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from perfpolicy.policy.model import StringMatch
from perfpolicy.units import milliseconds


def istio_duration(value: timedelta | None) -> str | None:
    """`30s`, `0.5s`: protobuf's form, which Istio stores; `1m` would come back as another text and look like drift."""
    if value is None:
        return None
    return f"{_digits(Decimal(milliseconds(value)) / 1000)}s"


def percent_number(ratio: Decimal | None) -> float | int | None:
    """A ratio as Istio's Percent.value: 0.001 to 0.1."""
    if ratio is None:
        return None
    percent = ratio * 100
    return int(percent) if percent == percent.to_integral_value() else float(percent)


def cpu(cores: Decimal | None) -> str | None:
    """Cores as a quantity: `2`, `250m`. Parts of a millicore, which the API server refuses, round up."""
    if cores is None:
        return None
    millicores = int((cores * 1000).to_integral_value(ROUND_CEILING))
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def memory(size: Decimal | None) -> str | None:
    """Bytes as a quantity in the largest binary unit that loses nothing: `512Mi`."""
    if size is None:
        return None
    count = int(size.to_integral_value(ROUND_CEILING))
    for suffix in ("Ki", "Mi", "Gi", "Ti"):
        if not count or count % 1024:
            return f"{count}{_SMALLER[suffix]}"
        count //= 1024
    return f"{count}Ti"


def seconds(value: timedelta | None) -> int | None:
    """Whole seconds, rounded up, at least 1 for anything longer than nothing: the kubelet knows no parts of a second."""
    if value is None:
        return None
    return -(-milliseconds(value) // 1000)


def pods(value: int | Decimal | None) -> int | str | None:
    """A number of pods, or a share of them as a percentage (IntOrString)."""
    return f"{_digits(value * 100)}%" if isinstance(value, Decimal) else value


def string_match(value: StringMatch | None) -> Mapping[str, str] | None:
    """Istio StringMatch: `{prefix: /api}`."""
    return None if value is None else {value.kind.value: value.value}


def string_matches(value: Iterable[tuple[str, StringMatch]]) -> Mapping[str, Mapping[str, str]] | None:
    """StringMatches by header or query parameter; none at all is absent."""
    return {name: {match.kind.value: match.value} for name, match in value} or None


def label_selector(labels: Mapping[str, str] | None) -> Mapping[str, Any]:
    """A LabelSelector; without labels it selects everything."""
    return {"matchLabels": labels} if labels else {}


def texts(value: Iterable[int]) -> list[str]:
    """Numbers where an API wants them as text (Istio's ports)."""
    return [str(number) for number in value]


def some(value: object) -> object | None:
    """An empty list, mapping or text, or a zero, as absent: for fields where that says nothing."""
    return value if value else None


def _digits(number: Decimal) -> str:
    """Plain digits without trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_SMALLER: Final = {"Ki": "", "Mi": "Ki", "Gi": "Mi", "Ti": "Gi"}

FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "duration": istio_duration,
    "percent": percent_number,
    "cpu": cpu,
    "memory": memory,
    "seconds": seconds,
    "pods": pods,
    "string_match": string_match,
    "string_matches": string_matches,
    "label_selector": label_selector,
    "texts": texts,
    "some": some,
}
