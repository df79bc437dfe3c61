"""Tests of the suite under faults: kills in a shard, divergence, memory, disks, other runs, damaged files."""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import __main__, ensemble
from common.cli import main
from common.ensemble import Ensemble
from common.errors import InputError
from common.features import Draws, Independent
from common.runs import shard as one_shard
from common.runs import training, workers
from common.runs.store import Run
from common.runs.training import Devices, Progress, train, work
from common.runs.workers import CONTEXT
from common.specs.spec import Spec
from common.specs.sweep import Shard, shards
from replications.toy_models_of_superposition.model import ToyModel
from tests.conftest import ROOT, SETTLING

ONE = Devices("cpu", 1)
FEW = {"trainer__max_steps": "10"}
INCIDENTAL = "replications.incidental_polysemanticity"

pytestmark = pytest.mark.usefixtures("uncompiled")


def trained(run: Run, progress: Progress | None = None) -> pd.DataFrame:
    train([run], ONE, progress)
    table = run.table()
    assert table is not None
    return table


class Told(Progress):
    def __init__(self) -> None:
        self.steps = 0
        self.notes: list[str] = []

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        self.steps += network_steps

    def noted(self, run: Run, note: str) -> None:
        self.notes.append(note)


# -- a kill inside a shard

SCHEDULE = "{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 100}}"
DUPLICATED = "{n_hidden: 8, l1: .002, duplicate_at: 40, noise: .01}"
NOISE = "{n_features: 4, n_hidden: 8, excess_kurtosis: 0}"
MODELS = {
    "draws": {"lr_scheduler": SCHEDULE},
    "momentum": {"optimizer": "{class_path: torch.optim.SGD, init_args: {lr: .02, momentum: .9}}"},
    "settling": SETTLING,
    "duplicated": {
        "model": f"{{class_path: {INCIDENTAL}.readers_model.DuplicatedNeurons, init_args: {DUPLICATED}}}",
        "features": "{class_path: common.features.Basis, init_args: {n_features: 8}}",
        "sweep": "[{duplicate: [true, false]}]",
    },
    "recorded": {
        "model": f"{{class_path: {INCIDENTAL}.noise_model.NoisyAutoencoder, init_args: {{}}}}",
        "features": f"{{class_path: {INCIDENTAL}.noise_model.HiddenNoise, init_args: {NOISE}}}",
        "sweep": "[{sigma: [.1, .2]}]",
    },
}


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Trains until the first shard has stored a checkpoint after so many steps, and no further."""

    def stop(run: Run, step: int, devices: Devices = ONE) -> None:
        write_partial = Run.write_partial

        def write_and_stop(self: Run, shard: Shard, state: dict[str, Any]) -> None:
            if state["global_step"] == step:
                write_partial(self, shard, state)
                raise ArithmeticError

        with monkeypatch.context() as patch:
            patch.setattr(one_shard, "PARTIAL_S", 0.0)
            patch.setattr(one_shard, "PARTIAL_SHARE", np.inf)
            patch.setattr(ensemble, "BLOCK_STEPS", 1)  # a checkpoint may come between any two steps
            patch.setattr(Run, "write_partial", write_and_stop)
            with pytest.raises(InputError, match="ArithmeticError"):
                train([run], devices)

    return stop


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_shard_goes_on_from_its_checkpoint_on_a_gpu(
    small: Any, tmp_path: Path, stop: Any, accelerator: str, name: str
) -> None:
    spec, devices = small(**MODELS[name], shard_size="100"), Devices(accelerator, 1)
    whole, run = Run(spec, tmp_path / "whole"), Run(spec, tmp_path / "stopped")
    step = 40 * (20 if name == "settling" else 1)
    stop(run, step, devices)
    told = Told()
    train([whole], devices)
    train([run], devices, told)
    assert told.notes == []  # such as that the checkpoint could not be used
    table, expected = run.table(), whole.table()
    assert table is not None
    assert expected is not None
    pd.testing.assert_frame_equal(table, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("step", [40, 73])
def test_a_shard_goes_on_from_its_checkpoint_to_the_same_bits(
    small: Any, tmp_path: Path, stop: Any, monkeypatch: pytest.MonkeyPatch, name: str, step: int
) -> None:
    spec = small(**MODELS[name], shard_size="100")
    whole = trained(Run(spec, tmp_path / "whole"))
    run = Run(spec, tmp_path / "stopped")
    stop(run, step * 20 if name == "settling" else step)
    assert len(list(run.folder.glob("partial/*"))) == 1

    begun = []
    training_step = Ensemble.training_step

    def spy(self: Ensemble, batches: Iterator[torch.Tensor]) -> None:
        begun.append(self.global_step)
        training_step(self, batches)

    monkeypatch.setattr(Ensemble, "training_step", spy)
    told = Told()
    total = work(run)
    pd.testing.assert_frame_equal(trained(run, told), whole, check_exact=True)
    assert begun[0] == (step * 20 if name == "settling" else step)
    assert told.steps == total
    assert not (run.folder / "partial").exists()


def test_draws_can_begin_in_the_middle() -> None:
    features = Independent(3, 0.5, batch_size=7)
    whole = [batch for batch, _ in zip(Draws(features, [5, 1]), range(80), strict=False)]
    for skip in (0, 1, 31, 32, 33, 70):
        rest = zip(whole[skip:], Draws(features, [5, 1], skip=skip), strict=False)
        assert all(torch.equal(one, other) for one, other in rest)


def test_short_shards_write_no_checkpoint(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "write_partial", None)
    # however slow the machine is
    monkeypatch.setattr(one_shard, "time", SimpleNamespace(monotonic=lambda: 0.0, process_time=lambda: 0.0))
    trained(Run(small(), tmp_path))


def test_a_damaged_or_foreign_checkpoint_is_ignored(small: Any, tmp_path: Path, stop: Any) -> None:
    spec = small(shard_size="100")
    run = Run(spec, tmp_path)
    (shard,) = shards(spec)
    stop(run, 40)
    assert run.partial(shard) is not None
    assert run.partial(Shard("0-0", shard.rows[:3])) is None
    (path,) = run.folder.glob("partial/*")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert run.partial(shard) is None
    told = Told()
    trained(run, told)
    assert told.steps == 18 * 100


class Remembers(ToyModel):
    """Has a hook of its own, and does not say what it changes."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps += 1


def test_a_model_that_may_not_be_resumed_exactly_writes_no_checkpoint(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"{{class_path: {__name__}.Remembers, init_args: {{n_hidden: 1}}}}"
    monkeypatch.setattr(one_shard, "PARTIAL_S", 0.0)
    monkeypatch.setattr(Run, "write_partial", None)
    trained(Run(small(**FEW, model=model), tmp_path))


# -- networks that diverge


class Diverging(ToyModel):
    """Of one seed the start is such that the loss is not finite; metrics that cannot do with that."""

    def on_train_start(self) -> None:
        with torch.no_grad():
            seeds = torch.tensor(self.distinct_seeds)[self.seed_index]
            self.weights["weight"][seeds == 1] = torch.inf

    def metrics(self) -> dict[str, torch.Tensor]:
        weight = self.weights["weight"].detach()
        torch.linalg.eigh(weight.mT @ weight)  # raises for a NaN
        return {"count": (weight > 0).sum(dim=(1, 2)), **super().metrics()}


def test_a_network_that_diverges_leaves_the_others_alone(small: Any, tmp_path: Path) -> None:
    model = f"{{class_path: {__name__}.Diverging, init_args: {{n_hidden: 1}}}}"
    run = Run(small(model=model), tmp_path / "diverging", "all")
    table = trained(run)
    lost = table["seed"] == 1
    columns = [*trained(Run(small(), tmp_path)).columns[4:], "count"]
    assert table.loc[lost, columns].isna().all(axis=None)
    whole = trained(Run(small(), tmp_path))
    pd.testing.assert_frame_equal(table[~lost][whole.columns], whole[~lost], check_exact=True)
    assert table.loc[~lost, "count"].notna().all()
    rows, state = run.weights(shards(run.spec)[0])
    infinite = ~state["weights.weight"].isfinite().all(dim=(1, 2)).numpy()
    assert (infinite == lost.loc[rows].to_numpy()).all()


def test_a_run_with_a_diverged_network_says_so_and_its_claims_are_invalid(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = example / "replications/example/model.py"
    text = model.read_text(encoding="utf-8")
    hook = (
        "\n    def on_train_start(self) -> None:\n"
        "        for weight in self.weights.values():\n"
        "            weight.data[1] = float('nan')\n"
    )
    model.write_text(
        text.replace("\n    @staticmethod\n    def loss", hook + "\n    @staticmethod\n    def loss")
    )
    spec = example / "replications/example/projection.yaml"
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("max_steps: 2000", "max_steps: 2"), encoding="utf-8")
    assert main(["--root", str(example), "run", "--devices", "1"]) == 1
    said = capsys.readouterr().out
    assert "example/projection full: 1 of " in said
    assert "networks diverged: their loss or weights are not finite; the first: " in said
    assert "seed = 0" in said
    assert "squared_norm: new: invalid" in said


# -- too little memory


def too_little_memory(n_networks: int, error: type[Exception]) -> Any:
    """In place of `losses_and_gradients`: fails for more networks than that."""
    losses_and_gradients = Ensemble.losses_and_gradients

    def limited(self: Ensemble, uniforms: torch.Tensor, seed_index: torch.Tensor) -> Any:
        if len(seed_index) > n_networks:
            raise error(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return losses_and_gradients(self, uniforms, seed_index)

    return limited


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_a_shard_that_does_not_fit_is_halved(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    spec = small(**FEW, shard_size="18")
    whole = trained(Run(spec, tmp_path / "whole"))
    monkeypatch.setattr(one_shard, "LANES", 1)  # no copies of networks, which would count
    monkeypatch.setattr(Ensemble, "losses_and_gradients", too_little_memory(5, error))
    run, told = Run(spec, tmp_path, "all"), Told()
    total = work(run)
    pd.testing.assert_frame_equal(trained(run, told), whole, rtol=1e-5)
    assert [run.has(shard) for shard in shards(run.spec)] == [True]
    assert told.steps == total
    # 18 networks, and halves of 9, whose halves of 4 and 5 fit; each line once, though there are two of 9
    assert [note.split()[0] for note in told.notes] == ["18", "9"]
    rows, state = run.weights(shards(run.spec)[0])
    assert rows == list(shards(spec)[0].rows.index)
    np.testing.assert_array_equal(
        state["weights.weight"].flatten(1),
        run.table().loc[rows, ["weight_0_0", "weight_0_1"]],  # type: ignore[union-attr]
    )


def test_one_network_that_does_not_fit_is_said_in_one_line(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ensemble, "losses_and_gradients", too_little_memory(0, torch.OutOfMemoryError))
    what = r"nobody/small: out of memory with a single network: .*density = 1.0, .*seed = 0$"
    with pytest.raises(InputError, match=what):
        train([Run(small(**FEW), tmp_path)], ONE)


def test_another_error_is_not_taken_for_too_little_memory(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> Any:
        raise RuntimeError("the size of tensor a (2) must match")

    monkeypatch.setattr(Ensemble, "losses_and_gradients", fails)
    with pytest.raises(InputError, match=r"training failed: RuntimeError: the size of tensor .* must match$"):
        train([Run(small(**FEW), tmp_path)], ONE)


def _ends(run: Run, shard: Shard, accelerator: str, position: int) -> None:
    """What a worker does in place of training: end, as the run's folder says."""
    code = int(run.variant.parents[2].name)
    os.kill(os.getpid(), -code) if code < 0 else os._exit(code)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            -signal.SIGKILL,
            "was killed, most likely by the system because memory ran out; fewer workers need less",
        ),
        (-signal.SIGSEGV, "ended before its work was done, by SIGSEGV; its output is above"),
        (-signal.SIGBUS, "ended before its work was done, by SIGBUS; "),
        (3, "ended before its work was done, with exit code 3; "),
        (0, "ended before its work was done, with exit code 0; "),
    ],
)
def test_a_worker_that_ends_too_early_ends_the_run_with_the_reason(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    monkeypatch.setattr(training, "_train_in_worker", _ends)
    with pytest.raises(InputError, match=f"^a worker process {message}.*finished work is kept$"):
        train([Run(small(**FEW), tmp_path / str(code))], Devices("cpu", 2))


@pytest.mark.parametrize("where", ["pool", "queue"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError(errno.EACCES, "Permission denied"),
        ImportError("This platform lacks a functioning sem_open implementation"),
        NotImplementedError("system provides too few semaphores"),
    ],
)
def test_where_workers_cannot_be_started_it_is_said_and_one_process_judges(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    def fails(*arguments: Any) -> None:
        raise error

    if where == "pool":
        monkeypatch.setattr(workers, "ProcessPoolExecutor", fails)
    else:
        monkeypatch.setattr(CONTEXT, "SimpleQueue", fails)
    said = re.escape(f"worker processes cannot be started: {error} (on Linux, does /dev/shm exist, ")
    with pytest.raises(InputError, match=f"^{said}.*; `--devices 1` trains in one process$"):
        train([Run(small(**FEW), tmp_path)], Devices("cpu", 2))
    if where == "pool":
        with workers.spread(workers.WORTH_WORKERS) as spread_map:
            assert set(spread_map(_process, range(workers.WORTH_WORKERS))) == {os.getpid()}
    assert len(trained(Run(small(**FEW), tmp_path))) == 18


def _process(number: int) -> int:
    return os.getpid()


CHANGES = {"trainer.max_steps": 2, "trainer.compile": False, "shard_size": 2}
UNGUARDED = {
    "the notebook's": f"""
from common.notebook import result
r = result('example/projection', overrides={CHANGES!r}, root=ROOT, train=True, devices=2)
print(len(r.table), "networks")
""",
    "the command's": f"""
import sys
from common.cli import main
changes = {[part for key, value in CHANGES.items() for part in ("--set", f"{key}={value}")]!r}
sys.exit(main(["--root", ROOT, "run", 'example/projection', "--devices", "2", *changes]))
""",
}


@pytest.mark.parametrize("kind", UNGUARDED)
def test_a_script_that_workers_run_again_is_told_so(example: Path, tmp_path: Path, kind: str) -> None:
    text = UNGUARDED[kind].replace("ROOT", repr(str(example)))
    script = tmp_path / "script.py"
    script.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = (sys.executable, *command)
        return subprocess.run(
            command, input=given, capture_output=True, text=True, env=environment, check=False
        )

    done = run(str(script))
    assert done.returncode == (1 if kind == "the notebook's" else 2)
    assert "put its code below `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == (kind == "the notebook's")  # the script's own, of no worker
    assert "memory" not in done.stderr
    if kind == "the command's":
        return
    # no worker can run what came as input, nor has to
    done = run("-", given=text)
    assert done.returncode == 0, done.stderr
    indented = text.replace("\n", "\n    ")
    script.write_text(f"if __name__ == '__main__':{indented}", encoding="utf-8")
    shutil.rmtree(example / "results")
    assert run(str(script)).returncode == 0


# -- folders that cannot be written


@contextlib.contextmanager
def no_space(name: str) -> Iterator[None]:
    """The disk is full when a file comes that has this in its name."""
    write_bytes = Path.write_bytes

    def limited(self: Path, data: Any) -> int:
        if name in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write_bytes(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", limited)
        yield


def test_a_full_disk_keeps_what_is_done_and_the_same_command_goes_on(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--root",
        str(example),
        "run",
        "--devices",
        "1",
        "--set",
        "shard_size=4",
        "--seeds",
        "8",
        "--set",
        "trainer.max_steps=20",
    ]
    with no_space("0-1."):  # the second shard
        assert main(command) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"replicate: {example}/results/example/projection/full/")
    assert "cannot be written: No space left on device; finished work is kept" in line
    (shard,) = example.glob("results/example/projection/full/*/shards/*")  # and none of the control
    before = shard.stat().st_mtime_ns
    assert main(command) == 0
    assert shard.stat().st_mtime_ns == before


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting needs Linux and root")
def test_a_full_file_system(small: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(out)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (out / "filler").write_bytes(bytes(224 << 10))
        run = Run(small(**FEW), out)
        with pytest.raises(InputError, match=f"{run.folder}.*cannot be written: No space left on device"):
            train([run], ONE)
        (out / "filler").unlink()
        assert len(trained(run)) == 18
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_where_one_cannot_write_nothing_is_trained(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_shard, "fit_shard", None)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"file/nobody/small/full/\w+: cannot be written: Not a directory"):
        train([Run(small(**FEW), tmp_path / "file")], ONE)
    with no_space(""), pytest.raises(InputError, match="No space left"):
        train([Run(small(**FEW), tmp_path / "full")], ONE)

    def refused(self: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError, match="cannot be written: Permission denied"):
        train([Run(small(**FEW), tmp_path / "refused")], ONE)


# -- two runs in one folder

HOLDS = """\
import sys, time
from pathlib import Path
import fcntl
file = Path(sys.argv[1]).open("a+")
fcntl.flock(file, fcntl.LOCK_SH if sys.argv[2] == "shared" else fcntl.LOCK_EX)
file.write("77 on elsewhere\\n")
file.flush()
print("holds", flush=True)
time.sleep(600)
"""


def test_a_second_run_in_one_folder_is_refused_until_the_first_is_killed(small: Any, tmp_path: Path) -> None:
    run = Run(small(**FEW), tmp_path)
    run.folder.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDS, str(run.folder / "lock"), "exclusive"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        with pytest.raises(
            InputError, match="another run \\(process 77 on elsewhere\\) is writing here; wait"
        ):
            train([run], ONE)
        with pytest.raises(InputError, match="another run"), run.locked(shared=True):
            pass
        assert not list(run.folder.glob("shards/*"))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(trained(run)) == 18
    assert (run.folder / "lock").read_text(encoding="utf-8").startswith(f"{os.getpid()} on ")


def test_shared_locks_go_together_and_not_with_others(small: Any, tmp_path: Path) -> None:
    run = Run(small(**FEW), tmp_path)
    with run.locked(shared=True), Run(small(**FEW), tmp_path).locked(shared=True):
        locked = pytest.raises(InputError, match=r"another run \(.*\) is writing here")
        with locked:
            train([run], ONE)
    assert len(trained(run)) == 18


def test_without_locks_it_goes_on(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("common.runs.store.fcntl.flock", unsupported)
    assert len(trained(Run(small(**FEW), tmp_path))) == 18


# -- damaged files


@pytest.fixture
def finished(small: Any, tmp_path: Path) -> tuple[Spec, Run, pd.DataFrame]:
    """A finished run that keeps the weights of all networks."""
    run = Run(small(trainer__max_steps="2", shard_size="9"), tmp_path, "all")
    return run.spec, run, trained(run)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(["shards/00001.*", "shards/*", "weights/*", "instances.parquet", "manifest.json"]),
    how=st.sampled_from(["flipped", "cut", "emptied", "removed"]),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    table_too=st.booleans(),
)
def test_any_damage_is_noticed_and_made_good(
    finished: tuple[Spec, Run, pd.DataFrame], kind: str, how: str, where: float, bit: int, table_too: bool
) -> None:
    """Of every kind of file, anywhere in it; with the final table lost as well, or not."""
    _, run, table = finished
    paths = sorted(run.folder.glob(kind))
    for path in paths:
        content = bytearray(path.read_bytes())
        place = int(where * len(content))
        if how == "flipped" and content:  # one that was not needed may still be as the last example left it
            content[place] ^= 1 << bit
        path.write_bytes({"flipped": bytes(content), "cut": bytes(content[:place])}.get(how, b""))
        if how == "removed":
            path.unlink()
    if table_too:
        (run.folder / "instances.parquet").unlink(missing_ok=True)
    noticed = run.table() is None or work(run) > 0
    # shards are of no further use once there is the table
    assert noticed or (kind.startswith("shards") and not table_too)
    pd.testing.assert_frame_equal(trained(run), table, check_exact=True)
    assert work(run) == 0
    assert run.manifest() is not None


def test_a_run_that_was_stopped_before_it_joined_its_shards_is_joined(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--root", str(example), "run", "--devices", "1", "--set", "trainer.max_steps=2"]
    assert main(command) == 0
    for path in example.glob("results/*/*/*/*/manifest.json"):
        path.unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert "Nothing to train" in capsys.readouterr().out


# -- interrupts


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_one_line(
    example: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    """In the middle of Lightning's training loop, which would make another exit of it, or train on."""

    def interrupted(self: Ensemble) -> None:
        if self.global_step == 5:
            signal.raise_signal(number)

    monkeypatch.setattr(Ensemble, "before_step", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        assert main(["--root", str(example), "run", "--devices", "1"]) == code
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert capsys.readouterr().err == "replicate: stopped; run the same command again to continue\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_while_modules_are_imported_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> None:
            if name == "common.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "common.cli")
    monkeypatch.delattr("common.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted, *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["replicate", "list"])
    assert __main__.main() == 130
    assert capsys.readouterr().err == "replicate: stopped; run the same command again to continue\n"
