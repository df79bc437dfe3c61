"""Instances that are calculated, not trained: the solution of an equation, or a construction by hand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Shaped
from torch import Tensor


class Computed(ABC):
    """The base class of a spec's `model` where nothing is trained; the spec has no features and no optimizer.

    Args:
        seeds: for each instance, the seed of its random numbers
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)

    @abstractmethod
    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """What is kept for each instance, by name."""
