"""Tests of runs/cluster.py, on two nodes of a Ray cluster that is this machine's own."""

import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from common.cli import main
from common.errors import InputError
from common.runs.cluster import _train_at_worker, cluster
from common.runs.store import Run, versions
from common.runs.training import Devices, Progress, train
from common.specs.sweep import Shard, shards
from common.verdicts.judge import load_replication

# the loopback only, nothing said to anyone (see runs/cluster.py), and workers no slower than other tests
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

NAME = "example/projection"
STEPS = 300
CHANGES = {"trainer.max_steps": STEPS, "shard_size": 5}
LIMIT_S = 500
"""After so many seconds a test of Ray fails, which on a free machine takes a small part of that."""

NOTING = '''
import time
from pathlib import Path

import ray

import common

NOTES, FAILS = Path("{notes}"), {fails}


class Noting(Autoencoder):
    """Notes where each training starts and ends, and by which code; takes its time in the cluster."""

    def _where(self) -> str:
        return ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"

    def _note(self, what: str) -> None:
        where = self._where()
        with NOTES.open("a") as file:
            file.write(f"{what} {where} {torch.get_num_threads()} {common.__path__[0]} {__file__}\\n")

    def on_fit_start(self) -> None:
        self._note("start")
        if NOTES.read_text().count("start") == FAILS:
            raise ValueError("as\\nasked for")

    def before_step(self) -> None:
        time.sleep(0.01 if self._where() != "here" else 0)

    def on_fit_end(self) -> None:
        self._note("end")
'''


@pytest.fixture
def ray() -> Iterator[Any]:
    """Ray, of which nothing is left running after the test, nor after `LIMIT_S`."""
    ray = pytest.importorskip("ray")

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield ray
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        ray.shutdown()


def noting(root: Path, *, fails: int = 0) -> Path:
    """Have the example's model at `root` note what it does, in the file that is given back.

    The training that is the one of number `fails` to start has an error.
    """
    model = next(root.glob("replications/example/*model*.py"))
    notes = root / "notes"
    text = NOTING.replace("{notes}", str(notes)).replace("{fails}", str(fails))
    model.write_text(model.read_text(encoding="utf-8") + text, encoding="utf-8")
    spec = root / "replications/example/projection.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace(".Autoencoder", ".Noting"), encoding="utf-8")
    return notes


def of_each_run(root: Path, out: Path) -> list[Run]:
    given = {key: (value, "the test") for key, value in CHANGES.items()}
    return load_replication(root, NAME, overrides=given, out=out).runs


def digests(runs: list[Run]) -> list[str]:
    return [(run.manifest() or {})["instances_digest"] for run in runs]


class Killing(Progress):
    """Kills a node once while it trains."""

    def __init__(self, notes: Path, node_id: str, kill: Callable[[], None]) -> None:
        self.notes, self.node_id, self.kill = notes, node_id, kill
        self.steps: Counter[str] = Counter()
        self.killed = False

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        self.steps[run.hash] += network_steps
        told = self.notes.read_text(encoding="utf-8")
        if not self.killed and told.count(f"start {self.node_id}") > told.count(f"end {self.node_id}"):
            self.kill()
            self.killed = True


@pytest.mark.ray
def test_a_run_on_a_cluster_that_loses_a_machine_has_the_tables_of_a_local_run(
    example: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, ray: Any
) -> None:
    from ray.cluster_utils import Cluster

    notes = noting(example)
    out = tmp_path_factory.mktemp("out")
    monkeypatch.chdir(out)  # a worker on this machine looks for code in its driver's folder, too
    local = of_each_run(example, out / "local")
    train(local, Devices("cpu", 1))
    given = {key: (value, "the test") for key, value in {**CHANGES, "seeds": 1}.items()}
    few = load_replication(example, NAME, overrides=given, out=out / "ray").run
    train([few], Devices("cpu", 1))  # of whose networks the cluster trains none
    notes.unlink()

    each = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args={**each, "include_dashboard": False})
    try:
        second = nodes.add_node(**each)
        killing = Killing(notes, second.node_id, lambda: nodes.remove_node(second, allow_graceful=False))

        @contextmanager
        def shown(*_: Any) -> Iterator[Progress]:
            yield killing

        monkeypatch.setattr("common.commands.run.shown", shown)
        changes = [part for key, value in CHANGES.items() for part in ("--set", f"{key}={value}")]
        place = ["--on", "ray", "--address", nodes.address, "--out", str(out / "ray")]
        assert main(["--root", str(example), "run", NAME, *changes, *place]) == 0
    finally:
        ray.shutdown()
        nodes.shutdown()
    assert killing.killed
    there = of_each_run(example, out / "ray")
    assert digests(there) == digests(local)
    networks = {run.hash: len(run.rows) for run in there}
    networks[few.hash] -= len(few.rows)
    assert killing.steps == {run_hash: n * STEPS for run_hash, n in networks.items()}

    told = [line.split() for line in notes.read_text(encoding="utf-8").splitlines()]
    n_shards = sum(len(shards(run.spec)) for run in there)
    assert Counter(what for what, *_ in told)["end"] == n_shards
    assert Counter(what for what, *_ in told)["start"] > n_shards  # what was lost was trained again
    assert len({where for _, where, *_ in told}) == 2
    assert {threads for _, _, threads, *_ in told} == {"1"}
    # their code, and this suite's, was sent to the workers
    assert all("runtime_resources" in path for *_, common, model in told for path in (common, model))


@pytest.mark.ray
def test_an_error_of_our_own_ends_the_run_and_keeps_what_is_done(
    example: Path, tmp_path_factory: pytest.TempPathFactory, ray: Any
) -> None:
    """As of a local run; here on a cluster that is made for this run."""
    noting(example, fails=2)
    run = of_each_run(example, tmp_path_factory.mktemp("out"))[0]
    says = r"/replications/example/model\.py:\d+: .*, shard 0-1: training failed: ValueError: as asked for$"
    with cluster(None, [example], count=1) as place, pytest.raises(InputError, match=says):
        train([run], place)
    assert not ray.is_initialized()
    assert [shard.name for shard in shards(run.spec) if run.has(shard)] == ["0-0"]


def test_no_cluster_at_the_address_is_said_at_once(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = time.monotonic()
    assert main(["--root", str(example), "run", "--on", "ray", "--address", f"127.0.0.1:{port}"]) == 2
    assert time.monotonic() - start < 30
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"replicate: --address 127.0.0.1:{port}: no Ray cluster answers there (")


def test_without_ray_it_is_said_how_to_install_it(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["--root", str(example), "run", "--on", "ray"]) == 2
    said = "replicate: --on ray: ray is not installed; pip install 'superposition-replications[ray]'\n"
    assert capsys.readouterr().err == said


def test_an_address_needs_a_cluster(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(example), "run", "--address", "auto"]) == 2
    assert capsys.readouterr().err == "replicate: --address auto: allowed only with --on ray\n"


def test_a_worker_with_other_versions_is_refused(small: Any, tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    here = versions() | {"torch": "1.0"}
    with pytest.raises(InputError, match=r" has torch \d.*, but this machine has 1\.0; numbers may differ"):
        _train_at_worker(run, shards(run.spec)[0], "cpu", 0, None, here)
