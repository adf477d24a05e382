"""What every wire model is made of: the strict base model, bounded text types, list kinds, and cross-field rules said twice.

A cross-field rule is written once as CEL (the API server refuses the object at `kubectl apply`) and once as Python (`perfpolicy lint`
refuses it without a cluster), side by side in one `Rule`, so that the two cannot drift apart unseen. Imports pydantic only.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from perfpolicy.errors import Problem
from perfpolicy.units import DECIMAL_PATTERN, DURATION_PATTERN, PERCENT_PATTERN, QUANTITY_PATTERN

T = TypeVar("T")

POLICY_NAME_MAX: Final = 50
"""Longest policy name: leaves 13 of the 63 characters of a label for the suffixes of derived objects."""

_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_TEXT = "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_KEY_PATTERN: Final = f"^({_LABEL}(\\.{_LABEL}){{0,9}}/)?{_TEXT[1:]}"
POSITIVE_DURATION_PATTERN: Final = r"^[1-9][0-9]{0,4}(h|m|s|ms)([0-9]{1,5}(h|m|s|ms)){0,3}$"
SECONDS_PATTERN: Final = r"^([0-9]{1,5}(h|m|s)){1,3}$"
POSITIVE_SECONDS_PATTERN: Final = r"^[1-9][0-9]{0,4}(h|m|s)([0-9]{1,5}(h|m|s)){0,2}$"

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=28)]
PositiveDuration = Annotated[str, Field(pattern=POSITIVE_DURATION_PATTERN, max_length=28)]
# The kubelet counts in seconds.
Seconds = Annotated[str, Field(pattern=SECONDS_PATTERN, max_length=18)]
PositiveSeconds = Annotated[str, Field(pattern=POSITIVE_SECONDS_PATTERN, max_length=18)]
Percent = Annotated[str, Field(pattern=PERCENT_PATTERN, max_length=11)]
WholePercent = Annotated[str, Field(pattern="^(100|[0-9]{1,2})%$", max_length=4)]
Number = Annotated[str, Field(pattern=DECIMAL_PATTERN, max_length=20)]
Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=22)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
DnsLabel = Annotated[str, Field(pattern=f"^{_LABEL}$", max_length=63)]
ServiceName = Annotated[str, Field(pattern="^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
ObjectName = Annotated[str, Field(pattern=f"^{_LABEL}(\\.{_LABEL})*$", max_length=253)]
PortName = Annotated[str, Field(pattern="^[a-z]([-a-z0-9]{0,13}[a-z0-9])?$", max_length=15)]
Host = Annotated[str, Field(pattern=f"^(\\*\\.)?({_LABEL}\\.)+[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?$", max_length=253)]
HeaderName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]*$", max_length=128)]
# Without `%`: Envoy reads %...% as a format command, and one it cannot parse makes it refuse the whole route table.
HeaderValue = Annotated[str, Field(pattern="^[ !-$&-~]*$", max_length=1024)]
UrlPath = Annotated[str, Field(pattern="^/[A-Za-z0-9/_.~!$&'()+,;=:@-]*$", max_length=256)]
MatchText = Annotated[str, Field(pattern="^[!-~]([ -~]*[!-~])?$", max_length=256)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY_PATTERN, max_length=253)]
LabelValue = Annotated[str, Field(pattern=f"^({_TEXT[1:-1]})?$", max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=8)]
PromLabelName = Annotated[str, Field(pattern="^[a-zA-Z][a-zA-Z0-9_]*$", max_length=63)]
MetricName = Annotated[str, Field(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=128)]
Selector = Annotated[str, Field(pattern="^[a-zA-Z_:][ -~]*$", max_length=512)]
# Prometheus expands {{ }} in alert labels and annotations: no braces.
PlainText = Annotated[str, Field(pattern="^[ -z|~]*$", max_length=253)]
HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"]
Switch = Literal["Enabled", "Disabled"]

Named = Annotated[
    list[T], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]})
]
"""A list whose items have unique names; server-side apply merges it by name."""
Atomic = Annotated[list[T], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})]
"""A list that is replaced whole."""
SetOf = Annotated[list[T], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})]
"""A list without duplicates."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A cross-field rule. `message` says what is allowed; `field` (wire name) is where the problem shows, empty for the object itself."""

    cel: str
    holds: Callable[[Any], bool]
    message: str
    field: str = ""

    def to_schema(self) -> dict[str, str]:
        """The rule as an entry of x-kubernetes-validations."""
        place = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.cel, "message": self.message, **place}


class Wire(BaseModel):
    """Base of all wire models: camelCase, unknown fields refused, text never turned into numbers."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, validate_by_name=False, use_attribute_docstrings=True
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()
    atomic: ClassVar[bool] = False
    """True: a union of alternatives; a policy's value replaces the class's whole instead of merging field by field."""

    @classmethod
    def all_rules(cls) -> tuple[Rule, ...]:
        """The rules of this model, those built from its fields included."""
        return cls.RULES

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Puts the rules into the schema of the model."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        if rules := cls.all_rules():
            schema["x-kubernetes-validations"] = [rule.to_schema() for rule in rules]
        if cls.atomic:
            schema["x-kubernetes-map-type"] = "atomic"
        return schema


class Block(Wire):
    """A capability a class may fill, so a policy can say `mode: Disabled` to have none of it."""

    mode: Switch | None = None
    """Disabled: nothing of this block is used, whatever the class says. Left out: Enabled."""

    @classmethod
    @cache
    def all_rules(cls) -> tuple[Rule, ...]:
        """Adds: a disabled block has no other fields, for they would have no effect."""
        names = [name for name in cls.model_fields if name != "mode"]
        absent = " && ".join(f"!has(self.{cls.model_fields[name].alias})" for name in names)
        alone = Rule(
            cel=f"!has(self.mode) || self.mode != 'Disabled' || ({absent})",
            holds=lambda block: block.mode != "Disabled" or all(getattr(block, name) is None for name in names),
            message="mode: Disabled stands alone: remove the other fields, or set mode: Enabled",
            field="mode",
        )
        return (*cls.RULES, alone)

    @property
    def enabled(self) -> bool:
        """Whether the block is used."""
        return self.mode != "Disabled"


def broken_rules(value: Any, path: str) -> Iterator[Problem]:
    """Every cross-field rule and list uniqueness the parsed `value` breaks, as the API server would report it."""
    if not isinstance(value, Wire):
        return
    for rule in value.all_rules():
        if not rule.holds(value):
            yield Problem(f"{path}.{rule.field}" if rule.field else path, rule.message)
    for field in _fields(type(value)):
        child = getattr(value, field.name)
        if isinstance(child, list):
            place = f"{path}.{field.alias}"
            yield from _duplicates(child, place, field.schema)
            for index, item in enumerate(child):
                yield from broken_rules(item, f"{place}[{index}]")
        elif isinstance(child, Wire):
            yield from broken_rules(child, f"{path}.{field.alias}")


class _Field(NamedTuple):
    """A field of a wire model. `schema`: the x-kubernetes-list-* markers of a list."""

    name: str
    alias: str | None
    schema: Mapping[str, Any]


@cache
def _fields(model: type[Wire]) -> tuple[_Field, ...]:
    """Those that can hold a model or a list."""
    return tuple(
        _Field(name, info.alias, _list_schema(info.annotation, info.json_schema_extra))
        for name, info in model.model_fields.items()
        if _nests(info.annotation)
    )


def _nests(annotation: Any) -> bool:
    found = annotation is list or get_origin(annotation) is list or (isinstance(annotation, type) and issubclass(annotation, Wire))
    return found or any(map(_nests, get_args(annotation)))


def _list_schema(annotation: Any, extra: Any) -> Mapping[str, Any]:
    """The x-kubernetes-list-* markers of a list field, which sit on the field or inside `list | None`."""
    if isinstance(extra, Mapping):
        return extra
    for option in getattr(annotation, "__args__", ()):
        for metadata in getattr(option, "__metadata__", ()):
            if isinstance(getattr(metadata, "json_schema_extra", None), Mapping):
                return dict(metadata.json_schema_extra)
    return {}


def _duplicates(items: list[Any], path: str, schema: Mapping[str, Any]) -> Iterator[Problem]:
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if schema.get("x-kubernetes-list-type") not in ("map", "set"):
        return
    seen: dict[Any, int] = {}
    for index, item in enumerate(items):
        identity = tuple(getattr(item, key) for key in keys) if keys else item
        if identity in seen:
            shown = identity[0] if isinstance(identity, tuple) else identity
            yield Problem(f"{path}[{index}]", f"{shown!r} is already used by {path}[{seen[identity]}]: each may appear once")
        seen.setdefault(identity, index)
