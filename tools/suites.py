"""Run the suites of `make test` in order, show each one's output as it comes, and end with a table of minutes per suite.

A suite is a command; it passes with exit code 0. Every suite runs even when an earlier one failed (one run shows all that is wrong), except
those that need the lab when the lab did not come up. What needs the lab of fake nodes runs beside what needs the real one: both mostly
wait.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Suite:
    """`needs`: the suite that must have passed before this one makes sense. `tools`: the lab's promtool must be there, not skipped over.
    `beside`: the suites after it start at once; its output is shown when they are done. `alone`: waits until nothing runs beside it.
    """

    name: str
    command: tuple[str, ...]
    needs: str | None = None
    tools: bool = False
    beside: bool = False
    alone: bool = False


def _python(*args: str) -> tuple[str, ...]:
    return (sys.executable, *args)


STATIC = (
    Suite("generated", _python("-m", "tools.generate", "verify")),
    Suite("ruff", (str(BIN / "ruff"), "check", ".")),
    Suite("format", (str(BIN / "ruff"), "format", "--check", ".")),
    Suite("imports", (str(BIN / "lint-imports"),)),
    Suite("types", (str(BIN / "mypy"),)),
)
INSTALL = "e2e/test_install.py"
UNIT = _python("-m", "pytest", "-n", "2", "tests")
LABS = (
    Suite("lab", _python("-m", "lab", "up")),
    Suite("lab-fake", _python("-m", "lab", "up", "--node", "fake"), needs="lab"),
)
_E2E = ("-m", "pytest", "-p", "no:randomly", "--durations", "10", "e2e")
E2E = (
    Suite("e2e-fake", _python(*_E2E, "-m", "fake"), needs="lab-fake", beside=True),
    Suite("e2e-real", _python(*_E2E, "-m", "not fake", f"--ignore={INSTALL}"), needs="lab"),
    # Takes the CRDs away and brings them back: nothing else of ours may run on the real lab meanwhile.
    Suite("install", _python(*_E2E[:-1], INSTALL), needs="lab", alone=True),
    Suite("demo", _python("-m", "demo", "--keep-lab"), needs="lab", alone=True),
)
GROUPS = {
    "check": (*STATIC, Suite("unit", UNIT)),
    "e2e": (*LABS, *E2E),
    "all": (*STATIC, *LABS, Suite("unit", UNIT, tools=True), *E2E),
}


@dataclass(frozen=True)
class Outcome:
    """`seconds` is None where the suite was not run."""

    suite: Suite
    seconds: float | None
    passed: bool


def run(suites: tuple[Suite, ...], console: Console) -> list[Outcome]:
    """Run the suites in order; their output goes straight through, but for that of a suite `beside` others, which is shown at the end."""
    outcomes: dict[str, Outcome] = {}
    started: list[tuple[Suite, Future[Outcome], IO[bytes]]] = []
    with ThreadPoolExecutor() as beside, ExitStack() as files:
        for suite in suites:
            if suite.needs in outcomes and not outcomes[suite.needs].passed:
                outcomes[suite.name] = Outcome(suite, None, passed=False)
                continue
            if suite.alone:
                wait(future for _, future, _ in started)
            console.rule(f"[bold]{suite.name}")
            if suite.beside:
                output: IO[bytes] = files.enter_context(tempfile.TemporaryFile())
                started.append((suite, beside.submit(_run, suite, output), output))
                console.print("runs beside the next ones; its output follows theirs")
            else:
                outcomes[suite.name] = _run(suite, None)
        for suite, future, output in started:
            outcomes[suite.name] = future.result()
            console.rule(f"[bold]{suite.name}")
            output.seek(0)
            sys.stdout.write(output.read().decode(errors="replace"))
            sys.stdout.flush()
    return [outcomes[suite.name] for suite in suites]


def _run(suite: Suite, output: IO[bytes] | None) -> Outcome:
    start = time.monotonic()
    environment = {**os.environ, "PERFPOLICY_REQUIRE_TOOLS": "1"} if suite.tools else None
    code = subprocess.run(
        suite.command, cwd=ROOT, env=environment, stdout=output, stderr=output and subprocess.STDOUT, check=False
    ).returncode
    return Outcome(suite, time.monotonic() - start, passed=code == 0)


def report(outcomes: list[Outcome], seconds: float, console: Console) -> None:
    """The table of minutes per suite, and of all (`seconds`)."""
    table = Table(title="minutes per suite")
    table.add_column("suite")
    table.add_column("minutes", justify="right")
    table.add_column("result")
    for outcome in outcomes:
        minutes = "–" if outcome.seconds is None else f"{outcome.seconds / 60:.1f}"
        result = "passed" if outcome.passed else "not run" if outcome.seconds is None else "FAILED"
        table.add_row(outcome.suite.name, minutes, result)
    table.add_row("total", f"{seconds / 60:.1f}", "", style="bold")
    console.print(table)


def _lab_is_up(name: str) -> bool:
    return subprocess.run(_python("-m", "lab", "status", "--name", name), cwd=ROOT, capture_output=True, check=False).returncode == 0


@click.command()
@click.argument("group", type=click.Choice(sorted(GROUPS)))
def main(group: str) -> None:
    """Run a GROUP of suites: check (no cluster), e2e (on the lab) or all. A lab this run started is taken down again."""
    console = Console(soft_wrap=True)
    start = time.monotonic()
    running_before = {name for name in ("real", "fake") if group != "check" and _lab_is_up(name)}
    try:
        outcomes = run(GROUPS[group], console)
    finally:
        if group != "check":
            for name in {"real", "fake"} - running_before:
                subprocess.run(_python("-m", "lab", "down", "--name", name), cwd=ROOT, check=False)
    report(outcomes, time.monotonic() - start, console)
    failed = sum(not outcome.passed for outcome in outcomes)
    console.print(f"{len(outcomes) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
