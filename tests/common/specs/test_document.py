"""Tests of specs/document.py: what YAML means here, and where each value stands."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from common.errors import InputError
from common.specs import document as documents
from common.specs.document import Document, Strict, nearest, parse_value

steady = settings(derandomize=True, deadline=None, database=None)


class Inner(Strict):
    count: int = 0


class Model(Strict):
    a: int | list[int] = 0
    b: Inner | None = None
    items: dict[str, Inner] = Field(default_factory=dict)
    short: str = Field(default="", max_length=2, alias="tiny")


def document(folder: Path, text: str) -> Document:
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return Document.load(path)


# --- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("+1.5", 1.5),
        ("-2E+4", -20000.0),
        ("2e4", 20000.0),
        ("1.e2", 100.0),
        ("1_000.5", 1000.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("1_000", 1000),
        ("-7", -7),
        ("0", 0),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("e3", "e3"),
        ("1e", "1e"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("inf", "inf"),
        ("'1e-3'", "1e-3"),
        ("torch.optim.AdamW", "torch.optim.AdamW"),
        ("[1, 2e0]", [1, 2.0]),
        ("{a: {b: .5}}", {"a": {"b": 0.5}}),
    ],
)
def test_values(tmp_path: Path, text: str, value: Any) -> None:
    assert repr(parse_value(text)) == repr(value)
    assert repr(document(tmp_path, f"key: {text}").data) == repr({"key": value})


def test_nan() -> None:
    assert math.isnan(parse_value(".nan"))


@given(st.floats(allow_nan=False, allow_infinity=False))
@steady
def test_every_float_is_read_as_it_is_written(number: float) -> None:
    for text in (repr(number), f"{number:.17e}", f"{number:.16E}"):
        read = parse_value(text)
        assert type(read) is float
        assert (read, math.copysign(1, read)) == (number, math.copysign(1, number))


@given(st.integers())
@steady
def test_every_integer_is_read_as_it_is_written(number: int) -> None:
    assert repr(parse_value(str(number))) == repr(parse_value(f"{number:_}")) == repr(number)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "'[1' is not a YAML value: while parsing a flow sequence"),
        ("a: b: c", "'a: b: c' is not a YAML value: mapping values are not allowed here"),
        ("\x00", r"'\x00' is not a YAML value: unacceptable character #x0000"),
        ("{a: 1, a: 2}", "'{a: 1, a: 2}':1: a: duplicate key, first on line 1; keep one"),
        ("2022-13-01", "'2022-13-01':1: '2022-13-01' is not a valid timestamp; put a string in quotes"),
    ],
)
def test_not_a_value(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_value(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


# --- files

# each: a file, and the line and message
BAD_FILES = {
    "empty": ("", "1: expected a mapping of keys to values"),
    "comment": ("# nothing", "1: expected a mapping of keys to values"),
    "list": ("- a\n- b", "1: expected a mapping of keys to values"),
    "text": ("just words", "1: expected a mapping of keys to values"),
    "tab": (
        "a:\n\tb: 1",
        "2: not YAML: while scanning for the next token, found character '\\t' that cannot start any token",
    ),
    "indent": (
        "a: 1\n  b: 2",
        "2: not YAML: mapping values are not allowed here",
    ),
    "dedent": (
        "a:\n    b: 1\n  c: 2",
        "3: not YAML: while parsing a block mapping, expected <block end>, but found '<block mapping start>'",
    ),
    "open list": (
        "a: [1,\nb: 2",
        "2: not YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
    ),
    "control character": ("a: 1\nb: \x07", "2: not YAML: special characters are not allowed: '\\x07'"),
    "two documents": (
        "a: 1\n---\nb: 2",
        "2: not YAML: expected a single document in the stream, but found another document",
    ),
    "no anchor": ("a: 1\nb: *c", "2: not YAML: found undefined alias 'c'"),
    "anchor twice": (
        "a: &x 1\nb: &x 2",
        "2: not YAML: found duplicate anchor 'x'; first occurrence, second occurrence",
    ),
    "duplicate": ("a: 1\nb: 2\na: 3", "3: a: duplicate key, first on line 1; keep one"),
    "inner duplicate": (
        "a:\n- b:\n    c: 1\n    d: 2\n    c: 1",
        "5: c: duplicate key, first on line 3; keep one",
    ),
    "quoted duplicate": ("{a: 1,\n'a': 2}", "2: a: duplicate key, first on line 1; keep one"),
    "number as key": ("a:\n  1: b", "2: 1: a key must be a string; put it in quotes"),
    "bool as key": ("a: 1\nno: 2", "2: False: a key must be a string; put it in quotes"),
    "null as key": ("a: 1\n~: 2", "2: None: a key must be a string; put it in quotes"),
    "list as key": ("a: 1\n? [b]\n: 2", "2: ['b']: a key must be a string; put it in quotes"),
    "merge": ("a: &x {b: 1}\nc:\n  <<: *x", "3: merge keys (<<) are not supported; write the keys out"),
    "merge in a list": (
        "a: [{b: 1},\n{<<: {b: 1}}]",
        "2: merge keys (<<) are not supported; write the keys out",
    ),
    "no such day": (
        "a: 1\nb: 2022-13-01",
        "2: '2022-13-01' is not a valid timestamp; put a string in quotes",
    ),
    "no digits": ("a: 0x_", "1: '0x_' is not a valid int; put a string in quotes"),
    "no bool": ("a: !!bool x", "1: 'x' is not a valid bool; put a string in quotes"),
    "object": (
        "a: !!python/object:os.system {}",
        "1: the tag 'tag:yaml.org,2002:python/object:os.system' is not supported; write plain "
        "mappings or lists",
    ),
    "set": (
        "a: !!set {b}",
        "1: the tag 'tag:yaml.org,2002:set' is not supported; write plain mappings or lists",
    ),
    "tag": ("a: !new b", "1: the tag '!new' is not supported; write plain values"),
    "inside itself": ("a: 1\nb: &x\n  c: *x", "3: b.c: an alias inside the node that it refers to"),
    "in a list of itself": ("a: &x [[1, *x]]", "1: a.0.1: an alias inside the node that it refers to"),
    "all inside itself": ("&x\na: *x", "2: a: an alias inside the node that it refers to"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        document(tmp_path, text)
    assert str(error.value) == f"{tmp_path / 'file.yaml'}:{message}"


@pytest.mark.parametrize("text", ["[" * 1000, "{a: " * 1000, "a: " + "[" * 1000 + "]" * 1000])
def test_nested_too_deeply(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*file\.yaml:1: nested too deeply$"):
        document(tmp_path, text)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("title: Ä".encode("latin-1"))
    for path, problem in {
        "missing.yaml": "No such file",
        "": "Is a directory",
        "latin.yaml": "utf-8",
    }.items():
        with pytest.raises(InputError) as error:
            Document.load(tmp_path / path)
        assert str(error.value).startswith(f"{tmp_path / path}: cannot be read: ")
        assert problem in str(error.value)


# --- places

TEXT = """\
a: 1
sweep:
  - density: 0.5
    n: [1,
        2]
  - &two
    density: {from: 1, to: 2}
again:
  - *two
"""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("a",), "1: a: m"),
        (("sweep",), "2: sweep: m"),
        (("sweep", 0, "n"), "4: sweep.0.n: m"),
        (("sweep", 0, "n", 1), "5: sweep.0.n.1: m"),
        (("sweep", 1), "6: sweep.1: m"),
        (("sweep", 1, "density", "to"), "7: sweep.1.density.to: m"),
        (("sweep", 1, "density", "by"), "7: sweep.1.density.by: m"),
        (("again", 0, "density"), "7: again.0.density: m"),
        (("none", "at", "all"), "1: none.at.all: m"),
        ((), "1: m"),
    ],
)
def test_every_value_knows_its_line(tmp_path: Path, place: tuple[str | int, ...], message: str) -> None:
    assert str(document(tmp_path, TEXT).error(place, "m")) == f"{tmp_path / 'file.yaml'}:{message}"


def test_replace(tmp_path: Path) -> None:
    doc = document(tmp_path, TEXT)
    doc.replace("a", 2, "one")
    doc.replace("sweep.0.density", [3], "two")
    doc.replace("sweep.0.n.1", 4, "three")
    doc.replace("new", {"b": 5}, "four")
    doc.replace("new.b", 6, "five")
    assert doc.data["a"] == 2
    assert doc.data["sweep"][0] == {"density": [3], "n": [1, 4]}
    assert doc.data["new"] == {"b": 6}
    assert str(doc.error(("sweep", 0, "density", 0), "m")) == "two: sweep.0.density.0: m"
    assert str(doc.error(("sweep", 0, "n", 1), "m")) == "three: sweep.0.n.1: m"
    assert str(doc.error(("sweep", 0, "n", 0), "m")).endswith("file.yaml:4: sweep.0.n.0: m")
    assert str(doc.error(("new", "b"), "m")) == "five: new.b: m"


def test_replace_forgets_the_lines_of_what_was_there(tmp_path: Path) -> None:
    doc = document(tmp_path, TEXT)
    doc.replace("sweep", [{"density": 1}], "the test")
    assert str(doc.error(("sweep", 0, "density"), "m")) == "the test: sweep.0.density: m"


def test_replace_changes_no_other_copy(tmp_path: Path) -> None:
    doc = document(tmp_path, TEXT)
    doc.replace("again.0.density.from", 0, "the test")
    assert doc.data["sweep"][1] == {"density": {"from": 1, "to": 2}}
    value = [1, 2]
    doc.replace("a", value, "the test")
    doc.replace("b", value, "the test")
    doc.replace("a.0", 3, "the test")
    assert (doc.data["a"], doc.data["b"], value) == ([3, 2], [1, 2], [1, 2])


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("b.c", "no key 'b'; valid: a, again, sweep"),
        ("swep.0", "no key 'swep'; did you mean 'sweep'?"),
        ("a.b", "a is not a mapping"),
        ("sweep.0.density.b.c", "sweep.0.density is not a mapping"),
        ("sweep.2", "a list of 2 has no item '2'"),
        ("sweep.-1", "a list of 2 has no item '-1'"),
        ("sweep.²", "a list of 2 has no item '²'"),
        ("sweep.first.n", "a list of 2 has no item 'first'"),
    ],
)
def test_replace_where_nothing_can_be(tmp_path: Path, dotted: str, message: str) -> None:
    doc = document(tmp_path, TEXT)
    with pytest.raises(InputError) as error:
        doc.replace(dotted, 1, "--set x")
    assert str(error.value) == f"--set x: {dotted}: {message}"
    assert doc.data == document(tmp_path, TEXT).data


def test_apply_keeps_the_lines(tmp_path: Path) -> None:
    doc = document(tmp_path, "a: {b: 1}\nlayer:\n  a.b: 2\n  c:\n    d:\n    - 3\n    - 4\n")
    doc.apply(("layer",))
    assert doc.data["a"] == {"b": 2}
    assert doc.data["c"] == {"d": [3, 4]}
    assert str(doc.error(("a", "b"), "m")).endswith("file.yaml:3: a.b: m")
    assert str(doc.error(("c", "d", 1), "m")).endswith("file.yaml:7: c.d.1: m")
    doc.replace("c.d.1", 5, "the test")
    assert doc.data["layer"]["c"] == {"d": [3, 4]}


# --- models


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nc: 2", "2: c: unknown key; valid: a, b, items, tiny"),
        ("a: 1\ntinny: x", "2: tinny: unknown key; did you mean 'tiny'?"),
        ("a: x\nitem: {}", "2: item: unknown key; did you mean 'items'?"),
        ("b:\n  cuont: 1", "2: b.cuont: unknown key; did you mean 'count'?"),
        ("items:\n  x: {count: 1}\n  y: {size: 1}", "3: items.y.size: unknown key; valid: count"),
        ("items:\n  x:\n    count: 1.5", "3: items.x.count: input should be a valid integer, got 1.5"),
        ("a: x", "1: a: input should be a valid integer, got 'x'"),
        ("a:\n- 1\n- x", "3: a.1: input should be a valid integer, got 'x'"),
        ("tiny: long", "1: tiny: string should have at most 2 characters, got 'long'"),
    ],
)
def test_validate(tmp_path: Path, text: str, message: str) -> None:
    doc = document(tmp_path, text)
    with pytest.raises(InputError) as error:
        doc.validate(Model)
    assert str(error.value) == f"{tmp_path / 'file.yaml'}:{message}"


def test_validate_a_part(tmp_path: Path) -> None:
    doc = document(tmp_path, "part:\n- a: [1, 2]\n- a: true")
    assert doc.validate(Model, doc.data["part"][0], ("part", 0)).a == [1, 2]
    with pytest.raises(InputError, match=r"3: part\.1\.a: input should be a valid integer, got True"):
        doc.validate(Model, doc.data["part"][1], ("part", 1))


def test_nearest() -> None:
    assert nearest("denisty", ["seeds", "density"]) == "did you mean 'density'?"
    assert nearest("x", ["seeds", "density"]) == "valid: density, seeds"
    assert nearest("x", []) == "there are none"


RECORD = Path(__file__).parents[3] / "expected" / "product_network" / "optimum.record.yaml"


@pytest.mark.parametrize("damage", ["", "\n  - : [", "\n\tx: 1", "\nprofiles: 1"])
def test_libyaml_reads_as_the_loader_whose_messages_are_shown(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = RECORD.read_text(encoding="utf-8")[:100_000].splitlines()
    whole = max(i for i, line in enumerate(lines) if line.endswith("}"))
    path = tmp_path / "record.yaml"
    path.write_text("\n".join(lines[: whole + 1]) + damage, encoding="utf-8")

    def read() -> tuple[Any, Any] | str:
        try:
            loaded = Document.load(path)
        except InputError as error:
            return str(error)
        return loaded.data, loaded.origins

    fast = read()
    monkeypatch.setattr(documents, "DEEPEST", 0)
    assert fast == read()
    assert isinstance(fast, str) == bool(damage)


@pytest.mark.parametrize("text", ['a: "\\uD800"', 'a: "x\\uDFFFy"', '"\\uD83D\\uDE00": 1', 'a: ["\\uD800"]'])
def test_half_a_character_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"# one\n{text}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"spec\.yaml:2: \\uD[0-9A-F]{3} is not a character"):
        Document.load(path)
