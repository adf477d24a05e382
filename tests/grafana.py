"""Dashboards read with Grafana's own types (its foundation SDK): what Grafana does not know is dropped there, and so is seen here."""

import json
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def problems(content: Mapping[str, Any]) -> list[str]:
    """Where the dashboard says something Grafana's types have no field or no value for."""
    plugins.register_default_plugins()
    read = Dashboard.from_json(dict(content))
    known = json.loads(JSONEncoder().encode(read))
    return [*_lost(content, known, ""), *_mistyped(read, Dashboard, "")]


def _lost(written: Any, known: Any, path: str) -> Iterator[str]:
    if isinstance(written, Mapping):
        if not isinstance(known, Mapping):
            yield f"{path}: is no object to Grafana"
            return
        for key, value in written.items():
            if key in known:
                yield from _lost(value, known[key], f"{path}.{key}")
            elif value is not None:
                yield f"{path}.{key}: unknown to Grafana"
    elif isinstance(written, list):
        for n, value in enumerate(written):
            yield from _lost(value, known[n], f"{path}[{n}]")
    elif written != known:
        yield f"{path}: {written!r} reads as {known!r}"


def _mistyped(value: Any, expected: Any, path: str) -> Iterator[str]:
    """Values that are not of the types the SDK declares: it reads whatever it is given."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Union:
        found = [list(_mistyped(value, one, path)) for one in arguments]
        if all(found):
            yield from min(found, key=len)
    elif origin is list and isinstance(value, list):
        for n, each in enumerate(value):
            yield from _mistyped(each, arguments[0], f"{path}[{n}]")
    elif isinstance(expected, type):
        yield from _mistyped_plain(value, expected, path)
    elif origin is list:
        yield f"{path}: is no list"


def _mistyped_plain(value: Any, expected: type, path: str) -> Iterator[str]:
    if issubclass(expected, Enum):
        allowed = [each.value for each in expected]
        if value not in [*allowed, *expected]:
            yield f"{path}: {value!r} is not one of {allowed}"
    elif expected in (str, bool, int, float, type(None)):
        if not isinstance(value, (int, float) if expected is float else expected):
            yield f"{path}: {value!r} is no {expected.__name__}"
    elif hasattr(expected, "from_json"):
        if isinstance(value, expected):
            for name, declared in typing.get_type_hints(expected).items():
                yield from _mistyped(getattr(value, name), declared, f"{path}.{name}")
        else:
            yield f"{path}: is no {expected.__name__}"
