"""Whether the weight that wins starts ahead: estimates, and the heat map of start and end weights.

The table has one row per trained network, with the columns of `model.StartCorrelation.metrics`.
Source: Lecomte et al. 2023, "Experiments".
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.verdicts.claims import Claims
from replications.incidental_polysemanticity.model import SHOWN_FEATURES
from replications.incidental_polysemanticity.winners import share

Array = NDArray[np.float64]


def aligned(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each feature's winner has the sign that it started with."""
    return share(table["aligned_features"], table["n_features"])


def largest_wins(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each feature's winner is the weight that was largest at the start."""
    return share(table["largest_wins"], table["n_features"])


def heat_map(table: pd.DataFrame) -> Array:
    """Products of the start weights of feature i and the end weights of feature j, mean over networks."""
    columns = [f"product_{i}_{j}" for i in range(SHOWN_FEATURES) for j in range(SHOWN_FEATURES)]
    mean = np.asarray(table[columns], dtype=float).mean(axis=0)
    return np.asarray(mean.reshape(SHOWN_FEATURES, SHOWN_FEATURES))


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The heat map of the first features; its colour scale ends at the published diagonal plus its error."""
    diagonal = claims.published("diagonal")
    figure = Figure(figsize=(5.4, 4.4))
    axes = figure.add_subplot()
    sns.heatmap(
        heat_map(table), vmin=0, vmax=diagonal.value + diagonal.half_width, cmap="viridis", square=True,
        xticklabels=5, yticklabels=5, ax=axes,
        cbar_kws={"label": "product of start weights of i and end weights of j", "extend": "both"},
    )  # fmt: skip
    axes.set(
        title=f"Mean of {len(table)} networks, m = {table['n_hidden'].iloc[0]}",
        xlabel=f"feature j at the end (the first {SHOWN_FEATURES})", ylabel="feature i at the start",
    )  # fmt: skip
    axes.tick_params(axis="y", rotation=0)
    return {"start_correlation": figure}
