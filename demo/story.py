"""What the demo prints: numbered chapters, lines with the seconds since the start, and comparison tables."""

import sys
import time
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


class Story:
    """The demo's output."""

    def __init__(self) -> None:
        # Into a file or a pipe nothing is folded.
        self._console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 160)
        self._start = time.monotonic()
        self._chapter = 0

    def chapter(self, title: str) -> None:
        """Begin a numbered chapter."""
        self._chapter += 1
        self._console.print(f"\n[bold]{self._chapter}. {title}[/bold]")

    def tell(self, text: str) -> None:
        """One line with the time since the start."""
        self._console.print(f"{time.monotonic() - self._start:7.1f} s  {text}", markup=False)

    def table(self, title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        """A small table."""
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def end(self, text: str) -> None:
        """The closing line."""
        self._console.print(f"\n[bold green]{text}[/bold green]")
