"""Tests of speed/scaling.py: sweeps grow as they say, each in a process of its own, and are fitted."""

from collections.abc import Mapping
from typing import Any

import pytest

from common.cli import main
from common.errors import InputError
from common.runs.training import Devices
from common.specs.spec import Spec, load_spec
from common.speed import scaling
from common.speed.scaling import Measured
from tests.conftest import ROOT


def test_sweeps_grow_along_one_axis_at_a_time(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def law(spec: Spec, changes: Mapping[str, Any], accelerator: str) -> Measured:
        networks, steps = 6 * changes["seeds"], changes["trainer.max_steps"]
        seen.append((networks, steps, changes["shard_size"]))
        return Measured(networks, steps, networks * steps**0.5, 10 * changes["shard_size"])

    monkeypatch.setattr(scaling, "_in_own_process", law)
    networks, steps, shard = scaling.scaling(small(), Devices("cpu", 4))
    n, s = 66, 500  # eleven seeds of six networks are the nearest to 64
    assert seen == [
        (n, s, n),  # whether the smallest takes long enough
        *[(k * n, s, n) for k in (1, 2, 4, 8)],
        *[(n, k * s, n) for k in (1, 2, 4, 8)],
        *[(k * n, s, k * n) for k in (1, 2, 4, 8)],
    ]
    powers = [(axis.time_exponent, axis.memory_exponent) for axis in (networks, steps, shard)]
    assert powers == [pytest.approx(p) for p in ((1, 0), (0.5, 0), (1, 1))]


def test_the_smallest_sweep_takes_a_second(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        scaling, "_in_own_process",
        lambda spec, changes, accelerator: Measured(
            6 * changes["seeds"], 500, 6 * changes["seeds"] / 200, changes["shard_size"]
        ),
    )  # fmt: skip
    first = next(scaling.scaling(small(), Devices("cpu", 4)))
    assert [(run.networks, run.memory) for run in first.runs] == [(k * 264, 264) for k in (1, 2, 4, 8)]


def test_each_sweep_is_trained_in_its_own_process(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"seeds": 2, "trainer.max_steps": 20, "shard_size": 6, "shard_weights": 10**12}
    found = scaling._in_own_process(small(trainer__compile="false"), changes, "cpu")
    assert (found.networks, found.steps) == (12, 20)
    assert found.seconds > 0
    assert 50e6 < found.memory < 20e9


def test_the_command_prints_what_was_measured(
    small: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(small().path)
    monkeypatch.setattr(
        scaling,
        "_in_own_process",
        lambda spec, changes, accelerator: Measured(
            6 * changes["seeds"], 500, changes["seeds"] / 11, 5 * 10**8
        ),
    )
    assert main(["bench", "--scaling", path]) == 0
    printed = capsys.readouterr().out
    assert "nobody/small" in printed
    assert [line.split("│")[4].strip() for line in printed.splitlines() if "528" in line] == ["8.00", "8.00"]
    assert printed.count("^1.00") == 2


def test_what_is_calculated_does_not_scale() -> None:
    spec = load_spec(ROOT / "replications" / "polysemanticity_definitions" / "definitions.yaml")
    with pytest.raises(
        InputError, match=r"^polysemanticity_definitions/definitions is calculated, not trained"
    ):
        next(scaling.scaling(spec, Devices("cpu", 1)))
