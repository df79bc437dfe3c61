"""Tests of system/terminal.py: users' text is text on the terminal too, wherever it is printed."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from common.cli import main
from common.runs import progress
from common.runs.store import Run
from common.specs.spec import load_spec
from common.specs.sweep import shards
from common.system.terminal import WIDTH, Terminal
from tests.conftest import SMALL

HOSTILE = [
    "[normalised loss]", "[/red]", "[bold]a[/bold]", "[link=http://a.b]a[/link]", "\\[a]", ":smile:",
    "1e-3 'a'", "\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "a\rb", "\u202eabc",
    "a\nAll results match the record.",
    "\udcff", "[@click=a]b",
]  # fmt: skip


def printed(*, terminal: bool = False, **options: Any) -> tuple[Terminal, io.StringIO]:
    text = io.StringIO()
    return Terminal(file=text, force_terminal=terminal, **options), text


def plain(shown: str) -> str:
    """What a terminal shows of this: without rich's own colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def as_shown(text: str) -> str:
    return re.sub("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\udcff]", "\ufffd", text).replace("\n", " ")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("style", [None, "red"])
def test_a_string_is_one_line_as_it_is_written(text: str, style: str | None) -> None:
    console, out = printed()
    console.print(f"a {text} b", style=style)
    assert out.getvalue() == f"a {as_shown(text)} b\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_on_a_terminal_there_are_no_colours_but_the_style_s(text: str) -> None:
    console, out = printed(terminal=True, color_system="standard")
    console.print(f"a {text}", style="red")
    assert out.getvalue() == f"\x1b[31ma {as_shown(text)}\x1b[0m\n"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("as_text", [False, True])
def test_tables(text: str, as_text: bool) -> None:
    console, out = printed()
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(Text(text) if as_text else text)
    console.print(table)
    if not as_text:
        assert out.getvalue().count(as_shown(text)) == 4
    assert not set(out.getvalue()) & set("\x1b\x07\x9b\r\u202e\udcff")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_status(text: str) -> None:
    console, out = printed(terminal=True)
    with console.status(Text("")) as status:
        status.update(Text(text))
    assert not set(plain(out.getvalue())) & set("\x07\x9b\u202e\udcff\x1b")


def test_verbatim_keeps_lines() -> None:
    console, out = printed(width=10)
    console.verbatim("{a long line of text, [b]}\n\n\x1b[31m  c\n")
    assert out.getvalue() == "{a long line of text, [b]}\n\n\ufffd[31m  c\n"


def test_where_there_is_no_terminal_lines_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert printed()[0].width == WIDTH
    assert printed(width=30)[0].width == 30
    assert printed(terminal=True)[0].width == 20


@pytest.mark.parametrize("text", ["[red]", "[bold]a[", ":smile:", "\x1b[31m", "a\nb"])
def test_progress(tmp_path: Path, text: str) -> None:
    path = tmp_path / "replications" / text / f"{text}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"{SMALL}watch: loss\n", encoding="utf-8")
    run = Run(load_spec(path), tmp_path)
    for terminal in (False, True):
        console, out = printed(terminal=terminal, width=200)
        with progress.shown(console, {}, text) as shown:
            todo = [(run, shard) for shard in shards(run.spec)]
            shown.began(todo, 1)
            for _, shard in todo:
                shown.advanced(run, shard, 10)
                shown.finished(run, shard, shard.rows.assign(loss=0.0))
            shown.noted(run, text)
        assert plain(out.getvalue()).count(f"{as_shown(f'{text}/{text}')} full: {as_shown(text)}\n") == 1
        assert f"{as_shown(text)}: loss: " in plain(out.getvalue())


def rewrite(path: Path, **changes: str) -> None:
    """Put other values at keys of a YAML file."""
    written = path.read_text(encoding="utf-8")
    for key, value in changes.items():
        (old,) = re.findall(rf"^ *{key}: .*$", written, re.MULTILINE)
        written = written.replace(old, f"{old.partition(':')[0]}: {value}")
    path.write_text(written, encoding="utf-8")


def test_the_command_shows_what_is_written(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, claims = (example / f"{folder}/example/projection.yaml" for folder in ("replications", "expected"))
    rewrite(spec, title='"[normalised loss] :smile: \\e[31m"',
            why='"too strong [/red]\\nAll results match the record."',
            trainer="{max_steps: 5, compile: false}")  # fmt: skip
    rewrite(claims, statement='"[/red] \\u202E"')
    with claims.open("a", encoding="utf-8") as file:
        file.write('    investigated: "seen: [/bold] :smile:"\n')
    root = ["--root", str(example)]
    assert main([*root, "list"]) == 0
    assert "example/projection: [normalised loss] :smile: \ufffd[31m (example): 10" in capsys.readouterr().out
    assert main([*root, "run", "--devices", "1"]) == 1
    said = capsys.readouterr().out
    assert "control decayed (too strong [/red] All results match the record.): fails" in said
    assert "Investigated: seen: [/bold] :smile:" in said
    assert not re.search("^All results match", said, re.MULTILINE)


@pytest.mark.parametrize("text", ["[/red]", "[a]", ":smile:", "\x1b[31m", "a\nb", "\udcff"])
@pytest.mark.parametrize(
    "arguments", [["cite", "{}"], ["list", "--{}"], ["run", "--set", "{}"], ["run", "--set", "{}=1"],
                  ["run", "--set", "seeds={}"], ["run", "--keep-weights", "{}"], ["compare", "{}", "b"],
                  ["check", "--profile", "{}"], ["new", "{}"], ["run", "--part", "{}"]]
)  # fmt: skip
def test_a_mistake_is_one_line(
    example: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert main(["--root", str(example), *(one.format(text) for one in arguments)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("replicate: ")
    assert "\x1b" not in said
    assert "Traceback" not in said
    if text.startswith(("[", ":")):
        assert text in said
