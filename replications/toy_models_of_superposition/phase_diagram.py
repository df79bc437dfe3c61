"""The sparsity phase diagrams of Elhage et al. 2022: estimates from trained networks.

The table has one row per trained network; `phase_diagram_cells` says which of them a selection takes. The
extra feature is the last one; its relative importance is r, the density p = 1 - S.
Source: arXiv 2209.10652, "Superposition as a phase change".
"""

import math
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from replications.toy_models_of_superposition.phase_diagram_cells import Array, Cells, Selection, cells
from replications.toy_models_of_superposition.phase_diagram_figures import figures
from replications.toy_models_of_superposition.phase_diagram_theory import (
    Phase,
    best_phase,
    boundary_error,
    closed_form_error,
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
    "confused_loss",
    "confused_product",
    "figures",
    "largest_step",
    "phase",
    "superposition_when_dense",
    "triple_point_error",
]

PUBLISHED_BOUNDARY = {
    0.1: 0.173, 0.178: 0.279, 0.316: 0.395, 0.562: 0.516,
    1.78: 0.510, 3.16: 0.386, 5.62: 0.263, 10.0: 0.168,
}  # fmt: skip
"""Density by r of the boundary in the paper's empirical panel for n = 2, as the claims have it."""

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


def phase(norm: ArrayLike, superposition: ArrayLike) -> NDArray[np.intp]:
    """The `Phase` of a feature: not learned, in superposition, or dedicated.

    Not learned below a norm of 1/2, else in superposition above a superposition of 1/4. This is our choice;
    the paper has a continuous colour map. An interference amplitude of 1/2 is the mirror image of a norm of
    1/2 under r -> 1/r, so its square is the bound on the superposition.
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
    amplitude, first rises through 1/2; linear in log p between neighbouring densities. This is our choice:
    the paper draws no boundary. Where only some networks have changed phase the two differ, as the amplitude
    is the root of a mean square: with pairs of 0.74 it is crossed once 46 % of them have, the norm at 68 %.

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
    return float(np.mean([math.log(_crossing(found, r) / at[r]) for r in at]))


def largest_step(table: pd.DataFrame, r: float, selection: Selection = "best") -> float:
    """The largest change of the weights between neighbouring densities of a cut: a jump, or a slope.

    Change of the length ratio, the norm of the shorter feature over that of the longer, in part `cuts`. It
    is the same under r -> 1/r, and at r = 1 whichever feature is the longer. The exact optimum's is
    `optimum_step`.

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
    """The mean population loss, by quadrature, of the networks of `confused_product`.

    Raises:
        ValueError: if the part has no networks of that density.
    """
    weight = _without_bias(table, density)
    return float(population_loss(weight[:, None], np.zeros(2), 1, density).mean())


def _without_bias(table: pd.DataFrame, density: float) -> Array:
    found = _at_optimum(table, "no_bias", 1.0, density)
    return found[["weight_0_0", "weight_0_1"]].to_numpy(dtype=float)


def _at_optimum(table: pd.DataFrame, part: str, r: float, density: float) -> pd.DataFrame:
    """The networks of a cell that found the optimum: those with a loss within 2 % of the lowest.

    A mean over all would count networks stuck in another phase, which without bias, at p = 0.6, have 5 % more
    loss; a single best network or a median would not be smooth in the seeds, as the jackknife needs.
    """
    found = table[table["part"] == part]
    for name, value in (("extra_importance", r), ("density", density)):
        found = found[np.isclose(found[name].to_numpy(dtype=float), value, rtol=1e-6, atol=0)]
    if found.empty:
        raise ValueError(f"part {part!r}: no network at r = {r:g}, p = {density:g}")
    best: pd.DataFrame = found[found["loss"] <= OPTIMAL_LOSS * found["loss"].min()]
    return best
