"""Estimates of claims on an instances table, with one seed left out at a time: `estimate_all`.

Seeds are the independent units, because networks with the same seed share their random numbers; where a claim
has an `estimate.group`, groups of seeds are.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.errors import blamed
from common.specs.document import nearest
from common.specs.query import holds
from common.verdicts.claims import Claim, Estimate, is_empirical

Mask = NDArray[np.bool_]

MOST_AT_ONCE = 1_000_000
"""The most numbers from which means are taken at once."""


class Estimated(NamedTuple):
    """An estimate, or the `problem` because of which there is none.

    `samples` are its values with one seed (or group) left out, in the order of the seeds; `units` of a
    fraction are how many were judged, otherwise 0; `agrees`: it is the same whichever is left out, as all of
    them agree; `identical` says that this shows nothing, and why.
    """

    value: float
    samples: list[float]
    seeds: int
    units: int = 0
    agrees: bool = False
    identical: str | None = None
    problem: str | None = None
    grouped: bool = False
    """Whether groups of seeds are left out rather than seeds."""


class Part:
    """Rows of an instances table, and their seeds: shared by all claims that read just these rows."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self.seeds, self._seed, counts = np.unique(
            table["seed"].to_numpy(), return_inverse=True, return_counts=True
        )
        short = np.flatnonzero(counts < counts.max(initial=0))
        self.complete = int(short[0]) if len(short) else len(counts)
        """How many of the first seeds all points of the sweep in these rows have."""
        self._first: dict[int, Part] = {}

    def first(self, n: int) -> "Part":
        """The rows of the first `n` seeds."""
        if n >= len(self.seeds):
            return self
        if n not in self._first:
            self._first[n] = Part(self.table[self._seed < n])
        return self._first[n]

    def without(self, number: int) -> pd.DataFrame:
        """The rows of all seeds but the one with this number."""
        rows: pd.DataFrame = self.table[self._seed != number]
        return rows

    def means_without_each(self, column: str) -> NDArray[np.float64] | None:
        """The mean of a column without each seed; None where that is too much at once."""
        n, rows = len(self.seeds), len(self._seed)
        if self.complete < n or n * rows > MOST_AT_ONCE:
            return None
        left = np.nonzero(self._seed != np.arange(n)[:, None])[1].reshape(n, -1)
        means: NDArray[np.float64] = np.mean(self.table[column].to_numpy()[left], axis=1)
        return means

    def groups(self, size: int) -> list[pd.DataFrame]:
        """The rows of each whole group of `size` consecutive seeds."""
        group = self._seed // size
        order = np.argsort(group, kind="stable")
        ends = np.searchsorted(group[order], np.arange(len(self.seeds) // size + 1))
        ordered = self.table.take(order)
        return [ordered.iloc[start:end] for start, end in pairwise(ends)]


class Parts:
    """The rows of a table that each claim reads."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self._of_query: dict[str | None, Part] = {}
        self._identical: bool | None = None

    def of(self, claim: Claim) -> Part:
        """The rows that an empirical claim reads.

        Raises:
            ValueError: if there are none, or there is no such column.
        """
        estimate = claim.estimate
        if estimate.function is None:
            metric = str(estimate.metric)
            check_column(metric, self.table)
            return Part(self.table.loc[rows_at(estimate, self.table), ["seed", metric]])
        if estimate.rows not in self._of_query:
            table = self.table if estimate.rows is None else self.table[holds(estimate.rows, self.table)]
            self._of_query[estimate.rows] = Part(table)
        return self._of_query[estimate.rows]

    @property
    def identical(self) -> bool:
        """Whether the networks of all seeds are identical: at each point of the sweep all metrics agree."""
        if self._identical is None:
            sweep = [*self.table.columns[: self.table.columns.get_loc("seed")]]
            measured = self.table.drop(columns=[*sweep, "seed"])
            by = measured.groupby([self.table[n] for n in sweep], dropna=False) if sweep else measured
            self._identical = bool((by.nunique(dropna=False) == 1).to_numpy().all())
        return self._identical


def reads(claim: Claim, code: ModuleType, rows: pd.DataFrame) -> Mask:
    """Which `rows` of a sweep a claim reads: with a function and no `rows`, all; for exact theory, none.

    Raises:
        ValueError: if the claim selects rows by a column that is not there, or selects none.
    """
    if not is_empirical(claim, code):
        return np.zeros(len(rows), dtype=bool)
    if claim.estimate.function is None:
        return rows_at(claim.estimate, rows)
    query = claim.estimate.rows
    return np.ones(len(rows), dtype=bool) if query is None else holds(query, rows)


def rows_at(estimate: Estimate, table: pd.DataFrame) -> Mask:
    """Which rows of `table` the `at` of an estimate selects.

    Raises:
        ValueError: if there are none, or there is no such column.
    """
    chosen = np.ones(len(table), dtype=bool)
    for factor, wanted in estimate.at.items():
        check_column(factor, table)
        values = table[factor].to_numpy()
        if values.dtype.kind in "iuf" and not isinstance(wanted, (str, bool)):
            chosen &= np.abs(values - wanted) <= 1e-9 * abs(wanted)
        else:
            chosen &= np.asarray(values == wanted)
    if not chosen.any():
        places = ", ".join(f"{factor} = {wanted}" for factor, wanted in estimate.at.items())
        raise ValueError(f"no row at {places or 'all'}")
    return chosen


def check_column(column: str, table: pd.DataFrame) -> None:
    """Check that the table has a column.

    Raises:
        ValueError: if it has not.
    """
    if column not in table:
        raise ValueError(f"no column {column!r}; {nearest(column, [*map(str, table.columns)])}")


def in_code(code: ModuleType, name: str) -> AbstractContextManager[None]:
    """A context that reports an error in a replication's function `name` in one line."""
    return blamed(f"{name}()", at=file_of(code), after="; what was trained is stored")


def file_of(code: ModuleType) -> str:
    """The file of a module, for messages."""
    return getattr(code, "__file__", None) or code.__name__


def estimate_all(
    claims: Mapping[str, Claim], code: ModuleType, of: Mapping[str, Part], whole: Parts
) -> dict[str, Estimated]:
    """The estimate of each claim on its rows `of` the `whole` table; exact theory needs none.

    Claims on the same rows are estimated together, seed by seed, so that each part of a large table is made
    once.
    """
    together: dict[tuple[Part | None, int | None], dict[str, Claim]] = {}
    for name, claim in claims.items():
        together.setdefault((of.get(name), claim.estimate.group), {})[name] = claim
    found: dict[str, Estimated] = {}
    for (part, group), some in together.items():
        if part is None:
            found |= {name: _exact(claim, code) for name, claim in some.items()}
        elif group is None:
            found |= _Estimation(some, code, part, whole).by_seed()
        else:
            found |= _Estimation(some, code, part, whole).by_group(group)
    return {name: found[name] for name in claims}


def _problem(what: str) -> Estimated:
    return Estimated(math.nan, [], 0, problem=what)


def _exact(claim: Claim, code: ModuleType) -> Estimated:
    with in_code(code, str(claim.estimate.function)):
        try:
            value = float(getattr(code, str(claim.estimate.function))(**claim.estimate.args))
            return Estimated(_finite(value), [], 0)
        except (ValueError, KeyError) as error:
            return _problem(_told(error))


class _Estimation:
    """The estimation of claims on the same rows."""

    def __init__(self, claims: dict[str, Claim], code: ModuleType, part: Part, whole: Parts) -> None:
        self.claims, self.code, self.part, self.whole = claims, code, part, whole
        self.values: dict[str, list[float]] = {name: [] for name in claims}
        self.units: dict[str, int] = {}
        self.problems: dict[str, str] = {}
        # only a function itself knows which rows it takes, and whether it would skip a NaN
        if "loss" in part.table and (lost := int(part.table["loss"].isna().sum())):
            problem = f"{lost} of {len(part.table)} networks diverged"
            self.problems = {name: problem for name, claim in claims.items() if claim.estimate.function}

    def by_seed(self) -> dict[str, Estimated]:
        """The estimates on all rows, and without each seed."""
        seeds = self.part.seeds
        self._add(self.part.table, "")
        if len(self.claims) == 1 and self._add_means():
            return self._estimated(len(seeds), {n: (v[0], v[1:]) for n, v in self.values.items()})
        for number in range(len(seeds)) if len(seeds) > 1 and len(self.problems) < len(self.claims) else ():
            self._add(self.part.without(number), f"without seed {seeds[number]}: ")
        return self._estimated(len(seeds), {n: (v[0], v[1:]) for n, v in self.values.items() if v})

    def _add_means(self) -> bool:
        """Add the means of a metric without each seed, all at once; whether this can be done.

        They are those of one seed after the other, to the bit.
        """
        ((name, claim),) = self.claims.items()
        if claim.estimate.function is not None or self.problems or len(self.part.seeds) < 2:
            return False
        means = self.part.means_without_each(str(claim.estimate.metric))
        if means is None or not np.isfinite(means).all():
            return False
        self.values[name] += means.tolist()
        return True

    def by_group(self, size: int) -> dict[str, Estimated]:
        """The means over groups of the estimates on each; with a single group, as without groups."""
        seeds, groups = self.part.seeds, self.part.groups(size)
        if len(groups) < 2:
            return _Estimation(self.claims, self.code, self.part.first(size), self.whole).by_seed()
        for number, rows in enumerate(groups):
            of_group = seeds[number * size : (number + 1) * size]
            self._add(rows, f"with seeds {of_group[0]} to {of_group[-1]} alone: ")
        n, means = len(groups), {}
        for name, each in self.values.items():
            if name not in self.problems:
                values = np.array(each)
                left_out = (values.sum() - values) / (n - 1) if n > 1 else values[:0]
                means[name] = (float(values.mean()), left_out.tolist())
        # the units of a group may depend on each other in any way: it counts as one
        self.units = {name: n if units else 0 for name, units in self.units.items()}
        return {name: one._replace(grouped=True) for name, one in self._estimated(n * size, means).items()}

    def _add(self, rows: pd.DataFrame, prefix: str) -> None:
        """Add the estimates on `rows` to the values, or the problem that there is."""
        for name, claim in self.claims.items():
            if name in self.problems:
                continue
            with in_code(self.code, str(claim.estimate.function)):
                try:
                    value, units = estimate(claim, self.code, rows)
                    self.values[name].append(_finite(value))
                    self.units.setdefault(name, units)
                except (ValueError, KeyError) as error:
                    self.problems[name] = f"{prefix}{_told(error)}"

    def _estimated(self, seeds: int, values: dict[str, tuple[float, list[float]]]) -> dict[str, Estimated]:
        found = {}
        for name, claim in self.claims.items():
            if name in self.problems:
                found[name] = _problem(self.problems[name])
                continue
            (value, samples), units = values[name], self.units[name]
            agrees = not units and claim.power is None and _is_constant(samples)
            identical = self._why_constant(name, claim, value) if agrees else None
            found[name] = Estimated(value, samples, seeds, units, agrees, identical)
        return found

    def _why_constant(self, name: str, claim: Claim, value: float) -> str | None:
        """Why an estimate that is the same whichever seed is left out cannot be judged, None if seeds agree.

        The networks of all seeds may be identical, or the estimate may not depend on every seed, as with a
        median. Or it compares equal things: a function that returns exactly an end of the region, such as a
        lead of 0.
        """
        if claim.estimate.function and value in claim.region:
            return f"every choice of seeds gives {value:.4g}, exactly an end of the acceptance region"
        if self.whole.identical:
            return "the networks of all seeds are identical: all of their metrics are equal"
        alone = self.values[name] if claim.estimate.group else []
        for _, rows in self.part.table.groupby("seed") if claim.estimate.group is None else ():
            try:
                alone.append(estimate(claim, self.code, rows)[0])
            except (ValueError, KeyError):
                alone.append(math.nan)
        if not np.ptp(alone) <= 1e-12 * np.max(np.abs(alone)):
            why = "single seeds differ: the estimate ignores some seeds"
            return f"every choice of seeds gives the same, but {why}"
        return None


def _is_constant(samples: list[float]) -> bool:
    """Whether the estimate is the same whichever seed is left out."""
    # relative, because equal data can differ in the last digit when summed in another order
    return len(samples) > 1 and bool(np.ptp(samples) <= 1e-12 * np.max(np.abs(samples)))


def estimate(claim: Claim, code: ModuleType, rows: pd.DataFrame) -> tuple[float, int]:
    """The estimate on some of the rows that an empirical claim reads; for a fraction the number of units.

    Raises:
        ValueError: if there is no estimate; and what the function raises.
        TypeError: if the function of a fraction does not return bools.
    """
    if claim.estimate.function is None:
        # numpy's mean, because pandas' would leave out NaN
        return float(np.mean(rows[claim.estimate.metric].to_numpy())), 0
    function = getattr(code, claim.estimate.function)
    result = function(rows, **claim.estimate.args)
    if claim.kind != "fraction":
        return float(result), 0
    judged = np.asarray(result)
    if not judged.size:
        raise ValueError("there are no units to judge")
    if judged.dtype != np.bool_:
        raise TypeError(f"{function.__name__}: a fraction needs a Series of bool, got {judged.dtype}")
    return float(judged.mean()), judged.size


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the estimate is {value}")
    return value


def _told(error: Exception) -> str:
    return f"no {error} in the data" if isinstance(error, KeyError) else str(error)
