"""The autoencoder of Lecomte et al. 2023 with noise on its hidden layer, as an ensemble."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from common.ensemble import Ensemble, Weights
from common.features import Factors, Features, Inputs, Varying

ExcessKurtosis = Literal[-2, 0, 3]
"""The kind of noise, by its excess kurtosis: -2 Bernoulli, 0 Gaussian, 3 Laplace."""

Sigma = Annotated[float, Field(gt=0)]

STEPS = sorted({0, 6, 5200, 20_000, *np.geomspace(10, 100_000, 121).round().astype(int).tolist()})
"""The steps after which the fourth norm is recorded: 30 a decade, 8 % apart, and those that claims name."""


class HiddenNoise(Features):
    """The standard basis, and noise for the hidden layer: a vector of independent numbers for each step.

    All inputs of a step share the vector. Each seed has its own stream of them: the authors' networks share
    one stream, ours are independent. One uniform per hidden dimension serves all kinds of noise.
    Source: Lecomte et al. 2023, figure of the fourth norm; set-up as in the authors' code.

    Args:
        n_features: inputs, n in the paper
        n_hidden: hidden dimensions, m in the paper
        excess_kurtosis: the kind of noise: -2 Bernoulli, +sigma or -sigma; 0 Gaussian; 3 Laplace
        sigma: its standard deviation
    """

    def __init__(
        self,
        n_features: int,
        n_hidden: int,
        excess_kurtosis: Varying[ExcessKurtosis],
        sigma: Varying[Sigma],
    ) -> None:
        # hidden dimensions are on the batch axis: with a tensor for each, compiling takes three times as long
        super().__init__(n_features, n_hidden, {"excess_kurtosis": excess_kurtosis, "sigma": sigma})
        self.n_uniforms = 1

    def sample(
        self, uniforms: Sequence[Float[Tensor, "instances hidden"]], factors: Factors
    ) -> list[Float[Tensor, "instances hidden"]]:
        """The noise, one tensor, from one of uniforms.

        By the inverse distribution functions, of 2u - 1 moved by half its spacing. As u has 24 bits, this is
        exact, symmetric about 0, and never 0 or +-1, where the noise would be 0 or infinite.
        """
        centred = 2 * uniforms[0] - 1 + 2**-24
        gaussian = 2**0.5 * torch.erfinv(centred)
        laplace = -torch.sign(centred) * torch.log(1 - centred.abs()) / 2**0.5
        kurtosis = factors["excess_kurtosis"]
        unit = torch.where(kurtosis > 0, laplace, torch.where(kurtosis < 0, torch.sign(centred), gaussian))
        return [factors["sigma"] * unit]


class NoisyAutoencoder(Ensemble):
    """y = ReLU(W (W^T x + xi)), rows W_i, no bias, noise xi: sum_i |ReLU(W (W_i + xi)) - e_i|^2.

    The squared error is summed, not averaged. Start: normal, standard deviation 1 / sqrt(n_hidden). The
    fourth norm sum_k W_ik^4, mean over features, is recorded after each of `STEPS`.
    Source: Lecomte et al. 2023, figure of the fourth norm; sums and start as in the authors' code.

    Args:
        features: the noise
        seeds: for each instance the seed of its start weights and noise
    """

    def __init__(self, features: HiddenNoise, seeds: Sequence[int]) -> None:
        shape = (features.n_features, features.batch_size)

        def start(generator: np.random.Generator) -> dict[str, Float[Tensor, "features hidden"]]:
            weight = generator.standard_normal(shape, dtype=np.float32) / np.float32(shape[1] ** 0.5)
            return {"weight": torch.from_numpy(weight)}

        super().__init__(features, seeds, start, factors={})
        self.fourth_norms: list[Tensor] = []

    @staticmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """See `Ensemble.loss`; `x` is the noise, one tensor (instances, hidden)."""
        weight = weights["weight"]
        # as one small product: by products and sums written out it compiles longer and runs no faster
        output = torch.relu((weight + x[0].unsqueeze(1)) @ weight.mT)
        return (output - torch.eye(weight.shape[1], device=weight.device)).square().sum(dim=(1, 2))

    def on_train_start(self) -> None:
        """Record the start, unless training goes on in the middle."""
        if self.global_step:  # the networks were not yet on their device when the checkpoint was loaded
            self.fourth_norms = [norm.to(self.device) for norm in self.fourth_norms]
        else:
            self.fourth_norms = [self._fourth_norm()]

    def after_step(self) -> None:
        """Record the step that has just ended, if it is one of `STEPS`."""
        if self.global_step in STEPS:
            self.fourth_norms.append(self._fourth_norm())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was recorded."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["fourth_norms"] = self.fourth_norms

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what was recorded."""
        super().on_load_checkpoint(checkpoint)
        self.fourth_norms = checkpoint["fourth_norms"]

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """The fourth norm over time, and lengths and directions of the trained rows; means over features.

        `fourth_norm`, tensor (instances, steps): after those of `STEPS` that training reached. Tensors
        (instances,): `squared_norm`, of |W_i|^2, and `scaled_fourth_norm`, the fourth norm of W_i / |W_i|.
        """
        squares = self.weights["weight"].detach().square()
        squared_norm = squares.sum(dim=2)
        return {
            "fourth_norm": torch.stack(self.fourth_norms, dim=1),
            "squared_norm": squared_norm.mean(dim=1),
            "scaled_fourth_norm": (squares.square().sum(dim=2) / squared_norm.square()).mean(dim=1),
        }

    def _fourth_norm(self) -> Float[Tensor, "instances"]:
        fourth_norm: Tensor = self.weights["weight"].detach().pow(4).sum(dim=2).mean(dim=1)
        return fourth_norm
