"""JSON in."""

import json
from typing import Any

from pydantic_core import from_json


def load(text: bytes) -> Any:
    """Parsed. ValueError where it is no JSON, RecursionError where it is nested too deeply.

    pydantic's parser takes half the time of the standard one and has one text for all keys of one name; what is nested more than some two
    hundred levels, which the API server allows, it leaves to that one.
    """
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        return json.loads(text)
