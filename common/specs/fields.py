"""The keys of a spec as they stand in its file: `load_fields(path)`, which imports nothing they name."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, PositiveInt, model_validator

from common.specs.document import Document, Strict

_Seed = Annotated[int, Field(ge=0, lt=2**63)]


NOT_FACTORS = {"part", "optimizer"}


class ClassSpec(Strict):
    """A class and its arguments, as Lightning's command line writes them."""

    class_path: str
    init_args: dict[str, Any] = Field(default_factory=dict)


class TrainerSpec(Strict):
    """How long each network is trained, in optimiser steps, or less if its outcome is settled before.

    Compiling takes up to a minute for each shape of network, and then steps are several times faster.
    A logger gets the mean and quantiles of the losses every so many steps; it changes no result.
    """

    max_steps: Annotated[int, Field(gt=0, lt=2**63)]
    stop_when_settled: bool = False
    compile: bool = True
    logger: ClassSpec | None = None
    log_every_steps: PositiveInt = 100


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text) or text == "full":
        raise ValueError("expected a name of letters, digits, _ and -, other than full")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""What a profile or a control is called: part of a folder's name."""


class Control(Strict):
    """A run broken on purpose: what is set, why, and the claims that must then not be reproduced."""

    why: str
    set: dict[str, Any] = Field(min_length=1)
    rejects: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if any(self.rejects.count(claim) > 1 for claim in self.rejects):
            raise ValueError("rejects names a claim twice; name each once")
        return self


class Limits(Strict):
    """What is taken for a mistake when a spec asks for more, before it fills the memory.

    `networks`: of the sweep. `shapes`: of network, those of each entry of the sweep counted by themselves.
    `size`: the features times any whole number that model and features are given, such as the hidden units.
    """

    networks: PositiveInt = 1_000_000
    shapes: PositiveInt = 1_000
    size: PositiveInt = 50_000_000


NOTHING = ClassSpec(class_path="")


class Fields(Strict):
    """The keys of a spec; a calculated model has none of features, optimizer, lr_scheduler, trainer."""

    title: str
    paper: str
    version: PositiveInt
    code: str
    plain: str | None = None
    model: ClassSpec
    features: ClassSpec = NOTHING
    optimizer: ClassSpec = NOTHING
    lr_scheduler: ClassSpec | None = None
    sweep: list[dict[str, Any]] = Field(min_length=1)
    seeds: PositiveInt | list[_Seed]
    trainer: TrainerSpec = TrainerSpec(max_steps=1)
    shard_size: PositiveInt = 4096
    shard_weights: PositiveInt | None = None
    limits: Limits = Limits()
    watch: str | None = None
    profiles: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    controls: dict[Name, Control] = Field(default_factory=dict)


class Range(Strict):
    """`count` values of a factor from `start` to `stop`, both included, evenly spaced on the axis named."""

    model_config = ConfigDict(allow_inf_nan=False)

    start: float = Field(alias="from")
    stop: float = Field(alias="to")
    count: int = Field(ge=2)
    spacing: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _has_logarithms(self) -> Self:
        if self.spacing == "log" and min(self.start, self.stop) <= 0:
            raise ValueError(f"spacing log needs from and to above 0, got {self.start} and {self.stop}")
        return self

    def values(self) -> list[float]:
        """The values, ascending or descending as `start` and `stop` say."""
        space = np.geomspace if self.spacing == "log" else np.linspace
        return [float(value) for value in space(self.start, self.stop, self.count)]


def load_fields(path: Path) -> Fields:
    """The keys of the spec in the file `path`, read without importing what it names.

    Raises:
        InputError: for the first key that is unknown, missing or of another type.
    """
    return Document.load(path).validate(Fields)


def n_networks(fields: Fields) -> int:
    """How many networks the sweep of a spec asks for."""

    def count(value: Any) -> int:
        if isinstance(value, dict):
            given = value.get("count", 1)
            return given if isinstance(given, int) else 1
        return len(value) if isinstance(value, list) else 1

    sizes = (math.prod(count(v) for k, v in entry.items() if k not in NOT_FACTORS) for entry in fields.sweep)
    return sum(sizes) * (fields.seeds if isinstance(fields.seeds, int) else len(fields.seeds))
