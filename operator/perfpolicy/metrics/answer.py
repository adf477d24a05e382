"""An instant query's answer as Python objects, each sample two numbers: what the API describes is read by pydantic in one pass.

A sample that is a list of a number and a text is three objects that Python's look for garbage goes through, and an answer has a hundred
thousand. An answer with anything else in it is parsed as it is, and judged sample by sample where it is filed (evaluate/observation.py).
"""

from typing import Annotated, Any, Final, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from perfpolicy import json_text
from perfpolicy.evaluate.observation import LATEST

_Time = Annotated[float, Field(strict=True, ge=0, lt=LATEST, allow_inf_nan=False)]


class _Series(TypedDict):
    metric: dict[str, str]
    values: NotRequired[tuple[tuple[_Time, float], ...]]


class _Data(TypedDict):
    result: list[_Series]


class _Answer(TypedDict):
    """What is not named is left out."""

    data: _Data
    warnings: NotRequired[Any]


_ANSWER: Final = TypeAdapter[Any](_Answer)


def read(text: bytes) -> Any:
    """The answer. Raises ValueError and RecursionError for what is not JSON."""
    try:
        return _ANSWER.validate_json(text)
    except ValueError:
        return json_text.load(text)
