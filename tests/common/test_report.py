"""Tests of common/report.py: how numbers are shown, and that the README shows what is recorded."""

import math
from pathlib import Path

from common import report
from common.cli import readmes

ROOT = Path(__file__).parents[2]


def test_the_claims_in_the_readmes_are_those_recorded() -> None:
    shown = readmes(ROOT)
    papers = {path.parent for path in ROOT.glob("replications/*/*.yaml")}
    assert set(shown) == {ROOT / "README.md", *(paper / "README.md" for paper in papers)}
    for path, text in shown.items():
        assert report.START in text
        assert path.read_text(encoding="utf-8") == text


def test_a_text_without_markers_stays() -> None:
    assert report.with_claims("no markers", ["a line"]) == "no markers"


def test_writing_the_claims_twice_is_writing_them_once() -> None:
    text = f"before\n{report.START}\nold\n{report.END}\nafter\n"
    once = report.with_claims(text, ["new"])
    assert once == f"before\n{report.START}\n\nnew\n{report.END}\nafter\n"
    assert report.with_claims(once, ["new"]) == once


def test_intervals_say_what_they_are() -> None:
    assert report.interval(0.5, 0.4, 0.6) == "0.5 [0.4, 0.6]"
    assert report.interval(0.5, 0.5, 0.5) == "0.5"
    assert report.interval(0.5, -math.inf, math.inf) == "0.5 [unknown]"
    assert report.interval(math.nan, -math.inf, math.inf) == "none"
