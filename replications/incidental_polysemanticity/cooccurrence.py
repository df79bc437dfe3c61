"""Whether incidental polysemanticity decreases when features are on together: estimates and the figure.

The table has one row per trained network, with its n_features (n), n_hidden (m), l1, the probability p that
a feature is on, and the columns of `readers_model.SampledAutoencoder.metrics`. At p = 0 exactly one feature
is on at a time.
Source: a reader's question on Lecomte et al. 2023.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.statistics import fraction_interval, jackknife
from common.style import GREY, INK, number
from common.verdicts.claims import Claims
from replications.incidental_polysemanticity.winners import share

Array = NDArray[np.float64]


def count(table: pd.DataFrame, p: float) -> float:
    """The mean number of polysemantic neurons of the networks at p.

    Raises:
        ValueError: if there are none at p, here and in all functions of p.
    """
    return float(_at(table, p)["polysemantic_neurons"].mean())


def remaining(table: pd.DataFrame, p: float) -> float:
    """The mean number of polysemantic neurons at p as a share of that at p = 0.

    Raises:
        ValueError: if there are none at p = 0.
    """
    if not (basis := count(table, 0)):
        raise ValueError("no polysemantic neuron at p = 0")
    return count(table, p) / basis


def decrease(table: pd.DataFrame, p: float, per_pair: bool = False) -> float:
    """By how much the number of polysemantic neurons is lower at p than at p = 0.

    Args:
        table: the instances
        p: probability of a feature
        per_pair: the total number in units of the total of C^2/4m, with C a network's converged features: the
            paper's law for the features that could share a neuron

    Raises:
        ValueError: with `per_pair` if no feature converged.
    """
    measure = _per_pair if per_pair else count
    return measure(table, 0) - measure(table, p)


def _per_pair(table: pd.DataFrame, p: float) -> float:
    rows = _at(table, p)
    law = float((rows["converged_features"] ** 2 / (4 * rows["n_hidden"])).sum())
    if not law:
        raise ValueError(f"p = {p:g}: no feature converged")
    return float(rows["polysemantic_neurons"].sum()) / law


def converged(table: pd.DataFrame, p: float) -> "pd.Series[bool]":
    """Whether each feature at p has one winner and only weights near zero beside it."""
    rows = _at(table, p)
    return share(rows["converged_features"], rows["n_features"])


def alone(table: pd.DataFrame, p: float) -> "pd.Series[bool]":
    """Whether each converged feature at p has its neuron to itself."""
    rows = _at(table, p)
    return share(rows["alone_features"], rows["converged_features"])


def without_polysemantic_neurons(table: pd.DataFrame, p: float) -> "pd.Series[bool]":
    """Whether each network at p in which half of the features converged has no polysemantic neuron."""
    rows = _at(table, p)
    rows = rows[2 * rows["converged_features"] >= rows["n_features"]]
    return pd.Series(rows["polysemantic_neurons"].to_numpy() == 0)


def _at(table: pd.DataFrame, p: float) -> pd.DataFrame:
    rows = table[np.isclose(table["probability"], p, rtol=1e-6, atol=0)]
    if rows.empty:
        raise ValueError(f"p: no network at p = {p:g}")
    return rows


def count_interval(table: pd.DataFrame, p: float) -> tuple[float, float, float]:
    """The mean number of polysemantic neurons at p and its 95 % interval, infinite for one seed."""
    value = count(table, p)
    seeds = table["seed"].unique()
    samples = [count(table[table["seed"] != seed], p) for seed in seeds] if len(seeds) > 1 else []
    return value, *jackknife(value, samples)


def converged_interval(table: pd.DataFrame, p: float) -> tuple[float, float, float]:
    """The share of the features at p that converged and its 95 % interval, infinite for one seed."""
    judged = converged(table, p)
    seeds = table["seed"].unique()
    samples = [converged(table[table["seed"] != s], p).mean() for s in seeds] if len(seeds) > 1 else []
    return float(judged.mean()), *fraction_interval(judged.mean(), len(judged), samples)


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """Polysemantic neurons and converged features against p, with p = 0 as a horizontal band."""
    figure = Figure(figsize=(7, 4))
    panels = figure.subplots(1, 2)
    positive = np.array(sorted(p for p in table["probability"].unique() if p > 0))
    first = table.iloc[0]
    measures = (count_interval, converged_interval)
    labels = ("Polysemantic neurons per network", "Share of features that converged")
    for axes, measure, label in zip(panels, measures, labels, strict=True):
        if len(positive):
            value, low, high = np.array([measure(table, p) for p in positive]).T
            bars = _finite(value - low, high - value)
            axes.errorbar(positive, value, bars, fmt="o-", label="independently, with probability p")
        if (table["probability"] == 0).any():
            basis, low, high = measure(table, 0)
            axes.axhline(basis, color=GREY, label="one feature at a time (p = 0)")
            if np.isfinite([low, high]).all():
                axes.axhspan(low, high, color=GREY, alpha=0.25, linewidth=0)
        axes.axvline(first["l1"] / 4, color=INK, linewidth=0.8, linestyle=":", label="p = λ/4")
        axes.set_xscale("log")
        number(axes.xaxis, (1e-4, 1e-3, 0.01, 0.1))
        axes.set_ylim(bottom=0)
        axes.set(xlabel="Probability that a feature is on, p", ylabel=f"{label} (95 % interval)")
    law = first["n_features"] ** 2 / (4 * first["n_hidden"])
    panels[0].axhline(law, color=INK, linewidth=0.8, linestyle="--", label="law, n²/4m")
    panels[0].set_ylim(top=1.1 * max(law, panels[0].get_ylim()[1]))
    panels[1].set_ylim(top=1.05)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return {"cooccurrence": figure}


def _finite(below: Array, above: Array) -> Array:
    """Error bars, of length 0 where a single seed gives no interval."""
    both = np.stack([below, above])
    return np.where(np.isfinite(both), np.maximum(both, 0), 0)
