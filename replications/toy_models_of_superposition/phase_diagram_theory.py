"""Theory of the sparsity phase diagrams: the configurations' losses, where they cross, and the exact optimum.

Throughout, r is the importance of the extra feature, the last one, relative to the others (1), p = 1 - S the
density, and a loss is summed over the features, as in the paper; the model's own loss is the mean.
Source: Elhage et al. 2022, arXiv 2209.10652, "Superposition as a phase change"; the losses as in
github.com/wattenberg/superposition.
"""

import functools
import itertools
from bisect import bisect_left
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, root
from torch import Tensor

from common.ensemble import Weights
from common.features import Factors, Inputs
from replications.toy_models_of_superposition.model import ToyModel

Array = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]
Loss = Callable[[Weights, Factors, Inputs], Float[Tensor, "instances"]]

TRIPLE_POINT = (1.0, 4 / 7)
"""(r, p) where the phases meet, in both diagrams."""


class Phase(IntEnum):
    """The outcome for the extra feature."""

    NOT_LEARNED = 0
    SUPERPOSITION = 1
    DEDICATED = 2


class Configuration(NamedTuple):
    """One of the solutions that the theory compares.

    `loss` is a function of (r, p), `weight` has shape (n_hidden, n_features); the feature `ignored`, if any,
    has bias p/2, its mean, and the others have bias 0.
    """

    phase: Phase
    loss: Callable[[Array, Array], Array]
    weight: tuple[tuple[float, ...], ...]
    ignored: int | None = None

    @property
    def n_features(self) -> int:
        """2 or 3, with one hidden dimension fewer."""
        return len(self.weight[0])

    def bias(self, p: float) -> list[float]:
        """The bias of each feature at density p."""
        return [p / 2 if feature == self.ignored else 0.0 for feature in range(self.n_features)]


CONFIGURATIONS = {
    "ignore_extra_2": Configuration(
        Phase.NOT_LEARNED, lambda r, p: r * (p / 3 - p**2 / 4), ((1, 0),), ignored=1
    ),
    "ignore_other_2": Configuration(
        Phase.DEDICATED, lambda r, p: p / 3 - p**2 / 4 + 0 * r, ((0, 1),), ignored=0
    ),
    "antipodal_2": Configuration(Phase.SUPERPOSITION, lambda r, p: (1 + r) * p**2 / 6, ((1, -1),)),
    "ignore_extra_3": Configuration(
        Phase.NOT_LEARNED, lambda r, p: r * (p / 3 - p**2 / 4), ((1, 0, 0), (0, 1, 0)), ignored=2
    ),
    "ignore_other_3": Configuration(
        Phase.DEDICATED, lambda r, p: p / 3 - p**2 / 4 + 0 * r, ((0, 1, 0), (0, 0, 1)), ignored=0
    ),
    "antipodal_3": Configuration(
        Phase.SUPERPOSITION, lambda r, p: (1 + r) * p**2 / 6, ((1, 0, 0), (0, 1, -1))
    ),
    "others_antipodal_3": Configuration(
        Phase.DEDICATED, lambda r, p: p**2 / 3 + 0 * r, ((1, -1, 0), (0, 0, 1))
    ),
}
"""By name, which ends in the number of features. `other` is a feature of importance 1, `antipodal` pairs the
extra feature with one of them, `others_antipodal` pairs those, so that the extra has a dimension alone."""


def configurations(n_features: int) -> list[str]:
    """The names of the configurations of `n_features` features.

    Raises:
        ValueError: if the paper has no diagram of so many features.
    """
    names = [name for name, c in CONFIGURATIONS.items() if c.n_features == n_features]
    if not names:
        raise ValueError(f"n_features: the paper's phase diagrams have 2 or 3, got {n_features}")
    return names


def closed_form_losses(
    n_features: int, r: ArrayLike, p: ArrayLike
) -> Float64[Array, "configurations *broadcast"]:
    """The loss of each of `configurations(n_features)`, r and p being broadcast against each other."""
    names = configurations(n_features)
    grid = np.broadcast_arrays(np.asarray(r, float), np.asarray(p, float))
    return np.stack([CONFIGURATIONS[name].loss(*grid) for name in names])


def best_configuration(n_features: int, r: ArrayLike, p: ArrayLike) -> NDArray[np.intp]:
    """The index into `configurations(n_features)` of the lowest loss; of equal ones the first."""
    return np.asarray(closed_form_losses(n_features, r, p).argmin(axis=0))


def best_phase(n_features: int, r: ArrayLike, p: ArrayLike) -> NDArray[np.intp]:
    """The `Phase` of the extra feature in the best configuration."""
    phases = np.array([CONFIGURATIONS[name].phase for name in configurations(n_features)])
    return np.asarray(phases[best_configuration(n_features, r, p)])


def relative_gap(n_features: int, r: ArrayLike, p: ArrayLike) -> Array:
    """The difference between the two lowest losses, relative to the lowest.

    Over configurations, whatever their phase: with three features and r > 1 the gap closes at p = 4/7, where
    the extra feature is dedicated on both sides.
    """
    losses = np.sort(closed_form_losses(n_features, r, p), axis=0)
    return np.asarray((losses[1] - losses[0]) / losses[0])


def theory_boundary(r: ArrayLike, n_features: int) -> Array:
    """The density below which the best configuration has an antipodal pair, of any two features.

    With three features and r > 1 that is the pair of the others. The further boundary is r = 1: for two
    features at densities above 4/7, for three at all.
    """
    configurations(n_features)
    extra = np.asarray(r, float)
    beyond = 4 / (5 + 2 * extra) if n_features == 2 else TRIPLE_POINT[1]
    return np.where(extra <= 1, 4 * extra / (2 + 5 * extra), beyond)


# nodes per axis, by number of active features
_NODES = {0: 1, 1: 10_000, 2: 200, 3: 32}
_MOST_NUMBERS = 2**20


def population_loss(
    weight: ArrayLike, bias: ArrayLike, r: ArrayLike, p: ArrayLike, model: Loss = ToyModel.loss
) -> Array:
    """The loss on the exact distribution of the inputs, by quadrature of the model's own loss in float64.

    The sum over the 2^n patterns of active features, each the average over a midpoint grid on the unit cube.

    Args:
        weight: shape (..., n_hidden, n_features)
        bias: shape (..., n_features)
        r: shape (...)
        p: shape (...)
        model: the pure loss of the model, as in training

    Returns:
        The losses, shape (...), the axes in front being broadcast against each other.
    """
    arrays = [np.asarray(a, float) for a in (weight, bias, r, p)]
    n_features = arrays[0].shape[-1]
    own_axes = (2, 1, 0, 0)
    shape = np.broadcast_shapes(*(a.shape[: a.ndim - k] for a, k in zip(arrays, own_axes, strict=True)))
    flat = [_flat(a, shape, k) for a, k in zip(arrays, own_axes, strict=True)]
    weights, (extra, density) = dict(zip(("weight", "bias"), flat, strict=False)), flat[2:]
    total = torch.zeros_like(density)
    for active in itertools.product((False, True), repeat=n_features):
        k = sum(active)
        probability = density**k * (1 - density) ** (n_features - k)
        x = _nodes(active)
        together = max(1, _MOST_NUMBERS // x.shape[-1])
        for start in range(0, len(total), together):
            rows = slice(start, start + together)
            factors = {"extra_importance": extra[rows, None], "bias": torch.ones_like(extra[rows, None])}
            losses = model({name: value[rows] for name, value in weights.items()}, factors, list(x))
            total[rows] += probability[rows] * losses
    return np.asarray(n_features * total.numpy().reshape(shape))


def _flat(values: Array, shape: tuple[int, ...], own_axes: int) -> Tensor:
    own = values.shape[values.ndim - own_axes :]
    return torch.from_numpy(np.broadcast_to(values, shape + own).reshape(-1, *own).copy())


@functools.cache
def _nodes(active: tuple[bool, ...]) -> Float64[Tensor, "features 1 nodes"]:
    """A grid over the active features, of midpoints of cells.

    They are stretched slightly about 1/2, so that their variance too is that of the uniform distribution:
    with plain midpoints the mean of a parabola is wrong by 1/12 of a cell squared. The axes differ by a
    node, so that the kinks of the ReLU, often on the diagonal, do not always run through the nodes.
    """
    first = _NODES[sum(active)]
    axes = []
    for feature, is_active in enumerate(active):
        n = first + feature
        middles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        stretched = 0.5 + (middles - 0.5) / (1 - n**-2) ** 0.5 if is_active else torch.zeros(1).double()
        axes.append(stretched)
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")]).unsqueeze(1)


def _quadrature(name: str, r: float, p: float) -> float:
    configuration = CONFIGURATIONS[name]
    return float(population_loss(configuration.weight, configuration.bias(p), r, p))


def closed_form_error(configuration: str) -> float:
    """The largest relative difference between a closed-form loss and `population_loss`, over a grid of r, p.

    Raises:
        ValueError: if there is no such configuration.
    """
    if configuration not in CONFIGURATIONS:
        raise ValueError(f"configuration: expected one of {', '.join(CONFIGURATIONS)}, got {configuration!r}")
    loss = CONFIGURATIONS[configuration].loss
    grid = itertools.product((0.1, 1.0, 10.0), (0.01, 0.3, 1.0))
    return max(
        abs(_quadrature(configuration, r, p) / float(loss(np.asarray(r), np.asarray(p))) - 1) for r, p in grid
    )


def boundary_error(n_features: int) -> float:
    """The largest relative difference between the boundaries and the crossings of the losses by quadrature.

    `theory_boundary` at some r on both sides of 1, and the boundary r = 1 at a density above 4/7 and, for
    three features, one below.

    Raises:
        ValueError: if the paper has no diagram of so many features.
    """
    extra_lost, other_lost, pair, *others = configurations(n_features)
    paired = others[0] if others else pair
    errors = []
    for r in (0.1, 0.5, 2.0, 10.0):
        meeting = (extra_lost, pair) if r < 1 else (other_lost, paired)
        p = brentq(functools.partial(_difference, *meeting, r), 0.01, 1, xtol=1e-7, rtol=1e-7)
        errors.append(abs(float(p) / float(theory_boundary(r, n_features)) - 1))
    meetings = [(extra_lost, other_lost, 0.8), *((pair, paired, 0.3) for _ in others)]
    for first, second, p in meetings:
        r = brentq(functools.partial(_difference, first, second, p=p), 0.3, 3, xtol=1e-7, rtol=1e-7)
        errors.append(abs(float(r) - 1))
    return max(errors)


def triple_point_error(n_features: int) -> float:
    """The largest relative difference between `TRIPLE_POINT` and where three quadrature losses are equal.

    With three features four configurations meet there: the two that ignore a feature meet each of the others.

    Raises:
        ValueError: if the paper has no diagram of so many features.
    """
    first, second, *pairs = configurations(n_features)
    errors = []
    for pair in pairs:
        meeting = root(_differences, (0.8, 0.5), args=(first, second, pair))
        errors.append(float(np.abs(meeting.x / TRIPLE_POINT - 1).max()))
    return max(errors)


def _difference(first: str, second: str, r: float, p: float) -> float:
    return _quadrature(first, r, p) - _quadrature(second, r, p)


def _differences(at: Array, first: str, second: str, third: str) -> Array:
    losses = [_quadrature(name, float(at[0]), float(at[1])) for name in (first, second, third)]
    return np.array(losses[:2]) - losses[2]


# Gauss-Legendre on [0, 1]
_U, _U_WEIGHT = (np.polynomial.legendre.leggauss(64) + np.array([[1.0], [0.0]])) / 2


def two_feature_loss(weight: ArrayLike, bias: ArrayLike, r: ArrayLike, p: ArrayLike) -> Float64[Array, "..."]:
    """`population_loss` of the toy model with n = 2, m = 1, far faster and to a relative 1e-4.

    Of the two integrals of each output one is in closed form, the other a Gauss-Legendre sum.

    Args:
        weight: shape (..., 2)
        bias: shape (..., 2)
        r: shape (...)
        p: shape (...)
    """
    w, biases, extra, density = (np.asarray(a, float) for a in (weight, bias, r, p))
    across = w[..., 0] * w[..., 1]
    losses = []
    for i in range(2):
        own, b = w[..., i] ** 2, biases[..., i]
        z = own[..., None] * _U + b[..., None]
        mean, square = _rectified(z, across[..., None])
        both = (_U**2 - 2 * _U * mean + square) @ _U_WEIGHT
        one = (_U - np.maximum(z, 0)) ** 2 @ _U_WEIGHT + _rectified(b, across)[1]
        none = np.maximum(b, 0) ** 2
        losses.append(density**2 * both + density * (1 - density) * one + (1 - density) ** 2 * none)
    return np.asarray(losses[0] + extra * losses[1])


def _rectified(start: Array, slope: Array) -> tuple[Array, Array]:
    """Means of ReLU(start + slope v) and of its square over v in [0, 1]."""
    a, e = np.maximum(start, 0), np.maximum(start + slope, 0)
    one_sided = start * (start + slope) >= 0
    share = np.where(one_sided, (a + e) > 0, (e - a) / np.where(one_sided, 1, slope))
    return share * (a + e) / 2, share * (a * a + a * e + e * e) / 3


# where the search for the optimum starts: (w_0, w_1), the extra feature almost ignored, or antipodal
_STARTS = ((1.0, -0.1), (1.0, -1.0))

# the loss is compared at x and at x -+ this along each axis
_SHIFTS = 1e-5 * np.concatenate([np.zeros((1, 4)), np.eye(4), -np.eye(4)])


def exact_optimum(r: float, p: float) -> tuple[Float64[Array, "2"], Float64[Array, "2"]]:
    """The weights and biases of the lowest population loss of the toy model with n = 2, m = 1.

    The more important feature's weight is positive. At r = 1, where the features can be exchanged, the extra
    one is the shorter. Numerical, the best of two starts; errors below 1e-3.
    """
    if r > 1:  # the same problem with the features exchanged
        weight, bias = exact_optimum(1 / r, p)
        return weight[::-1], bias[::-1]

    def loss_and_gradient(x: Array) -> tuple[float, Array]:
        around = x + _SHIFTS
        losses = two_feature_loss(around[:, :2], around[:, 2:], r, p) / p
        return float(losses[0]), (losses[1:5] - losses[5:]) / 2e-5

    found = [
        minimize(
            loss_and_gradient,
            np.array([*start, 0, p / 2]),
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-13, "gtol": 1e-7},
        )
        for start in _STARTS
    ]
    best = min(found, key=lambda result: float(result.fun)).x
    return best[:2], best[2:]


@functools.cache
def exact_boundary(r: float) -> float:
    """The density at which the exact optimum of n = 2, m = 1 jumps, to a relative 1e-4.

    That is where the length ratio, the shorter weight over the longer, rises through 0.6: for r from 0.1 to
    10 it jumps from 0.57 or less to 0.63 or more.

    Raises:
        ValueError: for any other r.
    """
    if not 0.1 <= r <= 10:
        raise ValueError(f"r: expected 0.1 to 10, got {r:g}")
    if r > 1:
        return exact_boundary(max(0.1, 1 / r))
    densities = float(theory_boundary(r, 2)) * np.arange(1, 1.5, 1e-4)
    return float(densities[bisect_left(densities, True, key=lambda p: _length_ratio(r, p) < 0.6)])


def optimum_step(r: float, densities: int = 200) -> float:
    """The largest change of the exact optimum between neighbours of `densities` densities from 1 to 0.1.

    The change of the length ratio, the shorter weight over the longer; the densities are even on a
    logarithmic axis.
    """
    ratios = [_length_ratio(r, p) for p in np.geomspace(1, 0.1, densities)]
    return float(np.abs(np.diff(ratios)).max())


def _length_ratio(r: float, p: float) -> float:
    lengths = np.abs(exact_optimum(r, p)[0])
    return float(lengths.min() / lengths.max())
