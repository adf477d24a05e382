"""Run the suites of `make test`, show each one's output in their order as it comes, and end with a table of minutes per suite.

A suite is a command; it passes with exit code 0. It starts as soon as everything it waits for has ended, so what mostly waits runs beside
what mostly computes. Every suite runs even when another failed (one run shows all that is wrong), except where what it needs failed.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
    """`needs`: suites that must have passed, else this one makes no sense. `after`: suites that must have ended, however they did.

    `tools`: the lab's programs must be there, not skipped over.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    tools: bool = False


def _python(*args: str) -> tuple[str, ...]:
    return (sys.executable, *args)


def _pytest(*args: str) -> tuple[str, ...]:
    return _python("-m", "pytest", "-p", "no:randomly", "--durations", "10", *args)


STATIC = (
    Suite("generated", _python("-m", "tools.generate", "verify")),
    Suite("ruff", (str(BIN / "ruff"), "check", "."), after=("generated",)),
    Suite("format", (str(BIN / "ruff"), "format", "--check", "."), after=("ruff",)),
    Suite("imports", (str(BIN / "lint-imports"),), after=("format",)),
    Suite("types", (str(BIN / "mypy"),), after=("imports",)),
)
LIVE, INSTALL = "e2e/test_live_status.py", "e2e/test_install.py"
UNIT = _python("-m", "pytest", "-n", "2", "tests")
LABS = (
    Suite("build", _python("-m", "lab", "build")),
    Suite("lab", _python("-m", "lab", "up"), needs=("build",)),
    # One after the other: each may install packages of the machine.
    Suite("lab-fake", _python("-m", "lab", "up", "--node", "fake"), needs=("build",), after=("lab",)),
    Suite("image", _python("-m", "lab", "image"), needs=("build",), after=("lab", "lab-fake")),
)
# Two at a time, which mostly wait: two cores are enough for that, and not for more where times are judged.
E2E = (
    Suite("e2e-fake", _pytest("e2e", "-m", "fake"), needs=("lab-fake",), after=("unit", "image")),
    Suite("e2e-real", _pytest("e2e", "-m", "not fake", f"--ignore={LIVE}", f"--ignore={INSTALL}"), needs=("lab",), after=("unit", "image")),
    Suite("e2e-live", _pytest(LIVE), needs=("lab",), after=("e2e-real",)),
    Suite("demo", _python("-m", "demo", "--keep-lab"), needs=("lab",), after=("e2e-fake", "e2e-real")),
    # Takes the CRDs away and brings them back: nothing else of ours may run on the real lab meanwhile.
    Suite("install", _pytest(INSTALL), needs=("lab", "image"), after=("e2e-fake", "e2e-live", "demo")),
)
GROUPS = {
    "check": (*STATIC, Suite("unit", UNIT, after=("types",))),
    "e2e": (*LABS, *E2E),
    "all": (*STATIC, *LABS, Suite("unit", UNIT, needs=("build",), after=("types",), tools=True), *E2E),
}


@dataclass(frozen=True)
class Outcome:
    """`seconds` is None where the suite was not run."""

    suite: Suite
    seconds: float | None
    passed: bool


def run(suites: Sequence[Suite], console: Console) -> list[Outcome]:
    """Run the suites, each when what it waits for (suites before it) has ended; show their outputs one after the other."""
    running: dict[str, Future[Outcome]] = {}
    outputs: dict[str, IO[bytes]] = {}
    interrupted = threading.Event()
    with ExitStack() as files, ThreadPoolExecutor(len(suites)) as threads:
        for suite in suites:
            outputs[suite.name] = files.enter_context(tempfile.NamedTemporaryFile())
            running[suite.name] = threads.submit(_in_turn, suite, dict(running), outputs[suite.name], interrupted)
        try:
            for suite in suites:
                console.rule(f"[bold]{suite.name}")
                _show(outputs[suite.name], running[suite.name])
        except BaseException:
            interrupted.set()
            raise
    return [running[suite.name].result() for suite in suites]


def _in_turn(suite: Suite, before: dict[str, Future[Outcome]], output: IO[bytes], interrupted: threading.Event) -> Outcome:
    """Wait for the suites it waits for, as far as they are in this run, then run it."""
    # All of them, also where one failed: what runs alone must not begin early.
    ended = {name: before[name].result() for name in (*suite.needs, *suite.after) if name in before}
    failed = [name for name in suite.needs if name in ended and not ended[name].passed]
    if failed or interrupted.is_set():
        output.write(f"not run: {', '.join(failed)} failed\n".encode())
        output.flush()
        return Outcome(suite, None, passed=False)
    start = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **({"PERFPOLICY_REQUIRE_TOOLS": "1"} if suite.tools else {})}
    code = subprocess.run(suite.command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    return Outcome(suite, time.monotonic() - start, passed=code == 0)


def _show(output: IO[bytes], running: Future[Outcome]) -> None:
    """Print what a suite wrote and goes on writing, until it has ended."""
    with Path(output.name).open("rb") as written:
        while True:
            ended = running.done()
            sys.stdout.buffer.write(written.read())
            sys.stdout.flush()
            if ended:
                return
            time.sleep(0.2)


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
