"""The files of a new replication, from the templates in `template/`: `make(root, name)`."""

import json
import keyword
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.errors import InputError
from common.specs.document import parse_value
from common.specs.papers import load_citations
from common.system.files import SUITE

_TEMPLATES = SUITE / "common" / "template"


def make(root: Path, name: str) -> list[Path]:
    """Create the replication `name` (`paper/result`) below `root`; returns the files created.

    Files shared with the paper's other results are created only where they are missing.

    Raises:
        InputError: if the name is invalid, or one of the result's own files exists; nothing is then created.
    """
    paper, result = _checked(name)
    folder, expected = root / "replications" / paper, root / "expected" / paper
    has_model = (folder / "model.py").exists()
    model = f"{result}_model" if has_model else "model"
    own = {
        folder / f"{result}.yaml": "result.yaml",
        folder / f"{result}.py": "result.py",
        expected / f"{result}.yaml": "expected.yaml",
        root / "tests" / "replications" / paper / f"test_{result}.py": "test_result.py",
    }
    if has_model:
        own[folder / f"{model}.py"] = "model.py"
    for path in (*own, expected / f"{result}.record.yaml", expected / f"{result}.samples.parquet"):
        if path.exists():
            raise InputError(f"{name}: {path} already exists; choose another name, or remove it")
    shared = {
        folder / "README.md": "README.md",
        folder / "citation.bib": "citation.bib",
        folder / "model.py": "model.py",
        root / ".gitignore": "gitignore",
    }
    names = {
        "paper": paper,
        "result": result,
        "model": model,
        "package": _package(folder),
        "key": _key(folder / "citation.bib") or paper,
    }
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    made = {path: template for path, template in {**shared, **own}.items() if not path.exists()}
    for path, template in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(templates.get_template(f"{template}.jinja").render(names), encoding="utf-8")
    return list(made)


def _checked(name: str) -> list[str]:
    """The paper and the result in `name`, which must be valid names of Python modules."""
    parts = name.split("/")
    if len(parts) != 2:
        raise InputError(f"{name}: expected PAPER/RESULT, as in toy_models/phase_diagram")
    for part in parts:
        if not re.fullmatch("[a-z][a-z0-9_]*", part) or keyword.iskeyword(part):
            raise InputError(
                f"{name}: {part!r} is not a valid name for a Python module here; "
                "expected lower-case letters, digits and _, starting with a letter, and not a keyword"
            )
    if parts[1] == "model":
        raise InputError(
            f"{name}: model.py is reserved for the paper's model; choose another name for the result"
        )
    return parts


def _key(path: Path) -> str | None:
    """The key of the first paper in `path`, written as YAML; None if there is no such file."""
    if not path.exists():
        return None
    key = next(iter(load_citations(path).papers))
    plain = re.fullmatch(r"[A-Za-z][\w:-]*\w", key, re.ASCII) and parse_value(key) == key
    return key if plain else json.dumps(key, ensure_ascii=False)


def _package(folder: Path) -> str:
    """The dotted name of the package of a paper's folder, whose root may itself be in a package."""
    root = folder.resolve().parents[1]
    parts = ["replications", folder.name]
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts)
