"""Published claims, the estimates that test them, and the verdicts: `load_claims`, then `evaluate`.

A verdict is that of an equivalence test (two one-sided tests of 2.5 % each): a claim is reproduced when the
95 % interval of its estimate lies inside the acceptance region, so few seeds can never make a claim pass.
Sources: Schuirmann (1987) for the test, Efron & Tibshirani (1993), chapter 11, for the jackknife.
"""

import functools
import inspect
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, PositiveInt, model_validator
from scipy.special import stdtrit

from common.blame import blamed
from common.document import Document, InputError, Place, Strict, nearest
from common.spec import check_arguments, class_arguments
from common.style import themed

Text = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Interval = tuple[float, float]

Z = 1.959964
"""The 97.5 % quantile of the normal distribution."""

MOST_SEEDS = 1_000_000
"""More seeds than anyone trains: a claim that they would not decide is one that no number decides."""

AGREEING = 6
"""So many seeds must agree before most of all can be said to: from six on, the exact binomial interval of the
share of seeds with this outcome lies above 1/2, as .025^(1/6) = .54 (Clopper & Pearson 1934)."""

_MOST = float(np.finfo(np.float32).max)
"""No estimate is larger: networks are of float32."""

_PARTS = {
    "published": [{"published", "margin"}],
    "theory": [{"theory", "margin"}],
    "ordering": [{"bound"}],
    "fraction": [{"bound"}, {"published", "margin"}],
    "fit": [{"bound", "power"}],
}


class Verdict(StrEnum):
    """The answer to the question whether a claim was reproduced."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


class Source(Strict):
    """Where a claim was published, and how its number was read there."""

    paper: Text
    where: Text
    read_by: Literal["text", "digitised", "derived", "code"]


class Published(Strict):
    """A published number and what is known of its error; what is not known is absent.

    `sd` is over the `n` networks (or runs) behind the number, `reading_error` the 95 % half width of
    reading it off a figure, `resolution` the step of the grid behind it.
    """

    value: Finite
    sd: Positive | None = None
    n: PositiveInt | None = None
    reading_error: Positive | None = None
    resolution: Positive | None = None

    @model_validator(mode="after")
    def _has_sample_size(self) -> Self:
        if self.sd is not None and self.n is None:
            raise ValueError("sd needs n, the number of networks that it is over")
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
    """A value that a theory gives, without error."""

    value: Finite


class Margin(Strict):
    """How far from the value still counts as the same result, and the rule that says so.

    The rule `published_precision` is 2 · 1.96 standard errors of the published number. The interval of the
    difference is at least 1.96 of them wide on each side, so this is the smallest margin at which a same
    result passes with 95 % power when our own error is negligible.
    """

    rule: Text
    value: Positive | None = None

    @model_validator(mode="after")
    def _has_one_value(self) -> Self:
        if (self.rule == "published_precision") != (self.value is None):
            raise ValueError("give either the rule published_precision, or a value with its rule")
        return self


class Bound(Strict):
    """A one-sided acceptance region, and the rule that it follows."""

    rule: Text
    at_least: Finite | None = None
    at_most: Finite | None = None

    @model_validator(mode="after")
    def _has_one_side(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least and at_most")
        return self


class Power(Strict):
    """With how many seeds a goodness-of-fit test sees what it is meant to see, and the rule that says so."""

    seeds: PositiveInt
    rule: Text


class Estimate(Strict):
    """A function of the replication's code, or the mean of a metric over the rows `at` given factors.

    A function whose first parameter is `table` is empirical; for a fraction it returns a Series of bool, one
    entry per unit judged, else a float, and it raises `ValueError` where it cannot be formed. A function
    without `table` is exact theory. An empirical estimate must be smooth in the seeds: for a median or a
    maximum over seeds the jackknife fails (a median over 10 seeds is covered in 75 % of cases, not in 95 %).
    """

    function: Text | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    metric: Text | None = None
    at: dict[str, bool | int | float | str] = Field(default_factory=dict)
    statistic: Literal["mean"] = "mean"

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.function is None) == (self.metric is None):
            raise ValueError("give exactly one of function and metric")
        foreign = {"at", "statistic"} if self.function else {"args"}
        if both := sorted(foreign & self.model_fields_set):
            raise ValueError(f"{both[0]} does not go with {'function' if self.function else 'metric'}")
        return self


class Claim(Strict):
    """One published statement and how it is tested.

    A claim of kind `fit` is that many numbers are all as said. Its estimate is a p-value, and `bound`'s
    at_least the rate of false alarms: below it the claim is not reproduced, above it reproduced if there are
    seeds enough for the test to have seen a difference, as `power` says.

    `profiles` names those that have the networks of this claim; in others it is not judged (default: in all).
    """

    statement: Text
    kind: Literal["published", "theory", "ordering", "fraction", "fit"]
    source: Source
    estimate: Estimate
    published: Published | None = None
    theory: Theory | None = None
    margin: Margin | None = None
    bound: Bound | None = None
    power: Power | None = None
    profiles: list[Text] | None = Field(default=None, min_length=1)
    investigated: Text | None = None

    @model_validator(mode="after")
    def _has_its_parts(self) -> Self:
        parts = ("published", "theory", "margin", "bound", "power")
        given = {part for part in parts if getattr(self, part)}
        if given not in _PARTS[self.kind]:
            wanted = " or ".join(" and ".join(sorted(parts, reverse=True)) for parts in _PARTS[self.kind])
            raise ValueError(f"kind {self.kind} needs {wanted}, got {', '.join(sorted(given)) or 'none'}")
        if self.margin and self.margin.value is None and not self.published_half_width:
            raise ValueError(
                "margin published_precision needs a published error: sd and n, reading_error or resolution"
            )
        if self.kind == "fraction" and self.estimate.metric:
            raise ValueError("kind fraction needs estimate.function, which says of each unit: true or false")
        if self.kind == "fit" and (self.estimate.metric or not self.bound or self.bound.at_least is None):
            raise ValueError("kind fit needs estimate.function, a p-value, and bound.at_least")
        return self

    @model_validator(mode="after")
    def _can_pass_and_fail(self) -> Self:
        low, high = self.region
        least, most = (-_MOST, _MOST) if self.kind not in ("fraction", "fit") else (0.0, 1.0)
        ends = "" if most > 1 else " from 0 to 1"
        if self.bound is None and (low < -_MOST or high > _MOST):
            raise ValueError("the margin reaches beyond all numbers of float32; set a smaller one")
        if low <= least and high >= most:
            raise ValueError(f"any number{ends} is accepted, so the claim cannot fail; set a tighter bound")
        # an interval of a fraction never lies at 0 or 1 alone
        if low >= most or high <= least:
            raise ValueError(f"no number{ends} is accepted, so the claim cannot pass; set a wider bound")
        return self

    @property
    def published_half_width(self) -> float:
        """Half the 95 % interval of the published number, 0 if there is none."""
        return self.published.half_width if self.published else 0.0

    @property
    def region(self) -> Interval:
        """The values that count as reproduced, both ends included."""
        if self.bound is not None:
            low, high = self.bound.at_least, self.bound.at_most
            return (-math.inf if low is None else low, math.inf if high is None else high)
        target = self.published or self.theory
        assert target is not None
        assert self.margin is not None
        margin = 2 * self.published_half_width if self.margin.value is None else self.margin.value
        return (target.value - margin, target.value + margin)


class _ClaimsFile(Strict):
    claims: dict[str, Claim] = Field(min_length=1)


class Claims(dict[str, Claim]):
    """The claims of a replication by name, those of all profiles: what its figures get beside the table."""

    def __missing__(self, name: str) -> Claim:
        raise LookupError(f"no claim {name!r}; {nearest(name, list(self))}")

    def published(self, name: str) -> Published:
        """The published number of a claim.

        Raises:
            LookupError: if there is no such claim, or it has no published number.
        """
        found = self[name].published
        if found is None:
            have = [name for name, claim in self.items() if claim.published]
            raise LookupError(f"claim {name!r} has no published number; {nearest(name, have)}")
        return found


@dataclass(frozen=True)
class Outcome:
    """What became of a claim.

    `low` and `high` are the interval that was judged, widened by the error of the published number (infinite
    if one seed gives none); `samples` are the estimates with one seed left out, in the order of the seeds;
    `more_seeds` would decide an inconclusive claim (None: no number would).
    """

    name: str
    claim: Claim
    value: float
    low: float
    high: float
    region: Interval
    samples: list[float]
    verdict: Verdict
    more_seeds: int | None
    reason: str


def load_claims(path: Path, code: ModuleType) -> Claims:
    """The claims in the file `path`, by name; `code` is the module that has their estimates.

    Raises:
        InputError: for the first mistake, with its file, line and key, and what would be right.
    """
    document = Document.load(path)
    claims = document.validate(_ClaimsFile).claims
    for name, claim in claims.items():
        if claim.estimate.function is not None:
            _check_function(document, ("claims", name, "estimate"), claim, code)
    return Claims(claims)


def n_claims_in(path: Path) -> int:
    """How many claims the file `path` has, read without the code of their estimates.

    Raises:
        InputError: as `load_claims`.
    """
    return len(Document.load(path).validate(_ClaimsFile).claims)


def _check_function(document: Document, place: Place, claim: Claim, code: ModuleType) -> None:
    functions = [n for n, f in vars(code).items() if inspect.isfunction(f) and not n.startswith("_")]
    name = str(claim.estimate.function)
    if name not in functions:
        hint = nearest(name, functions)
        raise document.error((*place, "function"), f"no function {name!r} in {code.__name__}; {hint}")
    if claim.kind in ("fraction", "fit") and not _is_empirical(claim, code):
        raise document.error((*place, "function"), f"kind {claim.kind} needs {name}(table, ...)")
    check_arguments(document, (*place, "args"), class_arguments(getattr(code, name)), claim.estimate.args)


def t_quantile(probability: float, seeds: int) -> float:
    """The quantile of Student's t with seeds - 1 degrees of freedom."""
    return float(stdtrit(seeds - 1, probability))


def jackknife_error(samples: Sequence[float]) -> float:
    """The standard error of an estimate, from its values with one seed left out, at least two of them."""
    deviations = np.asarray(samples) - np.mean(samples)
    return math.sqrt((len(samples) - 1) / len(samples) * float(deviations @ deviations))


def jackknife(value: float, samples: Sequence[float]) -> Interval:
    """The 95 % interval of the estimate `value`, from its values with one seed left out.

    Without two samples there is no interval: it is infinite.
    """
    if len(samples) < 2:
        return (-math.inf, math.inf)
    half = t_quantile(0.975, len(samples)) * jackknife_error(samples)
    return (value - half, value + half)


def wilson(value: float, units: float, quantile: float) -> Interval:
    """Wilson's interval of the fraction `value` of `units`, which need not be a whole number."""
    scale = 1 + quantile**2 / units
    centre = (value + quantile**2 / (2 * units)) / scale
    half = quantile / scale * math.sqrt(value * (1 - value) / units + quantile**2 / (4 * units**2))
    return (centre - half, centre + half)


def fraction_interval(value: float, units: int, samples: Sequence[float]) -> Interval:
    """The 95 % interval of a fraction of `units`: side by side the wider of jackknife and Wilson, in [0, 1].

    The jackknife sees that units of one seed go together, but is too short near 0 and 1 and blind where all
    units agree. Wilson's interval is neither; it counts as many independent units as would have the
    jackknife's error (the effective sample size of Korn & Graubard 1998), and takes the t quantile, as that
    error is estimated.
    """
    low, high = jackknife(value, samples)
    if math.isinf(low):
        return (low, high)
    variance = jackknife_error(samples) ** 2
    independent = min(units, value * (1 - value) / variance) if variance and 0 < value < 1 else units
    score = wilson(value, independent, t_quantile(0.975, len(samples)))
    return (max(0.0, min(low, score[0])), min(1.0, max(high, score[1])))


def widen(value: float, interval: Interval, half_width: float) -> Interval:
    """`interval` of `value` with an independent error of that half width added in quadrature."""
    low, high = interval
    return (value - math.hypot(value - low, half_width), value + math.hypot(high - value, half_width))


def judge(interval: Interval, region: Interval) -> Verdict:
    """Whether `interval` lies inside `region` (ends included), apart from it, or neither."""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return Verdict.INVALID
    if region[0] <= low and high <= region[1]:
        return Verdict.REPRODUCED
    return Verdict.NOT_REPRODUCED if high < region[0] or low > region[1] else Verdict.INCONCLUSIVE


def more_seeds(
    value: float, interval: Interval, seeds: int, half_width: float, region: Interval
) -> int | None:
    """How many seeds beyond `seeds` would decide a claim, None if no number would.

    The estimate is taken to stay, and its `interval` to shrink as t(seeds - 1) / sqrt(seeds); the half width
    of the published number's interval does not shrink.
    """
    if seeds < 2:
        return None
    width = t_quantile(0.975, seeds) / math.sqrt(seeds)

    def decides(n: int) -> bool:
        shrink = t_quantile(0.975, n) / math.sqrt(n) / width
        own = (value - shrink * (value - interval[0]), value + shrink * (interval[1] - value))
        return judge(widen(value, own, half_width), region) is not Verdict.INCONCLUSIVE

    n = bisect_left(range(MOST_SEEDS + 1), True, lo=seeds + 1, key=decides)
    return n - seeds if n <= MOST_SEEDS else None


def evaluate(
    claims: dict[str, Claim], code: ModuleType, table: pd.DataFrame, *, of_control: bool = False
) -> dict[str, Outcome]:
    """The outcome of each claim on the instances `table`, one row per network with its `seed`.

    Seeds are the independent unit: instances of one seed share their random numbers. Where all agree, that is
    an outcome without spread if they are `AGREEING` or more, or `of_control`: what breaks networks on purpose
    may break all in the same way.
    """
    seeds = np.unique(table["seed"])
    values: dict[str, list[float]] = {name: [] for name in claims}
    units: dict[str, int] = {}
    problems: dict[str, str] = {}
    # which rows a function takes it alone knows, and whether it would pass over a NaN
    if "loss" in table and (lost := int(table["loss"].isna().sum())):
        problem = f"{lost} of {len(table)} networks diverged"
        problems = {
            name: problem
            for name, claim in claims.items()
            if claim.estimate.function and _is_empirical(claim, code)
        }
    # seed by seed, not claim by claim: one part of a large table at a time, used for all claims
    for left_out in [None, *(seeds if len(seeds) > 1 else [])]:
        rows = table if left_out is None else table[table["seed"] != left_out]
        for name, claim in claims.items():
            if name in problems or (left_out is not None and not _is_empirical(claim, code)):
                continue
            with _in_code(code, str(claim.estimate.function)):
                try:
                    value, count = _estimate(claim, code, rows)
                    if not math.isfinite(value):
                        raise ValueError(f"the estimate is {value}")
                except (ValueError, KeyError) as error:
                    what = f"no {error} in the data" if isinstance(error, KeyError) else str(error)
                    problems[name] = what if left_out is None else f"without seed {left_out}: {what}"
                else:
                    values[name].append(value)
                    units.setdefault(name, count)
    agreeing = {
        name: _why_constant(claim, code, table, values[name][0])
        for name, claim in claims.items()
        if name not in problems and not units[name] and claim.power is None and _is_constant(values[name])
    }
    if not of_control:
        problems |= {name: why for name, why in agreeing.items() if why}
    return {
        name: _invalid(name, claim, problems[name])
        if name in problems
        else _outcome(
            name,
            claim,
            values[name],
            _interval(values[name], units[name], name in agreeing, of_control, _is_empirical(claim, code)),
            agrees=name in agreeing,
        )
        for name, claim in claims.items()
    }


def _interval(values: list[float], units: int, agrees: bool, of_control: bool, empirical: bool) -> Interval:
    """The 95 % interval of an estimate, without the error of what was published."""
    value, *samples = values
    if units:
        return fraction_interval(value, units, samples)
    if not empirical or (agrees and (of_control or len(samples) >= AGREEING)):
        return (value, value)
    return (-math.inf, math.inf) if agrees else jackknife(value, samples)


def _is_constant(values: list[float]) -> bool:
    """Whether the estimate is the same whichever seed is left out."""
    # relative, as equal data can differ in the last digit when summed in another order
    return len(values) > 2 and bool(np.ptp(values[1:]) <= 1e-12 * np.max(np.abs(values)))


def _why_constant(claim: Claim, code: ModuleType, table: pd.DataFrame, value: float) -> str | None:
    """Why an estimate that is the same whichever seed is left out is no outcome, None if all seeds agree.

    The networks of all seeds may be one and the same, or it may not see each seed, as a median does not. Or
    it compares where nothing differs: a function that gives the very end of a region, such as a lead of 0.
    """
    if claim.estimate.function and value in claim.region:
        return f"every choice of seeds gives {value:.4g}, an end of the region: no spread where it is due"
    sweep = [*table.columns[: table.columns.get_loc("seed")]]
    measured = table.drop(columns=[*sweep, "seed"])
    groups = measured.groupby([table[name] for name in sweep], dropna=False) if sweep else measured
    if bool((groups.nunique(dropna=False) == 1).to_numpy().all()):
        return "the networks of all seeds are one and the same: all that is measured of them is equal"
    alone = []
    for _, rows in table.groupby("seed"):
        try:
            alone.append(_estimate(claim, code, rows)[0])
        except (ValueError, KeyError):
            alone.append(math.nan)
    if not np.ptp(alone) <= 1e-12 * np.max(np.abs(alone)):
        return "every choice of seeds gives the same, and single seeds do not: the estimate does not see each"
    return None


def _is_empirical(claim: Claim, code: ModuleType) -> bool:
    return claim.estimate.function is None or _takes_table(getattr(code, claim.estimate.function))


@functools.cache  # asked for every claim and seed, and a signature takes long to read
def _takes_table(function: Callable[..., object]) -> bool:
    return next(iter(inspect.signature(function).parameters), "") == "table"


def draw(code: ModuleType, table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The figures of a replication by name, as `figures` of its module draws them, in the theme of all.

    Raises:
        InputError: if it cannot.
    """
    with _in_code(code, "figures"), themed():
        figures: dict[str, Figure] = code.figures(table, claims)
        if not isinstance(figures, dict) or not all(isinstance(one, Figure) for one in figures.values()):
            raise InputError(f"{_file(code)}: figures() must return a dict of matplotlib's figures by name")
        for figure in figures.values():
            figure.draw_without_rendering()  # much of a theme, such as the ticks, is read only now
    return figures


def _in_code(code: ModuleType, name: str) -> AbstractContextManager[None]:
    """In which a fault of the function `name` of a replication is told in one line."""
    return blamed(f"{name}()", at=_file(code), after="; what was trained is stored")


def _file(code: ModuleType) -> str:
    return getattr(code, "__file__", None) or code.__name__


def _estimate(claim: Claim, code: ModuleType, table: pd.DataFrame) -> tuple[float, int]:
    """The estimate on `table`, and for a fraction how many units it is of."""
    if claim.estimate.function is None:
        return _mean(claim.estimate, table), 0
    function = getattr(code, claim.estimate.function)
    if not _is_empirical(claim, code):
        return float(function(**claim.estimate.args)), 0
    result = function(table, **claim.estimate.args)
    if claim.kind != "fraction":
        return float(result), 0
    judged = np.asarray(result)
    if not judged.size:
        raise ValueError("no unit to judge")
    if judged.dtype != np.bool_:
        raise TypeError(f"{function.__name__}: a fraction needs a Series of bool, got {judged.dtype}")
    return float(judged.mean()), judged.size


def _mean(estimate: Estimate, table: pd.DataFrame) -> float:
    _check_column(str(estimate.metric), table)
    # numpy's mean, as that of pandas would leave out NaN
    return float(np.mean(table[estimate.metric].to_numpy()[rows_at(estimate, table)]))


def _check_column(column: str, table: pd.DataFrame) -> None:
    if column not in table:
        raise ValueError(f"no column {column!r}; {nearest(column, [*map(str, table.columns)])}")


def rows_at(estimate: Estimate, table: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which rows of `table` the `at` of an estimate says.

    Raises:
        ValueError: if there is none, or no such column.
    """
    chosen = np.ones(len(table), dtype=bool)
    for factor, wanted in estimate.at.items():
        _check_column(factor, table)
        values = table[factor].to_numpy()
        if values.dtype.kind in "iuf" and not isinstance(wanted, (str, bool)):
            chosen &= np.abs(values - wanted) <= 1e-9 * abs(wanted)
        else:
            chosen &= np.asarray(values == wanted)
    if not chosen.any():
        places = ", ".join(f"{factor} = {wanted}" for factor, wanted in estimate.at.items())
        raise ValueError(f"no row at {places or 'all'}")
    return chosen


def _invalid(name: str, claim: Claim, problem: str) -> Outcome:
    nan = math.nan
    return Outcome(name, claim, nan, nan, nan, claim.region, [], Verdict.INVALID, None, problem)


def _outcome(name: str, claim: Claim, values: list[float], own: Interval, *, agrees: bool) -> Outcome:
    value, *samples = values
    if claim.power is not None:
        return _fit_outcome(name, claim, value, samples, claim.power.seeds)
    published, region = claim.published_half_width, claim.region
    interval = widen(value, own, published)
    verdict, more = judge(interval, region), None
    if agrees and math.isinf(own[0]):
        more = AGREEING - len(samples)
        few = f"all {len(samples)} seeds give {value:.4g}, which says little of others"
        reason = f"{few}; {more} more would decide"
        return Outcome(name, claim, value, *interval, region, samples, verdict, more, reason)
    if verdict is Verdict.INCONCLUSIVE:
        more = more_seeds(value, own, len(samples), published, region)
    reason = _reason(value, interval, region, verdict, more)
    if agrees:
        share = 0.025 ** (1 / len(samples))
        reason += f"; all {len(samples)} seeds agree, so more than {share:.0%} of all would"
    return Outcome(name, claim, value, *interval, region, samples, verdict, more, reason)


def _fit_outcome(name: str, claim: Claim, value: float, samples: list[float], seeds_needed: int) -> Outcome:
    verdict, more = judge((value, value), claim.region), None
    seeds = max(len(samples), 1)
    reason = _reason(value, (value, value), claim.region, verdict, None)
    if verdict is Verdict.REPRODUCED and seeds < seeds_needed:
        verdict, more = Verdict.INCONCLUSIVE, seeds_needed - seeds
        reason = f"{value:.4g} is no alarm, but {seeds} seeds show little; {more} more are needed"
    return Outcome(name, claim, value, value, value, claim.region, samples, verdict, more, reason)


def _reason(value: float, interval: Interval, region: Interval, verdict: Verdict, more: int | None) -> str:
    if math.isinf(interval[0]):
        return f"{value:.4g} comes from one seed, which gives no interval"
    shown = f"{value:.4g}" if interval[0] == interval[1] else f"{value:.4g} {_span(interval)}"
    if verdict is Verdict.REPRODUCED:
        return f"{shown} lies inside {_span(region)}"
    if verdict is Verdict.NOT_REPRODUCED:
        return f"{shown} lies outside {_span(region)}"
    cure = "no number of seeds would decide" if more is None else f"about {more} more seeds would decide"
    return f"{shown} reaches across an end of {_span(region)}; {cure}"


def _span(interval: Interval) -> str:
    return f"[{interval[0]:.4g}, {interval[1]:.4g}]"
