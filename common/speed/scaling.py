"""How time and memory grow with a sweep: linearly in networks and steps, and memory only with the shard."""

import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from common.errors import InputError
from common.runs.store import Run
from common.runs.training import Devices, Progress
from common.runs.workers import startable
from common.specs.spec import Spec, load_spec
from common.specs.sweep import instances, shards

FACTORS = (1, 2, 4, 8)

NETWORKS, STEPS = 64, 500
"""The smallest sweep: about this many networks (whole seeds), in one shard."""

LEAST_S = 1.0
"""The least seconds of the smallest sweep; it gets more seeds until it takes as long.

The fixed costs of a step and of a shard are then a small part.
"""


class Measured(NamedTuple):
    """One sweep trained in its own process: its size, seconds, and peak memory in bytes."""

    networks: int
    steps: int
    seconds: float
    memory: int


class Axis(NamedTuple):
    """What was made larger, and the fitted exponents with which time and memory grow with it."""

    name: str
    runs: list[Measured]
    time_exponent: float
    memory_exponent: float


def scaling(spec: Spec, devices: Devices) -> Iterator[Axis]:
    """Train 1, 2, 4 and 8 times as many networks, then steps, then networks in one shard, on one device.

    Raises:
        InputError: if nothing is trained.
    """
    if spec.features_class is None:
        raise InputError(f"{spec.name} is calculated, not trained; name a replication that is trained")
    of_a_seed = len(instances(_changed(spec, {"seeds": 1})))
    seeds = max(1, round(NETWORKS / of_a_seed))

    def small(networks: int = 1, steps: int = 1, shard: int = 1) -> dict[str, Any]:
        return {
            "seeds": seeds * networks,
            "trainer.max_steps": STEPS * steps,
            "trainer.stop_when_settled": False,
            "shard_size": seeds * of_a_seed * shard,
            "shard_weights": 10**12,
        }

    while _in_own_process(spec, small(), devices.accelerator).seconds < LEAST_S:
        seeds *= 2
    for name, sweeps in (
        ("networks, in shards of one size", [small(networks=k) for k in FACTORS]),
        ("steps", [small(steps=k) for k in FACTORS]),
        ("networks, in one shard", [small(networks=k, shard=k) for k in FACTORS]),
    ):
        runs = [_in_own_process(spec, changes, devices.accelerator) for changes in sweeps]
        yield Axis(name, runs, *(_exponent([getattr(r, of) for r in runs]) for of in ("seconds", "memory")))


def _exponent(values: list[float]) -> float:
    return float(np.polyfit(np.log(FACTORS), np.log(values), 1)[0])


def _changed(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    overrides = {key: (value, "--scaling") for key, value in changes.items()}
    return load_spec(spec.path, spec.profile, overrides=overrides)


def _in_own_process(spec: Spec, changes: Mapping[str, Any], accelerator: str) -> Measured:
    """Train in a new process, because the peak memory of a process cannot be reset."""
    with startable("`--scaling` trains each sweep in its own process"):
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with pool:
        return pool.submit(_measure, spec, changes, accelerator).result()


def _measure(spec: Spec, changes: Mapping[str, Any], accelerator: str) -> Measured:
    _train(_changed(spec, {**changes, "trainer.max_steps": 1}), accelerator)  # compiles
    start = time.perf_counter()
    networks = _train(_changed(spec, changes), accelerator)
    seconds = time.perf_counter() - start
    import resource  # not available on all systems

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if accelerator == "cuda":
        memory = torch.cuda.max_memory_allocated()
    return Measured(networks, changes["trainer.max_steps"], seconds, memory)


def _train(spec: Spec, accelerator: str) -> int:
    """Train the sweep, shard by shard; returns its number of networks."""
    cut = shards(spec)
    with TemporaryDirectory() as folder:
        run = Run(spec, Path(folder))
        for _ in Devices(accelerator, 1).train_shards([(run, shard) for shard in cut], Progress()):
            pass
    return sum(len(shard.rows) for shard in cut)
