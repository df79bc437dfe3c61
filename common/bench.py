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
    """One structure's rates, in networks x steps per second, the plain way and ours."""

    structure: str
    networks: int
    plain: float
    ours: float


def bench(path: Path, devices: Devices) -> Iterator[Speed]:
    """Time the networks of each shape that the spec at `path` has, a shard of them on each device.

    Ours is the whole way that a run takes, timed as the difference between a long and a short run, so that
    starting workers and compiling do not count. The plain way trains some of them, with all threads.

    Raises:
        ValueError: if the spec names no plain way.
    """
    spec = load_spec(path)
    if spec.fields.plain is None:
        raise ValueError(f"{spec.name} names no plain way to compare with")
    plain = importlib.import_module(spec.fields.plain)
    structural = spec.structural()
    done = set()
    for shard in shards(spec):
        structure = ", ".join(f"{name} = {shard.rows[name].iloc[0]}" for name in structural)
        if structure in done:
            continue
        done.add(structure)
        copies = [Shard(number, shard.rows) for number in range(devices.n)]
        _seconds(path, copies, devices, 1)  # compiles, for the runs that are timed to find on disk
        seconds = _seconds(path, copies, devices, LONG_STEPS) - _seconds(path, copies, devices, SHORT_STEPS)
        networks = len(shard.rows) * len(copies)
        some = shard.rows[:: -(-len(shard.rows) // PLAIN_NETWORKS)]
        plain.train(some, 1)
        start = time.perf_counter()
        plain.train(some, PLAIN_STEPS)
        plain_rate = len(some) * PLAIN_STEPS / (time.perf_counter() - start)
        yield Speed(structure, networks, plain_rate, networks * (LONG_STEPS - SHORT_STEPS) / seconds)


def _seconds(path: Path, pieces: list[Shard], devices: Devices, steps: int) -> float:
    spec: Spec = load_spec(path, overrides={"trainer.max_steps": (steps, "bench")})
    with TemporaryDirectory() as folder:
        run = Run(spec, Path(folder))
        start = time.perf_counter()
        for _ in train_shards([(run, piece) for piece in pieces], devices, Progress()):
            pass
        return time.perf_counter() - start
