"""Exact statements about how many features fit into few dimensions: constructions, samples and searches.

Source: Chan 2024: footnote 15 (features with zero interference), footnote 9 (nearly orthogonal directions and
the thresholds of the number of vectors), bit extraction (after Bartlett et al. 2019).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from common.computed import Computed
from common.features import generator

Array = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]
Statement = Literal["frame", "corners", "packing", "bits"]

EPSILON = 0.5
"""The size of the product of two unit vectors at which they stop being nearly orthogonal."""

TAIL_FROM = (0.125, 0.25, 0.375, 0.5)
"""The sizes at which the counts of products begin."""

N_PAIRS = 4096
N_POINTS = 1024

MOST_BITS = 50
"""The number of bits that, with half a step of the grid beyond them, are exact in float64."""

PACKING_STEPS, SHARPNESS = 1000, 1e4
"""Steps of a packing, and beta at the last one, when the smooth maximum of 100 products is within 5e-4."""

_AT_ONCE = 512

_SHAPES: dict[str, tuple[int, ...]] = {
    "recovery_error": (), "large_pairs": (len(TAIL_FROM),), "log_vectors": (), "largest_product": (),
    "right_points": (),
}  # fmt: skip


class ExactStatement(Computed):
    """One of the statements, tested with the random numbers of each seed.

    `frame`: the features +-e_i of n dimensions, under a random rotation, put through ReLU(V V^T x).
    `corners`: random corners of the cube, +-1 / sqrt(n). `packing`: `n_vectors` unit vectors in n dimensions,
    moved to make their largest product as small as possible. `bits`: random points with n bits.

    Args:
        seeds: for each instance the seed of its random numbers
        statement: which one
        n: dimensions; of `bits` the number of bits
        n_vectors: how many vectors are packed
        extra_vectors: vectors more than that, in a frame and in a packing; for a control
        extra_dimensions: dimensions more than n, in a packing; for a control
        plus: the probability of +1 in a corner; for a control
        offset: where points lie between two of the grid; for a control
    """

    def __init__(
        self,
        seeds: Sequence[int],
        statement: Statement,
        n: Annotated[int, Field(ge=1)],
        n_vectors: Annotated[int, Field(ge=2)] = 2,
        extra_vectors: Annotated[int, Field(ge=0)] = 0,
        extra_dimensions: Annotated[int, Field(ge=0)] = 0,
        plus: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        offset: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        if statement == "bits" and n > MOST_BITS:
            raise ValueError(f"n: expected at most {MOST_BITS} bits, which float64 holds exactly, got {n}")
        super().__init__(seeds)
        self.statement, self.n, self.n_vectors = statement, n, n_vectors
        self.extra_vectors, self.extra_dimensions = extra_vectors, extra_dimensions
        self.plus, self.offset = plus, offset

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """The results by name; NaN for those of other statements, because all instances share one table.

        `recovery_error`: the largest error of ReLU(V V^T x) over one-hot x. `large_pairs`: how many of
        `N_PAIRS` pairs of corners have a product of at least each of `TAIL_FROM` in size.
        `log_vectors`: the logarithm of how many corners there were before the first product of at least
        `EPSILON` in size. `largest_product`: of the packed vectors. `right_points`: how many of `N_POINTS`
        points have all bits right.
        """
        draws = [generator("start", seed) for seed in self.seeds]
        if self.statement == "packing":
            return _with_the_others({"largest_product": self._packing(draws)})
        one = {"frame": self._frame, "corners": self._corners, "bits": self._bits}[self.statement]
        found = [one(draw) for draw in draws]
        return _with_the_others({name: np.stack([f[name] for f in found]) for name in found[0]})

    def _frame(self, draw: np.random.Generator) -> dict[str, Array]:
        vectors = np.concatenate([frame(self.n) @ random_rotation(draw, self.n), self._extra(draw)])
        return {"recovery_error": np.array(recovery_error(vectors))}

    def _extra(self, draw: np.random.Generator) -> Array:
        extra = draw.standard_normal((self.extra_vectors, self.n))
        return np.asarray(extra / np.linalg.norm(extra, axis=1, keepdims=True))

    def _corners(self, draw: np.random.Generator) -> dict[str, Array]:
        first, second = (corners(draw, N_PAIRS, self.n, self.plus) for _ in range(2))
        size = np.abs(np.einsum("ij,ij->i", first, second)) / self.n
        return {
            "large_pairs": np.array([(size >= epsilon).sum() for epsilon in TAIL_FROM]),
            "log_vectors": np.array(np.log(vectors_before_a_large_product(draw, self.n, EPSILON, self.plus))),
        }

    def _packing(self, draws: Sequence[np.random.Generator]) -> Array:
        shape = (self.n_vectors + self.extra_vectors, self.n + self.extra_dimensions)
        found = packed(torch.from_numpy(np.stack([draw.standard_normal(shape) for draw in draws])))
        return np.array([largest_product(vectors) for vectors in found.numpy()])

    def _bits(self, draw: np.random.Generator) -> dict[str, Array]:
        points = draw.integers(0, 2**self.n, N_POINTS)
        extracted = extract_bits(np.asarray(points + self.offset) / 2.0**self.n, self.n)
        return {"right_points": (extracted == bits_of(points, self.n)).all(axis=1).sum()}


def _with_the_others(found: Mapping[str, Array]) -> dict[str, Tensor]:
    """The results, and NaN for those of other statements."""
    count = len(next(iter(found.values())))
    nothing = {name: np.full((count, *shape), np.nan) for name, shape in _SHAPES.items()}
    return {name: torch.from_numpy(np.asarray(v, dtype=float)) for name, v in (nothing | dict(found)).items()}


def frame(n: int) -> Float[Array, "{2*n} {n}"]:
    """The features e_i and -e_i of n dimensions."""
    return np.concatenate([np.eye(n), -np.eye(n)])


def random_rotation(draw: np.random.Generator, n: int) -> Float[Array, "{n} {n}"]:
    """An orthogonal matrix, uniform on the orthogonal group: QR of a normal one (Mezzadri 2007)."""
    q, r = np.linalg.qr(draw.standard_normal((n, n)))
    return np.asarray(q * np.sign(np.diag(r)))


def recovery_error(vectors: Float[Array, "vectors dimensions"]) -> float:
    """The largest error of ReLU(V V^T x) as an estimate of x over one-hot x; rows of V are `vectors`."""
    return float(np.abs(np.maximum(vectors @ vectors.T, 0) - np.eye(len(vectors))).max())


def corners(
    draw: np.random.Generator, count: int, n: int, plus: float = 0.5
) -> Float[np.ndarray, "{count} {n}"]:
    """Random corners of the cube, not scaled: each entry +1 with probability `plus`, else -1."""
    return np.where(draw.random((count, n), dtype=np.float32) < plus, np.float32(1), np.float32(-1))


def vectors_before_a_large_product(draw: np.random.Generator, n: int, epsilon: float, plus: float) -> int:
    """How many corners are drawn before one has a product of at least `epsilon` in size with an earlier one.

    That one is not counted: all products of the counted corners are smaller.
    """
    drawn = np.empty((0, n), dtype=np.float32)
    while True:
        new = corners(draw, _AT_ONCE, n, plus)
        before = len(drawn)
        drawn = np.concatenate([drawn, new])
        large = np.abs(new @ drawn.T) >= epsilon * n
        # of each new one only products with those before it
        large &= np.arange(len(drawn)) < before + np.arange(len(new))[:, None]
        if (hit := large.any(axis=1)).any():
            return before + int(hit.argmax())


def largest_product(vectors: Float[Array, "vectors dimensions"]) -> float:
    """The largest product of two different rows."""
    products = vectors @ vectors.T
    return float(products[np.triu_indices(len(vectors), 1)].max())


def packed(
    start: Float[Tensor, "searches vectors dimensions"],
) -> Float[Tensor, "searches vectors dimensions"]:
    """Unit vectors moved from `start` until their largest product is small.

    What is minimised, by Adam, is the smooth maximum log(sum over pairs of exp(beta v.w)) / beta, above the
    largest product by at most log(pairs) / beta; beta grows and the step is 1 / (2 beta). Its gradient is the
    sum of the other vectors, each by its share in that sum. It ends in a local optimum. In torch, as numpy
    and scipy would use several threads for such small products and be slower.
    """
    vectors = nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([vectors], fused=True)
    itself = torch.eye(start.shape[1], dtype=torch.bool)
    for beta in np.geomspace(10, SHARPNESS, PACKING_STEPS).tolist():
        optimizer.param_groups[0]["lr"] = 0.5 / beta
        with torch.no_grad():
            length = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
            unit = vectors / length
            products = (unit @ unit.mT).masked_fill(itself, -torch.inf)
            # of all ordered pairs, so that each pair's share is in two places
            shares = torch.softmax(beta * products.flatten(1), dim=1).view_as(products)
            pull = 2 * shares @ unit
            vectors.grad = (pull - (pull * unit).sum(dim=2, keepdim=True) * unit) / length
        optimizer.step()
    return functional.normalize(vectors.detach(), dim=2)


def extract_bits(x: Float[Array, "points"], n_bits: int) -> Float[Array, "points {n_bits}"]:
    """The bits of each x in [0, 1), highest first, by ReLUs.

    b = ReLU(2^r (x - 1/2) + 1) - ReLU(2^r (x - 1/2)) is a ramp from 0 to 1 between 1/2 - 2^-r and 1/2, and so
    the first bit of all multiples of 2^-r; x' = 2x - b is a multiple of 2^-(r - 1).
    """
    bits = np.empty((len(x), n_bits))
    for i in range(n_bits):
        ramp = 2.0 ** (n_bits - i) * (x - 0.5)
        bits[:, i] = np.maximum(ramp + 1, 0) - np.maximum(ramp, 0)
        x = 2 * x - bits[:, i]
    return bits


def bits_of(points: Int64[np.ndarray, "points"], n_bits: int) -> Int64[np.ndarray, "points {n_bits}"]:
    """The bits of whole numbers, highest first."""
    return np.asarray(points[:, None] >> np.arange(n_bits)[::-1] & 1)
