"""What the hidden neurons of a network on two inputs do, read from its weights.

A neuron is a ReLU of the distance from a line in the plane of the inputs, times a strength. The four half
diagonals are numbered by quadrant: 0 at 45 degrees, 1 at 135, 2 at 225, 3 at 315. On 0 and 2 a neuron sees
u = (x + y) / sqrt 2, on 1 and 3 v = (x - y) / sqrt 2; x y = (u^2 - v^2) / 2.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from common.metrics import polysemantic_neurons, superposition_by_rank

KINKED_WITHIN = 2.5
"""The data hardly reach a kink further from 0 than this, in standard deviations of the inputs."""

STRONG = 0.05
"""A neuron weaker than this share of the strongest one does not count."""

RESPONDS = 0.1
"""The relative threshold of the metrics of polysemanticity."""


class Neurons(NamedTuple):
    """strength * relu(cos(angle) x + sin(angle) y - kink) for each neuron.

    The angle is in degrees, from 0 to 360; the strength has the sign of the output weight.
    """

    angle: Float[Tensor, "instances neurons"]
    kink: Float[Tensor, "instances neurons"]
    strength: Float[Tensor, "instances neurons"]

    @property
    def strong(self) -> Bool[Tensor, "instances neurons"]:
        """Whether each neuron counts."""
        size = self.strength.abs()
        return size > STRONG * size.amax(dim=1, keepdim=True)

    @property
    def kinked(self) -> Bool[Tensor, "instances neurons"]:
        """Whether each neuron is strong and bends where data are; only then is its direction meaningful."""
        return self.strong & (self.kink.abs() < KINKED_WITHIN)

    @property
    def always_on(self) -> Bool[Tensor, "instances neurons"]:
        """Whether each neuron is strong and is on for nearly all data, so that it is a linear term."""
        return self.strong & (self.kink <= -KINKED_WITHIN)

    @property
    def quadrant(self) -> Int[Tensor, "instances neurons"]:
        """The half diagonal that is nearest to each neuron's direction: integers from 0 to 3."""
        return (self.angle // 90).long() % 4

    @property
    def off_diagonal(self) -> Float[Tensor, "instances neurons"]:
        """The angle between each neuron's direction and the nearest half diagonal, in degrees."""
        return (self.angle % 90 - 45).abs()


def read(weights: Mapping[str, Float[Tensor, "instances ..."]]) -> Neurons:
    """The neurons of each network; `weights` as in `population_loss`, the output bias is not used."""
    weight, bias, output = (weights[name].detach().double() for name in ("weight", "bias", "output"))
    length = torch.linalg.vector_norm(weight, dim=2)
    angle = torch.rad2deg(torch.atan2(weight[:, :, 1], weight[:, :, 0])) % 360
    return Neurons(angle, -bias / length.clamp(min=1e-30), output * length)


def geometry(neurons: Neurons) -> dict[str, Shaped[Tensor, "instances"]]:
    """The geometry of the kinked neurons of each network, by name.

    `kinked_neurons`, `always_on_neurons`: how many there are. `smallest_angle`, `largest_angle`: of a kinked
    neuron to the nearest diagonal, in degrees. `near_diagonal_neurons`: kinked ones within 1 degree.
    `half_diagonals`: how many are the nearest of a kinked neuron; `both_diagonals`: whether x + y and x - y
    both are. `right_signs`: kinked neurons that add to the output on x + y, and take from it on x - y.
    `mean_kink`, `mean_scale`: of |kink| and of |strength| over the kinked neurons. `polysemantic_neurons`,
    `superposition`: by `common.metrics`, the latter by rank, of the input weights times the size of
    the output weight. Without a kinked neuron, means and angles are NaN.
    """
    kinked, quadrant = neurons.kinked, neurons.quadrant
    count = kinked.sum(dim=1)
    used = torch.stack([(kinked & (quadrant == q)).any(dim=1) for q in range(4)], dim=1)
    right = (neurons.strength > 0) == (quadrant % 2 == 0)
    smallest = torch.where(kinked, neurons.off_diagonal, torch.inf).amin(dim=1)
    largest = torch.where(kinked, neurons.off_diagonal, -torch.inf).amax(dim=1)
    radians = torch.deg2rad(neurons.angle)
    effects = neurons.strength[:, :, None] * torch.stack([radians.cos(), radians.sin()], dim=2)
    return {
        "kinked_neurons": count,
        "always_on_neurons": neurons.always_on.sum(dim=1),
        "smallest_angle": torch.where(count > 0, smallest, torch.nan),
        "largest_angle": torch.where(count > 0, largest, torch.nan),
        "near_diagonal_neurons": (kinked & (neurons.off_diagonal <= 1)).sum(dim=1),
        "half_diagonals": used.sum(dim=1),
        "both_diagonals": (used[:, 0] | used[:, 2]) & (used[:, 1] | used[:, 3]),
        "right_signs": (kinked & right).sum(dim=1),
        "mean_kink": torch.where(kinked, neurons.kink.abs(), 0.0).sum(dim=1) / count,
        "mean_scale": torch.where(kinked, neurons.strength.abs(), 0.0).sum(dim=1) / count,
        "polysemantic_neurons": polysemantic_neurons(effects, RESPONDS),
        "superposition": superposition_by_rank(effects, RESPONDS),
    }


def piecewise_square(
    neurons: Neurons, u: Float[Tensor, "points"], diagonal: int
) -> Float[Tensor, "instances points"]:
    """The function f of u that the kinked neurons nearest to one diagonal form.

    On diagonal 0 it is that of u = (x + y) / sqrt 2, at v = 0; on diagonal 1 minus that of v, at u = 0. So
    the network is f_0(u) - f_1(v), apart from a constant, neurons that are always on, and what neurons off
    the diagonals add.
    """
    direction = 45.0 if diagonal == 0 else 315.0
    along = torch.cos(torch.deg2rad(neurons.angle - direction))
    near = neurons.kinked & (neurons.quadrant % 2 == diagonal)
    strength = torch.where(near, neurons.strength, 0.0) * (1 - 2 * diagonal)
    # a neuron that is dead has its kink at infinity, and 0 times that is no number
    kink = torch.where(near, neurons.kink, 0.0)
    hidden = torch.relu(along[:, :, None] * u - kink[:, :, None])
    return (strength[:, :, None] * hidden).sum(dim=1)


def shape(neurons: Neurons) -> dict[str, Float[Tensor, "instances"]]:
    """How even f is and how close to a square, on normal data: means over both diagonals.

    `odd_part`: the root mean square of f's odd part over the standard deviation of f. `square_fit`: the share
    of f's variance that the best a u^2 + b explains, R^2. NaN where a diagonal has no kinked neuron.
    """
    u = torch.linspace(-6, 6, 481, dtype=torch.float64, device=neurons.angle.device)
    probability = torch.softmax(-(u**2) / 2, dim=0)
    odd, fit = [], []
    for diagonal in (0, 1):
        f = piecewise_square(neurons, u, diagonal)
        f = f - (f @ probability)[:, None]
        variance = f.square() @ probability
        odd.append((((f - f.flip(1)) / 2).square() @ probability / variance).sqrt())
        square = u**2 - u**2 @ probability
        fit.append((f * square @ probability) ** 2 / variance / (square.square() @ probability))
    return {"odd_part": (odd[0] + odd[1]) / 2, "square_fit": (fit[0] + fit[1]) / 2}
