"""Fixtures of the PromQL tests."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from perfpolicy.promql.rule import RuleGroup
from tests.promql import promtool

Check = Callable[[Sequence[RuleGroup], promtool.Scenario], None]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks rule groups against a scenario with promtool. Skipped where it is not built, unless CI says tools are required."""
    promtool.required()
    return lambda groups, scenario: promtool.run(tmp_path, groups, scenario)
