"""PromQL expressions built from parts, so that no caller pastes text into a query.

The only module that quotes: a label value reaches PromQL through `quote` alone. An `Expr` is finished PromQL; binary operators always add
parentheses, so precedence never depends on where an expression is used.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from functools import reduce
from operator import add
from typing import Final

import promql_parser

from perfpolicy.errors import RenderError
from perfpolicy.units import format_duration


def quote(value: str) -> str:
    """A label value as a PromQL string literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def literal_pattern(value: str) -> str:
    """A regular expression (RE2) that matches exactly `value`."""
    return re.sub(r"([^A-Za-z0-9_-])", r"\\\1", value)


class Op(StrEnum):
    """Label matcher operators."""

    EQ = "="
    NE = "!="
    RE = "=~"
    NRE = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher; `value` is unquoted (a pattern for RE and NRE)."""

    label: str
    op: Op
    value: str
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.label}{self.op}{quote(self.value)}")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Expr:
    """Finished PromQL of any type; operators parenthesise."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __add__(self, other: "Expr") -> "Expr":
        return binary(self, "+", other)

    def __sub__(self, other: "Expr") -> "Expr":
        return binary(self, "-", other)

    def __mul__(self, other: "Expr") -> "Expr":
        return binary(self, "*", other)

    def __truediv__(self, other: "Expr") -> "Expr":
        return binary(self, "/", other)

    def above(self, limit: "Expr | Decimal | int") -> "Expr":
        """Elements greater than `limit`; NaN is dropped."""
        return binary(self, ">", _operand(limit))

    def at_least(self, limit: "Expr | Decimal | int") -> "Expr":
        """Elements not smaller than `limit`; NaN is dropped."""
        return binary(self, ">=", _operand(limit))

    def sampled(self, window: timedelta, step: timedelta, offset: timedelta = timedelta(0)) -> "Expr":
        """A subquery: the values every `step` in `window`, which ends `offset` ago."""
        return Expr(f"{self}[{duration(window)}:{duration(step)}]{f' offset {duration(offset)}' if offset else ''}")

    def also(self, other: "Expr", matching: str = "") -> "Expr":
        """`and`: elements of self that have a partner in other."""
        return binary(self, "and", other, matching)

    def otherwise(self, other: "Expr") -> "Expr":
        """`or`: self, and other where self has no element of the same labels (both sides must carry equal label names)."""
        return binary(self, "or", other)


@dataclass(frozen=True, slots=True)
class Selector:
    """A series selector. `offset` shifts it into the past."""

    name: str
    matchers: tuple[Matcher, ...] = ()
    offset: timedelta = timedelta(0)

    def where(self, *matchers: Matcher) -> "Selector":
        """The same selector, narrowed."""
        return Selector(self.name, (*self.matchers, *matchers), self.offset)

    def back(self, offset: timedelta) -> "Selector":
        """The same selector, read `offset` earlier."""
        return Selector(self.name, self.matchers, offset)

    def instant(self) -> Expr:
        """The newest value of each series."""
        return Expr(self._braces() + self._offset())

    def over(self, window: timedelta) -> Expr:
        """All samples of (now - window, now]."""
        return Expr(f"{self._braces()}[{duration(window)}]{self._offset()}")

    def _braces(self) -> str:
        return f"{self.name}{{{','.join([matcher.text for matcher in self.matchers])}}}" if self.matchers or not self.name else self.name

    def _offset(self) -> str:
        return f" offset {duration(self.offset)}" if self.offset else ""


def duration(value: timedelta) -> str:
    """A PromQL duration; GEP-2257 text is valid PromQL."""
    return format_duration(value)


def number(value: Decimal | int) -> Expr:
    """A number literal, never in exponent notation."""
    return Expr(f"{Decimal(value).normalize():f}")


def seconds(value: timedelta) -> Expr:
    """A duration as a number of seconds."""
    return number(Decimal(value // timedelta(milliseconds=1)) / 1000)


def call(function: str, *arguments: Expr) -> Expr:
    """A function call."""
    return Expr(f"{function}({', '.join(map(str, arguments))})")


def aggregate(operator: str, inner: Expr, by: Iterable[str] = ()) -> Expr:
    """An aggregation; without `by` the result has no labels."""
    labels = ", ".join(by)
    return Expr(f"{operator} by ({labels}) ({inner})" if labels else f"{operator}({inner})")


def relabel(inner: Expr, label: str, replacement: str = "", pattern: str = ".*") -> Expr:
    """The elements with `label` replaced where its value matches the whole `pattern` ($1: its first group; empty: the label is dropped).

    Unlike an aggregation it never merges: two elements left with equal labels are an error, and the rule records nothing.
    """
    return call("label_replace", inner, *(Expr(quote(text)) for text in (label, replacement, label, pattern)))


def binary(left: Expr, operator: str, right: Expr, matching: str = "") -> Expr:
    """`(left operator [matching] right)`."""
    between = f"{operator} {matching}" if matching else operator
    return Expr(f"({left} {between} {right})")


def total_of(parts: Iterable[Expr]) -> Expr:
    """Their sum; at least one."""
    return reduce(add, parts)


def check(expression: Expr, where: str) -> None:
    """Parse an expression before it leaves: one bad group makes Prometheus refuse the whole reload, for every tenant.

    Raises RenderError naming `where`. Most expressions differ from another policy's in plain words within quotes and in its number only,
    and are not parsed again (it was a third of a policy's CPU): no such word is empty, escapes anything or means anything in a pattern.
    """
    text = str(expression)
    shape = _WORD.sub("_", text)
    if shape in _parsed:
        return
    try:
        promql_parser.parse(text)
    except ValueError as error:
        raise RenderError(f"PromQL of {where} does not parse: {error}: {expression}") from error
    if len(_parsed) >= _REMEMBERED:
        _parsed.clear()
    _parsed.add(shape)


_WORD: Final = re.compile(r'(?<=")[a-z0-9.-]+(?="|-\[)|(?<=vector\()[0-9]+(?=\))')
"""A plain word that is all of a string, or all of one up to a set of characters (a name in a pattern of pods' names); a whole number."""
_REMEMBERED: Final = 4096
_parsed: set[str] = set()
"""Expressions that parse, without the plain words and numbers."""


def _operand(value: "Expr | Decimal | int") -> Expr:
    return value if isinstance(value, Expr) else number(value)
