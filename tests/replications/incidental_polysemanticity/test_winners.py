"""Tests of winners.py and model.py: exact counts of hand-made weights, gradients, and what is settled."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.features import Basis, Independent, generator
from replications.incidental_polysemanticity import winners
from replications.incidental_polysemanticity.model import (
    L1Autoencoder,
    LinearL1Autoencoder,
    NoInterference,
    OtherStart,
    StartCorrelation,
    start_weights,
)

steady = settings(derandomize=True, max_examples=30, deadline=None, database=None)

# Rows are features. Neuron 0: one of each sign, 1: two of one sign, 2: three, 3: one; the last row is spread.
HAND_MADE = torch.tensor(
    [
        [
            [1.0, 0.0, 0.0, 0.0],
            [-0.9, 0.01, 0.0, 0.0],
            [0.0, 0.8, 0.0, 0.0],
            [0.0, 1.2, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.04],
            [0.0, 0.0, -1.0, 0.0],
            [0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.06, 1.0],
            [0.5, 0.5, 0.5, -0.5],
        ]
    ]
)
COUNTS = {
    winners.polysemantic_neurons: 3,
    winners.opposed_neurons: 1,
    winners.opposed_pairs: 3,
    winners.crowded_features: 3,
    winners.features_with_one_winner: 8,
    winners.features_near_zero_or_one: 7,
}


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: count.__name__)
def test_counts_of_hand_made_weights(count: Any) -> None:
    assert count(HAND_MADE).tolist() == [COUNTS[count]]


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: count.__name__)
@given(seed=st.integers(0, 10_000))
@steady
def test_counts_do_not_depend_on_the_order_of_features_and_neurons_or_on_signs_of_neurons(
    count: Any, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    flips = torch.randint(0, 2, (1, 1, 4), generator=random) * 2 - 1
    rows, columns = torch.randperm(9, generator=random), torch.randperm(4, generator=random)
    assert count((HAND_MADE * flips)[:, rows][:, :, columns]).tolist() == [COUNTS[count]]


def test_the_window_of_a_winner_has_both_ends() -> None:
    weight = torch.tensor([0.7999, 0.8, -1.2, 1.2001, 1.0, 0.0])
    assert winners.is_winner(weight).tolist() == [False, True, True, False, True, False]


def test_winner_weight_is_a_mean_over_winners_and_nan_without() -> None:
    weight = torch.stack([HAND_MADE[0], torch.zeros(9, 4)])
    found = winners.winner_weight(weight)
    assert found[0].item() == pytest.approx((1 + 0.9 + 0.8 + 1.2 + 1 + 1 + 1 + 1) / 8)
    assert found[1].isnan()


def test_share_gives_each_unit_an_entry() -> None:
    found = winners.share(pd.Series([1, 2]), pd.Series([2, 3]))
    assert (found.sum(), len(found)) == (3, 5)


def ensemble(kind: type[L1Autoencoder] = L1Autoencoder, n_hidden: int = 5, l1: Any = 0.003) -> L1Autoencoder:
    return kind(Basis(4), [0, 1, 2], n_hidden, l1)


def reference_loss(kind: type[L1Autoencoder], weight: Tensor, l1: float) -> Tensor:
    """The loss of one network (features, neurons), written from its definition, feature by feature."""
    total = l1 * weight.abs().sum()
    for i in range(len(weight)):
        for j in range(len(weight)):
            overlap = weight[i] @ weight[j]
            output = overlap if kind is LinearL1Autoencoder else overlap.clamp(min=0)
            if kind is NoInterference and i != j:
                continue
            total = total + (output - float(i == j)) ** 2
    return total


@pytest.mark.parametrize("kind", [L1Autoencoder, LinearL1Autoencoder, NoInterference])
def test_losses_and_gradients_are_those_of_the_definition(kind: type[L1Autoencoder]) -> None:
    l1 = torch.tensor([0.0, 0.01, 0.3])
    model = ensemble(kind, l1=l1)
    losses, gradients = model.losses_and_gradients(torch.empty(0, 4), model.seed_index)
    for k in range(3):
        weight = model.weights["weight"][k].detach().clone().requires_grad_()
        loss = reference_loss(kind, weight, float(l1[k]))
        (gradient,) = torch.autograd.grad(loss, weight)
        torch.testing.assert_close(losses[k], loss.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradients["weight"][k], gradient, rtol=1e-5, atol=1e-5)


def test_the_loss_is_that_of_the_gradient() -> None:
    model = ensemble()
    weights = {"weight": model.weights["weight"].detach()}
    losses, _ = model.losses_and_gradients(torch.empty(0, 4), model.seed_index)
    torch.testing.assert_close(L1Autoencoder.loss(weights, model.factors, []), losses)


def test_the_start_is_normal_and_another_at_each_width() -> None:
    """Moments of 40 000 numbers, to five standard errors: a false alarm in 2e6."""
    weight = start_weights(generator("start", 3), 100, 400)
    assert weight.shape == (100, 400)
    scaled = weight.double() * 20
    assert scaled.mean().item() == pytest.approx(0, abs=5 / 200)
    assert scaled.square().mean().item() == pytest.approx(1, abs=5 * 2**0.5 / 200)
    other = start_weights(generator("start", 3), 100, 401)
    correlation = (weight[:, :400].flatten() @ other[:, :400].flatten()) * 20 * 401**0.5 / 40_000
    assert abs(correlation.item()) < 5 / 200
    torch.testing.assert_close(start_weights(generator("start", 3), 100, 400), weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("row", "settled"),
    [
        ([1.0, 0.0, 0.004], True),
        ([-0.991, 0.0, 0.0], True),
        ([0.98, 0.0, 0.0], False),
        ([1.0, 0.0, 0.006], False),
        ([1.0, -1.0, 0.0], False),
        ([0.0, 0.0, 0.0], False),
        ([0.7, 0.7, 0.0], False),
    ],
)
def test_what_is_settled(row: list[float], settled: bool) -> None:
    model = L1Autoencoder(Basis(2), [0, 1], 3, 0.001)
    good = torch.tensor([0.0, 1.0, 0.0])
    with torch.no_grad():
        model.weights["weight"].copy_(
            torch.stack([torch.stack([torch.tensor(row), good]), good.repeat(2, 1)])
        )
    assert model.settled().tolist() == [settled, True]


def test_only_the_basis_is_accepted() -> None:
    with pytest.raises(ValueError, match="features: expected the standard basis, got Independent"):
        L1Autoencoder(Independent(4, 0.5), [0], 5, 0.001)  # type: ignore[arg-type]


def test_start_correlation_of_hand_made_weights() -> None:
    """Feature 0: the largest start wins. Feature 1: the second largest wins, with the other sign."""
    model = StartCorrelation(Basis(2), [0], 4, 0.001)
    start = torch.tensor([[[0.5, -0.2, 0.1, 0.0], [0.3, 0.1, -0.4, 0.2]]])
    end = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]])
    model.start = lambda: start  # type: ignore[method-assign]
    with torch.no_grad():
        model.weights["weight"].copy_(end)
    found = {name: value.tolist() for name, value in model.metrics().items()}
    assert found["diagonal"] == pytest.approx([(0.5 - 0.3) / 2])
    assert found["off_diagonal"] == pytest.approx([(-0.5 + 0.3) / 2])
    assert found["off_diagonal_sd"] == pytest.approx([((0.25 + 0.09) / 2) ** 0.5])
    assert found["aligned_features"] == [1]
    assert found["largest_wins"] == [1]
    assert found["winner_sigmas"] == pytest.approx([2 * (0.5 - 0.3) / 2])
    assert found["winner_rank"] == pytest.approx([(0 + 1) / 2 / 4])
    assert np.array(found["product"]) == pytest.approx(np.array([[[0.5, -0.5], [0.3, -0.3]]]))


def test_the_other_start_is_that_of_another_feature() -> None:
    one, other = (kind(Basis(2), [0], 4, 0.001) for kind in (StartCorrelation, OtherStart))
    products = [torch.tensor(model.metrics()["product"].tolist()) for model in (one, other)]
    torch.testing.assert_close(products[1], products[0].roll(1, dims=1))
