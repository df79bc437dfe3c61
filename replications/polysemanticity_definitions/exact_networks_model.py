"""Ensembles of one-hidden-layer networks on tasks that one neuron per case solves exactly."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from common.ensemble import Ensemble, Weights
from common.features import Density, Factors, Features, Inputs, Varying

TaskName = Literal["absolute", "and"]

ACTIVE = 0.01
"""A neuron is active if it can add at least this share of what the strongest one can add to the output."""

RESPONDS = (0.05, 0.1, 0.2)
"""A neuron reads an input whose weight is at least this share of its largest one; three thresholds."""

CACHED = 400_000
"""The size of the array of hidden values of the networks that a CPU computes at once: 1.6 MB."""

INPUTS_READ = {"absolute": 1, "and": 2}
"""How many inputs a neuron of the exact solution reads; one that reads more is polysemantic."""


class Task(Features):
    """Sparse inputs, independent of each other, with what a network should make of them.

    `absolute`: an input is zero with probability 1 - density, else uniform on [-1, 1]; targets are |x_i|.
    `and`: an input is 1 with probability density, else 0; targets are x_i x_j for all pairs. A batch is then
    all 2^n inputs, weighted by their probabilities: the limit of large batches.
    Source: Chan 2024, footnote 13; distributions and sizes are not stated there.
    """

    def __init__(
        self,
        task: TaskName,
        n_features: Annotated[int, Field(ge=2)],
        density: Varying[Density],
        batch_size: Annotated[int, Field(ge=1)] = 1024,
    ) -> None:
        super().__init__(
            n_features, batch_size if task == "absolute" else 2**n_features, {"density": density}
        )
        self.task = task
        self.n_outputs = n_features if task == "absolute" else n_features * (n_features - 1) // 2
        self.n_uniforms = n_features if task == "absolute" else 0
        self.structure = (task,)

    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances batch"]]:
        """See `Features.sample`; after the inputs the targets, then what each input counts in the loss."""
        drawn = torch.stack(list(uniforms), dim=1) if uniforms else None
        inputs, targets, counts = self.batch(drawn, factors["density"])
        together = torch.cat([inputs, targets, counts], dim=1)
        return list(together.unbind(dim=1))

    def batch(
        self,
        uniforms: Float[Tensor, "instances features draws"] | None,
        density: Float[Tensor, "instances 1"],
    ) -> tuple[
        Float[Tensor, "instances features batch"],
        Float[Tensor, "instances outputs batch"],
        Float[Tensor, "instances 1 batch"],
    ]:
        """Inputs, targets, and what each input counts.

        Weighted by the last, the sum of squared errors is their mean over that of the targets' squares: the
        loss of a network whose output is 0 is 1.

        Args:
            uniforms: not for `and`
            density: of the inputs
        """
        p, n = density.unsqueeze(2), self.n_features
        if self.task == "absolute":
            assert uniforms is not None
            # in place, as this takes as long as a matrix product: u < p is 1 - 2 u / p > -1
            inputs = torch.threshold_(torch.mul(uniforms, -2 / p).add_(1), -1, 0)
            batch_size = uniforms.shape[2]
            return inputs, inputs.abs(), (3 / (n * batch_size * p)).expand(-1, 1, batch_size)
        inputs, targets = (t.to(p.dtype).expand(len(p), -1, -1) for t in _all_inputs(n, p.device))
        n_on = inputs.sum(dim=1, keepdim=True)
        return inputs, targets, p ** (n_on - 2) * (1 - p) ** (n - n_on) / self.n_outputs


@functools.cache
def _all_inputs(
    n: int, device: torch.device
) -> tuple[Float[Tensor, "{n} batch"], Float[Tensor, "outputs batch"]]:
    """All 2^n inputs of n zeros and ones, and the products of all pairs; kept: no step copies them."""
    inputs = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), device=device).T.contiguous()
    first, second = zip(*itertools.combinations(range(n), 2), strict=True)
    return inputs, inputs[list(first)] * inputs[list(second)]


class TwoLayerNetwork(Ensemble):
    """y = V ReLU(W x + b) + c, trained on a task's targets by the squared error, relative to theirs.

    Start: as a linear layer of torch by default, uniform within 1 / sqrt(fan in), weights and biases.
    Source: Chan 2024, footnote 13; the rest is not stated there.

    Args:
        features: the task
        seeds: for each instance the seed of its start weights and data
        width: neurons, as a multiple of those of the exact solution: 2 per input for |x|, 1 per pair for AND
        from_solution: start at the exact solution, further neurons without weights; for a control
    """

    def __init__(
        self,
        features: Task,
        seeds: Sequence[int],
        width: Annotated[int, Field(ge=1)],
        from_solution: bool = False,
    ) -> None:
        if not isinstance(features, Task):
            raise ValueError(f"features: expected Task, got {type(features).__name__}")
        exact = exact_solution(features.task, features.n_features)
        n_hidden = width * len(exact["bias"])
        start = functools.partial(_start, features.n_features, n_hidden, features.n_outputs)
        if from_solution:
            start = functools.partial(_padded, exact, n_hidden)
        super().__init__(features, seeds, start, {})
        self.task = features
        self._scratch: list[Tensor] = []

    @staticmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """See `Ensemble.loss`."""
        n_outputs, n = weights["output"].shape[1], weights["weight"].shape[2]
        together = torch.stack(list(x), dim=1)
        inputs, targets = together[:, :n], together[:, n : n + n_outputs]
        hidden = torch.relu(weights["weight"] @ inputs + weights["bias"].unsqueeze(2))
        error = weights["output"] @ hidden + weights["output_bias"].unsqueeze(2) - targets
        losses: Tensor = (error.square() * together[:, -1:]).sum(dim=(1, 2))
        return losses

    def losses_and_gradients(
        self, uniforms: Float[Tensor, "draws batch"], seed_index: Int[Tensor, "instances"]
    ) -> tuple[Float[Tensor, "instances"], Weights]:
        """See `Ensemble.losses_and_gradients`: five matrix products, and no start of a compiler.

        A few networks at a time, so that what they compute stays in the cache from one product to the next.
        """
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        gradients = {name: torch.empty_like(weight) for name, weight in weights.items()}
        losses = torch.empty(len(seed_index), device=self.device)
        arrays = self._arrays()
        n, density = self.task.n_uniforms, self.factors["density"]
        by_seed = uniforms.reshape(-1, n, self.task.batch_size) if n else None
        for start in range(0, len(losses), len(arrays[0])):
            some = slice(start, start + len(arrays[0]))
            drawn = None if by_seed is None else by_seed.index_select(0, seed_index[some])
            batch = self.task.batch(drawn, density[some])
            self._backpropagate(
                {name: weight[some] for name, weight in weights.items()},
                batch,
                [array[: len(batch[0])] for array in arrays],
                losses[some],
                {name: gradient[some] for name, gradient in gradients.items()},
            )
        return losses, gradients

    def _backpropagate(
        self,
        weights: Weights,
        batch: tuple[
            Float[Tensor, "instances features batch"],
            Float[Tensor, "instances outputs batch"],
            Float[Tensor, "instances 1 batch"],
        ],
        arrays: list[Float[Tensor, "instances _ batch"]],
        losses: Float[Tensor, "instances"],
        gradients: Weights,
    ) -> None:
        """Fill in `losses` and `gradients` of networks with these weights, on a batch of the task."""
        inputs, targets, counts = batch
        hidden, back, error, slope = arrays
        torch.baddbmm(weights["bias"].unsqueeze(2), weights["weight"], inputs, out=hidden)
        self.activate(hidden)
        torch.baddbmm(weights["output_bias"].unsqueeze(2), weights["output"], hidden, out=error).sub_(targets)
        torch.mul(error, 2 * counts, out=slope)
        torch.div(torch.linalg.vecdot(error.flatten(1), slope.flatten(1)), 2, out=losses)
        torch.bmm(slope, hidden.mT, out=gradients["output"])
        torch.sum(slope, dim=2, out=gradients["output_bias"])
        torch.bmm(weights["output"].mT, slope, out=back)
        self.through_activation(back, hidden)
        torch.bmm(back, inputs.mT, out=gradients["weight"])
        torch.sum(back, dim=2, out=gradients["bias"])

    @staticmethod
    def activate(hidden: Float[Tensor, "instances hidden batch"]) -> None:
        """The ReLU, in place."""
        hidden.relu_()

    @staticmethod
    def through_activation(
        back: Float[Tensor, "instances hidden batch"], hidden: Float[Tensor, "instances hidden batch"]
    ) -> None:
        """Multiply `back` by the ReLU's slope where its value is `hidden`, in place."""
        torch.ops.aten.threshold_backward.grad_input(back, hidden, 0, grad_input=back)

    def _arrays(self) -> list[Float[Tensor, "instances _ batch"]]:
        # kept from step to step: allocating and clearing new megabytes takes as long as filling them
        n_hidden, batch_size = self.weights["bias"].shape[1], self.task.batch_size
        if not self._scratch or self._scratch[0].device != self.device:
            n = len(self.seed_index)
            if self.device.type == "cpu":
                n = min(n, max(1, CACHED // (n_hidden * batch_size)))
            shapes = [(n, size, batch_size) for size in 2 * [n_hidden] + 2 * [self.task.n_outputs]]
            self._scratch = [torch.empty(shape, device=self.device) for shape in shapes]
        return self._scratch

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """Active neurons, and those of them that are polysemantic, at each threshold of `RESPONDS`."""
        weight = self.weights["weight"].detach()
        return {
            "active_neurons": self._active().sum(dim=1),
            "polysemantic_neurons": torch.stack(
                [
                    (self._active() & (inputs_read(weight, t) > INPUTS_READ[self.task.task])).sum(dim=1)
                    for t in RESPONDS
                ],
                dim=1,
            ),
        }

    def _active(self) -> Bool[Tensor, "instances neurons"]:
        weight, bias, output = (self.weights[name].detach() for name in ("weight", "bias", "output"))
        # the largest activation over all inputs, on [-1, 1] or [0, 1]
        reach = weight.abs() if self.task.task == "absolute" else weight.clamp_min(0)
        strength = (reach.sum(dim=2) + bias).clamp_min(0) * output.norm(dim=1)
        active: Tensor = strength >= ACTIVE * strength.amax(dim=1, keepdim=True)
        return active


class LinearNetwork(TwoLayerNetwork):
    """A control without the ReLU."""

    @staticmethod
    def activate(hidden: Float[Tensor, "instances hidden batch"]) -> None:
        """Nothing."""

    @staticmethod
    def through_activation(
        back: Float[Tensor, "instances hidden batch"], hidden: Float[Tensor, "instances hidden batch"]
    ) -> None:
        """Nothing: the slope is 1."""


def inputs_read(
    weight: Float[Tensor, "instances neurons features"], threshold: float
) -> Int[Tensor, "instances neurons"]:
    """How many inputs each neuron has a weight for of at least `threshold` times its largest."""
    size = weight.abs()
    count: Tensor = (size >= threshold * size.amax(dim=2, keepdim=True)).sum(dim=2)
    return count


def exact_solution(task: TaskName, n: int) -> dict[str, Float[Tensor, "..."]]:
    """Weights of one network without error: |x| = ReLU(x) + ReLU(-x), x_i AND x_j = ReLU(x_i + x_j - 1)."""
    if task == "absolute":
        one = torch.eye(n)
        return {
            "weight": torch.cat([one, -one]),
            "bias": torch.zeros(2 * n),
            "output": torch.cat([one, one], dim=1),
            "output_bias": torch.zeros(n),
        }
    pairs = torch.tensor(list(itertools.combinations(range(n), 2)))
    weight = torch.zeros(len(pairs), n).scatter_(1, pairs, 1.0)
    return {
        "weight": weight,
        "bias": -torch.ones(len(pairs)),
        "output": torch.eye(len(pairs)),
        "output_bias": torch.zeros(len(pairs)),
    }


def _padded(
    exact: Mapping[str, Float[Tensor, "..."]], n_hidden: int, generator: np.random.Generator
) -> dict[str, Float[Tensor, "..."]]:
    more = n_hidden - len(exact["bias"])
    pad = functional.pad
    return {
        "weight": pad(exact["weight"], (0, 0, 0, more)),
        "bias": pad(exact["bias"], (0, more)),
        "output": pad(exact["output"], (0, more)),
        "output_bias": exact["output_bias"],
    }


def _start(
    n: int, n_hidden: int, n_outputs: int, generator: np.random.Generator
) -> dict[str, Float[Tensor, "..."]]:
    def linear(fan_in: int, *shape: int) -> Tensor:
        uniform = 2 * generator.random(shape, dtype=np.float32) - 1
        return torch.from_numpy(uniform / np.float32(fan_in**0.5))

    return {
        "weight": linear(n, n_hidden, n),
        "bias": linear(n, n_hidden),
        "output": linear(n_hidden, n_outputs, n_hidden),
        "output_bias": linear(n_hidden, n_outputs),
    }
