"""Policies and their status as rich tables. Pure: raw objects in, renderables out."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_STYLES = {
    "True": "green",
    "Met": "green",
    "False": "red",
    "Violated": "red",
    "Unknown": "yellow",
    "P0": "bold red",
    "P1": "red",
    "P2": "yellow",
}
_INVERTED = frozenset({"Conflict", "Reconciling", "Stalled", "Suspended"})
"""Conditions that are bad news when True."""

Policy = Mapping[str, Any]


def overview(policies: Iterable[Policy]) -> RenderableType:
    """One line per policy: the printer columns of `kubectl get pp -o wide`, and the first thing that is wrong."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("namespace", "name", "ready", "met", "p95", "errors", "budget", "health", "severity", "rps", "message"):
        table.add_column(column, overflow="fold")
    for policy in policies:
        status = policy.get("status") or {}
        summary = status.get("summary") or {}
        metadata = policy["metadata"]
        cells = [summary.get(key, "-") for key in ("met", "p95", "errors", "budget", "health", "severity", "rps")]
        ready = _condition(status, "Ready").get("status", "Unknown")
        table.add_row(metadata["namespace"], metadata["name"], _styled(ready), *map(_styled, cells), _trouble(status))
    return table


def details(policy: Policy) -> RenderableType:
    """Everything the status of one policy says."""
    status = policy.get("status") or {}
    metadata = policy["metadata"]
    used = status.get("class") or {}
    title = Text(f"{metadata['namespace']}/{metadata['name']}", style="bold")
    title.append(
        f"  class {used.get('name', '-')}  generation {metadata.get('generation', '-')} observed {status.get('observedGeneration', '-')}",
        "dim",
    )
    parts: list[RenderableType] = [title, _conditions(status)]
    if status.get("thresholds"):
        parts.append(
            _rows(status["thresholds"], ("name", "limit", "observed", "interval", "verdict", "reason", "since", "sampleTime"), "thresholds")
        )
    if status.get("objectives"):
        parts.append(
            _rows(status["objectives"], ("name", "target", "observed", "budgetRemaining", "coverage", "verdict", "reason"), "objectives")
        )
    if health := status.get("health"):
        shares = f"errors {health['errors']}/40, latency {health['latency']}/40, slow {health['slow']}/20"
        parts.append(Text(f"health {health['score']} {health['level']} ({shares})   severity {status.get('severity', '-')}"))
    if status.get("antiPatterns"):
        parts.append(_rows(status["antiPatterns"], ("name", "symptom", "impact", "solution"), "anti-patterns"))
    if resources := status.get("resources"):
        parts.append(_rows(resources, ("kind", "name"), f"{len(resources)} children"))
    return Group(*parts)


def _conditions(status: Mapping[str, Any]) -> Table:
    table = Table(title="conditions", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("type", "status", "reason", "since", "message"):
        table.add_column(column, overflow="fold")
    for condition in status.get("conditions") or ():
        inverted = {"True": "False", "False": "True"} if condition["type"] in _INVERTED else {}
        style = _STYLES.get(inverted.get(condition["status"], condition["status"]), "")
        table.add_row(
            condition["type"],
            Text(condition["status"], style),
            condition.get("reason", ""),
            condition.get("lastTransitionTime", ""),
            Text(condition.get("message", "")),
        )
    return table


def _rows(rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_styled(str(row.get(column, ""))) for column in columns))
    return table


def _styled(text: str) -> Text:
    return Text(text, _STYLES.get(text, ""))


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((condition for condition in status.get("conditions") or () if condition["type"] == kind), {})


def _trouble(status: Mapping[str, Any]) -> Text:
    """The first condition that is not as it should be, in the order in which they depend on each other."""
    for condition in status.get("conditions") or ():
        good = "False" if condition["type"] in _INVERTED else "True"
        if condition["status"] != good:
            return Text(f"{condition['type']}={condition['status']}/{condition.get('reason', '')}: {condition.get('message', '')}")
    return Text("")
