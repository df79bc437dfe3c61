"""How often a claim is decided falsely at looks: `study`, on tables of random numbers.

The suite's own code judges made-up networks whose true values are known: placed at the end of the acceptance
region, where false verdicts are most frequent, just inside and just outside of it, in its centre, and far
away. Each table has the networks of all looks. A verdict is false if the claim is reproduced while its true
value lies outside the region, or not reproduced while it lies inside; a true value at the very end counts as
both, so that the rate of each is seen.
"""

import functools
import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.statistics import Z, wilson
from common.system.terminal import Terminal
from common.verdicts.claims import Claim, Verdict
from common.verdicts.evaluate import evaluate
from common.verdicts.looks import Looks

Array = NDArray[np.float64]

LOOKS = Looks([16, 48, 160])

WIDTHS = 256 * np.arange(1, 17)
"""Those of the published figure of counts."""

AT_ONCE = 50
"""How many tables are judged at once."""

PLACES = ("far below", "just outside", "at the end", "just inside", "centre")


def slope(table: pd.DataFrame, column: str) -> float:
    """The slope of log mean count on log width.

    Raises:
        ValueError: if a width has no count.
    """
    unit = table["unit"].to_numpy()
    means = np.bincount(unit, weights=table[column].to_numpy()) / np.bincount(unit)
    if not means.all():
        raise ValueError("a width without a count")
    return float(np.polyfit(np.log(WIDTHS), np.log(means), 1)[0])


def is_one(table: pd.DataFrame, column: str) -> NDArray[np.bool_]:
    """Whether each unit is 1."""
    return np.asarray(table[column].to_numpy() == 1)


def without_the_worst(table: pd.DataFrame, column: str) -> float:
    """The mean without the largest."""
    x = table[column].to_numpy()
    return float((x.sum() - x.max()) / (len(x) - 1))


CODE = ModuleType("replications.made_up.looks")
for _function in (slope, is_one, without_the_worst):
    setattr(CODE, _function.__name__, _function)


class Kind(NamedTuple):
    """A kind of claim: how the numbers of one table are drawn around a true value, and what is claimed.

    `end` is the end of the region by which true values are placed, `step` how far just inside and outside are
    from it, and `far` and `centre` are true values plainly outside and inside. `published_error` is the
    standard error of a published number, which is drawn anew for each table. `tables` are drawn at the end,
    where false verdicts are most frequent, and an eighth of them at the other places.
    """

    title: str
    estimate: dict[str, Any]
    draw: Callable[[np.random.Generator, float, int], Array]
    region: tuple[float, float]
    far: float
    end: float
    step: float
    centre: float
    is_fraction: bool = False
    published_error: float = 0.0
    looks: Looks = LOOKS
    tables: int = 4000

    @property
    def true_values(self) -> list[float]:
        """The true value at each of the places; `step` points into the region."""
        return [self.far, self.end - self.step, self.end, self.end + self.step, self.centre]

    def claim(self, generator: np.random.Generator, column: str) -> Claim:
        """The claim on a column, with a published number drawn around the centre of the region."""
        low, high = self.region
        centre, margin = (low + high) / 2, (high - low) / 2
        kind = "fraction" if self.is_fraction else "published" if self.published_error else "theory"
        parts: dict[str, Any] = {"theory": {"value": centre}, "margin": {"value": margin, "rule": "r"}}
        if math.isinf(high):
            parts = {"bound": {"at_least": low, "rule": "r"}}
        if self.published_error:
            value = generator.normal(centre, self.published_error)
            published = {"value": value, "reading_error": Z * self.published_error}
            parts = {"published": published, "margin": {"value": margin, "rule": "r"}}
        return Claim.model_validate(
            {
                "statement": "s",
                "kind": kind,
                "source": {"paper": "p", "where": "w", "read_by": "text"},
                "estimate": {**self.estimate, "args": {"column": column}}
                if self.estimate
                else {"metric": column},
                **parts,
            }
        )


def _normal(generator: np.random.Generator, true: float, seeds: int) -> Array:
    return generator.normal(true, 1.0, seeds)


def _counts(generator: np.random.Generator, true: float, seeds: int) -> Array:
    return generator.poisson(true, seeds).astype(float)


def _mostly_five(generator: np.random.Generator, true: float, seeds: int) -> Array:
    """Numbers on which nearly all seeds agree."""
    return np.asarray(4.0 + (generator.random(seeds) < true - 4))


def _slope_counts(generator: np.random.Generator, true: float, seeds: int) -> Array:
    """Counts at 16 widths, 72 at the smallest and, for a slope of -1.1, 3.4 at the largest."""
    return generator.poisson(72 * (WIDTHS / 256) ** true, (seeds, 16)).astype(float).ravel()


def _bools(generator: np.random.Generator, true: float, seeds: int, units: int = 1) -> Array:
    return (generator.random(seeds * units) < true).astype(float)


def _clustered(generator: np.random.Generator, true: float, seeds: int, units: int = 20) -> Array:
    """Units of a seed have the correlation 1/6."""
    share = np.repeat(generator.beta(5 * true, 5 * (1 - true), seeds), units)
    return (generator.random(seeds * units) < share).astype(float)


def _skewed(generator: np.random.Generator, true: float, seeds: int) -> Array:
    """Numbers of which the mean of ten without the largest is `true`: a shifted exponential distribution."""
    # of ten, the expected largest is the tenth harmonic number, and the sum of all is ten
    below = (10 - sum(1 / i for i in range(1, 11))) / 9
    return np.asarray(generator.exponential(1.0, seeds) + true - below)


METRIC: dict[str, Any] = {}
FRACTION = {"function": "is_one"}
OF_GROUPS = Looks([40, 120, 400])
INF = math.inf

_of_20 = functools.partial(_bools, units=20)
KINDS = {
    "normal": Kind(
        "normal numbers, region of ±0.5 standard deviations",
        METRIC,
        _normal,
        (-0.5, 0.5),
        -1.5,
        -0.5,
        0.05,
        0,
    ),
    "normal_narrow": Kind("the same, ±0.1", METRIC, _normal, (-0.1, 0.1), -0.5, -0.1, 0.02, 0),
    "published": Kind(
        "the same, ±0.5, with a published error of 0.1",
        *(METRIC, _normal, (-0.5, 0.5), -1.5, -0.5, 0.05, 0),
        published_error=0.1,
    ),
    "published_wide": Kind(
        "the same, ±0.5, with a published error of 0.3",
        *(METRIC, _normal, (-0.5, 0.5), -1.5, -0.5, 0.05, 0),
        published_error=0.3,
    ),
    "counts_up": Kind("Poisson counts, from 3 to 6", METRIC, _counts, (3, 6), 1.5, 3, 0.1, 4.5),
    "counts_down": Kind("Poisson counts, from 1 to 3", METRIC, _counts, (1, 3), 4.5, 3, -0.1, 2),
    "counts_small": Kind(
        "Poisson counts, from 0.2 to 0.6", METRIC, _counts, (0.2, 0.6), 1.2, 0.6, -0.05, 0.4
    ),
    "agreeing": Kind(
        "5 in 97 % of networks, otherwise 4, region of ±0.03",
        *(METRIC, _mostly_five, (4.97, 5.03), 4.8, 4.97, 0.02, 5.0),
    ),
    "slope": Kind(
        "log-log slope of Poisson counts, 72 to 3.4, at 16 widths",
        *({"function": "slope"}, _slope_counts, (-1.1, -0.9), -1.3, -1.1, 0.005, -1.0),
        tables=800,
    ),
    "half": Kind(
        "fraction, at least 1/2",
        FRACTION,
        _bools,
        (0.5, INF),
        0.2,
        0.5,
        0.05,
        0.8,
        is_fraction=True,
        tables=1600,
    ),
    "near_one": Kind(
        "fraction, at least 0.95",
        *(FRACTION, _bools, (0.95, INF), 0.7, 0.95, 0.02, 0.995),
        is_fraction=True,
        tables=1600,
    ),
    "units": Kind(
        "fraction, at least 0.95, of 20 units per seed",
        *(FRACTION, _of_20, (0.95, INF), 0.8, 0.95, 0.01, 0.995),
        is_fraction=True,
        tables=1600,
    ),
    "clustered": Kind(
        "the same, units of a seed correlated by 1/6",
        *(FRACTION, _clustered, (0.95, INF), 0.8, 0.95, 0.02, 0.995),
        is_fraction=True,
        tables=1600,
    ),
    "groups": Kind(
        "mean of ten skewed numbers without the largest, in groups",
        *({"function": "without_the_worst", "group": 10}, _skewed, (-0.2, 0.2), -0.6, -0.2, 0.02, 0),
        looks=OF_GROUPS,
    ),
    "groups_fraction": Kind(
        "fraction, at least 0.9, in groups of ten",
        *({**FRACTION, "group": 10}, _bools, (0.9, INF), 0.6, 0.9, 0.02, 0.97),
        is_fraction=True,
        looks=OF_GROUPS,
    ),
}
"""The kinds of claims that are simulated, by name."""


def verdicts(kind: Kind, true: float, tables: int, seed: int) -> dict[Verdict, int]:
    """How often each verdict comes out on so many tables with this true value.

    A table's numbers are a column, and many columns are judged as one table, which is faster.
    """
    generator = np.random.default_rng([seed, tables])
    found = dict.fromkeys(Verdict, 0)
    seeds = kind.looks.seeds[-1]
    for start in range(0, tables, AT_ONCE):
        names = [f"x{i}" for i in range(min(AT_ONCE, tables - start))]
        columns = {name: kind.draw(generator, true, seeds) for name in names}
        units = len(columns["x0"]) // seeds
        places = {"unit": np.tile(np.arange(units), seeds), "seed": np.repeat(np.arange(seeds), units)}
        claims = {name: kind.claim(generator, name) for name in names}
        for outcome in evaluate(claims, CODE, pd.DataFrame(places | columns), looks=kind.looks).values():
            found[outcome.verdict] += 1
    return found


def simulate(name: str, place: int, tables: int) -> dict[str, Any]:
    """A row of the table of results: the verdicts of one kind with the true value at one place."""
    kind = KINDS[name]
    found = verdicts(kind, kind.true_values[place], tables, seed=place)
    shares = {str(verdict): n / tables for verdict, n in found.items()}
    outside, inside = place <= PLACES.index("at the end"), place >= PLACES.index("at the end")
    return {
        "name": name,
        "claim": kind.title,
        "true value": PLACES[place],
        "tables": tables,
        "falsely reproduced": shares[Verdict.REPRODUCED] if outside else math.nan,
        "falsely not reproduced": shares[Verdict.NOT_REPRODUCED] if inside else math.nan,
        **shares,
    }


def study(names: list[str], share: float, workers: int, out: Path, console: Terminal) -> pd.DataFrame:
    """Simulate kinds of claims, and write and print the rates of false verdicts; in `out`/looks.csv too.

    `share` of the tables of each kind are drawn.
    """
    jobs = [(name, place, _tables(name, place, share)) for name in names for place in range(len(PLACES))]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        rows = pd.DataFrame(pool.map(simulate, *zip(*jobs, strict=True)))
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "looks.csv", index=False)
    for line in summary(rows):
        console.print(line, soft_wrap=True)
    return rows


def _tables(name: str, place: int, share: float) -> int:
    at_end = PLACES[place] == "at the end"
    return max(10, round(KINDS[name].tables * share / (1 if at_end else 8)))


def summary(rows: pd.DataFrame) -> Iterator[str]:
    """The rates as lines of Markdown; the bound is 2.5 % for each."""
    rates = "falsely reproduced | falsely not reproduced | inconclusive | undecidable"
    yield f"| claim | true value | tables | {rates} |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows.to_dict("records"):
        false = [_rate(row[key], row["tables"]) for key in ("falsely reproduced", "falsely not reproduced")]
        rest = [f"{row[key]:.0%}" for key in ("inconclusive", "undecidable")]
        yield f"| {' | '.join([row['claim'], row['true value'], str(row['tables']), *false, *rest])} |"


def _rate(rate: float, tables: int) -> str:
    """A rate in per cent, marked where its 95 % interval lies above 2.5 %."""
    if math.isnan(rate):
        return ""
    return f"{rate:.2%}{' (!)' if wilson(rate, tables, Z)[0] > 0.025 else ''}"
