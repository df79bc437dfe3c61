"""Tests of notebook.py: the README's lines, what a result has, networks trained and loaded again."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from common.ensemble import Ensemble
from common.errors import InputError
from common.notebook import Result, result
from common.specs.new import make
from tests.conftest import ROOT

NAME = "example/projection"
SHORT = {"trainer.max_steps": 30, "trainer.compile": False}


@pytest.fixture
def short(example: Path) -> Any:
    """A function that gives the worked example's result after few steps."""

    def load(**arguments: Any) -> Result:
        overrides = SHORT | arguments.pop("overrides", {})
        return result(NAME, overrides=overrides, root=example, **arguments)

    return load


def test_the_lines_in_the_readme(tmp_path: Path) -> None:
    """As they stand; in place of what they name, which would train for a minute, a small one of that name."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## In a notebook")[1]
    lines = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert lines is not None
    assert len([line for line in lines[1].splitlines() if line]) == 3
    name = re.search(r'result\("(\w+/\w+)"', lines[1])
    assert name is not None
    make(tmp_path, name[1])
    train = f"from common.notebook import result\nresult({name[1]!r}, profile='quick', train=True)\n"
    show = "print(len(r.table), *r.claims.index, *r.figures())\n"
    # in a process of its own, as its modules have the names of the suite's
    done = subprocess.run(
        [sys.executable, "-c", train + lines[1] + show], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "6 squared_norm five_features"


def test_a_result_has_table_claims_and_figures(short: Any, example: Path) -> None:
    r = short(train=True)
    assert list(r.table["seed"]) == [seed for seed in range(5) for _ in range(2)]
    assert list(r.claims.columns) == [
        "statement", "kind", "published", "value", "low", "high", "region_low", "region_high",
        "verdict", "reason",
        "investigated",
    ]  # fmt: skip
    (claim,) = r.claims.itertuples()
    assert (claim.Index, claim.statement) == ("squared_norm", "the squared weights sum to 1")
    assert (claim.kind, claim.published, claim.investigated) == ("theory", "theory: 1", None)
    assert claim.value == pytest.approx(r.table.query("density == .5")["squared_norm"].mean())
    assert claim.low < claim.value < claim.high
    assert (claim.region_low, claim.region_high) == pytest.approx((0.8, 1.2))
    assert claim.verdict in ("not reproduced", "inconclusive")
    assert isinstance(r.figures()["projection"], Figure)
    # the results are stored, where they belong to this spec alone; the control was not trained
    assert len(list(example.glob("results/example/projection/*/*/manifest.json"))) == 1
    pd.testing.assert_frame_equal(short().table, r.table)


def test_figures_get_the_claims_of_all_profiles(short: Any, example: Path) -> None:
    expected, code = example / "expected" / f"{NAME}.yaml", example / "replications" / f"{NAME}.py"
    text = expected.read_text(encoding="utf-8")
    judged_in_full = text.replace("claims:\n", "").replace(
        "  squared_norm:\n", "  of_full:\n    profiles: [full]\n"
    )
    expected.write_text(text + judged_in_full, encoding="utf-8")
    asks = "return {claim: figure for claim in claims if claims[claim].region[0] == 0.8}"
    code.write_text(
        code.read_text(encoding="utf-8").replace('return {"projection": figure}', asks), encoding="utf-8"
    )
    r = short(profile="quick", train=True)
    assert list(r.claims.index) == ["squared_norm"]
    assert list(r.figures()) == ["squared_norm", "of_full"]


def test_kept_networks_give_the_table_s_numbers_again(short: Any) -> None:
    r = short(train=True, keep_weights="seed < 2")
    networks = r.model("seed == 1")
    assert isinstance(networks, Ensemble)
    rows = r.table.query("seed == 1")
    squared_norm = networks.metrics()["squared_norm"].numpy()
    np.testing.assert_array_equal(squared_norm, rows["squared_norm"].to_numpy())
    np.testing.assert_array_equal(networks.evaluate().numpy(), rows["loss"].to_numpy())
    # in the order of the table, each with its own factors
    assert networks.factors["density"].squeeze(1).tolist() == rows["density"].tolist()
    assert torch.equal(r.model("seed < 2").weights["weight"][2:], networks.weights["weight"])

    with pytest.raises(InputError, match=r"^'all': weights of 6 of 10 networks were not kept; "):
        r.model()
    # stored already, without the weights: trained again
    assert len(short(train=True, keep_weights="all").model().seed_index) == 10


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_notebook_may_be_in_a_mode_without_gradients(short: Any, mode: Any) -> None:
    with mode():
        r = short(train=True, keep_weights="all")
        networks = r.model("seed == 1")
        losses = networks.evaluate().numpy()
    np.testing.assert_array_equal(losses, r.table.query("seed == 1")["loss"].to_numpy())
    assert networks.weights["weight"].requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"^example/projection \(full\): never run; result\(\.\.\., train=True\) or `replicate run`"),
        ({"profile": "quik"}, r"projection.yaml:\d+: profiles: no profile 'quik'; did you mean 'quick'\?$"),
        ({"overrides": {"seed": 2}}, r"^overrides\['seed'\]: seed: unknown key; did you mean 'seeds'\?$"),
        ({"train": True, "devices": 0}, r"^devices=0: expected at least 1$"),
        ({"train": True, "keep_weights": "sed == 0"}, r"name 'sed' is not defined; the columns of example/p"),
        (
            {"train": True, "keep_weights": "seed =="},
            r"^'seed ==': .*; the columns of example/projection are",
        ),
        (
            {"train": True, "keep_weights": "seed"},
            r"^'seed' is not a condition; write one such as 'seed == 0'",
        ),
        ({"train": True, "keep_weights": "seed > 9"}, r"^'seed > 9' selects no network of example/project"),
    ],
)
def test_bad_input_is_one_line(short: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        assert short(**arguments).table is None
    assert len(str(raised.value).splitlines()) == 1


def test_a_folder_without_a_suite_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: no folder replications/ in it")):
        result(NAME, root=tmp_path)


def test_networks_of_several_shapes_are_no_ensemble(short: Any, example: Path) -> None:
    spec = example / "replications" / f"{NAME}.yaml"
    text = (
        spec.read_text(encoding="utf-8")
        .replace("n_features: 2, batch_size: 256", "n_features: 2")
        .replace("density: [1., .5]", "{density: .5, batch_size: [64, 128]}")
    )
    spec.write_text(text, encoding="utf-8")
    r = short()
    with pytest.raises(
        InputError, match="'all': selects networks of several shapes; choose one value of batch_size"
    ):
        r.model()
