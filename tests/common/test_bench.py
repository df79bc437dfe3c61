"""Tests of common/bench.py: it times each structure once, on the same networks, and says when it cannot."""

from pathlib import Path

import pandas as pd
import pytest

from common import bench
from common.training import Devices
from replications.toy_models_of_superposition import plain
from tests.conftest import SMALL


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


def test_without_a_plain_way_there_is_nothing_to_compare_with(path: Path) -> None:
    path.write_text(SMALL, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^nobody/small names no plain way to compare with$"):
        next(bench.bench(path, Devices("cpu", 1)))
