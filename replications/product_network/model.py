"""One-hidden-layer ReLU networks on the product of two inputs, as an ensemble."""

import functools
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from common.ensemble import Ensemble, Weights
from common.features import Factors, Features, Inputs, Varying
from replications.product_network import neurons
from replications.product_network.population import Distribution, population_loss

StartScale = Annotated[float, Field(gt=0)]


class Pair(Features):
    """Two independent inputs x and y with mean 0 and variance 1.

    Args:
        distribution: of each of them
        batch_size: samples in a batch
        together: whether both vary in a sample; if not, a control, y is 0 in the first half of a batch and x
            is 0 in the second, so that the product is always 0
    """

    def __init__(
        self,
        distribution: Distribution,
        batch_size: Annotated[int, Field(ge=1)] = 256,
        together: Varying[bool] = True,
    ) -> None:
        super().__init__(2, batch_size, {"together": together})
        self.distribution = distribution
        self.structure = (distribution,)

    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances batch"]]:
        """See `Features.sample`.

        A uniform has 24 bits, so 1 - u is exact and never 0, and 2u - 1 moved by half its spacing is
        symmetric about 0 and never 0 or +-1: no logarithm is infinite.
        Source of the normal pair: Box & Muller 1958.
        """
        first, second = uniforms
        if self.distribution == "normal":
            radius, angle = (-2 * torch.log(1 - first)).sqrt(), 2 * torch.pi * second
            x, y = radius * torch.cos(angle), radius * torch.sin(angle)
        else:
            of_uniform = _uniform if self.distribution == "uniform" else _laplace
            x, y = (of_uniform(2 * u - 1 + 2**-24) for u in (first, second))
        in_first_half = torch.arange(x.shape[1], device=x.device) < x.shape[1] // 2
        together = factors["together"] > 0
        return [torch.where(in_first_half | together, x, 0.0), torch.where(~in_first_half | together, y, 0.0)]


class ProductNetwork(Ensemble):
    """f(x, y) = sum_k a_k ReLU(w_k . (x, y) + b_k) + c, trained on x y by the mean squared error.

    Start: as a linear layer of torch by default, uniform within 1 / sqrt(fan in), weights and biases.
    Source: Chan 2024; loss, biases and start are not stated there.

    Args:
        features: the distribution of x and y
        seeds: for each instance the seed of its start weights and data
        n_hidden: hidden neurons
        product: whether the target is x y; if not, a control, it is x + y
        bias: whether there are biases, b and c
        start_scale: all start weights and biases are multiplied by it
        keep_neurons: whether the neurons themselves are kept, and how close to squares they are
    """

    def __init__(
        self,
        features: Pair,
        seeds: Sequence[int],
        n_hidden: Annotated[int, Field(ge=1)],
        product: Varying[bool] = True,
        bias: Varying[bool] = True,
        start_scale: Varying[StartScale] = 1.0,
        keep_neurons: bool = True,
    ) -> None:
        factors = {"product": product, "bias": bias}
        super().__init__(features, seeds, functools.partial(_start, n_hidden), factors)
        self.distribution = features.distribution
        self.keep_neurons = keep_neurons
        scale = torch.as_tensor(start_scale, dtype=torch.float32).expand(len(self.seed_index))
        with torch.no_grad():
            for weight in self.weights.values():
                weight *= scale.view(-1, *[1] * (weight.ndim - 1))

    @staticmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """See `Ensemble.loss`."""
        weight, output = weights["weight"].unsqueeze(-1), weights["output"].unsqueeze(-1)
        bias = (weights["bias"] * factors["bias"]).unsqueeze(-1)
        error = torch.where(factors["product"] > 0, x[0] * x[1], x[0] + x[1])
        error = error - weights["output_bias"] * factors["bias"]
        # the sum over the neurons is written out: the compiler makes one loop of it and makes the inputs once
        for k in range(weight.shape[1]):
            hidden = torch.relu(weight[:, k, 0] * x[0] + weight[:, k, 1] * x[1] + bias[:, k])
            error = error - output[:, k] * hidden
        return error.square().mean(dim=1)

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """The population loss, the geometry of the neurons (see `neurons`), and, if kept, the neurons."""
        bias = self.factors["bias"]
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        weights |= {name: weights[name] * bias for name in ("bias", "output_bias")}
        read = neurons.read(weights)
        kept = {"population_loss": population_loss(weights, self.distribution), **neurons.geometry(read)}
        return kept | neurons.shape(read) | read._asdict() if self.keep_neurons else kept


def _uniform(centred: Float[Tensor, "instances batch"]) -> Float[Tensor, "instances batch"]:
    return 3**0.5 * centred


def _laplace(centred: Float[Tensor, "instances batch"]) -> Float[Tensor, "instances batch"]:
    return -torch.sign(centred) * torch.log(1 - centred.abs()) / 2**0.5


def _start(n_hidden: int, generator: np.random.Generator) -> dict[str, Float[Tensor, "..."]]:
    def linear(fan_in: int, *shape: int) -> Tensor:
        uniform: Tensor = torch.from_numpy(generator.random(shape, dtype=np.float32))
        return (2 * uniform - 1) / math.sqrt(fan_in)

    return {
        "weight": linear(2, n_hidden, 2),
        "bias": linear(2, n_hidden),
        "output": linear(n_hidden, n_hidden),
        "output_bias": linear(n_hidden, 1),
    }
