"""Tests of specs/sweep.py: every instance that a spec asks for, once, in shards of one shape."""

import itertools
import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.specs.fields import ClassSpec
from common.specs.spec import Grid, Spec, load_spec
from common.specs.sweep import instances, shards

steady = settings(derandomize=True, deadline=None, database=None, max_examples=60)

TEXT = """\
title: A sweep
paper: nobody2026
version: 1
code: code_of_a_sweep
model: {class_path: replications.toy_models_of_superposition.model.ToyModel}
features: {class_path: common.features.Independent, init_args: {batch_size: 64}}
optimizer: {class_path: torch.optim.AdamW}
trainer: {max_steps: 10}
seeds: [3, 1]
shard_size: 5
sweep:
  - part: z
    n_hidden: [2, 1]
    n_features: 2
    density: [.5, 1.]
  - part: a
    n_hidden: 1
    n_features: [3, 2]
    density: .1
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spec]:
    module = ModuleType("code_of_a_sweep")
    module.figures = lambda table, claims: {}  # type: ignore[attr-defined]
    path = tmp_path_factory.mktemp("paper") / "result.yaml"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        yield load_spec(path)


def test_instances_are_ordered_by_part_seed_and_factors(spec: Spec) -> None:
    table = instances(spec)
    assert list(table.columns) == ["part", "density", "n_features", "n_hidden", "seed"]
    # seed x 6 points + point: a network's number depends on no other seed
    assert list(table.index) == [*range(18, 22), *range(6, 10), 22, 23, 10, 11]
    # parts and values in the order of the spec, factors by name, the last one fastest
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        *[("z", density, 2, hidden, seed) for seed in (3, 1) for density in (0.5, 1.0) for hidden in (2, 1)],
        *[("a", 0.1, features, 1, seed) for seed in (3, 1) for features in (3, 2)],
    ]


def test_shards_of_a_spec(spec: Spec) -> None:
    told = [
        (shard.name, shard.rows["n_features"].iat[0], shard.rows["n_hidden"].iat[0], list(shard.rows.index))
        for shard in shards(spec)
    ]
    # shapes in the order of their first point; part a joins z; blocks of 5 networks have 2 seeds of the first
    # shape, 1 of the second and 5 of the last
    assert told == [
        ("0-0", 2, 2, [6, 8]), ("0-1", 2, 2, [18, 20]),
        ("1-1", 2, 1, [7, 9, 11]), ("1-3", 2, 1, [19, 21, 23]),
        ("2-0", 3, 1, [10, 22]),
    ]  # fmt: skip


def test_a_sweep_of_one_point(spec: Spec) -> None:
    alone = spec._replace(grids=[Grid("0", {})], seeds=[7])
    assert instances(alone).to_dict("records") == [{"part": "0", "seed": 7}]
    assert [list(shard.rows.index) for shard in shards(alone)] == [[7]]


values = st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True)
densities = st.lists(st.floats(0.125, 1, width=16), min_size=1, max_size=5, unique=True)
entries = st.lists(st.tuples(densities, values, values), min_size=1, max_size=3)
grids = entries.map(
    lambda entries: [
        Grid(f"part {i}", dict(zip(("density", "n_features", "n_hidden"), entry, strict=True)))
        for i, entry in enumerate(entries)
    ]
)
seeds = st.lists(st.integers(0, 2**32), min_size=1, max_size=6, unique=True)


@given(grids=grids, seeds=seeds, size=st.integers(1, 40))
@steady
def test_shards_partition_the_instances(spec: Spec, grids: list[Grid], seeds: list[int], size: int) -> None:
    spec = spec._replace(grids=grids, seeds=seeds, fields=spec.fields.model_copy(update={"shard_size": size}))
    table, cut = instances(spec), shards(spec)
    expected = [
        (grid.part, *point, seed)
        for grid in grids
        for seed in seeds
        for point in itertools.product(*grid.factors.values())
    ]
    assert [tuple(row) for row in table.itertuples(index=False)] == expected
    # disjoint and complete, with the rows unchanged
    pd.testing.assert_frame_equal(pd.concat([shard.rows for shard in cut]).loc[table.index], table)
    assert len({shard.name for shard in cut}) == len(cut)
    sizes: dict[tuple[int, int], list[int]] = {}
    for shard in cut:
        shapes = set(zip(shard.rows["n_features"], shard.rows["n_hidden"], strict=True))
        assert len(shapes) == 1
        assert shard.rows["seed"].is_monotonic_increasing
        sizes.setdefault(shapes.pop(), []).append(len(shard.rows))
    for one_shape in sizes.values():
        assert 1 <= min(one_shape) <= max(one_shape) <= size


@pytest.mark.parametrize(("weights", "networks"), [(1, 1), (5, 1), (11, 2), (13, 2), (1000, 4)])
def test_shards_are_bounded_by_their_weights(spec: Spec, weights: int, networks: int) -> None:
    """A network of 2 features in 1 dimension has 2 weights and 2 biases, and one network is the least."""
    point: dict[str, list[Any]] = {"density": [0.5, 1.0], "n_features": [2], "n_hidden": [1]}
    fields = spec.fields.model_copy(update={"shard_size": 4, "shard_weights": weights})
    cut = shards(spec._replace(grids=[Grid("a", point)], seeds=[*range(6)], fields=fields))
    assert max(len(shard.rows) for shard in cut) == networks
    assert sum(len(shard.rows) for shard in cut) == 12


@given(grids=grids, seeds=seeds, more=seeds, size=st.integers(1, 40))
@steady
def test_more_seeds_cut_nothing_anew(
    spec: Spec, grids: list[Grid], seeds: list[int], more: list[int], size: int
) -> None:
    fields = spec.fields.model_copy(update={"shard_size": size})
    spec = spec._replace(grids=grids, seeds=seeds, fields=fields)
    every = spec._replace(seeds=list(dict.fromkeys([*more, *seeds])))
    numbers = {tuple(row[1:]): row[0] for row in instances(every).itertuples()}
    for row in instances(spec).itertuples():
        assert numbers[tuple(row[1:])] == row[0]
    blocks = {shard.name: set(shard.rows.index) for shard in shards(every)}
    for shard in shards(spec):
        assert set(shard.rows.index) <= blocks[shard.name]


@given(grids=grids, seeds=seeds, size=st.integers(1, 40))
@settings(steady, max_examples=10)
def test_shards_depend_on_the_spec_alone(spec: Spec, grids: list[Grid], seeds: list[int], size: int) -> None:
    fields = spec.fields.model_copy(update={"shard_size": size})
    spec = spec._replace(grids=grids, seeds=seeds, fields=fields)
    elsewhere = shards(pickle.loads(pickle.dumps(spec._replace(profile="quick", control="other"))))
    for one, other in zip(shards(spec), elsewhere, strict=True):
        assert one.name == other.name
        pd.testing.assert_frame_equal(one.rows, other.rows)


def test_a_shard_has_one_optimizer(spec: Spec) -> None:
    own = ClassSpec(class_path="torch.optim.SGD")
    grids = [Grid("a", {"n_hidden": [1]}), Grid("b", {"n_hidden": [1]}, own), Grid("c", {"n_hidden": [1]})]
    cut = shards(spec._replace(grids=grids, model_args={}, seeds=[0, 1]))
    assert [list(shard.rows["part"]) for shard in cut] == [["a", "a"], ["b", "b"], ["c", "c"]]
