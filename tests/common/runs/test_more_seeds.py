"""Tests that seeds are added: what is stored is found again, and the table is that of a run in one go."""

import io
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from common.runs.parts import Part, train_part
from common.runs.store import Run
from common.runs.training import Devices, Progress, train, work
from common.specs.sweep import Shard
from tests.common.test_faults import MODELS, stop
from tests.conftest import SETTLING

__all__ = ["stop"]  # a fixture

ONE = Devices("cpu", 1)
STEPS = {"trainer__max_steps": "20"}

pytestmark = pytest.mark.usefixtures("uncompiled")


class Told(Progress):
    def __init__(self) -> None:
        self.seeds: list[int] = []

    def finished(self, run: Run, shard: Shard, table: pd.DataFrame) -> None:
        self.seeds += table["seed"].tolist()


def trained(run: Run) -> list[int]:
    """Trains what is missing; returns the seeds of the networks that were."""
    told = Told()
    train([run], ONE, told)
    return sorted(told.seeds)


def files(run: Run) -> dict[str, bytes]:
    return {name: (run.folder / name).read_bytes() for name in ("instances.parquet",)}


@pytest.mark.parametrize(
    ("few", "many", "shard_size"),
    [("1", "3", 4), ("2", "5", 18), ("2", "5", 100), ("[0, 4]", "5", 30), ("[7]", "[2, 7, 900]", 18)],
)
def test_more_seeds_train_only_the_new_ones(
    small: Any, tmp_path: Path, few: str, many: str, shard_size: int
) -> None:
    size = {"shard_size": str(shard_size), **STEPS}
    whole = Run(small(seeds=many, **size), tmp_path / "whole", "all")
    every = trained(whole)
    first = Run(small(seeds=few, **size), tmp_path, "all")
    some = trained(first)
    run = Run(small(seeds=many, **size), tmp_path, "all")
    assert run.folder == first.folder
    assert sorted(trained(run) + some) == every
    assert files(run) == files(whole)
    for shard in run.shards:
        rows, state = run.weights(shard)
        assert rows == shard.rows.index.tolist()
        torch.testing.assert_close(state, whole.weights(shard)[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", [*MODELS, "L1", "compiled"])
def test_a_network_is_the_same_to_the_bit_whatever_is_trained_beside_it(
    small: Any, tmp_path: Path, name: str
) -> None:
    changes = MODELS.get(name, SETTLING if name == "L1" else STEPS) | {"shard_size": "100"}
    train([Run(small(**changes | {"seeds": "7"}), tmp_path / "whole")], ONE)
    for seeds in ("3", "4", "7"):
        train([Run(small(**changes | {"seeds": seeds}), tmp_path)], ONE)
    whole, added = (Run(small(**changes | {"seeds": "7"}), out) for out in (tmp_path / "whole", tmp_path))
    assert files(whole) == files(added)


def test_a_run_that_is_sent_to_a_worker_asks_for_the_same_networks(small: Any, tmp_path: Path) -> None:
    run = Run(small(seeds="5"), tmp_path)
    run = run.asking(run.rows.query("seed > 2 and density < 1"))
    again: Run = pickle.loads(pickle.dumps(run))
    pd.testing.assert_frame_equal(again.rows, run.rows)
    assert [shard.name for shard in again.shards] == [shard.name for shard in run.shards]


def test_fewer_seeds_are_found_among_more(small: Any, tmp_path: Path) -> None:
    many, few = Run(small(**STEPS), tmp_path), Run(small(seeds="2", **STEPS), tmp_path)
    trained(many)
    table = few.table()
    assert table is not None
    assert few.why_incomplete() is None
    pd.testing.assert_frame_equal(table, many.table().query("seed < 2"))  # type: ignore[union-attr]
    # and the other way round, once the table holds only the few
    assert trained(few) == []
    assert few.is_joined()
    assert many.why_incomplete() is None
    assert many.table().index.equals(many.rows.index)  # type: ignore[union-attr]


def test_an_entry_of_the_sweep_may_have_its_own_seeds(small: Any, tmp_path: Path) -> None:
    entry = "{part: cuts, density: [1., .5], extra_importance: 2."
    other = "{part: few, density: .1, extra_importance: 2., seeds: [0, 5]}"
    run = Run(small(sweep=f"[{entry}}}, {other}]", **STEPS), tmp_path)
    assert trained(run) == [0, 0, 0, 1, 1, 2, 2, 5]
    more = Run(small(sweep=f"[{entry}, seeds: 4}}, {other}]", **STEPS), tmp_path)
    assert more.hash == run.hash
    assert trained(more) == [3, 3]


def test_networks_of_another_profile_with_the_same_hash_are_found(small: Any, tmp_path: Path) -> None:
    spec = small(**STEPS)
    trained(Run(spec, tmp_path))
    other = Run(spec._replace(profile="other"), tmp_path)
    assert other.table() is None
    assert trained(other) == []
    assert files(other) == files(Run(spec, tmp_path))
    assert not (other.folder / "shards").exists()


def test_weights_in_the_own_folder_come_before_those_of_another_profile(small: Any, tmp_path: Path) -> None:
    """As rows do: what another machine has stored may differ, and weights are to belong to the rows."""
    spec = small(**STEPS)
    run, other = (Run(spec._replace(profile=profile), tmp_path, "all") for profile in ("full", "other"))
    trained(run)
    shard = run.shards[0]
    rows, state = run.weights(shard)
    other_state = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    buffer = io.BytesIO()
    torch.save({"rows": torch.tensor(rows), "state": other_state}, buffer)
    other._write_of_block("weights", shard.name, buffer.getvalue())
    for one, expected in ((run, state), (other, other_state)):
        torch.testing.assert_close(one.weights(shard)[1], expected, rtol=0, atol=0)


def test_a_stopped_shard_is_resumed_though_more_seeds_are_asked_for(
    small: Any, tmp_path: Path, stop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"shard_size": "100"}
    whole = Run(small(seeds="5", **changes), tmp_path / "whole")
    trained(whole)
    stop(Run(small(**changes), tmp_path), 40)
    run = Run(small(seeds="5", **changes), tmp_path)
    assert [sorted(set(shard.rows["seed"])) for shard in run.lacking()] == [[0, 1, 2], [3, 4]]
    assert work(run) == 30 * 100
    begun: list[int] = []
    resumed = run.partial

    def spy(shard: Shard) -> Any:
        if (state := resumed(shard)) is not None:
            begun.append(state["global_step"])
        return state

    monkeypatch.setattr(run, "partial", spy)
    train([run], ONE)
    assert begun == [40]
    assert files(run) == files(whole)


def test_parts_train_only_the_new_seeds(small: Any, tmp_path: Path) -> None:
    whole = Run(small(seeds="5", **STEPS), tmp_path / "whole")
    trained(whole)
    run = Run(small(seeds="5", **STEPS), tmp_path)
    trained(Run(small(**STEPS), tmp_path))
    told = Told()
    for number in (1, 2, 3):
        train_part(Part(number, 3).missing([run]), ONE, told)
    assert sorted(told.seeds) == [3] * 6 + [4] * 6
    assert trained(run) == []
    assert files(run) == files(whole)


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_shards_trained_together_are_stored_by_block(small: Any, tmp_path: Path, most: int) -> None:
    run = Run(small(seeds="5", **STEPS), tmp_path)
    joined = run.cut.merged(run.shards, lambda shard: most)
    assert max(len(shard.rows) for shard in joined) <= max(most, 6)
    for _ in ONE.train_shards([(run, shard) for shard in joined], Told()):
        pass
    assert run.lacking() == []
    assert len(list(run.folder.glob("shards/*"))) == len(run.shards)


def test_the_time_of_shards_trained_together_is_counted_once(small: Any, tmp_path: Path) -> None:
    run = Run(small(**STEPS), tmp_path)
    table = run.rows.assign(loss=0.0)
    table.attrs["core_s"] = 30.0
    run.write_shard(table)
    assert len(run.shards) > 1
    run.finish("CPU", 1.0)
    assert (run.manifest() or {})["core_s"] == 30.0
