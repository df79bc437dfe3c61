"""Tests of the exact networks: closed forms against quadrature, and that the best ones are stationary."""

import math

import numpy as np
import pytest
import torch

from replications.product_network import theory
from replications.product_network.population import ERROR, population_loss


def test_closed_forms_without_biases() -> None:
    assert theory.diagonal_scale() == pytest.approx(math.sqrt(math.pi) / (2 * math.pi - 4), abs=ERROR)
    assert theory.diagonal_loss() == pytest.approx(1 - 1 / (math.pi - 2), abs=ERROR)
    assert theory.homogeneous_bound() == pytest.approx(1 - 9 * math.pi / 32, abs=1e-9)


def test_the_loss_without_biases_is_that_of_the_quadrature() -> None:
    draws = np.random.default_rng(0)
    for n in (1, 4, 7):
        strength, angle = draws.normal(size=n), draws.uniform(0, 360, n)
        exact = theory.bias_free_loss(torch.from_numpy(strength), torch.deg2rad(torch.from_numpy(angle)))
        by_quadrature = population_loss(theory.network(strength, angle, np.zeros(n)), "normal")
        assert by_quadrature.item() == pytest.approx(exact.item(), abs=ERROR)


def test_the_diagonal_network_without_biases_is_a_saddle() -> None:
    def loss(turn: float) -> float:
        # the strengths that go with it are those of one step along the eigenvector
        scale = 2**0.5 * theory.diagonal_scale()
        strength = torch.tensor(
            [scale - turn, scale + turn, -scale + turn, -scale - turn], dtype=torch.float64
        )
        angle = torch.deg2rad(torch.tensor(theory.DIAGONALS, dtype=torch.float64))
        return float(theory.bias_free_loss(strength, angle + turn * torch.tensor([-1, 1, 1, -1])))

    at = loss(0)
    assert at == pytest.approx(1 - 1 / (math.pi - 2))
    lowest = min((loss(turn), turn) for turn in np.linspace(-0.3, 0.3, 61))
    assert lowest[0] < at - 1e-3
    assert theory.smallest_curvature() < -0.05


def test_the_best_network_without_biases_lies_off_the_diagonals() -> None:
    loss, smallest, largest = theory.bias_free_optimum()
    assert theory.homogeneous_bound() < loss < theory.diagonal_loss()
    assert smallest == theory.bias_free_angle("smallest") == pytest.approx(9.75, abs=0.01)
    assert largest == theory.bias_free_angle("largest") == pytest.approx(17.86, abs=0.01)


def test_the_best_network_with_biases() -> None:
    assert theory.best_kink() == pytest.approx(0.794470, abs=1e-6)
    assert theory.best_scale() == pytest.approx(1.661597, abs=1e-6)
    assert theory.best_loss() == pytest.approx(0.0330454, abs=1e-7)
    assert theory.hand_built_loss() == pytest.approx(theory.best_loss(), abs=ERROR)


def test_kinks_on_the_other_side_of_0_make_the_same_function() -> None:
    scale, kink = theory.best_scale(), theory.best_kink()
    best = population_loss(theory.diagonal_network(scale, kink), "normal")
    torch.testing.assert_close(population_loss(theory.diagonal_network(scale, -kink), "normal"), best)


def test_no_small_change_of_any_weight_improves_the_best_network() -> None:
    best = theory.diagonal_network(theory.best_scale(), theory.best_kink())
    loss = population_loss(best, "normal").item()
    draws = torch.Generator().manual_seed(0)
    for _ in range(20):
        changed = {
            name: weight + 0.05 * torch.randn(weight.shape, generator=draws, dtype=torch.float64)
            for name, weight in best.items()
        }
        assert population_loss(changed, "normal").item() > loss


def test_tolerances_behind_the_margins() -> None:
    kink, scale = theory.tolerance("kink"), theory.tolerance("scale")
    assert kink == pytest.approx(0.032, abs=5e-4)
    assert scale == pytest.approx(0.0518, abs=5e-4)

    def excess(a: float, t: float) -> float:
        return float(population_loss(theory.diagonal_network(a, t), "normal")) / theory.best_loss() - 1

    # alone, with the other as it was, each costs more than when the other follows
    assert excess(theory.best_scale(), theory.best_kink() - kink) > 0.01
    assert excess(theory.best_scale() - scale, theory.best_kink()) > 0.01
