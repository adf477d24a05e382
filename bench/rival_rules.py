"""The rules Sloth and Pyrra publish for an availability SLO of 99.9 % over 30 days, on the same raw series as ours.

Sloth: the error ratio over seven windows of raw series every 30 s, and the period as the mean of its 5 m ratios. Pyrra: the same ratios as
burn rates over its own windows every 30 s, and the increase over the whole period from raw series every 2 m 30 s.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.backfill import Group

BUDGET: Final = "0.001"
SLOTH_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
PYRRA_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "4d")


def sloth(service: str) -> tuple[Group, ...]:
    """Sloth's recording rules; what its metadata and alerts read is a handful of samples more."""
    labels = {"sloth_id": service}
    windows = [
        _rule(f"slo:sli_error:ratio_rate{window}", sloth_ratio(service, window), {**labels, "sloth_window": window})
        for window in SLOTH_WINDOWS
    ]
    short = f'slo:sli_error:ratio_rate5m{{sloth_id="{service}"}}'
    period = _rule(
        "slo:sli_error:ratio_rate30d", f"sum_over_time({short}[30d]) / ignoring (sloth_window) count_over_time({short}[30d])", labels
    )
    return (Group(f"sloth-slo-sli-recordings-{service}", 30, [*windows, period]),)


def sloth_only(service: str, *windows: str) -> tuple[Group, ...]:
    """Of Sloth's recording rules those of some windows."""
    names = {f"slo:sli_error:ratio_rate{window}" for window in windows}
    return tuple(Group(group.name, group.interval, [rule for rule in group.rules if rule["record"] in names]) for group in sloth(service))


def sloth_ratio(service: str, window: str) -> str:
    """Sloth's error ratio: of the rates over one window."""
    return f"(sum(rate({_errors(service)}[{window}]))) / (sum(rate({_total(service)}[{window}])))"


PAGE_WINDOWS: Final = ("5m", "30m", "1h", "6h")


def sloth_page(service: str) -> str:
    """Sloth's page alert, in a group of its own: it reads what the group of recordings recorded last."""
    return _page(lambda window: f'slo:sli_error:ratio_rate{window}{{sloth_id="{service}"}}')


def sloth_page_at_once(service: str) -> str:
    """The same if it saw the ratios of this very moment."""
    return _page(lambda window: sloth_ratio(service, window))


def _page(ratio: Callable[[str], str]) -> str:
    fast = " and ".join(f"max({ratio(window)} > (14.4 * {BUDGET})) without (sloth_window)" for window in ("5m", "1h"))
    slow = " and ".join(f"max({ratio(window)} > (6 * {BUDGET})) without (sloth_window)" for window in ("30m", "6h"))
    return f"({fast}) or ({slow})"


def pyrra(service: str) -> tuple[Group, ...]:
    """Pyrra's recording rules."""
    labels = {"slo": service}
    burn = [
        _rule(f"istio_requests:burnrate{w}", f"sum(rate({_errors(service)}[{w}])) / sum(rate({_total(service)}[{w}]))", labels)
        for w in PYRRA_WINDOWS
    ]
    increase = _rule("istio_requests:increase30d", f"sum by (response_code) (increase({_total(service)}[30d]))", labels)
    return Group(service, 30, burn), Group(f"{service}-increase", 150, [increase])


def pyrra_ratio(service: str) -> str:
    """The period's error ratio, of the increases over the period."""
    return f"sum(increase({_errors(service)}[30d])) / sum(increase({_total(service)}[30d]))"


def _rule(name: str, expr: str, labels: Mapping[str, str]) -> Mapping[str, Any]:
    return {"record": name, "expr": expr, "labels": dict(labels)}


def _total(service: str) -> str:
    return f'istio_requests_total{{reporter="destination",destination_workload="{service}",destination_workload_namespace="bench"}}'


def _errors(service: str) -> str:
    return _total(service).replace("}", ',response_code=~"5.."}')
