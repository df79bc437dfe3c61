"""Networks on sets of correlated or anticorrelated features, with their exact loss.

Source: Elhage et al. 2022, arXiv 2209.10652, "Correlated or anticorrelated feature directions".
"""

import itertools
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from common.features import Density, Factors, Features, Inputs, Varying
from replications.toy_models_of_superposition import plane
from replications.toy_models_of_superposition.model import ToyModel

LARGEST = 6
"""Networks with more features get no population loss: the sum over the sets that are on is too long."""


class RelatedSets(Features):
    """Sets of features that are on together, or of which one at a time is on.

    Related, they are those of `CorrelatedSets` and `AnticorrelatedSets`. Else they are independent, with the
    same density per feature: the control, which the same compiled function serves.
    Source: as above, "Setting".

    Args:
        n_features: features, in sets of equal size next to each other
        set_size: features of a set
        density: the probability that a set is on
        anticorrelated: exactly one feature of a set that is on, in place of all
        related: whether the features of a set depend on each other
        batch_size: inputs in a batch
    """

    def __init__(
        self,
        n_features: int,
        set_size: Annotated[int, Field(ge=2)],
        density: Varying[Density],
        anticorrelated: bool = False,
        related: Varying[bool] = True,
        batch_size: int = 1024,
    ) -> None:
        super().__init__(n_features, batch_size, {"density": density, "related": related})
        if n_features % set_size:
            raise ValueError(f"set_size: expected a divisor of n_features = {n_features}, got {set_size}")
        self.set_size = set_size
        self.anticorrelated = anticorrelated
        self.structure = (set_size, "anticorrelated" if anticorrelated else "correlated")

    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances batch"]]:
        """See `Features.sample`."""
        density, related = factors["density"], factors["related"] > 0
        scale = (self.set_size if self.anticorrelated else 1) / density
        inputs = []
        for i, own in enumerate(uniforms):
            member = i % self.set_size
            decides = torch.where(related, uniforms[i - member], own) if member else own
            place = decides * scale
            if self.anticorrelated:
                place = place - related * member
                inputs.append(torch.where((place >= 0) & (place < 1), place, 0.0))
            else:
                value = torch.where(related, own, place) if member else place
                inputs.append(torch.where(decides < density, value, 0.0))
        return inputs


class PairedModel(ToyModel):
    """The toy model with importance 1, and its exact loss among the metrics.

    Args:
        features: the sets
        seeds: for each instance the seed of its start weights and data
        n_hidden: hidden dimensions, m in the paper
        batched: the start is that of so many networks in one tensor, the smaller the more there are, as the
            authors' notebook applies Xavier's rule to all three axes; 0: the rule for each network
        shuffled: a control: the trained weights under the names of other features, so that no real pair is
            called a pair
    """

    def __init__(
        self,
        features: RelatedSets,
        seeds: Sequence[int],
        n_hidden: Annotated[int, Field(ge=1)],
        batched: Annotated[int, Field(ge=0)] = 0,
        shuffled: bool = False,
    ) -> None:
        super().__init__(features, seeds, n_hidden)
        if batched:
            fans, of_tensor = n_hidden + features.n_features, n_hidden * (features.n_features + batched)
            with torch.no_grad():
                self.weights["weight"] *= (fans / of_tensor) ** 0.5
        self.sets = features
        n_sets = features.n_features // features.set_size
        names = torch.arange(features.n_features)
        self.order = names.reshape(n_sets, -1).T.flatten() if shuffled else names

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """The weights and what W^T W is like; in the plane, collapsed pairs; of few features, the loss."""
        weight, bias = self.weights["weight"].detach(), self.weights["bias"].detach()
        named = weight[:, :, self.order]
        found = {"weight": named, "bias": bias[:, self.order], **overlaps(named, self.sets.set_size)}
        if weight.shape[1] == 2:
            collapsed = plane.collapsed(named.cpu().double().numpy()).sum(axis=1)
            found["collapsed_pairs"] = torch.from_numpy(collapsed)
        if self.sets.n_features > LARGEST:
            return found
        density, related = self.factors["density"], self.factors["related"][:, 0] > 0
        loss = torch.empty(len(weight), device=weight.device)
        one = self.sets.anticorrelated
        loss[related] = population_loss(
            weight[related], bias[related], density[related], self.sets.set_size, one
        )
        alone = density[~related] / (self.sets.set_size if one else 1)
        loss[~related] = population_loss(weight[~related], bias[~related], alone, 1)
        return {**found, "population_loss": loss}


def overlaps(
    weight: Float[Tensor, "instances hidden features"], set_size: int
) -> dict[str, Float[Tensor, "instances"]]:
    """Measures of each network's W^T W.

    `diagonal` is the mean of its diagonal, `cosine_in_sets` the root mean square of the cosines between
    features of a set, `share_between_sets` that of the squared entries off its diagonal between the sets.

    Args:
        weight: of each network
        set_size: features of a set, at least 2
    """
    overlap = weight.mT @ weight
    diagonal = overlap.diagonal(dim1=1, dim2=2)
    of_set = torch.arange(weight.shape[2], device=weight.device) // set_size
    between = of_set[:, None] != of_set[None, :]
    off = ~torch.eye(weight.shape[2], dtype=torch.bool, device=weight.device)
    square = overlap**2
    square_cosine = square / (diagonal[:, :, None] * diagonal[:, None, :])
    return {
        "diagonal": diagonal.mean(dim=1),
        "cosine_in_sets": square_cosine[:, off & ~between].mean(dim=1).sqrt(),
        "share_between_sets": square[:, between].sum(dim=1) / square[:, off].sum(dim=1),
    }


def population_loss(
    weight: Float[Tensor, "instances hidden features"],
    bias: Float[Tensor, "instances features"],
    density: Float[Tensor, "instances 1"],
    set_size: int,
    anticorrelated: bool = False,
    points: int = 1024,
    chunk: int = 256,
) -> Float[Tensor, "instances"]:
    """Each network's mean loss over all inputs: the exact sum over which features are on.

    The mean over their values is one over a Sobol net, the same for all networks.

    Args:
        weight: of each network
        bias: of its output
        density: the probability that a set is on
        set_size: features of a set
        anticorrelated: exactly one feature of a set that is on, in place of all
        points: size of the net
        chunk: instances at a time
    """
    n_features = weight.shape[2]
    net = torch.quasirandom.SobolEngine(n_features, scramble=True, seed=0)  # type: ignore[no-untyped-call]
    values = net.draw(points).T.to(weight)
    on = torch.eye(set_size) if anticorrelated else torch.ones(1, set_size)
    states = [torch.zeros(set_size), *on]
    total = torch.zeros(len(weight), device=weight.device)
    for choice in itertools.product(range(len(states)), repeat=n_features // set_size):
        x = torch.cat([states[k] for k in choice]).to(weight)[:, None] * values
        n_on = sum(k > 0 for k in choice)
        probability = (density[:, 0] / len(on)) ** n_on * (1 - density[:, 0]) ** (len(choice) - n_on)
        for start in range(0, len(weight), chunk):
            some = slice(start, start + chunk)
            output = torch.relu(weight[some].mT @ (weight[some] @ x) + bias[some, :, None])
            total[some] += probability[some] * (x - output).square().mean(dim=(1, 2))
    return total
