"""Whether the weight that wins starts ahead: estimates and the heat map of start times end weights.

The table has one row per trained network, with the columns of `model.StartCorrelation.metrics`.
Source: Lecomte et al. 2023, "Experiments".
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.style import NORMAL, SMALL
from replications.incidental_polysemanticity.model import SHOWN_FEATURES
from replications.incidental_polysemanticity.winners import share

Array = NDArray[np.float64]

PUBLISHED_SCALE = 0.033
"""The end of the published colour scale."""


def aligned(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each feature's winner has the sign that it started with."""
    return share(table["aligned_features"], table["n_features"])


def largest_wins(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each feature's winner is the weight that was largest at the start."""
    return share(table["largest_wins"], table["n_features"])


def heat_map(table: pd.DataFrame) -> Array:
    """Start weights of feature i times end weights of feature j, mean over networks: (shown, shown)."""
    columns = [f"product_{i}_{j}" for i in range(SHOWN_FEATURES) for j in range(SHOWN_FEATURES)]
    mean = np.asarray(table[columns], dtype=float).mean(axis=0)
    return np.asarray(mean.reshape(SHOWN_FEATURES, SHOWN_FEATURES))


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """The heat map of the first features, on the published colour scale."""
    figure = Figure(figsize=(5.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(heat_map(table), vmin=0, vmax=PUBLISHED_SCALE, cmap="viridis")
    bar = figure.colorbar(image, ax=axes, extend="both")
    bar.set_label("start weights of i · end weights of j", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    axes.set_xlabel(f"feature j at the end (the first {SHOWN_FEATURES})", fontsize=NORMAL)
    axes.set_ylabel("feature i at the start", fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL)
    axes.set_title(f"Mean of {len(table)} networks, m = {table['n_hidden'].iloc[0]}", fontsize=NORMAL)
    return {"start_correlation": figure}
