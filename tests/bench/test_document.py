"""How figures get into docs/benchmarks.md."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from bench import document
from bench.churn import Sample, Verdict, memory_picture
from bench.scale import pictures
from tests.bench.test_scale import SMALL

PAGE = "before\n<!-- x:begin -->\nold\n<!-- x:end -->\nafter\n"


def test_only_what_is_between_the_marks_is_renewed() -> None:
    assert document.block(PAGE, "x", r"new \1") == "before\n<!-- x:begin -->\nnew \\1\n<!-- x:end -->\nafter\n"


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- y:begin -->"):
        document.block(PAGE, "y", "new")


def test_text_and_pictures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(document, "FIGURES", tmp_path / "figures")
    document.PAGE.write_text(PAGE)
    document.write_document("x", "text", {"a": "<svg/>"})
    assert document.PAGE.read_text() == "before\n<!-- x:begin -->\ntext\n\n![a](figures/a.svg)\n<!-- x:end -->\nafter\n"
    assert (document.FIGURES / "a.svg").read_text() == "<svg/>"


def test_the_committed_page_has_the_marks() -> None:
    for name in ("scale", "churn"):
        document.block(document.PAGE.read_text(), name, "")


def test_pictures_show_every_line_and_are_the_same_for_the_same_figures() -> None:
    minutes = Verdict((Sample(0, 1, 1, 1, 1, {}), Sample(61, 2, 1, 1, 1, {})), 5)
    sizes = [SMALL, replace(SMALL, policies=1000)]
    assert pictures(sizes) == pictures(sizes)
    for svg, names in (
        (pictures(sizes)["scale-seconds"], {"until all are Programmed", "1,000"}),
        (pictures(sizes)["scale-memory"], {"after a restart"}),
        (memory_picture(minutes), {"the operator", "minutes"}),
    ):
        texts = {element.text for element in ElementTree.fromstring(svg.encode()).iter() if element.tag.endswith("text")}  # noqa: S314 - our own
        assert names <= texts
