"""How generally networks compute f(x + y) - f(x - y): estimates and the figure.

The table has one row per trained network, with its part, which names the change to the set-up of
`optimum`, and the columns of `model.ProductNetwork.metrics`.
Source: Chan 2024.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.statistics import fraction_interval
from common.style import BLUE, GREY, INK, ORANGE, number
from common.verdicts.claims import Claims
from replications.product_network.population import ERROR
from replications.product_network.theory import (
    bias_free_angle,
    bias_free_optimum,
    homogeneous_bound,
    smallest_curvature,
)

__all__ = [
    "above_the_bound",
    "aligned",
    "bias_free_angle",
    "bias_free_optimum_angles",
    "figures",
    "kink_difference",
    "not_aligned",
    "smallest_curvature",
]

Bools = NDArray[np.bool_]

DEGREES = 5
"""How far from a diagonal a kinked neuron may be."""

NO_BIAS = ("no_bias_4", "no_bias_8", "no_bias_16")

CELLS = {
    "main": "width 4, normal inputs", "start_0.3": "start scale 0.3", "start_3": "start scale 3",
    "rate_0.001": "rate 0.001", "rate_0.003": "rate 0.003", "rate_0.03": "rate 0.03",
    "uniform": "uniform inputs", "laplace": "Laplace inputs",
    "width_8": "width 8", "width_16": "width 16",
    "no_bias_4": "no biases", "no_bias_8": "width 8, no biases", "no_bias_16": "width 16, no biases",
}  # fmt: skip
"""The parts, as the figure calls them."""


def aligned(table: pd.DataFrame, part: str) -> "pd.Series[bool]":
    """Whether each network has all kinked neurons within 5 degrees of a diagonal, and uses both diagonals.

    Raises:
        ValueError: if the part is absent, here and in all functions of a part.
    """
    return pd.Series(_aligned(_of(table, part)))


def not_aligned(table: pd.DataFrame, part: str) -> "pd.Series[bool]":
    """The opposite of `aligned`."""
    return pd.Series(~_aligned(_of(table, part)))


def above_the_bound(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each network without biases, of any width, has a loss of at least `theory.homogeneous_bound`.

    The error of the quadrature is allowed for.
    """
    loss = table["population_loss"].to_numpy()[table["part"].isin(NO_BIAS).to_numpy()]
    return pd.Series(loss >= homogeneous_bound() - ERROR)


def bias_free_optimum_angles(table: pd.DataFrame, low: float, high: float) -> "pd.Series[bool]":
    """Whether each best network of four neurons without biases has all angles off the diagonals in a range.

    Best: a loss within 1 % of the lowest, `theory.bias_free_optimum`.

    Args:
        table: the instances
        low: from, in degrees
        high: to, in degrees
    """
    rows = _of(table, "no_bias_4")
    best = rows[rows["population_loss"] <= 1.01 * bias_free_optimum()[0]]
    within = (best["smallest_angle"] >= low) & (best["largest_angle"] <= high)
    return pd.Series(within.to_numpy())


def kink_difference(table: pd.DataFrame, part: str, other: str) -> float:
    """How much further from 0 the kinks are in one part than in the other; an input's variance is 1.

    A mean over the networks of the mechanism: aligned, with one kinked neuron on each half diagonal.

    Raises:
        ValueError: if a part has none.
    """
    return _mean_kink(table, part) - _mean_kink(table, other)


def _mean_kink(table: pd.DataFrame, part: str) -> float:
    rows = _of(table, part)
    pure = rows[_aligned(rows) & (rows["kinked_neurons"] == 4) & (rows["half_diagonals"] == 4)]
    if pure.empty:
        raise ValueError(f"part {part!r}: no network has one kinked neuron on each half diagonal")
    return float(pure["mean_kink"].mean())


def _of(table: pd.DataFrame, part: str) -> pd.DataFrame:
    rows = table[table["part"] == part]
    if rows.empty:
        raise ValueError(f"part {part!r}: the table has no such networks")
    return rows


def _aligned(rows: pd.DataFrame) -> Bools:
    # without a kinked neuron the angle is NaN, which is not within anything
    near: Bools = (rows["largest_angle"].to_numpy() <= DEGREES) & rows["both_diagonals"].to_numpy()
    return near


def _best(rows: pd.DataFrame) -> Bools:
    """Whether each network's loss is within 10 % of the lowest of these networks, for the figure."""
    loss = rows["population_loss"].to_numpy()
    best: Bools = loss <= 1.1 * np.nanmin(loss)
    return best


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """For each part, the losses, and the shares of networks that are aligned or end near the lowest loss."""
    parts = [part for part in CELLS if (table["part"] == part).any()]
    figure = Figure(figsize=(7.5, 1.1 + 0.27 * len(parts)))
    shares, losses = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.1))
    _draw_losses(losses, table, parts)
    _draw_shares(shares, table, parts)
    shares.set_yticks(range(len(parts)), [CELLS[part] for part in parts])
    shares.set_ylim(len(parts) - 0.5, -0.5)
    for axes in (shares, losses):
        axes.set_ylabel("")
    (left, names), (bound, bound_name) = (
        shares.get_legend_handles_labels(),
        losses.get_legend_handles_labels(),
    )
    figure.legend(left + bound, names + bound_name, loc="outside lower center", ncols=3)
    return {"reach": figure}


def _draw_shares(axes: Axes, table: pd.DataFrame, parts: list[str]) -> None:
    measures: list[tuple[str, Callable[[pd.DataFrame], Bools], tuple[float, float, float], float]] = [
        ("aligned, both diagonals used", _aligned, BLUE, -0.12),
        ("within 10 % of the lowest loss", _best, ORANGE, 0.12),
    ]
    for name, judge, colour, shift in measures:
        values = []
        for part in parts:
            judged = judge(_of(table, part))  # one network per seed: the jackknife adds nothing to Wilson
            value = float(judged.mean())
            low, high = fraction_interval(value, len(judged), [value] * len(judged))
            values.append((value, value - low, high - value))
        value, below, above = np.array(values).T
        place = np.arange(len(parts)) + shift
        bars = np.nan_to_num(np.maximum([below, above], 0), posinf=0)
        axes.errorbar(value, place, xerr=bars, fmt="o", color=colour, label=name)
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.02, 1.02), xlabel="Share of networks (95 % interval)")


def _draw_losses(axes: Axes, table: pd.DataFrame, parts: list[str]) -> None:
    """The loss of each network, blue where it is aligned."""
    axes.set_xscale("log")
    sns.stripplot(
        x=table["population_loss"], y=table["part"], order=parts, hue=_aligned(table),
        hue_order=[False, True], palette=[GREY, BLUE], size=2.5, alpha=0.6, jitter=0.3, legend=False, ax=axes,
    )  # fmt: skip
    axes.axvline(homogeneous_bound(), color=INK, linewidth=0.8, linestyle=":", label="bound without biases")
    lowest = 0.5 * table["population_loss"].min()
    number(axes.xaxis, [tick for tick in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1) if tick >= lowest])
    axes.set(xlabel="Population loss of each network", xlim=(None, max(1.05, axes.get_xlim()[1])))
