"""Panels as Grafana's JSON, without what Grafana fills in by itself: a ConfigMap of every policy holds one. Pure."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from perfpolicy.promql.panels import Panel

TAG: Final = "perfpolicy"
_SCHEMA_VERSION: Final = 39
"""Grafana 10.4 and later read it as it is."""
_WIDTH: Final = 8
_HEIGHT: Final = 8
_IN_A_ROW: Final = 24 // _WIDTH
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]


def dashboard(
    uid: str, title: str, panels: Sequence[Panel], *, tags: Sequence[str] = (), variables: Sequence[Json] = (), links: Sequence[Json] = ()
) -> Json:
    """A dashboard of time series, three in a row. `uid`: at most 40 letters, digits and dashes; Grafana keeps one dashboard of each."""
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": uid,
        "title": title,
        "tags": [TAG, *tags],
        "schemaVersion": _SCHEMA_VERSION,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, *variables]},
        "links": list(links),
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def text(content: Json) -> str:
    """The dashboard in as few bytes as JSON can."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def regex_variable(name: str, label: str, query: str) -> Json:
    """A variable that is all, or some, of the values a Prometheus query names."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def by_tag(title: str, *tags: str) -> Json:
    """A menu of the dashboards with these tags."""
    return {"title": title, "type": "dashboards", "tags": list(tags), "asDropdown": True}


def web_page(title: str, url: str) -> Json:
    """A link to a page outside Grafana."""
    return {"title": title, "type": "link", "url": url, "targetBlank": True}


def _panel(number: int, panel: Panel) -> Json:
    row, column = divmod(number, _IN_A_ROW)
    defaults: Json = {"unit": panel.unit.value}
    lines = sorted([*((limit, "red") for limit in panel.limits), *((mark, "orange") for mark in panel.marks)])
    if lines:
        steps = [{"color": color, "value": _number(value)} for value, color in lines]
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": "green", "value": None}, *steps]}
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    found: Json = {
        "id": number + 1,
        "title": panel.title,
        "type": "timeseries",
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "expr": str(query.expr), "legendFormat": query.legend} for n, query in enumerate(panel.queries)
        ],
    }
    if panel.description:
        found["description"] = panel.description
    return found


def _number(value: Decimal) -> int | float:
    """JSON has no decimals; a limit is drawn, not compared."""
    return int(value) if value == value.to_integral_value() else float(value)
