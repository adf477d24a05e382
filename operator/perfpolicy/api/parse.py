"""Raw Kubernetes objects to wire models: one function, which reports every problem with the path of its field."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perfpolicy.api.base import Wire, broken_rules
from perfpolicy.errors import InvalidSpec, Problem

W = TypeVar("W", bound=Wire)

_FORMS = (
    ("(h|m|s|ms)", "a duration such as 500ms, 30s, 5m or 1h30m"),
    ("(h|m|s))", "a duration in whole seconds such as 5s or 1m30s"),
    ("(h|m|s)(", "a duration in whole seconds, above 0, such as 5s or 1m30s"),
    ("^([0-9]{1,4}|", "a number of pods or a percentage, in quotes, such as '1' or '25%'"),
    ("^[1-9][0-9]{0,2}%$", "a percentage in quotes such as 70%, from 1% to 999%"),
    ("1s|1m|1h|24h", "1s, 1m, 1h or 24h, the windows the rate limit service counts in"),
    ("%$", "a percentage in quotes such as 99.9%, from 0% to 100%"),
    ("Ki|Mi", "a quantity such as 250m, 2 or 512Mi"),
    ("T([01]", "a time in UTC such as 2026-12-06T02:00:00Z"),
    ("/ns/", "an identity such as cluster.local/ns/NAMESPACE/sa/SERVICEACCOUNT"),
)
"""What a pattern's characteristic part stands for, so that a message shows an example instead of a regular expression."""


def parse(obj: Mapping[str, Any], model: type[W], api_version: str, kind: str) -> W:
    """`obj` as `model`; InvalidSpec lists every problem. Cross-field rules need the fields of their object to parse."""
    if (obj.get("apiVersion"), obj.get("kind")) != (api_version, kind):
        found = f"{obj.get('apiVersion')} {obj.get('kind')}"
        raise InvalidSpec([Problem("kind", f"expected {api_version} {kind}, got {found}")])
    data = {key: obj[key] for key in ("metadata", "spec") if key in obj}
    try:
        value = validate(data, model, "")
    except InvalidSpec as error:
        rules = (Problem(p.path.lstrip("."), p.message) for p in _rules_of_parts(_plain(data), model, ""))
        raise InvalidSpec(sorted({*error.problems, *rules})) from None
    if problems := sorted(Problem(p.path.lstrip("."), p.message) for p in broken_rules(value, "")):
        raise InvalidSpec(problems)
    return value


def validate(data: Any, model: type[W], path: str) -> W:
    """`data` as `model` without cross-field rules; InvalidSpec lists every field that does not parse, below `path`."""
    try:
        return model.model_validate(_plain(data))
    except ValidationError as error:
        raise InvalidSpec(sorted({_problem(details, path) for details in error.errors()})) from None


def _rules_of_parts(data: Any, model: type[Wire], path: str) -> Iterator[Problem]:
    """The cross-field rules broken by those parts of `data` that do parse."""
    try:
        value = model.model_validate(data)
    except ValidationError:
        for info in model.model_fields.values():
            part, child = data.get(info.alias) if isinstance(data, dict) else None, _model_in(info.annotation)
            if child is None or part is None:
                continue
            for place, item in [(f"[{i}]", item) for i, item in enumerate(part)] if isinstance(part, list) else [("", part)]:
                yield from _rules_of_parts(item, child, f"{path}.{info.alias}{place}")
        return
    yield from broken_rules(value, path)


def _model_in(annotation: Any) -> type[Wire] | None:
    """The wire model a field holds, alone, optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, Wire):
        return annotation
    return next((found for option in get_args(annotation) if (found := _model_in(option))), None)


def dump(value: BaseModel) -> dict[str, Any]:
    """The wire form of a model: what was written, nothing filled in."""
    return value.model_dump(by_alias=True, exclude_none=True)


def _plain(value: Any) -> Any:
    """Dicts and lists all the way down: strict models take no mapping views such as kopf's."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _problem(details: ErrorDetails, path: str) -> Problem:
    place = path
    for part in details["loc"]:
        if part == "[key]":
            continue
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return Problem(place.lstrip("."), _message(details))


def _message(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    shown = repr(details["input"]) if isinstance(details["input"], (str, int, float, bool)) else "the value"
    match details["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "required"
        case "string_type":
            return f"{shown} must be text: put it in quotes"
        case "literal_error":
            return f"{shown} is not one of {context['expected']}"
        case "string_pattern_mismatch":
            pattern = context["pattern"]
            form = next((form for mark, form in _FORMS if mark in pattern), f"text of the form {pattern}")
            return f"{shown} is not allowed: use {form}"
        case _:
            return details["msg"]
