"""Tests of the product network: losses and neurons by hand, inputs by their distributions."""

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from common.features import Draws
from replications.product_network import neurons, population, theory
from replications.product_network.model import Pair, ProductNetwork
from replications.product_network.population import ERROR, Distribution, population_loss

DISTRIBUTIONS: tuple[Distribution, ...] = get_args(Distribution)


def random_weights(instances: int, n_hidden: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(instances, *shape, generator=draws, dtype=torch.float64)

    return {
        "weight": normal(n_hidden, 2), "bias": normal(n_hidden), "output": normal(n_hidden),
        "output_bias": normal(1),
    }  # fmt: skip


def by_formula(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The output of each network, (instances, batch), with numpy's einsum and nothing else."""
    weight, bias, output, output_bias = (weights[n] for n in ("weight", "bias", "output", "output_bias"))
    hidden = np.einsum("kni,ikb->knb", weight, torch.stack([x, y])) + bias[:, :, None].numpy()
    return torch.from_numpy(np.einsum("kn,knb->kb", output, np.maximum(hidden, 0))) + output_bias


# --- the loss


@pytest.mark.parametrize("n_hidden", [1, 4])
def test_the_loss_is_that_of_the_formula(n_hidden: int) -> None:
    weights = random_weights(3, n_hidden)
    x, y = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factors = {"bias": torch.ones(3, 1), "product": torch.tensor([[1.0], [1.0], [0.0]])}
    output = by_formula(weights, x, y)
    target = torch.stack([x[0] * y[0], x[1] * y[1], x[2] + y[2]])
    found = ProductNetwork.loss(weights, factors, [x, y])
    torch.testing.assert_close(found, ((target - output) ** 2).mean(dim=1))


def test_without_biases_they_have_no_effect_and_no_gradient() -> None:
    weights = {name: weight.requires_grad_() for name, weight in random_weights(2, 4).items()}
    x, y = torch.randn(2, 2, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factors = {"bias": torch.tensor([[1.0], [0.0]]), "product": torch.ones(2, 1)}
    loss = ProductNetwork.loss(weights, factors, [x, y])
    loss.sum().backward()  # type: ignore[no-untyped-call]
    zero = {name: w.detach() * (1 if name in ("weight", "output") else 0) for name, w in weights.items()}
    torch.testing.assert_close(loss[1].detach(), ProductNetwork.loss(zero, factors, [x, y])[1])
    for name in ("bias", "output_bias"):
        gradient = weights[name].grad
        assert gradient is not None
        assert gradient[0].any()
        assert not gradient[1].any()


@pytest.mark.usefixtures("uncompiled")
def test_gradients_are_those_of_autograd() -> None:
    model = ProductNetwork(Pair("normal", 32), [0, 1, 1], 4, bias=torch.tensor([True, True, False]))
    uniforms = next(iter(Draws(model.features, model.distinct_seeds)))
    losses, gradients = model.losses_and_gradients(uniforms, model.seed_index)
    x = model.features.sample([uniforms[model.seed_index * 2 + i] for i in range(2)], model.factors)
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in model.weights.items()}
    by_autograd = ProductNetwork.loss(weights, model.factors, x)
    by_autograd.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(losses, by_autograd.detach())
    for name, weight in weights.items():
        torch.testing.assert_close(gradients[name], weight.grad)


def test_the_start_is_that_of_linear_layers_times_the_scale() -> None:
    scale = torch.tensor([1.0, 3.0]).repeat(200)
    model = ProductNetwork(Pair("normal"), [s // 2 for s in range(400)], 4, start_scale=scale)
    plain = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    shapes = {name: weight.shape[1:] for name, weight in model.weights.items()}
    assert shapes == {"weight": (4, 2), "bias": (4,), "output": (4,), "output_bias": (1,)}
    assert sum(math.prod(shape) for shape in shapes.values()) == sum(p.numel() for p in plain.parameters())
    for name, bound in {"weight": 0.5**0.5, "bias": 0.5**0.5, "output": 0.5, "output_bias": 0.5}.items():
        weight = model.weights[name].detach()
        torch.testing.assert_close(weight[1::2], 3 * weight[::2])
        # uniform: Kolmogorov's test of at least 200 numbers; a false alarm in 10^4 other sets of seeds each
        assert stats.kstest(weight[::2].flatten() / bound, stats.uniform(-1, 2).cdf).pvalue > 1e-4


# --- the inputs

TOGETHER = {"together": torch.ones(1, 1)}


def test_inputs_are_distributed_as_they_are_called() -> None:
    u, v = torch.rand(2, 1, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    laws: dict[Distribution, Any] = {
        "uniform": stats.uniform(-(3**0.5), 12**0.5),
        "laplace": stats.laplace(0, 0.5**0.5),
    }
    for distribution, law in laws.items():
        assert law.var() == pytest.approx(1)
        x, y = Pair(distribution).sample([u, v], TOGETHER)
        np.testing.assert_allclose(x, law.ppf(u + 2**-25))  # half the spacing of float32 uniforms
        np.testing.assert_allclose(y, law.ppf(v + 2**-25))
    # a pair of normals has a squared radius of mean 2 that is exponential, and a uniform direction
    x, y = Pair("normal").sample([u, v], TOGETHER)
    np.testing.assert_allclose(x**2 + y**2, stats.expon(scale=2).ppf(u))
    np.testing.assert_allclose(torch.atan2(y, x) % (2 * torch.pi), 2 * torch.pi * v)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_smallest_and_largest_uniforms_give_finite_inputs(distribution: Distribution) -> None:
    ends = torch.tensor([[0.0, 0.5, 1 - 2**-24]])
    for x in Pair(distribution).sample([ends, ends], TOGETHER):
        assert x.isfinite().all()
        assert x.abs().max() < population.RANGE[distribution]
    features = Pair(distribution)
    assert hash(features) == hash(Pair(distribution))
    assert features == Pair(distribution)
    assert all(features != Pair(other) for other in DISTRIBUTIONS if other != distribution)


def test_the_control_has_inputs_on_one_axis() -> None:
    uniforms = list(torch.rand(2, 2, 64, generator=torch.Generator().manual_seed(0)))
    both, one = ({"together": torch.full((2, 1), float(value))} for value in (True, False))
    x, y = Pair("normal").sample(uniforms, {"together": torch.tensor([[1.0], [0.0]])})
    whole = Pair("normal").sample(uniforms, both)
    torch.testing.assert_close([x[0], y[0]], [axis[0] for axis in whole])
    assert not (x[1] * y[1]).any()
    torch.testing.assert_close(x[1, :32], whole[0][1, :32])
    torch.testing.assert_close(y[1, 32:], whole[1][1, 32:])
    torch.testing.assert_close([x[1:], y[1:]], [axis[1:] for axis in Pair("normal").sample(uniforms, one)])


# --- the population loss


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_population_losses_of_simple_functions(distribution: Distribution) -> None:
    nothing = {name: torch.zeros_like(weight) for name, weight in random_weights(1, 2).items()}
    constant = {**nothing, "output_bias": torch.tensor([[0.5]])}
    # x + y as relu(x + y) - relu(-x - y), and relu(x)
    linear = {**nothing, "weight": torch.tensor([[[1.0, 1], [-1, -1]]]), "output": torch.tensor([[1.0, -1]])}
    one_side = {**nothing, "weight": torch.tensor([[[1.0, 0], [0, 0]]]), "output": torch.tensor([[1.0, 0]])}
    found = [float(population_loss(w, distribution)) for w in (nothing, constant, linear, one_side)]
    assert found == pytest.approx([1, 1.25, 3, 1.5], abs=1e-5)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_quadrature_is_as_exact_as_it_says(
    distribution: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(0)
    oblique = [
        theory.network(
            draws.normal(size=4) / 2, 90 * np.arange(4) + draws.uniform(20, 70, 4), draws.normal(size=4)
        )
        for _ in range(30)
    ]
    by_hand = [theory.diagonal_network(a, t) for a, t in ((1.1, 0.0), (1.66, 0.79), (1.4, -0.6), (2.1, 1.0))]
    weights = {name: torch.cat([network[name] for network in oblique + by_hand]) for name in by_hand[0]}
    found = population_loss(weights, distribution)
    monkeypatch.setattr(population, "NODES", (390, 631))
    assert (found - population_loss(weights, distribution)).abs().max() < ERROR


# --- the neurons


def test_neurons_of_a_network_built_by_hand() -> None:
    weights = theory.network(
        np.array([2.0, -3.0, 0.01, 4.0]),
        np.array([50.0, 314.5, 100.0, 10.0]),
        np.array([1.0, -0.5, 0.0, -3.0]),
    )
    read = neurons.read(weights)
    torch.testing.assert_close(read.angle, torch.tensor([[50.0, 314.5, 100.0, 10.0]], dtype=torch.float64))
    torch.testing.assert_close(read.kink, torch.tensor([[1.0, -0.5, 0.0, -3.0]], dtype=torch.float64))
    # twice as long and half as strong is the same neuron
    scaled = {
        **weights,
        "weight": 2 * weights["weight"],
        "bias": 2 * weights["bias"],
        "output": weights["output"] / 2,
    }
    torch.testing.assert_close(neurons.read(scaled), read)
    assert read.strong.tolist() == [[True, True, False, True]]
    assert read.kinked.tolist() == [[True, True, False, False]]
    assert read.always_on.tolist() == [[False, False, False, True]]
    assert read.quadrant.tolist() == [[0, 3, 1, 0]]
    found = {name: value.tolist() for name, value in neurons.geometry(read).items()}
    assert found == {
        "kinked_neurons": [2],
        "always_on_neurons": [1],
        "smallest_angle": pytest.approx([0.5]),
        "largest_angle": pytest.approx([5.0]),
        "near_diagonal_neurons": [1],
        "half_diagonals": [2],
        "both_diagonals": [True],
        "right_signs": [2],
        "mean_kink": pytest.approx([0.75]),
        "mean_scale": pytest.approx([2.5]),
        "polysemantic_neurons": [3],
        "superposition": [0],
    }


def test_a_neuron_on_an_axis_responds_to_one_input() -> None:
    weights = theory.network(np.ones(4), np.array([0.0, 92.0, 186.0, 45.0]), np.zeros(4))
    # tan 2 = .03 and tan 6 = .105 of the larger weight
    assert neurons.geometry(neurons.read(weights))["polysemantic_neurons"].tolist() == [2]


def test_two_inputs_that_neurons_cannot_tell_apart_are_in_superposition() -> None:
    weights = theory.network(np.ones(4), np.array([45.0, 225.0, 45.0, 225.0]), np.zeros(4))
    assert neurons.geometry(neurons.read(weights))["superposition"].tolist() == [1]


def test_one_diagonal_alone_and_no_kink_at_all() -> None:
    one = neurons.geometry(neurons.read(theory.network(np.ones(2), np.array([45.0, 225.0]), np.ones(2))))
    assert not one["both_diagonals"].item()
    linear = neurons.read(
        theory.network(np.array([1.0, -1.0]), np.array([45.0, 225.0]), np.array([-3.0, -3.0]))
    )
    none = neurons.geometry(linear)
    assert none["kinked_neurons"].item() == none["half_diagonals"].item() == 0
    for name in ("smallest_angle", "largest_angle", "mean_kink", "mean_scale"):
        assert none[name].isnan().all()


def test_the_squares_are_read_from_the_weights() -> None:
    u = torch.linspace(-2, 2, 9, dtype=torch.float64)
    best = neurons.read(theory.diagonal_network(2.0, 0.5))
    for diagonal in (0, 1):
        torch.testing.assert_close(
            neurons.piecewise_square(best, u, diagonal)[0], 2 * torch.relu(u.abs() - 0.5)
        )
    # f_0(u) - f_1(v) is the network
    weights = theory.network(
        np.array([2.0, 1, -1, -3]), np.array([45.0, 225, 135, 315]), np.array([0.5, -1, 0, 1])
    )
    x, y = torch.randn(2, 1, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    read = neurons.read(weights)
    squares = neurons.piecewise_square(read, (x[0] + y[0]) / 2**0.5, 0)
    squares = squares - neurons.piecewise_square(read, (x[0] - y[0]) / 2**0.5, 1)
    torch.testing.assert_close(squares, by_formula(weights, x, y))


def test_how_even_and_how_square_f_is() -> None:
    best = neurons.shape(neurons.read(theory.diagonal_network(theory.best_scale(), theory.best_kink())))
    assert best["odd_part"].item() == pytest.approx(0, abs=1e-9)
    # with two equal f the loss is 1 - R^2
    assert best["square_fit"].item() == pytest.approx(1 - theory.best_loss(), abs=1e-5)
    # relu(u) = u / 2 + |u| / 2: variances 1/4 and (1 - 2/pi) / 4; R^2 of |u| is 1 / (pi - 2)
    half = neurons.read(theory.network(np.array([1.0, -1.0]), np.array([45.0, 135.0]), np.zeros(2)))
    variance = 1 + 1 - 2 / math.pi
    expected = {"odd_part": variance**-0.5, "square_fit": (1 - 2 / math.pi) / variance / (math.pi - 2)}
    found = {name: value.item() for name, value in neurons.shape(half).items()}
    assert found == pytest.approx(expected, rel=1e-3)
    one = neurons.shape(neurons.read(theory.network(np.ones(2), np.array([45.0, 225.0]), np.ones(2))))
    assert one["square_fit"].isnan().all()


def test_metrics_show_what_the_network_uses() -> None:
    model = ProductNetwork(Pair("normal"), [0, 0, 1], 4, bias=torch.tensor([True, False, True]))
    by_hand = theory.diagonal_network(theory.best_scale(), theory.best_kink())
    with torch.no_grad():
        for name, weight in by_hand.items():
            model.weights[name][:2] = weight
    found = model.metrics()
    assert found["population_loss"][0].item() == pytest.approx(theory.best_loss(), abs=ERROR)
    assert found["mean_kink"][:2].tolist() == pytest.approx([theory.best_kink(), 0])
    without = theory.diagonal_network(theory.best_scale())
    torch.testing.assert_close(found["population_loss"][1:2], population_loss(without, "normal"))
    assert found["angle"].shape == found["kink"].shape == found["strength"].shape == (3, 4)
    short = ProductNetwork(Pair("normal"), [0], 4, keep_neurons=False).metrics()
    assert set(found) - set(short) == {"angle", "kink", "strength", "odd_part", "square_fit"}
