"""Tests of speed/bench.py: what is timed, that the plain way trains the same networks, and the table."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from common.cli import main
from common.runs.shard import Session, fit_shard
from common.runs.training import Devices
from common.specs.spec import Spec, load_spec
from common.specs.sweep import Shard, shards
from common.speed import bench
from common.speed.ceiling import Bound, Least, Machine, count
from replications.toy_models_of_superposition import plain
from tests.conftest import ROOT, SETTLING, SMALL


class OneRate(Machine):
    """A machine that was not measured."""

    def __init__(self, n: int = 1) -> None:
        self.devices = Devices("cpu", n)

    def __exit__(self, *of_error: object) -> None: ...

    def bound(self, least: Least) -> Bound:
        return Bound(1e12, "as said", {"arithmetic": 1e12, "memory": 2e12})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The small spec with two structures and a plain way."""
    path = tmp_path / "replications" / "nobody" / "small.yaml"
    path.parent.mkdir(parents=True)
    swept = SMALL.replace("n_features: 2, ", "").replace(", init_args: {n_hidden: 1}", "")
    text = swept.replace("    density:", "    n_features: [2, 3]\n    n_hidden: 1\n    density:")
    path.write_text(f"plain: replications.toy_models_of_superposition.plain\n{text}", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECONDS", "PLAIN_SECONDS", "FEW_SECONDS"):
        monkeypatch.setattr(bench, name, 0.05)


@pytest.fixture
def settling(tmp_path: Path) -> Spec:
    """Networks without random inputs that stop when they are settled, of five widths."""
    path = tmp_path / "replications" / "nobody" / "settling.yaml"
    path.parent.mkdir(parents=True)
    text = SMALL.split("controls:")[0]
    for key, value in {**SETTLING, "sweep": "[{n_hidden: [8, 16, 32, 64, 128]}]"}.items():
        text = re.sub(rf"(?ms)^{key}:.*?(?=^\S|\Z)", f"{key}: {value}\n", text)
    path.write_text(text, encoding="utf-8")
    return load_spec(path)


@pytest.mark.usefixtures("uncompiled")
def test_each_structure_is_timed_once_on_the_same_networks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[int, int, int]] = []
    train = plain.train

    def spy(rows: pd.DataFrame, steps: int) -> None:
        trained.append((int(rows["n_features"].iloc[0]), len(rows), steps))
        train(rows, steps)

    monkeypatch.setattr(plain, "train", spy)
    timed = bench.bench(load_spec(path), OneRate())
    assert timed is not None
    assert [(s.shape, s.networks) for s in timed.speeds] == [("n_features = 2", 6), ("n_features = 3", 6)]
    assert dict.fromkeys((n, networks) for n, networks, _ in trained) == {(2, 6): None, (3, 6): None}
    assert {(2, 6, 1), (2, 6, 2), (3, 6, 1), (3, 6, 2)} <= set(trained)
    # both shapes have 18 networks of 100 steps
    for sweep, rates in (
        (timed.ours, [speed.ours for speed in timed.speeds]),
        (timed.plain, [speed.plain for speed in timed.speeds]),
    ):
        assert sweep == pytest.approx(sum(18 * 100 / rate for rate in rates))


def test_of_many_shapes_three_are_timed_and_the_rest_is_interpolated(
    settling: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def time_of(rows: pd.DataFrame) -> float:
        least = count(settling, rows)
        return least.arithmetic() / least.networks

    monkeypatch.setattr(
        bench, "_ours_settled", lambda spec, shard, devices: (1 / time_of(shard.rows), 1500.0)
    )
    monkeypatch.setattr(bench, "_plain", lambda spec, rows, devices: 0.1 / time_of(rows))
    timed = bench.bench(settling, OneRate(2))
    assert timed is not None
    shapes = ["n_hidden = 8", "n_hidden = 32", "n_hidden = 128"]
    assert [(speed.shape, speed.networks) for speed in timed.speeds] == [(shape, 2 * 4) for shape in shapes]
    seconds = sum(len(shard.rows) * time_of(shard.rows) for shard in shards(settling))
    assert timed.ours == pytest.approx(1500 * seconds)
    assert timed.plain == pytest.approx(10 * 2500 * seconds)


def test_training_is_ended_after_a_time_whatever_its_steps(settling: Spec) -> None:
    shard = shards(settling)[0]
    assert bench._ours(settling, shard, Devices("cpu", 1), 0.05) > 0


def test_networks_that_settle_are_timed_to_their_end(settling: Spec) -> None:
    shard = shards(settling)[0]
    rate, steps = bench._ours_settled(settling, shard, Devices("cpu", 1))
    assert rate > 0
    assert steps == fit_shard(settling, shard).table["steps"].mean()


def test_a_rate_is_of_what_came_after_all_had_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, seconds = bench._Watch(2, 1.0), iter([1.0, 5.0, 5.01, 7.0, 8.0, 9.0])
    monkeypatch.setattr("common.speed.bench.time.perf_counter", lambda: next(seconds))
    run: object = None
    first, second = (Shard(str(i), pd.DataFrame()) for i in range(2))
    for shard in (first, second, second, first, first):
        watch.advanced(run, shard, 100)  # type: ignore[arg-type]
    with pytest.raises(bench._Enough):
        watch.advanced(run, second, 100)  # type: ignore[arg-type]
    assert watch.rate() == pytest.approx(100 / 1 + 100 / 4)


@pytest.mark.parametrize(
    ("fixed", "each", "n_devices", "overhead"), [(3.0, 0.5, 1, 0.6), (3.0, 0.5, 2, 0.6), (0.0, 0.5, 1, 0.0)]
)
def test_overhead_is_what_does_not_grow_with_the_networks(
    small: Any, monkeypatch: pytest.MonkeyPatch, fixed: float, each: float, n_devices: int, overhead: float
) -> None:
    def rate(spec: Spec, shard: Shard, devices: Devices, seconds: float) -> float:
        n = len(shard.rows)
        return devices.n * n / (fixed + each * n)

    monkeypatch.setattr(bench, "_ours", rate)
    spec = small(shard_size="6")
    shard = Shard("0", shards(spec)[0].rows.iloc[:4])
    devices = Devices("cpu", n_devices)
    ours = rate(spec, shard, devices, 1.0)
    assert bench._overhead(spec, shard, devices, ours) == pytest.approx(overhead)
    assert bench._overhead(spec, Shard("0", shard.rows[:2]), devices, ours) is None


def test_what_takes_most_of_a_step_comes_first() -> None:
    bound = Bound(100.0, "memory, 2 GB/s", {"memory": 100.0, "arithmetic": 400.0})
    speed = bench.Speed("", 4, 40.0, 10.0, bound, 0.3, 100.0)
    assert list(speed.shares.items()) == [("memory", 0.4), ("overhead", 0.3), ("arithmetic", 0.1)]
    assert list(speed._replace(overhead=None).shares) == ["memory", "arithmetic"]


def test_the_plain_way_trains_the_same_networks(settling: Spec) -> None:
    overrides = {"trainer.max_steps": (30, "test"), "trainer.stop_when_settled": (False, "test")}
    spec = load_spec(settling.path, overrides=overrides)
    shard = shards(spec)[0]
    ours = fit_shard(spec, shard, Session(keeps_state=True)).state
    start = bench.train_plainly(spec, shard.rows, 0).weights["weight"]
    weight = bench.train_plainly(spec, shard.rows, 30).weights["weight"]
    assert (weight - start).abs().max() > 0.05
    assert torch.allclose(weight, ours["weights.weight"], atol=1e-5)


@pytest.mark.usefixtures("uncompiled")
def test_the_command_prints_one_table(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("common.commands.bench.Machine", lambda devices: OneRate(devices.n))
    calculated = "polysemanticity_definitions/definitions"
    names = [str(path), str(ROOT / "replications" / f"{calculated}.yaml")]
    assert main(["bench", "--devices", "1", *names]) == 0
    printed = capsys.readouterr().out
    assert printed.count("of the ceiling") == 2  # a column, and what it means
    rows = [line for line in printed.splitlines() if "n_features = " in line]
    assert ["nobody/small" in row for row in rows] == [True, False]
    assert all(re.search(r"\d+% .*as said .*(overhead|arithmetic) \d+%", row) for row in rows)
    assert re.search(rf"{calculated} .*calculated, not trained", printed)
