"""How four neurons with biases learn to multiply unit normal inputs: estimates and figures.

The table has one row per trained network, with the columns of `model.ProductNetwork.metrics`. A network is at
the optimum when its population loss is within 1 % of the lowest known, `theory.best_loss`.
Source: Chan 2024.
"""

import math
from typing import Literal

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.style import BLUE, GREY, INK, ORANGE, RED, number
from common.verdicts.claims import Claims
from replications.product_network import theory
from replications.product_network.neurons import Neurons, piecewise_square
from replications.product_network.population import ERROR
from replications.product_network.theory import (
    best_kink,
    best_loss,
    best_scale,
    diagonal_loss,
    diagonal_scale,
    hand_built_loss,
    homogeneous_bound,
)

__all__ = [
    "aligned",
    "aligned_share",
    "always_responding",
    "best_kink",
    "best_loss",
    "best_scale",
    "cluster_share",
    "diagonal_loss",
    "diagonal_scale",
    "figures",
    "found",
    "hand_built_loss",
    "homogeneous_bound",
    "near_diagonal",
    "never_beaten",
    "no_superposition",
    "one_on_each_half_diagonal",
    "one_square",
    "optimum_mean",
    "right_signs",
    "three_kinked",
]

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

Cluster = Literal["optimum", "three_kinked", "at_0.125", "above_0.125", "one_square", "neither"]

CLUSTERS: dict[Cluster, tuple[float, float]] = {
    "optimum": (0, 0.05),
    "three_kinked": (0.05, 0.1),
    "at_0.125": (0.1, 0.1255),
    "above_0.125": (0.1255, 0.25),
    "one_square": (0.25, 0.65),
    "neither": (0.65, math.inf),
}
"""Population losses, lower end included: around 0.033, 0.079-0.083, 0.125, 0.126-0.14, 0.50-0.53, 0.78."""

WITHIN = 1.01


def found(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each network is at the optimum."""
    return pd.Series(_at_optimum(table))


def never_beaten(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each network's loss is at least that of the optimum, minus the error of the quadrature."""
    return pd.Series(_loss(table) >= best_loss() - ERROR)


def cluster_share(table: pd.DataFrame, cluster: Cluster) -> float:
    """The share of the networks whose loss is in a cluster."""
    return float(_in_cluster(table, cluster).mean())


def aligned(table: pd.DataFrame, degrees: float) -> "pd.Series[bool]":
    """Whether each network has all kinked neurons within `degrees` of a diagonal, and uses both diagonals."""
    return pd.Series(_aligned(table, degrees))


def aligned_share(table: pd.DataFrame, degrees: float) -> float:
    """The share of the networks that are `aligned`."""
    return float(_aligned(table, degrees).mean())


def one_on_each_half_diagonal(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each network at the optimum has four kinked neurons, one nearest to each half diagonal."""
    here = _at_optimum(table)
    return pd.Series(
        (table["kinked_neurons"].to_numpy()[here] == 4) & (table["half_diagonals"].to_numpy()[here] == 4)
    )


def near_diagonal(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each kinked neuron of the networks at the optimum is within 1 degree of a diagonal."""
    return _share_of_kinked(table, "near_diagonal_neurons")


def right_signs(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each kinked neuron of the networks at the optimum bends its f upward.

    That is an output weight above 0 on x + y and below 0 on x - y, from which f is subtracted.
    """
    return _share_of_kinked(table, "right_signs")


def optimum_mean(table: pd.DataFrame, column: str) -> float:
    """The mean of a column over the networks at the optimum.

    Raises:
        ValueError: if there are none.
    """
    here = _at_optimum(table)
    if not here.any():
        raise ValueError("no network is at the optimum")
    return float(table[column].to_numpy()[here].mean())


def three_kinked(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each network of that cluster has three kinked neurons, and one that is always on."""
    here = _in_cluster(table, "three_kinked")
    kinked, always_on = (table[f"{kind}_neurons"].to_numpy()[here] for kind in ("kinked", "always_on"))
    return pd.Series((kinked == 3) & (always_on == 1))


def one_square(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each network of that cluster has kinked neurons nearest to one diagonal only."""
    here = _in_cluster(table, "one_square")
    return pd.Series(~table["both_diagonals"].to_numpy()[here])


def always_responding(table: pd.DataFrame, at_optimum: bool) -> "pd.Series[bool]":
    """Whether all four neurons of each network respond to both x and y.

    Args:
        table: the instances
        at_optimum: only the networks there
    """
    all_four = table["polysemantic_neurons"].to_numpy() == 4
    return _chosen(all_four, table, at_optimum)


def no_superposition(table: pd.DataFrame, at_optimum: bool) -> "pd.Series[bool]":
    """Whether each network has no superposition, by rank and so also by count.

    Args:
        table: the instances
        at_optimum: only the networks there
    """
    none = table["superposition"].to_numpy() == 0
    return _chosen(none, table, at_optimum)


def _loss(table: pd.DataFrame) -> Array:
    return table["population_loss"].to_numpy()


def _at_optimum(table: pd.DataFrame) -> Bools:
    at: Bools = _loss(table) <= WITHIN * best_loss()
    return at


def _chosen(holds: Bools, table: pd.DataFrame, at_optimum: bool) -> "pd.Series[bool]":
    return pd.Series(holds[_at_optimum(table)] if at_optimum else holds)


def _in_cluster(table: pd.DataFrame, cluster: Cluster) -> Bools:
    low, high = CLUSTERS[cluster]
    loss = _loss(table)
    here: Bools = (loss >= low) & (loss < high)
    return here


def _aligned(table: pd.DataFrame, degrees: float) -> Bools:
    # without a kinked neuron the angle is NaN, which is not within anything
    near: Bools = (table["largest_angle"].to_numpy() <= degrees) & table["both_diagonals"].to_numpy()
    return near


def _share_of_kinked(table: pd.DataFrame, column: str) -> "pd.Series[bool]":
    here = _at_optimum(table)
    n_true, n_all = (int(table[name].to_numpy()[here].sum()) for name in (column, "kinked_neurons"))
    return pd.Series(np.arange(n_all) < n_true)


# --- figures


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """`losses`: where networks end; `squares`: f as read from the weights; `plane`: the neurons' geometry."""
    return {"losses": _losses(table, claims), "squares": _squares(table), "plane": _plane(table)}


def _neurons(rows: pd.DataFrame) -> Neurons:
    columns = [
        torch.tensor(rows[[f"{name}_{k}" for k in range(4)]].to_numpy(dtype=float))
        for name in ("angle", "kink", "strength")
    ]
    return Neurons(*columns)


def _losses(table: pd.DataFrame, claims: Claims) -> Figure:
    figure = Figure(figsize=(7, 3.8))
    axes = figure.add_subplot()
    left, right = 0.025, 1.5
    loss = np.clip(_loss(table), left, right)
    edges = np.geomspace(left, right, 165).tolist()
    sns.histplot(x=loss, bins=edges, stat="proportion", color=BLUE, alpha=1, linewidth=0, ax=axes)
    # set only now: on a logarithmic axis seaborn takes the edges for their logarithms
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(0.5 / len(loss), 1))
    for value, name, line in (
        (theory.best_loss(), "optimum with biases", "-"),
        (theory.homogeneous_bound(), "bound without biases", ":"),
        (theory.diagonal_loss(), "diagonals without biases", "--"),
    ):
        label = f"{name}, {round(value, 4):g}"
        axes.axvline(value, color=INK, linewidth=0.9, linestyle=line, label=label)
    for cluster, (low, high) in CLUSTERS.items():
        axes.axvline(low, color=GREY, linewidth=0.6, alpha=0.6)
        middle = math.sqrt(max(low, left) * min(high, right))
        derived = claims[f"share_{cluster}"].theory
        assert derived is not None
        text = f"{100 * _in_cluster(table, cluster).mean():.2g} %\n({100 * derived.value:.2g} %)"
        axes.text(middle, 1.1, text, ha="center", va="bottom", size="medium")
    number(axes.xaxis, (0.03, 0.05, 0.1, 0.2, 0.5, 1))
    axes.set(xlabel="Population loss (1 for an output of 0)", ylabel="Share of networks")
    axes.set_title("Share between the grey lines (derived share in brackets)", pad=28)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _squares(table: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7, 3.6))
    panels = figure.subplots(1, 2, sharey=True)
    best = _neurons(table[_at_optimum(table)])
    u = torch.linspace(-3, 3, 301, dtype=torch.float64)
    probability = torch.softmax(-(u**2) / 2, dim=0).numpy()
    place = u.numpy()
    square = place**2 / 2 - 0.5
    exact = theory.best_scale() * np.maximum(np.abs(place) - theory.best_kink(), 0)
    exact -= exact @ probability
    for diagonal, (axes, name) in enumerate(zip(panels, ("x + y", "x − y"), strict=True)):  # noqa: RUF001
        curves = piecewise_square(best, u, diagonal).numpy()
        curves -= (curves @ probability)[:, None]
        for i, curve in enumerate(curves[:100]):
            axes.plot(place, curve, color=BLUE, linewidth=2, alpha=0.5, label=None if i else "networks")
        axes.plot(place, square, color=ORANGE, linewidth=1.4, label="square")
        axes.plot(place, exact, color=INK, linewidth=0.9, linestyle="--", label="exact optimum")
        data = -1.2 + probability / probability.max()
        label = "density of the data"
        axes.fill_between(place, -1.2, data, color=GREY, alpha=0.3, linewidth=0, label=label)
        axes.set(xlabel=f"({name}) / √2", ylim=(-1.2, 4))
    panels[0].set_ylabel("f, as read from the weights (mean 0)")
    panels[0].legend(loc="upper center")
    return figure


def _plane(table: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(4.6, 4.4))
    axes = figure.add_subplot(aspect="equal")
    for side in (-2, 2):
        axes.plot([-2, 2], [-side, side], color=GREY, linewidth=0.7)
    best = _neurons(table[_at_optimum(table)].head(200))
    radians = torch.deg2rad(best.angle)
    x, y = torch.cos(radians), torch.sin(radians)
    for sign, colour, name in ((1, BLUE, "adds to the output"), (-1, RED, "subtracts from it")):
        here = best.kinked & (best.strength * sign > 0)
        axes.quiver(
            (best.kink * x)[here], (best.kink * y)[here], x[here], y[here], color=colour, alpha=0.4,
            scale=12, width=0.004, label=name,
        )  # fmt: skip
    place = theory.best_kink() / 2**0.5 * np.array([1, -1])
    axes.plot(*np.meshgrid(place, place), "o", fillstyle="none", markersize=5, color=INK)
    axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xlabel="x", ylabel="y")
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.1))
    return figure
