"""Tests of specs/spec.py: what a spec means, and that every mistake in one is told in one line."""

import json
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from common.computed import Computed
from common.ensemble import Ensemble
from common.errors import InputError
from common.features import Features, Independent, Varying
from common.specs.arguments import class_arguments
from common.specs.spec import Spec, load_spec

MODEL = "replications.toy_models_of_superposition.model"

# line numbers stand in the messages below
TEXT = """\
title: A small sweep
paper: nobody2026
version: 1
code: code_of_a_replication
model:
  class_path: replications.toy_models_of_superposition.model.ToyModel
  init_args:
    n_hidden: 2
features:
  class_path: common.features.Independent
  init_args:
    n_features: 3
    batch_size: 64
optimizer:
  class_path: torch.optim.AdamW
  init_args:
    lr: 1e-3
    betas: [.9, .99]
trainer:
  max_steps: 10
seeds: 3
sweep:
  - part: one
    density: [1, .5]
    extra_importance: {from: .1, to: 10, count: 3, spacing: log}
  - part: two
    density:
      - .2
      - .4
    bias: false
profiles:
  quick:
    seeds: [5]
    trainer.max_steps: 5
    sweep.0.extra_importance.count: 2
controls:
  linear:
    why: no ReLU
    set:
      model.class_path: replications.toy_models_of_superposition.model.LinearModel
      trainer.max_steps: 7
    rejects: [claim]
"""


class Constant(Computed):
    """A number that is not trained."""

    def __init__(self, seeds: Sequence[int], value: Varying[float] = 1.0) -> None:
        super().__init__(seeds)
        self.value = value

    def metrics(self) -> dict[str, torch.Tensor]:
        return {"value": torch.as_tensor(self.value).expand(len(self.seeds))}


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that `TEXT` names as its code."""
    module = ModuleType("code_of_a_replication")
    module.figures = lambda table, claims: {}  # type: ignore[attr-defined]
    module.Features = Features  # type: ignore[attr-defined]
    module.Constant = Constant  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


Load = Callable[..., Spec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load `TEXT` with passages changed (old, new, old, new, ...), and with what else `load_spec` takes."""
    path = tmp_path / "paper" / "result.yaml"
    path.parent.mkdir()

    def load(*passages: str, **arguments: Any) -> Spec:
        text = TEXT
        for old, new in zip(passages[::2], passages[1::2], strict=True):
            assert text.count(old) == 1
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        return load_spec(path, **arguments)

    return load


def message_of(load: Load, tmp_path: Path, *passages: str, **arguments: Any) -> str:
    """The one line that is said, without the path of the file."""
    with pytest.raises(InputError) as error:
        load(*passages, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{tmp_path / 'paper' / 'result.yaml'}:")


# --- what a spec means


def test_a_spec(load: Load, tmp_path: Path) -> None:
    spec = load()
    assert (spec.name, spec.path) == ("paper/result", tmp_path / "paper" / "result.yaml")
    assert (spec.profile, spec.control, spec.seeds) == ("full", None, [0, 1, 2])
    assert [grid.part for grid in spec.grids] == ["one", "two"]
    # sorted, and what an entry does not say is the default of the class
    assert [list(grid.factors) for grid in spec.grids] == [["bias", "density", "extra_importance"]] * 2
    assert spec.grids[0].factors["bias"] == [True]
    assert spec.grids[1].factors == {"bias": [False], "density": [0.2, 0.4], "extra_importance": [1.0]}
    assert spec.grids[0].factors["extra_importance"] == pytest.approx([0.1, 1.0, 10.0])
    assert spec.fields.shard_size == 4096
    assert spec.code.__name__ == "code_of_a_replication"
    assert spec.varying() == {
        "n_features": False,
        "density": True,
        "batch_size": False,
        "n_hidden": False,
        "extra_importance": True,
        "bias": True,
    }


def test_resolved_has_all_defaults(load: Load) -> None:
    resolved = load().resolved()
    assert resolved == {
        "version": 1,
        "model": {"class_path": f"{MODEL}.ToyModel", "init_args": {"n_hidden": 2}},
        "features": {
            "class_path": "common.features.Independent",
            "init_args": {"n_features": 3, "batch_size": 64},
        },
        "optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {
                **{name: argument.default for name, argument in class_arguments(torch.optim.AdamW).items()},
                "lr": 1e-3,
                "betas": (0.9, 0.99),
            },
        },
        "sweep": [{"part": grid.part, **grid.factors} for grid in load().grids],
        "trainer": {"max_steps": 10},
        "shard_size": 4096,
    }
    assert resolved["optimizer"]["init_args"]["weight_decay"] == 0.01
    json.dumps(resolved, allow_nan=False)


CHANGES = {
    "version": ("version: 1", "version: 2"),
    "model": ("ToyModel", "LinearModel"),
    "model argument": ("n_hidden: 2", "n_hidden: 1"),
    "features": ("common.features.Independent", f"{MODEL}.DenseFeatures"),
    "features argument": ("batch_size: 64", "batch_size: 65"),
    "default of features": ("    batch_size: 64\n", ""),
    "optimizer": ("torch.optim.AdamW", "torch.optim.Adam"),
    "optimizer argument": ("lr: 1e-3", "lr: 1e-4"),
    "default of the optimizer": ("betas:", "weight_decay: .02\n    betas:"),
    "steps": ("max_steps: 10", "max_steps: 11"),
    "part": ("part: one", "part: three"),
    "factor": ("- .4", "- .41"),
    "default of a factor": ("bias: false", "extra_importance: 2."),
    "range": ("count: 3", "count: 4"),
    "shard size": ("seeds: 3", "seeds: 3\nshard_size: 7"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_resolved_changes_with_all_that_decides_numbers(load: Load, change: tuple[str, str]) -> None:
    assert load(*change).resolved() != load().resolved()


@pytest.mark.parametrize(
    "change",
    [
        ("A small sweep", "Another title"),
        ("nobody2026", "somebody2026"),
        ("seeds: 3", "# a comment\nseeds: 3"),
        ("seeds: 3", "seeds: [0, 1, 2]"),
        ("version: 1", "version: 1\nplain: replications.toy_models_of_superposition.plain"),
        ("version: 1", "version: 1\nshard_size: 4_096"),
        ("betas: [.9, .99]", "betas: [.9, .99]\n    weight_decay: 1e-2"),
        ("bias: false", "bias: [false]\n    extra_importance: 1"),
        ("density: [1, .5]", "density: {from: 1, to: .5, count: 2}"),
        ("rejects: [claim]", "rejects: [claim, other]"),
        ("seeds: [5]", "seeds: [6]"),
        ("no ReLU", "without its ReLU"),
    ],
)
def test_resolved_does_not_change_with_the_rest(load: Load, change: tuple[str, str]) -> None:
    assert json.dumps(load(*change).resolved()) == json.dumps(load().resolved())


def test_layers(load: Load) -> None:
    quick = load(profile="quick")
    assert (quick.profile, quick.seeds, quick.fields.trainer.max_steps) == ("quick", [5], 5)
    assert quick.grids[0].factors["extra_importance"] == [0.1, 10.0]
    control = load(control="linear")
    assert (control.control, control.seeds, control.fields.trainer.max_steps) == ("linear", [0, 1, 2], 7)
    assert control.model_class.__name__ == "LinearModel"
    # the command line wins over the profile, and the control over both: it stays broken
    both = load(profile="quick", control="linear")
    assert (both.seeds, both.fields.trainer.max_steps) == ([5], 7)
    overrides = {"trainer.max_steps": (9, "--set"), "sweep.0.density": (1.0, "--set")}
    changed = load(profile="quick", overrides=overrides)
    assert (changed.fields.trainer.max_steps, changed.grids[0].factors["density"]) == (9, [1.0])
    last = load(profile="quick", control="linear", overrides=overrides)
    assert (last.fields.trainer.max_steps, last.grids[0].factors["density"]) == (7, [1.0])
    assert load(control="linear", overrides={"controls.linear.set": ({"seeds": 1}, "--set")}).seeds == [0]


def test_a_layer_can_give_arguments_where_there_were_none(load: Load) -> None:
    init_args = "  init_args:\n    lr: 1e-3\n    betas: [.9, .99]\n"
    overrides = {"optimizer.init_args.lr": (0.5, "--set")}
    assert load(init_args, "", overrides=overrides).optimizer_args["lr"] == 0.5


def test_one_alias_in_two_places_changed_in_one(load: Load) -> None:
    sweep = "{density: {from: 1, to: .5, count: 5}}"
    spec = load(
        "      trainer.max_steps: 7\n",
        f"      sweep: [&s {sweep}, *s]\n      sweep.0.density.count: 2\n",
        control="linear",
    )
    assert [grid.factors["density"] for grid in spec.grids] == [[1.0, 0.5], [1.0, 0.875, 0.75, 0.625, 0.5]]
    assert spec.controls["linear"].set["sweep"][0]["density"]["count"] == 5


def test_a_value_twice(load: Load) -> None:
    with pytest.raises(InputError, match=r"sweep.0.density.1: 0.5 is listed twice; list each value once$"):
        load(overrides={"sweep.0.density": ([0.5, 0.5], "--set")})


@pytest.mark.parametrize("spacing", ["linear", "log"])
@pytest.mark.parametrize(("start", "stop", "count"), [(0.1, 0.9, 7), (1, 0.01, 100), (0.3, 1, 2)])
def test_range(load: Load, spacing: str, start: float, stop: float, count: int) -> None:
    text = f"density: {{from: {start}, to: {stop}, count: {count}, spacing: {spacing}}}"
    values = load("density: [1, .5]", text).grids[0].factors["density"]
    assert (values[0], values[-1], len(values)) == (start, stop, count)
    assert values == sorted(values, reverse=start > stop)
    assert all(type(value) is float for value in values)
    half = (start + stop) / 2 if spacing == "linear" else (start * stop) ** 0.5
    if count % 2:
        assert values[count // 2] == pytest.approx(half)


def test_a_spec_can_be_sent_to_another_process(load: Load) -> None:
    spec = load(control="linear")
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec
    assert copy.resolved() == spec.resolved()


def test_build(load: Load) -> None:
    spec = load()
    rows = {"part": "one", "density": torch.tensor([0.5, 1.0]), "extra_importance": 2.0, "bias": True}
    ensemble = spec.build(rows, seeds=[0, 0])
    assert isinstance(ensemble, Ensemble)
    assert {name: column.flatten().tolist() for name, column in ensemble.factors.items()} == {
        "density": [0.5, 1.0],
        "extra_importance": [2.0, 2.0],
        "bias": [1.0, 1.0],
    }
    assert ensemble.weights["weight"].shape == (2, 2, 3)
    assert ensemble.features.batch_size == 64


def test_class_arguments() -> None:
    def function(
        table: "pd.Series[float]", count: int, scale: float = 2.0, **more: Any
    ) -> "pd.Series[float]":
        raise NotImplementedError

    assert class_arguments(function)["scale"] == (float, 2.0, False)
    assert list(class_arguments(function)) == ["count", "scale"]


@pytest.mark.parametrize(
    "name", ["Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RMSprop", "SGD"]
)
def test_any_optimizer_can_be_named(load: Load, name: str) -> None:
    spec = load("torch.optim.AdamW", f"torch.optim.{name}", "    betas: [.9, .99]\n", "")
    assert type(spec.optimizer_of(spec.grids[0].part)([torch.zeros(1)])).__name__ == name
    json.dumps(spec.optimizer_args, allow_nan=False)


OWN = "    bias: false\n    optimizer: {class_path: torch.optim.SGD, init_args: {lr: .5}}\n"
LOGGERS = "lightning.pytorch.loggers"
COSINE = "lr_scheduler: {class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 10}}\n"


def test_an_entry_of_the_sweep_may_have_its_own_optimizer(load: Load) -> None:
    spec = load("    bias: false\n", OWN)
    weight = torch.nn.Parameter(torch.zeros(1))
    one, two = (spec.optimizer_of(part)([weight]) for part in ("one", "two"))
    assert (type(one).__name__, type(two).__name__) == ("AdamW", "SGD")
    assert two.defaults["lr"] == 0.5
    resolved = spec.resolved()["sweep"]
    assert "optimizer" not in resolved[0]
    assert resolved[1]["optimizer"]["class_path"] == "torch.optim.SGD"
    assert resolved[1]["optimizer"]["init_args"]["momentum"] == 0
    json.dumps(resolved, allow_nan=False)


def test_a_learning_rate_may_follow_a_schedule(load: Load) -> None:
    spec = load("trainer:\n", COSINE + "trainer:\n")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    make = spec.lr_scheduler_of()
    assert make is not None
    schedule = make(optimizer)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4)
    assert spec.resolved()["lr_scheduler"]["init_args"]["T_max"] == 10
    plain = load()
    assert plain.lr_scheduler_of() is None
    assert "lr_scheduler" not in plain.resolved()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    bias: false\n", OWN.replace("SGD", "SGDD"), r":31: sweep\.1\.optimizer\.class_path: no class"),
        (
            "    bias: false\n",
            OWN.replace("lr:", "rate:"),
            r":31: sweep\.1\.optimizer\.init_args\.rate: unknown",
        ),
        (
            "    bias: false\n",
            OWN.replace("{lr: .5}", "{lr: -1.}"),
            r":31: sweep\.1\.optimizer\.init_args\.lr: SGD",
        ),
        ("    bias: false\n", "    optimizer: fast\n", r":30: sweep\.1\.optimizer: "),
        ("trainer:\n", COSINE.replace("T_max: 10", "") + "trainer:\n", r":19: lr_scheduler.*T_max"),
        ("trainer:\n", COSINE.replace("T_max", "t_max") + "trainer:\n", r":19: .*t_max: unknown.*T_max"),
        (
            "trainer:\n",
            COSINE.replace("lr_scheduler.Cos", "Cos") + "trainer:\n",
            r":19: lr_scheduler\.class_path",
        ),
        ("trainer:\n", "lr_scheduler: cosine\ntrainer:\n", r":19: lr_scheduler: "),
    ],
)
def test_mistakes_in_optimizers_and_schedules(load: Load, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(old, new)


# --- mistakes

# each: passages of TEXT and what stands there instead, then the line and message
MISTAKES: dict[str, tuple[str, ...]] = {
    # keys
    "unknown key": (
        "seeds: 3",
        "seeds: 3\nshard_sise: 3",
        "22: shard_sise: unknown key; did you mean 'shard_size'?",
    ),
    "misspelt key": ("trainer:\n", "trainr:\n", "19: trainr: unknown key; did you mean 'trainer'?"),
    "misspelt inner key": (
        "max_steps: 10",
        "max_step: 10",
        "20: trainer.max_step: unknown key; did you mean 'max_steps'?",
    ),
    "misspelt key of a class": (
        "class_path: torch",
        "class: torch",
        "15: optimizer.class: unknown key; did you mean 'class_path'?",
    ),
    "missing key": ("paper: nobody2026\n", "", "1: paper: missing key"),
    "missing class": ("  class_path: torch.optim.AdamW\n", "", "14: optimizer.class_path: missing key"),
    "empty section": (
        "  max_steps: 10\n",
        "",
        "19: trainer: input should be a mapping, KEY: VALUE, got None",
    ),
    # types
    "number as title": (
        "A small sweep",
        "1",
        "1: title: input should be a valid string, got 1; put it in quotes",
    ),
    "string as int": (
        "max_steps: 10",
        "max_steps: '10'",
        "20: trainer.max_steps: input should be a valid integer, got '10'",
    ),
    "float as int": (
        "max_steps: 10",
        "max_steps: 1e1",
        "20: trainer.max_steps: input should be a valid integer, got 10.0",
    ),
    "bool as int": ("version: 1", "version: true", "3: version: input should be a valid integer, got True"),
    "string as argument": (
        "n_hidden: 2",
        "n_hidden: two",
        "8: model.init_args.n_hidden: input should be a valid integer, got 'two'",
    ),
    "float as argument": (
        "batch_size: 64",
        "batch_size: 64.",
        "13: features.init_args.batch_size: input should be a valid integer, got 64.0",
    ),
    "string as factor": ("- .4", "- '.4'", "29: sweep.1.density.1: input should be a valid number, got '.4'"),
    "bool as factor": ("- .4", "- true", "29: sweep.1.density.1: input should be a valid number, got True"),
    "float as bool": (
        "bias: false",
        "bias: 0.",
        "30: sweep.1.bias: input should be a valid boolean, got 0.0",
    ),
    "int as bool": ("bias: false", "bias: 1", "30: sweep.1.bias: input should be a valid boolean, got 1"),
    "list as sweep entry": (
        "- part: two\n",
        "- [part]\n  - part: two\n",
        "26: sweep.1: input should be a mapping, KEY: VALUE",
    ),
    "bool as part": ("part: one", "part: on", "23: sweep.0.part: expected a name, got True"),
    "bool for the optimizer": (
        "lr: 1e-3",
        "lr: true",
        "17: optimizer.init_args.lr: input should be a valid number, got True",
    ),
    "string for the optimizer": (
        "lr: 1e-3",
        "lr: '1e-3'",
        "17: optimizer.init_args.lr: input should be a valid number, got '1e-3'",
    ),
    # values
    "density 0": ("- .4", "- 0", "29: sweep.1.density.1: input should be greater than 0, got 0"),
    "density 1.1": (
        "- .4",
        "- 1.1",
        "29: sweep.1.density.1: input should be less than or equal to 1, got 1.1",
    ),
    "density below 0": ("- .4", "- -.4", "29: sweep.1.density.1: input should be greater than 0, got -0.4"),
    "NaN": ("- .4", "- .nan", "29: sweep.1.density.1: input should be a finite number, got nan"),
    "infinity": (
        "bias: false",
        "extra_importance: .inf",
        "30: sweep.1.extra_importance: input should be a finite number, got inf",
    ),
    "infinite argument": (
        "lr: 1e-3",
        "lr: .inf",
        "17: optimizer.init_args.lr: input should be a finite number, got inf",
    ),
    "importance 0": (
        "bias: false",
        "extra_importance: 0",
        "30: sweep.1.extra_importance: input should be greater than 0, got 0",
    ),
    "importance below 0": (
        "bias: false",
        "extra_importance: -1.",
        "30: sweep.1.extra_importance: input should be greater than 0, got -1.0",
    ),
    "no hidden": (
        "n_hidden: 2",
        "n_hidden: 0",
        "8: model.init_args.n_hidden: input should be greater than or equal to 1, got 0",
    ),
    "too many hidden": (
        "n_hidden: 2",
        "n_hidden: 4",
        "8: model.init_args.n_hidden: expected at most n_features = 3, got 4",
    ),
    "no batch": (
        "batch_size: 64",
        "batch_size: 0",
        "13: features.init_args.batch_size: expected at least 1, got 0",
    ),
    "arguments that do not fit": (
        "lr: 1e-3",
        "fused: true\n    foreach: true",
        "16: optimizer.init_args: AdamW: `fused` and `foreach` cannot be `True` together.",
    ),
    "no features": (
        "n_features: 3",
        "n_features: 0",
        "12: features.init_args.n_features: expected at least 1, got 0",
    ),
    "no steps": (
        "max_steps: 10",
        "max_steps: 0",
        "20: trainer.max_steps: input should be greater than 0, got 0",
    ),
    "no shard": (
        "seeds: 3",
        "seeds: 3\nshard_size: 0",
        "22: shard_size: input should be greater than 0, got 0",
    ),
    "bad rate": ("lr: 1e-3", "lr: -1", "17: optimizer.init_args.lr: AdamW: Invalid learning rate: -1.0"),
    "bad betas": (
        "[.9, .99]",
        "[.9, 2]",
        "18: optimizer.init_args.betas: AdamW: Invalid beta parameter at index 1: 2.0",
    ),
    "three betas": (
        "[.9, .99]",
        "[.9, .9, .9]",
        "18: optimizer.init_args.betas: tuple should have at most 2 items, not 3",
    ),
    # seeds
    "no seeds": ("seeds: 3", "seeds: 0", "21: seeds: input should be greater than 0, got 0"),
    "negative seeds": ("seeds: 3", "seeds: -3", "21: seeds: input should be greater than 0, got -3"),
    "negative seed": (
        "seeds: 3",
        "seeds:\n- 0\n- -1",
        "23: seeds.1: input should be greater than or equal to 0, got -1",
    ),
    "no seed": ("seeds: 3", "seeds: []", "21: seeds: expected at least one seed, and no seed twice"),
    "seed twice": ("seeds: 3", "seeds: [3, 3]", "21: seeds: expected at least one seed, and no seed twice"),
    "float as seed": ("seeds: 3", "seeds: [0, 1.5]", "21: seeds.1: input should be a valid integer, got 1.5"),
    "string as seeds": ("seeds: 3", "seeds: few", "21: seeds: input should be a valid integer, got 'few'"),
    # arguments
    "unknown argument": (
        "n_hidden: 2",
        "n_hiden: 2",
        "8: model.init_args.n_hiden: unknown argument; did you mean 'n_hidden'?",
    ),
    "unknown argument of features": (
        "batch_size: 64",
        "bach_size: 64",
        "13: features.init_args.bach_size: unknown argument; did you mean 'batch_size'?",
    ),
    "unknown argument of the optimizer": (
        "lr: 1e-3",
        "learn: 1",
        "17: optimizer.init_args.learn: unknown argument; did you mean 'lr'?",
    ),
    "argument of the program": (
        "n_hidden: 2",
        "seeds: [1]",
        "8: model.init_args.seeds: unknown argument; valid: bias, extra_importance, n_hidden",
    ),
    "missing argument": ("    n_features: 3\n", "", "11: features.init_args.n_features: missing key"),
    "missing arguments": ("  init_args:\n    n_hidden: 2\n", "", "5: model.init_args.n_hidden: missing key"),
    "given twice": (
        "n_hidden: 2",
        "n_hidden: 2\n    bias: true",
        "9: model.init_args.bias: given both here and in sweep; keep one",
    ),
    "optimizer swept": (
        "bias: false",
        "lr: [1e-3]",
        "30: sweep.1.lr: unknown factor; "
        "valid: batch_size, bias, density, extra_importance, n_features, n_hidden",
    ),
    # sweep
    "no sweep": (
        TEXT[TEXT.index("sweep:") : TEXT.index("profiles:")],
        "sweep: []\n",
        "22: sweep: list should have at least 1 item, not 0",
    ),
    "misspelt factor": (
        "density: [1, .5]",
        "denisty: [1, .5]",
        "24: sweep.0.denisty: unknown factor; did you mean 'density'?",
    ),
    "unknown factor": (
        "bias: false",
        "bais: false",
        "30: sweep.1.bais: unknown factor; did you mean 'bias'?",
    ),
    "no value": ("bias: false", "bias: []", "30: sweep.1.bias: a factor needs at least one value"),
    "missing factor": (
        *("  init_args:\n    n_hidden: 2\n", "", "density: [1, .5]", "density: [1, .5]\n    n_hidden: 1"),
        "25: sweep.1: missing factor 'n_hidden', which other entries have",
    ),
    "same part": (
        "part: two",
        "part: one",
        "26: sweep.1.part: another entry is also called 'one'; give each its own name",
    ),
    "too many hidden in the sweep": (
        *("  init_args:\n    n_hidden: 2\n", "", "bias: false", "n_hidden: 3"),
        *("density: [1, .5]", "density: [1, .5]\n    n_hidden:\n    - 1\n    - 4"),
        "25: sweep.0.n_hidden.1: expected at most n_features = 3, got 4",
    ),
    # ranges
    "one of a range": (
        "count: 3",
        "count: 1",
        "25: sweep.0.extra_importance.count: input should be greater than or equal to 2, got 1",
    ),
    "float as count": (
        "count: 3",
        "count: 3.",
        "25: sweep.0.extra_importance.count: input should be a valid integer, got 3.0",
    ),
    "spacing": (
        "spacing: log",
        "spacing: lg",
        "25: sweep.0.extra_importance.spacing: input should be 'linear' or 'log', got 'lg'",
    ),
    "no from": ("from: .1, ", "", "25: sweep.0.extra_importance.from: missing key"),
    "no to": ("to: 10, ", "", "25: sweep.0.extra_importance.to: missing key"),
    "no count": (", count: 3", "", "25: sweep.0.extra_importance.count: missing key"),
    "misspelt from": (
        "from: .1",
        "form: .1",
        "25: sweep.0.extra_importance.form: unknown key; did you mean 'from'?",
    ),
    "log from 0": (
        "from: .1",
        "from: 0",
        "25: sweep.0.extra_importance: spacing log needs from and to above 0, got 0.0 and 10.0",
    ),
    "log to below 0": (
        "to: 10",
        "to: -10",
        "25: sweep.0.extra_importance: spacing log needs from and to above 0, got 0.1 and -10.0",
    ),
    "range to NaN": (
        "to: 10",
        "to: .nan",
        "25: sweep.0.extra_importance.to: input should be a finite number, got nan",
    ),
    "range out of bounds": (
        "[1, .5]",
        "{from: 1, to: 0, count: 3}",
        "24: sweep.0.density: input should be greater than 0, got 0.0",
    ),
    # classes and modules
    "no class name": (
        "torch.optim.AdamW",
        "AdamW",
        "15: optimizer.class_path: expected package.module.Class, got 'AdamW'",
    ),
    "no such module": (
        "torch.optim.AdamW",
        "torch.optimm.AdamW",
        "15: optimizer.class_path: cannot import 'torch.optimm': No module named 'torch.optimm'",
    ),
    "relative module": (
        "torch.optim.AdamW",
        ".optim.AdamW",
        "15: optimizer.class_path: '.optim' is not the dotted name of a module",
    ),
    "no such class": (
        "model.ToyModel",
        "model.ToyModle",
        f"6: model.class_path: no class 'ToyModle' in {MODEL}; did you mean 'ToyModel'?",
    ),
    "features left out": (
        TEXT[TEXT.index("features:") : TEXT.index("optimizer:")],
        "",
        "1: features: missing key",
    ),
    "calculated, and features": (
        f"{MODEL}.ToyModel\n  init_args:\n    n_hidden: 2",
        "code_of_a_replication.Constant",
        "7: features: Constant is calculated, not trained; remove this key",
    ),
    "no class at all": (
        "torch.optim.AdamW",
        "math.AdamW",
        "15: optimizer.class_path: no class 'AdamW' in math; math has none",
    ),
    "not a class": (
        f"{MODEL}.ToyModel\n  init",
        "code_of_a_replication.figures\n  init",
        "6: model.class_path: 'figures' is not a class derived from Ensemble or Computed; valid: Constant",
    ),
    "another base": (
        "common.features.Independent",
        "torch.optim.AdamW",
        "10: features.class_path: 'AdamW' is not a class derived from Features; torch.optim has none",
    ),
    "abstract": (
        "common.features.Independent",
        "code_of_a_replication.Features",
        "10: features.class_path: 'Features' is not a class derived from Features; "
        "code_of_a_replication has none",
    ),
    "no such code": (
        "code_of_a_replication",
        "code_of_none",
        "4: code: cannot import 'code_of_none': No module named 'code_of_none'",
    ),
    "code is a path": (
        "code_of_a_replication",
        "some/code.py",
        "4: code: 'some/code.py' is not the dotted name of a module",
    ),
    "empty code": ("code_of_a_replication", "''", "4: code: '' is not the dotted name of a module"),
    "no figures": ("code_of_a_replication", "math", "4: code: math has no function figures(table, claims)"),
    # profiles and controls
    "no claims lost": (
        "rejects: [claim]",
        "rejects: []",
        "42: controls.linear.rejects: list should have at least 1 item, not 0",
    ),
    "no reason": ("    why: no ReLU\n", "", "37: controls.linear.why: missing key"),
    "key of a control": (
        "why: no ReLU",
        "wy: no ReLU",
        "38: controls.linear.wy: unknown key; did you mean 'why'?",
    ),
    "empty profile": (
        TEXT[TEXT.index("    seeds: [5]") : TEXT.index("controls:")],
        "",
        "32: profiles.quick: input should be a mapping, KEY: VALUE, got None",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(load: Load, tmp_path: Path, mistake: tuple[str, ...]) -> None:
    *passages, message = mistake
    assert message_of(load, tmp_path, *passages) == message


# each: the profile, the control, passages of TEXT and what stands there instead, the line and message
LAYERS: dict[str, tuple[str | None, ...]] = {
    "unknown profile": ("quik", None, "31: profiles: no profile 'quik'; did you mean 'quick'?"),
    "unknown control": ("full", "liner", "36: controls: no control 'liner'; did you mean 'linear'?"),
    "no controls": (
        *("full", "linear", TEXT[TEXT.index("controls:") :], ""),
        "1: controls: no control 'linear'; there are none",
    ),
    "controls taken away": (
        *("quick", "linear", "seeds: [5]", "controls: {}"),
        "33: controls: no control 'linear'; there are none",
    ),
    "unknown key of a profile": (
        *("quick", None, "seeds: [5]", "seed: [5]"),
        "33: seed: unknown key; did you mean 'seeds'?",
    ),
    "unknown inner key of a profile": (
        *("quick", None, "trainer.max_steps: 5", "trainer.steps: 5"),
        "34: trainer.steps: unknown key; did you mean 'max_steps'?",
    ),
    "unknown section of a profile": (
        *("quick", None, "trainer.max_steps: 5", "trainr.max_steps: 5"),
        "34: trainr.max_steps: no key 'trainr'; did you mean 'trainer'?",
    ),
    "no such entry of the sweep": (
        *("quick", None, "sweep.0.extra", "sweep.2.extra"),
        "35: sweep.2.extra_importance.count: a list of 2 has no item '2'",
    ),
    "unknown factor of a profile": (
        *("quick", None, "sweep.0.extra_importance.count: 2", "sweep.1.bais: true"),
        "35: sweep.1.bais: unknown factor; did you mean 'bias'?",
    ),
    "value of a profile": (
        *("quick", None, "seeds: [5]", "seeds:\n    - 5\n    - -5"),
        "35: seeds.1: input should be greater than or equal to 0, got -5",
    ),
    "value of a control": (
        *("full", "linear", "trainer.max_steps: 7", "trainer.max_steps: no"),
        "41: trainer.max_steps: input should be a valid integer, got False",
    ),
    "class of a control": (
        *("full", "linear", "LinearModel", "LinaerModel"),
        f"40: model.class_path: no class 'LinaerModel' in {MODEL}; did you mean 'LinearModel'?",
    ),
    "unknown key of a control": (
        *("full", "linear", "model.class_path:", "modle.class_path:"),
        "40: modle.class_path: no key 'modle'; did you mean 'model'?",
    ),
    "inside a value of a control": (
        *("quick", "linear", "trainer.max_steps: 7", "sweep:\n      - part: one\n        density: 2"),
        "43: sweep.0.density: input should be less than or equal to 1, got 2",
    ),
}


@pytest.mark.parametrize("mistake", LAYERS.values(), ids=LAYERS.keys())
def test_mistakes_in_layers(load: Load, tmp_path: Path, mistake: tuple[str, ...]) -> None:
    profile, control, *passages, message = mistake
    assert message_of(load, tmp_path, *passages, profile=profile, control=control) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer.max_steps", 0, "trainer.max_steps: input should be greater than 0, got 0"),
        ("trainer.max_steps", None, "trainer.max_steps: input should be a valid integer, got None"),
        ("trainer.steps", 1, "trainer.steps: unknown key; did you mean 'max_steps'?"),
        ("trainr.max_steps", 1, "trainr.max_steps: no key 'trainr'; did you mean 'trainer'?"),
        ("trainer.max_steps.x", 1, "trainer.max_steps.x: trainer.max_steps is not a mapping"),
        ("titel", "x", "titel: unknown key; did you mean 'title'?"),
        ("seeds", [1, 1], "seeds: expected at least one seed, and no seed twice"),
        ("seeds", [1, "x"], "seeds.1: input should be a valid integer, got 'x'"),
        ("model", "x", "model: input should be a mapping, KEY: VALUE, got 'x'"),
        ("model.init_args.n_hidden", 4, "model.init_args.n_hidden: expected at most n_features = 3, got 4"),
        (
            "model.init_args.m",
            1,
            "model.init_args.m: unknown argument; valid: bias, extra_importance, n_hidden",
        ),
        ("model.class_path", "x.Y", "model.class_path: cannot import 'x': No module named 'x'"),
        ("sweep", [{"hidden": 1}], "sweep.0.hidden: unknown factor; did you mean 'n_hidden'?"),
        ("sweep", [], "sweep: list should have at least 1 item, not 0"),
        ("sweep.1.density.0", 2, "sweep.1.density.0: input should be less than or equal to 1, got 2"),
        ("sweep.2.density", 1, "sweep.2.density: a list of 2 has no item '2'"),
        ("optimizer.init_args.lr", -1.0, "optimizer.init_args.lr: AdamW: Invalid learning rate: -1.0"),
        ("trainer.log_every_steps", 0, "trainer.log_every_steps: input should be greater than 0, got 0"),
        ("trainer.logger", "csv", "trainer.logger: input should be a mapping, KEY: VALUE, got 'csv'"),
        ("trainer.logger.name", "x", "trainer.logger.name: unknown key; valid: class_path, init_args"),
        (
            "trainer.logger.class_path",
            "torch.optim.SGD",
            "trainer.logger.class_path: 'SGD' is not a class derived from Logger; torch.optim has none",
        ),
        (
            "trainer.logger.class_path",
            f"{LOGGERS}.CSVLoger",
            f"trainer.logger.class_path: no class 'CSVLoger' in {LOGGERS}; did you mean 'CSVLogger'?",
        ),
        (
            "trainer.logger",
            {"class_path": f"{LOGGERS}.CSVLogger", "init_args": {"prefx": "a"}},
            "trainer.logger.init_args.prefx: unknown argument; did you mean 'prefix'?",
        ),
        (
            "trainer.logger",
            {"class_path": f"{LOGGERS}.CSVLogger", "init_args": {"version": 1}},
            "trainer.logger.init_args.version: each run and shard has its own; remove this key",
        ),
        (
            "trainer.logger",
            {"class_path": f"{LOGGERS}.CSVLogger", "init_args": {"save_dir": 1}},
            "trainer.logger.init_args.save_dir: input should be a valid string, got 1; put it in quotes",
        ),
    ],
)
def test_mistakes_on_the_command_line(load: Load, tmp_path: Path, key: str, value: Any, message: str) -> None:
    origin = f"--set {key}={value}"
    assert message_of(load, tmp_path, overrides={key: (value, origin)}) == f"{origin}: {message}"


class Uninstalled(CSVLogger):
    """A logger whose package is missing."""

    def __init__(self, save_dir: str) -> None:
        raise ModuleNotFoundError("No package 'curves'.\nHINT: install it")


class Bare(CSVLogger):
    """A logger that refuses its arguments."""

    def __init__(self, save_dir: str, token: str = "") -> None:
        raise ValueError("no token")


def test_a_logger_that_cannot_be_made_is_told_at_once(load: Load, tmp_path: Path, code: ModuleType) -> None:
    for logger, message in {
        Uninstalled: "class_path: No package 'curves'.",
        Bare: "init_args: no token",
    }.items():
        setattr(code, logger.__name__, logger)
        given = {"trainer.logger.class_path": (f"{code.__name__}.{logger.__name__}", "--set")}
        said = message_of(load, tmp_path, overrides=given)
        assert said.split(": ", 1)[1] == f"trainer.logger.{message}"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*none\.yaml: cannot be read: [^\n]*$"):
        load_spec(tmp_path / "none.yaml")


def test_another_mistake_of_a_class_is_told_at_the_entry(
    load: Load, tmp_path: Path, code: ModuleType
) -> None:
    class Refusing(Independent):
        def __init__(self, n_features: int, density: float, batch_size: int) -> None:
            raise ValueError("density and\nbatch_size: do not fit")

    code.Refusing = Refusing  # type: ignore[attr-defined]
    said = message_of(load, tmp_path, "common.features.Independent", "code_of_a_replication.Refusing")
    place, _, said = said.partition(": ValueError: ")
    assert place.startswith(f"23: sweep.0: {__file__}:")
    assert said == "density and batch_size: do not fit"
