"""Small networks that distinguish the senses of superposition and polysemanticity, as matrices.

Source: Chan 2024 and the glossaries that it follows; the cases are worked out from their definitions.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from common.computed import Computed
from common.features import generator
from common.metrics import (
    neurons_per_feature,
    polysemantic_neurons,
    superposition_by_count,
    superposition_by_rank,
)

Array = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]
CaseName = Literal[
    "aligned", "one_more", "not_aligned", "hadamard", "antipodal", "incidental", "one_large",
    "weak", "five_in_four", "rotated",
]  # fmt: skip

THRESHOLDS: Array = np.r_[0.0, np.geomspace(1e-4, 0.5, 38)]
"""The relative thresholds at which polysemantic neurons are counted too, beside that of the network."""

_HALF = 0.5**0.5

FIXED: dict[str, list[tuple[float, ...]]] = {
    "aligned": [(1, 0), (0, 1)],
    "one_more": [(1, 0), (0, 1), (_HALF, _HALF)],
    "not_aligned": [(1, 0), (_HALF, _HALF)],
    "hadamard": [(h, b * h, c * h, b * c * h) for h in [0.5] for b in (1, -1) for c in (1, -1)],
    "antipodal": [(1,), (-1,)],
    "incidental": [(1, 0, 0), (-1, 0, 0), (0, 1, 0)],
    "one_large": [(1,), *[(0.05,)] * 10],
    "weak": [(1, 0), (0.05, 0.2)],
}
"""The vectors of the features in the basis of neurons, of each case that is the same for all seeds."""


class Case(Computed):
    """One case, as often as there are seeds: shuffled, scaled and with noise, none of which should matter.

    `five_in_four` has five random features in four neurons, each on a random half of them. `rotated` has
    orthogonal features of random directions: the first columns of a random rotation.

    Args:
        seeds: for each network the seed of its random numbers
        case: one of `FIXED`, or one of these two
        n_neurons: neurons of `rotated`
        n_features: its features, at most as many
        threshold: the relative threshold, see `common.metrics`
        noise: standard deviation of the noise on every weight, where the largest weight is about 1
        turned: whether the features of `rotated` are rotated; for a control
    """

    def __init__(
        self,
        seeds: Sequence[int],
        case: CaseName,
        n_neurons: Annotated[int, Field(ge=1)] = 2,
        n_features: Annotated[int, Field(ge=1)] = 2,
        threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        noise: Annotated[float, Field(ge=0)] = 1e-3,
        turned: bool = True,
    ) -> None:
        if n_features > n_neurons:
            raise ValueError(f"n_features: expected at most n_neurons = {n_neurons}, got {n_features}")
        super().__init__(seeds)
        self.case, self.n_neurons, self.n_features = case, n_neurons, n_features
        self.threshold, self.noise, self.turned = threshold, noise, turned

    def weights(self) -> Float[Tensor, "instances neurons features"]:
        """The weights of each network, from its features to its neurons."""
        return torch.from_numpy(np.stack([self._weights(seed) for seed in self.seeds]))

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """The numbers of neurons and features, in total and in each sense."""
        weights = self.weights()
        n_networks, n_neurons, n_features = weights.shape
        counts = [polysemantic_neurons(weights, threshold) for threshold in THRESHOLDS.tolist()]
        spread = neurons_per_feature(weights, self.threshold) > 1
        return {
            "neurons": torch.full((n_networks,), n_neurons),
            "features": torch.full((n_networks,), n_features),
            "polysemantic_neurons": polysemantic_neurons(weights, self.threshold),
            "superposition_by_count": superposition_by_count(weights, self.threshold),
            "superposition_by_rank": superposition_by_rank(weights, self.threshold),
            "spread_features": spread.sum(dim=1).to(weights.dtype),
            "polysemantic_at": torch.stack(counts, dim=1),
        }

    def _weights(self, seed: int) -> Float[Array, "neurons features"]:
        draw = generator("start", seed)
        if self.case == "five_in_four":
            weights = _five_in_four(draw)
        elif self.case == "rotated":
            rotation = random_rotation(draw, self.n_neurons) if self.turned else np.eye(self.n_neurons)
            weights = rotation[:, : self.n_features]
        else:
            weights = np.array(FIXED[self.case], dtype=float).T
        weights = weights + self.noise * draw.standard_normal(weights.shape)
        weights = draw.permutation(draw.permutation(weights, axis=0), axis=1)
        return weights * draw.uniform(0.5, 2)


def random_rotation(draw: np.random.Generator, n: int) -> Float[Array, "{n} {n}"]:
    """A rotation or reflection, uniform over all of them."""
    q, r = np.linalg.qr(draw.standard_normal((n, n)))
    return np.asarray(q * np.sign(np.diag(r)))


def _five_in_four(draw: np.random.Generator) -> Float[Array, "4 5"]:
    on = np.stack([draw.permutation([1.0, 1.0, 0.0, 0.0]) for _ in range(5)], axis=1)
    weights = on * draw.standard_normal((4, 5))
    return np.asarray(weights / np.linalg.norm(weights, axis=0))
