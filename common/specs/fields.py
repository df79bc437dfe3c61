"""The keys of a spec as in its file: `load_fields(path)`, which imports nothing that they name."""

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, PositiveInt, model_validator

from common.specs.document import Document, Strict

_Seed = Annotated[int, Field(ge=0, lt=2**40)]

Seeds = PositiveInt | list[_Seed]

NOT_FACTORS = {"part", "optimizer", "seeds"}
"""The keys of an entry of the sweep that are no factors."""


class ClassSpec(Strict):
    """A class and its arguments, in the format of Lightning's command line."""

    class_path: str
    """The class, as `package.module.Class`."""
    init_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the class by name, checked against its signature."""


class TrainerSpec(Strict):
    """How long each network is trained, and what is logged, which changes no result."""

    max_steps: Annotated[int, Field(gt=0, lt=2**63)]
    """The number of optimiser steps."""
    stop_when_settled: bool = False
    """Stop training once no network's outcome can change any more, according to the model's `settled()`."""
    compile: bool = True
    """Compile loss and gradient: steps are then several times faster. Short runs are faster without
    compiling, which takes up to a minute for each shape of network."""
    logger: ClassSpec | None = None
    """One of Lightning's loggers (`CSVLogger`; `TensorBoardLogger` where tensorboard is installed). While a
    shard is trained, it receives the mean and quantiles of the networks' losses. Each shard has its own
    folder, in `logs/` of the run's folder unless `save_dir` names another."""
    log_every_steps: PositiveInt = 100
    """The number of steps between two log entries."""


DECIDED = "decided"
"""The profile in which each claim gets as many networks as it needs: that of every spec, without a key."""

BUILT_IN = ("full", DECIDED)
"""The profiles that every spec has."""


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text) or text == "full":
        raise ValueError("expected a name of letters, digits, _ and -, other than full")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""The name of a profile or a control: part of a folder's name."""


class Control(Strict):
    """A run that is broken on purpose: what is changed, why, and the claims that it must fail."""

    why: str
    """Why the claims cannot hold in this run."""
    set: dict[str, Any] = Field(min_length=1)
    """What is changed: dotted keys of the spec and their values. Applied last, after profile and `--set`."""
    rejects: list[str] = Field(min_length=1)
    """The names of the claims that this run must fail: on it they must not be reproduced."""

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if any(self.rejects.count(claim) > 1 for claim in self.rejects):
            raise ValueError("rejects names a claim twice; name each once")
        return self


class Limits(Strict):
    """Sizes beyond which a spec is taken for a mistake, before it fills the memory."""

    networks: PositiveInt = 1_000_000
    """The most networks that the sweep may ask for."""
    shapes: PositiveInt = 1_000
    """The most shapes of network, summed over the entries of the sweep."""
    size: PositiveInt = 50_000_000
    """The largest product of the number of features and any integer among the arguments of model and
    features, such as the number of hidden units."""


NOTHING = ClassSpec(class_path="")

MOST_LOOKS = 3


def _looks(seeds: list[int] | None) -> list[int] | None:
    if seeds is None:
        return None
    if not 1 <= len(seeds) <= MOST_LOOKS:
        raise ValueError(f"expected one to {MOST_LOOKS} numbers of seeds")
    if seeds[0] < 2:
        raise ValueError("the first look needs at least 2 seeds, as one seed gives no interval")
    if any(late <= early for early, late in pairwise(seeds)):
        raise ValueError("expected increasing numbers of seeds")
    return seeds


class Fields(Strict):
    """The keys of a spec.

    `features`, `optimizer`, `lr_scheduler` and `trainer` apply to networks that are trained. A model that is
    calculated (the solution of an equation, a construction by hand) has none of them.
    """

    title: str
    """What is replicated, in one line."""
    paper: str
    """The key of the paper in the folder's `citation.bib`."""
    version: PositiveInt
    """Raise it whenever a change of the model's code changes its numbers: results are stored under a hash of
    the spec, and the code is not part of it."""
    code: str
    """The dotted name of the module with the estimates, theory and figures of this replication."""
    plain: str | None = None
    """The dotted name of a module whose `train(rows, steps)` trains the same networks in a plain loop, with
    which `replicate bench` compares."""
    model: ClassSpec
    """The networks: a class derived from `common.ensemble.Ensemble`, or from `common.computed.Computed` where
    nothing is trained."""
    features: ClassSpec = NOTHING
    """The distribution of the inputs: a class derived from `common.features.Features`. Required where
    networks are trained, as are `optimizer` and `trainer`."""
    optimizer: ClassSpec = NOTHING
    """A class derived from `torch.optim.Optimizer`."""
    lr_scheduler: ClassSpec | None = None
    """A learning-rate schedule of torch, advanced after every step; by default the rate is constant."""
    sweep: list[dict[str, Any]] = Field(min_length=1)
    """Which networks are trained: each entry is the product of its factors' values. An entry may have its own
    `optimizer` and `seeds`."""
    seeds: Seeds
    """The number of seeds, from 0 on, or a list of them. Each combination of factors is trained with each.
    More seeds add networks: those that are stored are found again."""
    looks: Annotated[list[PositiveInt] | None, AfterValidator(_looks)] = None
    """The numbers of seeds at which the profile `decided` judges each claim that is still open: increasing,
    at most three, the first at least 2. It takes the seeds 0, 1, 2 and so on, of all entries of the sweep.
    Default: the number of seeds, three times and ten times as many."""
    trainer: TrainerSpec = TrainerSpec(max_steps=1)
    """How long the networks are trained, and what is logged."""
    shard_size: PositiveInt = 4096
    """The most networks that one Trainer run trains."""
    shard_weights: PositiveInt | None = None
    """The most weights that one Trainer run trains; unlimited by default."""
    limits: Limits = Limits()
    """Limits beyond which a spec is refused; they can be raised here."""
    watch: str | None = None
    """A column of the instances table: while a run is in progress, its mean over the finished networks of
    each shape is shown."""
    profiles: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Named variants of the replication: for each, dotted keys of the spec and the values that replace those
    of the full profile. `decided` may be left out: it is then the full profile with more seeds where a claim
    needs them."""
    controls: dict[Name, Control] = Field(default_factory=dict)
    """Named runs that are broken on purpose, each with the claims that it must fail."""


class Range(Strict):
    """`count` values of a factor from `start` to `stop`, both included, evenly spaced as `spacing` says."""

    model_config = ConfigDict(allow_inf_nan=False)

    start: float = Field(alias="from")
    """The first value."""
    stop: float = Field(alias="to")
    """The last value."""
    count: int = Field(ge=2)
    """The number of values, both ends included."""
    spacing: Literal["linear", "log"] = "linear"
    """Whether the values (linear) or their logarithms (log) are evenly spaced."""

    @model_validator(mode="after")
    def _has_logarithms(self) -> Self:
        if self.spacing == "log" and min(self.start, self.stop) <= 0:
            raise ValueError(f"spacing log needs from and to above 0, got {self.start} and {self.stop}")
        return self

    def values(self) -> list[float]:
        """The values, in the order from `start` to `stop`."""
        space = np.geomspace if self.spacing == "log" else np.linspace
        return [float(value) for value in space(self.start, self.stop, self.count)]


def load_fields(path: Path) -> Fields:
    """The keys of the spec in the file `path`, read without importing what it names.

    Raises:
        InputError: for the first key that is unknown, missing or of the wrong type.
    """
    return Document.load(path).validate(Fields)


def n_networks(fields: Fields) -> int:
    """The number of networks that the sweep of a spec asks for."""

    def count(value: Any) -> int:
        if isinstance(value, dict):
            given = value.get("count", 1)
            return given if isinstance(given, int) else 1
        return len(value) if isinstance(value, list) else 1

    def seeds(entry: dict[str, Any]) -> int:
        given = entry.get("seeds", fields.seeds)
        return given if isinstance(given, int) else len(given) if isinstance(given, list) else 1

    points = (math.prod(count(v) for k, v in entry.items() if k not in NOT_FACTORS) for entry in fields.sweep)
    return sum(of * seeds(entry) for of, entry in zip(points, fields.sweep, strict=True))


def listed(seeds: int | list[int]) -> list[int]:
    """The seeds that a spec names: so many from 0 on, or those of its list."""
    return list(range(seeds)) if isinstance(seeds, int) else list(seeds)


class OwnSeeds(Strict):
    """The seeds of one entry of the sweep."""

    seeds: Seeds
