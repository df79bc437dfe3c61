"""Shards as tasks of a Ray cluster: trained on many machines, stored by the one that runs the command."""

import logging
import os
import platform
import socket
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from common.errors import InputError, one_line
from common.runs.shard import Session, train_shard
from common.runs.store import Run, versions
from common.runs.training import Devices, Progress, network_steps
from common.specs.spec import Spec
from common.specs.sweep import Shard
from common.system.files import SUITE

RETRIES = 5
"""How often a shard is sent again after its worker or machine died."""

WAITING = 2
"""Shards sent per device: one in training and one waiting, so that no device waits for this machine."""

REPORT_S = 1.0
"""Seconds between two progress reports of one shard."""

_LOOPBACK = ("localhost", "127.0.0.1")


class _Result(NamedTuple):
    """What comes back for one shard: `state` only if its weights are kept, `notes` for `Progress`."""

    table: pd.DataFrame
    state: dict[str, Tensor]
    device: str
    notes: list[str]


@contextmanager
def cluster(
    address: str | None, roots: list[Path], accelerator: str = "auto", count: int | None = None
) -> Iterator["Cluster"]:
    """The Ray cluster at `address` or RAY_ADDRESS, or else one on this machine alone, for this context only.

    Its workers get `common/` and the folder `replications/` of each of `roots` from here; everything else
    that these import must be installed there, in the same versions. At most `count` shards are trained at
    once.

    Raises:
        InputError: if Ray is not installed, there is no cluster, or it lacks such devices.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    host = _host(address) if address else None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None or host in _LOOPBACK:
        # otherwise Ray replaces the loopback address by this machine's network address, on any system,
        # whatever the name of the variable says; it is read at import
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        how = "pip install 'superposition-replications[ray]'"
        raise InputError(f"--on ray: ray is not installed; {how}") from None
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {"address": "local", "num_cpus": Devices.choose("cpu", count).n, "include_dashboard": False}
    folders = dict.fromkeys(root.resolve() / "replications" for root in [SUITE, *roots])
    modules = [str(folder) for folder in (SUITE / "common", *folders) if folder.is_dir()]
    try:
        ray.init(
            **options, runtime_env={"py_modules": modules}, log_to_driver=False, logging_level=logging.ERROR
        )
    except Exception as error:  # of many classes, including built-in ones
        raise InputError(f"--address {address}: {one_line(error)}") from None
    try:
        yield Cluster(ray, address, accelerator, count)
    finally:
        ray.shutdown()


def _host(address: str) -> str | None:
    """The host in `address`, None if it has another form.

    Raises:
        InputError: if nothing answers there, which Ray would notice only after minutes.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return None
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({one_line(error)}); "
            "expected HOST:PORT as shown by `ray start --head`, or auto"
        ) from None
    return host


class Cluster:
    """A Ray cluster that this process is connected to, as a `Place` to train shards in."""

    def __init__(self, ray: Any, address: str | None, accelerator: str, count: int | None) -> None:
        self._ray = ray
        if accelerator == "auto":
            accelerator = "cuda" if self._has("GPU") else "cpu"
        self.accelerator = accelerator
        self.count = count
        self._resource = "GPU" if accelerator == "cuda" else "CPU"
        self._device = "CPU"
        if not self.n:
            raise InputError(
                f"--on ray: the cluster{f' at {address}' if address else ''} has no {self._resource} now"
            )

    def _has(self, resource: str) -> int:
        return int(self._ray.cluster_resources().get(resource, 0))

    @property
    def n(self) -> int:
        """The number of devices that train: `count`, or as many as the cluster has now; nodes come and go."""
        return min(self.count or 10**9, self._has(self._resource))

    def __str__(self) -> str:
        """The name of the device class, as in the manifest."""
        return self._device

    def most(self, spec: Spec, shard: Shard) -> int | None:
        """See `Place.most`: the memory of other machines' GPUs is not known here."""
        return None

    def train_shards(self, todo: list[tuple[Run, Shard]], progress: Progress) -> Generator[tuple[Run, Shard]]:
        """Train shards on the cluster's workers, and store them here; yields each when it is done.

        A shard whose worker or machine dies is sent again. An error in our own code ends the rest, and is
        raised.
        """
        ray = self._ray
        needs = {"num_gpus": 1} if self.accelerator == "cuda" else {"num_cpus": 1}
        task = ray.remote(**needs, max_retries=RETRIES)(_train_at_worker)
        reports = _reports(ray)
        runs = {id(run): ray.put(run) for run, _ in todo}
        installed = versions()
        waiting = deque(range(len(todo)))
        sent: dict[Any, int] = {}
        told = dict.fromkeys(range(len(todo)), 0)
        noted: set[str] = set()

        def tell(position: int, steps: int) -> None:
            # a shard that is trained again repeats earlier reports
            if steps > told[position]:
                progress.advanced(*todo[position], steps - told[position])
                told[position] = steps

        try:
            while waiting or sent:
                room = self.n * (WAITING if self.count is None else 1)
                while waiting and len(sent) < max(room, 1):
                    position = waiting.popleft()
                    run, shard = todo[position]
                    ref = task.remote(runs[id(run)], shard, self.accelerator, position, reports, installed)
                    sent[ref] = position
                ray.wait(list(sent), timeout=REPORT_S)
                for position, steps in ray.get(reports.take.remote()).items():
                    tell(position, steps)
                failed: Exception | None = None
                for ref in ray.wait(list(sent), num_returns=len(sent), timeout=0)[0]:
                    position = sent.pop(ref)
                    run, shard = todo[position]
                    try:
                        result: _Result = ray.get(ref)
                    except ray.exceptions.RayError as error:  # first keep the others that are done
                        failed = failed or _own_error(ray, error, run, shard)
                        continue
                    for text in dict.fromkeys(result.notes):
                        if text not in noted:
                            noted.add(text)
                            progress.noted(run, text)
                    self._device = result.device
                    run.write_trained(shard, result.table, result.state)
                    tell(position, network_steps(run, [shard]))
                    progress.finished(run, shard, result.table)
                    yield run, shard
                if failed is not None:
                    raise failed
        finally:
            for ref in sent if ray.is_initialized() else []:
                ray.cancel(ref, force=True)


def _own_error(ray: Any, error: Exception, run: Run, shard: Shard) -> Exception:
    """What went wrong on a worker: the error of our own code, or Ray's message in one line."""
    cause = getattr(error, "cause", None)
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(cause, Exception):
        if not isinstance(cause, ImportError | ray.exceptions.RayError):
            return cause
        error = cause
    what = one_line(error)
    if isinstance(error, ImportError):
        what += "; the workers need the same packages as this machine"
    return InputError(f"--on ray: {run.spec.name}, shard {shard.name}: {what}")


def _reports(ray: Any) -> Any:
    """An actor on this machine that collects the progress of each shard until it is asked for."""

    class Reports:  # defined here so that it is sent by value: its process need not import torch
        def __init__(self) -> None:
            self.steps: dict[int, int] = {}

        def add(self, position: int, steps: int) -> None:
            self.steps[position] = steps

        def take(self) -> dict[int, int]:
            taken, self.steps = self.steps, {}
            return taken

    # it lives as long as this process
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0)(Reports).options(scheduling_strategy=here).remote()


def _train_at_worker(
    run: Run, shard: Shard, accelerator: str, position: int, reports: Any, installed: dict[str, str]
) -> _Result:
    """Train one shard, in a process of the cluster that has the device to itself."""
    for name, version in versions().items():
        if version != installed[name]:
            raise InputError(
                f"--on ray: {platform.node()} has {name} {version}, but this machine has {installed[name]}; "
                "numbers may differ between versions: install the same everywhere, as with requirements.lock"
            )
    # see `_start_worker` in common/runs/training.py
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    done, last = 0, 0.0

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last >= REPORT_S:
            last = time.monotonic()
            reports.add.remote(position, done)

    notes: list[str] = []
    trained = train_shard(run, shard, Session(accelerator, 0, advance, note=notes.append))
    device = torch.cuda.get_device_name(0) if accelerator == "cuda" else "CPU"
    return _Result(trained.table, trained.state, device, notes)
