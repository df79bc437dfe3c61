"""Tests of common/report.py: how numbers are shown, and that the README shows what is recorded."""

import math
from pathlib import Path

from common import report
from common.cli import claims_table

ROOT = Path(__file__).parents[2]


def test_the_readme_s_claims_are_those_recorded() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.START in readme
    assert report.with_claims(readme, claims_table(ROOT)) == readme


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
