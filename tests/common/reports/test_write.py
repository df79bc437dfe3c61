"""Tests of reports/write.py: what a report takes over of an earlier one, without the specs, and what not."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.cli import main
from common.reports import schema
from common.runs import store

SPEC, CLAIMS = "replications/example/projection.yaml", "expected/example/projection.yaml"
FIRST, SECOND = "example/projection", "example/second"
NOT_JUDGED = "its results have not been judged by this version of the code"


@pytest.fixture
def two(example: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A root with two replications that train in no time; the second has a class and estimates of others."""
    spec, claims = ((example / name).read_text(encoding="utf-8") for name in (SPEC, CLAIMS))
    short = spec.replace("max_steps: 800", "max_steps: 2")
    (example / SPEC).write_text(short, encoding="utf-8")
    (example / CLAIMS).with_stem("second").write_text(claims, encoding="utf-8")
    model = example / "replications/example/model.py"
    other = example / "replications/other_paper"
    other.mkdir()
    (other / "model.py").write_text(model.read_text(encoding="utf-8"), encoding="utf-8")
    text = short.replace("replications.example.model.", "replications.other_paper.model.")
    assert text != short
    estimates = example / "replications/third_paper/estimates.py"
    estimates.parent.mkdir()
    shutil.copy(example / "replications/example/projection.py", estimates)
    short, text = text, text.replace("replications.example.projection", "replications.third_paper.estimates")
    assert text != short
    (example / SPEC).with_stem("second").write_text(text, encoding="utf-8")
    for name in (SECOND, FIRST):
        assert replicate(example, "run", name, "--devices", "1") == 1
    capsys.readouterr()
    return example


def replicate(root: Path, *arguments: str) -> int:
    return main(["--root", str(root), *arguments])


def edit(path: str, before: str, after: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = (root / path).read_text(encoding="utf-8")
        changed = re.sub(before, after, text, count=1)
        assert changed != text
        (root / path).write_text(changed, encoding="utf-8")

    return change


def remove(pattern: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = list((root / "results/example/second").glob(pattern))
        assert paths
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def other_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of the same run with another table, written as a run writes them."""
    (path,) = (root / "results/example/second/full").glob("*/manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["instances_digest"] = "0" * 16
    manifest["digest"] = store._manifest_digest(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def other_torch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "0.0")


def other_claim(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more claim in the suite: each has a smaller share of the budget."""
    text = (root / CLAIMS).read_text(encoding="utf-8")
    again = text.split("claims:\n")[1].replace("squared_norm:", "again:")
    (root / CLAIMS).write_text(text + again, encoding="utf-8")


SECOND_SPEC, SECOND_CLAIMS = f"replications/{SECOND}.yaml", f"expected/{SECOND}.yaml"
CHANGES: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], str]] = {
    "spec": (edit(SECOND_SPEC, "seeds: 5", "seeds: 4"), NOT_JUDGED),
    "claims": (edit(SECOND_CLAIMS, "sum to 1", "sum to one"), NOT_JUDGED),
    "code": (edit("replications/example/projection.py", "$", "\n"), NOT_JUDGED),
    "code elsewhere": (edit("replications/other_paper/model.py", "$", "\n"), NOT_JUDGED),
    "estimates elsewhere": (edit("replications/third_paper/estimates.py", "$", "\n"), NOT_JUDGED),
    "results": (other_results, NOT_JUDGED),
    "torch": (other_torch, NOT_JUDGED),
    "claims of the suite": (other_claim, NOT_JUDGED),
    "manifest": (remove("full/*/manifest.json"), "full: not finished"),
    "manifest of a control": (remove("full-decayed/*/manifest.json"), "full-decayed: not finished"),
    "control": (remove("full-decayed"), "full-decayed: never run"),
    "all": (remove("*"), "full: never run"),
    "a mistake": (edit(SECOND_SPEC, "title:", "titel:"), "second.yaml:3: titel: unknown key"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_not_as_it_was_is_not_taken_over(
    two: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    change, why = CHANGES[what]
    assert [one.name for one in schema.load(two / "results/report").replications] == [FIRST, SECOND]
    change(two, monkeypatch)
    replicate(two, "run", FIRST, "--devices", "1")
    found = schema.load(two / "results/report")
    assert [one.name for one in found.replications] == [FIRST]
    (left_out,) = found.not_run
    assert left_out.name == SECOND
    assert why in left_out.why
