"""How many features a neuron responds to without L1, where rotations keep the loss: estimates, the figure.

The table has one row per trained network, in the parts `without_l1` and `with_l1`, with its n_features (n),
n_hidden (m), l1 and the columns of `readers_model.RotatedAutoencoder.metrics`. The effective number of
features of a neuron is the participation ratio (sum w^2)^2 / sum w^4 of its weights.

Without L1 the start, the loss and the steps of SGD prefer no axes of the hidden space: W and a rotated W R
are equally probable. If the rows W_i are orthogonal and of length 1, the weights of a neuron then have a
uniformly random direction u in n dimensions, for which E sum u^4 = 3/(n + 2).
Source: a reader's question on Lecomte et al. 2023.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import gammaln

from common.statistics import t_quantile
from common.style import BLUE, INK, RED
from common.verdicts.claims import Claims

Array = NDArray[np.float64]

MANY = 8
FEW = 2.5
BINS = np.arange(0.5, 41)


def effective_number(table: pd.DataFrame, part: str) -> float:
    """The effective number of features of a neuron: the harmonic mean over the neurons that respond to any.

    For the harmonic mean, the isotropic expectation is exact: (n + 2)/3.

    Raises:
        ValueError: if the table has no such neuron, here and in all functions of a part.
    """
    return float(1 / (1 / responding(table, part)).mean())


def many(table: pd.DataFrame, part: str) -> "pd.Series[bool]":
    """Whether each neuron has an effective number of features of at least 8."""
    return pd.Series(_all_neurons(table, part) >= MANY)


def few(table: pd.DataFrame, part: str) -> "pd.Series[bool]":
    """Whether each neuron that responds to any feature has an effective number of at most 2.5."""
    return pd.Series(responding(table, part) <= FEW)


def rotation_penalty(table: pd.DataFrame, part: str) -> float:
    """The mean change of the loss under a random rotation, in units of l1 (E|u|_1 - 1).

    This is the change per feature when a feature on one neuron becomes a random unit vector u in m
    dimensions; `rotated_loss_change` is per feature too.

    Raises:
        ValueError: if a network has no L1.
    """
    rows = _part(table, part)
    if not rows["l1"].all():
        raise ValueError(f"part {part!r}: a network has no L1, whose change is the unit")
    unit = rows["l1"].to_numpy(float) * (random_direction_l1(rows["n_hidden"].to_numpy(float)) - 1)
    return float((rows["rotated_loss_change"].to_numpy() / unit).mean())


def random_direction_l1(dimensions: Array | float) -> Array:
    """E|u|_1 of a random unit vector in m dimensions: m G(m/2) / (sqrt(pi) G((m + 1)/2)), G gamma."""
    m = np.asarray(dimensions, float)
    return np.asarray(m * np.exp(gammaln(m / 2) - gammaln((m + 1) / 2)) / np.sqrt(np.pi))


def responding(table: pd.DataFrame, part: str) -> Array:
    """The effective numbers of all neurons of the part that respond to any feature, shape (neurons,)."""
    number = _all_neurons(table, part)
    if not (number > 0).any():
        raise ValueError(f"part {part!r}: no neuron responds to any feature")
    return number[number > 0]


def _all_neurons(table: pd.DataFrame, part: str) -> Array:
    rows = _part(table, part)
    m = int(rows["n_hidden"].iloc[0])
    return np.asarray(rows[[f"features_per_neuron_{k}" for k in range(m)]], dtype=float).ravel()


def _part(table: pd.DataFrame, part: str) -> pd.DataFrame:
    rows = table[table["part"] == part]
    if rows.empty:
        raise ValueError(f"part {part!r}: the table has no such networks")
    return rows


def distribution(table: pd.DataFrame, part: str) -> tuple[Array, Array]:
    """The share of the responding neurons in each of `BINS`, and half its 95 % interval over seeds.

    The shares are means over seeds; half widths are 0 for a single seed.
    """
    rows = _part(table, part)
    numbers = (responding(of_seed, part) for _, of_seed in rows.groupby("seed"))
    shares = np.stack([np.histogram(number, BINS)[0] / len(number) for number in numbers])
    seeds = len(shares)
    if seeds == 1:
        return shares[0], np.zeros(len(BINS) - 1)
    half = t_quantile(0.975, seeds) * shares.std(axis=0, ddof=1) / np.sqrt(seeds)
    return shares.mean(axis=0), np.asarray(half)


PARTS = {"without_l1": (BLUE, "without L1"), "with_l1": (RED, "with L1")}


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The distributions of the effective number of features per neuron, with and without L1."""
    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    centres = (BINS[1:] + BINS[:-1]) / 2
    for part, (colour, label) in PARTS.items():
        if part not in set(table["part"]):
            continue
        share, half = distribution(table, part)
        silent = float((_all_neurons(table, part) == 0).mean())
        label += f" ({silent:.0%} of the neurons respond to none)" if silent else ""
        axes.stairs(share, BINS, fill=True, color=colour, alpha=0.35)
        there = share > 0
        axes.errorbar(
            centres[there], share[there], half[there], fmt="o", markersize=2.5, color=colour, label=label
        )
    n = int(table["n_features"].iloc[0])
    direction = np.random.default_rng(0).standard_normal((20_000, n)) ** 2
    isotropic = direction.sum(axis=1) ** 2 / (direction**2).sum(axis=1)
    shares = np.histogram(isotropic, BINS)[0] / len(isotropic)
    axes.plot(centres, shares, color=INK, linewidth=1, label="random directions")
    axes.axvline((n + 2) / 3, ymax=0.7, color=INK, linewidth=0.8, linestyle=":", label="(n + 2)/3")
    axes.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    axes.set_yticks([0, 0.01, 0.1, 1], labels=["0", "0.01", "0.1", "1"])
    axes.set(
        xlim=(BINS[0], BINS[-1]), ylim=(0, 2), xlabel="Effective number of features of a neuron",
        ylabel="Share of the responding neurons (95 % interval)",
    )  # fmt: skip
    axes.legend(loc="upper right")
    return {"rotation": figure}
