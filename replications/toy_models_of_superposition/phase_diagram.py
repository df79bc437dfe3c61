"""The sparsity phase diagrams of Elhage et al. 2022: estimates from trained networks, and the figures.

The table has one row per trained network, in the parts `two_features` and `three_features` (the diagrams),
`cuts` (two features, fine in density at a few importances) and `no_bias`. A cell is all networks, one per
seed, of the same part, importance and density. The extra feature is the last one; its relative importance is
r, the density p = 1 - S. Of the networks in a cell, the selection

- `published` leaves out the one with the highest loss and averages norm and superposition over the others.
  What the paper averages is not stated; these two do not depend on the sign of the weights;
- `best` takes the one with the lowest loss, as the paper advises where networks get stuck.

Source: arXiv 2209.10652, "Superposition as a phase change".
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import ArrayLike, NDArray

from common.style import BLUE, INK, NORMAL, RED, SMALL, short
from replications.toy_models_of_superposition.phase_diagram_theory import (
    TRIPLE_POINT,
    Array,
    Phase,
    best_phase,
    boundary_error,
    closed_form_error,
    exact_boundary,
    population_loss,
    relative_gap,
    theory_boundary,
    triple_point_error,
)

__all__ = [
    "agreement",
    "at_optimum",
    "boundary",
    "boundary_error",
    "boundary_log_ratio",
    "closed_form_error",
    "colour",
    "confused_loss",
    "confused_product",
    "diagram",
    "figures",
    "largest_step",
    "phase",
    "superposition_when_dense",
    "triple_point_error",
]

Selection = Literal["published", "best"]
_SELECTIONS: tuple[Selection, Selection] = ("published", "best")

PUBLISHED_BOUNDARY = {
    0.1: 0.173, 0.178: 0.279, 0.316: 0.395, 0.562: 0.516, 1.0: 0.70,
    1.78: 0.510, 3.16: 0.386, 5.62: 0.263, 10.0: 0.168,
}  # fmt: skip
"""Density by r of the boundary in the paper's empirical panel for n = 2, read off the figure to +-.01."""

EXACT_BOUNDARY = {
    0.1: 0.1812, 0.178: 0.2742, 0.316: 0.3864, 0.562: 0.5109,
    1.78: 0.5108, 3.16: 0.3867, 5.62: 0.2741, 10.0: 0.1812,
}  # fmt: skip
"""Density by r at which the exact optimum for n = 2 jumps, by `exact_boundary`."""

LEARNED_NORM = 0.5
LARGE_AMPLITUDE = 0.5
"""Exchanging the two features of n = 2 turns r into 1/r and one of these into the other."""

DECIDED_GAP = 0.2
OPTIMAL_LOSS = 1.02


class Cells(NamedTuple):
    """What was selected in each cell: arrays (cells,), ordered by r, then p.

    `norm` and `superposition` are of the extra feature; `length_ratio` is the norm of the shortest feature
    over that of the longest.
    """

    n_features: int
    r: Array
    p: Array
    norm: Array
    superposition: Array
    length_ratio: Array

    @property
    def amplitude(self) -> Array:
        """The interference amplitude: the square root of the superposition, averaged before the root."""
        return np.sqrt(self.superposition)

    def cut(self, r: float) -> "Cells":
        """The cells at that r, from dense to sparse.

        Raises:
            ValueError: if there are fewer than two.
        """
        here = np.flatnonzero(np.isclose(self.r, r, rtol=1e-6, atol=0))[::-1]
        if len(here) < 2:
            raise ValueError(f"r: a cut needs at least 2 densities, and r = {r:g} has {len(here)}")
        return Cells(self.n_features, *(column[here] for column in self[1:]))


def cells(table: pd.DataFrame, part: str, selection: Selection = "published") -> Cells:
    """The selected networks of each cell of a part.

    Raises:
        ValueError: if the part is absent, a selected network has diverged, or a cell has a single network and
            the selection leaves one out.
    """
    column = _columns(table, part)
    n_features = int(column("n_features")[0])
    order = np.lexsort((column("seed"), column("loss"), column("density"), column("extra_importance")))
    r, p = column("extra_importance")[order], column("density")[order]
    first = np.flatnonzero(np.r_[True, (np.diff(r) != 0) | (np.diff(p) != 0)])
    count = np.diff(np.r_[first, len(r)])
    norms = np.stack([column(f"feature_norm_{i}")[order] for i in range(n_features)])
    values = np.stack(
        [norms[-1], column(f"superposition_{n_features - 1}")[order], norms.min(axis=0) / norms.max(axis=0)]
    )
    if selection == "best":
        chosen = values[:, first]
    elif selection == "published":
        if count.min() < 2:
            raise ValueError(f"part {part!r}: leaving out the highest loss needs at least 2 seeds per cell")
        values[:, first + count - 1] = 0
        chosen = np.add.reduceat(values, first, axis=1) / (count - 1)
    else:
        raise ValueError(f"selection: expected published or best, got {selection!r}")
    if not np.isfinite(chosen).all():
        raise ValueError(f"part {part!r}: a selected network has diverged")
    return Cells(n_features, r[first], p[first], *chosen)


def _columns(table: pd.DataFrame, part: str) -> Callable[[str], Array]:
    rows = np.asarray(table["part"] == part)
    if not rows.any():
        raise ValueError(f"part {part!r}: the table has no such networks")
    return lambda name: np.asarray(table[name], dtype=float)[rows]


def phase(norm: ArrayLike, superposition: ArrayLike) -> NDArray[np.intp]:
    """The `Phase` of a feature: not learned, in superposition, or dedicated.

    Not learned below a norm of 1/2, else in superposition above a superposition of 1/4. A choice, as the
    paper has a continuous colour map. An interference amplitude of 1/2 is the mirror image of a norm of 1/2
    under r -> 1/r, so its square is the bound on the superposition.
    """
    learned = np.where(np.asarray(superposition) > LARGE_AMPLITUDE**2, Phase.SUPERPOSITION, Phase.DEDICATED)
    return np.where(np.asarray(norm) < LEARNED_NORM, Phase.NOT_LEARNED, learned)


def agreement(
    table: pd.DataFrame, part: str, selection: Selection = "published", decided: bool = False
) -> "pd.Series[bool]":
    """Whether the trained phase is that of the theory's best configuration, for each cell (r, p).

    Args:
        table: the instances
        part: `two_features` or `three_features`
        selection: which networks of a cell
        decided: only the cells where the two lowest theoretical losses differ by more than 20 % of the lowest

    Raises:
        ValueError: as `cells`.
    """
    found = cells(table, part, selection)
    agrees = phase(found.norm, found.superposition) == best_phase(found.n_features, found.r, found.p)
    index = pd.MultiIndex.from_arrays([found.r, found.p], names=["extra_importance", "density"])
    result = pd.Series(agrees, index=index)
    return result[relative_gap(found.n_features, found.r, found.p) > DECIDED_GAP] if decided else result


def boundary(table: pd.DataFrame, r: float, selection: Selection = "published") -> float:
    """The density, in part `cuts`, below which both of two features are represented.

    From dense to sparse, where for r < 1 the norm of the extra feature, and for r > 1 its interference
    amplitude, first rises through 1/2; linear in log p between neighbouring densities. A choice: the paper
    draws no boundary. Where only some networks have changed phase the two differ, as the amplitude is the
    root of a mean square: with pairs of .74 it is crossed once 46 % of them have, the norm at 68 %.

    Raises:
        ValueError: for r = 1, if the value is 1/2 already at the highest density, or if it is never reached;
            and as `cells`.
    """
    return _crossing(cells(table, "cuts", selection), r)


def _crossing(found: Cells, r: float) -> float:
    if math.isclose(r, 1, rel_tol=1e-6):
        raise ValueError("r: the boundary is defined for importances other than 1")
    cut = found.cut(r)
    value, bound = (cut.norm, LEARNED_NORM) if r < 1 else (cut.amplitude, LARGE_AMPLITUDE)
    above = np.flatnonzero(value >= bound)
    if not len(above):
        raise ValueError(f"r = {r:g}: no density has both features represented")
    i = above[0]
    if i == 0:
        raise ValueError(f"r = {r:g}: both features are represented already at the highest density")
    share = (bound - value[i - 1]) / (value[i] - value[i - 1])
    return float(cut.p[i - 1] * (cut.p[i] / cut.p[i - 1]) ** share)


def boundary_log_ratio(
    table: pd.DataFrame,
    reference: Literal["published", "theory", "exact"],
    selection: Selection = "published",
) -> float:
    """The mean of log(boundary / reference) over the eight importances of the cuts other than 1.

    Args:
        table: the instances
        reference: `published`, the paper's empirical panel; `theory`, the crossing of the closed-form losses;
            `exact`, the exact optimum, with biases and lengths
        selection: which networks of a cell

    Raises:
        ValueError: as `boundary`.
    """
    found = cells(table, "cuts", selection)
    references = {
        "published": PUBLISHED_BOUNDARY,
        "theory": {r: float(theory_boundary(r, 2)) for r in PUBLISHED_BOUNDARY},
        "exact": EXACT_BOUNDARY,
    }
    if reference not in references:
        raise ValueError(f"reference: expected one of {', '.join(references)}, got {reference!r}")
    at = references[reference]
    return float(np.mean([math.log(_crossing(found, r) / at[r]) for r in at if r != 1]))


def largest_step(table: pd.DataFrame, r: float, selection: Selection = "best") -> float:
    """The largest change of the weights between neighbouring densities of a cut: a jump, or a slope.

    Of the length ratio, the norm of the shorter feature over that of the longer, in part `cuts`. It is the
    same under r -> 1/r, and at r = 1 whichever feature is the longer. The exact optimum's is `optimum_step`.

    Raises:
        ValueError: as `cells`, or if the cut has fewer than two densities.
    """
    return float(np.abs(np.diff(cells(table, "cuts", selection).cut(r).length_ratio)).max())


def superposition_when_dense(table: pd.DataFrame, part: str, selection: Selection = "published") -> float:
    """The largest superposition of a learned extra feature, norm at least 1/2, at density 1.

    Raises:
        ValueError: if the part has no cell of density 1 with a learned extra feature; and as `cells`.
    """
    found = cells(table, part, selection)
    learned = np.isclose(found.p, 1, rtol=1e-6, atol=0) & (found.norm >= LEARNED_NORM)
    if not learned.any():
        raise ValueError(f"part {part!r}: no extra feature is learned at density 1")
    return float(found.superposition[learned].max())


def at_optimum(
    table: pd.DataFrame, quantity: Literal["norm", "superposition"], r: float, density: float
) -> float:
    """The norm or superposition of the extra feature, part `cuts`: the mean over networks at the optimum.

    Raises:
        ValueError: if the part has no networks of that importance and density, or for any other quantity.
    """
    columns = {"norm": "feature_norm_1", "superposition": "superposition_1"}
    if quantity not in columns:
        raise ValueError(f"quantity: expected one of {', '.join(columns)}, got {quantity!r}")
    return float(_at_optimum(table, "cuts", r, density)[columns[quantity]].mean())


def confused_product(table: pd.DataFrame, density: float) -> float:
    """The product of the two weights of networks without bias, part `no_bias`: 1/2 for a confused feature.

    The mean over the networks at the optimum.

    Raises:
        ValueError: if the part has no networks of that density.
    """
    weight = _without_bias(table, density)
    return float(np.mean(weight[:, 0] * weight[:, 1]))


def confused_loss(table: pd.DataFrame, density: float) -> float:
    """The population loss, by quadrature, of the networks of `confused_product`: a mean of theirs.

    Raises:
        ValueError: if the part has no networks of that density.
    """
    weight = _without_bias(table, density)
    return float(population_loss(weight[:, None], np.zeros(2), 1, density).mean())


def _without_bias(table: pd.DataFrame, density: float) -> Array:
    found = _at_optimum(table, "no_bias", 1.0, density)
    return found[["weight_0_0", "weight_0_1"]].to_numpy(dtype=float)


def _at_optimum(table: pd.DataFrame, part: str, r: float, density: float) -> pd.DataFrame:
    """The networks of a cell that found the optimum: whose loss is within 2 % of the lowest.

    A mean over all would count networks stuck in another phase, which without bias, at p = .6, have 5 % more
    loss; a single best network or a median would not be smooth in the seeds, as the jackknife needs.
    """
    found = table[table["part"] == part]
    for name, value in (("extra_importance", r), ("density", density)):
        found = found[np.isclose(found[name].to_numpy(dtype=float), value, rtol=1e-6, atol=0)]
    if found.empty:
        raise ValueError(f"part {part!r}: no network at r = {r:g}, p = {density:g}")
    best: pd.DataFrame = found[found["loss"] <= OPTIMAL_LOSS * found["loss"].min()]
    return best


class Diagram(NamedTuple):
    """A phase diagram: the extra feature's norm and superposition, shape (densities, importances).

    NaN where the table has no network.
    """

    r: Array
    p: Array
    norm: Array
    superposition: Array


def diagram(table: pd.DataFrame, part: str, selection: Selection = "published") -> Diagram:
    """The selected networks of a part as a grid, both axes ascending.

    Raises:
        ValueError: as `cells`.
    """
    found = cells(table, part, selection)
    (r, column), (p, row) = (np.unique(axis, return_inverse=True) for axis in (found.r, found.p))
    norm, superposition = np.full((2, len(p), len(r)), np.nan)
    norm[row, column], superposition[row, column] = found.norm, found.superposition
    return Diagram(r, p, norm, superposition)


NOT_LEARNED = (0.8, 0.8, 0.8)


def colour(norm: ArrayLike, superposition: ArrayLike) -> Array:
    """The colours of a phase diagram, shape (..., 3): grey not learned, blue dedicated, red in superposition.

    Bilinear in norm and superposition, both clipped to [0, 1]; white where they are NaN.
    """
    learned, shared = (np.clip(np.asarray(a, float), 0, 1)[..., None] for a in (norm, superposition))
    grey, blue, red = (np.array(rgb) for rgb in (NOT_LEARNED, BLUE, RED))
    rgb = (1 - learned) * grey + learned * ((1 - shared) * blue + shared * red)
    return np.asarray(np.where(np.isnan(rgb), 1.0, rgb))


_MARKER: dict[str, Any] = {
    "marker": "o", "linestyle": "none", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": INK,
    "markeredgewidth": 0.8,
}  # fmt: skip
_IDEAL = {Phase.NOT_LEARNED: (0, 0), Phase.SUPERPOSITION: (1, 1), Phase.DEDICATED: (1, 0)}


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """The figures of the parts that the table has.

    `two_features` and `three_features`: the diagrams of both selections beside the theory's. `cuts`: norm
    and interference amplitude of the extra feature along the density.

    Raises:
        ValueError: as `cells`.
    """
    parts = set(table["part"].unique())
    drawn = {p: _diagram_figure(table, p) for p in ("two_features", "three_features") if p in parts}
    return {**drawn, **({"cuts": _cuts_figure(table)} if "cuts" in parts else {})}


def _diagram_figure(table: pd.DataFrame, part: str) -> Figure:
    n = int(_columns(table, part)("n_features")[0])
    figure = Figure(figsize=(10, 3.3))
    grid = figure.add_gridspec(
        2, 4, width_ratios=(1, 1, 1, 0.42), height_ratios=(1, 1.1), left=0.055, right=0.99, bottom=0.14,
        top=0.91, wspace=0.12, hspace=0.35,
    )  # fmt: skip
    first = figure.add_subplot(grid[:, 0])
    panels = [first, *(figure.add_subplot(grid[:, i], sharex=first, sharey=first) for i in (1, 2))]
    titles = {"published": "mean without the worst network", "best": "best network"}
    for axes, selection in zip(panels, _SELECTIONS, strict=False):
        shown = diagram(table, part, selection)
        rgb = colour(shown.norm, shown.superposition)
        axes.pcolormesh(_edges(shown.r), _edges(shown.p), rgb, rasterized=True)
        axes.set_title(f"n = {n}, m = {n - 1}: {titles[selection]}", fontsize=NORMAL, color=INK)
    r, p = np.geomspace(0.1, 10, 401), np.geomspace(0.01, 1, 401)
    phases = best_phase(n, *np.meshgrid(r, p))
    norm, superposition = np.moveaxis(np.array([_IDEAL[phase] for phase in Phase])[phases], -1, 0)
    panels[-1].pcolormesh(_edges(r), _edges(p), colour(norm, superposition), rasterized=True)
    panels[-1].set_title("Theory: the configuration of lowest loss", fontsize=NORMAL, color=INK)

    for axes in panels:
        _draw_theory(axes, n)
        _log_axis(axes, "x", (0.1, 1, 10))
        _log_axis(axes, "y", (0.01, 0.1, 1))
        axes.set(xlim=(0.1, 10), ylim=(1, 0.01))
        axes.set_xlabel("Relative importance of the extra feature, r", fontsize=NORMAL, color=INK)
        axes.tick_params(labelleft=axes is first)
    if n == 2:
        for axes in panels[:2]:
            _draw_two_feature_references(axes)
    first.set_ylabel("Feature density, p = 1 - S  (sparser upwards)", fontsize=NORMAL, color=INK)
    _colour_key(figure.add_subplot(grid[0, 3]))
    key = figure.add_subplot(grid[1, 3])
    key.set_axis_off()
    key.legend(
        handles=_references()[: 3 if n == 2 else 1], title="Boundary", loc="upper left",
        bbox_to_anchor=(-0.25, 0.95), frameon=False, fontsize=SMALL, title_fontsize=SMALL, handlelength=1.8,
        alignment="left",
    )  # fmt: skip
    return figure


def _draw_theory(axes: Axes, n_features: int) -> None:
    r = np.geomspace(0.1, 10, 401)
    # with three features the boundary of r > 1 is inside the phase of a dedicated extra feature
    r, lowest = (r, TRIPLE_POINT[1]) if n_features == 2 else (r[r <= 1], 0.01)
    axes.plot(r, theory_boundary(r, n_features), color=INK, linewidth=0.9)
    axes.plot((1, 1), (1, lowest), color=INK, linewidth=0.9)


def _draw_two_feature_references(axes: Axes) -> None:
    r = np.array([0.1, 0.178, 0.316, 0.562, 0.75, 0.9, 1.0])
    p = np.array([exact_boundary(float(at)) for at in r])
    axes.plot(np.r_[r, 1 / r[::-1]], np.r_[p, p[::-1]], color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.plot(list(PUBLISHED_BOUNDARY), list(PUBLISHED_BOUNDARY.values()), **_MARKER, clip_on=False, zorder=3)


def _colour_key(axes: Axes) -> None:
    norm, superposition = np.meshgrid(np.linspace(0, 1, 65), np.linspace(0, 1, 65))
    axes.imshow(colour(norm, superposition), origin="lower", extent=(0, 1, 0, 1))
    axes.set_xlabel("norm", fontsize=SMALL, color=INK, labelpad=0)
    axes.set_ylabel("superposition", fontsize=SMALL, color=INK, labelpad=0)
    axes.set(xticks=(0, 1), yticks=(0, 1))
    axes.tick_params(labelsize=SMALL, length=2, colors=INK)
    axes.set_title("Extra feature", fontsize=SMALL, color=INK)


def _cuts_figure(table: pd.DataFrame) -> Figure:
    averaged, best = (cells(table, "cuts", selection) for selection in _SELECTIONS)
    there = np.unique(best.r)
    shown = [r for r in (0.1, 0.316, 1.0, 3.16, 10.0) if np.isclose(there, r, rtol=1e-6).any()]
    shown = shown or [float(r) for r in there[:5]]
    figure = Figure(figsize=(7.4, 3.5))
    axes = figure.subplots(2, len(shown), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.095, right=0.985, bottom=0.235, top=0.925, wspace=0.2, hspace=0.12)
    for r, pair in zip(shown, axes.T, strict=True):
        for found, ink, width in ((averaged, "0.62", 2.4), (best, BLUE, 1.2)):
            cut = found.cut(r)
            for panel, value in zip(pair, (cut.norm, cut.amplitude), strict=True):
                panel.plot(cut.p, value, color=ink, linewidth=width)
        for panel in pair:
            panel.axvline(float(theory_boundary(r, 2)), color=INK, linewidth=0.9)
            if 0.1 <= r <= 10:
                panel.axvline(exact_boundary(r), color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
            if r in PUBLISHED_BOUNDARY:
                panel.plot(PUBLISHED_BOUNDARY[r], 1.27, **_MARKER)
            _log_axis(panel, "x", (0.1, 1))
            panel.set(xlim=(1, 0.1), ylim=(0, 1.4))
            panel.set_yticks((0, 0.5, 1), labels=("0", ".5", "1"), fontsize=SMALL, color=INK)
            panel.spines[["top", "right"]].set_visible(False)
        pair[0].set_title(f"r = {short(r)}", fontsize=NORMAL, color=INK)
        pair[0].tick_params(labelbottom=False)
    axes[0, 0].set_ylabel("Norm", fontsize=NORMAL, color=INK)
    axes[1, 0].set_ylabel("Interference\namplitude", fontsize=NORMAL, color=INK)
    figure.supxlabel(
        "Feature density, p = 1 - S  (sparser to the right)", fontsize=NORMAL, color=INK, x=0.535, y=0.105
    )
    trained = [
        Line2D([], [], color=BLUE, linewidth=1.2, label="trained, lowest loss"),
        Line2D([], [], color="0.62", linewidth=2.4, label="trained, mean without the worst"),
    ]
    figure.legend(
        handles=[*trained, *_references()], loc="lower center", bbox_to_anchor=(0.535, 0.0), ncols=5,
        frameon=False, fontsize=SMALL, handlelength=1.8, columnspacing=1.4,
    )  # fmt: skip
    return figure


def _references() -> list[Line2D]:
    return [
        Line2D([], [], color=INK, linewidth=0.9, label="theory"),
        Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 2)), label="exact optimum"),
        Line2D([], [], label="published", **_MARKER),
    ]


def _log_axis(axes: Axes, which: Literal["x", "y"], ticks: Sequence[float]) -> None:
    """Make an axis logarithmic, with these numbers written at its major ticks."""
    scale, axis = (axes.set_xscale, axes.xaxis) if which == "x" else (axes.set_yscale, axes.yaxis)
    scale("log")
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="both", colors=INK)
    axis.set_tick_params(which="major", labelsize=SMALL)


def _edges(centres: Array) -> Array:
    """The edges of cells about these centres, halfway on a logarithmic axis."""
    if len(centres) == 1:
        return np.asarray(centres * [1 / 1.1, 1.1])
    logs = np.log(centres)
    middles = (logs[1:] + logs[:-1]) / 2
    return np.asarray(np.exp(np.r_[2 * logs[0] - middles[0], middles, 2 * logs[-1] - middles[-1]]))
