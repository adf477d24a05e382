"""YAML that means to kubectl what it means here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfpolicy.yaml_text import dump, load, load_all


@pytest.mark.parametrize(
    "word",
    ["y", "N", "yes", "Off", "true", "1e3", "1.5e3", "12", "0o17", "0x1F", "017", "1_000", ".5", "-.inf", "10:20", "null", "~", "", "="],
)
def test_text_that_looks_like_something_else_is_quoted(word: str) -> None:
    assert dump({"value": word}) in (f"value: '{word}'\n", f'value: "{word}"\n')
    assert load(dump({"value": word})) == {"value": word}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("y", True), ("N", False), ("Yes", True), ("off", False), ("1e3", 1000.0), ("1.5", 1.5), ("12", 12), ("-3", -3), ("0o17", 15),
        ("0x1F", 31), ("10:20", "10:20"), ("5%", "5%"), ("500ms", "500ms"), ("1.2.3", "1.2.3"), ("2026-11-21", "2026-11-21"),
        ("Nay", "Nay"), ("~", None), ("null", None),
    ],
)  # fmt: skip
def test_plain_words_are_read_as_kubectl_reads_them(word: str, value: object) -> None:
    found = load(f"value: {word}")["value"]
    assert (found, type(found)) == (value, type(value))


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_what_is_written_is_read_back(document: object) -> None:
    assert load_all(dump({"document": document})) == [{"document": document}]


def test_duplicate_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="duplicate key 'a'"):
        load("a: 1\na: 2\n")
