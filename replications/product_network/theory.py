"""Exact networks on the product of two unit normal inputs: built by hand, and the best ones.

The identity x y = (u^2 - v^2) / 2, with u = (x + y) / sqrt 2 and v = (x - y) / sqrt 2, makes two squares of
the product; a network that forms a function h of each has the error g(u) - g(v) with g(u) = u^2 / 2 - A h(u),
and the loss 2 Var g. The population loss of no output at all is the product's variance, 1.
"""

import functools
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.stats import norm
from torch import Tensor

from replications.product_network.population import population_loss

Array = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]

DIAGONALS = (45.0, 225.0, 135.0, 315.0)
"""The half diagonals of x + y, then those of x - y, in degrees."""


def network(
    strength: Float64[Array, "neurons"], angle: Float64[Array, "neurons"], kink: Float64[Array, "neurons"]
) -> dict[str, Float64[Tensor, "1 ..."]]:
    """The weights of one network sum_k strength_k relu(cos(angle_k) x + sin(angle_k) y - kink_k)."""
    radians = np.deg2rad(angle)
    weights = {
        "weight": np.stack([np.cos(radians), np.sin(radians)], axis=1),
        "bias": -np.asarray(kink, dtype=float),
        "output": np.asarray(strength, dtype=float),
        "output_bias": np.zeros(1),
    }
    return {name: torch.from_numpy(weight)[None] for name, weight in weights.items()}


def diagonal_network(scale: float, kink: float = 0.0) -> dict[str, Float64[Tensor, "1 ..."]]:
    """The network scale (relu(|u| - kink) - relu(|v| - kink)), one neuron on each half diagonal."""
    signs = np.array([1.0, 1, -1, -1])
    return network(scale * signs, np.array(DIAGONALS), np.full(4, kink))


# --- without biases


def diagonal_scale() -> float:
    """The best a of a (|x + y| - |x - y|), by quadrature: from the losses at a = -1, 0 and 1."""
    below, without, above = (_diagonal_loss(a) for a in (-1.0, 0.0, 1.0))
    return (below - above) / (2 * (below + above - 2 * without))


def diagonal_loss() -> float:
    """The loss of a (|x + y| - |x - y|) at its best a, by quadrature; 1 - 1 / (pi - 2)."""
    return _diagonal_loss(diagonal_scale())


def _diagonal_loss(a: float) -> float:
    return float(population_loss(diagonal_network(2**0.5 * a), "normal"))


def homogeneous_bound() -> float:
    """The lowest loss of any function with f(s x, s y) = s f(x, y) for s > 0, like networks without biases.

    On each ray from 0 the best factor is the mean of r x y over the mean of r^2; by quadrature over r, in
    closed form 1 - 9 pi / 32.
    """
    node, weight = np.polynomial.legendre.leggauss(100)
    r = 6 * (node + 1)
    second, third, fourth = (float(6 * weight @ (r ** (k + 1) * np.exp(-(r**2) / 2))) for k in (2, 3, 4))
    product = np.sin(2 * np.linspace(0, 2 * np.pi, 64, endpoint=False)) / 2  # x y / r^2
    return float((fourth - third**2 / second) * (product**2).mean())


def bias_free_loss(strength: Float[Tensor, "neurons"], angle: Float[Tensor, "neurons"]) -> Float[Tensor, ""]:
    """The exact loss of sum_k strength_k relu(cos(angle_k) x + sin(angle_k) y), angles in radians.

    1 - 2 sum_k s_k E[x y h_k] + sum_kl s_k s_l E[h_k h_l], where E[x y h_k] = sin(2 angle_k) / 2 sqrt(2 pi).
    Source of E[h_k h_l]: Cho & Saul 2009, the arc-cosine kernel of degree 1.
    """
    turned = (angle[:, None] - angle + torch.pi) % (2 * torch.pi)
    between = (turned - torch.pi).abs()
    kernel = (between.sin() + (torch.pi - between) * between.cos()) / (2 * torch.pi)
    fit = (strength * (2 * angle).sin()).sum() / (2 * (2 * torch.pi) ** 0.5)
    loss: Tensor = 1 - 2 * fit + strength @ kernel @ strength
    return loss


def smallest_curvature() -> float:
    """The smallest eigenvalue of the loss's Hessian at the best diagonal network without biases.

    In strengths and angles. Where it is negative the network is a saddle: all first derivatives are 0 there.
    """
    scale = 2**0.5 * diagonal_scale()
    strength = torch.tensor([scale, scale, -scale, -scale], dtype=torch.float64)
    at = torch.cat([strength, torch.deg2rad(torch.tensor(DIAGONALS, dtype=torch.float64))])
    return float(torch.linalg.eigvalsh(torch.func.hessian(_joined_loss)(at))[0])


def _joined_loss(strength_and_angle: Float[Tensor, "strengths_and_angles"]) -> Float[Tensor, ""]:
    strength, angle = strength_and_angle.chunk(2)
    return bias_free_loss(strength, angle)


@functools.cache
def bias_free_optimum() -> tuple[float, float, float]:
    """The lowest loss of four neurons without biases, and the smallest and largest of their angles.

    To the nearest diagonal, in degrees. Numerical, the best of 40 random starts; about every second finds it.
    """

    def loss_and_gradient(at: Array) -> tuple[float, Array]:
        joined = torch.from_numpy(at).requires_grad_()
        loss = _joined_loss(joined)
        (gradient,) = torch.autograd.grad(loss, joined)
        return float(loss.detach()), gradient.numpy()

    draws = np.random.default_rng(0)
    starts = np.concatenate([draws.normal(size=(40, 4)), draws.uniform(0, 2 * np.pi, (40, 4))], axis=1)
    found = [minimize(loss_and_gradient, start, jac=True, method="BFGS") for start in starts]
    best = min(found, key=lambda result: float(result.fun))
    off = np.abs(np.rad2deg(best.x[4:]) % 90 - 45)
    return float(best.fun), float(off.min()), float(off.max())


def bias_free_angle(which: Literal["smallest", "largest"]) -> float:
    """The smallest or the largest angle of `bias_free_optimum`."""
    _, smallest, largest = bias_free_optimum()
    return smallest if which == "smallest" else largest


# --- with biases: h(u) = relu(|u| - t)


def best_kink() -> float:
    """The t with the lowest loss."""
    return _optimum()[0]


def best_scale() -> float:
    """The A that goes with it: Cov(u^2 / 2, h) / Var h."""
    kink = best_kink()
    return float(norm.pdf(kink)) / _variance(kink)


def best_loss() -> float:
    """The loss that goes with both, in closed form."""
    return _optimum()[1]


def hand_built_loss() -> float:
    """The loss of the network built with both, by quadrature."""
    return float(population_loss(diagonal_network(best_scale(), best_kink()), "normal"))


@functools.cache
def _optimum() -> tuple[float, float]:
    found = minimize_scalar(_best_loss, bounds=(0.1, 2), method="bounded", options={"xatol": 1e-9})
    return float(found.x), float(found.fun)


def _variance(t: float) -> float:
    """The variance of relu(|u| - t) for a normal u."""
    density, beyond = float(norm.pdf(t)), float(norm.sf(t))
    mean = 2 * (density - t * beyond)
    return 2 * ((1 + t**2) * beyond - t * density) - mean**2


def _best_loss(t: float) -> float:
    """The loss with the best A. As Cov(u^2 / 2, h) is the normal density at t, 1 - 2 density^2 / Var h."""
    return 1 - 2 * float(norm.pdf(t)) ** 2 / _variance(t)


def tolerance(of: Literal["kink", "scale"], excess: float = 0.01) -> float:
    """By how much the kinks, or the scales, are off when the loss is that share above the lowest.

    All four together, with the others chosen for the lowest loss; the smaller of the two sides. For margins.
    """
    kink, scale, limit = best_kink(), best_scale(), (1 + excess) * best_loss()

    def scale_loss(a: float) -> float:
        def loss(t: float) -> float:
            return 1 - 4 * a * float(norm.pdf(t)) + 2 * a**2 * _variance(t)

        return float(minimize_scalar(loss, bounds=(0.05, 2), method="bounded").fun)

    centre, loss = (kink, _best_loss) if of == "kink" else (scale, scale_loss)

    def too_high(size: float, side: int) -> float:
        return loss(centre + side * size) - limit

    return min(float(brentq(too_high, 0, 0.3, args=(side,))) for side in (-1, 1))
