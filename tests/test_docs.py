"""Tests of the documentation: links lead somewhere, schemas fit what is in the repository, and it builds."""

import copy
import functools
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from jsonschema import Draft7Validator
from markdown_it import MarkdownIt

from common.specs.document import Document
from docs import keys
from tests.conftest import ROOT

SPECS = sorted(ROOT.glob("replications/*/*.yaml"))
CLAIMS = sorted(path for path in ROOT.glob("expected/*/*.yaml") if not path.name.endswith(".record.yaml"))
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("replications/*/*.md"), *ROOT.glob("docs/**/*.md")})


@functools.cache
def validator(name: str) -> Draft7Validator:
    schema = {"spec": keys.spec_schema, "expected": keys.claims_schema}[name]()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def mistakes(name: str, data: object) -> list[str]:
    return [error.message for error in validator(name).iter_errors(data)]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_spec_is_one_by_its_schema(path: Path) -> None:
    assert mistakes("spec", Document.load(path).data) == []


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_claims_is_one_by_its_schema(path: Path) -> None:
    assert mistakes("expected", Document.load(path).data) == []


def changed(data: Any, dotted: str, value: object) -> Any:
    """A copy of `data` with one key set, and without the key that it misspells."""
    whole = target = copy.deepcopy(data)
    *parents, last = dotted.split("/")
    for part in parents:
        target = target[int(part) if isinstance(target, list) else part]
    target[int(last) if isinstance(target, list) else last] = value
    return whole


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("spec", "titel", "a title"),
        ("spec", "version", "1"),
        ("spec", "seeds", 0),
        ("spec", "model/init_arg", {}),
        ("spec", "trainer/max_step", 5),
        ("spec", "trainer/max_steps", 0),
        ("spec", "sweep/0/optimizer", {"class": "torch.optim.SGD"}),
        ("spec", "sweep/0/density", {"form": 0.1, "to": 1.0, "count": 3}),
        ("spec", "sweep/0/density", []),
        ("spec", "profiles/quick/trainr.max_steps", 5),
        ("spec", "controls/dense/reject", ["pairs_best"]),
        ("spec", "controls/dense/set/feature.init_args", {}),
        ("expected", "claim", {}),
        ("expected", "claims/angles_s0.8/statment", "a statement"),
        ("expected", "claims/angles_s0.8/kind", "share"),
        ("expected", "claims/angles_s0.8/kind", "published"),
        ("expected", "claims/angles_s0.8/theory", {"value": 1.0}),
        ("expected", "claims/angles_s0.8/source/read_by", "eye"),
        ("expected", "claims/angles_s0.8/estimate/arg", {}),
        ("expected", "claims/angles_s0.8/bound/atleast", 0.5),
        ("expected", "claims/{name}_advantage/for", []),
        ("expected", "claims/{name}_advantage/for/0", "pairs"),
        ("expected", "claims/{name}_advantage/statment", "a statement"),
        ("expected", "claims/{name}_advantage/bound/at_least", "{least} or so"),
        ("expected", "claims/shows/kind", "fraction"),
        ("expected", "claims/shows/claims", {}),
        ("expected", "claims/shows/claims/{name}_best/for", [{"name": "pairs"}]),
        ("expected", "claims/shows/claims/{name}_best/source/read_by", "eye"),
    ],
)
def test_a_misspelt_key_or_a_wrong_value_does_not_fit_the_schema(name: str, key: str, value: object) -> None:
    folder = {"spec": "replications", "expected": "expected"}[name]
    data = Document.load(ROOT / folder / "toy_models_of_superposition/five_features.yaml").data
    assert mistakes(name, data) == []
    assert mistakes(name, changed(data, key, value))


def test_schemas_and_reference_are_those_of_the_models() -> None:
    for path, text in keys.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: `make keys` writes it anew"


def test_every_key_is_described() -> None:
    for schema in (keys.spec_schema(), keys.claims_schema()):
        for model in [schema, *schema["$defs"].values()]:
            assert model["description"]
            assert all(value.get("description") for value in model["properties"].values())


def links(page: Path) -> Iterator[str]:
    """Where the links and pictures of a page lead."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        for part in token.children or []:
            if part.type in ("link_open", "image"):
                yield str(part.attrs["href" if part.type == "link_open" else "src"])


@functools.cache
def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_paper_has_a_page() -> None:
    papers = {path.parent.name for path in ROOT.glob("replications/*/README.md")}
    assert {path.stem for path in ROOT.glob("docs/papers/*.md")} == papers


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_version_is_said_alike() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert released[0] == project["version"]


@pytest.mark.skipif(not importlib.util.find_spec("myst_nb"), reason="the extra `docs` is not installed")
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    """Its references hold, its pages are all in a table of contents, and its notebook runs."""
    options = ["--nitpicky", "--fail-on-warning", "--keep-going", "--quiet"]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    notebook = (tmp_path / "notebook.html").read_text(encoding="utf-8")
    assert re.search(r"<td>(not )?reproduced</td>|<td>inconclusive</td>", notebook)
    assert notebook.count("<img ") >= 1
