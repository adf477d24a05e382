"""Templates to manifests. The only module that knows jinja2; reads templates/, touches nothing else.

A template gives shape and never sees a value as text. `{{ x }}` puts a marker into the output and `x` itself aside; the output, which then
holds only what we wrote, is parsed as YAML, and each marker is replaced by the value it stands for. So no string of a policy can end a
scalar, start a key or become a number: it is never quoted because it is never text. (A JSON filter would be correct too, but parses every
value again: measured ten times slower on rule groups.) Checked afterwards: every value put aside arrived exactly once and alone in its
place; apiVersion, kind and metadata are what the code, not the template, decided.

Absence: None means "not asked for", as in the model. A key whose value is None (or has nothing after it) is left out, and so is a key whose
mapping became empty that way. Empty values passed in stay: `{}` means "everything" in half of these APIs. An element of a list may never
vanish.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from functools import cache, lru_cache
from typing import Any, Final

from jinja2 import PackageLoader, StrictUndefined, Template, TemplateError, Undefined, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from perfpolicy import yaml_text
from perfpolicy.errors import RenderError
from perfpolicy.policy.model import Policy
from perfpolicy.render import values
from perfpolicy.render.manifest import Child, ChildKind, Manifest, metadata
from perfpolicy.render.merge import merge

_MARK: Final = "\ue000"
"""A private-use character: legal in YAML, and in no template."""
_MARKER: Final = re.compile(f"{_MARK}([0-9]+){_MARK}")
_ASIDE: Final = "_aside"
_ABSENT: Final = object()


def manifest(kind: ChildKind, policy: Policy, child: Child) -> Manifest:
    """Render one child. Raises RenderError naming template and object where the template or a value is wrong."""
    meta = metadata(policy, child)
    what = f"{kind.kind} {meta['namespace']}/{child.name} from {kind.template}"
    aside: list[object] = []
    try:
        text = template(kind.template).render({**child.values, "metadata": meta, _ASIDE: aside})
        result = _substitute(_skeleton(text), aside)
    except (TemplateError, ValueError) as error:
        raise RenderError(f"{what}: {error}") from error
    if not isinstance(result, dict):
        raise RenderError(f"{what}: the template is not a mapping")
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.kind), ("metadata", meta)):
        if result.get(field) != expected:
            raise RenderError(f"{what}: {field} is {result.get(field)!r} and must be {expected!r}")
    try:
        return merge(result, plain(child.beneath)) if child.beneath else result
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The author's own words may have any shape that no check has thought of.
        raise RenderError(f"{what}: the author's part cannot be merged: {error!r}") from error


@pass_context
def _put_aside(context: Context, value: object) -> str:
    """What jinja2 calls for every `{{ }}`. Takes the context so that nothing is folded when the template is compiled."""
    if isinstance(value, Undefined):
        return str(value)  # raises, naming the variable
    aside: list[object] = context[_ASIDE]
    aside.append(value)
    return f"{_MARK}{len(aside) - 1}{_MARK}"


class _Environment(SandboxedEnvironment):
    """The sandbox's own judgement of attributes, asked once per type and name instead of at every access (a third of the time)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._judged: dict[tuple[type, str], bool] = {}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        judged = self._judged.get((type(obj), attr))
        if judged is None:
            judged = self._judged[type(obj), attr] = super().is_safe_attribute(obj, attr, value)
        return judged


@cache
def _environment() -> _Environment:
    environment = _Environment(
        loader=PackageLoader("perfpolicy", "templates"),
        undefined=StrictUndefined,
        finalize=_put_aside,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        auto_reload=False,
    )
    environment.filters.update(values.FILTERS)
    return environment


@cache
def template(name: str) -> Template:
    """The compiled template."""
    return _environment().get_template(name)


@lru_cache(maxsize=1024)
def _skeleton(text: str) -> Any:
    """Parsed template output; equal for all policies that ask for the same things. Never handed out, only copied by _substitute."""
    return yaml_text.load(text)


def _substitute(skeleton: Any, aside: list[object]) -> Any:
    """A copy of the skeleton with every marker replaced by its value."""
    used: list[int] = []
    result = _fill(skeleton, aside, used, "")
    if sorted(used) != list(range(len(aside))):
        raise ValueError(f"{len(aside)} values were put in and {len(used)} came out (one stands in a comment, a key, or twice)")
    return result


def _fill(node: Any, aside: list[object], used: list[int], path: str) -> Any:
    if isinstance(node, dict):
        return _fill_mapping(node, aside, used, path)
    if isinstance(node, list):
        items = [_fill(item, aside, used, f"{path}[{n}]") for n, item in enumerate(node)]
        if any(item is _ABSENT for item in items):
            raise ValueError(f"an element of the list at {path or 'the top'} came out empty")
        return items
    if node is None:
        return _ABSENT
    if not isinstance(node, str) or _MARK not in node:
        return node
    marker = _MARKER.fullmatch(node)
    if marker is None:
        raise ValueError(f"a value is pasted into text at {path}")
    used.append(int(marker[1]))
    value = aside[int(marker[1])]
    return _ABSENT if value is None else plain(value, path)


def _fill_mapping(node: Mapping[Any, Any], aside: list[object], used: list[int], path: str) -> Any:
    result: Manifest = {}
    for key, child in node.items():
        if not isinstance(key, str) or _MARK in key:
            raise ValueError(f"the key {key!r} at {path} is not plain text")
        value = _fill(child, aside, used, f"{path}.{key}")
        if value is not _ABSENT:
            result[key] = value
    return _ABSENT if node and not result else result


def plain(value: object, path: str = "") -> Any:
    """A deep copy as JSON data. ValueError for what JSON has not, and for None inside a value: absence is decided before, not here."""
    kind = type(value)
    if kind is str or kind is int or kind is bool:
        return value  # most of a rule group
    if isinstance(value, Enum):
        return plain(value.value, path)
    if isinstance(value, Mapping):
        return {_key(key, path): item if type(item) is str else plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{n}]") for n, item in enumerate(value)]
    if isinstance(value, str | bool | int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{path} is not a finite number")
        return value
    hint = ": format it first" if isinstance(value, Decimal) else ""
    raise ValueError(f"{path} is a {type(value).__name__}, which has no place in a manifest{hint}")


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"the key {key!r} at {path} is not text")
    return key
