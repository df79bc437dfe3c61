"""How fast training is, beside the plain way to train the same networks, in networks x steps per second."""

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from common.results import Run
from common.spec import Spec, load_spec
from common.sweep import Shard, shards
from common.training import Devices, Progress, train_shards

SHORT_STEPS, LONG_STEPS, PLAIN_STEPS = 200, 1200, 100

PLAIN_NETWORKS = 400
"""Networks that the plain way trains at once: of 100 to 5000 the fastest per network."""


class Speed(NamedTuple):
    """One structure's rates, in networks x steps per second, and its networks x steps in the sweep."""

    structure: str
    networks: int
    plain: float
    ours: float
    work: int


def bench(path: Path, devices: Devices, profile: str = "full") -> Iterator[Speed]:
    """Time the networks of each shape that the spec at `path` has, a shard of them on each device.

    Ours is the whole way that a run takes, timed as the difference between a long and a short run, so that
    starting workers and compiling do not count. Where networks stop when they are settled, the long run is
    the whole training, and the steps that they are spared count as done. The plain way trains some of them,
    with all threads.

    Raises:
        ValueError: if the spec names no plain way.
    """
    spec = load_spec(path, profile)
    if spec.fields.plain is None:
        raise ValueError(f"{spec.name} names no plain way to compare with")
    plain = importlib.import_module(spec.fields.plain)
    structural = spec.structural()
    stops, max_steps = spec.fields.trainer.stop_when_settled, spec.fields.trainer.max_steps
    short, long = (1, max_steps) if stops else (SHORT_STEPS, LONG_STEPS)
    cut = shards(spec)
    done = set()
    for shard in cut:
        structure = ", ".join(f"{name} = {shard.rows[name].iloc[0]}" for name in structural)
        if structure in done:
            continue
        done.add(structure)
        copies = [Shard(number, shard.rows) for number in range(devices.n)]
        _seconds(spec, copies, devices, 1)  # compiles, for the runs that are timed to find on disk
        seconds = _seconds(spec, copies, devices, long) - _seconds(spec, copies, devices, short)
        networks = len(shard.rows) * len(copies)
        some = shard.rows[:: -(-len(shard.rows) // PLAIN_NETWORKS)]
        plain.train(some, 1)
        start = time.perf_counter()
        plain.train(some, PLAIN_STEPS)
        plain_rate = len(some) * PLAIN_STEPS / (time.perf_counter() - start)
        alike = (s for s in cut if (s.rows[structural].iloc[0] == shard.rows[structural].iloc[0]).all())
        work = sum(len(s.rows) for s in alike) * max_steps
        yield Speed(structure, networks, plain_rate, networks * (long - short) / seconds, work)


def _seconds(spec: Spec, pieces: list[Shard], devices: Devices, steps: int) -> float:
    overrides = {"trainer.max_steps": (steps, "bench")}
    spec = load_spec(spec.path, spec.profile, overrides=overrides)
    with TemporaryDirectory() as folder:
        run = Run(spec, Path(folder))
        start = time.perf_counter()
        for _ in train_shards([(run, piece) for piece in pieces], devices, Progress()):
            pass
        return time.perf_counter() - start
