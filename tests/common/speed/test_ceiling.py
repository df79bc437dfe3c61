"""Tests of speed/ceiling.py: what a step must do at least, and what bounds it on a measured machine."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from common.runs.training import Devices
from common.specs.spec import load_spec
from common.specs.sweep import shards
from common.speed.ceiling import LARGEST, Least, Machine, _products, _triad, _uniforms, count
from tests.conftest import ROOT


def load(name: str, **changes: Any) -> tuple[Any, pd.DataFrame]:
    overrides = {key.replace("__", "."): (value, "test") for key, value in changes.items()}
    spec = load_spec(ROOT / "replications" / f"{name}.yaml", overrides=overrides)
    return spec, shards(spec)[0].rows


def test_of_large_networks_products_and_bytes_are_counted() -> None:
    spec, rows = load("incidental_polysemanticity/collisions", sweep=[{"n_features": 16, "n_hidden": 32}])
    least = count(spec, rows)
    assert least.networks == len(rows) == 16
    # W W^T, and what is left of it times W
    assert least.products == {(16, 16, 32, 16): 1, (16, 16, 16, 32): 1}
    # the gradient is made of the weights, and AdamW reads it, and reads and writes weights and two moments
    assert least.moved == 16 * 16 * 32 * 4 * 9
    assert least.held == 16 * 16 * 32 * 4 * 4
    assert least.uniforms == 0
    # at least sign, product and sum of the L1 norm for each weight, and a few for each pair of features
    assert 16 * (3 * 16 * 32 + 3 * 16 * 16) < least.operations < 16 * 12 * (16 * 32 + 16 * 16)
    assert least.arithmetic() == least.operations + 2 * 2 * 16 * 16 * 16 * 32


def test_of_small_networks_draws_are_those_of_distinct_seeds(small: Any) -> None:
    spec = small(shard_size="18")
    (shard,) = shards(spec)
    least = count(spec, shard.rows)
    assert (least.networks, least.products) == (18, {})
    assert least.uniforms == 3 * 2 * 64
    # two features, each once in and out, forwards and backwards: some tens of operations for each input
    assert 20 < least.operations / (18 * 64) < 100


def test_what_takes_longest_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    side = LARGEST["cpu"]
    rates = {
        (_products, 4, 2, 3, 5): 1e9, (_products, 1, side, side, side): 1e10, (_uniforms,): 1e8,
        (_triad, 1000): 2e9,
    }  # fmt: skip
    monkeypatch.setattr(Machine, "__init__", lambda self: setattr(self, "devices", Devices("cpu", 2)))
    monkeypatch.setattr(Machine, "_rate", lambda self, *what: rates[what])
    machine = Machine()  # type: ignore[call-arg]
    least = Least(4, {(4, 2, 3, 5): 10}, operations=1e5, uniforms=10, moved=1e3, held=1e3)
    # 10 products of 240 operations at 1e9 take 2.4 us, operations 10 us, the rest less
    bound = machine.bound(least)
    assert bound.rate == pytest.approx(2 * 4 / 1e-5)
    assert bound.by == "arithmetic, 10 G/s"
    assert bound.rates == pytest.approx(
        {"matrix products": 8 / 2.4e-6, "arithmetic": 8e5, "random numbers": 8e7, "memory": 8 / 5e-7}
    )
    assert "random numbers" not in machine.bound(least._replace(uniforms=0)).rates
    assert machine.bound(least._replace(uniforms=10_000)).by == "random numbers, 0.1 G/s"
    assert machine.bound(least._replace(moved=1e6)).by == "memory, 2 GB/s"
    products = machine.bound(least._replace(operations=1e3))
    assert products.by == "matrix products, 1 GFLOP/s"
    assert products.rate == pytest.approx(2 * 4 / 2.4e-6)


def test_devices_are_measured_at_once(tmp_path: Path) -> None:
    least = Least(4, {(4, 8, 16, 8): 2}, operations=100, uniforms=1000, moved=1e3, held=1e3)
    with Machine(Devices("cpu", 2)) as machine:
        bound = machine.bound(least)
        measured = dict(machine._known)
        assert machine.bound(least) == bound
    # of any machine that runs this: products between a million and 10^15 a second, and so on
    assert len(measured) == 4
    assert all(1e6 < rate < 1e15 for rate in measured.values())
    assert bound.rate == pytest.approx(
        2
        * 4
        / max(
            2048 * 4 * 2 / measured[_products, 4, 8, 16, 8],
            1000 / measured[(_uniforms,)],
            1e3 / measured[_triad, 1000],
        )
    )
