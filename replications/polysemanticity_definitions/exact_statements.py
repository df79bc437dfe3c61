"""Exact statements about how many features fit into few dimensions: theory, estimates and the figure.

The table has one row per statement, size and seed, with the columns of `ExactStatement.metrics`; those of
other statements are NaN. Functions without `table` are exact: they need no samples.
Source: Chan 2024; bounds on packings by Rankin 1955, as derived in `least_largest_product`.
"""

from typing import Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binom, chi2

from common.statistics import jackknife, wilson
from common.style import BLUE, GREY, INK, ORDERED, RED
from common.verdicts.claims import Claims
from replications.polysemanticity_definitions.exact_statements_model import (
    EPSILON,
    N_PAIRS,
    N_POINTS,
    TAIL_FROM,
    bits_of,
    extract_bits,
    frame,
    largest_product,
    recovery_error,
)

Array = NDArray[np.float64]
Regime = Literal["negative", "zero", "positive"]

ATTAINED_WITHIN = 1e-4
ROUNDING = 1e-9
RECOVERED_WITHIN = 1e-12


# --- features with zero interference


def frame_error(largest_n: int) -> float:
    """The largest error of ReLU(V V^T x) over one-hot x, features +-e_i, 1 to `largest_n` dimensions."""
    return max(recovery_error(frame(n)) for n in range(1, largest_n + 1))


def recovered(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each rotated frame reconstructs all one-hot x."""
    return _of(table, "frame")["recovery_error"] < RECOVERED_WITHIN


# --- nearly orthogonal directions


def tail(n: int, epsilon: Array | float) -> Array:
    """The probability that two random corners have a product of at least each epsilon > 0 in size.

    The signs of n products agree or not with probability 1/2 each: u.v = 1 - 2 H / n, H binomial.
    """
    return np.asarray(2 * binom.cdf(np.floor(n * (1 - np.asarray(epsilon)) / 2 + ROUNDING), n, 0.5))


def tail_bound(n: int, epsilon: Array | float) -> Array:
    """Hoeffding's bound of `tail`."""
    return np.asarray(2 * np.exp(-(np.asarray(epsilon) ** 2) * n / 2))


def tail_over_bound(largest_n: int) -> float:
    """The largest ratio of `tail` to its bound, up to `largest_n` dimensions and at all values above 0."""
    largest = 0.0
    for n in range(1, largest_n + 1):
        products = np.arange(2 - n % 2, n + 1, 2) / n
        largest = max(largest, float((tail(n, products) / tail_bound(n, products)).max()))
    return largest


def many(n: int) -> float:
    """How many nearly orthogonal vectors there are with high probability: exp(epsilon^2 n / 4)."""
    return float(np.exp(EPSILON**2 * n / 4))


def union_bound(n: int) -> float:
    """An upper bound on the probability that two corners are not nearly orthogonal: pairs times `tail`."""
    count = np.ceil(many(n))
    return float(count * (count - 1) / 2 * tail(n, EPSILON))


def all_nearly_orthogonal(table: pd.DataFrame, n: int) -> "pd.Series[bool]":
    """Whether the first exp(epsilon^2 n / 4) corners of each seed are all nearly orthogonal."""
    return pd.Series(_of(table, "corners", n)["log_vectors"].to_numpy() >= np.log(many(n)))


def growth(table: pd.DataFrame) -> float:
    """By how much the mean log number of corners before a large product grows per dimension: a line's slope.

    Raises:
        ValueError: with fewer than two numbers of dimensions.
    """
    mean = _of(table, "corners").groupby("n")["log_vectors"].mean()
    if len(mean) < 2:
        raise ValueError("n: a slope needs two numbers of dimensions")
    return float(np.polyfit(mean.index.to_numpy(float), mean.to_numpy(), 1)[0])


def mean_log_vectors(n: int) -> float:
    """The mean log number of corners before the first large product, for many dimensions.

    Of k corners k^2 / 2 pairs are large with probability q each, nearly independently: k^2 q / 2 at the first
    is exponential with mean 1, and the mean of its logarithm is -gamma.
    """
    return float((np.log(2 / tail(n, EPSILON)) - np.euler_gamma) / 2)


def tail_fit(table: pd.DataFrame, n: int) -> float:
    """The p-value of a chi-squared test that the counts of products by size follow the exact tail."""
    counts, pairs = large_pairs(table, n)
    probability = np.concatenate([[1.0], tail(n, np.array(TAIL_FROM)), [0.0]])
    observed = -np.diff([pairs, *counts, 0])
    expected = -np.diff(probability) * pairs
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


def large_pairs(table: pd.DataFrame, n: int) -> tuple[NDArray[np.int64], int]:
    """How many pairs of corners have a product of at least each of `TAIL_FROM` in size, and of how many."""
    rows = _of(table, "corners", n)
    counts = rows[[f"large_pairs_{i}" for i in range(len(TAIL_FROM))]].sum().to_numpy()
    return counts.round().astype(np.int64), len(rows) * N_PAIRS


# --- how many vectors have products below a threshold


def least_largest_product(n: int, count: int) -> float:
    """A lower bound of the largest product of `count` unit vectors in n dimensions; attained up to 2n.

    Let products be at most t, and s = |sum v|^2 >= 0. Any number: s <= count + count (count - 1) t. From
    n + 2 on: two disjoint sets have the same weighted sum, with weights above 0 (Radon); its square is a sum
    of products between the sets, so not all are below 0. From 2n + 1 on: (v.w - t)(v.w + 1) <= 0 for
    different ones, and the sum f of (v.w)^2 over all pairs, both orders and itself, is at least count^2 / n,
    so count^2 / n - t count^2 <= f + (1 - t) s - t count^2 <= 2 count (1 - t).
    """
    if count <= n + 1:
        return -1 / (count - 1)
    return max(0.0, (count - 2 * n) / (n * (count - 2)))


def simplex_error(largest_n: int) -> float:
    """The largest deviation from -1/n of a product of the n + 1 vectors of a simplex, n up to `largest_n`.

    They are the n + 1 unit vectors of one dimension more, less their mean, at length 1.
    """
    error = 0.0
    for n in range(1, largest_n + 1):
        vectors = np.eye(n + 1) - 1 / (n + 1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        products = vectors @ vectors.T + np.eye(n + 1) * (-1 / n - 1)
        error = max(error, float(np.abs(products + 1 / n).max()))
    return error


def frame_largest_product(largest_n: int) -> float:
    """The largest product of two of the 2n vectors +-e_i, n from 1 to `largest_n`."""
    return max(largest_product(frame(n)) for n in range(2, largest_n + 1))


def attained(table: pd.DataFrame, regime: Regime) -> "pd.Series[bool]":
    """Whether each search ends at `least_largest_product`, of those where that is of this sign."""
    rows, least = _packings(table, regime)
    return (rows["largest_product"] - least).abs() < ATTAINED_WITHIN


def not_passed(table: pd.DataFrame, regime: Regime) -> "pd.Series[bool]":
    """Whether each search stays above `least_largest_product`, of those where that is of this sign."""
    rows, least = _packings(table, regime)
    return rows["largest_product"] - least > -ROUNDING


def _packings(table: pd.DataFrame, regime: Regime) -> tuple[pd.DataFrame, Array]:
    rows = _of(table, "packing")
    sizes = list(zip(rows["n"].tolist(), rows["n_vectors"].tolist(), strict=True))
    bound = {size: least_largest_product(int(size[0]), int(size[1])) for size in set(sizes)}
    least = np.array([bound[size] for size in sizes])
    chosen = np.sign(least) == {"negative": -1, "zero": 0, "positive": 1}[regime]
    return rows[chosen], least[chosen]


# --- bit extraction


def wrong_points(most_bits: int, offset: float = 0.0) -> float:
    """How many of all points k 2^-r, r from 1 to `most_bits`, have a wrong bit.

    Args:
        most_bits: the largest r
        offset: added to each k
    """
    wrong = 0
    for r in range(1, most_bits + 1):
        points = np.arange(2**r)
        bits = extract_bits((points + offset) / 2.0**r, r)
        wrong += int((bits != bits_of(points, r)).any(axis=1).sum())
    return float(wrong)


def right(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each random point has all its bits right."""
    rows = _of(table, "bits")
    right_points = rows["right_points"].to_numpy()
    return pd.Series((np.arange(N_POINTS) < right_points[:, None]).ravel())


def _of(table: pd.DataFrame, statement: str, n: int | None = None) -> pd.DataFrame:
    rows = table[(table["statement"] == statement) & (True if n is None else table["n"] == n)]
    if rows.empty:
        raise ValueError(f"n: no {statement} with n = {n}" if n else f"statement: no {statement}")
    return rows


# --- the figure


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The tail, the number of nearly orthogonal corners, the packings, and the first bit."""
    figure = Figure(figsize=(7.4, 6.4))
    panels = figure.subplots(2, 2)
    statements = set(table["statement"])
    if "corners" in statements:
        _draw_tail(panels[0, 0], table)
        _draw_many(panels[0, 1], table)
    if "packing" in statements:
        _draw_packings(panels[1, 0], table)
    _draw_first_bit(panels[1, 1], 4)
    for axes in panels.flat:
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return {"exact_statements": figure}


def _draw_tail(axes: Axes, table: pd.DataFrame) -> None:
    """Samples, the exact tail and its bound, for each number of dimensions."""
    line = np.linspace(0, 0.62, 200)
    dimensions = sorted(_of(table, "corners")["n"].unique())
    shown = [dimensions[0], dimensions[-1]] if len(dimensions) > 1 else dimensions
    for n, colour in zip(shown, (BLUE, RED), strict=False):
        axes.plot(line, np.minimum(1, tail_bound(n, line)), color=colour, linewidth=0.9, linestyle="--")
        steps = np.arange(2 - n % 2, 0.62 * n, 2) / n
        axes.plot(steps, tail(n, steps), color=colour, label=f"n = {n}, exact")
        counts, pairs = large_pairs(table, n)
        share = counts / pairs
        low, high = np.array([wilson(s, pairs, 1.96) for s in share]).T
        seen = counts > 0
        error = np.stack([share - low, high - share])[:, seen]
        axes.errorbar(np.array(TAIL_FROM)[seen], share[seen], error, fmt="o", color=colour, elinewidth=1)
    axes.plot([], [], color=GREY, linewidth=0.9, linestyle="--", label="bound, 2 exp(-ε²n/2)")
    axes.plot([], [], "o", color=GREY, label="samples, 95 % interval")
    axes.set(yscale="log", ylim=(1e-7, 2), xlabel="ε", ylabel="P(|u·v| ≥ ε) of random corners")


def _draw_many(axes: Axes, table: pd.DataFrame) -> None:
    """How many corners there are before the first large product, against exp(epsilon^2 n / 4)."""
    rows = _of(table, "corners")
    axes.set_yscale("log")
    sns.stripplot(
        x=rows["n"], y=np.exp(rows["log_vectors"]), native_scale=True, color=BLUE, alpha=0.35, size=3,
        ax=axes,
    )  # fmt: skip
    axes.plot([], [], ".", color=BLUE, alpha=0.35, label="one seed")
    dimensions = np.sort(rows["n"].unique())
    for n in dimensions:
        at = rows[rows["n"] == n]
        value = float(at["log_vectors"].mean())
        samples = [
            float(at.loc[at["seed"] != s, "log_vectors"].mean()) for s in at["seed"].unique() if len(at) > 1
        ]
        low, high = jackknife(value, samples)
        mean, *ends = np.exp([value, low, high] if np.isfinite(low) else [value] * 3)
        label = "geometric mean, 95 % interval" if n == dimensions[-1] else None
        error = [[mean - ends[0]], [ends[1] - mean]]
        axes.errorbar(n, mean, error, fmt="o", color=INK, capsize=2, zorder=4, label=label)
    exact = [np.exp(mean_log_vectors(n)) for n in dimensions]
    axes.plot(dimensions, exact, color=BLUE, label="from the exact tail")
    line = np.arange(rows["n"].min() - 8, rows["n"].max() + 9)
    axes.plot(line, [many(n) for n in line], "--", color=RED, label="exp(ε²n/4)")
    axes.set(xlabel="Dimensions, n", ylabel=f"Corners before the first |u·v| ≥ {EPSILON}")


def _draw_packings(axes: Axes, table: pd.DataFrame) -> None:
    """The largest product that each search ended with, against the number of vectors, and the bound."""
    rows = _of(table, "packing")
    dimensions = sorted(rows["n"].unique())
    for n, colour in zip(dimensions, sns.color_palette(ORDERED, len(dimensions)), strict=True):
        at = rows[rows["n"] == n]
        counts = np.arange(2, at["n_vectors"].max() + 1)
        axes.plot(at["n_vectors"], at["largest_product"], "o", color=colour, alpha=0.5)
        least = [least_largest_product(n, int(count)) for count in counts]
        axes.plot(counts, least, color=colour, label=f"n = {n}")
    axes.plot([], [], "o", color=GREY, label="searches")
    axes.plot([], [], color=GREY, label="smallest possible (beyond 2n, a bound)")
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.set(xlabel="Number of unit vectors", ylabel="Largest product of two vectors")


def _draw_first_bit(axes: Axes, n_bits: int) -> None:
    """The first bit by ReLUs, on the grid and between its points."""
    x = np.linspace(0, 1, 801)[:-1]
    grid = np.arange(2**n_bits) / 2**n_bits
    axes.plot(x, extract_bits(x, n_bits)[:, 0], label="first bit, by ReLUs")
    axes.plot(grid, extract_bits(grid, n_bits)[:, 0], "o", color=INK, label="multiples of 2⁻⁴")
    axes.set(xlabel="x", ylabel="First of 4 bits")
