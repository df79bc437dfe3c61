"""The progress of all that a command trains, in one line: beside a bar on a terminal, or now and then."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.runs.estimate import Estimate, Work, estimate
from common.runs.shard import Stage
from common.runs.store import Run
from common.runs.training import Progress, network_steps
from common.specs.sweep import Shard, costs, instances
from common.system.terminal import Terminal
from common.system.text import line

PLAIN_LINE_S = 15.0
"""The least seconds between two lines of progress where there is no terminal for a bar."""

WIDTH = 80
"""The most columns of the line of progress, with its bar."""

_BAR = 10


@contextmanager
def shown(console: Terminal, recorded: Mapping[Path, float], title: str = "") -> Iterator[Progress]:
    """Show the progress of all that is trained in this context, and what the runs' specs `watch`.

    `recorded`: the processor seconds that whole runs took when they were recorded, by folder, as far as they
    are known. `title` stands before the line.
    """
    progress = _Shown(console, recorded, title)
    if console.is_terminal:
        with Live(console=console, get_renderable=progress.bar, refresh_per_second=4):
            yield progress
    else:
        yield progress


@contextmanager
def doing(console: Terminal, what: str) -> Iterator[None]:
    """Say what the command does in this context, where how far it is cannot be said: `judging ...`."""
    if console.is_terminal:
        with console.status(Text(f"{what} ...")):
            yield
    else:
        console.print(f"{what} ...")
        yield


def _title(run: Run) -> str:
    return line(f"{run.spec.name} {run.variant.name}")


def _short(run: Run) -> str:
    """The name of a replication without its paper, and that of its control."""
    name, control = run.spec.name.rpartition("/")[2], run.spec.control
    return line(name if control is None else f"{name} ({control})")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _fitted(head: str, names: list[str], width: int) -> str:
    """`head`, and as many of the `names` after it as fit."""
    for n in range(len(names), 0, -1):
        more = [f"{len(names) - n} more"] if n < len(names) else []
        if cell_len(text := f"{head}: {', '.join([*names[:n], *more])}") <= width:
            return text
    return _cropped(f"{head}: {names[0]}" if names else head, width).plain


def _cropped(text: str, width: int) -> Text:
    cropped = Text(line(text), no_wrap=True)
    cropped.truncate(width, overflow="ellipsis")
    return cropped


class _State:
    """How far one shard is: `reported` is when its training was last told of, or began."""

    def __init__(self, run: Run, shard: Shard, expected: float) -> None:
        self.run, self.expected = run, expected
        self.steps = network_steps(run, [shard])
        self.stage: Stage | None = None
        self.ended = False
        self.earlier = self.done = 0
        self.spent = self.reported = 0.0

    @property
    def in_work(self) -> bool:
        return self.stage is not None and not self.ended

    def account(self, now: float) -> None:
        """Count the time until `now` as spent, if the shard was in training."""
        if self.stage is Stage.TRAINING:
            self.spent += now - self.reported
        self.reported = now

    def work(self, now: float) -> Work:
        to_do = max(self.steps - self.earlier, 1)
        expected = self.expected * to_do / max(self.steps, 1)
        if self.ended:
            return Work(self.run.folder, expected, 1.0, self.spent)
        since = now - self.reported if self.stage is Stage.TRAINING else 0.0
        if self.run.spec.fields.trainer.stop_when_settled:
            # at which step it ends is not known before, and later steps are faster as networks leave
            return Work(self.run.folder, expected, 0.0, 0.0, self.spent + since)
        return Work(self.run.folder, expected, max(0.0, min(self.done / to_do, 1.0)), self.spent, since)


class _Watched(NamedTuple):
    """The finished networks with one shape, of those that are trained."""

    title: str
    networks: int
    values: list[float]

    def __str__(self) -> str:
        mean = sum(self.values) / len(self.values)
        return f"{self.title}: {len(self.values)} of {self.networks} networks, mean {mean:.3g}"


class _Shown(Progress):
    def __init__(self, console: Terminal, recorded: Mapping[Path, float], title: str) -> None:
        self.console = console
        self.recorded = recorded
        self.title = line(f"{title}: " if title else "")
        self.states: dict[int, _State] = {}
        self.todo: list[tuple[Run, Shard]] = []
        self.devices = 1
        self.started = self.printed = time.monotonic()
        self.share = 0.0
        self.told_of_compiling = False
        self.shapes: dict[tuple[Path, str], _Watched] = {}
        self.watched: _Watched | None = None

    def began(self, todo: list[tuple[Run, Shard]], devices: int) -> None:
        self.todo, self.devices = todo, devices
        self.started = self.printed = time.monotonic()
        expected = _expected(todo, self.recorded)
        self.states = {
            id(shard): _State(run, shard, seconds)
            for (run, shard), seconds in zip(todo, expected, strict=True)
        }

    def entered(self, run: Run, shard: Shard, stage: Stage) -> None:
        state = self.states[id(shard)]
        state.account(time.monotonic())
        state.stage = stage
        if stage is Stage.COMPILING and not self.told_of_compiling and not self.console.is_terminal:
            self.told_of_compiling = True
            if not self._has_trained():
                self.console.print(self._line(WIDTH)[0])

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        state, now = self.states[id(shard)], time.monotonic()
        if state.stage is Stage.STARTING:
            state.earlier += network_steps
            return
        state.account(now)
        state.stage = state.stage or Stage.TRAINING
        state.done += network_steps
        if not self.console.is_terminal and now - self.printed >= PLAIN_LINE_S:
            self.printed = now
            self.console.print(self._line(WIDTH)[0])

    def finished(self, run: Run, shard: Shard, table: pd.DataFrame) -> None:
        state = self.states[id(shard)]
        state.account(time.monotonic())
        state.ended = True
        if run.spec.fields.watch is not None:
            self.watched = watched = self._shape(run, table)
            watched.values.extend(table[run.spec.fields.watch])
            if not self.console.is_terminal and len(watched.values) == watched.networks:
                self.console.print(str(watched))

    def noted(self, run: Run, note: str) -> None:
        self.console.print(f"{_title(run)}: {note}")

    def bar(self) -> Group:
        """The bar and the line beside it, and below them what is watched."""
        width = min(WIDTH, self.console.width)
        text, share = self._line(width - _BAR - 1)
        grid = Table.grid(padding=(0, 1, 0, 0))
        bar = ProgressBar(total=1.0, completed=share, width=_BAR, pulse=not self._has_trained())
        grid.add_row(bar, Text(text, no_wrap=True))
        if (watched := self.watched) is None:
            return Group(grid)
        return Group(grid, _cropped(str(watched), width))

    def _has_trained(self) -> bool:
        return any(state.done > 0 or state.ended for state in self.states.values())

    def _line(self, width: int) -> tuple[str, float]:
        """The line of progress, and the share of the work that is done."""
        now = time.monotonic()
        in_work = [state for state in self.states.values() if state.in_work]
        names = [*dict.fromkeys(_short(state.run) for state in in_work)]
        if not self._has_trained():
            compiles = any(state.stage is Stage.COMPILING for state in in_work)
            what = "compiling ..." if compiles else "starting ..."
            return _fitted(f"{self.title}{what}", names, width), 0.0
        share, left = self._estimate(now)
        self.share = max(self.share, share)  # which falls when work turns out to take longer
        parts = [f"{int(100 * self.share)} %", _duration(now - self.started)]
        if left is not None and in_work:
            parts.append(f"{_duration(left)} left")
        return _fitted(f"{self.title}{', '.join(parts)}", names, width), self.share

    def _estimate(self, now: float) -> Estimate:
        return estimate([state.work(now) for state in self.states.values()], self.devices)

    def _shape(self, run: Run, table: pd.DataFrame) -> _Watched:
        """The networks of a run with the shape of those in `table`."""
        structural, row = run.spec.structural(), table.iloc[0]
        shape = ", ".join([_short(run), *(f"{name} = {row[name]}" for name in structural)])
        if (run.folder, shape) not in self.shapes:
            networks = sum(
                len(shard.rows)
                for other, shard in self.todo
                if other.folder == run.folder and (shard.rows[structural].iloc[0] == row[structural]).all()
            )
            self.shapes[run.folder, shape] = _Watched(f"{shape}: {run.spec.fields.watch}", networks, [])
        return self.shapes[run.folder, shape]


def _expected(todo: list[tuple[Run, Shard]], recorded: Mapping[Path, float]) -> list[float]:
    """What each shard takes: in processor seconds if any run was recorded, else in an unknown unit.

    The seconds of a recorded run are spread over its networks by their cost. Of other runs only the cost is
    known, which is taken to be as dear as that of the recorded ones.
    """
    runs = {run.folder: run for run, _ in todo}
    cost: dict[int, int] = {}
    for folder, run in runs.items():
        own = [shard for other, shard in todo if other.folder == folder]
        cost |= {id(shard): price for shard, price in zip(own, costs(run.spec, own), strict=True)}
    whole = {
        folder: sum(costs(run.spec, run.cut.shards(instances(run.spec))))
        for folder, run in runs.items()
        if folder in recorded
    }
    usual = sum(recorded[folder] for folder in whole) / sum(whole.values()) if whole else 1.0
    per_cost = {folder: recorded[folder] / whole[folder] if folder in whole else usual for folder in runs}
    return [cost[id(shard)] * per_cost[run.folder] for run, shard in todo]
