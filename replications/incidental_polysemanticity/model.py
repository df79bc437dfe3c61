"""The autoencoder of Lecomte et al. 2023 with L1 regularisation, as an ensemble."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

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

TILE = 64
"""Features in a block of the symmetric W W^T, of which only blocks up to the diagonal are computed.

On one core, with 256 features, it takes .7 of the time of the whole product; 32 and 128 gain less.
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

        With A = W W^T the gradient is 4 (ReLU(A) - 1) W + l1 sign(W). The slope of the ReLU needs no factor:
        where it is 0, ReLU(A) is too, and on the diagonal A is 0 only for a feature without weights. The
        gradient stands in a buffer of this ensemble, until the next call.
        """
        weight = self.weights["weight"].detach()
        residual = self.residual_(torch.bmm(weight, weight.mT))
        l1 = self.factors["l1"].squeeze(1)
        # kept from step to step: allocating and clearing new megabytes takes as long as filling them
        if not self._scratch or self._scratch[0].device != weight.device:
            self._scratch = [torch.empty_like(weight), torch.empty_like(weight)]
        gradient, sign = self._scratch
        torch.sign(weight, out=sign)
        losses = residual.square().sum(dim=(1, 2)) + l1 * torch.linalg.vecdot(
            weight.flatten(1), sign.flatten(1)
        )
        torch.bmm(residual.mul_(4), weight, out=gradient)
        return losses, {"weight": gradient.addcmul_(sign, l1[:, None, None])}

    @staticmethod
    def residual_(
        overlap: Float[Tensor, "*instances features features"],
    ) -> Float[Tensor, "*instances features features"]:
        """ReLU(A) - 1, in place of the `overlap` A."""
        overlap.relu_().diagonal(dim1=-2, dim2=-1).sub_(1)
        return overlap

    def settled(self) -> Bool[Tensor, "instances"]:
        """See `Ensemble.settled`."""
        return is_settled(self.weights["weight"].detach())

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """Counts of each network's winners, as in `winners`, and the steps after which it was settled."""
        return {**super().metrics(), "steps": self.steps}


class SettlingL1Autoencoder(L1Autoencoder):
    """`L1Autoencoder` of which only the outcome counts: what can no longer change it is not trained.

    Where the spec says `stop_when_settled`, networks leave when they are settled, and neurons when they are
    dead: all weights below `SETTLED_ZERO`, where nothing can make them grow. Their weights are set to 0. Each
    network is trained by itself, so no bit of it depends on the others. docs/validation.md has the comparison
    with training everything.
    """

    _live: Sequence[nn.Parameter] = ()
    """For each network in training the weights (features, neurons) of the neurons that have not left."""

    _neurons: Sequence[Int[Tensor, "neurons"]] = ()
    """For each network which neurons these are; none if the network has left."""

    def trained(self) -> list[nn.Parameter]:
        """See `Ensemble.trained`: a tensor for each network."""
        weights = self.weights["weight"].detach()
        every = torch.arange(weights.shape[2])
        self._neurons = [n.to(self.device) for n in self._neurons or [every] * len(weights)]
        self._live = [
            nn.Parameter(weight[:, neurons].contiguous())
            for weight, neurons in zip(weights, self._neurons, strict=True)
        ]
        self._l1: list[float] = self.factors["l1"].flatten().tolist()
        self.losses = self.losses.to(self.device)
        return list(self._live)

    def training_step(self, batches: Iterator[Tensor]) -> None:
        """See `Ensemble.training_step`; afterwards `weights` are up to date."""
        super().training_step(batches)
        with torch.no_grad():
            for whole, live, neurons in zip(self.weights["weight"], self._live, self._neurons, strict=True):
                whole.index_copy_(1, neurons, live)

    def set_gradients(self, uniforms: Tensor) -> None:
        """See `Ensemble.set_gradients`; losses are computed only for a logger."""
        for k, (live, l1) in enumerate(zip(self._live, self._l1, strict=True)):
            if live.numel():
                weight = live.detach()
                residual = self.residual_(overlap(weight))
                if self.trainer.loggers:
                    self.losses[k] = residual.square().sum() + l1 * weight.abs().sum()
                if live.grad is None:
                    live.grad = torch.empty_like(weight)
                torch.sign(weight, out=live.grad).addmm_(residual, weight, beta=l1, alpha=4)

    def settled(self) -> Bool[Tensor, "instances"]:
        """See `Ensemble.settled`."""
        if not self._live:
            return super().settled()
        return torch.stack([is_settled(live.detach()) for live in self._live])

    @torch.no_grad()
    def leave(self, done: Bool[Tensor, "instances"]) -> None:
        """See `Ensemble.leave`: networks that are `done` leave, and dead neurons of the others."""
        dead = [self.dead(live, l1) for live, l1 in zip(self._live, self._l1, strict=True)]
        # one transfer for all
        counts = torch.where(done, -1, torch.stack([neurons.sum() for neurons in dead])).tolist()
        self._neurons = list(self._neurons)
        for k, count in enumerate(counts):
            if count and self._live[k].numel():
                self.weights["weight"][k, :, self._neurons[k][dead[k]]] = 0
                stays = ~dead[k] if count > 0 else torch.zeros_like(dead[k])
                self._neurons[k] = self._neurons[k][stays]
                _keep_columns(self._live[k], stays, self.trainer.optimizers[0])

    def dead(self, weight: Float[Tensor, "features neurons"], l1: float) -> Bool[Tensor, "neurons"]:
        """Which neurons of a network are dead: their weights are small, and no force on them exceeds l1.

        That on weight i of a neuron u is -4 sum_j (ReLU(A) - 1)_ij u_j, so at most 4 sum_j |ReLU(A) - 1|_ij
        times the largest |u_j|. Without L1, no neuron is dead.
        """
        force = 4 * SETTLED_ZERO * self.residual_(overlap(weight)).abs().sum(dim=1).amax()
        return (weight.abs() < SETTLED_ZERO).all(dim=0) & (force < l1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add which neurons are in training."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["neurons"] = list(self._neurons)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        super().on_load_checkpoint(checkpoint)
        self._neurons = checkpoint["neurons"]


def overlap(weight: Float[Tensor, "features neurons"]) -> Float[Tensor, "features features"]:
    """A = W W^T of one network."""
    if weight.is_cuda:  # where starting a product takes longer than half of it
        return weight @ weight.mT
    n = len(weight)
    result = weight.new_empty(n, n)
    for first in range(0, n, TILE):
        last = min(first + TILE, n)
        torch.mm(weight[first:last], weight[:last].mT, out=result[first:last, :last])
        result[:first, first:last] = result[first:last, :first].mT
    return result


def is_settled(weight: Float[Tensor, "*instances features neurons"]) -> Bool[Tensor, "*instances"]:
    """Whether each feature has one weight of size 1 and others of size 0, as `SETTLED_ZERO` says."""
    size = weight.abs()
    ones = (size - 1).abs() <= SETTLED_ONE
    settled: Tensor = ((ones.sum(dim=-1) == 1) & (ones | (size <= SETTLED_ZERO)).all(dim=-1)).all(dim=-1)
    return settled


def _keep_columns(weight: nn.Parameter, stays: Bool[Tensor, "neurons"], optimizer: Optimizer) -> None:
    """Shorten a weight (features, neurons) in training, and the optimiser's state of it."""
    shape = weight.shape
    weight.data, weight.grad = weight.data[:, stays].contiguous(), None
    state = optimizer.state[weight]
    for name, value in state.items():
        if value.shape == shape:
            state[name] = value[:, stays].contiguous()


class LinearL1Autoencoder(SettlingL1Autoencoder):
    """A control without the ReLU: overlaps of either sign count as interference."""

    @staticmethod
    def residual_(
        overlap: Float[Tensor, "*instances features features"],
    ) -> Float[Tensor, "*instances features features"]:
        """A - 1, in place of A."""
        overlap.diagonal(dim1=-2, dim2=-1).sub_(1)
        return overlap


class NoInterference(SettlingL1Autoencoder):
    """A control without interference between features: only the diagonal of the output is in the loss."""

    @staticmethod
    def residual_(
        overlap: Float[Tensor, "*instances features features"],
    ) -> Float[Tensor, "*instances features features"]:
        """ReLU(A) - 1 on the diagonal, 0 elsewhere, in place of A."""
        diagonal = torch.eye(overlap.shape[-1], device=overlap.device)
        return L1Autoencoder.residual_(overlap).mul_(diagonal)


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


class StartCorrelation(SettlingL1Autoencoder):
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
