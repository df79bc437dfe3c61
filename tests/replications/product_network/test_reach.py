"""Tests of how far the mechanism reaches: the sweep's cells, estimates on made-up tables, the figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from common.runs.shard import build
from common.specs.sweep import shards
from common.verdicts.claims import Verdict
from replications.product_network import reach, theory
from replications.product_network.reach import CELLS, NO_BIAS
from tests.replications.under_test import UnderTest, trained

REACH = UnderTest("product_network/reach")


def test_each_cell_has_its_claim() -> None:
    for profile in ("full", "quick"):
        loaded = REACH.spec(profile)
        assert loaded.lr_scheduler_args["T_max"] == loaded.fields.trainer.max_steps
        parts = {grid.part for grid in loaded.grids}
        judged_parts = {
            claim.estimate.args["part"]
            for name, claim in REACH.claims.items()
            if name.startswith("aligned_") and (claim.profiles is None or profile in claim.profiles)
        }
        assert parts == judged_parts
    assert {grid.part for grid in REACH.spec().grids} == set(CELLS)


def test_each_cell_changes_what_its_name_says() -> None:
    usual = {"n_hidden": 4, "distribution": "normal", "bias": True, "start_scale": 1.0, "lr": 0.01}
    changed: dict[str, dict[str, Any]] = {
        "main": {}, "start_0.3": {"start_scale": 0.3}, "start_3": {"start_scale": 3.0},
        "rate_0.001": {"lr": 0.001}, "rate_0.003": {"lr": 0.003}, "rate_0.03": {"lr": 0.03},
        "uniform": {"distribution": "uniform"}, "laplace": {"distribution": "laplace"},
        "width_8": {"n_hidden": 8}, "width_16": {"n_hidden": 16},
        "no_bias_4": {"bias": False}, "no_bias_8": {"n_hidden": 8, "bias": False},
        "no_bias_16": {"n_hidden": 16, "bias": False},
    }  # fmt: skip
    whole = REACH.spec()
    for shard in shards(whole):
        row = shard.rows.iloc[0]
        found = {name: row[name] for name in usual if name != "lr"}
        small = build(whole, shard.rows.head(1))
        optimizer = whole.optimizer_of(row["part"])(small.parameters())  # type: ignore[union-attr]
        assert {**found, "lr": optimizer.defaults["lr"]} == {**usual, **changed[row["part"]]}
    assert len(shards(whole)) == len(changed)


def test_the_main_cell_is_the_set_up_of_the_other_replication() -> None:
    other = UnderTest("product_network/optimum").spec()
    mine = REACH.spec()
    assert mine.optimizer_args == other.optimizer_args
    assert mine.lr_scheduler_args == other.lr_scheduler_args
    assert mine.fields.trainer == other.fields.trainer
    assert mine.features_args["batch_size"] == other.features_args["batch_size"]


def made_up(
    aligned: Mapping[str, int], seeds: int = 32, kinks: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Networks of each part, of which so many are aligned as `aligned` says."""
    kink = {"uniform": 0.66, "laplace": 0.98, **(kinks or {})}
    rows = [
        {
            "part": part, "seed": seed, "population_loss": 0.1178 if part in NO_BIAS else 0.033,
            "smallest_angle": 0.1 if seed < count else 9.8, "largest_angle": 0.4 if seed < count else 17.8,
            "both_diagonals": True, "kinked_neurons": 4, "half_diagonals": 4,
            "mean_kink": kink.get(part, 0.79) + 0.01 * (seed // (1 + (part == "laplace")) % 3 - 1),
        }
        for part, count in aligned.items()
        for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_estimates_on_a_made_up_table() -> None:
    table = made_up({"main": 24, "uniform": 30, "laplace": 30, "no_bias_4": 0})
    assert reach.aligned(table, "main").mean() == 0.75
    assert reach.not_aligned(table, "main").mean() == 0.25
    assert not reach.aligned(table.assign(both_diagonals=False), "main").any()
    assert not reach.aligned(table.assign(largest_angle=np.nan), "main").any()
    assert reach.kink_difference(table, "laplace", "uniform") == pytest.approx(0.32)
    assert reach.above_the_bound(table).tolist() == [True] * 32
    assert not reach.above_the_bound(table.assign(population_loss=0.1163)).any()
    assert reach.bias_free_optimum_angles(table, 9.5, 18.5).tolist() == [True] * 32
    assert not reach.bias_free_optimum_angles(table, 10, 18.5).any()
    assert not reach.bias_free_optimum_angles(table, 9.5, 17).any()
    assert reach.bias_free_optimum_angles(table.assign(population_loss=0.124), 9.5, 18.5).empty
    with pytest.raises(ValueError, match=r"^part 'width_8': the table has no such networks$"):
        reach.aligned(table, "width_8")
    with pytest.raises(ValueError, match="part 'laplace': no network has one kinked neuron on each half"):
        reach.kink_difference(table.assign(kinked_neurons=3), "laplace", "uniform")


def test_verdicts_on_a_made_up_table() -> None:
    everywhere = REACH.judged(made_up(dict.fromkeys(CELLS, 31), seeds=130))
    lost = {name for name, outcome in everywhere.items() if outcome.verdict is not Verdict.REPRODUCED}
    assert lost == {f"aligned_{part}" for part in CELLS} | {"not_aligned_no_bias_4", "trained_angles"}
    as_hoped = REACH.judged(made_up({**dict.fromkeys(CELLS, 129), **dict.fromkeys(NO_BIAS, 0)}, seeds=130))
    lost = {name for name, outcome in as_hoped.items() if outcome.verdict is Verdict.NOT_REPRODUCED}
    assert lost == {f"aligned_{part}" for part in NO_BIAS}
    alike = REACH.judged(made_up(dict.fromkeys(CELLS, 12), 12, {"laplace": 0.79}))
    assert alike["kinks_differ"].verdict is Verdict.NOT_REPRODUCED


SMALL = {
    "trainer.max_steps": 600, "lr_scheduler.init_args.T_max": 600, "optimizer.init_args.lr": 0.05,
    "features.init_args.batch_size": 64, "seeds": 48,
}  # fmt: skip


@pytest.mark.usefixtures("uncompiled")
def test_trained_networks_with_and_without_biases() -> None:
    """Biases decide. An eighth of those with them is aligned so early: none of 48 in 2 of 1000 runs."""
    entries = [
        {"part": "main", "n_hidden": 4, "distribution": "normal"},
        {"part": "no_bias_4", "n_hidden": 4, "distribution": "normal", "bias": False},
    ]
    whole = REACH.spec(changes={**SMALL, "sweep": entries})
    table = trained(whole)
    assert reach.aligned(table, "main").mean() > reach.aligned(table, "no_bias_4").mean()
    without = table[table["part"] == "no_bias_4"]
    assert without["population_loss"].min() == pytest.approx(theory.bias_free_optimum()[0], rel=0.02)
    assert reach.above_the_bound(table).all()
    assert "angle_0" not in table


def test_figures_show_what_is_there() -> None:
    for table in (made_up(dict.fromkeys(CELLS, 20)), made_up({"main": 1}, seeds=1)):
        figure = REACH.figures(table)["reach"]
        labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        assert labels == [CELLS[part] for part in CELLS if (table["part"] == part).any()]
    shares = REACH.figures(made_up({"main": 24}))["reach"].axes[0].lines[0].get_xdata()
    assert list(np.asarray(shares)) == [0.75]
