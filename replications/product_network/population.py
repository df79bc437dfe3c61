"""The exact loss of a network on x y: its mean over the distribution of the inputs, by quadrature."""

import functools
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

Distribution = Literal["normal", "uniform", "laplace"]
"""How each input is distributed, independent of the other, with mean 0 and variance 1."""

ERROR = 5e-5
"""The largest error of a loss of about 1 or less, if the kinks do not lie along an axis."""

RANGE: dict[Distribution, float] = {"normal": 6.5, "uniform": 3**0.5, "laplace": 16.0}
"""How far from 0 inputs reach; values beyond change no loss by more than 1e-6."""

# of the x axis, of the y axis, on each side of 0: their ratio is near the golden one, so that a kink along a
# diagonal passes between the nodes at other places in each row, and its errors cancel
NODES = (100, 161)

_CHUNK = 16  # networks at a time: a few MB, which a processor's cache holds


def population_loss(
    weights: Mapping[str, Float[Tensor, "instances ..."]], distribution: Distribution
) -> Float64[Tensor, "instances"]:
    """The mean squared error on x y of each network.

    Args:
        weights: `weight` (instances, n_hidden, 2), `bias` and `output` (instances, n_hidden), `output_bias`
            (instances, 1)
        distribution: of x and of y
    """
    weight, bias, output, output_bias = (
        weights[name].detach().double() for name in ("weight", "bias", "output", "output_bias")
    )
    axes = [nodes(distribution, n) for n in NODES]
    (x, of_x), (y, of_y) = ([t.to(weight.device) for t in axis] for axis in axes)
    product = x[:, None] * y
    losses = []
    for first in range(0, len(weight), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        error = product - output_bias[chunk, :, None]
        for k in range(weight.shape[1]):
            along_x = weight[chunk, k, :1] * x + bias[chunk, k, None]
            along_y = weight[chunk, k, 1:] * y
            hidden = (along_x[:, :, None] + along_y[:, None]).relu_()
            error -= hidden.mul_(output[chunk, k, None, None])
        losses.append(error.square_() @ of_y @ of_x)
    return torch.cat(losses)


@functools.cache
def nodes(distribution: Distribution, n: int) -> tuple[Float64[Tensor, "{2*n}"], Float64[Tensor, "{2*n}"]]:
    """Nodes of one input and their probabilities: Gauss-Legendre with n nodes on each side of 0.

    The two sides are apart because the Laplace density has a kink at 0.
    """
    node, weight = np.polynomial.legendre.leggauss(n)
    x = RANGE[distribution] * np.concatenate([node - 1, node + 1]) / 2
    density = {
        "normal": np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
        "uniform": np.full_like(x, 1 / (2 * 3**0.5)),
        "laplace": np.exp(-np.sqrt(2) * np.abs(x)) / np.sqrt(2),
    }[distribution]
    probability = RANGE[distribution] / 2 * np.tile(weight, 2) * density
    return torch.from_numpy(x), torch.from_numpy(probability)
