"""The headline figure of Elhage et al. 2022, five features in two dimensions: estimates and the figure.

The table has one row per trained network, in a part for each panel of the figure (`s0`, `s0.8`, `s0.9`), and
for two panels with other importances (`s0.9_steep`, `s0.8_equal`). As the paper advises, networks are fitted
several times and the one with the lowest loss is taken: one of every ten seeds. Unless stated otherwise,
estimates are over these networks.
Source: arXiv 2209.10652, the first figure.
"""

import functools
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle, Wedge

from common.style import BLUE, GREY, INK, ORANGE, RED, number
from common.verdicts.claims import Claims
from replications.toy_models_of_superposition.five_features_theory import (
    N_FEATURES,
    Array,
    Ring,
    Shape,
    advantage,
    best,
    local_optimum,
    optimal_loss,
    population_loss,
    ring,
    shape_of,
)

__all__ = [
    "advantage",
    "angle_difference",
    "angle_within",
    "figures",
    "length_ratio",
    "loss",
    "mean_bias",
    "mean_norm",
    "not_below_the_optimum",
    "optimal_loss",
    "shows",
]

Panel = Literal["s0", "s0.8", "s0.9", "s0.9_steep", "s0.8_equal"]
Outcome = Shape | Literal["other features"] | None
"""What a network shows: one of the three shapes, one of them with the wrong features, or something else."""

TEN = 10
"""The number of networks of which the best is taken, from the phase diagrams; not stated for this figure."""

PUBLISHED_SHAPE: dict[Panel, Shape] = {"s0": "orthogonal", "s0.8": "digons", "s0.9": "pentagon"}

ANGLES_OF: dict[Panel, str] = {"s0.8": "angles_s0.8", "s0.9": "angles_s0.9"}
"""The claim on the range of the published angles between neighbours in a panel."""

RANGE_OF_FIVE = 2.326
"""The mean range of five normal values, in standard deviations (Tippett 1925)."""

# of the quadrature's losses, in relative terms
_LOSS_ERROR = 1e-4


class Networks(NamedTuple):
    """Trained networks of one panel: arrays (networks, 2, features) and (networks, features), and factors.

    `held_out`: their losses in the table, on inputs that were drawn and as means over features.
    """

    weight: Array
    bias: Array
    held_out: Array
    density: float
    decay: float

    def rings(self) -> list[Ring]:
        """The embedded features of each network, around the plane."""
        return [_read(weight.tobytes())[0] for weight in self.weight]

    def shown(self) -> list[Outcome]:
        """What each network shows."""
        return [_read(weight.tobytes())[1] for weight in self.weight]

    def losses(self) -> Array:
        """The loss of each network on the exact distribution of the inputs, summed over features."""
        pairs = zip(self.weight, self.bias, strict=True)
        return np.array([_loss(w.tobytes(), b.tobytes(), self.density, self.decay) for w, b in pairs])


def select(table: pd.DataFrame, panel: Panel, best_of: int = TEN) -> Networks:
    """The networks of one panel with the lowest loss among every `best_of` seeds.

    Raises:
        ValueError: if there is none, or one has diverged; here and in all functions of the table.
    """
    rows = np.flatnonzero(table["part"] == panel)
    if not len(rows):
        raise ValueError(f"panel: no network of {panel!r}")
    loss, group = table["loss"].to_numpy()[rows], table["seed"].to_numpy()[rows] // best_of
    if not np.isfinite(loss).all():
        raise ValueError(f"panel {panel!r}: a network has diverged")
    order = np.lexsort((loss, group))
    best = rows[order[np.r_[True, np.diff(group[order]) > 0]]]

    def column(name: str) -> Array:
        return table[name].to_numpy()[best].astype(float)

    weight = np.stack([column(f"weight_{k}_{i}") for k in range(2) for i in range(N_FEATURES)], axis=1)
    bias = np.stack([column(f"bias_{i}") for i in range(N_FEATURES)], axis=1)
    density, decay = (float(table[name].to_numpy()[best[0]]) for name in ("density", "decay"))
    return Networks(weight.reshape(-1, 2, N_FEATURES), bias, column("loss"), density, decay)


def shows(table: pd.DataFrame, panel: Panel, shape: Shape, best_of: int = TEN) -> "pd.Series[bool]":
    """Whether each network embeds the most important features in this shape, and no others."""
    return pd.Series([found == shape for found in select(table, panel, best_of).shown()])


def angle_within(table: pd.DataFrame, panel: Panel, low: float, high: float) -> "pd.Series[bool]":
    """Whether each angle between neighbouring embedded features lies within a range, in degrees."""
    angles: Array = np.concatenate([found.gaps for found in select(table, panel).rings()])
    return pd.Series((low <= angles) & (angles <= high))


def angle_difference(table: pd.DataFrame, panel: Panel) -> float:
    """The largest deviation, in degrees, of an angle from the exact optimum: a mean over networks.

    Over networks that show the published shape, against the optimum with the same order of the features.

    Raises:
        ValueError: if no network shows it.
    """
    networks = select(table, panel)
    pairs = zip(networks.shown(), networks.rings(), strict=True)
    found = [one for name, one in pairs if name == PUBLISHED_SHAPE[panel]]
    if not found:
        raise ValueError(f"panel {panel!r}: no network shows the published shape")
    optima = [local_optimum(networks.density, networks.decay, one.order) for one in found]
    wanted = [ring(optimum.weight).gaps for optimum in optima]
    return float(np.mean([np.abs(one.gaps - gaps).max() for one, gaps in zip(found, wanted, strict=True)]))


def mean_norm(table: pd.DataFrame, panel: Panel, of: list[int]) -> float:
    """The mean norm of some of the features."""
    return float(np.linalg.norm(select(table, panel).weight, axis=1)[:, of].mean())


def mean_bias(table: pd.DataFrame, panel: Panel, of: list[int]) -> float:
    """The mean bias of some of the features."""
    return float(select(table, panel).bias[:, of].mean())


def length_ratio(table: pd.DataFrame) -> float:
    """The mean norm of the five features at S = 0.9, relative to that of the first two at S = 0."""
    return mean_norm(table, "s0.9", [0, 1, 2, 3, 4]) / mean_norm(table, "s0", [0, 1])


def loss(table: pd.DataFrame, panel: Panel) -> float:
    """The mean loss on the exact distribution of the inputs, summed over features."""
    return float(np.mean(select(table, panel).losses()))


def held_out_ratio(table: pd.DataFrame) -> float:
    """The losses in the table over the exact ones: a mean over the networks of the three panels."""
    panels = [select(table, panel) for panel in PUBLISHED_SHAPE]
    return float(np.mean([N_FEATURES * found.held_out / found.losses() for found in panels]))


def not_below_the_optimum(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each network's exact loss is at least that of the optimum, in the three panels."""
    relative = []
    for panel, name in PUBLISHED_SHAPE.items():
        networks = select(table, panel)
        relative.append(networks.losses() / optimal_loss(networks.density, networks.decay, name))
    return pd.Series([bool(ratio >= 1 - _LOSS_ERROR) for ratio in np.concatenate(relative)])


# Cached, as the same networks are asked for again whenever one seed is left out.
@functools.lru_cache(maxsize=2**16)
def _read(weight: bytes) -> tuple[Ring, Outcome]:
    found = ring(np.frombuffer(weight).reshape(2, N_FEATURES))
    name = shape_of(found)
    wrong = name is not None and max(found.order) > len(found.order) - 1
    return found, "other features" if wrong else name


@functools.lru_cache(maxsize=2**16)
def _loss(weight: bytes, bias: bytes, density: float, decay: float) -> float:
    w = np.frombuffer(weight).reshape(2, N_FEATURES)
    return population_loss(w, np.frombuffer(bias), density, decay)


# --- figure

_COLOURS: dict[Outcome, tuple[str | tuple[float, float, float], str]] = {
    "orthogonal": (INK, "the two most important features are orthogonal"),
    "digons": (BLUE, "the four most important are two antipodal pairs"),
    "pentagon": (ORANGE, "all five form a pentagon"),
    "other features": (RED, "one of these shapes with other features"),
    None: ("0.8", "none of these shapes"),
}
_OTHER_IMPORTANCE: dict[Panel, tuple[Panel, str]] = {
    "s0.8": ("s0.8_equal", "equal"),
    "s0.9": ("s0.9_steep", "0.7ⁱ"),
}


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The best network of each panel, its lengths and angles beside the published ones, and all outcomes."""
    there = set(table["part"])
    panels = [panel for panel in PUBLISHED_SHAPE if panel in there]
    if not panels:
        return {}
    figure = Figure(figsize=(7.4, 7.2))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.5, 1)).flat
    networks, angles = upper.subplots(2, len(panels), squeeze=False, height_ratios=(1.35, 1))
    outcomes = lower.subplots(1, len(panels), squeeze=False)[0]
    lengths = published_lengths(claims)
    for column, panel in enumerate(panels):
        _draw_best(networks[column], table, panel, lengths)
        _draw_angles(angles[column], table, panel, lengths, claims)
        _draw_outcomes(outcomes[column], table, panel)
    angles[0].set_ylabel("Length")
    above: list[Line2D | Patch] = [
        Line2D([], [], marker="o", color=_colour(i), label=f"feature {i}") for i in range(N_FEATURES)
    ]
    above.append(Line2D([], [], marker="+", linestyle="none", color=RED, label="exact optimum"))
    above.append(Patch(fill=False, edgecolor=INK, label="published"))
    upper.legend(handles=above, loc="outside lower center", ncols=7, handlelength=1.4, columnspacing=1.2)
    below = [Patch(color=colour, label=label) for colour, label in _COLOURS.values()]
    lower.legend(handles=below, loc="outside lower center", ncols=2)
    return {"five_features": figure}


def published_lengths(claims: Claims) -> tuple[float, float]:
    """The smallest and the largest of the five published lengths at S = 0.9, relative to that at S = 0."""
    ratio = claims.published("length_ratio")
    assert ratio.sd is not None
    half = RANGE_OF_FIVE * ratio.sd / 2
    return ratio.value - half, ratio.value + half


def _colour(feature: int) -> tuple[float, float, float, float]:
    """The colour of a feature, from dark to light in the order of importance."""
    red, green, blue, alpha = matplotlib.colormaps["viridis"](feature / (N_FEATURES - 0.6))
    return red, green, blue, alpha


def _draw_best(axes: Axes, table: pd.DataFrame, panel: Panel, lengths: tuple[float, float]) -> None:
    """The features of the best network of all seeds, turned so that the most important points upwards."""
    networks = select(table, panel, best_of=int(table["seed"].max()) + 1)
    weight, found = networks.weight[0], networks.rings()[0]
    points = weight[0] + 1j * weight[1]
    points *= 1j * points[0].conj() / abs(points[0])
    # and turned over so that the next one round the plane is on the left
    if len(found.order) > 1 and points[found.order[1]].real > 0:
        points = -points.conj()
    axes.add_patch(Wedge((0, 0), 1.005, 0, 360, width=0.01, color=GREY, linewidth=0))
    if PUBLISHED_SHAPE[panel] == "pentagon":
        low, high = lengths
        axes.add_patch(Wedge((0, 0), high, 0, 360, width=high - low, color=GREY, alpha=0.3, linewidth=0))
    for i in reversed(range(N_FEATURES)):
        axes.plot([0, points[i].real], [0, points[i].imag], color=_colour(i), linewidth=1.6)
        axes.plot(points[i].real, points[i].imag, "o", color=_colour(i), markersize=7)
    axes.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal")
    axes.set_axis_off()
    sparsity = round(1 - networks.density, 3)
    axes.set_title(f"S = {sparsity:g}")


def _draw_angles(
    axes: Axes, table: pd.DataFrame, panel: Panel, lengths: tuple[float, float], claims: Claims
) -> None:
    """Length of each embedded feature against the angle to the next one, of the best of every ten."""
    networks = select(table, panel)
    for weight, found in zip(networks.weight, networks.rings(), strict=True):
        norms = np.linalg.norm(weight, axis=0)
        for feature, angle in zip(found.order, found.gaps, strict=True):
            axes.plot(angle, norms[feature], ".", color=_colour(feature))
    if (exact := best(networks.density, networks.decay, PUBLISHED_SHAPE[panel])) is not None:
        found = ring(exact.weight)
        norms = np.linalg.norm(exact.weight, axis=0)[list(found.order)]
        axes.plot(found.gaps, norms, "+", color=RED, markersize=7, zorder=4)
    if name := ANGLES_OF.get(panel):
        low, high = (claims[name].estimate.args[end] for end in ("low", "high"))
        bottom, top = lengths if PUBLISHED_SHAPE[panel] == "pentagon" else (0.9, 1.3)
        axes.add_patch(Rectangle((low, bottom), high - low, top - bottom, fill=False, edgecolor=INK))
    middle = 72 if PUBLISHED_SHAPE[panel] == "pentagon" else 90
    axes.set(xlim=(middle - 5, middle + 5), ylim=(0.97, 1.21), xlabel="Angle to the next feature (°)")
    axes.set_xticks(range(middle - 4, middle + 5, 2))


def _draw_outcomes(axes: Axes, table: pd.DataFrame, panel: Panel) -> None:
    """Shares of the outcomes, of all networks and of the best of every ten, for each importance."""
    labels: list[str] = []
    for name, importance in ((panel, "0.9ⁱ"), _OTHER_IMPORTANCE.get(panel, (None, ""))):
        if name is None or name not in set(table["part"]):
            continue
        for best_of, who in ((1, "all"), (TEN, "best")):
            shown = select(table, name, best_of).shown()
            left = 0.0
            for outcome, (colour, _) in _COLOURS.items():
                share = shown.count(outcome) / len(shown)
                axes.barh(len(labels), share, left=left, color=colour, height=0.8)
                left += share
            labels.append(f"{importance} {who}")
    axes.set(xlim=(0, 1), ylim=(3.5, -0.5), xlabel="Share of networks")
    axes.set_yticks(range(len(labels)), labels=labels)
    number(axes.xaxis, (0, 0.5, 1))
