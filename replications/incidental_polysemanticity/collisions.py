"""How many neurons become polysemantic by chance, as a function of hidden width: estimates and the figure.

The table has one row per trained network, with its n_features (n), its n_hidden (m) and counts of its winners
(`winners`). Source: Lecomte et al. 2023, "Experiments"; numbers read off the figure.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from common.style import GREY, INK, PUBLISHED_MARK, number
from common.verdicts.claims import Claims
from replications.incidental_polysemanticity.winners import share

Array = NDArray[np.float64]

PUBLISHED_NETWORKS = 16
READING_ERROR = 0.005
"""The relative error of a published mean, as the 95 % half width of reading it off the figure."""

PUBLISHED = {
    256: (72.6, 4.04), 512: (23.9, 3.86), 768: (13.7, 2.94), 1024: (10.06, 3.81), 1280: (8.38, 2.60),
    1536: (8.13, 3.11), 1792: (6.13, 2.04), 2048: (5.37, 2.06), 2304: (5.00, 2.45), 2560: (4.85, 1.83),
    2816: (4.16, 1.19), 3072: (3.81, 1.51), 3328: (3.31, 2.32), 3584: (3.50, 2.21), 3840: (3.56, 1.54),
    4096: (3.81, 1.78),
}  # fmt: skip
"""By m, for n = 256: mean and standard deviation (divisor 16) of the count over 16 networks."""


def law(n_features: Array | float, n_hidden: Array | float) -> Array:
    """The paper's law for the number of polysemantic neurons: n^2 / 4m."""
    n, m = np.asarray(n_features, float), np.asarray(n_hidden, float)
    return np.asarray(n**2 / (4 * m))


class Counts(NamedTuple):
    """The counts at each width: arrays (widths,); the standard error of a single network is NaN."""

    n_features: Array
    n_hidden: Array
    mean: Array
    error: Array
    networks: Array


def counts(table: pd.DataFrame) -> Counts:
    """Mean number of polysemantic neurons at each width, with its standard error over networks."""
    grouped = table.groupby(["n_features", "n_hidden"])["polysemantic_neurons"]
    found = grouped.agg(["mean", "sem", "count"]).reset_index()
    return Counts(*(found[name].to_numpy(float) for name in found.columns))


def log_log_slope(table: pd.DataFrame) -> float:
    """The slope of log mean count on log m, by least squares.

    Raises:
        ValueError: if there are fewer than two widths, or one without polysemantic neurons.
    """
    found = counts(table)
    if len(found.mean) < 2 or not found.mean.all():
        raise ValueError("a slope needs two widths with polysemantic neurons")
    return float(np.polyfit(np.log(found.n_hidden), np.log(found.mean), 1)[0])


def law_constant(table: pd.DataFrame) -> float:
    """The geometric mean over widths of mean count / (n^2 / 4m).

    Raises:
        ValueError: if there is a width without polysemantic neurons.
    """
    found = counts(table)
    if not found.mean.all():
        raise ValueError("no polysemantic neuron at some width")
    return float(np.exp(np.log(found.mean / law(found.n_features, found.n_hidden)).mean()))


def fit_to_published(table: pd.DataFrame) -> float:
    """The p-value of the test that our means equal the published ones at all widths at once.

    Raises:
        ValueError: if no width was published, or a width has a single network.
    """
    found = _at_published_widths(table)
    pairs = [PUBLISHED[int(m)] for m in found.n_hidden]
    mean, sd = np.array(pairs).T
    reading = READING_ERROR * mean / stats.norm.ppf(0.975)
    theirs = sd**2 / (PUBLISHED_NETWORKS - 1) + reading**2
    return _joint_p(found.mean - mean, found.error**2, found.networks, theirs, PUBLISHED_NETWORKS)


def fit_to_law(table: pd.DataFrame) -> float:
    """The p-value of the test that our means equal n^2 / 4m at all published widths at once.

    Raises:
        ValueError: as `fit_to_published`.
    """
    found = _at_published_widths(table)
    expected = law(found.n_features, found.n_hidden)
    return _joint_p(found.mean - expected, found.error**2, found.networks, np.zeros_like(expected), 2)


def _at_published_widths(table: pd.DataFrame) -> Counts:
    here = (table["n_features"] == 256) & table["n_hidden"].isin(list(PUBLISHED))
    if not here.any():
        raise ValueError("none of the published widths")
    found = counts(table[here])
    if (found.networks < 2).any():
        raise ValueError("a width with a single network has no standard error")
    return found


def _joint_p(difference: Array, ours: Array, networks: Array, theirs: Array, their_networks: int) -> float:
    """The p-value of the test that differences of means, with these squared standard errors, are all 0.

    Welch's t at each width is converted to the normal score of the same p-value; the sum of squares has a
    chi-square distribution. Where all networks of a width agree, one is taken to differ by 1.
    """
    ours = np.maximum(ours, 1 / networks**2)
    variance = ours + theirs
    freedom = variance**2 / (ours**2 / (networks - 1) + theirs**2 / (their_networks - 1))
    tail = stats.t.logsf(np.abs(difference) / np.sqrt(variance), freedom)
    # the normal quantile of a tail too small for a float is taken at the smallest float
    score = stats.norm.isf(np.exp(np.maximum(tail, np.log(np.finfo(float).tiny))))
    return float(stats.chi2.sf((score**2).sum(), len(score)))


def near_zero_or_one(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each feature has only weights that are near 0 or of size 0.8 to 1.2."""
    return share(table["features_near_zero_or_one"], table["n_features"])


def one_winner(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each feature has exactly one weight of size 0.8 to 1.2."""
    return share(table["features_with_one_winner"], table["n_features"])


def not_crowded(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each feature's neuron has at most two features."""
    return share(table["n_features"] - table["crowded_features"], table["n_features"])


def opposite_signs(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each polysemantic neuron has just one positive and one negative winner."""
    return share(table["opposed_neurons"], table["polysemantic_neurons"])


def incidental(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each network has a polysemantic neuron, although there are enough neurons for all."""
    return pd.Series(table["polysemantic_neurons"].to_numpy() > 0)


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The mean number of polysemantic neurons against width, with the published means and the law."""
    found = counts(table)
    figure = Figure(figsize=(7, 4.2))
    axes = figure.add_subplot(xscale="log", yscale="log")
    widths = np.geomspace(found.n_hidden.min() * 0.93, found.n_hidden.max() * 1.07, 100)
    axes.plot(widths, law(found.n_features[0], widths), color=INK, label="law, n²/4m")
    published = {
        int(claim.estimate.at["n_hidden"]): claim.published
        for claim in claims.values()
        if claim.published and claim.estimate.metric == "polysemantic_neurons"
    }
    shown = [m for m in published if found.n_features[0] == 256 and widths[0] <= m <= widths[-1]]
    if shown:
        mean, half = np.array([(published[m].value, published[m].half_width) for m in shown]).T
        label = "published (mean of 16 networks)"
        axes.errorbar(np.array(shown) * 1.012, mean, half, color=GREY, label=label, **PUBLISHED_MARK)
    half = stats.t.ppf(0.975, np.maximum(found.networks - 1, 1)) * np.nan_to_num(found.error)
    label = f"estimate (mean of {found.networks.max():.0f} networks)"
    axes.errorbar(found.n_hidden / 1.012, found.mean, half, fmt="o", label=label)
    number(axes.xaxis, (256, 512, 1024, 2048, 4096))
    number(axes.yaxis, (1, 2, 3, 5, 10, 20, 50, 100))
    axes.set(xlabel="Number of neurons, m", ylabel="Polysemantic neurons (mean, 95 % interval)")
    axes.legend()
    return {"collisions": figure}
