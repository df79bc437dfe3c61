"""Published claims, as written in the files in `expected/`."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, PositiveInt, model_validator

from common.specs.document import Document, Place, Strict, nearest
from common.specs.query import names_in, refuse_code
from common.statistics import Interval, Z
from common.verdicts.grid import expand

Text = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _query(text: str) -> str:
    refuse_code(text)
    if "seed" in names_in(text):
        raise ValueError("rows cannot select seeds: a claim is judged on as many as it needs")
    return text


Query = Annotated[str, AfterValidator(_query)]


_MOST = float(np.finfo(np.float32).max)
"""No estimate is larger: networks compute in float32."""

PARTS = {
    "published": [{"published", "margin"}],
    "theory": [{"theory", "margin"}],
    "ordering": [{"bound"}],
    "fraction": [{"bound"}, {"published", "margin"}],
    "fit": [{"bound", "power"}],
}
"""The keys that a claim of each kind needs beyond those of every claim: one of these sets."""


class Verdict(StrEnum):
    """Whether a claim was reproduced.

    More seeds may decide an inconclusive claim. An undecidable one they cannot: the published number is known
    too imprecisely.
    """

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    UNDECIDABLE = "undecidable"
    INVALID = "invalid"


class Source(Strict):
    """Where a claim was published, and how its number was read there."""

    paper: Text
    """The key of the paper in the folder's `citation.bib`."""
    where: Text
    """The section, figure or table."""
    read_by: Literal["text", "digitised", "derived", "code"]
    """How it was read: stated in the text, digitised from a figure, or taken from published code. `derived`
    marks a claim that this suite makes, not the paper; the two are counted separately."""


class Published(Strict):
    """A published number and what is known about its error; leave out what is not known."""

    value: Finite
    """The number."""
    sd: Positive | None = None
    """The standard deviation over the networks (or runs) behind the number; needs `n`."""
    n: PositiveInt | None = None
    """How many networks (or runs) the number is a mean of."""
    reading_error: Positive | None = None
    """The half width of the 95 % interval of reading the number off a figure."""
    resolution: Positive | None = None
    """The step of the grid behind the number."""

    @model_validator(mode="after")
    def _has_sample_size(self) -> Self:
        if self.sd is not None and self.n is None:
            raise ValueError("sd needs n, the number of networks (or runs) that it was computed from")
        return self

    @property
    def error(self) -> float:
        """The standard error; the grid's error is uniform over one step, so its sd is step / sqrt(12)."""
        sampling = (self.sd or 0) / math.sqrt(self.n or 1)
        return math.hypot(sampling, (self.reading_error or 0) / Z, (self.resolution or 0) / math.sqrt(12))

    @property
    def half_width(self) -> float:
        """Half the 95 % interval."""
        return Z * self.error


class Theory(Strict):
    """A value that theory predicts, without error."""

    value: Finite
    """The number."""


class Margin(Strict):
    """The half width of the acceptance region around a published or theoretical value, and its reason.

    The rule `published_precision` is 2 · 1.96 standard errors of the published number. The interval of the
    difference is at least 1.96 of them wide on each side, so this is the smallest margin at which an equal
    result passes with 95 % power when our own error is negligible.
    """

    rule: Text
    """Where the margin comes from: `published_precision`, or the reason in words."""
    value: Positive | None = None
    """The half width; leave it out with the rule `published_precision`."""

    @model_validator(mode="after")
    def _has_one_value(self) -> Self:
        if (self.rule == "published_precision") != (self.value is None):
            raise ValueError(
                "give either the rule published_precision without a value, or a value with its own rule"
            )
        return self


class Bound(Strict):
    """A one-sided acceptance region, and its reason."""

    rule: Text
    """Where the bound comes from, in words."""
    at_least: Finite | None = None
    """The lower end of the acceptance region."""
    at_most: Finite | None = None
    """The upper end of the acceptance region; give exactly one of the two."""

    @model_validator(mode="after")
    def _has_one_side(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least and at_most")
        return self


class Power(Strict):
    """How many seeds a goodness-of-fit test needs to detect what it is meant to detect, and the reason."""

    seeds: PositiveInt
    """How many seeds the test needs."""
    rule: Text
    """How that number was found, in words."""


class Estimate(Strict):
    """A function of the replication's code, or the mean of a metric over the rows at given factor values.

    A function whose first parameter is `table` is empirical; for a fraction it returns a Series of bool, one
    entry per unit judged, otherwise a float; it raises `ValueError` where there is no estimate. A function
    without `table` is exact theory. An empirical estimate must be smooth in the seeds: the jackknife fails
    for a median or a maximum over seeds (its interval covers a median over 10 seeds in 75 % of cases, not 95
    %).
    """

    function: Text | None = None
    """The name of a function in the replication's code."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the function by name, other than the table."""
    rows: Query | None = None
    """With `function`: a condition on the factors, such as `part == 'cuts'`. The function gets only the rows
    for which it holds, and the profile `decided` trains more networks only there. Default: all rows."""
    group: PositiveInt | None = None
    """With `function`: take the seeds in groups of so many consecutive ones, give the function each whole
    group alone, and take the mean over groups. Groups are then the units of the interval. For published rules
    such as the mean of ten networks without the worst, which no choice among all seeds estimates."""
    metric: Text | None = None
    """A column of the instances table; give exactly one of `function` and `metric`."""
    at: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """With `metric`: the factor values that select the rows."""
    statistic: Literal["mean"] = "mean"
    """With `metric`: the statistic over the rows."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.function is None) == (self.metric is None):
            raise ValueError("give exactly one of function and metric")
        foreign = {"at", "statistic"} if self.function else {"args", "rows", "group"}
        if both := sorted(foreign & self.model_fields_set):
            raise ValueError(f"{both[0]} cannot be combined with {'function' if self.function else 'metric'}")
        return self


class Claim(Strict):
    """One published statement and how it is tested.

    A claim of kind `fit` says that many numbers all agree with what was published. Its estimate is a p-value,
    and `bound.at_least` is the false-alarm rate: below it the claim is not reproduced; above it the claim is
    reproduced if there are enough seeds for the test to detect a difference, as `power` says.
    """

    statement: Text
    """What was published, in one line that can be read on its own."""
    kind: Literal["published", "theory", "ordering", "fraction", "fit"]
    """What the estimate is compared with; it decides which other keys are needed."""
    source: Source
    """Where the statement was published."""
    estimate: Estimate
    """What is computed from our networks."""
    published: Published | None = None
    """The published number."""
    theory: Theory | None = None
    """The value that theory predicts."""
    margin: Margin | None = None
    """How far the acceptance region reaches on either side of that number."""
    bound: Bound | None = None
    """The one end of an acceptance region that is open on the other side."""
    power: Power | None = None
    """For kind `fit`: how many seeds the test needs."""
    profiles: list[Text] | None = Field(default=None, min_length=1)
    """The profiles that have the networks of this claim; it is not judged in the others. Default: all."""
    investigated: Text | None = None
    """What is known about why a claim was not reproduced."""

    @model_validator(mode="after")
    def _has_its_parts(self) -> Self:
        parts = ("published", "theory", "margin", "bound", "power")
        given = {part for part in parts if getattr(self, part)}
        if given not in PARTS[self.kind]:
            wanted = " or ".join(" and ".join(sorted(parts, reverse=True)) for parts in PARTS[self.kind])
            raise ValueError(f"kind {self.kind} needs {wanted}, got {', '.join(sorted(given)) or 'none'}")
        if self.margin and self.margin.value is None and not self.published_half_width:
            raise ValueError(
                "the margin rule published_precision needs the error of the published number: "
                "sd and n, reading_error or resolution"
            )
        if self.kind == "fraction" and self.estimate.metric:
            raise ValueError(
                "kind fraction needs estimate.function, which returns true or false for each unit"
            )
        if self.kind == "fit" and (self.estimate.metric or not self.bound or self.bound.at_least is None):
            raise ValueError("kind fit needs estimate.function, which returns a p-value, and bound.at_least")
        if self.kind == "fit" and self.estimate.group:
            raise ValueError("kind fit cannot be combined with estimate.group: a mean of p-values is none")
        return self

    @model_validator(mode="after")
    def _can_pass_and_fail(self) -> Self:
        low, high = self.region
        least, most = (-_MOST, _MOST) if self.kind not in ("fraction", "fit") else (0.0, 1.0)
        ends = "" if most > 1 else " from 0 to 1"
        if self.bound is None and (low < -_MOST or high > _MOST):
            raise ValueError(
                "the acceptance region reaches beyond the range of float32; set a smaller margin"
            )
        if low <= least and high >= most:
            problem = f"the acceptance region holds every number{ends}, so the claim cannot fail"
            raise ValueError(f"{problem}; set a tighter bound")
        # the interval of a fraction is never 0 or 1 alone
        if low >= most or high <= least:
            problem = (
                f"no interval of numbers{ends} fits into the acceptance region, so the claim cannot pass"
            )
            raise ValueError(f"{problem}; set a wider bound")
        return self

    @property
    def published_half_width(self) -> float:
        """Half the 95 % interval of the published number, 0 if there is none."""
        return self.published.half_width if self.published else 0.0

    @property
    def region(self) -> Interval:
        """The acceptance region: the values that count as the same result, both ends included.

        The margin around the published or theoretical value, or what lies on one side of the bound.
        """
        if self.bound is not None:
            low, high = self.bound.at_least, self.bound.at_most
            return (-math.inf if low is None else low, math.inf if high is None else high)
        target = self.published or self.theory
        assert target is not None
        assert self.margin is not None
        margin = 2 * self.published_half_width if self.margin.value is None else self.margin.value
        return (target.value - margin, target.value + margin)


class ClaimsFile(Strict):
    """The claims of one replication: the content of `expected/PAPER/RESULT.yaml`."""

    claims: dict[str, Claim] = Field(min_length=1)
    """The claims by name."""


class Claims(dict[str, Claim]):
    """The claims of a replication by name, in all profiles: passed to its figures with the table."""

    def __missing__(self, name: str) -> Claim:
        raise LookupError(f"no claim {name!r}; {nearest(name, list(self))}")

    def published(self, name: str) -> Published:
        """The published number of a claim.

        Raises:
            LookupError: if there is no such claim, or it has no published number.
        """
        number = self[name].published
        if number is None:
            have = [name for name, claim in self.items() if claim.published]
            raise LookupError(f"claim {name!r} has no published number; {nearest(name, have)}")
        return number


def claims_document(path: Path) -> Document:
    """The file `path` with every claim of a grid (`for:`) written out.

    Raises:
        InputError: if it is not YAML, or for the first mistake in a grid.
    """
    return expand(Document.load(path), Claim.model_fields)


def read_claims(document: Document) -> Claims:
    """The claims in a document, by name; the code of their estimates is not needed.

    Raises:
        InputError: for the first mistake, with its file, line and key.
    """
    return Claims(document.validate(ClaimsFile).claims)


def check_functions(document: Document, claims: Mapping[str, Claim], code: ModuleType) -> None:
    """Check that the module `code` has the functions that estimate the `claims` of `document`.

    Raises:
        InputError: for the first function that is missing, or does not take its arguments.
    """
    for name, claim in claims.items():
        if claim.estimate.function is not None:
            _check_function(document, ("claims", name, "estimate"), claim, code)


def _check_function(document: Document, place: Place, claim: Claim, code: ModuleType) -> None:
    from common.specs.arguments import check_arguments, class_arguments  # which import torch

    functions = [n for n, f in vars(code).items() if inspect.isfunction(f) and not n.startswith("_")]
    name = str(claim.estimate.function)
    if name not in functions:
        hint = nearest(name, functions)
        raise document.error((*place, "function"), f"no function {name!r} in {code.__name__}; {hint}")
    if claim.kind in ("fraction", "fit") and not is_empirical(claim, code):
        raise document.error((*place, "function"), f"kind {claim.kind} needs {name}(table, ...)")
    for key in ("rows", "group"):
        if getattr(claim.estimate, key) is not None and not is_empirical(claim, code):
            raise document.error((*place, key), f"needs {name}(table, ...)")
    check_arguments(document, (*place, "args"), class_arguments(getattr(code, name)), claim.estimate.args)


def is_empirical(claim: Claim, code: ModuleType) -> bool:
    """Whether a claim is estimated from the instances table; otherwise it is exact theory."""
    return claim.estimate.function is None or _takes_table(getattr(code, claim.estimate.function))


@functools.cache  # called for every claim and seed, and a signature takes long to read
def _takes_table(function: Callable[..., object]) -> bool:
    return next(iter(inspect.signature(function).parameters), "") == "table"
