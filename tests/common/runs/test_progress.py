"""Tests of runs/progress.py: what is told of all that is trained while it goes on."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from common.commands import run as command
from common.runs import progress
from common.runs.progress import WIDTH, doing
from common.runs.shard import Stage
from common.runs.store import Run
from common.runs.training import Devices, Progress, train
from common.specs.spec import Spec, load_spec
from common.specs.sweep import Shard
from common.system.terminal import Terminal
from tests.conftest import SMALL

SHAPES = "[{n_features: 2, n_hidden: [1, 2], density: .5, extra_importance: 1.}]"
WATCHING = {
    "watch": "loss",
    "sweep": SHAPES,
    "shard_size": "2",
    "features": "{class_path: common.features.Independent, init_args: {batch_size: 64}}",
    "model": "{class_path: replications.toy_models_of_superposition.model.ToyModel}",
}


@pytest.fixture
def run(small: Any, tmp_path: Path) -> Run:
    """A run of two shapes, three networks of each in two shards, that watches its loss."""
    spec: Spec = small(**WATCHING)
    return Run(spec, tmp_path)


class Clock:
    """Stands for the time, which passes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


Script = Callable[[Progress, list[tuple[Run, Shard]]], None]


def piped(script: Script, runs: list[Run], title: str = "", devices: int = 1) -> list[str]:
    """The lines that a pipe gets when this is told."""
    text = io.StringIO()
    with progress.shown(Terminal(file=text), {}, title) as shown:
        todo = [(run, shard) for run in runs for shard in run.shards]
        shown.began(todo, devices)
        script(shown, todo)
    return text.getvalue().splitlines()


def steps_of(run: Run, shard: Shard) -> int:
    return len(shard.rows) * run.spec.fields.trainer.max_steps


def trains(clock: Clock, seconds: float) -> Script:
    """Each shard in turn compiles for a minute, trains at one pace for each network, and ends."""

    def script(shown: Progress, todo: list[tuple[Run, Shard]]) -> None:
        for i, of in enumerate(todo):
            shown.entered(*of, Stage.STARTING)
            if i == 0:
                shown.entered(*of, Stage.COMPILING)
                clock.now += 60
            shown.entered(*of, Stage.TRAINING)
            for _ in range(2):
                clock.now += seconds * len(of[1].rows) / 2
                shown.advanced(*of, steps_of(*of) // 2)
            shown.finished(*of, of[1].rows.assign(loss=float(i)))

    return script


def test_a_pipe_gets_all_in_one_line(run: Run, clock: Clock) -> None:
    lines = piped(trains(clock, 60.0), [run])
    assert [re.sub("n_features = 2, n_hidden", "m", line) for line in lines] == [
        "compiling ...: small",
        "13 %, 2 min, 6 min left: small",
        "26 %, 3 min, 6 min left: small",
        "33 %, 4 min, 5 min left: small",
        "40 %, 4 min, 4 min left: small",
        "small, m = 1: loss: 3 of 3 networks, mean 0.333",
        "60 %, 5 min, 3 min left: small",
        "80 %, 6 min, 75 s left: small",
        "90 %, 6 min, 37 s left: small",
        "100 %, 7 min, 0 s left: small",
        "small, m = 2: loss: 3 of 3 networks, mean 2.33",
    ]


def test_a_pipe_gets_a_line_every_15_s_at_most(run: Run, clock: Clock) -> None:
    lines = [line for line in piped(trains(clock, 1.0), [run]) if "left" in line]
    assert lines == ["13 %, 61 s, 6 s left: small"]
    assert [line for line in piped(trains(clock, 15.0), [run]) if "left" in line] != lines


def test_compiling_is_not_told_again_while_others_train(run: Run, clock: Clock) -> None:
    def script(shown: Progress, todo: list[tuple[Run, Shard]]) -> None:
        shown.entered(*todo[0], Stage.TRAINING)
        clock.now += 1
        shown.advanced(*todo[0], 100)
        shown.entered(*todo[1], Stage.COMPILING)
        clock.now += 20
        shown.advanced(*todo[0], 10)

    (line,) = piped(script, [run])
    assert re.fullmatch(r"\d+ %, 21 s, \d+ \w+ left: small", line)


@pytest.mark.parametrize("title", ["", "look 2 of 3, 14 claims open"])
def test_no_line_is_wider_than_80_columns(small: Any, tmp_path: Path, clock: Clock, title: str) -> None:
    folder = tmp_path / "replications" / "nobody"
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for name in ("a_" + 20 * "x", "b" * 30, "\u4e2d" * 20, "d" * 100):
        (folder / f"{name}.yaml").write_text(SMALL, encoding="utf-8")
        runs.append(Run(load_spec(folder / f"{name}.yaml"), tmp_path))

    def script(shown: Progress, todo: list[tuple[Run, Shard]]) -> None:
        for of in todo:
            shown.entered(*of, Stage.TRAINING)
        for of in todo:
            clock.now += 20
            shown.advanced(*of, 50)

    lines = piped(script, runs, title)
    assert len(lines) > 3
    for line in lines:
        assert cell_len(line) <= WIDTH
        assert line.startswith(title)
        assert "left: a_xxxxxxxxxxxxxxxxxxxx" in line


def test_what_was_done_before_does_not_count(run: Run, clock: Clock) -> None:
    """A shard of which nine tenths were trained by an earlier command: a tenth is left, at its own pace."""

    def script(shown: Progress, todo: list[tuple[Run, Shard]]) -> None:
        of, whole = todo[0], steps_of(*todo[0])
        shown.entered(*of, Stage.STARTING)
        shown.advanced(*of, whole * 9 // 10)
        shown.entered(*of, Stage.TRAINING)
        clock.now += 20
        shown.advanced(*of, whole // 20)

    text = io.StringIO()
    with progress.shown(Terminal(file=text), {}) as shown:
        todo = [(run, run.shards[0])]
        shown.began(todo, 1)
        script(shown, todo)
    assert text.getvalue() == "50 %, 20 s, 20 s left: small\n"


def test_recorded_seconds_tell_what_runs_cost(small: Any, tmp_path: Path, clock: Clock) -> None:
    """Of two runs that look equally expensive, one took three times as long when it was recorded."""
    one, other = Run(small(), tmp_path / "one"), Run(small("short"), tmp_path / "other")
    seconds = {one.folder: 30.0, other.folder: 90.0}
    todo = [(run, shard) for run in (one, other) for shard in run.shards]
    expected = progress._expected(todo, seconds)
    assert sum(expected) == pytest.approx(120.0)
    assert sum(expected[: len(one.shards)]) == pytest.approx(30.0)
    alone = progress._expected(todo, {other.folder: 90.0})
    unknown = progress._expected(todo, {})
    assert [a / b for a, b in zip(alone, unknown, strict=True)] == pytest.approx(
        [alone[0] / unknown[0]] * len(todo)
    )
    assert sum(alone[len(one.shards) :]) == pytest.approx(90.0)


def test_more_seeds_than_recorded_take_more(small: Any, tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    ids = run.rows.index
    more = run.asking(run.cut.rows(np.concatenate([ids, ids + len(ids)])))
    todo = [(more, shard) for shard in more.shards]
    assert sum(progress._expected(todo, {run.folder: 10.0})) == pytest.approx(20.0)


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_has_one_bar_and_what_is_watched(run: Run, clock: Clock, width: int) -> None:
    text = io.StringIO()
    console = Terminal(file=text, force_terminal=True, width=width)
    with progress.shown(console, {}, "look 1 of 3, 2 claims open") as shown:
        todo = [(run, shard) for shard in run.shards]
        shown.began(todo, 2)
        trains(clock, 60.0)(shown, todo[:3])
    last = plain(text.getvalue()).rstrip("\n").replace("\r", "\n").splitlines()[-2:]
    assert max(map(cell_len, last)) <= min(width, WIDTH)
    assert "look 1 of 3, 2" in last[0]
    assert last[1].startswith("small, n_features = 2, n_hidden = 2")
    if width >= 80:
        assert last[0].rstrip().endswith("look 1 of 3, 2 claims open: 80 %, 6 min")
        assert last[1].rstrip().endswith("loss: 2 of 3 networks, mean 2")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_has_no_measure_is_named(terminal: bool) -> None:
    text = io.StringIO()
    with doing(Terminal(file=text, force_terminal=terminal, width=80), "judging"):
        pass
    assert "judging ..." in plain(text.getvalue())


class Stages(Progress):
    """Keeps the stages of shards, and the steps that are told in each."""

    def __init__(self) -> None:
        self.begun = 0
        self.told: list[Stage | int] = []

    def began(self, todo: list[tuple[Run, Shard]], devices: int) -> None:
        self.begun = len(todo)

    def entered(self, run: Run, shard: Shard, stage: Stage) -> None:
        self.told.append(stage)

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        self.told.append(network_steps)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("devices", [1, 2])
def test_each_shard_tells_its_stages(small: Any, tmp_path: Path, devices: int) -> None:
    told, run = Stages(), Run(small(trainer="{max_steps: 5}", shard_size="6"), tmp_path)
    train([run], Devices("cpu", devices), told)
    assert told.begun == len(run.shards)
    assert told.told.count(Stage.STARTING) == told.begun > 1
    assert sum(one for one in told.told if isinstance(one, int)) == 5 * 18


def test_the_compiler_is_told_of(small: Any, tmp_path: Path) -> None:
    """Whatever it compiles: here a function that takes no time."""
    script = """
import torch
from common.runs.shard import Session, Stage, _told_of_compiling
told = []
with _told_of_compiling(Session(enter=told.append)):
    f = torch.compile(lambda x: x + 1, backend="eager")
    f(torch.ones(2)), f(torch.ones(2))
torch.compile(lambda x: x + 2, backend="eager")(torch.ones(2))
assert told == [Stage.COMPILING, Stage.TRAINING], told
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.parametrize(
    ("looks", "trained", "title"),
    [
        ([{}, {}], "both", "look 1 of 3, 4 claims open"),
        ([{"a": 1, "b": 1}, {"a": 1, "b": 1}], "both", "look 2 of 3, 4 claims open"),
        ([{"a": 1, "b": 2}, {"a": 1, "b": 1}], "both", "looks 2 to 3 of 3, 4 claims open"),
        ([{"a": 2, "b": 2}, {}], "first", "look 3 of 3, 4 claims open"),
        ([{}, {}], "neither", "4 claims open"),
    ],
)
def test_the_title_of_the_profile_decided(looks: list[dict[str, int]], trained: str, title: str) -> None:
    """Of two replications with two open claims each, by the last look of each claim so far."""
    pairs: Any = [
        (
            SimpleNamespace(looks=SimpleNamespace(seeds=[2, 6, 20])),
            SimpleNamespace(
                outcomes={name: SimpleNamespace(look=look) for name, look in last.items()},
                open=["a", "b"],
                needed=number,
            ),
        )
        for number, last in enumerate(looks)
    ]
    todo: Any = {"both": {0: 1, 1: 1}, "first": {0: 1}, "neither": {}}[trained]
    assert command._title(pairs, todo) == title
