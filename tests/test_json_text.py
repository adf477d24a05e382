"""JSON is read as the standard library reads it, whatever somebody put into an object."""

import json

import pytest

from perfpolicy import json_text


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5, true, null, "é\\u00e9\\n"]}',
        f'{{"more than 64 bits": {2**70}}}',
        f"{'[' * 400}{']' * 400}",
        '"\\ud800"',
        '{"a": 1, "a": 2}',
        '{"a": 1e400}',
    ],
)
def test_it_is_read_as_ever(text: str) -> None:
    assert json_text.load(text.encode()) == json.loads(text)


@pytest.mark.parametrize("text", ["", "{", "{} x", "nul", "'a'"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_text.load(text.encode())
