"""Tests of verdicts/grid.py: the rows of `for:` make the claims that one would write by hand."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.specs.document import Document, Place
from common.verdicts.grid import expand

KEYS = ("statement", "value", "profiles", "investigated")
GRID = """\
claims:
  first: {statement: "{plain}"}
  count_m{m}:
    for:
      - {m: 256, count: 72.6}
      - {m: 512, count: 23.9, profiles: [full]}
    statement: neurons at m = {m}
    value: "{count}"
  last: {statement: s}
"""
GROUP = """\
claims:
  losses:
    for: &rows
      - {p: 1, loss: .125, note: null}
      - {p: 0.40, loss: 5e-2, note: "{p}"}
    claims:
      weights_p{p}: {statement: "{{p = {p}}}"}
      loss_p{p}: {statement: loss, value: ["{loss}", {at: "{p}"}], investigated: "{note}"}
  again_p{p}:
    for: *rows
    statement: "p{p}"
"""


def expanded(folder: Path, text: str) -> Document:
    path = folder / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    return expand(Document.load(path), KEYS)


def places(value: Any, at: Place = ()) -> set[Place]:
    items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
    return {at}.union(*(places(inner, (*at, key)) for key, inner in items))


def test_a_row_makes_a_claim(tmp_path: Path) -> None:
    found = expanded(tmp_path, GRID)
    assert list(found.data["claims"].items()) == [
        ("first", {"statement": "{plain}"}),
        ("count_m256", {"statement": "neurons at m = 256", "value": 72.6}),
        ("count_m512", {"statement": "neurons at m = 512", "value": 23.9, "profiles": ["full"]}),
        ("last", {"statement": "s"}),
    ]


def test_a_row_makes_several_claims_in_turn(tmp_path: Path) -> None:
    found = expanded(tmp_path, GROUP)
    assert list(found.data["claims"].items()) == [
        ("weights_p1", {"statement": "{p = 1}"}),
        ("loss_p1", {"statement": "loss", "value": [0.125, {"at": 1}], "investigated": None}),
        ("weights_p0.40", {"statement": "{p = 0.40}"}),
        ("loss_p0.40", {"statement": "loss", "value": [0.05, {"at": 0.4}], "investigated": "{p}"}),
        ("again_p1", {"statement": "p1"}),
        ("again_p0.40", {"statement": "p0.40"}),
    ]


def test_lines(tmp_path: Path) -> None:
    lines = {
        ".".join(map(str, place)): int(origin.rsplit(":", 1)[1])
        for place, origin in expanded(tmp_path, GRID).origins.items()
    }
    assert lines == {
        "": 1,
        "claims": 1,
        "claims.first": 2,
        "claims.first.statement": 2,
        "claims.count_m256": 5,
        "claims.count_m256.statement": 5,
        "claims.count_m256.value": 5,
        "claims.count_m512": 6,
        "claims.count_m512.statement": 6,
        "claims.count_m512.value": 6,
        "claims.count_m512.profiles": 6,
        "claims.count_m512.profiles.0": 6,
        "claims.last": 9,
        "claims.last.statement": 9,
    }
    constant = expanded(tmp_path, GRID.replace('"{count}"', "[{at: x}, '{count}']")).origins
    assert constant["claims", "count_m256", "value", 0, "at"].endswith("claims.yaml:8")
    assert constant["claims", "count_m256", "value", 1].endswith("claims.yaml:5")


# --- any grid is what one would write by hand

scalars = st.one_of(
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(alphabet="ab01 {}'\"#:,-\n", max_size=5),
)
values = st.one_of(
    scalars, st.none(), st.lists(scalars, max_size=2), st.dictionaries(st.sampled_from("xy"), scalars)
)


def written(value: Any) -> str:
    """A scalar as PyYAML writes it."""
    return value if isinstance(value, str) else str(yaml.safe_dump(value)).split("\n")[0]


def braced(parts: list[tuple[bool, str]]) -> str:
    """A template's text: names in braces where said, else the text itself."""
    return "".join(
        f"{{{part}}}" if is_name else part.replace("{", "{{").replace("}", "}}") for is_name, part in parts
    )


@settings(derandomize=True, deadline=None, database=None)
@given(st.data())
def test_any_grid_is_as_written_by_hand(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    draw = data.draw
    n_rows = draw(st.integers(1, 3))
    rows = [{"id": i, **{name: draw(scalars) for name in "st"}, "v": draw(values)} for i in range(n_rows)]
    for row in rows:
        row |= {"investigated": draw(values)} if draw(st.booleans()) else {}
    parts = st.tuples(st.just(True), st.sampled_from(["id", "s", "t"])) | st.tuples(
        st.just(False), st.text(alphabet="ab {}:", max_size=4)
    )
    texts = [[(False, "x"), (True, "s"), (True, "t"), *draw(st.lists(parts, max_size=4))] for _ in range(2)]
    constant = draw(st.none() | st.integers() | st.lists(st.booleans(), max_size=2))
    template = {
        "statement": braced(texts[0]),
        "value": {"v": "{v}", "all": [braced(texts[1]), "{id}", constant]},
    }
    names = ["c{id}", "d{id}"][: draw(st.integers(1, 2))]
    entry = {"for": rows, "claims": {name: template for name in names}}
    if names == ["c{id}"] and draw(st.booleans()):
        names, entry = ["g{id}"], {"for": rows, **template}

    def by_hand(row: dict[str, Any]) -> dict[str, Any]:
        first, second = ("".join(written(row[p]) if is_name else p for is_name, p in text) for text in texts)
        claim = {"statement": first, "value": {"v": row["v"], "all": [second, row["id"], constant]}}
        return claim | {key: row[key] for key in row if key == "investigated"}

    wanted = {f"{name[0]}{row['id']}": by_hand(row) for row in rows for name in names}
    plain = {"statement": "{s}"}
    given_claims = {"first": plain, names[0] if "claims" not in entry else "group": entry, "last": plain}
    text = yaml.safe_dump({"claims": given_claims}, sort_keys=False, allow_unicode=True)
    found = expanded(tmp_path_factory.mktemp("grid"), text)
    assert repr(found.data) == repr({"claims": {"first": plain, **wanted, "last": plain}})
    assert set(found.origins) == places(found.data)


# --- mistakes: what is changed in GRID or GROUP, and what is said

ROWS = GRID[GRID.index("      - ") : GRID.index("    statement")]
ONE = "claims.count_m{m}"
MISTAKES = [
    # rows
    (
        GRID,
        f"\n{ROWS}",
        " []\n",
        f"4: {ONE}.for: expected a list of at least one row, - {{NAME: VALUE, ...}}",
    ),
    (
        GRID,
        f"\n{ROWS}",
        " {m: [256, 512]}\n",
        f"4: {ONE}.for: expected a list of at least one row, - {{NAME: VALUE, ...}}",
    ),
    (
        GRID,
        "{m: 512, count: 23.9, profiles: [full]}",
        "512",
        f"6: {ONE}.for.1: expected a row, {{NAME: VALUE",
    ),
    (GRID, "{m: 512, count: 23.9, profiles: [full]}", "{}", f"6: {ONE}.for.1: expected a row, {{NAME: VALUE"),
    (GRID, "count: 23.9, ", "", f"6: {ONE}.for.1: this row has no 'count', which line 8 uses; add it"),
    (GRID, "m: 256, ", "", f"5: {ONE}.for.0: this row has no 'm', which line 3 uses; add it"),
    # columns
    (
        GRID,
        "at m = {m}",
        "at m = {mm}",
        f"7: {ONE}.statement: no column 'mm' in the rows of `for`; did you mean 'm'?",
    ),
    (
        GRID,
        "at m = {m}",
        "at m = {}",
        f"7: {ONE}.statement: no column '' in the rows of `for`; valid: count, m",
    ),
    (GRID, "count: 72.6", "coumt: 72.6", f"5: {ONE}.for.0: this row has no 'count', which line 8 uses"),
    (
        GRID,
        "72.6}",
        "72.6, sd: 4}",
        f"5: {ONE}.for.0.sd: unused column: neither used as {{sd}} nor a key of a claim; valid: ",
    ),
    (
        GRID,
        "profiles",
        "profils",
        f"6: {ONE}.for.1.profils: unused column: neither used as {{profils}} nor a key of a claim; "
        "did you mean 'profiles'?",
    ),
    (
        GROUP,
        "note: null}",
        "note: null, q: 2}",
        "4: claims.losses.for.0.q: unused column: neither used as {q}",
    ),
    (
        GRID,
        "    value:",
        "    profiles: []\n    value:",
        f"6: {ONE}.for.1.profiles: given in both the row and the claim; keep one",
    ),
    # text
    (GRID, "at m = {m}", "{m", f"7: {ONE}.statement: a single {{; write {{{{ for a literal {{"),
    (GRID, "at m = {m}", "{m}}", f"7: {ONE}.statement: a single }}; write }}}} for a literal }}"),
    (
        GRID,
        "m: 512",
        "m: [512]",
        f"6: {ONE}.for.1.m: {{m}} is used within text, so its value must be text or a number",
    ),
    (
        GRID,
        "m: 512",
        "m: null",
        f"6: {ONE}.for.1.m: {{m}} is used within text, so its value must be text or a number",
    ),
    # names
    (
        GRID,
        "m: 512",
        "m: 256",
        f"6: {ONE}.for.1: line 5 already makes the claim 'count_m256'; each claim needs",
    ),
    (
        GRID,
        "first:",
        "count_m512:",
        f"6: {ONE}.for.1: line 2 already makes the claim 'count_m512'; each claim needs",
    ),
    (
        GRID,
        "last:",
        "count_m512:",
        "9: claims.count_m512: line 6 already makes the claim 'count_m512'; each claim needs",
    ),
    (GRID, "last:", "last_{m}:", "9: claims.last_{m}: {m} needs `for`, a list of rows with a value for 'm'"),
    # several claims
    (
        GROUP,
        "    claims:",
        "    kind: x\n    claims:",
        "6: claims.losses.kind: not allowed next to `claims`; put it into each",
    ),
    (
        GROUP,
        "    claims:",
        "    claims: {}\n  other:",
        "6: claims.losses.claims: expected a mapping of names to claims",
    ),
    (
        GROUP,
        '{statement: "{{p = {p}}}"}',
        "{for: [{q: 1}]}",
        "7: claims.losses.claims.weights_p{p}.for: a `for` inside another `for`; put its values into",
    ),
    (
        GROUP,
        '{statement: "{{p = {p}}}"}',
        "x",
        "7: claims.losses.claims.weights_p{p}: expected a claim, {KEY: VALUE",
    ),
]


@pytest.mark.parametrize(("text", "old", "new", "says"), MISTAKES, ids=[case[-1] for case in MISTAKES])
def test_mistakes(tmp_path: Path, text: str, old: str, new: str, says: str) -> None:
    assert text.count(old) == 1
    with pytest.raises(InputError) as error:
        expanded(tmp_path, text.replace(old, new))
    assert str(error.value).startswith(f"{tmp_path / 'claims.yaml'}:{says}")


@pytest.mark.parametrize("text", ["claims: []", "claims: {first: 1}", "other: {}", "claims: {a: {x: '{b'}}"])
def test_what_has_no_grid_stays_as_it_is(tmp_path: Path, text: str) -> None:
    found = expanded(tmp_path, text)
    old = Document.load(tmp_path / "claims.yaml")
    assert (found.data, found.origins) == (old.data, old.origins)
