"""The cells of the sparsity phase diagrams: which trained networks represent an importance and a density.

The table has one row per trained network, in the parts `two_features` and `three_features` (the diagrams),
`cuts` (two features, fine in density at a few importances) and `no_bias`. A cell is all networks, one per
seed, of the same part, importance and density. The extra feature is the last one; its relative importance is
r, the density p = 1 - S. Of the networks in a cell, the selection

- `published` leaves out the one with the highest loss and averages norm and superposition over the others.
  What the paper averages is not stated; these two do not depend on the sign of the weights;
- `best` takes the one with the lowest loss, as the paper advises where networks get stuck.

Source: Elhage et al. 2022, arXiv 2209.10652, "Superposition as a phase change".
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Selection = Literal["published", "best"]


class Cells(NamedTuple):
    """The selected values of each cell: arrays (cells,), ordered by r, then p.

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
    column = columns(table, part)
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


def columns(table: pd.DataFrame, part: str) -> Callable[[str], Array]:
    """The columns of a part by name, as arrays (networks,).

    Raises:
        ValueError: if the part is absent.
    """
    rows = np.asarray(table["part"] == part)
    if not rows.any():
        raise ValueError(f"part {part!r}: the table has no such networks")
    return lambda name: np.asarray(table[name], dtype=float)[rows]


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
