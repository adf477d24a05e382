"""A large answer is read without looking through it for garbage again and again."""

import asyncio
import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest

from perfpolicy.handlers import operator
from perfpolicy.settings import Settings

ANSWER = json.dumps([{"metric": {"policy": "web"}, "values": [[1, "2"]] * 4} for _ in range(5000)])


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def looks() -> int:
    """How often garbage was looked for while a large answer was read."""
    before = _looked()
    json.loads(ANSWER)
    return _looked() - before


def _looked() -> int:
    return sum(int(generation["collections"]) for generation in gc.get_stats())


def test_the_operator_looks_for_garbage_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    often = looks()
    for name in ("allow_deep_objects", "logs.configure"):
        monkeypatch.setattr(f"{operator.__name__}.{name}", lambda *_: None)

    def run(coroutine: Any) -> int:
        coroutine.close()
        return looks()

    monkeypatch.setattr(asyncio, "run", run)
    assert operator.run(Settings()) * 5 < often
