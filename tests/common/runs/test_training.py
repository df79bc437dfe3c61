"""Tests of runs/training.py and shard.py: the table does not depend on cuts, workers, or being stopped."""

import math
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from common.computed import Computed
from common.ensemble import Ensemble
from common.errors import InputError
from common.features import Draws, Varying
from common.runs import shard as one_shard
from common.runs import training
from common.runs.numerics import numerics, one_thread
from common.runs.shard import Session, Trained, build, fit_shard
from common.runs.store import Run
from common.runs.training import Devices, Progress, train, work
from common.specs.spec import Spec, load_spec
from common.specs.sweep import Shard, shards
from common.system.machine import processors
from tests.conftest import SETTLING, SMALL

ONE = Devices("cpu", 1)


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.tables: list[tuple[Run, int]] = []

    def advanced(self, run: Run, shard: Shard, network_steps: int) -> None:
        self.steps.append(network_steps)

    def finished(self, run: Run, shard: Shard, table: pd.DataFrame) -> None:
        self.tables.append((run, len(table)))


WEIGHTS = ["weight_0_0", "weight_0_1", "bias_0", "bias_1"]


def trained(spec: Spec, out: Path, devices: Devices = ONE) -> pd.DataFrame:
    run = Run(spec, out)
    train([run], devices)
    table = run.table()
    assert table is not None
    return table


@pytest.mark.usefixtures("uncompiled")
def test_the_table_has_a_row_per_instance_with_factors_and_metrics(small: Any, tmp_path: Path) -> None:
    table = trained(small(), tmp_path)
    assert list(table.index) == list(range(18))
    assert {"part", "density", "extra_importance", "seed", "loss", "feature_norm_1", *WEIGHTS} <= set(table)
    assert table[["density", "extra_importance", "seed"]].drop_duplicates().shape[0] == 18
    assert table["loss"].gt(0).all()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("shard_size", ["1", "5", "18"])
def test_an_instance_does_not_depend_on_the_cut(small: Any, tmp_path: Path, shard_size: str) -> None:
    """To rounding, over the first 100 steps, with the same networks in other shards and other orders."""
    table, other = trained(small(), tmp_path), trained(small(shard_size=shard_size), tmp_path)
    pd.testing.assert_frame_equal(other, table, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("uncompiled")
def test_a_schedule_and_an_entry_s_own_optimizer_are_those_of_plain_torch(small: Any, tmp_path: Path) -> None:
    own = "optimizer: {class_path: torch.optim.SGD, init_args: {lr: .5}}"
    spec = small(
        sweep=f"[{{part: base, density: .5}}, {{part: own, density: .5, {own}}}]",
        lr_scheduler="{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 30}}",
        trainer__max_steps="30",
    )
    table = trained(spec, tmp_path)
    for part, make in (("base", torch.optim.AdamW), ("own", torch.optim.SGD)):
        rows = table[table["part"] == part]
        ensemble = build(spec, rows)
        assert isinstance(ensemble, Ensemble)
        rate = spec.optimizer_args["lr"] if part == "base" else 0.5
        optimizer = make(ensemble.parameters(), lr=rate)
        for step, uniforms in zip(range(30), Draws(ensemble.features, ensemble.distinct_seeds), strict=False):
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / 30)) / 2
            _, gradients = ensemble.losses_and_gradients(uniforms, ensemble.seed_index)
            for name, weight in ensemble.weights.items():
                weight.grad = gradients[name]
            optimizer.step()
        np.testing.assert_allclose(
            rows[WEIGHTS].to_numpy(),
            torch.cat([ensemble.weights["weight"].flatten(1), ensemble.weights["bias"]], 1).detach().numpy(),
            rtol=1e-4,
            atol=1e-6,
        )


class OnTwo:
    """Takes shards as two devices would, keeps in which order, and trains them one by one."""

    n = 2

    def most(self, spec: Spec, shard: Shard) -> None:
        return None

    def train_shards(self, todo: list[tuple[Run, Shard]], progress: Progress) -> Generator[tuple[Run, Shard]]:
        self.todo = [(run, shard.name) for run, shard in todo]
        yield from ONE.train_shards(todo, progress)


@pytest.mark.usefixtures("uncompiled")
def test_one_shard_of_each_model_goes_first_and_then_the_dearest(small: Any, tmp_path: Path) -> None:
    """What is compiled is compiled early and once, and no long shard is left for the end."""
    few, many = (Run(small(trainer__max_steps=steps), tmp_path) for steps in ("10", "20"))
    control = Run(small("short"), tmp_path)
    other = Run(small(**{**SETTLING, "trainer": "{max_steps: 1}", "sweep": "[{n_hidden: 2}]"}), tmp_path)
    place = OnTwo()
    train([other, few, control, many], place)
    runs = [run for run, _ in place.todo]
    assert runs[:2] == [many, other]
    assert runs[2:] == [many] * 2 + [few] * 3 + [control] * 3


@pytest.mark.parametrize(
    ("n", "free", "sizes"),
    [(1, 10**9, [18]), (2, 10**9, [6, 6, 6]), (1, 16 * 4 * (4 + 2 * 64) * 7, [6, 6, 6]), (1, 1, [6] * 3)],
)
def test_on_a_gpu_shards_are_joined_as_far_as_memory_and_devices_allow(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, free: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, free))
    run = Run(small(), tmp_path)
    joined = training._joined(run, run.shards, Devices("cuda", n))
    assert [len(shard.rows) for shard in joined] == sizes
    assert sorted(pd.concat([shard.rows for shard in joined]).index) == sorted(run.rows.index)


@pytest.mark.usefixtures("uncompiled")
def test_on_one_device_runs_go_in_the_order_given(small: Any, tmp_path: Path) -> None:
    runs = [Run(small(trainer__max_steps=steps), tmp_path) for steps in ("10", "20")]
    told = Told()
    train(runs, ONE, told)
    assert [run for run, _ in told.tables] == [runs[0]] * 3 + [runs[1]] * 3


def test_a_spec_can_leave_compiling_out(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = trained(small(seeds="1"), tmp_path)
    monkeypatch.setattr(torch, "compile", None)
    uncompiled = trained(small(seeds="1", trainer__compile="false"), tmp_path)
    pd.testing.assert_frame_equal(uncompiled, table, rtol=1e-4, atol=1e-5)


def test_the_number_of_workers_changes_no_bit(small: Any, tmp_path: Path) -> None:
    one = trained(small(), tmp_path / "one")
    two = trained(small(), tmp_path / "two", Devices("cpu", 2))
    pd.testing.assert_frame_equal(two, one, check_exact=True)


@pytest.mark.usefixtures("uncompiled")
def test_a_second_run_trains_nothing_and_a_damaged_shard_is_trained_again(small: Any, tmp_path: Path) -> None:
    spec = small()
    run = Run(spec, tmp_path)
    table = trained(spec, tmp_path)
    assert work(run) == 0
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    train([run], ONE)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before

    (run.folder / "instances.parquet").unlink()
    (shard,) = run.folder.glob("shards/0-1.*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)
    assert run.why_incomplete() == "1 of 3 shards missing: 0-1"
    assert work(run) == len(shards(spec)[1].rows) * 100
    pd.testing.assert_frame_equal(trained(spec, tmp_path), table, check_exact=True)


@pytest.mark.usefixtures("uncompiled")
def test_progress_adds_up_to_the_work(small: Any, tmp_path: Path) -> None:
    run = Run(small(trainer__max_steps="130"), tmp_path)
    total = work(run)
    told = Told()
    train([run], ONE, told)
    assert sum(told.steps) == total == 18 * 130
    assert told.tables == [(run, len(shard.rows)) for shard in shards(run.spec)]


@pytest.mark.parametrize("shard_size", [1, 5])
def test_a_settled_network_is_kept_as_it_was_and_training_ends_with_the_last(
    small: Any, tmp_path: Path, shard_size: int
) -> None:
    """Whatever shard it is in; the networks of this one settle after different numbers of steps."""
    told = Told()
    run = Run(small(**SETTLING, shard_size=str(shard_size)), tmp_path)
    total = work(run)
    train([run], ONE, told)
    table = run.table()
    assert table is not None
    assert sum(told.steps) == total == 5 * 2500
    assert table["steps"].nunique() > 1
    assert ((table["steps"] % one_shard.SETTLED_STEPS == 0) & (table["steps"] < 2500)).all()
    one = small(**{**SETTLING, "shard_size": "1"})
    alone = fit_shard(one, shards(one)[0]).table
    for column in ("steps", "polysemantic_neurons", "features_with_one_winner"):
        assert table[column].iloc[0] == alone[column].iloc[0]


def test_stopping_when_settled_changes_no_count(small: Any, tmp_path: Path) -> None:
    """Against the same networks trained to the last step."""
    stopped = trained(small(**SETTLING), tmp_path)
    whole = trained(small(**{**SETTLING, "trainer__stop_when_settled": "false"}), tmp_path)
    counts = [name for name in stopped if stopped[name].dtype.kind == "i" and name != "steps"]
    assert {"polysemantic_neurons", "opposed_pairs", "features_with_one_winner"} <= set(counts)
    pd.testing.assert_frame_equal(stopped[counts], whole[counts])
    assert stopped["polysemantic_neurons"].sum() > 0
    assert stopped["winner_weight"].to_numpy() == pytest.approx(whole["winner_weight"].to_numpy(), abs=3e-3)


def test_stopping_needs_a_model_that_knows_when_it_is_settled(small: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stop_when_settled: ToyModel has no method settled"):
        trained(small(trainer__stop_when_settled="true"), tmp_path)


class Roots(Computed):
    """The square roots of seed + offset."""

    def __init__(self, seeds: Sequence[int], offset: Varying[float]) -> None:
        super().__init__(seeds)
        self.offset = offset

    def metrics(self) -> dict[str, torch.Tensor]:
        return {"root": (torch.tensor(self.seeds) + self.offset).sqrt()}


def test_calculated_instances_need_no_training(small: Any, tmp_path: Path) -> None:
    told = Told()
    text = re.sub(r"(?ms)^(features|optimizer|trainer):.*?(?=^\S)", "", SMALL.split("controls:")[0])
    text = re.sub(r"(?m)^model:.*$", f"model: {{class_path: {__name__}.Roots}}", text)
    path = tmp_path / "roots.yaml"
    path.write_text(text.split("sweep:")[0] + "sweep: [{offset: [0., 9.]}]\n", encoding="utf-8")
    run = Run(load_spec(path), tmp_path)
    assert work(run) == 6
    train([run], ONE, told)
    table = run.table()
    assert table is not None
    assert table["root"].to_numpy() == pytest.approx(np.sqrt(table["seed"] + table["offset"]))
    assert sum(told.steps) == 6


Start = Callable[[Path, Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def in_the_background(tmp_path: Path) -> Iterator[Start]:
    """Starts a run with two workers in a group of its own; when it trains, it makes the file `trains`."""
    script = tmp_path / "script.py"
    script.write_text(
        """\
import signal, sys
from pathlib import Path
from common.runs.store import Run
from common.specs.spec import load_spec
from common.runs.training import Devices, Progress, train
class Told(Progress):
    def advanced(self, run, shard, network_steps):
        Path(__file__).with_name("trains").touch()
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to it
    try:
        train([Run(load_spec(Path(sys.argv[1])), Path(sys.argv[2]))], Devices("cpu", 2), Told())
    except KeyboardInterrupt:  # code that runs at the exit, as torch's, loses Python's code for it
        sys.exit(130)
""",
        encoding="utf-8",
    )
    started: list[subprocess.Popen[bytes]] = []

    def start(spec: Path, out: Path) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, *map(str, (script, spec, out))]
        started.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):  # nothing is left of it, unless the test has failed
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_killed_run_goes_on_and_ends_with_the_same_table(
    small: Any, tmp_path: Path, in_the_background: Start
) -> None:
    """SIGKILL as soon as one shard is on disk, with two workers, which end by themselves."""
    spec = small()
    whole = trained(spec, tmp_path / "whole")
    run = Run(spec, tmp_path / "killed")
    process = in_the_background(spec.path, tmp_path / "killed")
    while not (first := list(run.folder.glob("shards/*.parquet"))) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first
    assert run.table() is None
    _wait_for_the_end_of(process.pid)
    train([run], ONE)
    resumed = run.table()
    assert resumed is not None
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


def test_an_interrupt_ends_a_run_in_the_middle_of_its_shards(
    small: Any, tmp_path: Path, in_the_background: Start
) -> None:
    """Lightning catches a SIGTERM, and would train on for the million steps."""
    path = small().path.with_name("long.yaml")
    path.write_text(SMALL.replace("{max_steps: 100}", "{max_steps: 1000000}"), encoding="utf-8")
    process = in_the_background(path, tmp_path / "interrupted")
    while not (tmp_path / "trains").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    _wait_for_the_end_of(process.pid)


def _wait_for_the_end_of(group: int) -> None:
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("workers outlive the run by 30 s")


@pytest.mark.usefixtures("uncompiled")
def test_a_failing_shard_keeps_what_is_done(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(small(), tmp_path)

    def fails_at_two(spec: Spec, shard: Any, session: Session) -> Trained:
        if shard.name == "0-1":
            raise ArithmeticError("broken")
        return fit_shard(spec, shard, session)

    monkeypatch.setattr(one_shard, "fit_shard", fails_at_two)
    with pytest.raises(InputError, match=r"shard 0-1: training failed: ArithmeticError: broken$"):
        train([run], ONE)
    assert [run.has(shard) for shard in shards(run.spec)] == [True, False, False]


def test_numerics_are_set_for_training_only() -> None:
    before = torch.get_num_threads()
    tiny = torch.tensor([1e-39])
    with one_thread(), numerics(warnings.warn):
        assert torch.get_num_threads() == 1
        assert (tiny / 2).item() == 0
    assert torch.get_num_threads() == before
    assert (tiny / 2).item() > 0


def test_the_spec_s_optimiser_is_used(small: Any) -> None:
    spec = small(optimizer="{class_path: torch.optim.SGD, init_args: {lr: .25, momentum: .5}}")
    model = build(spec, shards(spec)[0].rows)
    assert isinstance(model, Ensemble)
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.25, 0.5)


def test_devices() -> None:
    assert Devices.choose("cpu", 3) == ("cpu", 3)
    assert Devices.choose("cpu").n == processors()
    with pytest.raises(ValueError, match=r"^99 GPUs asked for, but this machine has \d+$"):
        Devices.choose("cuda", 99)


@pytest.mark.gpu
def test_a_gpu_s_table_and_weights_are_those_of_the_cpu_to_rounding(
    small: Any, tmp_path: Path, accelerator: str
) -> None:
    """Columns and types are the same; stored weights are on the CPU, where they can be read anywhere."""
    cpu = trained(small(), tmp_path / "cpu")
    run = Run(small(), tmp_path / "gpu", keep_weights="all")
    train([run], Devices(accelerator, 1))
    table, manifest = run.table(), run.manifest()
    assert table is not None
    assert manifest is not None
    pd.testing.assert_frame_equal(table, cpu, rtol=1e-3, atol=1e-4)
    assert manifest["compiled_shards"] == manifest["shards"]
    assert (manifest["device"] == "CPU") == (accelerator == "cpu")
    for shard in shards(run.spec):
        rows, state = run.weights(shard)
        assert rows == list(shard.rows.index)
        assert {tensor.device.type for tensor in state.values()} == {"cpu"}
        kept = state["weights.weight"].flatten(1).numpy()
        np.testing.assert_array_equal(kept, table.loc[rows, WEIGHTS[:2]].to_numpy())
    assert work(run) == 0


FEW = {"trainer__max_steps": "10"}
CSV = "{class_path: lightning.pytorch.loggers.CSVLogger}"


@pytest.mark.usefixtures("uncompiled")
def test_a_logger_gets_mean_and_quantiles_and_changes_nothing(small: Any, tmp_path: Path) -> None:
    plain = trained(small(**FEW), tmp_path / "plain")
    logged = small(**FEW, trainer__logger=CSV, trainer__log_every_steps="4")
    run = Run(logged, tmp_path / "logged")
    assert run.hash == Run(small(**FEW), tmp_path).hash
    pd.testing.assert_frame_equal(trained(logged, tmp_path / "logged"), plain, check_exact=True)
    folders = sorted(path.name for path in (run.folder / "logs").iterdir())
    assert folders == [f"shard_0-{number}" for number in range(3)]
    curve = pd.read_csv(run.folder / "logs" / "shard_0-0" / "metrics.csv")
    assert list(curve["step"]) == [4, 8, 10]
    quantiles = ["loss_q05", "loss_q25", "loss_q50", "loss_q75", "loss_q95"]
    assert {*curve} == {"step", "loss_mean", *quantiles}

    # the first step's losses are those of the start
    first = small(trainer__logger=CSV, trainer__log_every_steps="1", trainer__max_steps="1")
    trained(first, tmp_path)
    shard = shards(first)[0]
    model = build(first, shard.rows)
    assert isinstance(model, Ensemble)
    uniforms = next(iter(Draws(model.features, model.distinct_seeds)))
    losses, _ = model.losses_and_gradients(uniforms, model.seed_index)
    curve = pd.read_csv(Run(first, tmp_path).folder / "logs" / "shard_0-0" / "metrics.csv")
    (row,) = curve.to_dict("records")
    np.testing.assert_allclose(row["loss_mean"], losses.double().mean())
    expected = np.quantile(losses.double().numpy(), [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose([row[name] for name in quantiles], expected)


@pytest.mark.usefixtures("uncompiled")
def test_logs_go_where_the_spec_says_each_run_and_shard_in_its_own_folder(small: Any, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    logger = f"{{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: {place}}}}}"
    runs = [
        Run(small(control=control, trainer__max_steps="10", trainer__logger=logger), tmp_path / "out")
        for control in (None, "short")
    ]
    train(runs, ONE)
    for run in runs:
        folder = place / "nobody" / "small" / run.variant.name / run.hash
        assert len(list(folder.glob("shard_*/metrics.csv"))) == 3
        assert not (run.folder / "logs").exists()


KEPT = "seed == 0 and density > .3"


@pytest.mark.usefixtures("uncompiled")
def test_weights_of_chosen_networks_are_kept_and_change_nothing(small: Any, tmp_path: Path) -> None:
    plain = trained(small(**FEW), tmp_path / "plain")
    run = Run(small(**FEW), tmp_path / "kept", KEPT)
    assert run.hash == Run(small(**FEW), tmp_path).hash
    train([run], ONE)
    table = run.table()
    assert table is not None
    pd.testing.assert_frame_equal(table, plain, check_exact=True)
    kept = {row for shard in shards(run.spec) for row in run.weights(shard)[0]}
    assert kept == set(table.query(KEPT).index)
    for shard in shards(run.spec):
        rows, state = run.weights(shard)
        if rows:
            weights = state["weights.weight"].reshape(len(rows), -1).numpy()
            np.testing.assert_array_equal(weights, table.loc[rows, WEIGHTS[:2]])
            assert {*state} == {"weights.weight", "weights.bias", "steps"}


@pytest.mark.usefixtures("uncompiled")
def test_only_shards_whose_weights_are_asked_for_are_trained_again(small: Any, tmp_path: Path) -> None:
    trained(small(**FEW), tmp_path)
    run = Run(small(**FEW), tmp_path, "seed == 2 and density == .1")
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    wanted = [shard.rows for shard in run.lacking()]
    assert pd.concat(wanted)[["seed", "density"]].drop_duplicates().to_numpy().tolist() == [[2, 0.1]]
    told = Told()
    total = work(run)
    train([run], ONE, told)
    assert [n for _, n in told.tables] == [len(rows) for rows in wanted]
    assert sum(told.steps) == total
    assert {path: path.read_bytes() for path in before} == before
    assert work(run) == work(Run(small(**FEW), tmp_path)) == 0

    # damaged weights are missing
    path = next(run.folder.glob("weights/*.pt"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert work(run) == len(wanted[0]) * 10


@pytest.mark.usefixtures("uncompiled")
def test_weights_of_other_numbers_than_are_stored_are_refused(small: Any, tmp_path: Path) -> None:
    trained(small(**FEW), tmp_path)
    run = Run(small(**FEW), tmp_path, "all")
    (path,) = run.folder.glob("shards/0-1.*")
    other = pd.read_parquet(path)
    other["loss"] += 1e-7
    path.unlink()
    run.write_shard(other)
    with pytest.raises(InputError, match=r"shard 0-1, trained again, has other numbers than are stored"):
        train([run], ONE)
    assert run.weights(shards(run.spec)[0])[0]
    assert not run.weights(shards(run.spec)[1])[0]


@pytest.mark.usefixtures("uncompiled")
def test_weights_of_a_shard_that_was_lost_go_with_it(small: Any, tmp_path: Path) -> None:
    run = Run(small(**FEW), tmp_path, "all")
    train([run], ONE)
    run.write_shard(shards(run.spec)[1].rows.assign(loss=1.0))
    assert not run.weights(shards(run.spec)[1])[0]
    assert run.weights(shards(run.spec)[2])[0]
