"""Input distributions: what the networks see, made from uniform random numbers that instances can share."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from pydantic import Field
from torch import Tensor
from torch.utils.data import IterableDataset

T = TypeVar("T")
VARYING = "may differ between the instances of one ensemble"
Varying = Annotated[T | Shaped[Tensor, "instances"], VARYING]
"""An argument that may differ between the instances of one ensemble: one value for all, or a tensor."""

Factors = Mapping[str, Float[Tensor, "instances 1"]]
"""The values of varying arguments, by name."""

Inputs = Sequence[Float[Tensor, "#instances batch"]]
"""A tensor for each feature: sums over the few features are written out and compiled into one loop."""

Density = Annotated[float, Field(gt=0, le=1)]
"""The probability that a feature is not zero, p = 1 - S."""

STREAMS = {"start": 0, "training": 1, "evaluation": 2}

_CPU = torch.device("cpu")


def generator(stream: str, seed: int) -> np.random.Generator:
    """The random numbers of one seed for one purpose, the same on every machine and device.

    On a CPU, numpy's SFC64 generates float32 uniforms several times as fast as torch's generator; the numbers
    are drawn there and moved, because a GPU's own stream differs between GPU models.
    """
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((STREAMS[stream], seed))))


class Features(ABC):
    """A distribution of inputs, as a function of independent uniform random numbers.

    Instances with one seed share the uniforms whatever their factors (common random numbers): the difference
    between two of them then shows the effect of the factor, not of the sample.
    """

    def __init__(
        self, n_features: int, batch_size: int, factors: Mapping[str, float | Shaped[Tensor, "instances"]]
    ) -> None:
        if n_features < 1:
            raise ValueError(f"n_features: expected at least 1, got {n_features}")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.n_features = n_features
        self.batch_size = batch_size
        self.factors = dict(factors)
        self.n_uniforms = n_features
        self.structure: tuple[int | str, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Whether both make the same inputs from the same uniforms and factors, by one compiled function."""
        return isinstance(other, Features) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return (type(self), self.n_features, self.n_uniforms, self.structure)

    @abstractmethod
    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances batch"]]:
        """The inputs, a tensor for each feature: a pure function that is compiled.

        It may depend on `n_features` and on what the class put into `structure`, but on nothing else in
        `self`.

        Args:
            uniforms: independent uniform numbers on [0, 1), `self.n_uniforms` tensors
            factors: the varying arguments, by name
        """


class Independent(Features):
    """Features independent of each other: zero with probability 1 - density, otherwise uniform on [0, 1].

    One uniform u serves both: u < p has probability p, and given that, u/p is uniform on [0, 1].
    Source: Elhage et al. 2022, "Experiment setup".
    """

    def __init__(self, n_features: int, density: Varying[Density], batch_size: int = 1024) -> None:
        super().__init__(n_features, batch_size, {"density": density})

    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances batch"]]:
        """See `Features.sample`."""
        density = factors["density"]
        scale = 1 / density
        return [torch.where(u < density, u * scale, 0.0) for u in uniforms]


class _Sets(Features):
    """Features in sets of equal size, next to each other; the sets are independent of each other."""

    def __init__(self, n_features: int, set_size: int, density: Varying[Density], batch_size: int) -> None:
        super().__init__(n_features, batch_size, {"density": density})
        if set_size < 1 or n_features % set_size:
            raise ValueError(f"set_size: expected a divisor of n_features = {n_features}, got {set_size}")
        self.set_size = set_size
        self.structure = (set_size,)


class CorrelatedSets(_Sets):
    """Sets whose features are on together: all zero with probability 1 - density, else uniform on [0, 1].

    The first uniform u of a set decides: if u < p they are on, and u/p is the first feature; each other
    feature has its own uniform.
    Source: Elhage et al. 2022, "Setting" of the section on correlated features.
    """

    def __init__(
        self, n_features: int, set_size: int, density: Varying[Density], batch_size: int = 1024
    ) -> None:
        super().__init__(n_features, set_size, density, batch_size)

    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances batch"]]:
        """See `Features.sample`."""
        density = factors["density"]
        scale = 1 / density
        inputs = []
        for i, own in enumerate(uniforms):
            member = i % self.set_size
            first = uniforms[i - member]
            inputs.append(torch.where(first < density, own if member else own * scale, 0.0))
        return inputs


class AnticorrelatedSets(_Sets):
    """Sets of which one feature is on at a time: with probability density exactly one, chosen uniformly.

    That feature is uniform on [0, 1], and the density of each feature is density / set_size. A set has one
    uniform u: if u < p, the integer part of u set_size / p is the feature's number, and the fractional part
    its value.
    Source: Elhage et al. 2022, "Setting" of the section on correlated features.
    """

    def __init__(
        self, n_features: int, set_size: int, density: Varying[Density], batch_size: int = 1024
    ) -> None:
        super().__init__(n_features, set_size, density, batch_size)
        self.n_uniforms = n_features // set_size

    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances batch"]]:
        """See `Features.sample`."""
        scale = self.set_size / factors["density"]
        inputs = []
        for u in uniforms:
            place = u * scale
            inputs += [
                torch.where((place >= k) & (place < k + 1), place - k, 0.0) for k in range(self.set_size)
            ]
        return inputs


class Basis(Features):
    """The whole standard basis e_1 ... e_n in every batch: nothing is random, so no uniforms are drawn.

    Source: Lecomte et al. 2023, "Setup".
    """

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features, n_features, {})
        self.n_uniforms = 0

    def sample(self, uniforms: Inputs, factors: Factors) -> list[Float[Tensor, "instances batch"]]:
        """Nothing: with weights W, the hidden layer of this batch is W itself."""
        return []


class Draws(IterableDataset[Tensor]):
    """Endless batches of uniforms for some seeds, each with `n_uniforms` rows for each seed.

    Args:
        features: the distribution that uses the uniforms
        seeds: each has its own stream
        stream: the purpose, a key of `STREAMS`
        skip: the number of batches to leave out at the start
        device: where the batches are wanted; those of several steps move there in one copy
    """

    # steps drawn in one call, so that the cost of a call is small; even, for `fill_uniform`
    BLOCK = 32

    def __init__(
        self,
        features: Features,
        seeds: Sequence[int],
        stream: str = "training",
        skip: int = 0,
        device: torch.device = _CPU,
    ) -> None:
        self.shape = (self.BLOCK, features.n_uniforms, features.batch_size)
        self.seeds = list(seeds)
        self.stream = stream
        self.skip = skip
        self.device = device

    def __iter__(self) -> Iterator[Float[Tensor, "draws batch"]]:
        """Start every seed's stream at its beginning, and draw what is skipped: SFC64 cannot jump ahead."""
        generators = [generator(self.stream, seed) for seed in self.seeds]
        blocks, first = divmod(self.skip, self.BLOCK)
        for g in generators:
            g.bit_generator.random_raw(blocks * math.prod(self.shape) // 2, output=False)
        batches = (
            self._here(generators, first) if self.device.type == "cpu" else self._there(generators, first)
        )
        yield from batches

    def _here(
        self, generators: Sequence[np.random.Generator], first: int
    ) -> Iterator[Float[Tensor, "draws batch"]]:
        """The batches on the CPU, without the `first` of a block."""
        # reused, because allocating and clearing new memory takes as long as drawing
        drawn = np.empty((len(generators), *self.shape), np.float32)
        while True:
            _fill(drawn, generators)
            for step in range(first, self.BLOCK):
                yield torch.from_numpy(drawn[:, step].copy().reshape(-1, self.shape[2]))
            first = 0

    def _there(
        self, generators: Sequence[np.random.Generator], first: int
    ) -> Iterator[Float[Tensor, "draws batch"]]:
        """The batches on another device, without the `first` of a block: one copy per block, not waited for.

        A GPU copies from pinned memory while the CPU goes on. Torch gives that memory out again only after
        the copy has been made, so each block takes new memory and nothing here waits.
        """
        shape, pinned = (len(generators), *self.shape), self.device.type == "cuda" and self.shape[1] > 0
        while True:
            drawn = torch.empty(shape, device="cpu", pin_memory=pinned)
            _fill(drawn.numpy(), generators)
            # steps first, so that each batch is a view: nothing is launched for a step
            block = drawn.to(self.device, non_blocking=True).transpose(0, 1).contiguous().flatten(1, 2)
            yield from block[first:]
            first = 0


def _fill(drawn: Float32[np.ndarray, "seeds ..."], generators: Sequence[np.random.Generator]) -> None:
    """Fill each seed's part of `drawn` from its generator."""
    for generator, out in zip(generators, drawn, strict=True):
        fill_uniform(generator, out)


def fill_uniform(generator: np.random.Generator, out: Float32[np.ndarray, "..."]) -> None:
    """Fill `out`, of even size, with the numbers of `generator.random(dtype=float32)`, in half the time.

    That makes one number at a time, from 32 bits of which it drops 8; this makes all at once.
    """
    bits = generator.bit_generator.random_raw(out.size // 2).astype("<u8", copy=False).view("<u4")
    bits >>= np.uint32(8)
    np.copyto(out.reshape(-1), bits.view("<i4"), casting="unsafe")  # signed: faster to convert
    out *= np.float32(2**-24)


class Blocks(IterableDataset[Iterator[Tensor]]):
    """The batches of some steps, several in a block; each is drawn when it is used.

    Args:
        batches: at least one per step
        steps: the numbers of the steps
        ends: a block ends before each step that is a multiple of one of these, and only there
    """

    def __init__(self, batches: Iterable[Tensor], steps: range, ends: Sequence[int]) -> None:
        self.batches = batches
        self.steps = steps
        self.ends = ends

    def __iter__(self) -> Iterator[Iterator[Tensor]]:
        """Yield blocks, each of which must be used up before the next one."""
        batches = iter(self.batches)
        first = self.steps.start
        while first < self.steps.stop:
            last = min(self.steps.stop, *(first - first % end + end for end in self.ends))
            yield itertools.islice(batches, last - first)
            first = last
