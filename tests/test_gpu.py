"""Tests of gpu.py: what counts as a difference, and that each step has its time and is taken."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import gpu
from tests.gpu import Check, differences, summary


def claim(verdict: str, low: float | None, high: float | None) -> dict[str, Any]:
    return {"name": "one", "verdict": verdict, "value": 1.0, "low": low, "high": high}


def report(*claims: dict[str, Any], control: str = "not reproduced") -> dict[str, Any]:
    of_control = {"name": "broken", "claims": [{"name": "one", "verdict": control}]}
    return {"replications": [{"name": "paper/result", "claims": list(claims), "controls": [of_control]}]}


SURE, UNSURE, FAR = claim("reproduced", 0, 2), claim("inconclusive", 1, 4), claim("inconclusive", 3, 4)
LOST = claim("not reproduced", 0, 2)


@pytest.mark.parametrize(
    ("cpu", "gpu_", "by_chance"),
    [
        (report(SURE), report(claim("reproduced", 1, 3)), []),
        (report(SURE), report(UNSURE), [True]),
        (report(SURE), report(FAR), [False]),
        (report(UNSURE), report(LOST), [True]),
        (report(SURE), report(LOST), [False]),
        (report(SURE), report(claim("inconclusive", None, None)), [True]),
        (report(SURE), report(), [False]),
        (report(), report(SURE), [False]),
        (report(SURE), report(SURE, control="inconclusive"), [True]),
        (report(SURE), report(SURE, control="reproduced"), [False]),
    ],
)
def test_a_verdict_may_differ_only_within_chance(
    cpu: dict[str, Any], gpu_: dict[str, Any], by_chance: list[bool]
) -> None:
    assert [chance for _, chance in differences(cpu, gpu_)] == by_chance


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gpu: torch ")
    assert said.endswith(" sees no CUDA GPU on this machine\n")
    assert not (tmp_path / "out").exists()


def test_a_report_that_is_not_there_is_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main([str(tmp_path / "out"), "--accelerator", "cpu", "--cpu", str(tmp_path)]) == 2
    assert "there is no report.json in this folder" in capsys.readouterr().err


def test_all_steps_end_within_eight_minutes() -> None:
    ending = 10  # to stop a step, at most
    assert sum(gpu.BUDGETS.values()) + ending <= 8 * 60


def test_a_step_is_stopped_when_its_time_is_up(tmp_path: Path) -> None:
    check, began = Check(tmp_path, "cpu", [], cpu=tmp_path), time.monotonic()
    assert check.finish("slow", ["timeit", "-n", "1", "-r", "1", "__import__('time').sleep(600)"], 0) is None
    assert time.monotonic() - began < 60
    assert check.finish("fails", ["timeit", "no code"], began + 60) == 1


def test_every_step_is_taken_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(self: Check, until: float) -> tuple[str | None, str]:
        raise ValueError("broken")

    monkeypatch.setattr(Check, "tests", raises)
    monkeypatch.setattr(Check, "finish", lambda self, name, module, until: 0)
    for where in ("cpu", "gpu/report"):
        (tmp_path / where).mkdir(parents=True)
        (tmp_path / where / "report.json").write_text(json.dumps(report(SURE)), encoding="utf-8")
    done = Check(tmp_path, "cpu", [], cpu=tmp_path / "cpu").run()
    assert {one.name: one.problem for one in done} == {
        "tests": "ValueError: broken", "quick": None, "compare": None, "rates": None,
    }  # fmt: skip
    text = summary(done, {"torch": "2.13.0"})
    assert "1 of 4 steps failed." in text
    assert "of 2 claims, 2 have the same verdict" in text
    assert "- torch: 2.13.0" in text
