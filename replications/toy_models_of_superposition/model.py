"""The toy models of Elhage et al. 2022, as ensembles."""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from common.ensemble import Ensemble, Weights
from common.features import Density, Factors, Features, Independent, Inputs, Varying
from common.metrics import feature_dimensionality, feature_norm, superposition

Importance = Annotated[float, Field(gt=0)]

WRITTEN_OUT = 32
"""Products of up to this many weights are written out as sums; for many more, the compiler takes minutes."""


class ToyModel(Ensemble):
    """h = W x, x' = ReLU(W^T h + b): one weight matrix for both ways, a bias on the output only.

    The loss is the mean over batch and features of I_i (x_i - x'_i)^2, with importance 1 for all features but
    the last. Start: Xavier normal per network, b = 0.
    Source: Elhage et al. 2022, "Experiment setup"; loss, start and optimiser as in the authors' notebook.

    Args:
        features: the distribution of the inputs
        seeds: for each instance the seed of its start weights and data
        n_hidden: hidden dimensions, m in the paper
        extra_importance: importance of the last feature relative to the others
        bias: whether the output has a bias
    """

    measures: ClassVar = {
        "feature_norm": feature_norm,
        "superposition": superposition,
        "dimensionality": feature_dimensionality,
    }

    def __init__(
        self,
        features: Features,
        seeds: Sequence[int],
        n_hidden: Annotated[int, Field(ge=1)],
        extra_importance: Varying[Importance] = 1.0,
        bias: Varying[bool] = True,
    ) -> None:
        if n_hidden > features.n_features:
            raise ValueError(f"n_hidden: expected at most n_features = {features.n_features}, got {n_hidden}")
        start = functools.partial(_start, n_hidden, features.n_features)
        super().__init__(features, seeds, start, {"extra_importance": extra_importance, "bias": bias})

    @staticmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """See `Ensemble.loss`."""
        return _loss(weights, factors, _extra_importance(factors, x), x, torch.relu)

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """The paper's measures of each feature, and the weights themselves."""
        return {
            **super().metrics(),
            "weight": self.weights["weight"].detach(),
            "bias": self.weights["bias"].detach() * self.factors["bias"],
        }


class LinearModel(ToyModel):
    """The toy model without its ReLU. Source: Elhage et al. 2022, "Linear model"."""

    @staticmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """See `Ensemble.loss`."""
        return _loss(weights, factors, _extra_importance(factors, x), x, lambda output: output)


class DecayingImportance(ToyModel):
    """The toy model with importance decay^i for feature i, counted from 0.

    Source: Elhage et al. 2022, "Experiment setup"; the decay of each figure is in the authors' notebook.

    Args:
        decay: the importance of a feature relative to the one before it
        features, seeds, n_hidden: as in `ToyModel`
    """

    def __init__(
        self,
        features: Features,
        seeds: Sequence[int],
        n_hidden: Annotated[int, Field(ge=1)],
        decay: Varying[Importance],
    ) -> None:
        super().__init__(features, seeds, n_hidden)
        self.add_factor("decay", decay)

    @staticmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """See `Ensemble.loss`."""
        importance = [None, *(factors["decay"] ** i for i in range(1, len(x)))]
        return _loss(weights, factors, importance, x, torch.relu)


class BatchedStart(ToyModel):
    """The toy model with the authors' start, for investigations: smaller, the more networks share a tensor.

    Their notebook applies Xavier's rule to one tensor (networks, features, hidden), which treats the number
    of networks as a fan; the number used for the phase diagrams is not stated.

    Args:
        batched: networks in the tensor
        features, seeds, n_hidden, extra_importance, bias: as in `ToyModel`
    """

    def __init__(
        self,
        features: Features,
        seeds: Sequence[int],
        n_hidden: Annotated[int, Field(ge=1)],
        batched: Annotated[int, Field(ge=1)],
        extra_importance: Varying[Importance] = 1.0,
        bias: Varying[bool] = True,
    ) -> None:
        super().__init__(features, seeds, n_hidden, extra_importance, bias)
        theirs = 2 / (n_hidden * (features.n_features + batched))
        ours = 2 / (n_hidden + features.n_features)
        with torch.no_grad():
            self.weights["weight"] *= (theirs / ours) ** 0.5


class DenseFeatures(Independent):
    """A control: features that are never zero, whatever the density in the sweep."""

    def __init__(self, n_features: int, density: Varying[Density], batch_size: int = 1024) -> None:
        super().__init__(n_features, 1.0, batch_size)


def _loss(
    weights: Weights,
    factors: Factors,
    importance: Sequence[Float[Tensor, "instances 1"] | None],
    x: Inputs,
    activation: Callable[[Tensor], Tensor],
) -> Float[Tensor, "instances"]:
    bias = weights["bias"].unsqueeze(-1)
    error = []
    for i, (x_i, output) in enumerate(zip(x, _recovered(weights["weight"], x), strict=True)):
        error.append((x_i - activation(output + bias[:, i] * factors["bias"])) ** 2)
    weighted = [e if r is None else r * e for r, e in zip(importance, error, strict=True)]
    return _sum(weighted).mean(dim=1) / len(x)


def _extra_importance(factors: Factors, x: Inputs) -> list[Float[Tensor, "instances 1"] | None]:
    """The importance of each feature, None for 1."""
    return [*[None] * (len(x) - 1), factors["extra_importance"]]


def _recovered(weight: Float[Tensor, "instances hidden features"], x: Inputs) -> Inputs:
    """W^T W x."""
    # The sums over the few features and hidden units are written out for the compiler, which makes a single
    # loop. Otherwise each term is a loop of its own, slower than products of even such small matrices.
    if weight[0].numel() > WRITTEN_OUT or not torch.compiler.is_compiling():
        inputs = torch.stack(list(x), dim=1)
        return (weight.mT @ (weight @ inputs)).unbind(dim=1)
    weight = weight.unsqueeze(-1)
    hidden = [_sum(weight[:, k, i] * x_i for i, x_i in enumerate(x)) for k in range(weight.shape[1])]
    return [_sum(weight[:, k, i] * h_k for k, h_k in enumerate(hidden)) for i in range(len(x))]


def _sum(terms: Iterable[Tensor]) -> Tensor:
    # the built-in starts from 0, one more operation for the compiler
    return functools.reduce(operator.add, terms)


def _start(n_hidden: int, n_features: int, generator: np.random.Generator) -> dict[str, Float[Tensor, "..."]]:
    std = (2 / (n_hidden + n_features)) ** 0.5
    weight = generator.standard_normal((n_hidden, n_features), dtype=np.float32) * np.float32(std)
    return {"weight": torch.from_numpy(weight), "bias": torch.zeros(n_features)}
