"""Tests of reports/tables.py: how numbers are shown, and that the README shows what is recorded."""

import functools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common.commands.record import readmes
from common.errors import InputError
from common.reports import tables
from common.verdicts.claims import Claim, Verdict
from common.verdicts.suite import Suite
from tests.common.system.test_text import MARKUP, WRITTEN, cells, words

ROOT = Path(__file__).parents[3]


@functools.cache
def claim() -> Claim:
    suite = Suite(ROOT)
    return next(iter(suite.claims(suite.replications["product_network/optimum"]).claims.values()))


def lines(*statements: str, name: str = "p/one") -> list[str]:
    """What a README shows of claims with these statements."""
    claims = {f"c{i}": claim().model_copy(update={"statement": text}) for i, text in enumerate(statements)}
    return tables.claims_table(name, claims, {})


def test_the_claims_in_the_readmes_are_those_recorded() -> None:
    shown = readmes(Suite(ROOT))
    papers = {path.parent for path in ROOT.glob("replications/*/*.yaml")}
    assert set(shown) == {ROOT / "README.md", *(paper / "README.md" for paper in papers)}
    for path, text in shown.items():
        assert tables.START in text
        assert path.read_text(encoding="utf-8") == text


def test_a_text_without_markers_stays() -> None:
    assert tables.with_claims("no markers", ["a line"]) == "no markers"


def test_writing_the_claims_twice_is_writing_them_once() -> None:
    text = f"before\n{tables.START}\nold\n{tables.END}\nafter\n"
    once = tables.with_claims(text, ["new"])
    assert once == f"before\n{tables.START}\n\nnew\n{tables.END}\nafter\n"
    assert tables.with_claims(once, ["new"]) == once


@given(WRITTEN, WRITTEN, st.lists(WRITTEN | st.sampled_from([tables.START, tables.END, *MARKUP]), max_size=4))
def test_any_statements_are_written_once(before: str, after: str, statements: list[str]) -> None:
    around = f"{before}\n{tables.START}\n", f"{tables.END}\n{after}"
    once = tables.with_claims("".join(around), lines(*statements))
    assert tables.with_claims(once, lines(*statements)) == once
    assert once.startswith(around[0])
    assert once.endswith(around[1])
    written = once.removeprefix(around[0]).removesuffix(around[1])
    head, *rows = cells(written.split("\n\n", 1)[1])
    assert {len(row) for row in rows} <= {len(head)}
    assert [row[0] for row in rows] == [words(text) for text in statements]
    # others do not grow it either
    assert tables.with_claims(once, lines("short")) == tables.with_claims("".join(around), lines("short"))


@pytest.mark.parametrize(
    "text",
    [
        f"{tables.START}\n",
        f"{tables.END}\n",
        f"{tables.END}\n{tables.START}\n",
        f"between `{tables.START}` and `{tables.END}` stand the claims\n",
        f"    {tables.START}\n    {tables.END}\n",
        f"{tables.START} {tables.END}",
    ],
)
def test_a_text_without_a_pair_of_lines_that_are_markers_stays(text: str) -> None:
    assert tables.with_claims(text, ["a line"]) == text
    pair = f"{tables.START}\n{tables.END}\n"
    assert tables.with_claims(f"{text.replace(tables.START, 'START')}\n{pair}", ["a"]).endswith(
        f"{tables.START}\n\na\n{tables.END}\n"
    )


def test_the_ends_of_lines_stay() -> None:
    text = f"before\r\n{tables.START}\r\n{tables.END}\r\nafter\r\n"
    once = tables.with_claims(text, ["a", "b"])
    assert once == f"before\r\n{tables.START}\r\n\r\na\r\nb\r\n{tables.END}\r\nafter\r\n"
    assert tables.with_claims(once, ["a", "b"]) == once


def test_a_readme_that_is_not_utf_8_is_one_line(example: Path) -> None:
    readme = example / "replications/example/README.md"
    readme.write_bytes(readme.read_bytes().replace(b"\n", b"\r\n"))
    assert b"\n" not in readmes(Suite(example))[readme].encode().replace(b"\r\n", b"")
    readme.write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match=r"README\.md: cannot be read: 'utf-8' codec"):
        readmes(Suite(example))


@pytest.mark.parametrize("name", ["p/one", "p_2/o-n.e", "a b/`c`|d", "a](b)/<c>", "a*b/c_d_"])
def test_names_are_shown_as_they_are(name: str) -> None:
    markdown = MarkdownIt("commonmark").enable("table")
    paper = tables.PaperClaims(name, name, [(claim(), None)])
    for text, times in (("\n".join(tables.summary([paper])), 2), ("\n".join(lines(name=name)[:1]), 1)):
        inline = [part for token in markdown.parse(text) for part in token.children or []]
        shown = "".join(part.content for part in inline if part.type in ("text", "code_inline"))
        assert shown.count(name) == times


def test_a_paper_s_own_statements_are_counted_apart() -> None:
    def sentence(own: list[Verdict | None], derived: list[Verdict | None]) -> str:
        read_by = {name: claim().source.model_copy(update={"read_by": name}) for name in ("code", "derived")}
        claims = [
            (claim().model_copy(update={"source": source}), verdict)
            for source, verdicts in ((read_by["code"], own), (read_by["derived"], derived))
            for verdict in verdicts
        ]
        return tables.PaperClaims("p", "A paper", claims).sentence().partition(": ")[2]

    yes, no, open_, never, invalid = Verdict
    assert sentence([yes, no, yes, open_], [no, no]) == (
        "of its own 4 statements, 2 were reproduced, 1 was not and 1 is inconclusive; "
        "of 2 claims derived here, none was reproduced."
    )
    assert sentence([yes], []) == "of its own 1 statement, 1 was reproduced."
    assert sentence([yes, never], []) == "of its own 2 statements, 1 was reproduced and 1 is undecidable."
    assert sentence([never, never], []) == "of its own 2 statements, all are undecidable."
    assert sentence([], [yes, yes, invalid, None, None]) == (
        "of 5 claims derived here, 2 were reproduced, 1 is invalid and 2 are not recorded yet."
    )


def test_intervals_say_what_they_are() -> None:
    assert tables.interval(0.5, 0.4, 0.6) == "0.5 [0.4, 0.6]"
    assert tables.interval(0.5, 0.5, 0.5) == "0.5"
    assert tables.interval(0.5, -math.inf, math.inf) == "0.5 [unknown]"
    assert tables.interval(math.nan, -math.inf, math.inf) == "none"
