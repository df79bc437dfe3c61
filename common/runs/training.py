"""From shards to the instances table: on all processors or GPUs, resumed where a run was stopped."""

import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Any, NamedTuple, Protocol

import pandas as pd
import torch

from common.ensemble import Ensemble
from common.features import Draws
from common.runs.numerics import KEEPS_DENORMALS
from common.runs.shard import Session, Stage, train_shard
from common.runs.store import Run
from common.runs.workers import CONTEXT, broken, end_if_starting, kill, startable, starting, workers
from common.specs.spec import Spec
from common.specs.sweep import Shard, costs
from common.system.compiling import UNCOMPILED
from common.system.machine import processors
from common.system.text import counted

_COPIES = 16
"""The numbers in a GPU's memory for each weight and each input of a network: gradients, moments, what is
between them where code is not compiled, and room. Networks that are too many are halved, see `fit_shard`."""

_PINNED = 2**30
"""The most bytes of random numbers on their way to a GPU."""


class Devices(NamedTuple):
    """Where shards are trained: `n` GPUs, or `n` worker processes on the CPU, each with one shard at a time.

    A CPU worker has one thread: on such small networks four threads are no faster than one when the machine
    is otherwise idle, and many times slower when it is not; and with one thread results do not depend on `n`.
    """

    accelerator: str
    n: int

    @classmethod
    def choose(cls, accelerator: str = "auto", count: int | None = None) -> "Devices":
        """All GPUs if there are any, else all processors, unless the arguments say otherwise.

        Raises:
            ValueError: if there are fewer GPUs than asked for.
        """
        n_gpus = torch.cuda.device_count()
        if accelerator == "auto":
            accelerator = "cuda" if n_gpus else "cpu"
        available = n_gpus if accelerator == "cuda" else processors()
        if accelerator == "cuda" and available < (count or 1):
            raise ValueError(f"{counted(count or 1, 'GPU')} asked for, but this machine has {available}")
        return cls(accelerator, count or available)

    def most(self, spec: Spec, shard: Shard) -> int | None:
        """See `Place.most`: on a GPU, as many as its memory holds, as each step takes as long for few."""
        if self.accelerator != "cuda":
            return None
        row: dict[str, Any] = {str(name): value for name, value in shard.rows.iloc[0].items()}
        network = spec.build(row, seeds=[0])
        if not isinstance(network, Ensemble):
            return None
        features, weights = network.features, sum(weight.numel() for weight in network.parameters())
        uniforms = max(features.n_uniforms, 1) * features.batch_size
        in_memory = _COPIES * (weights + features.n_features * features.batch_size) * 4
        free, _ = torch.cuda.mem_get_info()
        seeds = max(1, _PINNED // (Draws.BLOCK * uniforms * 4))
        points = len(shard.rows) // shard.rows["seed"].nunique()
        return max(1, min(free // in_memory, seeds * points))

    def __str__(self) -> str:
        """The name of the device class, as in the manifest."""
        return torch.cuda.get_device_name(0) if self.accelerator == "cuda" else "CPU"

    def train_shards(
        self, todo: list[tuple[Run, Shard]], progress: "Progress"
    ) -> Generator[tuple[Run, Shard]]:
        """See `Place.train_shards`.

        Raises:
            InputError: if workers cannot be started, or one ends before its work does.
        """
        noted: set[tuple[int, str]] = set()

        def note(run: Run, text: str) -> None:
            # why nothing is compiled here, or denormals are kept, holds for all runs
            key = (0 if text.startswith((UNCOMPILED, KEEPS_DENORMALS)) else id(run), text)
            if key not in noted:
                noted.add(key)
                progress.noted(run, text)

        def report(of: tuple[Run, Shard], told: _Told) -> None:
            if isinstance(told, str):
                note(of[0], told)
            elif isinstance(told, Stage):
                progress.entered(*of, told)
            else:
                progress.advanced(*of, told)

        if self.n == 1 or len(todo) <= 1:
            for of in todo:
                session = _session(self.accelerator, 0, partial(report, of))
                progress.finished(*of, _train_and_store(*of, session))
                yield of
            return
        with startable():
            reports: SimpleQueue[tuple[int, _Told]] = CONTEXT.SimpleQueue()
            numbers: SimpleQueue[int] = CONTEXT.SimpleQueue()
        count = min(self.n, len(todo))
        for number in range(count):
            numbers.put(number)
        with workers(count, _start_worker, reports, numbers) as pool:
            try:
                with startable(), starting():  # until all workers are known, so that they can be ended
                    futures: dict[Future[pd.DataFrame], tuple[Run, Shard]] = {
                        pool.submit(_train_in_worker, run, shard, self.accelerator, position): (run, shard)
                        for position, (run, shard) in enumerate(todo)
                    }
                pending = set(futures)
                while pending:
                    done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                    while not reports.empty():
                        position, told = reports.get()
                        report(todo[position], told)
                    for future in done:
                        progress.finished(*futures[future], future.result())
                        yield futures[future]
            except BrokenProcessPool:
                raise broken(pool) from None
            except BaseException:
                # also in the middle of a shard, as Lightning would catch a SIGTERM and continue training.
                # Shards are stored whole or not at all
                kill(pool)
                raise


class Progress:
    """Receives the progress of training; this base class shows only notes, as warnings."""

    def began(self, todo: list[tuple[Run, Shard]], devices: int) -> None:
        """All these shards are going to be trained, on so many devices at once."""

    def entered(self, run: Run, shard: Shard, stage: Stage) -> None:
        """A stage of a shard has begun; not every place tells."""

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        """A shard has done this many network-steps since the last call, or can leave them out."""

    def finished(self, run: Run, shard: Shard, table: pd.DataFrame) -> None:
        """A shard is trained and stored, with these rows of the instances table."""

    def noted(self, run: Run, note: str) -> None:
        """A line on something in training that the user should know; given once for each run."""
        warnings.warn(note, stacklevel=2)


class Place(Protocol):
    """Where shards are trained: this machine's devices or others; `str` names their class."""

    @property
    def n(self) -> int:
        """The number of devices."""

    def most(self, spec: Spec, shard: Shard) -> int | None:
        """The most networks with the shape of `shard` to train at once; None: as many as a block has."""

    def train_shards(self, todo: list[tuple[Run, Shard]], progress: Progress) -> Generator[tuple[Run, Shard]]:
        """Train and store shards, on all devices at once; yields each when it is done."""


class TimeIsUp(KeyboardInterrupt):
    """Training has reached the time at which it was to stop; what was trained is stored."""


class _Until(Progress):
    """Shows the progress of training, and ends it at a time, as of `time.monotonic`."""

    def __init__(self, progress: Progress, until: float) -> None:
        self.until = until
        self._advanced = progress.advanced
        self.began, self.entered = progress.began, progress.entered  # type: ignore[method-assign]
        self.finished, self.noted = progress.finished, progress.noted  # type: ignore[method-assign]

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        self._advanced(run, shard, network_steps)
        if time.monotonic() > self.until:
            raise TimeIsUp


def work(run: Run) -> int:
    """The network-steps that `run` still has to train."""
    return network_steps(run, run.lacking())


def network_steps(run: Run, some: list[Shard]) -> int:
    """The network-steps of some shards of `run`."""
    return sum(len(shard.rows) for shard in some) * run.spec.fields.trainer.max_steps


def train(runs: list[Run], devices: Place, progress: Progress | None = None, until: float = math.inf) -> None:
    """Train what is missing in `runs`, and store each run's instances table when it is complete.

    Shards of all runs share the devices; a single device takes them in the order given. With several devices,
    one shard of each model goes first: its code is then compiled once, and found by the workers that need it
    later. The other shards follow with the most expensive first, so that no device is left with a long one at
    the end. A shard that fails stops the rest and raises its error; finished shards are kept. Training also
    stops when the time is `until`, as of `time.monotonic`.

    Raises:
        TimeIsUp: if it is not done by then.
        InputError: if another run is writing into one of the folders, a folder cannot be written, or there is
        too
            little memory for a single network or for the workers.
    """
    if devices.n > 1:
        end_if_starting()
    started = time.monotonic()
    progress = progress or Progress()
    if until < math.inf:
        progress = _Until(progress, until)
    with ExitStack() as locks:
        for run in runs:
            if not run.is_joined() or run.lacking():
                locks.enter_context(run.locked())
        # checked again: another run may just have ended
        lacking = {run: run.lacking() for run in runs}
        clear(lacking, progress)
        todo = [(run, shard) for run, some in lacking.items() for shard in _joined(run, some, devices)]
        if devices.n > 1:
            price = [cost for run, shard in todo for cost in costs(run.spec, [shard])]
            order = sorted(range(len(todo)), key=lambda i: -price[i])
            first = dict(reversed([(_code(todo[i][0].spec), i) for i in order])).values()
            todo = [todo[i] for i in sorted(order, key=lambda i: i not in first)]
        left = Counter(id(run) for run, _ in todo)

        def finish(run: Run) -> None:
            if not run.is_joined():
                run.finish(str(devices), time.monotonic() - started)

        for run in runs:
            if not left[id(run)]:
                finish(run)
        if todo:
            progress.began(todo, devices.n)
        # closed at once when something fails here, which ends its workers
        with closing(devices.train_shards(todo, progress)) as done:
            for run, _ in done:
                left[id(run)] -= 1
                if not left[id(run)]:
                    finish(run)


def _joined(run: Run, some: list[Shard], devices: Place) -> list[Shard]:
    """The shards that are trained, each as large as a device takes, with enough of them for all devices.

    Those that can be resumed stay as they are.
    """
    stopped = [shard for shard in some if run.is_stopped(shard)]
    others = [shard for shard in some if not run.is_stopped(shard)]
    each = -(-sum(len(shard.rows) for shard in others) // devices.n)

    def most(shard: Shard) -> int | None:
        size = devices.most(run.spec, shard)
        return size and min(size, max(each, 1))

    return [*stopped, *run.cut.merged(others, most)]


def clear(todo: Mapping[Run, list[Shard]], progress: Progress) -> None:
    """Set aside files that are in the place of these shards' results but not theirs, with a note."""
    for run, some in todo.items():
        for line in run.set_aside(some):
            progress.noted(run, line)


def _code(spec: Spec) -> tuple[str, str]:
    """What identifies the compiled code of a spec."""
    return spec.fields.model.class_path, spec.fields.features.class_path


_Told = int | str | Stage
"""What is told of a shard: network-steps that are done, a note, or the stage that begins."""

_worker: dict[str, Any] = {}


def _session(accelerator: str, device: int, tell: Callable[[_Told], None]) -> Session:
    return Session(accelerator, device, advance=tell, enter=tell, note=tell)


def _start_worker(reports: "SimpleQueue[tuple[int, _Told]]", numbers: "SimpleQueue[int]") -> None:
    _worker["reports"], _worker["number"] = reports, numbers.get()
    # a worker has one thread: it compiles in its own process and starts no other processes
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"


def _train_in_worker(run: Run, shard: Shard, accelerator: str, position: int) -> pd.DataFrame:
    def tell(what: _Told) -> None:
        _worker["reports"].put((position, what))

    return _train_and_store(run, shard, _session(accelerator, _worker["number"], tell))


def _train_and_store(run: Run, shard: Shard, session: Session) -> pd.DataFrame:
    """Train one shard in this process, and store it; returns its rows of the instances table."""
    trained = train_shard(run, shard, session, resumes=True)
    run.write_trained(shard, trained.table, trained.state)
    return trained.table
