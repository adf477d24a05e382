"""Programs of the lab that unit tests use. A test is skipped where its program is not built, and fails where CI says tools are required."""

import os
import shutil
from pathlib import Path

import pytest

from lab.components import TOOLS


def find(component: str, program: str) -> Path | None:
    """The lab's `program` if it is built, else one on PATH."""
    built = TOOLS[component].output / program
    found = shutil.which(program)
    return built if built.exists() else Path(found) if found else None


def required(component: str, program: str) -> Path:
    """The `program`; skips or fails the test without it."""
    tool = find(component, program)
    if tool is None:
        assert "PERFPOLICY_REQUIRE_TOOLS" not in os.environ, f"{program} is required but not built: `python -m lab build`"
        pytest.skip(f"{program} is not built: `python -m lab build` does")
    return tool
