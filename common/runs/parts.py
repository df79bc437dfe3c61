"""What a command trains, split into parts for machines that know nothing of each other: `--part I/N`."""

import heapq
import re
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import NamedTuple

from common.errors import InputError
from common.runs.store import Run
from common.runs.training import Place, Progress, clear
from common.specs.sweep import Shard, costs

MOST_PARTS = 1_000_000
"""The usual limit on the networks of a sweep: with more parts, some would have nothing to train."""


class Part(NamedTuple):
    """Part `number` (from 1) of `of` parts of the shards of several runs; parts have nearly equal cost.

    The shards of a part depend on the specs alone: not on what is stored, nor on the order of runs.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The part that `text` names, as in 2/8.

        Raises:
            InputError: if it does not name a part.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        part = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= part.number <= part.of:
            raise InputError(f"--part {text}: expected I/N with I from 1 to N, as in --part 2/8")
        if part.of > MOST_PARTS:
            limit = f"expected at most {MOST_PARTS:,} parts; MOST_PARTS in {__file__} can be raised"
            raise InputError(f"--part {text}: {limit}")
        return part

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return f"{self.number}/{self.of}"

    def shards(self, runs: list[Run]) -> list[tuple[Run, Shard]]:
        """The shards of this part, in the order in which all shards would be trained."""
        items: list[tuple[Run, Shard]] = []
        price: list[int] = []
        for run in runs:
            items += [(run, shard) for shard in run.shards]
            price += costs(run.spec, run.shards)
        # most expensive first, each to the part with the least work: parts then differ by at most one shard
        order = sorted(
            range(len(items)), key=lambda i: (-price[i], str(items[i][0].folder), items[i][1].name)
        )
        loads = [(0, number) for number in range(1, self.of + 1)]
        own = []
        for i in order:
            load, number = loads[0]
            heapq.heapreplace(loads, (load + price[i], number))
            if number == self.number:
                own.append(i)
        return [items[i] for i in sorted(own)]

    def missing(self, runs: list[Run]) -> dict[Run, list[Shard]]:
        """The shards of this part that still have to be trained, by run."""
        own = {(id(run), shard.name) for run, shard in self.shards(runs)}
        return {run: [shard for shard in run.lacking() if (id(run), shard.name) in own] for run in runs}


def train_part(todo: Mapping[Run, list[Shard]], place: Place, progress: Progress | None = None) -> None:
    """Train and store the shards `todo`; tables are not joined, because other parts may still be training.

    Raises:
        InputError: as `train`; parts may write into one folder at the same time, but not a run without parts.
    """
    items = [(run, shard) for run, some in todo.items() for shard in some]
    with ExitStack() as locks:
        for run, some in todo.items():
            if some:
                locks.enter_context(run.locked(shared=True))
        progress = progress or Progress()
        clear(todo, progress)
        if items:
            progress.began(items, place.n)
        with closing(place.train_shards(items, progress)) as done:
            for _ in done:
                pass
