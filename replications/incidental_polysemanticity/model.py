"""The autoencoder of Lecomte et al. 2023 with L1 regularisation, as an ensemble."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor

from common.ensemble import Ensemble, Weights
from common.features import Basis, Factors, Inputs, Varying, generator
from replications.incidental_polysemanticity import winners

NonNegative = Annotated[float, Field(ge=0)]

SETTLED_ZERO, SETTLED_ONE = 0.005, 0.01
"""A network is settled when each feature has one weight of size 1 to within 0.01, the others below 0.005.

From there nothing large can move. The growing force on a small weight w is at most 4 (1 - |W_i|^2) w, about
l1 w, and less than the l1 that shrinks it; interference within a neuron only pushes it to the sign opposite
to the owner's, where the ReLU cuts it off. What is left is the optimiser's jitter, some 0.001.
"""

SHOWN_FEATURES = 32
"""The number of rows and columns of the products of start and end weights that are kept for the figure."""


class L1Autoencoder(Ensemble):
    """y = ReLU(W W^T x), rows W_i, no bias: sum_i |ReLU(W W_i) - e_i|^2 + l1 |W|_1 on the standard basis.

    The squared error is summed, not averaged. Start: normal, standard deviation 1 / sqrt(n_hidden).
    Source: Lecomte et al. 2023, "Setup"; sums, start and optimiser as in the authors' code.

    Args:
        features: the standard basis
        seeds: for each instance the seed of its start weights
        n_hidden: neurons, m in the paper
        l1: weight of the L1 norm, lambda in the paper
    """

    measures: ClassVar = {
        function.__name__: function
        for function in (
            winners.polysemantic_neurons,
            winners.opposed_neurons,
            winners.opposed_pairs,
            winners.crowded_features,
            winners.features_with_one_winner,
            winners.features_near_zero_or_one,
            winners.winner_weight,
        )
    }

    def __init__(
        self,
        features: Basis,
        seeds: Sequence[int],
        n_hidden: Annotated[int, Field(ge=1)],
        l1: Varying[NonNegative],
    ) -> None:
        if not isinstance(features, Basis):
            raise ValueError(f"features: expected the standard basis, got {type(features).__name__}")
        self.n_hidden = n_hidden

        def start(random: np.random.Generator) -> dict[str, Float[Tensor, "features hidden"]]:
            return {"weight": start_weights(random, features.n_features, n_hidden)}

        super().__init__(features, seeds, start, {"l1": l1})
        self._scratch: list[Tensor] = []

    @staticmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """See `Ensemble.loss`."""
        weight = weights["weight"]
        output = torch.relu(weight @ weight.mT)
        error = (output - torch.eye(weight.shape[1], device=weight.device)).square().sum(dim=(1, 2))
        return error + factors["l1"].squeeze(1) * weight.abs().sum(dim=(1, 2))

    def losses_and_gradients(
        self, uniforms: Float[Tensor, "draws batch"], seed_index: Int[Tensor, "instances"]
    ) -> tuple[Float[Tensor, "instances"], Weights]:
        """See `Ensemble.losses_and_gradients`: by two matrix products, where autograd needs five.

        With A = W W^T the gradient is 4 ((ReLU(A) - 1) * [A > 0]) W + l1 sign(W). It stands in a buffer of
        this ensemble, until the next call.
        """
        weight = self.weights["weight"].detach()
        overlap = torch.bmm(weight, weight.mT)
        residual, slope = self.residual_and_slope(overlap)
        l1 = self.factors["l1"].squeeze(1)
        # kept from step to step: allocating and clearing new megabytes takes as long as filling them
        if not self._scratch or self._scratch[0].device != weight.device:
            self._scratch = [torch.empty_like(weight), torch.empty_like(weight)]
        gradient, sign = self._scratch
        torch.sign(weight, out=sign)
        losses = residual.square().sum(dim=(1, 2)) + l1 * torch.linalg.vecdot(
            weight.flatten(1), sign.flatten(1)
        )
        torch.bmm(residual.mul_(slope).mul_(4), weight, out=gradient)
        return losses, {"weight": gradient.addcmul_(sign, l1[:, None, None])}

    @staticmethod
    def residual_and_slope(
        overlap: Float[Tensor, "instances features features"],
    ) -> tuple[Float[Tensor, "instances features features"], Shaped[Tensor, "instances features features"]]:
        """ReLU(A) - 1 and the slope of the ReLU, for an `overlap` A."""
        residual = torch.relu(overlap)
        residual.diagonal(dim1=1, dim2=2).sub_(1)
        return residual, overlap > 0

    def settled(self) -> Bool[Tensor, "instances"]:
        """See `Ensemble.settled`."""
        size = self.weights["weight"].detach().abs()
        ones = (size - 1).abs() <= SETTLED_ONE
        zeros = size <= SETTLED_ZERO
        settled: Tensor = ((ones.sum(dim=2) == 1) & (ones | zeros).all(dim=2)).all(dim=1)
        return settled

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """Counts of each network's winners, as in `winners`, and the steps after which it was settled."""
        return {**super().metrics(), "steps": self.steps}


class LinearL1Autoencoder(L1Autoencoder):
    """A control without the ReLU: overlaps of either sign count as interference."""

    @staticmethod
    def residual_and_slope(
        overlap: Float[Tensor, "instances features features"],
    ) -> tuple[Float[Tensor, "instances features features"], Shaped[Tensor, "instances features features"]]:
        """A - 1, and 1."""
        residual = overlap.clone()
        residual.diagonal(dim1=1, dim2=2).sub_(1)
        return residual, torch.ones_like(overlap)


class NoInterference(L1Autoencoder):
    """A control without interference between features: only the diagonal of the output is in the loss."""

    @staticmethod
    def residual_and_slope(
        overlap: Float[Tensor, "instances features features"],
    ) -> tuple[Float[Tensor, "instances features features"], Shaped[Tensor, "instances features features"]]:
        """ReLU(A) - 1 and the ReLU's slope on the diagonal, 0 elsewhere."""
        residual, slope = L1Autoencoder.residual_and_slope(overlap)
        diagonal = torch.eye(overlap.shape[1], device=overlap.device)
        return residual * diagonal, slope * diagonal


def start_weights(
    random: np.random.Generator, n_features: int, n_hidden: int
) -> Float[Tensor, "features hidden"]:
    """The start weights of one network: normal, standard deviation 1 / sqrt(n_hidden).

    They differ between widths, as in the published networks: claims on several widths take them as
    independent.
    """
    seed = random.bit_generator.seed_seq.entropy  # type: ignore[attr-defined]
    random = np.random.Generator(np.random.SFC64(np.random.SeedSequence([*seed, n_hidden])))
    weight = random.standard_normal((n_features, n_hidden), dtype=np.float32)
    return torch.from_numpy(weight / np.float32(n_hidden**0.5))


class StartCorrelation(L1Autoencoder):
    """The same networks, measured against their start: which weight of each feature won.

    A feature's winner here is its largest weight at the end, so that there always is one.
    """

    def start(self) -> Float[Tensor, "instances features hidden"]:
        """The start weights, drawn again from their seeds."""
        shape = (self.features.n_features, self.n_hidden)
        starts = [start_weights(generator("start", seed), *shape) for seed in self.distinct_seeds]
        return torch.stack(starts).to(self.device)[self.seed_index]

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """Products of start and end, and how each feature's winner stood at the start."""
        start, end = self.start(), self.weights["weight"].detach()
        products = torch.bmm(start, end.mT)
        diagonal = products.diagonal(dim1=1, dim2=2)
        n = products.shape[1]
        others = products - torch.diag_embed(diagonal)
        winner = end.abs().argmax(dim=2, keepdim=True)
        at_winner, size = start.gather(2, winner), start.abs()
        aligned = at_winner * end.gather(2, winner).sign()
        larger = (size > size.gather(2, winner)).sum(dim=2, dtype=torch.float64)
        return {
            "features_with_one_winner": winners.features_with_one_winner(end),
            "diagonal": diagonal.mean(dim=1),
            "off_diagonal": others.sum(dim=(1, 2)) / (n * (n - 1)),
            "off_diagonal_sd": (others.square().sum(dim=(1, 2)) / (n * (n - 1))).sqrt(),
            "aligned_features": (aligned > 0).sum(dim=(1, 2)),
            "largest_wins": (larger == 0).sum(dim=1),
            "winner_sigmas": aligned.mean(dim=(1, 2)) * self.n_hidden**0.5,
            "winner_rank": larger.mean(dim=1) / self.n_hidden,
            "product": products[:, :SHOWN_FEATURES, :SHOWN_FEATURES],
        }


class OtherStart(StartCorrelation):
    """A control that compares each feature's end with the start of the next feature."""

    def start(self) -> Float[Tensor, "instances features hidden"]:
        """The start weights, each feature with those of the one before it."""
        return super().start().roll(1, dims=1)
