"""Whether RE2, which Envoy compiles expressions with, reads an expression. Pure.

One route table serves every policy of a mesh: an expression a proxy cannot compile makes it refuse the whole table. Rust's engine, which
comes with pydantic, has RE2's limits (no look-around, no back references) and reads a little more; that more is excluded here.
"""

import re
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_LETTERS: Final = frozenset("dDsSwWbBAzaftnrvpPx")
_CLASS: Final = re.compile(r"\[\^?\]?[^\]]*\]")
_REPEATED_TWICE: Final = re.compile(r"([*+?]|\{[0-9,]*\})([*+]|\?\?|\{[0-9])")
_COUNT: Final = re.compile(r"\{([0-9]*),?([0-9]*)\}")
_FLAGS: Final = re.compile(r"\(\?[^):<P]*[^imsU:<P)-]")
_CATEGORIES: Final = r"[LMNPSZC]|L[ulmot]|M[nce]|N[dlo]|P[cdseifo]|S[mcko]|Z[slp]|C[cfos]"
_SCRIPTS: Final = "Arabic|Armenian|Bengali|Cyrillic|Devanagari|Georgian|Greek|Han|Hangul|Hebrew|Hiragana|Katakana|Latin|Tamil|Thai"
_PROPERTY: Final = re.compile(rf"[LMNPSZC]|\{{\^?(?:{_CATEGORIES}|{_SCRIPTS})\}}")
"""General categories and common scripts; not the longer names only other engines know."""
_MOST: Final = 1000
_NAMED: Final = re.compile(r"\[:\^?(\w*):\]")
_POSIX: Final = frozenset(
    ("alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit")
)


def _repeats(plain: str) -> int:
    """The largest product of nested counts, which RE2 bounds as well; never less than it: what a count repeats may nest further in."""
    deepest: list[int] = [1]
    largest, last, position = 1, 1, 0
    while position < len(plain):
        found = _COUNT.match(plain, position)
        if found and (found[1] or found[2]):
            last *= max(int(count) for count in found.groups() if count)
            deepest[-1] = max(deepest[-1], last)
            position = found.end()
            continue
        if plain[position] == "(":
            deepest.append(1)
        last = deepest.pop() if plain[position] == ")" and len(deepest) > 1 else 1
        deepest[-1] = max(deepest[-1], last)
        largest, position = max(largest, *deepest), position + 1
    return max(largest, *deepest)


def is_re2(expression: str) -> bool:
    """True where RE2 compiles `expression`; False also for a few it would, such as nested repetitions in odd places."""
    if any(letter.isalnum() and letter not in _LETTERS for letter in _ESCAPE.findall(expression)):
        return False
    if any(found[1] in "pP" and not _PROPERTY.match(expression, found.end()) for found in _ESCAPE.finditer(expression)):
        return False
    plain = _CLASS.sub("c", _ESCAPE.sub("e", expression))
    if _REPEATED_TWICE.search(plain) or _FLAGS.search(plain):
        return False
    if any(int(count) > _MOST for counts in _COUNT.findall(plain) for count in counts if count):
        return False
    if _repeats(plain) > _MOST or any(name not in _POSIX for name in _NAMED.findall(expression)):
        return False
    try:
        SchemaValidator(core_schema.str_schema(pattern=expression))
    except SchemaError:
        return False
    return True
