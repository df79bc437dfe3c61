"""Claims over a grid: `for:`, a table in which each row makes one claim.

    claims:
      count_m{m}:
        for:
          - {m: 256, count: 72.6, sd: 4.17}
          - {m: 512, count: 23.9, sd: 3.99, profiles: [full]}
        statement: mean number of polysemantic neurons at m = {m}
        published: {value: "{count}", sd: "{sd}", n: 16}

A name in braces stands for the row's value: on its own it keeps its type, within text it appears as written
in the row. A column that is not used in braces is a key of the row's claim, as `profiles` is here. With
several claims under `claims:` next to `for:`, each row makes all of them in turn. Write {{ and }} for literal
braces.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from common.specs.document import Document, Place, nearest

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def expand(document: Document, keys: Collection[str]) -> Document:
    """`document` with its claims written out one by one; `keys` are the keys that a claim may have.

    Each value keeps its line. A claim made by a row, and every value filled in from the row, has the row's
    line.

    Raises:
        InputError: for the first mistake in a grid.
    """
    entries = document.data.get("claims")
    try:
        return _Expansion(document, keys).document(entries) if isinstance(entries, dict) else document
    except RecursionError:
        raise document.error(("claims",), "nested too deeply") from None


class _Row(NamedTuple):
    """A row: its place, its values, and the names of all columns of its table."""

    place: Place
    values: dict[str, Any]
    columns: list[str]


class _Expansion:
    def __init__(self, old: Document, keys: Collection[str]) -> None:
        self.old = old
        self.keys = keys
        self.claims: dict[str, Any] = {}
        self.origins = {at: origin for at, origin in old.origins.items() if len(at) < 2 or at[0] != "claims"}
        # columns by line and name: a table repeated by an alias counts once, and each column must be used
        # somewhere
        self.used: set[tuple[str, str]] = set()
        self.unused: dict[tuple[str, str], Place] = {}

    def document(self, entries: dict[str, Any]) -> Document:
        for name, entry in entries.items():
            place = ("claims", name)
            if isinstance(entry, dict) and "for" in entry:
                self._grid(place, entry)
            elif names := _names(name):
                problem = f"{{{names[0]}}} needs `for`, a list of rows with a value for {names[0]!r}"
                raise self.old.error(place, problem)
            else:
                self._check_new(name, place)
                self.claims[name] = self._kept(entry, place, place)
        for column, at in self.unused.items():
            if column not in self.used:
                hint = nearest(column[1], [*self.keys])
                problem = f"unused column: neither used as {{{column[1]}}} nor a key of a claim; {hint}"
                raise self.old.error(at, problem)
        return Document({**self.old.data, "claims": self.claims}, self.origins, self.old.path)

    def _grid(self, place: Place, entry: dict[str, Any]) -> None:
        """Add the claims that the rows of `entry` make."""
        single = {key: value for key, value in entry.items() if key != "for"}
        at, templates = place[:-1], {str(place[-1]): single}
        if "claims" in entry:
            if foreign := [key for key in single if key != "claims"]:
                problem = "not allowed next to `claims`; put it into each of these claims"
                raise self.old.error((*place, foreign[0]), problem)
            at, templates = (*place, "claims"), entry["claims"]
            if not isinstance(templates, dict) or not templates:
                raise self.old.error(at, "expected a mapping of names to claims, with at least one")
        named = {name for template in templates.items() for name in _names([*template])}
        for row in self._rows((*place, "for"), entry["for"]):
            own = [name for name in row.values if name in self.keys and name not in named]
            for name in row.values:
                column = self.old.origins[*row.place, name], name
                if name in named or name in own:
                    self.used.add(column)
                else:
                    self.unused.setdefault(column, (*row.place, name))
            for name, template in templates.items():
                self._claim(row, (*at, name), template, own)

    def _rows(self, place: Place, rows: Any) -> list[_Row]:
        if not isinstance(rows, list) or not rows:
            raise self.old.error(place, "expected a list of at least one row, - {NAME: VALUE, ...}")
        for i, row in enumerate(rows):
            if not isinstance(row, dict) or not row:
                raise self.old.error((*place, i), "expected a row, {NAME: VALUE, ...}")
        columns = list(dict.fromkeys(name for row in rows for name in row))
        return [_Row((*place, i), row, columns) for i, row in enumerate(rows)]

    def _claim(self, row: _Row, at: Place, template: Any, own: list[str]) -> None:
        """Add the claim that `row` makes of the `template` at a place, with its `own` keys."""
        if not isinstance(template, dict):
            raise self.old.error(at, "expected a claim, {KEY: VALUE, ...}")
        if "for" in template:
            raise self.old.error(
                (*at, "for"), "a `for` inside another `for`; put its values into the rows of the outer one"
            )
        name = self._filled_text(str(at[-1]), at, row)
        self._check_new(name, row.place)
        to = ("claims", name)
        claim = {key: self._filled(value, (*at, key), (*to, key), row) for key, value in template.items()}
        for key in own:
            if key in claim:
                raise self.old.error((*row.place, key), "given in both the row and the claim; keep one")
            claim[key] = self._kept(row.values[key], (*row.place, key), (*to, key))
        self.claims[name] = claim
        self.origins[to] = self.old.origins[row.place]

    def _check_new(self, name: str, place: Place) -> None:
        if name in self.claims:
            line = _line(self.origins["claims", name])
            problem = f"line {line} already makes the claim {name!r}; each claim needs its own name"
            raise self.old.error(place, problem)

    def _kept(self, value: Any, at: Place, to: Place) -> Any:
        """The value at the place `at`, unchanged, with its lines for the place `to`."""
        self.origins[to] = self.old.origins[at]
        for key, inner in _items(value):
            self._kept(inner, (*at, key), (*to, key))
        return value

    def _filled(self, value: Any, at: Place, to: Place, row: _Row) -> Any:
        """The value at the place `at` with the values of `row` filled in; its lines for the place `to`."""
        if isinstance(value, str) and (whole := _BRACES.fullmatch(value)) and whole[1] is not None:
            name = self._known(whole[1], at, row)
            return self._kept(row.values[name], (*row.place, name), to)
        self.origins[to] = self.old.origins[row.place if _names(value) else at]
        filled = {key: self._filled(inner, (*at, key), (*to, key), row) for key, inner in _items(value)}
        if isinstance(value, str):
            return self._filled_text(value, at, row)
        return [*filled.values()] if isinstance(value, list) else filled if isinstance(value, dict) else value

    def _filled_text(self, text: str, at: Place, row: _Row) -> str:
        def written(found: re.Match[str]) -> str:
            if found[0] in ("{{", "}}"):
                return found[0][0]
            if found[1] is None:
                raise self.old.error(
                    at, f"a single {found[0]}; write {found[0] * 2} for a literal {found[0]}"
                )
            name = self._known(found[1], at, row)
            if isinstance(row.values[name], dict | list | None):
                problem = f"{{{name}}} is used within text, so its value must be text or a number"
                raise self.old.error((*row.place, name), problem)
            return self.old.written((*row.place, name))

        return _BRACES.sub(written, text)

    def _known(self, name: str, at: Place, row: _Row) -> str:
        """The name in braces at the place `at`, which `row` must have."""
        if name not in row.columns:
            problem = f"no column {name!r} in the rows of `for`; {nearest(name, row.columns)}"
            raise self.old.error(at, problem)
        if name not in row.values:
            problem = f"this row has no {name!r}, which line {_line(self.old.origins[at])} uses; add it"
            raise self.old.error(row.place, problem)
        return name


def _line(origin: str) -> str:
    return origin.rsplit(":", 1)[1]


def _names(value: Any) -> list[str]:
    """The names in braces in a value and its parts."""
    if isinstance(value, str):
        return [found[1] for found in _BRACES.finditer(value) if found[1] is not None]
    return [name for _, part in _items(value) for name in _names(part)]


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    """The parts of a mapping or a list, with their keys or numbers; another value has none."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()
