"""Runs rule groups through `promtool test rules`: Prometheus' own engine over synthetic series, no server.

promtool evaluates every group at one interval of its own, so a test takes the groups of one tier at a time.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import yaml

from perfpolicy.promql.expr import duration
from tests import lab_tools

SCRAPE = timedelta(seconds=15)


def required() -> Path:
    """promtool; the test is skipped or fails without it."""
    return lab_tools.required("prometheus", "promtool")


@dataclass(frozen=True)
class Expect:
    """At `at`, `expr` gives exactly these samples (label set text to value)."""

    expr: str
    at: timedelta
    samples: Mapping[str, float]


@dataclass(frozen=True)
class Scenario:
    """Input series (selector text to promtool value notation, one value every `interval`) and what is expected of them."""

    series: Mapping[str, str]
    expect: Sequence[Expect]
    interval: timedelta = SCRAPE
    evaluation: timedelta = timedelta(seconds=30)
    fuzzy: bool = field(default=True)


class Group(Protocol):
    """A rule group, ours or any other."""

    def to_dict(self) -> Mapping[str, Any]:
        """As Prometheus spells it."""


def run(tmp_path: Path, groups: Sequence[Group], scenario: Scenario) -> None:
    """Fails with promtool's own comparison when the groups do not give what the scenario expects."""
    tool = required()
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [group.to_dict() for group in groups]}))
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(_document(scenario)))
    done = subprocess.run([str(tool), "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def firing(*expected: str, at: timedelta) -> Expect:
    """Exactly these alerts fire: `Name/severity`, each once."""
    samples = {f'{{alertname="{name}", severity="{level}"}}': 1.0 for name, level in (text.split("/") for text in expected)}
    return Expect('count by (alertname, severity) (ALERTS{alertstate="firing"})', at, samples)


def silent(at: timedelta) -> Expect:
    """No alert fires."""
    return firing(at=at)


def counter(per_second: float, minutes: float, start: float = 0, step: timedelta = SCRAPE) -> str:
    """A counter's samples growing by `per_second`."""
    return f"{start:.10g}+{per_second * step.total_seconds():.10g}x{int(minutes * 60 / step.total_seconds())}"


def constant(value: float, minutes: float, step: timedelta = SCRAPE) -> str:
    """A gauge's samples."""
    return f"{value:.12g}x{int(minutes * 60 / step.total_seconds())}"


def _document(scenario: Scenario) -> dict[str, Any]:
    tests = {
        "interval": duration(scenario.interval),
        "input_series": [{"series": name, "values": values} for name, values in scenario.series.items()],
        "promql_expr_test": [
            {
                "expr": expect.expr,
                "eval_time": duration(expect.at),
                "exp_samples": [{"labels": labels, "value": value} for labels, value in expect.samples.items()],
            }
            for expect in scenario.expect
        ],
    }
    return {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": duration(scenario.evaluation),
        "fuzzy_compare": scenario.fuzzy,
        "tests": [tests],
    }
