"""The collapse of correlated pairs as density increases: estimates and the figures.

The table has one row per trained network, with its density p (the probability that a pair is on) and the
columns of `correlated_features_model.PairedModel.metrics`. A pair has collapsed when its two features, both
learned, lie less than 30 degrees apart. Of each group of seeds the best network is the one with the lowest
population loss.
Source: Elhage et al. 2022, arXiv 2209.10652, "Correlated or anticorrelated feature directions".
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.style import BLUE, GREY, ORANGE, RED, number
from common.verdicts.claims import Claims
from replications.toy_models_of_superposition import plane
from replications.toy_models_of_superposition.plane import Array

PUBLISHED = {
    "none": (0.0, 0.05),
    "one": (0.05, 0.15),
    "two": (0.15, 0.2),
    "three": (0.25, 0.5),
    "pca": (0.5, 1.0),
}
"""The published ranges of density, all "approximately", by how many pairs have collapsed."""

RANGES = {
    "none": (0.0, 0.025), "one": (0.075, 0.125), "two": (0.175, 0.175), "three": (0.275, 0.475),
    "pca": (0.525, 0.975),
}  # fmt: skip
"""These ranges, half a printed step of 0.05 inside their ends. At p = 1 a pair's features are independent."""

NUMBER = {"none": 0, "one": 1, "two": 2, "three": 3}
MERGED = 2 * plane.OFF
GROUP = 64


class Networks(NamedTuple):
    """Some networks: arrays of their densities, seeds, population losses, and weights (networks, 2, 6)."""

    density: Array
    seed: NDArray[np.intp]
    loss: Array
    weight: Array

    def number(self) -> NDArray[np.intp]:
        """How many pairs have collapsed; -1 where a feature is not learned."""
        known = plane.learned(self.weight).all(axis=1)
        return np.where(known, plane.collapsed(self.weight).sum(axis=1), -1)

    def best(self, group: int) -> "Networks":
        """The best of each density and group of seeds."""
        of_group = self.seed // group
        order = np.lexsort((self.loss, of_group, self.density))
        change = (np.diff(self.density[order]) != 0) | (np.diff(of_group[order]) != 0)
        first = order[np.flatnonzero(np.r_[True, change])]
        return Networks(self.density[first], self.seed[first], self.loss[first], self.weight[first])


def networks(table: pd.DataFrame, low: float = 0.0, high: float = 1.0) -> Networks:
    """The networks at densities from `low` to `high`.

    Raises:
        ValueError: if there are none, or one has diverged; here and in all functions of the table.
    """
    density = table["density"].to_numpy(dtype=float)
    rows = (density >= low * (1 - 1e-6)) & (density <= high * (1 + 1e-6))
    if not rows.any():
        raise ValueError(f"no network at densities from {low:g} to {high:g}")
    loss = table["population_loss"].to_numpy(dtype=float)[rows]
    if not np.isfinite(loss).all():
        raise ValueError(f"a network at densities from {low:g} to {high:g} has diverged")
    return Networks(density[rows], table["seed"].to_numpy()[rows], loss, plane.weights(table, rows, 2, 6))


def _within(table: pd.DataFrame, name: str) -> Networks:
    if name not in RANGES:
        raise ValueError(f"range: expected one of {', '.join(RANGES)}, got {name!r}")
    return networks(table, *RANGES[name])


def _as_published(found: Networks, name: str) -> "pd.Series[bool]":
    fits = found.number() == NUMBER[name]
    if name == "none":
        fits &= plane.hexagon(found.weight) & plane.side_by_side(found.weight)
    return pd.Series(fits)


def best(table: pd.DataFrame, within: str, group: int = GROUP) -> "pd.Series[bool]":
    """Whether the published number of pairs has collapsed, for the best of each density and group of seeds.

    Where the number is 0, the network must be a hexagon with the features of each pair side by side.

    Args:
        table: the instances
        within: one of `NUMBER`, whose range of densities is meant
        group: seeds in a group
    """
    return _as_published(_within(table, within).best(group), within)


def most(table: pd.DataFrame, within: str) -> "pd.Series[bool]":
    """The same for all networks."""
    return _as_published(_within(table, within), within)


def merged(table: pd.DataFrame, group: int = GROUP) -> "pd.Series[bool]":
    """Whether the features of each collapsed pair are less than 12 degrees apart, so as good as one.

    For the best networks from p = 0.05 to 0.5.

    Args:
        table: the instances
        group: seeds in a group
    """
    weight = networks(table, 0.05, 0.5).best(group).weight
    return pd.Series(plane.within(weight)[plane.collapsed(weight)] < MERGED)


def boundary(table: pd.DataFrame, number: float) -> float:
    """The lowest density at which the mean number of collapsed pairs, over all networks, passes `number`.

    Linear between neighbouring densities.

    Raises:
        ValueError: if it is higher from the start, or never reaches `number`.
    """
    densities, place = np.unique(table["density"].to_numpy(), return_inverse=True)
    mean = np.bincount(place, table["collapsed_pairs"].to_numpy()) / np.bincount(place)
    above = np.flatnonzero(mean >= number)
    if not len(above) or above[0] == 0:
        raise ValueError(f"the mean number of collapsed pairs does not pass {number:g}")
    i = above[0]
    share = (number - mean[i - 1]) / (mean[i] - mean[i - 1])
    return float(densities[i - 1] + share * (densities[i] - densities[i - 1]))


def pca_distance(weight: Array) -> Array:
    """How far W^T W is from the nearest solution of principal component analysis, (networks,).

    The three sums of pairs have equal variances, above all others, so each plane P in their span is a
    solution: the Frobenius norm of W^T W - P over that of P.

    Args:
        weight: (networks, 2, 6)
    """
    sums = np.kron(np.eye(3), np.full((2, 1), 0.5**0.5))
    _, _, right = np.linalg.svd(weight @ sums, full_matrices=False)
    axes = right @ sums.T
    difference = np.swapaxes(weight, 1, 2) @ weight - np.swapaxes(axes, 1, 2) @ axes
    return np.asarray(np.linalg.norm(difference, axis=(1, 2)) / 2**0.5)


def pca_gain(table: pd.DataFrame, group: int = GROUP) -> float:
    """By how much the best networks from p = 0.5 on are nearer to PCA than those of the nearest other range.

    Args:
        table: the instances
        group: seeds in a group
    """
    distance = {name: pca_distance(_within(table, name).best(group).weight).mean() for name in RANGES}
    return float(min(distance[name] for name in NUMBER) - distance["pca"])


# --- figures


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The number of collapsed pairs against density, and the best network of each range."""
    return {"collapse": _strip(table), "best_networks": _best_networks(table)}


def _strip(table: pd.DataFrame) -> Figure:
    found = networks(table)
    densities = np.unique(found.density)
    figure = Figure(figsize=(7, 4.6))
    upper, lower = figure.subplots(2, 1, sharex=True)
    numbers = found.number()
    shares = np.array(
        [[(numbers[found.density == p] == k).mean() for k in (0, 1, 2, 3, -1)] for p in densities]
    )
    labels = ("no pair collapsed", "one", "two", "three", "a feature is not learned")
    colours = [*sns.light_palette(BLUE, 4), GREY]
    upper.stackplot(densities, shares.T, colors=colours, labels=labels, linewidth=0)
    upper.set(ylim=(0, 1), ylabel="Share of all networks")
    upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5)
    for name, (low, high) in PUBLISHED.items():
        if name in NUMBER:
            edges, n = [max(low, densities[0]), high], NUMBER[name]
            label = "published (approximate)" if name == "none" else None
            lower.fill_between(edges, n - 0.25, n + 0.25, color=ORANGE, alpha=0.35, linewidth=0, label=label)
    lower.axvspan(*PUBLISHED["pca"], color=ORANGE, alpha=0.15, linewidth=0)
    lower.text(0.71, 0.1, "published:\nlike PCA", ha="center", size="medium")
    best_ones = found.best(GROUP)
    counts = best_ones.number()
    known = counts >= 0
    sns.lineplot(
        x=best_ones.density[known], y=counts[known], errorbar=None, color=RED, ax=lower,
        label=f"best of {GROUP} networks (mean over groups)",
    )  # fmt: skip
    points, sizes = np.unique(np.stack([best_ones.density[known], counts[known]]), axis=1, return_counts=True)
    lower.scatter(*points, s=30 * sizes / sizes.max(), color=RED, linewidth=0, zorder=3)
    lower.set(ylim=(-0.3, 3.3), yticks=range(4), ylabel="Number of collapsed pairs")
    lower.legend(loc="upper left")
    lower.set(xscale="log", xlim=(densities[0], 1), xlabel="Probability that a pair is on, p")
    number(lower.xaxis, [0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1])
    return figure


def _best_networks(table: pd.DataFrame) -> Figure:
    """The best network of the first groups of seeds at one density of each range."""
    shown = {"none": 0.025, "one": 0.1, "two": 0.175, "three": 0.375, "pca": 0.7}
    titles = {"none": "hexagon", "one": "one collapsed", "two": "two", "three": "three", "pca": "like PCA"}
    present = set(np.round(table["density"].unique(), 6))
    columns = [name for name, density in shown.items() if density in present]
    if not columns:
        return Figure()
    chosen = [networks(table, shown[name], shown[name]).best(GROUP) for name in columns]
    n_rows = min(3, max(len(one.weight) for one in chosen))
    figure = Figure(figsize=(7.2, 0.5 + 7 / len(columns) * n_rows))
    grid = figure.subplots(n_rows, len(columns), squeeze=False)
    for column, name, found in zip(grid.T, columns, chosen, strict=True):
        for row, axes in enumerate(column):
            axes.set_axis_off()
            if row < len(found.weight):
                title = f"p = {shown[name]:g}, published:\n{titles[name]}" if row == 0 else ""
                plane.draw(axes, found.weight[row], title)
    return figure
