"""`make test` loses no suite, hides no failure, and keeps apart what must not run at the same time."""

import io
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from tools.suites import GROUPS, Outcome, Suite, run


def a_suite(name: str, code: str = "", needs: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> Suite:
    return Suite(name, (sys.executable, "-c", code), needs, after)


def outcomes(*suites: Suite) -> Mapping[str, Outcome]:
    return {outcome.suite.name: outcome for outcome in run(suites, Console(file=io.StringIO()))}


def waited_for(group: tuple[Suite, ...], name: str) -> set[str]:
    """Every suite that has ended before this one starts."""
    suites = {suite.name: suite for suite in group}
    direct = {other for other in (*suites[name].needs, *suites[name].after) if other in suites}
    return direct.union(*(waited_for(group, other) for other in direct))


@pytest.mark.parametrize("group", GROUPS)
def test_a_suite_waits_only_for_suites_before_it_else_it_would_not_wait(group: str) -> None:
    names = [suite.name for suite in GROUPS["all"]]
    for suite in GROUPS[group]:
        assert {*suite.needs, *suite.after} <= set(names[: names.index(suite.name)]), suite.name


@pytest.mark.parametrize("group", ["e2e", "all"])
def test_nothing_runs_beside_the_suite_that_takes_the_crds_away(group: str) -> None:
    names = {suite.name for suite in GROUPS[group]}
    assert waited_for(GROUPS[group], "install") == names - {"install"}


def test_no_end_to_end_test_is_in_no_suite() -> None:
    commands = {suite.name: suite.command for suite in GROUPS["all"]}
    ignored = {word.removeprefix("--ignore=") for word in commands["e2e-real"] if word.startswith("--ignore=")}
    assert ignored == {commands[name][-1] for name in ("e2e-live", "install")}


def test_suites_run_side_by_side_and_their_outputs_do_not_mix(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    meet = (
        "import pathlib, time; here, there = map(pathlib.Path, {!r}); here.touch()\nwhile not there.exists(): time.sleep(0.01)\nprint({!r})"
    )
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    done = outcomes(a_suite("a", meet.format((one, two), "a")), a_suite("b", meet.format((two, one), "b")))
    assert [done[name].passed for name in "ab"] == [True, True]
    assert capfdbinary.readouterr().out == b"a\nb\n"


def test_a_suite_starts_when_what_it_waits_for_has_ended_however_it_did(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    slow = f"import pathlib, time; time.sleep(0.2); pathlib.Path({str(mark)!r}).touch(); raise SystemExit(3)"
    done = outcomes(a_suite("slow", slow), a_suite("next", f"import os; assert os.path.exists({str(mark)!r})", after=("slow",)))
    assert (done["slow"].passed, done["next"].passed) == (False, True)


def test_what_needs_a_failed_suite_is_not_run_and_counts_as_failed() -> None:
    done = outcomes(
        a_suite("lab", "raise SystemExit(1)"),
        a_suite("e2e", needs=("lab",)),
        a_suite("more", needs=("e2e",)),
        a_suite("unit", after=("e2e",)),
    )
    assert {name: (outcome.seconds is None, outcome.passed) for name, outcome in done.items()} == {
        "lab": (False, False),
        "e2e": (True, False),
        "more": (True, False),
        "unit": (False, True),
    }


def test_an_interrupted_run_starts_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.suites._show", interrupt)
    mark = tmp_path / "mark"
    with pytest.raises(KeyboardInterrupt):
        outcomes(a_suite("slow", "import time; time.sleep(0.2)"), a_suite("next", f"open({str(mark)!r}, 'w')", after=("slow",)))
    assert not mark.exists()
