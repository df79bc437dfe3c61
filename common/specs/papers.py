"""The papers behind the replications, read from their `citation.bib`."""

import re
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError, one_line
from common.specs.document import Strict

# Each of these is possessive and never backtracks, so the time is proportional to the text.
_ENTRY = re.compile(r"@\s*+(\w++)\s*+([{(])\s*+")
_KEY = re.compile(r"([^\s,{}]++)\s*+(?=[,})])")
_NAME = re.compile(r'([^\s,={}()"#]++)\s*+=\s*+')
_BARE = re.compile(r'([^\s,{}()"#]++)\s*+')
_GAP, _SPACE, _JOIN = re.compile(r"[\s,]*+"), re.compile(r"\s*+"), re.compile(r"\s*+#\s*+")
_ENDS = re.compile(r'[{}")]')
_NO_PAPERS = {"comment", "preamble", "string"}


class Paper(Strict):
    """A paper in a `citation.bib`."""

    title: str
    author: str = ""
    year: str = ""
    url: str | None = None


class Citations(NamedTuple):
    """A `citation.bib`: its text, and its papers by their BibTeX key."""

    text: str
    papers: dict[str, Paper]


def load_papers(root: Path) -> dict[str, Paper]:
    """The papers of the suite at `root`, by their BibTeX key.

    Raises:
        InputError: as `load_citations` does.
    """
    paths = sorted((root / "replications").glob("*/citation.bib"))
    return {key: paper for path in paths for key, paper in load_citations(path).papers.items()}


def load_citations(path: Path) -> Citations:
    """Read the BibTeX file `path`.

    Raises:
        InputError: if it cannot be read, is not UTF-8, is not BibTeX or has no entry for a paper.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from None
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise InputError(f"{path}:{line}: the byte {byte:#04x} is not UTF-8; save it as UTF-8") from None
    papers = _Scanner(text, path).papers()
    if not papers:
        raise InputError(f"{path}:1: no BibTeX entry; expected one such as @misc{{key, title = {{...}}}}")
    return Citations(text.strip(), papers)


class _Scanner:
    """Reads BibTeX from beginning to end, each character once."""

    def __init__(self, text: str, path: Path) -> None:
        self.text, self.path = text, path
        self.at = 0

    def papers(self) -> dict[str, Paper]:
        """All entries except those for BibTeX itself."""
        papers = {}
        while entry := _ENTRY.search(self.text, self.at):  # text between entries is a comment
            start, self.at = entry.start(), entry.end()
            kind, closing = entry[1].lower(), {"{": "}", "(": ")"}[entry[2]]
            if kind in _NO_PAPERS:
                self._skip(closing, start)
            else:
                key = self._take(_KEY, f"expected the key of @{entry[1]}, followed by a comma")
                fields = self._fields(closing, start)
                known = {name: _plain(fields[name]) for name in Paper.model_fields if name in fields}
                papers[key] = Paper(**{"title": key, **known})
        return papers

    def _fields(self, closing: str, start: int) -> dict[str, str]:
        fields: dict[str, str] = {}
        while True:
            self._pass(_GAP)
            if self.at == len(self.text):
                raise self._error(start, f"this entry is not closed: a {closing} is missing")
            if self.text[self.at] == closing:
                self.at += 1
                return fields
            name = self._take(_NAME, f"expected FIELD = {{value}}, or {closing} at the end of the entry")
            fields[name.lower()] = self._value()

    def _value(self) -> str:
        parts = []
        while True:
            first = self.text[self.at : self.at + 1]
            if first in ("{", '"'):
                start, self.at = self.at, self.at + 1
                self._skip("}" if first == "{" else '"', start)
                parts.append(self.text[start + 1 : self.at - 1])
            else:
                # the value of a @string is not filled in: such names can multiply without end
                parts.append(self._take(_BARE, "expected a value: {text} or a number"))
            if _JOIN.match(self.text, self.at) is None:
                return "".join(parts)
            self._pass(_JOIN)

    def _skip(self, closing: str, start: int) -> None:
        """Skip to after the `closing` of what began at `start`; within braces it closes nothing."""
        depth = 0
        for end in _ENDS.finditer(self.text, self.at):
            character = end[0]
            if character == closing and depth == 0:
                self.at = end.end()
                return
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth < 0:
                break
        raise self._error(start, f"what opens here is not closed: a {closing} is missing")

    def _take(self, pattern: re.Pattern[str], expected: str) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise self._error(self.at, expected)
        self.at = match.end()
        return match[1]

    def _pass(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _error(self, at: int, message: str) -> InputError:
        line = self.text.count("\n", 0, at) + 1
        return InputError(f"{self.path}:{line}: not BibTeX: {message}")


def _plain(value: str) -> str:
    text = value.replace("``", "“").replace("''", "”")
    return " ".join(re.sub(r"[{}]", "", text).split())
