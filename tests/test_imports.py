"""Who imports whom: no circles in `common/`, papers are islands, replications stay above the machinery."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """What a file imports from this project, wherever it does: the module, and the name taken from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


COMMON = {module(path): path for path in (ROOT / "common").rglob("*.py")}
OF_PAPERS = sorted((ROOT / "replications").glob("*/*.py"))


def test_no_module_of_common_imports_itself_by_way_of_others() -> None:
    graph = {
        name: {one for of, what in imports(path) for one in (f"{of}.{what}", of) if one in COMMON}
        for name, path in COMMON.items()
    }
    assert sum(map(len, graph.values())) > 100
    graphlib.TopologicalSorter(graph).prepare()  # which raises if there is a circle


def test_common_knows_no_replication() -> None:
    for path in COMMON.values():
        assert not [of for of, _ in imports(path) if of.split(".")[0] == "replications"], path


@pytest.mark.parametrize("path", OF_PAPERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_replications_import_what_lies_directly_in_common_and_their_own_paper(path: Path) -> None:
    for of, what in imports(path):
        if of.split(".")[0] == "common":
            # the one type of the machinery that a function of a replication is given
            name = f"{of}.{what}" if f"{of}.{what}" in COMMON else of
            is_direct = COMMON[name].parent == ROOT / "common" and name != "common"
            assert is_direct or (of, what) == ("common.verdicts.claims", "Claims")
        if of.split(".")[0] == "replications":
            assert of.split(".")[1] == path.parent.name
