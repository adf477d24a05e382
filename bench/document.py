"""Puts measured figures into docs/benchmarks.md: text between two marks of the page, and pictures beside it. The only writer there."""

import io
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
FIGURES = PAGE.parent / "figures"


def write_document(name: str, text: str, pictures: Mapping[str, str]) -> None:
    """Put a text between its marks, and the pictures (SVG by name) below it."""
    FIGURES.mkdir(exist_ok=True)
    for each, svg in pictures.items():
        (FIGURES / f"{each}.svg").write_text(svg)
    shown = "\n".join(f"![{each}](figures/{each}.svg)" for each in pictures)
    PAGE.write_text(block(PAGE.read_text(), name, f"{text}\n\n{shown}\n"))


def block(page: str, name: str, text: str) -> str:
    """The page with `text` between its marks of that name. Raises ValueError where it has none. Pure."""
    marks = re.compile(rf"(?<=<!-- {name}:begin -->\n).*?(?=<!-- {name}:end -->)", re.DOTALL)
    if not marks.search(page):
        raise ValueError(f"the page has no <!-- {name}:begin --> and <!-- {name}:end -->")
    return marks.sub(lambda _: text.rstrip("\n") + "\n", page)


def machine() -> str:
    """What it was measured on, and when: a sentence."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = model[1].strip() if model else platform.machine()
    return f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({processor}), {memory:.0f} GiB, Python {platform.python_version()}."


def picture(title: str, x: str, at: Sequence[float], lines: Mapping[str, Sequence[float]], *, powers: bool = False) -> str:
    """Lines through points, as SVG, the same for the same figures; `powers`: both axes are by powers of ten."""
    with matplotlib.rc_context({"svg.hashsalt": "perfpolicy", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel=x)
        for name, values in lines.items():
            axes.plot(at, values, marker="o" if len(at) < 20 else "", label=name)
        if powers:
            axes.loglog()
            axes.set_xticks(at, [f"{each:,g}" for each in at], minor=False)
            axes.set_xticks([], minor=True)
        else:
            axes.set_ylim(0, 1.1 * max(max(values) for values in lines.values()))
        axes.grid(alpha=0.3)
        axes.legend()
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
