"""The figures of the sparsity phase diagrams of Elhage et al. 2022.

Source: arXiv 2209.10652, "Superposition as a phase change".
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from common.style import BLUE, GREY, INK, RED, number
from common.verdicts.claims import Claims
from replications.toy_models_of_superposition.phase_diagram_cells import (
    Array,
    Selection,
    cells,
    diagram,
)
from replications.toy_models_of_superposition.phase_diagram_theory import (
    TRIPLE_POINT,
    Phase,
    best_phase,
    exact_boundary,
    theory_boundary,
)

PUBLISHED_AT_ONE = 0.70
"""Density of the published boundary at r = 1, read off the figure to ±0.01; no claim uses it."""

_SELECTIONS: dict[Selection, str] = {
    "published": "mean without the worst network",
    "best": "network with the lowest loss",
}
_IDEAL = {Phase.NOT_LEARNED: (0, 0), Phase.SUPERPOSITION: (1, 1), Phase.DEDICATED: (1, 0)}
_THEORY: dict[str, Any] = {"color": INK, "linewidth": 0.9}
_EXACT: dict[str, Any] = {**_THEORY, "linestyle": (0, (4, 2))}
_MARK: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": INK, "markerfacecolor": "white"}


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The figures of the parts that the table has.

    `two_features` and `three_features`: the diagrams of both selections beside the theory's. `cuts`: norm
    and interference amplitude of the extra feature along the density.

    Raises:
        ValueError: as `cells`.
    """
    parts = set(table["part"].unique())
    published = published_boundary(claims)
    drawn = {}
    for part, n_features in (("two_features", 2), ("three_features", 3)):
        if part in parts:
            drawn[part] = _diagrams(table, part, n_features, published)
    if "cuts" in parts:
        drawn["cuts"] = _cuts(table, published)
    return drawn


def published_boundary(claims: Claims) -> dict[float, float]:
    """Density by r of the boundary in the paper's empirical panel for n = 2."""
    found = {1.0: PUBLISHED_AT_ONE}
    for claim in claims.values():
        if claim.published and claim.estimate.function == "boundary":
            found[float(claim.estimate.args["r"])] = claim.published.value
    return dict(sorted(found.items()))


def _diagrams(table: pd.DataFrame, part: str, n: int, published: dict[float, float]) -> Figure:
    figure = Figure(figsize=(10, 3.5))
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 0.42))
    first = figure.add_subplot(grid[:, 0], xscale="log", yscale="log", xlim=(0.1, 10), ylim=(1, 0.01))
    panels = [first, *(figure.add_subplot(grid[:, i], sharex=first, sharey=first) for i in (1, 2))]
    for axes, (selection, title) in zip(panels, _SELECTIONS.items(), strict=False):
        shown = diagram(table, part, selection)
        rgb = colour(shown.norm, shown.superposition)
        axes.pcolormesh(_edges(shown.r), _edges(shown.p), rgb, rasterized=True)
        axes.set_title(title.capitalize())
    r, p = np.geomspace(0.1, 10, 401), np.geomspace(0.01, 1, 401)
    phases = best_phase(n, *np.meshgrid(r, p))
    norm, superposition = np.moveaxis(np.array([_IDEAL[phase] for phase in Phase])[phases], -1, 0)
    panels[-1].pcolormesh(_edges(r), _edges(p), colour(norm, superposition), rasterized=True)
    panels[-1].set_title("Theory: lowest loss")
    for axes in panels:
        _draw_theory(axes, n)
        axes.label_outer()
    first.set_ylabel("Feature density, p = 1 - S")
    figure.supxlabel("Relative importance of the extra feature, r")
    number(first.xaxis, (0.1, 1, 10))
    number(first.yaxis, (0.01, 0.1, 1))
    if n == 2:
        for axes in panels[:2]:
            _draw_exact_optimum(axes)
            axes.plot(list(published), list(published.values()), **_MARK, clip_on=False, zorder=3)
    _colour_key(figure.add_subplot(grid[0, 3]))
    key = figure.add_subplot(grid[1, 3])
    key.set_axis_off()
    key.legend(
        handles=_references()[: 3 if n == 2 else 1], title="Boundary", loc="upper left", alignment="left"
    )
    figure.suptitle(f"{n} features in {n - 1} dimension{'s' if n > 2 else ''}, sparser upwards")
    return figure


def _draw_theory(axes: Axes, n_features: int) -> None:
    r = np.geomspace(0.1, 10, 401)
    # with three features the boundary of r > 1 is inside the phase of a dedicated extra feature
    r, lowest = (r, TRIPLE_POINT[1]) if n_features == 2 else (r[r <= 1], 0.01)
    axes.plot(r, theory_boundary(r, n_features), **_THEORY)
    axes.plot((1, 1), (1, lowest), **_THEORY)


def _draw_exact_optimum(axes: Axes) -> None:
    r = np.array([0.1, 0.178, 0.316, 0.562, 0.75, 0.9, 1.0])
    p = np.array([exact_boundary(float(at)) for at in r])
    axes.plot(np.r_[r, 1 / r[::-1]], np.r_[p, p[::-1]], **_EXACT)


def _colour_key(axes: Axes) -> None:
    norm, superposition = np.meshgrid(np.linspace(0, 1, 65), np.linspace(0, 1, 65))
    axes.imshow(colour(norm, superposition), origin="lower", extent=(0, 1, 0, 1))
    axes.set(title="Extra feature", xlabel="norm", ylabel="superposition", xticks=(0, 1), yticks=(0, 1))


def _cuts(table: pd.DataFrame, published: dict[float, float]) -> Figure:
    averaged, best = (cells(table, "cuts", selection) for selection in _SELECTIONS)
    there = np.unique(best.r)
    shown = [r for r in (0.1, 0.316, 1.0, 3.16, 10.0) if np.isclose(there, r, rtol=1e-6).any()]
    shown = shown or [float(r) for r in there[:5]]
    figure = Figure(figsize=(7.4, 3.7))
    grid = figure.subplots(2, len(shown), sharex=True, sharey=True, squeeze=False)
    for r, pair in zip(shown, grid.T, strict=True):
        for found, ink, width in ((averaged, GREY, 2.4), (best, BLUE, 1.2)):
            cut = found.cut(r)
            for axes, value in zip(pair, (cut.norm, cut.amplitude), strict=True):
                axes.plot(cut.p, value, color=ink, linewidth=width)
        for axes in pair:
            axes.axvline(float(theory_boundary(r, 2)), **_THEORY)
            if 0.1 <= r <= 10:
                axes.axvline(exact_boundary(r), **_EXACT)
            if r in published:
                axes.plot(published[r], 1.27, **_MARK)
        pair[0].set_title(f"r = {r:g}")
    grid[0, 0].set(xscale="log", xlim=(1, 0.1), ylim=(0, 1.4), ylabel="Norm")
    grid[1, 0].set_ylabel("Interference\namplitude")
    number(grid[0, 0].xaxis, (0.1, 1))
    number(grid[0, 0].yaxis, (0, 0.5, 1))
    figure.supxlabel("Feature density, p = 1 - S  (sparser to the right)")
    trained = [
        Line2D([], [], color=BLUE, label="trained, lowest loss"),
        Line2D([], [], color=GREY, linewidth=2.4, label="trained, mean without the worst"),
    ]
    figure.legend(handles=[*trained, *_references()], loc="outside upper center", ncols=5)
    return figure


def _references() -> list[Line2D]:
    return [
        Line2D([], [], label="theory", **_THEORY),
        Line2D([], [], label="exact optimum", **_EXACT),
        Line2D([], [], label="published", **_MARK),
    ]


NOT_LEARNED = (0.8, 0.8, 0.8)


def colour(norm: ArrayLike, superposition: ArrayLike) -> Array:
    """The colours of a phase diagram, shape (..., 3): grey not learned, blue dedicated, red in superposition.

    Bilinear in norm and superposition, both clipped to [0, 1]; white where they are NaN.
    """
    learned, shared = (np.clip(np.asarray(a, float), 0, 1)[..., None] for a in (norm, superposition))
    grey, blue, red = (np.array(rgb) for rgb in (NOT_LEARNED, BLUE, RED))
    rgb = (1 - learned) * grey + learned * ((1 - shared) * blue + shared * red)
    return np.asarray(np.where(np.isnan(rgb), 1.0, rgb))


def _edges(centres: Array) -> Array:
    """The edges of cells about these centres, halfway on a logarithmic axis."""
    if len(centres) == 1:
        return np.asarray(centres * [1 / 1.1, 1.1])
    logs = np.log(centres)
    middles = (logs[1:] + logs[:-1]) / 2
    return np.asarray(np.exp(np.r_[2 * logs[0] - middles[0], middles, 2 * logs[-1] - middles[-1]]))
