"""The papers behind the replications, as their `citation.bib` have them."""

import re
from pathlib import Path

from common.answer import Paper

_ENTRY = re.compile(r"@\w+\s*\{\s*([^,\s]+)\s*,(.*?)(?=^@|\Z)", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"(\w+)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\}")


def load_papers(root: Path) -> dict[str, Paper]:
    """The papers of the suite at `root`, by their BibTeX key."""
    papers = {}
    for path in sorted((root / "replications").glob("*/citation.bib")):
        for key, body in _ENTRY.findall(path.read_text(encoding="utf-8")):
            fields = {name.lower(): _plain(value) for name, value in _FIELD.findall(body)}
            known = {name: fields[name] for name in Paper.model_fields if name in fields}
            papers[key] = Paper(**{"title": key, **known})
    return papers


def _plain(value: str) -> str:
    text = value.replace("``", "“").replace("''", "”")
    return " ".join(re.sub(r"[{}]", "", text).split())
