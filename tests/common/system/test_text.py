"""Tests of system/text.py: users' text stays text in each place where it is shown."""

import csv
import io
import unicodedata
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common.system import text

ACTS = ["\x1b", "\x07", "\b", "\r", "\x00", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\ud800", "\uffff"]
WRITTEN = st.text(st.one_of(st.characters(), st.sampled_from("\\`*_[]<>&$~|:!()#\n\t -=\x1b\u202e")))
MARKUP = [
    "|x|", "a | b", "\\|", "\\\\|", "\\", "`|`", "``", "*a*", "__a__", "[a](b)", "![a](b)", "<b>",
    "a < b > c", "<!-- end of claims -->", "&amp;", "&#124;", "$x_i$ and $y$", "~~a~~", ":smile:", "a:b_c:d",
    "::+1::",
    "[^1]", "<http://a.b>", "x_i^2", "E|u|_1", "\\* \\", "--- | ---", "# a", "- a", "1. a", "=1+1",
]  # fmt: skip


def cells(markdown: str) -> list[list[str]]:
    """What is shown of the rows of the one table in `markdown`, cell by cell."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        assert token.type.split("_")[0] in ("table", "thead", "tbody", "tr", "th", "td", "inline")
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            shown = [part for part in token.children or [] if part.content != "<!-- -->"]
            assert {part.type for part in shown} <= {"text", "strong_open", "strong_close"}
            rows[-1].append("".join(part.content for part in shown))
    return rows


def words(of: str) -> str:
    return " ".join(text.visible(of).split())


@pytest.mark.parametrize("character", ACTS)
def test_what_acts_is_replaced(character: str) -> None:
    assert text.visible(f"a{character}b") == "a\ufffdb"
    text.visible(character).encode()


def test_what_is_shown_stays() -> None:
    plain = "".join(map(chr, range(0x20, 0x7F))) + "\t\näß√≤→漢字🙂\u200d\u200e\ufeff"
    assert text.visible(plain) == plain


@given(WRITTEN)
def test_what_is_visible_holds_nothing_that_acts(written: str) -> None:
    shown = text.visible(written)
    assert len(shown) == len(written)
    assert text.visible(shown) == shown
    assert {c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} <= {"\t", "\n"}
    # and XML can hold it
    element = ET.Element("a", b=shown)
    element.text = shown
    read = ET.fromstring(ET.tostring(element))
    assert (read.text or "", read.attrib["b"]) == (shown, shown)


@given(WRITTEN)
def test_a_line_is_one(written: str) -> None:
    assert len(f"{text.line(written)}.".splitlines()) == 1


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("  two  spaces ", "  two  spaces "),
        ("  a \n\n  b\n", "  a  b"),
        ("\nAll results match the record.", " All results match the record."),
        ("a\r\nb", "a b"),
        ("a\rb", "a\ufffdb"),
    ],
)
def test_lines_are_joined_and_spaces_within_stay(written: str, shown: str) -> None:
    assert text.line(written) == shown


@pytest.mark.parametrize("written", MARKUP)
def test_markdown_shows_what_is_written(written: str) -> None:
    row = f"| {text.markdown(written)} | {text.markdown(written)} |"
    assert cells(f"| a | b |\n|---|---|\n{row}\n")[1:] == [[written, written]]
    assert ":smile:" not in text.markdown(written)


@given(WRITTEN, WRITTEN)
def test_markdown_shows_any_text(one: str, other: str) -> None:
    row = f"| {text.markdown(one)} | {text.markdown(other)} |"
    assert cells(f"| a | b |\n|---|---|\n{row}\n") == [["a", "b"], [words(one), words(other)]]


@pytest.mark.parametrize("written", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_formula_is_no_formula(written: str) -> None:
    shown = "'" + written.replace("\r", "\ufffd")
    assert text.cell(written) == shown
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([text.cell(written), text.cell(f"a{written}")])
    read = list(csv.reader(io.StringIO(buffer.getvalue(), newline="")))
    assert read == [[shown, f"a{shown[1:]}"]]


def test_other_cells_stay() -> None:
    assert [text.cell(written) for written in ("", "a", "a=1", "1", "'a")] == ["", "a", "a=1", "1", "'a"]
