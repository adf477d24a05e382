"""Generated files and their verify twin: `write` renews them, `verify` fails with a diff where a committed file differs.

Each generator is a function from the project's root to {path relative to the root: text}.
"""

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

import click

from perfpolicy.api import schema
from tools import access, chart, reference

ROOT = Path(__file__).resolve().parent.parent
GENERATORS: tuple[Callable[[Path], dict[Path, str]], ...] = (schema.generate, reference.generate, access.generate, chart.generate)


def expected() -> dict[Path, str]:
    """Every generated file with the text it should have."""
    return {path: text for generator in GENERATORS for path, text in generator(ROOT).items()}


def drift() -> str:
    """A unified diff of what is committed against what the generators write; empty where they agree."""
    diffs: list[str] = []
    for path, text in sorted(expected().items()):
        current = (ROOT / path).read_text() if (ROOT / path).exists() else ""
        diffs += difflib.unified_diff(current.splitlines(True), text.splitlines(True), f"committed/{path}", f"generated/{path}")
    return "".join(diffs)


@click.group()
def main() -> None:
    """Generated files: CRDs, charts, reference pages."""


@main.command()
def write() -> None:
    """Renew every generated file."""
    for path, text in expected().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
        click.echo(f"wrote {path}")


@main.command()
def verify() -> None:
    """Exit 1 with a diff where a generated file is out of date."""
    difference = drift()
    click.echo(difference or f"{len(expected())} generated files are up to date")
    if difference:
        click.echo("run `make generate` and commit the result", err=True)
    sys.exit(1 if difference else 0)


if __name__ == "__main__":
    main()
