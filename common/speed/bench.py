"""How fast training is, compared with a plain loop for the same networks and with the machine's ceiling."""

import functools
import importlib
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from common.computed import Computed
from common.ensemble import Ensemble
from common.runs.shard import REPORT_STEPS, build
from common.runs.store import Run
from common.runs.training import Devices, Progress
from common.specs.spec import Spec, load_spec
from common.specs.sweep import Shard, shards
from common.speed.ceiling import Bound, Machine, count

SECONDS, PLAIN_SECONDS = 5.0, 2.0
"""The least time for which each is timed."""

SHAPES = 3
"""The most shapes of network timed per replication, from the one with the least work to the most."""

SETTLED_NETWORKS = 4
"""The most networks of a shard that are trained to the end, where that is when they are settled."""

FEW, FEW_SECONDS = 2, 1.0
"""Networks whose step is nearly all overhead, and the least time for which they are timed."""

PLAIN_NETWORKS = 400
"""Networks that the plain loop trains at once: of 100 to 5000, the fastest per network."""

NEVER = 10**9
"""A number of steps that is never reached: timing ends training."""


OVERHEAD = "overhead"


class Speed(NamedTuple):
    """The rates for networks with one shape, in networks x steps per second, with `networks` at once.

    `overhead`: the share of a step's time that does not grow with the number of networks: Python, Lightning,
    and starting operations. None if a shard has too few networks to tell. `steps`: how many a network takes,
    all or until it is settled.
    """

    shape: str
    networks: int
    ours: float
    plain: float
    bound: Bound
    overhead: float | None
    steps: float

    @property
    def shares(self) -> dict[str, float]:
        """The share of a step's time that each thing takes at least, the largest first: what bounds the rate.

        They are measured one by one, so they need not sum to 1: what is missing goes into doing more than
        the least, and into doing it less fast than a single large operation.
        """
        shares = {name: self.ours / rate for name, rate in self.bound.rates.items()}
        if self.overhead is not None:
            shares[OVERHEAD] = self.overhead
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


class Bench(NamedTuple):
    """A replication's speeds, and the seconds that its sweep, without controls, takes at these.

    The plain loop takes all steps, also where our training ends when networks are settled.
    """

    speeds: list[Speed]
    ours: float
    plain: float


def bench(spec: Spec, machine: Machine) -> Bench | None:
    """Time the networks of a spec, one shard on each device; None if they are calculated.

    `ours` times a whole run with workers, draws and Trainer, without starting these, or compiling. Where
    training ends when networks are settled, it is timed to that end, because its rate changes: the networks
    then count as trained for the steps until they were settled. `plain` times a plain loop over some of the
    same networks, with as many threads as there are workers: the spec's `plain`, else `train_plainly`. Of
    many shapes a few are timed; the time of others is interpolated by the arithmetic of a step.
    """
    if issubclass(spec.model_class, Computed):
        return None
    shapes = _shapes(spec)
    least = {name: count(spec, pieces[0].rows) for name, pieces in shapes.items()}
    work = {name: least[name].arithmetic() / least[name].networks for name in shapes}
    order = sorted(shapes, key=lambda name: work[name])
    places = np.linspace(0, len(order) - 1, min(SHAPES, len(order))).round().astype(int)
    speeds: list[Speed] = []
    all_steps = float(spec.fields.trainer.max_steps)
    for name in (order[place] for place in places):
        shard = shapes[name][0]
        if spec.fields.trainer.stop_when_settled:
            shard = Shard(shard.name, shard.rows.iloc[:SETTLED_NETWORKS])
            (ours, steps), overhead = _ours_settled(spec, shard, machine.devices), None
        else:
            ours, steps = _ours(spec, shard, machine.devices, SECONDS), all_steps
            overhead = _overhead(spec, shard, machine.devices, ours)
        plain = _plain(spec, shard.rows, machine.devices)
        networks = len(shard.rows) * machine.devices.n
        speeds.append(Speed(name, networks, ours, plain, machine.bound(least[name]), overhead, steps))
    timed = [work[speed.shape] for speed in speeds]
    networks_of = np.array([sum(len(shard.rows) for shard in shapes[name]) for name in shapes])

    def sweep(seconds: list[float]) -> float:
        return float(np.interp([work[name] for name in shapes], timed, seconds) @ networks_of)

    ours = sweep([speed.steps / speed.ours for speed in speeds])
    return Bench(speeds, ours, sweep([all_steps / speed.plain for speed in speeds]))


def _shapes(spec: Spec) -> dict[str, list[Shard]]:
    """The shards of the sweep by shape, named by the factors that differ between shapes."""
    cut = shards(spec)
    values = pd.concat([shard.rows.iloc[:1] for shard in cut])
    told = [name for name in spec.structural() if values[name].nunique(dropna=False) > 1]
    shapes: dict[str, list[Shard]] = {}
    for shard in cut:
        first = shard.rows.iloc[0]
        shapes.setdefault(", ".join(f"{name} = {first[name]}" for name in told), []).append(shard)
    return shapes


class _Enough(Exception):  # noqa: N818  # not an error: the timing is complete
    """Training was timed."""


class _Watch(Progress):
    """Records the progress of shards over time, and ends training `seconds` after all of them have begun."""

    def __init__(self, n_shards: int, seconds: float) -> None:
        self.seconds = seconds
        self.done: list[list[tuple[float, int]]] = [[] for _ in range(n_shards)]

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        now, done = time.perf_counter(), self.done[int(shard.name)]
        total = (done[-1][1] if done else 0) + network_steps
        if done and now < done[-1][0] + 0.05:  # reported together: steps done by then, not from then on
            done[-1] = (done[-1][0], total)
        else:
            done.append((now, total))
        if all(self.done) and min(told[-1][0] - told[0][0] for told in self._told()) >= self.seconds:
            raise _Enough

    def rate(self) -> float:
        """Network-steps per second, over all shards together."""
        return sum((told[-1][1] - told[0][1]) / (told[-1][0] - told[0][0]) for told in self._told())

    def _told(self) -> list[list[tuple[float, int]]]:
        """The reports since all shards had begun, and at least the last of each shard."""
        begun = max(done[0][0] for done in self.done)
        return [[told for told in done if told[0] >= begun] or done[-1:] for done in self.done]


def _overhead(spec: Spec, shard: Shard, devices: Devices, ours: float) -> float | None:
    """The share of a step's time that would be left without networks: from here and `FEW`, on a line."""
    n = len(shard.rows)
    if n <= FEW:
        return None
    few = FEW / _ours(spec, Shard("0", shard.rows.iloc[:FEW]), Devices(devices.accelerator, 1), FEW_SECONDS)
    all_of_it = n * devices.n / ours
    without = (n * few - FEW * all_of_it) / (n - FEW)
    return min(max(without / all_of_it, 0.0), 1.0)


def _ours(spec: Spec, shard: Shard, devices: Devices, seconds: float) -> float:
    overrides = {"trainer.max_steps": (NEVER, "bench"), "trainer.stop_when_settled": (False, "bench")}
    spec = load_spec(spec.path, spec.profile, overrides=overrides)
    watch = _Watch(devices.n, seconds)
    with TemporaryDirectory() as folder, suppress(_Enough):
        run = Run(spec, Path(folder))
        for _ in devices.train_shards([(run, Shard(str(i), shard.rows)) for i in range(devices.n)], watch):
            pass
    return watch.rate()


class _Settled(Progress):
    """Records when shards began, and when all had ended."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.ended = 0.0
        self.steps: list[int] = []

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        self.begun.setdefault(shard.name, time.perf_counter())

    def finished(self, run: Run, shard: Shard, table: pd.DataFrame) -> None:
        self.ended = time.perf_counter()
        self.steps += table["steps"].tolist() if "steps" in table else []


def _ours_settled(spec: Spec, shard: Shard, devices: Devices) -> tuple[float, float]:
    """The rate of a shard trained to its end on each device, and the mean number of steps of a network."""
    watch = _Settled()
    with TemporaryDirectory() as folder:
        run = Run(spec, Path(folder))
        for _ in devices.train_shards([(run, Shard(str(i), shard.rows)) for i in range(devices.n)], watch):
            pass
    steps = watch.steps or [spec.fields.trainer.max_steps] * len(shard.rows) * devices.n
    # the first report is after `REPORT_STEPS`, of which each network has taken as many
    taken = sum(steps) - REPORT_STEPS * len(steps)
    return taken / (watch.ended - min(watch.begun.values())), float(np.mean(steps))


def _plain(spec: Spec, rows: pd.DataFrame, devices: Devices) -> float:
    some = rows[:: -(-len(rows) // PLAIN_NETWORKS)]
    train: Callable[[pd.DataFrame, int], object] = functools.partial(train_plainly, spec)
    if spec.fields.plain is not None:
        train = importlib.import_module(spec.fields.plain).train
    before, threads = torch.get_num_threads(), devices.n if devices.accelerator == "cpu" else 1
    torch.set_num_threads(threads)
    try:
        with torch.device(devices.accelerator):
            train(some, 1)
            steps, seconds = 1, 0.0
            while seconds < PLAIN_SECONDS:
                steps *= 2
                start = time.perf_counter()
                train(some, steps)
                if devices.accelerator == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - start
    finally:
        torch.set_num_threads(before)
    return len(some) * steps / seconds


def train_plainly(spec: Spec, rows: pd.DataFrame, steps: int) -> Ensemble:
    """Train the networks in `rows`, of one shape, on torch's default device: a plain loop with autograd.

    Each network has its own draws; the optimiser is the spec's, not fused.
    """
    device = torch.get_default_device()
    with torch.device("cpu"):
        ensemble = build(spec, rows)
    assert isinstance(ensemble, Ensemble)
    ensemble.to(device)
    features, shape = ensemble.features, (len(rows), ensemble.features.batch_size)
    weights, factors = dict(ensemble.weights.items()), ensemble.factors
    chosen = ensemble.optimizer
    if isinstance(chosen, functools.partial):
        arguments = {k: v for k, v in chosen.keywords.items() if k not in ("fused", "foreach")}
        chosen = functools.partial(chosen.func, **arguments)
    optimizer = chosen(weights.values())
    schedule = ensemble.lr_scheduler(optimizer) if ensemble.lr_scheduler else None
    for _ in range(steps):
        optimizer.zero_grad()
        drawn = [torch.rand(shape) for _ in range(features.n_uniforms)]
        loss = ensemble.loss(weights, factors, features.sample(drawn, factors)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return ensemble
