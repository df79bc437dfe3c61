"""Tests of runs/parts.py: parts are even, and what they store together is what one run stores."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.cli import main
from common.runs.parts import Part
from common.runs.store import Run
from common.specs.sweep import costs, shards
from tests.conftest import ROOT

CHANGES = [
    "--set", "trainer.max_steps=20", "--set", "trainer.compile=false", "--set", "shard_size=3",
    "--devices", "1",
]  # fmt: skip


def digests(out: Path) -> dict[str, str]:
    """Of the instances tables of all runs stored in `out`, by their folders."""
    manifests = out.glob("*/*/*/*/manifest.json")
    return {
        str(path.parent.relative_to(out)): json.loads(path.read_text())["instances_digest"]
        for path in manifests
    }


def items(runs: list[Run], part: Part) -> set[tuple[Path, str]]:
    return {(run.folder, shard.name) for run, shard in part.shards(runs)}


@pytest.mark.parametrize("of", [1, 2, 3, 7, 40])
def test_parts_are_disjoint_are_all_and_cost_nearly_the_same(small: Any, tmp_path: Path, of: int) -> None:
    shapes = "[{n_features: [2, 9], density: [1., .5], extra_importance: 1.}]"
    features = "{class_path: common.features.Independent, init_args: {batch_size: 64}}"
    runs = [Run(small(), tmp_path), Run(small("short"), tmp_path)]
    runs.append(Run(small(sweep=shapes, features=features, shard_size="2"), tmp_path))
    every = {
        (run.folder, shard.name): cost
        for run in runs
        for shard, cost in zip(shards(run.spec), costs(run.spec, shards(run.spec)), strict=True)
    }
    assert len(set(every.values())) >= 4
    parts = [items(runs, Part(number, of)) for number in range(1, of + 1)]
    assert sorted(item for part in parts for item in part) == sorted(every)
    loads = [sum(every[item] for item in part) for part in parts]
    assert max(loads) - min(loads) <= max(every.values())
    # whoever names the runs in another order has the same parts
    assert [items(runs[::-1], Part(number, of)) for number in range(1, of + 1)] == parts


def test_a_part_does_not_depend_on_what_is_stored(small: Any, tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    part = Part(1, 2)
    before = items([run], part)
    _, first = part.shards([run])[0]
    run.write_shard(first.rows)
    assert items([run], part) == before
    assert {(run.folder, shard.name) for shard in part.missing([run])[run]} == before - {
        (run.folder, first.name)
    }


def test_parts_trained_at_once_in_one_folder_or_in_several_make_the_same_tables(
    example: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path_factory.mktemp("out")
    assert main(["--root", str(example), "run", "--out", str(out / "whole"), *CHANGES]) == 0
    expected = digests(out / "whole")
    assert len(expected) == 2  # the run and its control

    command = [sys.executable, "-m", "common", "--root", str(example), "run", *CHANGES]
    places = [(1, "together"), (2, "together"), (1, "first"), (2, "second")]
    processes = [
        subprocess.Popen(
            [*command, "--part", f"{number}/2", "--out", str(out / place)],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
        )
        for number, place in places
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    total = len([*(out / "whole").rglob("shards/*.parquet")])
    own = len([*(out / "first").rglob("shards/*.parquet")])
    assert 0 < own < total
    assert f"part 1/2 is stored; {total - own} of {total} shards of the sweep are missing\n" in said[2]
    assert f"part 2/2 is stored; {own} of {total} shards of the sweep are missing\n" in said[3]

    shutil.copytree(out / "second", out / "first", dirs_exist_ok=True)
    capsys.readouterr()
    for place in ("together", "first"):
        assert digests(out / place) == {}  # a part judges and joins nothing
        assert not (out / place / "report").exists()
        assert main(["--root", str(example), "run", "--out", str(out / place), *CHANGES]) == 0
        assert "Nothing to train" in capsys.readouterr().out
        assert digests(out / place) == expected


def test_a_run_trains_what_parts_left(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--root", str(example), "run", *CHANGES]
    assert main([*run, "--part", "2/2"]) == 0
    assert main([*run, "--part", "2/2"]) == 0
    assert "Nothing to train" in capsys.readouterr().out
    assert main(run) == 0
    assert "Trained in" in capsys.readouterr().out
    assert main([*run, "--part", "1/2"]) == 0
    assert "0 of" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/2/3", "-1/2", "1.0/2", ""])
def test_what_is_no_part_is_said_in_one_line(
    example: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(example), "run", f"--part={text}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"replicate: --part {text}: expected I/N with I from 1 to N, as in --part 2/8"
