"""Tests of runs/progress.py: what is told of a run while it goes on."""

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from common.runs import progress
from common.runs.store import Run
from common.runs.training import work
from common.specs.spec import Spec
from common.specs.sweep import shards
from common.system.terminal import Terminal

SHAPES = "[{n_features: 2, n_hidden: [1, 2], density: .5, extra_importance: 1.}]"


@pytest.fixture
def run(small: Any, tmp_path: Path) -> Run:
    """A run of two shapes, three networks of each in two shards, that watches its loss."""
    changes = {"watch": "loss", "sweep": SHAPES, "shard_size": "2"}
    spec: Spec = small(
        **changes,
        features="{class_path: common.features.Independent, init_args: {batch_size: 64}}",
        model="{class_path: replications.toy_models_of_superposition.model.ToyModel}",
    )
    return Run(spec, tmp_path)


def told(run: Run, monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    """What the console shows of `run` when its shards end in turn, their losses being their numbers."""
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))  # type: ignore[attr-defined]
    text = io.StringIO()
    console = Terminal(file=text, force_terminal=terminal, width=200)
    with progress.shown(console, {run: work(run)}) as shown:
        for shard in shards(run.spec):
            shown.advanced(run, shard, 100 * len(shard.rows))
            table: pd.DataFrame = shard.rows.assign(loss=float(shard.name))
            shown.finished(run, shard, table)
    return text.getvalue()


def test_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(run, monkeypatch, terminal=False).splitlines()
    title = "nobody/small full"
    assert [re.sub("n_features = 2, n_hidden", "m", line) for line in lines] == [
        f"{title}, m = 1: loss: 2 of 3 networks, mean 0",
        f"{title}: 50%, 5.0 minutes left",
        f"{title}, m = 1: loss: 3 of 3 networks, mean 0.333",
        f"{title}: 83%, 1.1 minutes left",
        f"{title}, m = 2: loss: 2 of 3 networks, mean 2",
        f"{title}: 100%, 0.0 minutes left",
        f"{title}, m = 2: loss: 3 of 3 networks, mean 2.33",
    ]


def test_bars(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    last = told(run, monkeypatch, terminal=True)
    assert "nobody/small full" in last
    assert "100%" in last
    assert "n_hidden = 2: loss: 3 of 3 networks, mean 2.33" in last
