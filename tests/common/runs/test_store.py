"""Tests of runs/store.py: what the hash is of, atomic writing, and why a run would train."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from common.errors import InputError
from common.runs import store
from common.runs.store import Run
from common.system import files


def test_the_hash_is_of_what_decides_the_numbers(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = Run(small(), tmp_path).hash
    assert Run(small(title="another"), tmp_path).hash == same
    assert Run(small(controls="{}"), tmp_path).hash == same
    assert Run(small(seeds="4"), tmp_path).hash == same
    logger = "{class_path: lightning.pytorch.loggers.CSVLogger}"
    assert Run(small(trainer__logger=logger, trainer__log_every_steps="7"), tmp_path).hash == same
    assert Run(small(), tmp_path, keep_weights="all").hash == same
    for key, value in {
        "version": "2",
        "trainer__max_steps": "101",
        "optimizer__init_args__lr": ".02",
        "optimizer__init_args__weight_decay": ".02",  # a default
        "features__init_args__batch_size": "65",
        "shard_size": "5",
        "sweep__0__density": "[1., .5]",
    }.items():
        assert Run(small(**{key: value}), tmp_path).hash != same, key
    monkeypatch.setattr(store, "NUMERICS", -1)
    assert Run(small(), tmp_path).hash != same
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert Run(small(), tmp_path).hash != same


def test_a_build_of_torch_is_not_a_version(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    cpu = Run(small(), tmp_path).hash
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    assert Run(small(), tmp_path).hash == cpu


def _store(run: Run) -> pd.DataFrame:
    for shard in run.shards:
        run.write_shard(shard.rows.assign(loss=1.0))
    return run.finish("CPU", 12.34)


def test_why_a_run_would_train(small: Any, tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    assert run.why_incomplete() == "never run"
    run.write_shard(run.shards[0].rows)
    assert run.why_incomplete() == "2 of 3 shards missing: 0-1, 0-2"
    _store(run)
    assert run.why_incomplete() is None
    changed = Run(small(trainer__max_steps="7", sweep__0__density="[1., .25, .1]"), tmp_path)
    assert changed.why_incomplete() == (
        "changed since the last run: sweep.0.density.1 0.5 -> 0.25; trainer.max_steps 100 -> 7"
    )


def test_a_finished_run_has_its_table_in_order_and_a_manifest(small: Any, tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    table = _store(run)
    assert list(table.index) == list(range(18))
    stored = run.table()
    assert stored is not None
    pd.testing.assert_frame_equal(stored, table)
    manifest = json.loads((run.folder / "manifest.json").read_text(encoding="utf-8"))
    assert {key: manifest[key] for key in ("hash", "instances", "shards", "device", "wall_s")} == {
        "hash": run.hash, "instances": 18, "shards": 3, "device": "CPU", "wall_s": 12.3,
    }  # fmt: skip
    assert manifest["versions"]["torch"] == torch.__version__


def test_a_run_whose_shards_are_not_all_there_is_not_joined(small: Any, tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    for shard in run.shards[:-1]:
        run.write_shard(shard.rows)
    with pytest.raises(InputError, match="shard 0-2 was removed or changed"):
        run.finish("CPU", 0)
    assert run.manifest() is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")

    def breaks(self: Path, data: bytes) -> None:
        self.write_text("half", encoding="utf-8")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", breaks)
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be written: disk full"):
        files.write(path, b"new", within=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text(encoding="utf-8") == "old"


def test_a_table_whose_content_has_changed_is_none(small: Any, tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    _store(run)
    path = run.folder / "instances.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert run.table() is None
    assert run.why_incomplete() == (
        "manifest.json: the table is damaged, or belongs to another run than its manifest"
    )
