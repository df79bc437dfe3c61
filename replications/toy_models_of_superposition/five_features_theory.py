"""Five features in two dimensions: the exact loss, its optima, and the shapes that features form.

Feature i has importance decay^i, and each is zero with probability 1 - p, independently. Nothing here is
sampled: one input of each output is integrated in closed form, the others by quadrature.
Source: arXiv 2209.10652, the model and the data of the first figure; the optima are ours.
"""

import functools
import itertools
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from torch import Tensor

Array = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]
Order = tuple[int, ...]
Shape = Literal["orthogonal", "digons", "pentagon"]

N_FEATURES = 5
SIZES: dict[Shape, int] = {"orthogonal": 2, "digons": 4, "pentagon": 5}
"""How many features each shape embeds: a pair at right angles, two antipodal pairs, all five."""

EMBEDDED_NORM = 0.5
TOLERANCE = 9.0
"""How far angles may be from those of a shape, in degrees: halfway from a square's to a pentagon's."""

SEARCH_NODES, EXACT_NODES = 6, 12
"""Nodes per input, for relative errors of the loss of 1e-3 and of 3e-5."""


class Ring(NamedTuple):
    """The embedded features around the plane, from the first one on, and the angles between neighbours.

    Reflected where necessary, so that the second feature has a lower number than the last; of two features
    the smaller angle comes first.
    """

    order: Order
    gaps: Float64[Array, "embedded"]


class Optimum(NamedTuple):
    """A local optimum, its loss summed over features."""

    loss: float
    weight: Float64[Array, "hidden features"]
    bias: Float64[Array, "features"]


def ring(weight: Float64[Array, "2 features"]) -> Ring:
    """The features whose norm is at least 1/2, around the plane."""
    embedded = np.flatnonzero(np.linalg.norm(weight, axis=0) >= EMBEDDED_NORM)
    if not len(embedded):
        return Ring((), np.array([]))
    angle = np.degrees(np.arctan2(weight[1], weight[0]))
    around = (angle[embedded] - angle[embedded[0]]) % 360
    place = np.argsort(around)
    order, gaps = embedded[place], np.diff(np.r_[around[place], 360.0])
    if len(order) > 1 and (order[1] > order[-1] or (len(order) == 2 and gaps[0] > gaps[1])):
        order, gaps = np.r_[order[0], order[:0:-1]], gaps[::-1]
    return Ring(tuple(order.tolist()), gaps)


def shape_of(found: Ring) -> Shape | None:
    """The shape that the embedded features form, whichever features they are; None for any other shape."""
    name = next((name for name, size in SIZES.items() if size == len(found.order)), None)
    if name is None:
        return None
    angles = found.gaps.min() if name == "orthogonal" else found.gaps
    wanted = 72 if name == "pentagon" else 90
    return name if np.abs(angles - wanted).max() < TOLERANCE else None


def population_loss(
    weight: ArrayLike, bias: ArrayLike, density: float, decay: float, nodes: int = EXACT_NODES
) -> float:
    """The loss on the exact distribution of the inputs, summed over features.

    Args:
        weight: shape (n_hidden, features)
        bias: shape (features,)
        density: probability that a feature is not zero
        decay: the importance of a feature relative to the one before it
        nodes: Gauss-Legendre nodes for each input that is not integrated in closed form
    """
    w, b = (torch.from_numpy(np.array(value, dtype=float)) for value in (weight, bias))
    return float(_loss(w, b, density, decay, nodes))


def _loss(
    weight: Float64[Tensor, "hidden features"],
    bias: Float64[Tensor, "features"],
    density: float,
    decay: float,
    nodes: int,
) -> Float64[Tensor, ""]:
    n = weight.shape[1]
    x, probability = _grid(n - 1, density, nodes)
    gram = weight.T @ weight
    others = torch.stack([torch.cat([gram[i, :i], gram[i, i + 1 :]]) for i in range(n)])
    start, slope = others @ x + bias[:, None], gram.diagonal()[:, None]
    # Output i is ReLU(start + slope u), u = x_i. Where u is uniform, its error is u up to the kink and
    # (1 - slope) u - start beyond. There the two are equal, so the kink itself needs no gradient.
    with torch.no_grad():
        kink = (-start / slope.clamp(min=1e-300)).clamp(0, 1)
    rest = 1 - slope
    active = kink**3 / 3 + rest**2 * (1 - kink**3) / 3 - rest * start * (1 - kink**2) + start**2 * (1 - kink)
    silent = torch.relu(start) ** 2
    importance = decay ** torch.arange(n, dtype=torch.float64)
    return importance @ ((density * active + (1 - density) * silent) @ probability)


@functools.lru_cache(maxsize=16)
def _grid(
    n_inputs: int, density: float, nodes: int
) -> tuple[Float64[Tensor, "{n_inputs} points"], Float64[Tensor, "points"]]:
    """Values of independent inputs and the probability of each point."""
    place, share = np.polynomial.legendre.leggauss(nodes)
    values = torch.tensor([0, *(place + 1) / 2], dtype=torch.float64)
    weights = torch.tensor([1 - density, *density * share / 2], dtype=torch.float64)
    points = torch.cartesian_prod(*[values] * n_inputs).T.contiguous()
    probability = functools.reduce(lambda a, b: (a[:, None] * b).flatten(), [weights] * n_inputs)
    return points, probability


@functools.cache
def local_optimum(density: float, decay: float, order: Order, nodes: int = EXACT_NODES) -> Optimum:
    """The optimum that is reached from unit vectors in this order around the plane, evenly spaced.

    Two start at right angles. It may be of another shape, where none of this one is stable.
    """
    apart = 2 * np.pi / (4 if len(order) == 2 else len(order))
    # the other features start close to 0, but not there, where the gradient may be 0 by symmetry
    weight = np.tile([[0.03], [0.05]], N_FEATURES)
    weight[:, list(order)] = np.array([f(apart * np.arange(len(order))) for f in (np.cos, np.sin)])
    bias = np.full(N_FEATURES, density / 2)
    bias[list(order)] = -0.2 if len(order) == N_FEATURES else 0.0
    return optimum_from(density, decay, weight, bias, nodes)


def optimum_from(
    density: float,
    decay: float,
    weight: Float64[Array, "hidden features"],
    bias: Float64[Array, "features"],
    nodes: int = EXACT_NODES,
) -> Optimum:
    """The local optimum that L-BFGS reaches from these weights and biases."""
    x, loss = np.r_[weight.ravel(), bias], np.nan

    def loss_and_gradient(x: Array, count: int) -> tuple[float, Array]:
        at = torch.tensor(x, requires_grad=True)
        # in units of the density, as losses are
        value = _loss(at[: weight.size].reshape(weight.shape), at[weight.size :], density, decay, count)
        (gradient,) = torch.autograd.grad(value / density, at)
        return float(value.detach()) / density, gradient.numpy()

    # on the coarse grid first, which is many times as fast
    for count in sorted({SEARCH_NODES, nodes}):
        result = minimize(
            loss_and_gradient, x, (count,), "L-BFGS-B", jac=True,
            options={"maxiter": 2000, "ftol": 1e-9 if count == SEARCH_NODES else 1e-14, "gtol": 1e-8},
        )  # fmt: skip
        x, loss = result.x, float(result.fun) * density
    return Optimum(loss, x[: weight.size].reshape(weight.shape), x[weight.size :])


def orders(name: Shape) -> list[Order]:
    """All orders of the most important features around a shape, up to rotation and reflection."""
    rest = itertools.permutations(range(1, SIZES[name]))
    return [(0, *order) for order in rest if order[0] <= order[-1]]


@functools.cache
def best(density: float, decay: float, name: Shape) -> Optimum | None:
    """The optimum of lowest loss among those with this shape, None if the shape is nowhere stable."""
    found = {order: local_optimum(density, decay, order, SEARCH_NODES) for order in orders(name)}
    of_shape = [order for order, optimum in found.items() if shape_of(ring(optimum.weight)) == name]
    if not of_shape:
        return None
    return local_optimum(density, decay, min(of_shape, key=lambda order: found[order].loss))


def optimal_loss(density: float, decay: float, shape: Shape) -> float:
    """The loss, summed over features, of the best optimum of this shape.

    Raises:
        ValueError: if the shape is nowhere stable.
    """
    if (found := best(density, decay, shape)) is None:
        raise ValueError(f"shape: {shape!r} is not stable at density {density:g} and decay {decay:g}")
    return found.loss


def advantage(density: float, decay: float, shape: Shape) -> float:
    """The relative excess of the lowest loss of any other optimum over the lowest of this shape.

    Over the optima that are reached from the three shapes, in all orders of the most important features.

    Raises:
        ValueError: if this shape is nowhere stable, or no other.
    """
    own = optimal_loss(density, decay, shape)
    found = {
        order: local_optimum(density, decay, order, SEARCH_NODES) for name in SIZES for order in orders(name)
    }
    others = [order for order, optimum in found.items() if shape_of(ring(optimum.weight)) != shape]
    if not others:
        raise ValueError(f"shape: only {shape!r} is stable at density {density:g} and decay {decay:g}")
    lowest = min(others, key=lambda order: found[order].loss)
    return local_optimum(density, decay, lowest).loss / own - 1
