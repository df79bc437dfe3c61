"""Tests of common/bench.py: it times each structure once, on the same networks, and says when it cannot."""

import re
from pathlib import Path

import pandas as pd
import pytest

from common import bench
from common.spec import Spec
from common.sweep import Shard
from common.training import Devices
from replications.toy_models_of_superposition import plain
from tests.conftest import SETTLING, SMALL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The small spec with two structures and a plain way."""
    path = tmp_path / "replications" / "nobody" / "small.yaml"
    path.parent.mkdir(parents=True)
    swept = SMALL.replace("n_features: 2, ", "").replace(", init_args: {n_hidden: 1}", "")
    text = swept.replace("    density:", "    n_features: [2, 3]\n    n_hidden: 1\n    density:")
    path.write_text(f"plain: replications.toy_models_of_superposition.plain\n{text}", encoding="utf-8")
    return path


@pytest.mark.usefixtures("uncompiled")
def test_each_structure_is_timed_once_on_the_same_networks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[int, int]] = []
    train = plain.train

    def spy(rows: pd.DataFrame, steps: int) -> None:
        trained.append((int(rows["n_features"].iloc[0]), steps))
        train(rows, steps)

    monkeypatch.setattr(plain, "train", spy)
    for name, steps in {"SHORT_STEPS": 1, "LONG_STEPS": 40, "PLAIN_STEPS": 2}.items():
        monkeypatch.setattr(bench, name, steps)
    speeds = list(bench.bench(path, Devices("cpu", 1)))
    assert [speed.structure for speed in speeds] == [
        "n_features = 2, n_hidden = 1",
        "n_features = 3, n_hidden = 1",
    ]
    assert trained == [(2, 1), (2, 2), (3, 1), (3, 2)]
    assert all(speed.plain > 0 and speed.ours > 0 and speed.networks == 4 for speed in speeds)
    assert [speed.work for speed in speeds] == [18 * 100, 18 * 100]


def test_where_networks_stop_the_whole_training_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that are spared count as done, so ours is fast beyond what its steps take."""
    path = tmp_path / "replications" / "nobody" / "settling.yaml"
    path.parent.mkdir(parents=True)
    text = SMALL.split("controls:")[0].replace(
        "sweep:", "plain: replications.incidental_polysemanticity.plain\nsweep:"
    )
    for key, value in {**SETTLING, "sweep": "[{n_features: 8, n_hidden: 32}]"}.items():
        text = re.sub(rf"(?ms)^{key}:.*?(?=^\S|\Z)", f"{key}: {value}\n", text)
    path.write_text(text.replace("init_args: {n_features: 8}", "init_args: {}"), encoding="utf-8")
    steps: list[int] = []
    seconds = bench._seconds

    def spy(spec: Spec, pieces: list[Shard], devices: Devices, count: int) -> float:
        steps.append(count)
        return seconds(spec, pieces, devices, count)

    monkeypatch.setattr(bench, "_seconds", spy)
    (speed,) = bench.bench(path, Devices("cpu", 1))
    assert steps == [1, 2500, 1]
    assert (speed.networks, speed.work) == (2, 5 * 2500)


def test_without_a_plain_way_there_is_nothing_to_compare_with(path: Path) -> None:
    path.write_text(SMALL, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^nobody/small names no plain way to compare with$"):
        next(bench.bench(path, Devices("cpu", 1)))
