"""Tests of specs/papers.py: every paper that a claim is of can be opened from the report."""

import re
import time
from contextlib import suppress
from pathlib import Path

import pytest

from common.cli import main
from common.errors import InputError
from common.specs.papers import Paper, load_citations, load_papers
from common.verdicts.suite import Suite

ROOT = Path(__file__).parents[3]


def papers(folder: Path, text: str | bytes) -> dict[str, Paper]:
    path = folder / "citation.bib"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_citations(path).papers


def test_the_papers_of_all_claims_have_a_link() -> None:
    papers = load_papers(ROOT)
    suite = Suite(ROOT)
    files = suite.replications.values()
    keys = {claim.source.paper for one in files for claim in suite.claims(one).claims.values()}
    assert keys <= set(papers)
    assert all((papers[key].url or "").startswith("https://") for key in keys)
    assert papers["chan2024"].title == "Superposition is not “just” neuron polysemanticity"


def test_braces_are_taken_off_and_what_is_absent_stays_absent(tmp_path: Path) -> None:
    folder = tmp_path / "replications" / "a"
    folder.mkdir(parents=True)
    text = "@misc{one, title = {An {E}xample},\n note = {x}}\n@article{two,\n year = {2026},\n}\n"
    (folder / "citation.bib").write_text(text, encoding="utf-8")
    assert load_papers(tmp_path) == {"one": Paper(title="An Example"), "two": Paper(title="two", year="2026")}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("@misc{k, title = {a {b {c} d} e}}", "a b c d e"),
        ('@misc{k, title = "a {"} b"}', 'a " b'),
        ('@misc{k, title = "a" # " b" # 1}', "a b1"),
        ("@misc{k, title = 12, year = 2026}", "12"),
        ("@MISC(k, TITLE = {a) b})", "a) b"),
        ("@misc {\n k ,\n title={a\n  b},,}", "a b"),
        ("% me@example.org @ home\n@misc{k, title = {a@b.c}}", "a@b.c"),
        ("@comment{@misc{x, title = {y}}}\n@string{s = {S}}\n@preamble{{}}\n@misc{k, title = {a}}", "a"),
        ("@comment no brace\n@misc{k, title = {a}}", "a"),
        ("@misc{k, month = jan, title = {a} year = {2026}}", "a"),
        ("\ufeff@misc{k, title = {a}}\r\n", "a"),
        ("@misc{k}", "k"),
        ("@misc{k, title = {}}", ""),
        ('@misc{k, title = {<b>"x"</b> \x1b[31m \\"o}}', '<b>"x"</b> \x1b[31m \\"o'),
    ],
)
def test_values_in_all_their_forms(tmp_path: Path, text: str, title: str) -> None:
    assert {key: paper.title for key, paper in papers(tmp_path, text).items()} == {"k": title}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"", 1, "no BibTeX entry; expected one such as @misc{key, title = {...}}"),
        ("only\ntext", 1, "no BibTeX entry"),
        ("@comment{a}", 1, "no BibTeX entry"),
        (b"@misc{k,\n title = {Erd\xf6s}}", 2, "the byte 0xf6 is not UTF-8; save it as UTF-8"),
        ("@misc{k}".encode("utf-16"), 1, "the byte 0xff is not UTF-8"),
        ("\n@misc{k,\n title = {a}\n", 2, "this entry is not closed: a } is missing"),
        ("\n@misc{k,\n title = {a\n}\n", 2, "this entry is not closed: a } is missing"),
        ("@misc{k,\n title = {{a}\n", 2, "what opens here is not closed: a } is missing"),
        ('@misc{k,\n title = "a}\n', 2, 'what opens here is not closed: a " is missing'),
        ("\n@comment{{", 2, "what opens here is not closed"),
        ("@misc{k,\n\ntitle}", 3, "expected FIELD = {value}, or } at the end of the entry"),
        ("@misc{k,\n title = ,}", 2, "expected a value: {text} or a number"),
        ("@misc{,\n title = {a}}", 1, "expected the key of @misc, followed by a comma"),
        ("@misc{k title = {a}}", 1, "expected the key of @misc, followed by a comma"),
    ],
)
def test_what_is_no_bibtex_is_one_line(tmp_path: Path, text: str | bytes, line: int, message: str) -> None:
    with pytest.raises(InputError) as error:
        papers(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path}/citation.bib:{line}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


SHAPES = {
    "word": ("", "a", ""), "letters after @": ("", "@a", ""), "@": ("", "@", ""), "@ apart": ("", "@ a ", ""),
    "braces": ("", "{", ""), "entries": ("", "@m{k}\n", ""), "open entries": ("", "@m{", ""),
    "open values": ("", "@m{k, t = {", ""), "an @ and space": ("@", " ", ""), "a kind": ("@", "a", ""),
    "key": ("@m{", "k", ""), "space for a key": ("@m{", " ", ""), "fields": ("@m{k,", "t = {b},", "}"),
    "fields without an end": ("@m{k,", "t={b},", ""), "space for a field": ("@m{k,", " ", "x"),
    "names": ("@m{k,", "x ", ""), "a name": ("@m{k,", "x", ""), "an open value": ("@m{k, t = {", "a ", ""),
    "an open quote": ('@m{k, t = "', "{}", ""), "nested": ("@m{k, title = {", "{}", "}}"),
    "deep": ("@m{k, title = {", "{", ""), "joined": ("@m{k, title = ", "a # ", "a}"),
    "strings": ("", "@string{s = s # s}\n", "@m{k}"), "quotes": ('@m{k, title = "', "`", '"}'),
    "commas": ("@m{k", ",", "}"), "equals": ("@m{k,", "=", ""), "lines": ("@m{k, title = {", "\n", "}}"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_time_grows_with_the_text_and_no_faster(tmp_path: Path, shape: str) -> None:
    start, repeated, end = SHAPES[shape]
    path = tmp_path / "citation.bib"
    seconds = []
    for size in (25_000, 400_000):
        path.write_text(f"{start}{repeated * (size // len(repeated))}{end}", encoding="utf-8")
        begin = time.process_time()
        with suppress(InputError):
            load_citations(path)
        seconds.append(time.process_time() - begin)
    # 16 times as long a text; where time grew with the square, this took more than 256 times as long
    assert seconds[1] < 64 * seconds[0] + 0.2


@pytest.mark.parametrize("content", [b"Erd\xf6s", b"", b"@misc{example, title = {a}"])
def test_the_command_says_it_in_one_line_and_before_it_trains(
    example: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = example / "replications/example/citation.bib"
    path.write_bytes(content)
    for command in ("cite", "run", "new"):
        name = "example/second" if command == "new" else "example/projection"
        assert main(["--root", str(example), command, name]) == 2
        said = capsys.readouterr()
        assert re.fullmatch(rf"replicate: {re.escape(str(path))}:\d: .*\n", said.err)
        assert said.out == ""
    assert not (example / "results").exists()
    path.unlink()
    assert main(["--root", str(example), "cite"]) == 2
    assert capsys.readouterr().err.startswith(f"replicate: {path}: cannot be read: ")


def test_cite_prints_what_stands_there(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"@misc{{a,\n  title = {{[b] :smile: {'long ' * 60}}},\n\n  note = {{x}}\n}}"
    (example / "replications/example/citation.bib").write_text(f"\ufeff{text}\n", encoding="utf-8")
    assert main(["--root", str(example), "cite"]) == 0
    assert capsys.readouterr().out == f"{text}\n"
