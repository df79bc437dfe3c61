"""Tests of the toy models: losses worked out by hand, and what the variants change."""

import numpy as np
import pytest
import torch

from common.features import Draws, Independent
from replications.toy_models_of_superposition.model import (
    DecayingImportance,
    DenseFeatures,
    LinearModel,
    ToyModel,
)

X = [torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0, 0.5]])]
FACTORS = {"extra_importance": torch.tensor([[3.0]]), "bias": torch.tensor([[1.0]])}
WEIGHTS = {"weight": torch.tensor([[[1.0, -1.0]]]), "bias": torch.tensor([[0.0, 0.25]])}


def test_the_loss_is_the_mean_over_batch_and_features_weighted_by_importance() -> None:
    # hidden 1 and 0; outputs before the ReLU (1, -.75) and (0, .25)
    first = [(1 - 1) ** 2, (0.5 - 0) ** 2]
    extra = [(0 - 0) ** 2, (0.5 - 0.25) ** 2]
    expected = np.mean([first, 3 * np.array(extra)])
    assert ToyModel.loss(WEIGHTS, FACTORS, X).tolist() == pytest.approx([expected])
    extra[0] = 0.75**2
    expected = np.mean([first, 3 * np.array(extra)])
    assert LinearModel.loss(WEIGHTS, FACTORS, X).tolist() == pytest.approx([expected])


def test_without_bias_the_bias_has_no_effect_and_no_gradient() -> None:
    factors = {**FACTORS, "bias": torch.tensor([[0.0]])}
    bias = torch.tensor([[5.0, -5.0]], requires_grad=True)
    loss = ToyModel.loss({**WEIGHTS, "bias": bias}, factors, X)
    none = ToyModel.loss({**WEIGHTS, "bias": torch.zeros(1, 2)}, FACTORS, X)
    torch.testing.assert_close(loss.detach(), none)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert bias.grad is not None
    assert not bias.grad.any()


def test_dense_features_are_never_zero() -> None:
    features = DenseFeatures(2, torch.tensor([0.01, 1.0]))
    uniforms = [torch.full((2, 1), 0.75)] * 2
    factors = {name: torch.as_tensor(value).expand(2)[:, None] for name, value in features.factors.items()}
    for x in features.sample(uniforms, factors):
        torch.testing.assert_close(x, torch.full((2, 1), 0.75))


def test_more_hidden_dimensions_than_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^n_hidden: expected at most n_features = 2, got 3$"):
        ToyModel(Independent(2, 0.5), [0], 3)


def test_metrics_show_the_bias_that_is_used() -> None:
    model = ToyModel(Independent(2, 0.5), [0, 0], 1, bias=torch.tensor([True, False]))
    with torch.no_grad():
        model.weights["bias"][:] = 0.5
    assert model.metrics()["bias"].tolist() == [[0.5, 0.5], [0.0, 0.0]]


@pytest.mark.parametrize("size", [(2, 5), (10, 20)])
def test_products_written_out_or_not_are_those_of_the_formula(size: tuple[int, int]) -> None:
    draws = torch.Generator().manual_seed(0)
    weight = torch.rand(3, *size, generator=draws, dtype=torch.float64) - 0.5
    bias = torch.rand(3, size[1], generator=draws, dtype=torch.float64) - 0.5
    x = torch.rand(3, size[1], 7, generator=draws, dtype=torch.float64)
    decay = torch.tensor([[0.9], [0.5], [1.0]], dtype=torch.float64)
    factors = {"decay": decay, "bias": torch.ones(3, 1, dtype=torch.float64)}
    found = DecayingImportance.loss({"weight": weight, "bias": bias}, factors, x.unbind(dim=1))
    error = (x - torch.relu(weight.mT @ weight @ x + bias[:, :, None])) ** 2
    importance = decay ** torch.arange(size[1])
    torch.testing.assert_close(found, (importance[:, :, None] * error).mean(dim=(1, 2)))


def test_without_decay_all_features_are_equally_important() -> None:
    features = Independent(3, 0.5, batch_size=16)
    uniforms = next(iter(Draws(features, [0, 1])))
    decaying = DecayingImportance(features, [0, 1], n_hidden=2, decay=1.0)
    equal = ToyModel(features, [0, 1], n_hidden=2)
    found = decaying.losses_and_gradients(uniforms, decaying.seed_index)
    torch.testing.assert_close(found, equal.losses_and_gradients(uniforms, equal.seed_index))
