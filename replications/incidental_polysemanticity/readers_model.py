"""The ensembles behind three questions of readers: features on together, rotations, duplicated neurons."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from common.ensemble import Ensemble, Weights
from common.features import Basis, Factors, Features, Inputs, Varying, generator
from replications.incidental_polysemanticity.model import L1Autoencoder, NonNegative, start_weights
from replications.incidental_polysemanticity.winners import NEAR_ZERO, is_winner, polysemantic_neurons

Probability = Annotated[float, Field(ge=0, lt=1)]

EVENTS_PER_SAMPLE = 2
"""The least mean number of features that are on in a drawn input: most inputs are then useful for any p."""


class Cooccurring(Features):
    """Features that are 1 with a probability p, independently of each other, else 0.

    What an input adds to the mean loss depends on how many features are on. None: nothing. One: known without
    drawing, so a batch begins with the standard basis. More: `batch_size` inputs are drawn with probability
    max(p, 2/n) and weighted (importance sampling); those with fewer than two features on are left empty. So
    the mean is that over independent features, with far less noise where p is small, and p = 0 is exactly the
    standard basis. `input_weights` has the weights.
    """

    def __init__(self, n_features: int, probability: Varying[Probability], batch_size: int = 64) -> None:
        super().__init__(n_features, batch_size, {"probability": probability})

    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances inputs"]]:
        """The inputs, `n_features` + `batch_size` of each feature: see `Features.sample`."""
        return list(cooccurring(torch.stack(list(uniforms), dim=1), factors["probability"]).unbind(dim=1))


class OneAtATime(Cooccurring):
    """A control: features that are never on together, whatever probability the sweep says."""

    def __init__(self, n_features: int, probability: Varying[Probability], batch_size: int = 64) -> None:
        super().__init__(n_features, 0.0, batch_size)


def cooccurring(
    uniforms: Float[Tensor, "instances features batch"], probability: Float[Tensor, "instances 1"]
) -> Float[Tensor, "instances features features+batch"]:
    """The inputs of `Cooccurring`.

    Args:
        uniforms: what they are made of
        probability: p
    """
    n_features = uniforms.shape[1]
    drawn = (uniforms < _drawn_with(probability, n_features).unsqueeze(2)).to(uniforms.dtype)
    drawn *= drawn.sum(dim=1, keepdim=True) >= 2
    basis = torch.eye(n_features, device=uniforms.device).expand(len(uniforms), -1, -1)
    return torch.cat([basis, drawn], dim=2)


def input_weights(
    n_on: Float[Tensor, "instances inputs"],
    probability: Float[Tensor, "instances 1"],
    n_features: int,
    batch_size: int,
) -> Float[Tensor, "instances inputs"]:
    """The weight of each input of `Cooccurring` in the mean loss, divided by p.

    One feature on: (1 - p)^(n - 1). More, k: the ratio of their probabilities at p and as drawn, q, over p:
    p^(k - 1) / q^k ((1 - p) / (1 - q))^(n - k), per drawn input.

    Args:
        n_on: how many features are on
        probability: p
        n_features: n
        batch_size: how many inputs are drawn
    """
    p, q = probability, _drawn_with(probability, n_features)
    several = p ** (n_on - 1).clamp_min(1) / q**n_on * ((1 - p) / (1 - q)) ** (n_features - n_on)
    return torch.where(n_on == 1, (1 - p) ** (n_features - 1), several / batch_size)


def _drawn_with(probability: Float[Tensor, "instances 1"], n_features: int) -> Float[Tensor, "instances 1"]:
    return probability.clamp_min(EVENTS_PER_SAMPLE / n_features)


class SampledAutoencoder(Ensemble):
    """y = ReLU(W W^T x), rows W_i, no bias, trained on samples: mean of |y - x|^2 + l1 |W^T x|_1, over p.

    Divided by p, so that each feature occurs at a rate of 1: p = 0 gives the loss on the standard basis,
    where the L1 norm of the activations is that of the weights. Start: as `L1Autoencoder`.
    Source: Lecomte et al. 2023, "Setup"; co-occurrence is a question from the comments.

    Args:
        features: inputs with the factor `probability`
        seeds: for each instance the seed of its start weights and data
        n_hidden: neurons, m in the paper
        l1: weight of the activations' L1 norm, lambda in the paper
    """

    def __init__(
        self,
        features: Cooccurring,
        seeds: Sequence[int],
        n_hidden: Annotated[int, Field(ge=1)],
        l1: Varying[NonNegative],
    ) -> None:
        if not isinstance(features, Cooccurring):
            raise ValueError(f"features: expected Cooccurring, got {type(features).__name__}")

        def start(generator: np.random.Generator) -> dict[str, Float[Tensor, "features hidden"]]:
            return {"weight": start_weights(generator, features.n_features, n_hidden)}

        super().__init__(features, seeds, start, {"l1": l1})

    @staticmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """See `Ensemble.loss`."""
        inputs, weight = torch.stack(list(x), dim=1), weights["weight"]
        hidden = weight.mT @ inputs
        error = (torch.relu(weight @ hidden) - inputs).square().sum(dim=1)
        each = error + factors["l1"] * hidden.abs().sum(dim=1)
        n_on, n = inputs.sum(dim=1), inputs.shape[1]
        return (each * input_weights(n_on, factors["probability"], n, n_on.shape[1] - n)).sum(dim=1)

    def losses_and_gradients(
        self, uniforms: Float[Tensor, "draws batch"], seed_index: Int[Tensor, "instances"]
    ) -> tuple[Float[Tensor, "instances"], Weights]:
        """See `Ensemble.losses_and_gradients`: with smaller matrix products than autograd's.

        With inputs X (features, inputs), their weights c and D = c (ReLU(A) - X) * [A > 0], A = W W^T X, the
        gradient is 2 (D X^T + X D^T) W + l1 X c sign(X^T W).
        """
        weight, n = self.weights["weight"].detach(), self.features.n_features
        p, l1 = self.factors["probability"], self.factors["l1"].unsqueeze(2)
        x = cooccurring(uniforms.reshape(-1, n, self.features.batch_size)[seed_index], p)
        each = input_weights(x.sum(dim=1), p, n, self.features.batch_size)
        hidden = torch.bmm(x.mT, weight)
        output = torch.bmm(torch.bmm(weight, weight.mT), x)
        residual = torch.relu(output).sub_(x)
        activity = torch.linalg.vector_norm(hidden, ord=1, dim=2)
        losses = residual.square().sum(dim=1) + l1.squeeze(2) * activity
        outer = torch.bmm(residual.mul_(output > 0).mul_(each.unsqueeze(1)), x.mT)
        gradient = torch.bmm(outer + outer.mT, weight).mul_(2)
        gradient += l1 * torch.bmm(x, hidden.sign_().mul_(each.unsqueeze(2)))
        return (losses * each).sum(dim=1), {"weight": gradient}

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """Polysemantic neurons, and of the features how many converged, how many of those share no neuron.

        Converged: one winner, all other weights near zero. `neurons_per_feature` is the participation ratio
        of a feature's squared weights, its mean over features: on how many neurons a feature is, in effect.
        """
        weight = self.weights["weight"].detach()
        winner = is_winner(weight)
        converged = (winner.sum(dim=2) == 1) & (winner | (weight.abs() < NEAR_ZERO)).all(dim=2)
        shares = (winner & (winner.sum(dim=1, keepdim=True) >= 2)).any(dim=2)
        return {
            "polysemantic_neurons": polysemantic_neurons(weight),
            "converged_features": converged.sum(dim=1),
            "alone_features": (converged & ~shares).sum(dim=1),
            "neurons_per_feature": effective_number(weight, dim=2).mean(dim=1),
        }


def effective_number(weight: Float[Tensor, "..."], dim: int) -> Float64[Tensor, "..."]:
    """The participation ratio (sum w^2)^2 / sum w^4 over `dim`: k for k weights of one size, 0 for none."""
    square = weight.double().square()
    square = square / square.sum(dim=dim, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.nan_to_num(1 / square.square().sum(dim=dim), posinf=0.0)


class RotatedAutoencoder(L1Autoencoder):
    """`L1Autoencoder` with metrics of how neurons respond and of what a rotation W -> WR would change.

    Source: a comment on Lecomte et al. 2023: without L1 the loss is a function of W W^T alone.
    """

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """The effective number of features of each neuron, and the loss of the rotated network.

        `features_per_neuron` is 0 for a neuron whose weights are all near zero. `rotated_loss_change` is
        relative to the loss n of a network without weights; in float64, with a random rotation per seed.
        """
        weight = self.weights["weight"].detach().cpu()
        silent = (weight.abs() < NEAR_ZERO).all(dim=1)
        rotations = torch.stack([random_rotation(seed, weight.shape[2]) for seed in self.distinct_seeds])
        rotated = weight.double() @ rotations[self.seed_index.cpu()]
        factors = {name: factor.cpu() for name, factor in self.factors.items()}
        before, after = (self.loss({"weight": w}, factors, []) for w in (weight.double(), rotated))
        return {
            "features_per_neuron": effective_number(weight, dim=1).masked_fill(silent, 0),
            "rotated_loss_change": (after - before).abs() / weight.shape[1],
        }


def random_rotation(seed: int, dimensions: int) -> Float64[Tensor, "{dimensions} {dimensions}"]:
    """An orthogonal matrix of the seed, uniform (Haar) on the orthogonal group.

    QR of a normal matrix; R's diagonal made positive, without which Q is not uniform (Mezzadri 2007).
    """
    # the stream of held-out inputs, of which the standard basis takes none
    normal = generator("evaluation", seed).standard_normal((dimensions, dimensions))
    q, r = torch.linalg.qr(torch.from_numpy(normal))
    rotation: Tensor = q * r.diagonal().sign()
    return rotation


class DuplicatedNeurons(L1Autoencoder):
    """`L1Autoencoder` whose polysemantic neurons are duplicated in the middle of training.

    After `duplicate_at` steps each polysemantic neuron is copied to a spare one, both divided by sqrt(2) (the
    weights are tied, so the output stays), noise is added to all their weights, the optimiser's state is
    cleared, and training goes on. Spare neurons have no weights before, and without them no gradient.
    Source: a comment on Lecomte et al. 2023, which also asks for the noise without the duplication.

    Args:
        features: the standard basis
        seeds: for each instance the seed of its start weights and its noise
        n_hidden: neurons at the start; n_features / 2 spare ones are added, enough for all polysemantic ones
        l1: weight of the L1 norm
        duplicate_at: optimiser steps before the duplication
        noise: standard deviation of the noise
        duplicate: whether to duplicate; without, the noise alone is added
    """

    origin: Int[Tensor, "instances features spare"]
    owned: Bool[Tensor, "instances features spare"]
    duplicate: Bool[Tensor, "instances"]

    def __init__(
        self,
        features: Basis,
        seeds: Sequence[int],
        n_hidden: Annotated[int, Field(ge=1)],
        l1: Varying[NonNegative],
        duplicate_at: Annotated[int, Field(ge=1)],
        noise: NonNegative,
        duplicate: Varying[bool] = True,
    ) -> None:
        super().__init__(features, seeds, n_hidden, l1)
        # a feature has a norm of about 1, so one winner, and a polysemantic neuron takes two
        n_spare = features.n_features // 2
        self.weights["weight"] = nn.Parameter(functional.pad(self.weights["weight"].detach(), (0, n_spare)))
        self.duplicate_at, self.noise = duplicate_at, noise
        shape = (len(seeds), features.n_features, n_spare)
        self.register_buffer("duplicate", torch.as_tensor(duplicate).expand(len(seeds)), persistent=False)
        self.register_buffer("origin", torch.zeros(shape, dtype=torch.int64), persistent=False)
        self.register_buffer("owned", torch.zeros(shape, dtype=torch.bool), persistent=False)

    def before_step(self) -> None:
        """Duplicate after `duplicate_at` steps."""
        if self.global_step == self.duplicate_at:
            self.duplicate_neurons()
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the buffers: they hold all that the duplication leaves."""
        super().on_save_checkpoint(checkpoint)

    @torch.no_grad()
    def duplicate_neurons(self) -> None:
        """Give each polysemantic neuron its noise and, where `duplicate` says so, a copy of it.

        Of each spare neuron (the last axis, n_spare), `origin` keeps the index of the neuron that it copies
        and `owned` which features had a winner there, none if the spare neuron stays unused; both have shape
        (instances, n_features, n_spare).
        """
        weight = self.weights["weight"]
        n_features, n_spare = self.owned.shape[1:]
        polysemantic = is_winner(weight).sum(dim=1) >= 2
        order = polysemantic.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :n_spare]
        used = polysemantic.gather(1, order).unsqueeze(1)
        self.origin = order.unsqueeze(1).expand(-1, n_features, -1).contiguous()
        first = weight.gather(2, self.origin)
        self.owned = is_winner(first) & used
        copied = used & self.duplicate[:, None, None]
        # the stream of training inputs, of which the standard basis takes none
        generators = [generator("training", seed) for seed in self.distinct_seeds]
        normal = np.stack([g.standard_normal((2, n_features, n_spare), np.float32) for g in generators])
        noise = self.noise * torch.from_numpy(normal).to(weight)[self.seed_index]
        first = torch.where(copied, first / math.sqrt(2), first)
        weight.scatter_(2, self.origin, first + noise[:, 0] * used)
        weight[:, :, -n_spare:] = (first + noise[:, 1]) * copied

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """How many neurons were polysemantic, how many separated or stayed together, and their features.

        A feature is on one copy if it has a winner there and a weight near zero on the other. Neurons
        separated if all features are on one copy and each copy has one; they are together if one copy has
        them all.
        """
        weight = self.weights["weight"].detach()
        copies = weight.gather(2, self.origin), weight[:, :, -self.owned.shape[2] :]
        winners = [is_winner(copy) for copy in copies]
        near_zero = [copy.abs() < NEAR_ZERO for copy in copies]
        on_one_copy = self.owned & ((winners[0] & near_zero[1]) | (winners[1] & near_zero[0]))
        used = self.owned.any(dim=1)
        decided = used & (on_one_copy == self.owned).all(dim=1)
        counts = [winner.sum(dim=1) for winner in winners]
        return {
            "polysemantic_neurons": used.sum(dim=1),
            "parted": (decided & (counts[0] == 1) & (counts[1] == 1)).sum(dim=1),
            "together": (decided & ((counts[0] == 0) | (counts[1] == 0))).sum(dim=1),
            "owners": self.owned.sum(dim=(1, 2)),
            "owners_on_one_copy": on_one_copy.sum(dim=(1, 2)),
        }
