"""SECURITY.md names the code that stops a threat and the tests that try it: they are there, and no threat is without them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
THREATS = {part.splitlines()[0]: part for part in TEXT.split("\n### ")[1:]}
FIELDS = ("**Attacker, asset**:", "**Stopped by**:", "**Tried in**:", "**Remains**:")
TESTS = sorted(set(re.findall(r"`((?:e2e|tests)/[\w/]+\.py)::(\w+)`", TEXT)))
FILES = sorted(set(re.findall(r"`((?:operator|templates|tools|charts|e2e|tests)/[\w/.-]+)", TEXT)))


@cache
def names_of_tests(file: str) -> frozenset[str]:
    """Names of the tests a file holds."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name for name in found if name.startswith("test_"))


@pytest.mark.parametrize("threat", THREATS)
def test_a_threat_says_who_what_stops_it_where_that_is_tried_and_what_remains(threat: str) -> None:
    places = [THREATS[threat].index(field) for field in FIELDS]
    assert places == sorted(places)
    tried = THREATS[threat][places[2] : places[3]]
    assert re.search(r"`[\w/]+\.py::test_\w+`", tried), "no test tries it"


@pytest.mark.parametrize(("file", "test"), TESTS)
def test_a_named_test_exists(file: str, test: str) -> None:
    assert test in names_of_tests(file)


@pytest.mark.parametrize("file", FILES)
def test_a_named_file_exists(file: str) -> None:
    assert (ROOT / file).exists()
