"""Tests of networks beside an exact solution: losses and gradients exactly, estimates on made-up tables."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from common.features import Basis, Draws
from common.verdicts.claims import Verdict
from replications.polysemanticity_definitions.exact_networks import (
    CONDITIONS,
    FLOOR,
    effect,
    effect_over_optimizer,
    low,
    polysemantic,
    share_interval,
    solved,
    stuck,
)
from replications.polysemanticity_definitions.exact_networks_model import (
    LinearNetwork,
    Task,
    TaskName,
    TwoLayerNetwork,
    exact_solution,
    inputs_read,
)
from tests.replications.under_test import UnderTest, trained

NETWORKS = UnderTest("polysemanticity_definitions/exact_networks")
CLAIMS = NETWORKS.claims
TASKS: list[TaskName] = ["absolute", "and"]


def test_parts_are_trained_as_the_conditions_say() -> None:
    for profile in ("full", "quick"):
        loaded = NETWORKS.spec(profile)
        for grid in loaded.grids:
            given = loaded.optimizer_args if grid.optimizer is None else grid.optimizer.init_args
            assert given["weight_decay"] == CONDITIONS[grid.part].weight_decay
            name = "AdamW" if grid.part == "adam" else CONDITIONS[grid.part].optimizer
            path = loaded.fields.optimizer.class_path if grid.optimizer is None else grid.optimizer.class_path
            assert path == f"torch.optim.{name}"  # AdamW without decay is Adam
        assert loaded.lr_scheduler_args["T_max"] == loaded.fields.trainer.max_steps


# --- tasks


def test_pairwise_and_of_all_inputs() -> None:
    inputs, targets, counts = Task("and", 3, torch.tensor([0.1, 0.5])).batch(
        None, torch.tensor([[0.1], [0.5]])
    )
    assert inputs.shape == (2, 3, 8)
    for column in range(8):
        a, b, c = inputs[0, :, column].tolist()
        assert targets[0, :, column].tolist() == [a * b, a * c, b * c]
        for i, p in enumerate((0.1, 0.5)):
            probability = np.prod([p if on else 1 - p for on in (a, b, c)])
            assert counts[i, 0, column] == pytest.approx(probability / (3 * p**2))
    assert len({tuple(x) for x in inputs[0].T.tolist()}) == 8
    # a network whose output is 0 has a loss of 1
    torch.testing.assert_close((targets.square() * counts).sum(dim=(1, 2)), torch.ones(2))


def test_absolute_values_of_sparse_inputs() -> None:
    """On a grid of uniforms: the share that is on, their mean, size and sign are exact."""
    p, n = torch.tensor([[0.25], [1.0]]), 3
    grid = ((torch.arange(4000) + 0.5) / 4000).expand(2, n, -1)
    inputs, targets, counts = Task("absolute", n, p[:, 0], 4000).batch(grid, p)
    torch.testing.assert_close(targets, inputs.abs())
    assert ((inputs != 0).sum(dim=2) == torch.tensor([[1000], [4000]])).all()
    torch.testing.assert_close(inputs.mean(dim=2), torch.zeros(2, n), rtol=0, atol=1e-6)
    assert inputs.abs().max() <= 1
    for i in range(2):
        on = inputs[i, 0][inputs[i, 0] != 0].sort().values
        torch.testing.assert_close(on, torch.linspace(-1, 1, len(on)), rtol=0, atol=1e-2)
    torch.testing.assert_close((targets.square() * counts).sum(dim=(1, 2)), torch.ones(2), rtol=1e-4, atol=0)


def network(task: TaskName, width: int = 2, **changes: Any) -> TwoLayerNetwork:
    density = torch.tensor([0.1, 0.5, 0.5])
    return TwoLayerNetwork(Task(task, 4, density, 32), [3, 3, 5], width, **changes)


def drawn(model: TwoLayerNetwork) -> Tensor:
    return next(iter(Draws(model.features, model.distinct_seeds)))


@pytest.mark.parametrize("task", TASKS)
def test_losses_are_those_by_hand(task: TaskName) -> None:
    model = network(task)
    losses, _ = model.losses_and_gradients(drawn(model), model.seed_index)
    uniforms = drawn(model).reshape(-1, 4, 32)[model.seed_index] if task == "absolute" else None
    inputs, targets, counts = model.task.batch(uniforms, model.factors["density"])
    for k in range(3):
        w, b, v, c = (
            model.weights[n][k].detach().numpy() for n in ("weight", "bias", "output", "output_bias")
        )
        total = 0.0
        for column in range(inputs.shape[2]):
            y = v @ np.maximum(w @ inputs[k, :, column].numpy() + b, 0) + c
            total += float(counts[k, 0, column]) * float(((y - targets[k, :, column].numpy()) ** 2).sum())
        assert losses[k].item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_gradients_are_those_of_the_loss(task: TaskName) -> None:
    model = network(task)
    uniforms = drawn(model)
    losses, gradients = model.losses_and_gradients(uniforms, model.seed_index)
    rows = [uniforms[model.seed_index * 4 + i] for i in range(4)] if task == "absolute" else []
    x = model.features.sample(rows, model.factors)
    weights = {name: w.detach().clone().requires_grad_() for name, w in model.weights.items()}
    by_autograd = TwoLayerNetwork.loss(weights, model.factors, x)
    by_autograd.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(losses, by_autograd.detach())
    for name, weight in weights.items():
        torch.testing.assert_close(gradients[name], weight.grad)
    assert len(set(losses.tolist())) == 3
    # a second step, in the arrays of the first, on other weights
    with torch.no_grad():
        model.weights["weight"] *= 1.5
    again = model.losses_and_gradients(uniforms, model.seed_index)[0]
    weights["weight"] = model.weights["weight"].detach()
    torch.testing.assert_close(again, TwoLayerNetwork.loss(weights, model.factors, x).detach())


@pytest.mark.parametrize("task", TASKS)
def test_the_exact_solution_has_no_error(task: TaskName) -> None:
    model = network(task, width=3, from_solution=True)
    assert model.weights["bias"].shape == (3, 3 * {"absolute": 8, "and": 6}[task])
    losses, gradients = model.losses_and_gradients(drawn(model), model.seed_index)
    assert losses.tolist() == [0, 0, 0]
    assert all(not gradient.any() for gradient in gradients.values())
    kept = model.metrics()
    assert kept["active_neurons"].tolist() == 3 * [{"absolute": 8, "and": 6}[task]]
    assert not kept["polysemantic_neurons"].any()
    # one weight that is off is seen
    with torch.no_grad():
        model.weights["output"][0, 0, 0] += 0.1
    assert model.losses_and_gradients(drawn(model), model.seed_index)[0][0] > 1e-4


def test_start_is_uniform_within_one_over_the_root_of_the_fan_in() -> None:
    model = TwoLayerNetwork(Task("and", 4, 0.5), list(range(50)), 4)
    for name, fan_in in (("weight", 4), ("bias", 4), ("output", 24), ("output_bias", 24)):
        start = model.weights[name].detach() * fan_in**0.5
        assert 0.95 < start.abs().max() <= 1
        # variance 1/3 of at least 300 numbers, its error sqrt(4/45/300): five of them
        assert start.square().mean() == pytest.approx(1 / 3, abs=5 * (4 / 45 / start.numel()) ** 0.5)


def test_a_basis_is_not_a_task() -> None:
    with pytest.raises(ValueError, match="features: expected Task, got Basis"):
        TwoLayerNetwork(Basis(4), [0], 1)  # type: ignore[arg-type]


# --- neurons


def test_inputs_read() -> None:
    weight = torch.tensor([[[1.0, 0.0, 0.0], [-1.0, 0.09, 0.2], [0.5, -0.5, 0.03], [0.0, 0.0, 0.0]]])
    assert inputs_read(weight, 0.1).tolist() == [[1, 2, 2, 3]]
    assert inputs_read(weight, 0.05).tolist() == [[1, 3, 3, 3]]


def test_counts_of_neurons() -> None:
    model = TwoLayerNetwork(Task("absolute", 2, 0.5), [0], 2)  # 8 neurons
    with torch.no_grad():
        for weight in model.weights.values():
            weight.zero_()
        w, b, v = (model.weights[name][0] for name in ("weight", "bias", "output"))
        w[0, 0], v[0, 0] = 1.0, 1.0  # reads one input
        w[1, 1], w[1, 0], v[1, 1] = -1.0, 0.15, 1.0  # reads two at .1, one at .2
        w[2], v[0, 2] = torch.tensor([1.0, 1.0]), 0.004  # too weak: 2 * .004 < .01
        w[3], b[3], v[1, 3] = torch.tensor([1.0, 1.0]), -2.5, 1.0  # never on
        w[4], v[:, 4] = torch.tensor([0.0, 0.0]), 1.0  # no weights
        w[5], b[5], v[1, 5] = torch.tensor([1.0, 1.0]), -1.5, 1.0  # on where both inputs are large
    kept = model.metrics()
    assert kept["active_neurons"].tolist() == [3]
    assert kept["polysemantic_neurons"].tolist() == [[2, 2, 1]]


def test_a_neuron_for_and_reads_two() -> None:
    model = TwoLayerNetwork(Task("and", 3, 0.5), [0], 1, from_solution=True)
    with torch.no_grad():
        model.weights["weight"][0, 0, 2] = -0.12
        model.weights["weight"][0, 1] = torch.tensor([-1.0, -1.0, -1.0])  # never on: inputs are not negative
    kept = model.metrics()
    assert kept["active_neurons"].tolist() == [2]
    assert kept["polysemantic_neurons"].tolist() == [[1, 1, 0]]


# --- estimates


def made_up(changes: Mapping[str, Any] | None = None, seeds: int = 8) -> pd.DataFrame:
    """A table in which all is as said; a change puts another value where a column is not for width 1."""
    rows = []
    for seed, (part, condition), task, density in itertools.product(
        range(seeds), CONDITIONS.items(), TASKS, (0.05, 0.15, 0.5)
    ):
        for width in (1, 4, 8) if part in ("adamw_0.01", "adamw_0.1") else (1,):
            decay, neurons = 10 ** (5 * condition.weight_decay / 4), 12 * width
            loss = 4e-3 * decay * density * (1 + seed % 3) if width == 1 else 1e-6
            many = neurons - 2 - seed % 4
            rows.append(
                {
                    "part": part, "task": task, "density": density, "width": width, "seed": seed,
                    "loss": loss, "active_neurons": neurons, "polysemantic_neurons_0": neurons,
                    "polysemantic_neurons_1": many, "polysemantic_neurons_2": 0,
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    # optimisers differ a little, so that an effect of theirs has a spread
    table.loc[table["part"].eq("sgd") & table["seed"].gt(3), "loss"] *= 1.01
    for column, value in (changes or {}).items():
        table.loc[table["width"] > 1, column] = value
    return table


def test_all_verdicts_on_what_was_said() -> None:
    found = NETWORKS.judged(made_up())
    assert {name: o.verdict for name, o in found.items()} == dict.fromkeys(CLAIMS, Verdict.REPRODUCED)


def test_verdicts_on_the_opposite() -> None:
    solved_table = made_up().assign(loss=1e-6)
    found = NETWORKS.judged(solved_table)
    for name in CLAIMS:
        if name.startswith("stuck"):
            assert found[name].verdict == Verdict.NOT_REPRODUCED
        if name.startswith("low"):
            assert found[name].verdict == Verdict.INVALID  # no stuck network to judge
    wide_stuck = NETWORKS.judged(made_up({"loss": 1e-3}))
    monosemantic = NETWORKS.judged(made_up({"polysemantic_neurons_1": 1}))
    for task, width in itertools.product(TASKS, (4, 8)):
        assert wide_stuck[f"solved_{task}_x{width}"].verdict == Verdict.NOT_REPRODUCED
        assert wide_stuck[f"polysemantic_{task}_x{width}"].verdict == Verdict.INVALID  # of solved ones only
        assert monosemantic[f"polysemantic_{task}_x{width}"].verdict == Verdict.NOT_REPRODUCED
    high = NETWORKS.judged(made_up().assign(loss=lambda t: np.where(t["width"] == 1, 0.3, t["loss"])))
    assert high["low_and"].verdict == Verdict.NOT_REPRODUCED
    diverged = NETWORKS.judged(made_up({"loss": np.nan}))
    assert diverged["solved_and_x4"].verdict == Verdict.INVALID


def test_estimates() -> None:
    table = made_up(seeds=4)
    assert len(stuck(table, "and", "AdamW")) == 3 * 3 * 4
    assert len(stuck(table, "and", "RMSprop")) == 3 * 4
    assert stuck(table, "absolute").all()
    assert not stuck(table, "absolute", width=4).any()
    assert solved(table, "absolute", 4).all()
    assert low(table, "and").mean() == 71 / 72  # one of 4 seeds at decay 1, density .5 is at .107
    two = 2 * 3  # parts and densities
    expected = sum(48 - 2 - seed % 4 for seed in range(4)) / (4 * 48)
    assert polysemantic(table, "and", 4).mean() == pytest.approx(expected)
    assert len(polysemantic(table, "and", 4)) == two * 4 * 48
    assert polysemantic(table, "and", 4, threshold=0.05).all()
    with pytest.raises(ValueError, match="width: no network on and with width 3"):
        solved(table, "and", 3)


def test_effects() -> None:
    table = made_up(seeds=4)
    # log10 of the decay's factor: 0, .0125, .125, 1.25
    assert effect(table, "and", "weight_decay") == pytest.approx(np.std([0, 0.0125, 0.125, 1.25]), rel=1e-6)
    assert effect(table, "and", "density") == pytest.approx(np.std(np.log10([0.05, 0.15, 0.5])))
    assert effect_over_optimizer(table, "and", "density") == pytest.approx(
        effect(table, "and", "density") - effect(table, "and", "optimizer")
    )
    by_optimizer = table.assign(loss=np.where(table["part"] == "rmsprop", 1e-12, 1e-3))
    assert effect(by_optimizer, "and", "optimizer") == pytest.approx(
        np.std([np.log10(FLOOR), -3, -3]), rel=1e-6
    )
    assert effect_over_optimizer(by_optimizer, "and", "weight_decay") < 0
    with pytest.raises(ValueError, match="an effect needs two values"):
        effect(table[table["density"] == 0.5], "and", "density")


def test_intervals_of_the_figure() -> None:
    rows = pd.DataFrame({"seed": [0, 0, 1, 1], "hits": [1, 0, 1, 1], "units": 1})
    value, (low_end, high_end) = share_interval(rows)
    assert value == 0.75
    assert low_end < 0.75 < high_end <= 1
    assert share_interval(rows[rows["seed"] == 0]) == (0.5, (0.5, 0.5))


def test_figures_show_all_networks() -> None:
    table = made_up(seeds=2)
    drawn_figures = NETWORKS.figures(table)
    panels = drawn_figures["exact_networks_loss"].axes
    points = sum(len(np.asarray(dots.get_offsets())) for axes in panels for dots in axes.collections)
    assert points == len(table)
    assert [axes.get_title(loc="left") for axes in panels] == ["|x|", "pairwise AND"]
    labels = [label.get_text() for label in drawn_figures["exact_networks_shares"].axes[0].get_xticklabels()]
    assert labels[2] == "AdamW\n0.1"


# --- training


def test_a_small_run() -> None:
    small = {
        "seeds": 2, "trainer.max_steps": 60, "lr_scheduler.init_args.T_max": 60,
        "features.init_args.n_features": 3, "features.init_args.batch_size": 128,
    }  # fmt: skip
    table = trained(NETWORKS.spec("quick", changes=small))
    assert table.groupby(["part", "task", "width"]).size().tolist() == 6 * [2]
    untrained = trained(NETWORKS.spec("quick", changes={**small, "trainer.max_steps": 1}))
    assert (table["loss"].to_numpy() < untrained["loss"].to_numpy()).all()
    adam = (table["part"] != "sgd").to_numpy()
    assert (table["loss"].to_numpy() < 0.8 * untrained["loss"].to_numpy())[adam].all()


@pytest.mark.parametrize("control", ["from_solution", "linear"])
def test_controls_are_rejected(control: str) -> None:
    broken = NETWORKS.spec("quick", control, {"trainer.max_steps": 100, "lr_scheduler.init_args.T_max": 100})
    lost = NETWORKS.judged(trained(broken))
    for name in broken.controls[control].rejects:
        assert lost[name].verdict == Verdict.NOT_REPRODUCED


@pytest.mark.parametrize("task", TASKS)
def test_the_linear_control_is_linear(task: TaskName) -> None:
    model = LinearNetwork(Task(task, 4, torch.tensor([0.1, 0.5]), 32), [3, 5], 2)
    uniforms = drawn(model)
    losses, gradients = model.losses_and_gradients(uniforms, model.seed_index)
    batch = uniforms.reshape(-1, 4, 32)[model.seed_index] if task == "absolute" else None
    inputs, targets, counts = model.task.batch(batch, model.factors["density"])
    weights = {name: w.detach().clone().requires_grad_() for name, w in model.weights.items()}
    through = weights["output"] @ weights["weight"]
    shift = weights["output"] @ weights["bias"].unsqueeze(2) + weights["output_bias"].unsqueeze(2)
    by_hand = ((through @ inputs + shift - targets).square() * counts).sum(dim=(1, 2))
    by_hand.sum().backward()
    torch.testing.assert_close(losses, by_hand.detach())
    for name, weight in weights.items():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-4, atol=1e-5)


def test_widths_are_multiples_of_the_exact_one() -> None:
    assert exact_solution("absolute", 6)["bias"].shape == (12,)
    assert exact_solution("and", 6)["bias"].shape == (15,)
    assert network("and", width=4).weights["output"].shape == (3, 6, 24)
