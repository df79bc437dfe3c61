"""Estimates of claims on an instances table, and the verdicts that follow: `evaluate`.

A verdict is that of an equivalence test (two one-sided tests of 2.5 % each): a claim is reproduced when the
95 % interval of its estimate lies inside the acceptance region, so few seeds can never make a claim pass.
Source: Schuirmann (1987).
"""

import math
from bisect import bisect_left
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.errors import InputError, blamed
from common.specs.document import nearest
from common.statistics import Interval, fraction_interval, jackknife, t_quantile, widen
from common.style import themed
from common.system.text import counted
from common.verdicts.claims import Claim, Claims, Estimate, Verdict, is_empirical

MOST_SEEDS = 1_000_000
"""More seeds than anyone trains: a claim that this many would not decide counts as undecidable."""


AGREEING = 6
"""How many seeds must agree before most seeds can be said to: from six on, the exact binomial interval of the
share of seeds with this outcome lies above 1/2, as .025^(1/6) = .54 (Clopper & Pearson 1934)."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a claim.

    `low` and `high` are the interval that was judged, widened by the error of the published number (infinite
    if one seed gives none); `samples` are the estimates with one seed left out, in the order of the seeds;
    `more_seeds` would decide an inconclusive claim (None: no number of seeds would).
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


def verdict_of(interval: Interval, region: Interval) -> Verdict:
    """Whether `interval` lies inside `region` (ends included), outside it, or neither."""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return Verdict.INVALID
    if region[0] <= low and high <= region[1]:
        return Verdict.REPRODUCED
    return Verdict.NOT_REPRODUCED if high < region[0] or low > region[1] else Verdict.INCONCLUSIVE


def more_seeds(
    value: float, interval: Interval, seeds: int, half_width: float, region: Interval
) -> int | None:
    """How many seeds beyond `seeds` would decide a claim, None if no number of seeds would.

    The estimate is assumed to stay, and its `interval` to shrink as t(seeds - 1) / sqrt(seeds); the half
    width of the published number's interval does not shrink.
    """
    if seeds < 2:
        return None
    width = t_quantile(0.975, seeds) / math.sqrt(seeds)

    def decides(n: int) -> bool:
        shrink = t_quantile(0.975, n) / math.sqrt(n) / width
        own = (value - shrink * (value - interval[0]), value + shrink * (interval[1] - value))
        return verdict_of(widen(value, own, half_width), region) is not Verdict.INCONCLUSIVE

    n = bisect_left(range(MOST_SEEDS + 1), True, lo=seeds + 1, key=decides)
    return n - seeds if n <= MOST_SEEDS else None


def evaluate(
    claims: dict[str, Claim], code: ModuleType, table: pd.DataFrame, *, of_control: bool = False
) -> dict[str, Outcome]:
    """The outcome of each claim on the instances `table`, one row per network with its `seed`.

    Seeds are the independent units: instances of one seed share their random numbers. Where all seeds agree,
    the outcome has no spread if there are at least `AGREEING` seeds, or if it is `of_control`: what breaks
    networks on purpose may break all of them in the same way.
    """
    seeds = np.unique(table["seed"])
    values: dict[str, list[float]] = {name: [] for name in claims}
    units: dict[str, int] = {}
    problems: dict[str, str] = {}
    # only a function itself knows which rows it takes, and whether it would skip a NaN
    if "loss" in table and (lost := int(table["loss"].isna().sum())):
        problem = f"{lost} of {len(table)} networks diverged"
        problems = {
            name: problem
            for name, claim in claims.items()
            if claim.estimate.function and is_empirical(claim, code)
        }
    # seed by seed, not claim by claim: one part of a large table at a time, used for all claims
    for left_out in [None, *(seeds if len(seeds) > 1 else [])]:
        rows = table if left_out is None else table[table["seed"] != left_out]
        for name, claim in claims.items():
            if name in problems or (left_out is not None and not is_empirical(claim, code)):
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
            _interval(values[name], units[name], name in agreeing, of_control, is_empirical(claim, code)),
            agrees=name in agreeing,
        )
        for name, claim in claims.items()
    }


def _interval(values: list[float], units: int, agrees: bool, of_control: bool, empirical: bool) -> Interval:
    """The 95 % interval of an estimate, without the error of the published number."""
    value, *samples = values
    if units:
        return fraction_interval(value, units, samples)
    if not empirical or (agrees and (of_control or len(samples) >= AGREEING)):
        return (value, value)
    return (-math.inf, math.inf) if agrees else jackknife(value, samples)


def _is_constant(values: list[float]) -> bool:
    """Whether the estimate is the same whichever seed is left out."""
    # relative, because equal data can differ in the last digit when summed in another order
    return len(values) > 2 and bool(np.ptp(values[1:]) <= 1e-12 * np.max(np.abs(values)))


def _why_constant(claim: Claim, code: ModuleType, table: pd.DataFrame, value: float) -> str | None:
    """Why an estimate that is the same whichever seed is left out cannot be judged, None if all seeds agree.

    The networks of all seeds may be identical, or the estimate may not depend on every seed, as with a
    median. Or it compares equal things: a function that returns exactly an end of the region, such as a lead
    of 0.
    """
    if claim.estimate.function and value in claim.region:
        return f"every choice of seeds gives {value:.4g}, exactly an end of the acceptance region"
    sweep = [*table.columns[: table.columns.get_loc("seed")]]
    measured = table.drop(columns=[*sweep, "seed"])
    groups = measured.groupby([table[name] for name in sweep], dropna=False) if sweep else measured
    if bool((groups.nunique(dropna=False) == 1).to_numpy().all()):
        return "the networks of all seeds are identical: all of their metrics are equal"
    alone = []
    for _, rows in table.groupby("seed"):
        try:
            alone.append(_estimate(claim, code, rows)[0])
        except (ValueError, KeyError):
            alone.append(math.nan)
    if not np.ptp(alone) <= 1e-12 * np.max(np.abs(alone)):
        return (
            "every choice of seeds gives the same, but single seeds differ: the estimate ignores some seeds"
        )
    return None


def draw(code: ModuleType, table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The figures of a replication by name, drawn by its module's `figures` in the common theme.

    Raises:
        InputError: if they cannot be drawn.
    """
    with _in_code(code, "figures"), themed():
        figures: dict[str, Figure] = code.figures(table, claims)
        if not isinstance(figures, dict) or not all(isinstance(one, Figure) for one in figures.values()):
            raise InputError(f"{_file(code)}: figures() must return a dict of matplotlib figures by name")
        for figure in figures.values():
            figure.draw_without_rendering()  # much of a theme, such as the ticks, is read only now
    return figures


def _in_code(code: ModuleType, name: str) -> AbstractContextManager[None]:
    """A context that reports an error in a replication's function `name` in one line."""
    return blamed(f"{name}()", at=_file(code), after="; what was trained is stored")


def _file(code: ModuleType) -> str:
    return getattr(code, "__file__", None) or code.__name__


def _estimate(claim: Claim, code: ModuleType, table: pd.DataFrame) -> tuple[float, int]:
    """The estimate on `table`, and for a fraction the number of its units."""
    if claim.estimate.function is None:
        return _mean(claim.estimate, table), 0
    function = getattr(code, claim.estimate.function)
    if not is_empirical(claim, code):
        return float(function(**claim.estimate.args)), 0
    result = function(table, **claim.estimate.args)
    if claim.kind != "fraction":
        return float(result), 0
    judged = np.asarray(result)
    if not judged.size:
        raise ValueError("there are no units to judge")
    if judged.dtype != np.bool_:
        raise TypeError(f"{function.__name__}: a fraction needs a Series of bool, got {judged.dtype}")
    return float(judged.mean()), judged.size


def _mean(estimate: Estimate, table: pd.DataFrame) -> float:
    _check_column(str(estimate.metric), table)
    # numpy's mean, because pandas' would leave out NaN
    return float(np.mean(table[estimate.metric].to_numpy()[rows_at(estimate, table)]))


def _check_column(column: str, table: pd.DataFrame) -> None:
    if column not in table:
        raise ValueError(f"no column {column!r}; {nearest(column, [*map(str, table.columns)])}")


def rows_at(estimate: Estimate, table: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which rows of `table` the `at` of an estimate selects.

    Raises:
        ValueError: if there are none, or there is no such column.
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
    verdict, more = verdict_of(interval, region), None
    if agrees and math.isinf(own[0]):
        more = AGREEING - len(samples)
        few = f"all {len(samples)} seeds give {value:.4g}, which says little about other seeds"
        reason = f"{few}; {more} more would decide"
        return Outcome(name, claim, value, *interval, region, samples, verdict, more, reason)
    if verdict is Verdict.INCONCLUSIVE:
        more = more_seeds(value, own, len(samples), published, region)
    reason = _reason(value, interval, region, verdict, more)
    if agrees:
        share = 0.025 ** (1 / len(samples))
        reason += f"; all {len(samples)} seeds agree, so more than {share:.0%} of all seeds would"
    return Outcome(name, claim, value, *interval, region, samples, verdict, more, reason)


def _fit_outcome(name: str, claim: Claim, value: float, samples: list[float], seeds_needed: int) -> Outcome:
    verdict, more = verdict_of((value, value), claim.region), None
    seeds = max(len(samples), 1)
    reason = _reason(value, (value, value), claim.region, verdict, None)
    if verdict is Verdict.REPRODUCED and seeds < seeds_needed:
        verdict, more = Verdict.INCONCLUSIVE, seeds_needed - seeds
        reason = (
            f"p = {value:.4g} raises no alarm, but {seeds_needed} seeds are needed to detect a difference"
        )
        reason += f"; {more} more would decide"
    return Outcome(name, claim, value, value, value, claim.region, samples, verdict, more, reason)


def _reason(value: float, interval: Interval, region: Interval, verdict: Verdict, more: int | None) -> str:
    if math.isinf(interval[0]):
        return f"{value:.4g} comes from one seed, which gives no interval"
    shown = f"{value:.4g}" if interval[0] == interval[1] else f"{value:.4g} {_span(interval)}"
    if verdict is Verdict.REPRODUCED:
        return f"{shown} lies inside {_span(region)}"
    if verdict is Verdict.NOT_REPRODUCED:
        return f"{shown} lies outside {_span(region)}"
    cure = (
        "no number of seeds would decide"
        if more is None
        else f"about {counted(more, 'more seed')} would decide"
    )
    return f"{shown} lies partly inside {_span(region)}; {cure}"


def _span(interval: Interval) -> str:
    return f"[{interval[0]:.4g}, {interval[1]:.4g}]"
