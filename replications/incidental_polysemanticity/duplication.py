"""What becomes of polysemantic neurons that are duplicated: estimates and the figure.

The table has one row per trained network, in the parts `duplicated` and `noise_only`, with the columns of
`readers_model.DuplicatedNeurons.metrics`. The unit is a neuron that was polysemantic when the noise was
added.

Two features that share a neuron have opposite signs there, so the ReLU cuts off their interference. On two
copies each feature has two equal weights, and the L1 norm favours one of them; noise decides which. If
nothing else couples the two features, the copies separate in half of the cases.
Source: a reader's question on Lecomte et al. 2023.
"""

import math
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.statistics import fraction_interval
from common.style import BLUE, INK, RED
from common.verdicts.claims import Claims
from replications.incidental_polysemanticity import winners

Fate = Literal["parted", "together", "undecided"]


def outcome(table: pd.DataFrame, part: str, which: Fate) -> "pd.Series[bool]":
    """Whether each polysemantic neuron of the part has this outcome.

    `parted`: each copy has exactly one of the features; `together`: one copy has them all, or the
    neuron does where no copy was made; `undecided`: neither.

    Raises:
        ValueError: if the table has no such part or none of its neurons was polysemantic.
    """
    rows = _part(table, part)
    total = rows["polysemantic_neurons"]
    undecided = total - rows["parted"] - rows["together"]
    return winners.share(undecided if which == "undecided" else rows[which], total)


def share(table: pd.DataFrame, part: str, which: Fate) -> float:
    """The share of the polysemantic neurons with this outcome.

    Raises:
        ValueError: as `outcome`.
    """
    return float(outcome(table, part, which).mean())


def on_one_copy(table: pd.DataFrame, part: str) -> "pd.Series[bool]":
    """Whether each feature of the polysemantic neurons ends on exactly one of the two copies.

    Raises:
        ValueError: as `outcome`.
    """
    rows = _part(table, part)
    return winners.share(rows["owners_on_one_copy"], rows["owners"])


def _part(table: pd.DataFrame, part: str) -> pd.DataFrame:
    rows = table[table["part"] == part]
    if not rows["polysemantic_neurons"].sum():
        raise ValueError(f"part {part!r}: the table has no neuron that was polysemantic")
    return rows


def share_interval(table: pd.DataFrame, part: str, which: Fate) -> tuple[float, float, float]:
    """The share with this outcome and its 95 % interval over seeds, NaN for a single seed.

    Raises:
        ValueError: as `outcome`, also of the table without any one seed.
    """
    judged = outcome(table, part, which)
    value, seeds = float(judged.mean()), table["seed"].unique()
    if len(seeds) == 1:
        return value, math.nan, math.nan
    samples = [share(table[table["seed"] != seed], part, which) for seed in seeds]
    return value, *fraction_interval(value, len(judged), samples)


COLOURS: dict[Fate, str | tuple[float, float, float]] = {"parted": BLUE, "together": RED, "undecided": "0.8"}
LABELS: dict[Fate, str] = {
    "parted": "separated, one feature on each copy",
    "together": "features still on one neuron",
    "undecided": "undecided",
}
PARTS = {"duplicated": "duplicated,\nwith noise", "noise_only": "noise only"}


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The outcomes of each part as stacked shares, with an interval for the share of separated copies."""
    figure = Figure(figsize=(7, 3.2))
    axes = figure.add_subplot(xlim=(0, 1), xlabel="Share of the neurons that were polysemantic")
    there = [part for part in PARTS if part in set(table["part"])]
    left = np.zeros(len(there))
    for fate, colour in COLOURS.items():
        value, low, high = np.array([share_interval(table, part, fate) for part in there]).T
        axes.barh(there, value, left=left, color=colour, height=0.6, label=LABELS[fate])
        if fate == "parted":
            error = np.nan_to_num(np.stack([value - low, high - value]))
            label = "95 % interval of the separated share"
            axes.errorbar(value, there, xerr=error, fmt="none", color=INK, capsize=4, label=label)
        left += value
    axes.axvline(0.5, color=INK, linestyle="--", label="independent choices, 1/2")
    units = [len(outcome(table, part, "parted")) for part in there]
    names = [f"{PARTS[part]}\n({n} neurons)" for part, n in zip(there, units, strict=True)]
    axes.set_yticks(range(len(there)), labels=names)
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3)
    return {"duplication": figure}
