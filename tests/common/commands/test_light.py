"""Tests of how much a command imports and reads: nothing large for what needs nothing, each spec once."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.cli import main
from common.commands import bench
from common.notebook import result
from common.specs import spec
from common.specs.document import Document
from common.verdicts import judge
from tests.conftest import ROOT, commit_all

LARGE = {
    *("torch", "lightning", "torchmetrics", "scipy", "pandas", "pyarrow", "matplotlib", "seaborn"),
    *("jaxtyping", "ray", "IPython"),
}

CALL = """
import sys
from multiprocessing import forkserver
from common.__main__ import main
sys.argv[0] = "replicate"
code = main()
print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
print("workers:", forkserver._forkserver._forkserver_pid)
sys.exit(code)
"""

TOY = "toy_models_of_superposition/five_features"
MISTAKES: dict[str, list[str]] = {
    "invalid choice: 'lisst'": ["lisst"],
    "unrecognized arguments: --profiel": ["check", "--profiel", "quick"],
    "nobody/nothing: no such replication": ["run", "nobody/nothing"],
    "no profile 'quik'; did you mean 'quick'?": ["check", TOY, "--profile", "quik"],
    "expected KEY=VALUE": ["run", "--set", "seeds"],
    "trainer.max_step: unknown key": ["status", TOY, "--set", "trainer.max_step=1"],
    "trainer.max_steps: input should be greater than 0": ["run", TOY, "--set", "trainer.max_steps=0"],
    "asks for 10,000,000 networks; expected at most 1,000,000": ["run", TOY, "--seeds", "2000000"],
    "expected at least one seed, and no seed twice": ["run", TOY, "--seeds", "1,1"],
    "--devices 0: expected at least 1": ["bench", TOY, "--devices", "0"],
    "no such file": ["report", "replications/nobody/nothing.yaml"],
    "a: cannot be read: ": ["compare", "a", "b"],
    "expected PAPER/RESULT": ["new", "nothing"],
    "no folder replications/ in it": ["--root", "common", "list"],
}


def call(*arguments: str, cwd: Path = ROOT) -> tuple[int, str, set[str]]:
    """The exit code of a command, what it said, and what it had imported."""
    done = subprocess.run(
        [sys.executable, "-c", CALL, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    *said, imported, workers = done.stdout.splitlines()
    assert workers == "workers: None"
    return done.returncode, "\n".join(said) + done.stderr, set(imported.split()[1:])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "usage: replicate"),
        (["run", "--help"], "usage: replicate run"),
        (["--version"], "superposition-replications"),
        (["list"], "toy_models_of_superposition/phase_diagram: "),
        (["cite", TOY], "@article{elhage2022"),
        (["report", "--schema"], '"title": "Report"'),
    ],
)
def test_what_needs_nothing_large_imports_nothing_large(arguments: list[str], said: str) -> None:
    code, output, imported = call(*arguments)
    assert code == 0
    assert said in output
    assert not imported & LARGE


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told_before_anything_large_is_imported(message: str) -> None:
    code, output, imported = call(*MISTAKES[message])
    assert code == 2
    assert message in output.splitlines()[-1]
    assert not imported & LARGE


def test_files_that_are_wrong_are_told_before_anything_large_is_imported(example: Path) -> None:
    for name, before, after, message in (
        ("replications", "title:", "titel:", "projection.yaml:3: titel: unknown key; did you mean 'title'?"),
        ("replications", "title:", "title: [", "projection.yaml:"),
        ("replications", "rejects: [squared", "rejects: [sqared", "no claim 'sqared_norm' in profile full"),
        ("expected", "claims:", "claim:", "projection.yaml:6: claim: unknown key; did you mean 'claims'?"),
    ):
        path = example / name / "example/projection.yaml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(before, after, 1), encoding="utf-8")
        code, output, imported = call("--root", str(example), "check")
        assert (code, imported & LARGE) == (2, set())
        assert message in output
        path.write_text(text, encoding="utf-8")


SPEC, CLAIMS = "replications/example/projection.yaml", "expected/example/projection.yaml"


@pytest.fixture
def three(example: Path) -> Path:
    """A root with three replications that train in no time, each with one control, all committed."""
    spec, claims = ((example / name).read_text(encoding="utf-8") for name in (SPEC, CLAIMS))
    short = spec.replace("max_steps: 800", "max_steps: 2")
    for name in ("projection", "second", "third"):
        (example / SPEC).with_stem(name).write_text(short, encoding="utf-8")
        (example / CLAIMS).with_stem(name).write_text(claims, encoding="utf-8")
    commit_all(example)
    return example


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many specs are resolved, under no name, and how often each file of specs and claims is read."""
    counts: Counter[str] = Counter()
    load = Document.load.__func__  # type: ignore[attr-defined]
    resolve = spec.resolve

    def count_resolve(draft: Any) -> Any:
        counts[""] += 1
        return resolve(draft)

    def count_load(cls: type[Document], path: Path) -> Document:
        if not path.name.endswith(".record.yaml"):
            counts[str(path)] += 1
        document: Document = load(cls, path)
        return document

    for module in (spec, judge, bench):
        monkeypatch.setattr(module, "resolve", count_resolve)
    monkeypatch.setattr(Document, "load", classmethod(count_load))
    return counts


FIRST, SECOND = "example/projection", "example/second"


def test_each_spec_is_resolved_once_by_those_that_are_asked_for(
    three: Path, counted: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, n_asked in (
        (["status"], 3),
        (["status", FIRST], 1),
        (["run", FIRST, "--devices", "1"], 1),
        (["run", FIRST, SECOND, "--devices", "1"], 2),
        (["run", FIRST, "--set", "seeds=3", "--devices", "1"], 1),
        (["check", SECOND], 1),
        (["report"], 3),
        (["report", FIRST], 1),
        (["record", FIRST], 1),
        (["list"], 0),
        (["cite"], 0),
    ):
        counted.clear()
        assert main(["--root", str(three), *arguments]) != 2, capsys.readouterr().err
        assert counted.pop("", 0) == n_asked * 2, arguments  # the run, and its control
        assert set(counted.values()) <= {1}, (arguments, counted)
    counted.clear()
    assert len(result(FIRST, root=three).claims) == 1
    assert counted[""] == 2
