"""The progress of training, shown on the console: bars on a terminal, lines elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import pandas as pd
from rich.progress import (
    BarColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)

from common.runs.store import Run
from common.runs.training import Progress
from common.specs.sweep import Shard, instances
from common.system.terminal import Terminal
from common.system.text import line

PLAIN_LINE_S = 15.0
"""Seconds between lines of progress where there is no terminal for a bar."""


@contextmanager
def shown(console: Terminal, todo: Mapping[Run, int]) -> Iterator[Progress]:
    """Show the progress of runs, each with its number of network-steps to do, as a bar or lines of text.

    For a run whose spec has `watch`, each shape also has its own: the networks that are done, and their mean.
    """
    if console.is_terminal:
        title = TextColumn("{task.description}", markup=False)
        columns = (title, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
                   TextColumn("left"), TimeRemainingColumn())  # fmt: skip
        with Bars(*columns, console=console) as bars:
            yield _OnTerminal(bars, todo)
    else:
        yield _InLines(console, todo)


def _title(run: Run) -> str:
    return line(f"{run.spec.name} {run.variant.name}")


class _Watched(NamedTuple):
    """The finished networks with one shape."""

    title: str
    networks: int
    values: list[float]

    def __str__(self) -> str:
        mean = sum(self.values) / len(self.values)
        return f"{self.title}: {len(self.values)} of {self.networks} networks, mean {mean:.3g}"


class _Watch:
    """The column that each run's spec watches, by shape, over the finished networks."""

    def __init__(self) -> None:
        self.done: dict[tuple[int, str], _Watched] = {}

    def add(self, run: Run, table: pd.DataFrame) -> _Watched | None:
        """The state of the shape of the networks in `table`, including them; None if nothing is watched."""
        column = run.spec.fields.watch
        if column is None:
            return None
        structural = run.spec.structural()
        row = table.iloc[0]
        shape = ", ".join([_title(run), *(f"{name} = {row[name]}" for name in structural)])
        if (id(run), shape) not in self.done:
            sweep = instances(run.spec)
            networks = int((sweep[structural] == row[structural]).all(axis=1).sum())
            self.done[id(run), shape] = _Watched(f"{shape}: {column}", networks, [])
        watched = self.done[id(run), shape]
        watched.values.extend(table[column])
        return watched


class _OnTerminal(Progress):
    def __init__(self, bars: Bars, todo: Mapping[Run, int]) -> None:
        self.bars = bars
        self.watch = _Watch()
        self.tasks = {
            id(run): bars.add_task(_title(run), total=steps, start=False) for run, steps in todo.items()
        }
        self.watched: dict[str, TaskID] = {}

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        self.bars.start_task(self.tasks[id(run)])
        self.bars.advance(self.tasks[id(run)], network_steps)

    def finished(self, run: Run, shard: Shard, table: pd.DataFrame) -> None:
        state = self.watch.add(run, table)
        if state is None:
            return
        if state.title not in self.watched:
            self.watched[state.title] = self.bars.add_task("", total=state.networks)
        self.bars.update(self.watched[state.title], completed=len(state.values), description=str(state))

    def noted(self, run: Run, note: str) -> None:
        self.bars.console.print(f"{_title(run)}: {note}")


class _InLines(Progress):
    def __init__(self, console: Terminal, todo: Mapping[Run, int]) -> None:
        self.console = console
        self.watch = _Watch()
        self.total = {id(run): steps for run, steps in todo.items()}
        self.done = dict.fromkeys(self.total, 0)
        # the time left is estimated from the first steps on: before them, workers start and compile
        self.first: dict[int, tuple[float, int]] = {}
        self.last = time.monotonic()

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        key = id(run)
        self.done[key] += network_steps
        now = time.monotonic()
        if key not in self.first:
            self.first[key] = (now, self.done[key])
        elif now - self.last >= PLAIN_LINE_S:
            self.last = now
            start, before = self.first[key]
            left = (now - start) * (self.total[key] - self.done[key]) / max(self.done[key] - before, 1)
            share = self.done[key] / self.total[key]
            self._print(f"{_title(run)}: {share:.0%}, {left / 60:.1f} minutes left")

    def finished(self, run: Run, shard: Shard, table: pd.DataFrame) -> None:
        state = self.watch.add(run, table)
        if state is not None:
            self._print(str(state))

    def noted(self, run: Run, note: str) -> None:
        self._print(f"{_title(run)}: {note}")

    def _print(self, line: str) -> None:
        self.console.print(line)
