"""How networks embed correlated and anticorrelated features: estimates and the figures.

The table has one row per trained network, with its part, density p (the probability that a set of features is
on) and the columns of `correlated_features_model.PairedModel.metrics`. A part is named by the relation of a
set's features and by how many features there are, with `five` for the smaller start. Features 0 and 1 are a
pair, 2 and 3, and so on; of twenty features 0 to 9 are a set and 10 to 19 the other.

All functions of the table take a part and a density, and raise ValueError if there is no such network.
Source: Elhage et al. 2022, arXiv 2209.10652, "Correlated or anticorrelated feature directions".
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.statistics import fraction_interval, jackknife
from common.style import BLUE, GREY, INK, ORANGE, RED, number
from common.verdicts.claims import Claims
from replications.toy_models_of_superposition import plane
from replications.toy_models_of_superposition.plane import Array, Flags

OWN_PAIRING = {"correlated": (1, 2), "anticorrelated": (0,)}
"""Which of `plane.PAIRINGS` are the published ones, by relation."""

SHOWN_SEEDS = 5
JUDGED_BY = {
    "correlated_4": "square_correlated", "anticorrelated_4": "square_anticorrelated",
    "correlated_6": "hexagon", "independent_6": "no_hexagon_independent",
    "correlated_20": "near_orthogonal_sets",
}  # fmt: skip
"""The claim on the published figure of each part: its density is the one shown."""

TITLES = {
    "correlated_4": "two correlated pairs:\northogonal",
    "anticorrelated_4": "two anticorrelated pairs:\nantipodal",
    "correlated_6": "three correlated pairs:\nside by side",
    "independent_6": "six independent features",
}


def pairs(table: pd.DataFrame, part: str, density: float) -> "pd.Series[bool]":
    """Whether correlated pairs have a right angle within, to 6 degrees, and antipodes in the other pair.

    For each network; a feature's antipode is the feature at the largest angle.
    """
    weight = _weights(table, part, density)
    right = (np.abs(plane.within(weight) - 90) <= plane.OFF) & _learned_pairs(weight)
    antipode = plane.angles(weight).argmax(axis=2)
    own = np.arange(weight.shape[2]) // 2
    return pd.Series(right.all(axis=1) & (antipode // 2 != own).all(axis=1))


def square(table: pd.DataFrame, part: str, density: float) -> "pd.Series[bool]":
    """Whether each network of four features is a square in the published way, each angle to 6 degrees.

    For correlated pairs: right angles within them, each feature's antipode in the other pair; for
    anticorrelated pairs: each is antipodal, the other orthogonal to it.
    """
    return pd.Series(np.isin(_square(table, part, density), OWN_PAIRING[_relation(part)]))


def pairing(table: pd.DataFrame, part: str, density: float) -> "pd.Series[bool]":
    """Whether the antipodes are the published ones, for each network that is a square of any pairing."""
    found = _square(table, part, density)
    return pd.Series(np.isin(found[found >= 0], OWN_PAIRING[_relation(part)]))


def _square(table: pd.DataFrame, part: str, density: float) -> NDArray[np.intp]:
    return plane.square(_weights(table, part, density))


def right_angles(table: pd.DataFrame, part: str, density: float) -> "pd.Series[bool]":
    """Whether |cos| is below 0.1 within both of two correlated pairs, for each network."""
    weight = _weights(table, part, density)
    cosine = np.abs(np.cos(np.radians(plane.within(weight))))
    return pd.Series(((cosine < 0.1) & _learned_pairs(weight)).all(axis=1))


def merged(table: pd.DataFrame, part: str, density: float) -> "pd.Series[bool]":
    """Whether cos is above 0.9 within each correlated pair, and both features are learned."""
    return pd.Series(_merged(_weights(table, part, density)).ravel())


def merged_norm(table: pd.DataFrame, part: str, density: float) -> float:
    """The mean norm of the features of merged pairs.

    Raises:
        ValueError: if no pair is merged.
    """
    weight = _weights(table, part, density)
    norms = np.linalg.norm(weight, axis=1).reshape(len(weight), -1, 2)[_merged(weight)]
    if not norms.size:
        raise ValueError(f"no pair is merged at density {density:g}")
    return float(norms.mean())


def _merged(weight: Array) -> Flags:
    cosine = np.cos(np.radians(plane.within(weight)))
    return np.asarray((cosine > 0.9) & _learned_pairs(weight))


def _learned_pairs(weight: Array) -> Flags:
    return np.asarray(plane.learned(weight).reshape(len(weight), -1, 2).all(axis=2))


def hexagon(table: pd.DataFrame, part: str, density: float, degrees: float = 30.0) -> "pd.Series[bool]":
    """Whether each network is a hexagon with the two features of each pair side by side.

    Args:
        table: the instances
        part: one of six features; if they are independent, any order of them counts
        density: probability that a pair is on
        degrees: by how much the angle between neighbours may differ from 60
    """
    weight = _weights(table, part, density)
    fits = plane.hexagon(weight, degrees)
    return pd.Series(fits if _relation(part) == "independent" else fits & plane.side_by_side(weight))


def side_by_side(table: pd.DataFrame, part: str, density: float) -> "pd.Series[bool]":
    """Whether the features of each pair are side by side, for each network that is a hexagon."""
    weight = _weights(table, part, density)
    return pd.Series(plane.side_by_side(weight[plane.hexagon(weight)]))


def best(table: pd.DataFrame, part: str, density: float, group: int) -> "pd.Series[bool]":
    """Whether the network with the lowest population loss is as published, for each group of seeds.

    Args:
        table: the instances
        part: one of four features, judged as in `square`, or of six, judged as in `hexagon`
        density: probability that a pair is on
        group: seeds in a group
    """
    rows = plane.at(table, part, density)
    as_published = (hexagon if _n_features(part) == 6 else square)(table, part, density)
    of_group = table["seed"].to_numpy()[rows] // group
    order = np.lexsort((table["population_loss"].to_numpy()[rows], of_group))
    return as_published.iloc[order[np.unique(of_group[order], return_index=True)[1]]]


def near_orthogonal_sets(table: pd.DataFrame, part: str, density: float) -> "pd.Series[bool]":
    """Whether each network's root mean square cosine within the sets is at most the sine of 6 degrees."""
    cosine = table["cosine_in_sets"].to_numpy()[plane.at(table, part, density)]
    return pd.Series(cosine <= np.sin(np.radians(plane.OFF)))


def in_sets(table: pd.DataFrame, part: str, density: float) -> float:
    """The mean over networks of that root mean square."""
    return float(table["cosine_in_sets"].to_numpy()[plane.at(table, part, density)].mean())


def between_sets(table: pd.DataFrame, part: str, density: float) -> float:
    """The share between the sets of the squared off-diagonal entries of W^T W, mean over networks."""
    return float(table["share_between_sets"].to_numpy()[plane.at(table, part, density)].mean())


def _relation(part: str) -> str:
    return part.split("_")[0]


def _n_features(part: str) -> int:
    return int(part.split("_")[1])


def _weights(table: pd.DataFrame, part: str, density: float, seed: int | None = None) -> Array:
    rows = plane.at(table, part, density)
    if seed is not None:
        rows = rows & (table["seed"] == seed).to_numpy()
    n_features = _n_features(part)
    return plane.weights(table, rows, 10 if n_features == 20 else 2, n_features)


# --- figures


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The first networks of each part, the blocks of W^T W, and the outcomes over the range of densities."""
    judged = {part: float(claims[name].estimate.args["density"]) for part, name in JUDGED_BY.items()}
    drawn = {"networks": _networks(table, judged), "densities": _densities(table, judged)}
    if (table["part"] == "correlated_20").any():
        drawn["blocks"] = _blocks(table)
    return drawn


def _networks(table: pd.DataFrame, judged: Mapping[str, float]) -> Figure:
    """The networks of the first seeds at the densities judged, one row for each part."""
    parts = [part for part in TITLES if (table["part"] == part).any()]
    seeds = sorted(table["seed"].unique())[:SHOWN_SEEDS]
    figure = Figure(figsize=(1.3 * SHOWN_SEEDS + 1.7, 1.25 * len(parts) + 0.1))
    if not parts:
        return figure
    grid = figure.subplots(len(parts), 1 + SHOWN_SEEDS, squeeze=False, width_ratios=[1.4] + [1] * SHOWN_SEEDS)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, part in zip(grid, parts, strict=True):
        density = judged[part]
        row[0].text(0, 0.5, f"{TITLES[part]}\np = {density:g}", va="center")
        for axes, seed in zip(row[1:], seeds, strict=False):
            plane.draw(axes, _weights(table, part, density, seed)[0], paired=part != "independent_6")
    return figure


def _blocks(table: pd.DataFrame) -> Figure:
    """W^T W of the first seeds with two correlated sets of ten features, at each density."""
    part = "correlated_20"
    seeds = sorted(table["seed"].unique())[:SHOWN_SEEDS]
    densities = np.unique(table.loc[table["part"] == part, "density"])
    figure = Figure(figsize=(1.4 * SHOWN_SEEDS + 0.9, 1.45 * len(densities) + 0.1))
    grid = figure.subplots(len(densities), SHOWN_SEEDS, squeeze=False)
    for row, density in zip(grid, densities, strict=True):
        for axes in row[len(seeds) :]:
            axes.set_axis_off()
        for axes, seed in zip(row, seeds, strict=False):
            weight = _weights(table, part, density, seed)[0]
            sns.heatmap(
                weight.T @ weight, cmap="vlag", vmin=-1, vmax=1, square=True, cbar=False, ax=axes,
                xticklabels=False, yticklabels=False,
            )  # fmt: skip
            axes.axhline(10, color=INK, linewidth=0.5)
            axes.axvline(10, color=INK, linewidth=0.5)
        row[0].set_ylabel(f"p = {density:g}")
    label = "WᵀW, two sets of ten features"
    figure.colorbar(grid[0, 0].collections[0], ax=grid, fraction=0.02, pad=0.01, label=label)
    return figure


def _densities(table: pd.DataFrame, judged: Mapping[str, float]) -> Figure:
    """The outcomes at each density, with those of the smaller start dashed."""
    figure = Figure(figsize=(9, 3.6))
    four, six, twenty = figure.subplots(1, 3)
    _line(four, table, "correlated_4", BLUE, "correlated: right angle within each pair", pairs)
    _line(four, table, "correlated_4", ORANGE, "correlated: merged (share of pairs)", merged)
    _line(four, table, "anticorrelated_4", RED, "anticorrelated: each pair antipodal", square)
    _line(six, table, "correlated_6", BLUE, "correlated: hexagon, pairs side by side", hexagon)
    _line(six, table, "independent_6", GREY, "independent: hexagon in any order", hexagon)
    _line(twenty, table, "correlated_20", BLUE, "share of interference between the sets", between_sets)
    _line(twenty, table, "correlated_20", RED, "rms cosine within a set", in_sets)
    twenty.axhline(200 / 380, color=BLUE, linewidth=0.8, linestyle=":", label="share by chance")
    twenty.axhline(np.sin(np.radians(plane.OFF)), color=RED, linewidth=0.8, linestyle=":", label="sine of 6°")
    titles = {
        "correlated_4": "Two pairs in two dimensions", "correlated_6": "Six features in two dimensions",
        "correlated_20": "Two sets of ten in ten dimensions",
    }  # fmt: skip
    for axes, (part, title) in zip((four, six, twenty), titles.items(), strict=True):
        axes.axvline(judged[part], color=INK, linewidth=0.8, label="judged density")
        axes.plot([], [], "o--", color=GREY, markerfacecolor="none", label="smaller start")
        axes.set(
            title=title, xlabel="Probability that a set is on, p", xscale="log", xlim=(0.008, 1.2),
            ylim=(-0.04, 1.04),
        )  # fmt: skip
        number(axes.xaxis, [0.01, 0.03, 0.1, 0.3, 1])
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    four.set_ylabel("Share of networks (95 % interval)")
    return figure


def _line(
    axes: Axes,
    table: pd.DataFrame,
    part: str,
    colour: object,
    label: str,
    estimate: Callable[[pd.DataFrame, str, float], "pd.Series[bool] | float"],
) -> None:
    """Draw an estimate against the densities of a part, and of the smaller start, if the table has them."""
    for of, style in ((part, "o-"), (f"{part}_five", "o--")):
        rows = table[table["part"] == of]
        if rows.empty:
            continue
        rows = rows.dropna(axis="columns", how="all")  # the jackknife copies what is left
        densities = np.unique(rows["density"])
        value, low, high = np.array([_interval(rows, of, density, estimate) for density in densities]).T
        axes.errorbar(
            densities, value, [value - low, high - value], fmt=style, linewidth=1, color=colour,
            markerfacecolor="none" if of != part else None, label=label if of == part else "",
        )  # fmt: skip


def _interval(
    table: pd.DataFrame,
    part: str,
    density: float,
    estimate: Callable[[pd.DataFrame, str, float], "pd.Series[bool] | float"],
) -> tuple[float, float, float]:
    """An estimate with its 95 % interval, of length 0 for a single seed."""
    seeds = table["seed"].unique()
    result = estimate(table, part, density)
    value, samples = float(np.mean(result)), []
    for seed in seeds if len(seeds) > 1 else []:
        samples.append(float(np.mean(estimate(table[table["seed"] != seed], part, density))))
    if isinstance(result, float):
        low, high = jackknife(value, samples)
    else:
        low, high = fraction_interval(value, len(result), samples)
    return (value, low, high) if np.isfinite([low, high]).all() else (value, value, value)
