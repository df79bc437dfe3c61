"""Definitions of polysemanticity and superposition, on small networks: estimates and the figure.

The table has one row per network, with its case, `neurons`, `features`, and the number of neurons or
features in each sense: `polysemantic_neurons`, `superposition_by_count` and `superposition_by_rank`
(features beyond the neurons, and beyond the rank), `spread_features` (superposition in the Zoom-In sense).
`polysemantic_at_i` is the number of polysemantic neurons at the threshold `THRESHOLDS[i]`.
Source: Chan 2024; see `common.metrics`.
"""

from typing import Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.style import BLUE, GREY, INK, ORANGE, ORDERED, RED
from common.verdicts.claims import Claims
from replications.polysemanticity_definitions.definitions_model import THRESHOLDS, CaseName

Sense = Literal["polysemantic_neurons", "superposition_by_count", "superposition_by_rank", "spread_features"]


def number_is(table: pd.DataFrame, case: CaseName, sense: Sense, number: int) -> "pd.Series[bool]":
    """Whether each network of a case has this number of neurons or features in a sense.

    Raises:
        ValueError: if there is no such network; here and in all functions of the table.
    """
    return pd.Series(table[sense].to_numpy()[_where(table, case)] == number)


def some(table: pd.DataFrame, case: CaseName, sense: Sense) -> "pd.Series[bool]":
    """Whether each network of a case has at least one neuron or feature in a sense."""
    return pd.Series(table[sense].to_numpy()[_where(table, case)] > 0)


def polysemantic_at(table: pd.DataFrame, case: CaseName, threshold: float) -> "pd.Series[bool]":
    """Whether each network of a case has a polysemantic neuron at the one of `THRESHOLDS` nearest to this."""
    nearest = int(np.abs(THRESHOLDS - threshold).argmin())
    return pd.Series(table[f"polysemantic_at_{nearest}"].to_numpy()[_where(table, case)] > 0)


def polysemantic_without_superposition(
    table: pd.DataFrame, n_neurons: int, n_features: int
) -> "pd.Series[bool]":
    """Whether each network of rotated features has a polysemantic neuron but no superposition."""
    rotated = _where(table, "rotated", n_neurons, n_features)
    senses = ("polysemantic_neurons", "superposition_by_count", "superposition_by_rank")
    neurons, by_count, by_rank = (table[sense].to_numpy()[rotated] for sense in senses)
    return pd.Series((neurons > 0) & (by_count == 0) & (by_rank == 0))


def polysemantic_share(table: pd.DataFrame, n_neurons: int, n_features: int) -> float:
    """The mean share of neurons that are polysemantic, of networks of rotated features."""
    rotated = _where(table, "rotated", n_neurons, n_features)
    return float(table["polysemantic_neurons"].to_numpy()[rotated].mean() / n_neurons)


def _where(
    table: pd.DataFrame, case: CaseName, n_neurons: int | None = None, n_features: int | None = None
) -> NDArray[np.bool_]:
    """The rows with the networks of a case, and of a size."""
    rows = np.array(table["case"] == case)
    for column, wanted in (("neurons", n_neurons), ("features", n_features)):
        rows &= wanted is None or table[column].to_numpy() == wanted
    if not rows.any():
        size = "" if n_neurons is None else f" with {n_features} features in {n_neurons} neurons"
        raise ValueError(f"case: no network of {case!r}{size}")
    return rows


# --- figure

_CASES: dict[CaseName, str] = {
    "aligned": "(1, 0), (0, 1)",
    "one_more": "(1, 0), (0, 1), (1, 1)/√2",
    "not_aligned": "(1, 0), (1, 1)/√2",
    "hadamard": "Hadamard: four orthogonal features on four neurons each",
    "five_in_four": "five random features in four neurons",
    "antipodal": "one neuron, +1 for cats, -1 for cars",
    "incidental": "e₁, -e₁, e₂ in three neurons",
    "one_large": "one neuron, 1 for one feature, 0.05 for ten",
    "weak": "(1, 0), (0.05, 0.2)",
}
_SENSES: dict[Sense, str] = {
    "polysemantic_neurons": "polysemantic\nneurons",
    "superposition_by_count": "features\nbeyond neurons",
    "superposition_by_rank": "features\nbeyond rank",
    "spread_features": "Zoom In:\nspread features",
}
_CURVES: dict[CaseName, str] = {
    "aligned": "(1, 0), (0, 1)", "one_large": "1 and ten times 0.05", "five_in_four": "five in four",
}  # fmt: skip


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """Each case in each sense as a table; polysemantic neurons of cases and of rotations by threshold."""
    figure = Figure(figsize=(7.4, 6.6))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.2, 1)).flat
    _draw_table(upper.add_subplot(), table)
    left, right = lower.subplots(1, 2)
    _draw_cases(left, table)
    _draw_rotated(right, table)
    return {"definitions": figure}


def _draw_table(axes: Axes, table: pd.DataFrame) -> None:
    """A cell for each case and sense: how many out of how many; dark where networks have at least one."""
    there = set(table["case"])
    cases = [case for case in _CASES if case in there]
    networks = [table[_where(table, case)] for case in cases]
    share = [[float((rows[sense] > 0).mean()) for sense in _SENSES] for rows in networks]
    written = [[_in_a_cell(rows, sense) for sense in _SENSES] for rows in networks]
    if not cases:
        axes.set_axis_off()
        return
    sns.heatmap(
        np.array(share), vmin=0, vmax=1.8, cmap=sns.light_palette(BLUE, as_cmap=True), cbar=False,
        annot=np.array(written), fmt="", annot_kws={"color": INK, "size": "medium"}, linewidths=2,
        xticklabels=list(_SENSES.values()), yticklabels=[_CASES[case] for case in cases], ax=axes,
    )  # fmt: skip
    axes.tick_params(length=0, rotation=0, labeltop=True, labelbottom=False)


def _in_a_cell(networks: pd.DataFrame, sense: Sense) -> str:
    low, high = int(networks[sense].min()), int(networks[sense].max())
    number = str(low) if low == high else f"{low} to {high}"
    of = networks["neurons" if sense == "polysemantic_neurons" else "features"].iloc[0]
    return f"{number} of {of}" if sense in ("polysemantic_neurons", "spread_features") else number


def _draw_cases(axes: Axes, table: pd.DataFrame) -> None:
    """The mean share of polysemantic neurons of some cases against the threshold."""
    for (case, label), colour in zip(_CURVES.items(), (BLUE, RED, ORANGE), strict=True):
        if case in set(table["case"]):
            axes.plot(THRESHOLDS[1:], _share(table[_where(table, case)]), color=colour, label=label)
    axes.axvline(0.1, color=GREY, linewidth=0.9, linestyle=":", label="threshold of the table")
    _finish(axes, "Some of the cases")


def _draw_rotated(axes: Axes, table: pd.DataFrame) -> None:
    """The same for as many orthogonal features as neurons, randomly rotated."""
    rotated = table[(table["case"] == "rotated") & (table["features"] == table["neurons"])]
    sizes = rotated.groupby("neurons")
    for (size, networks), colour in zip(sizes, sns.color_palette(ORDERED, len(sizes)), strict=True):
        axes.plot(THRESHOLDS[1:], _share(networks), color=colour, label=f"{size} in {size}")
    exact = 1 - 4 / np.pi * np.arctan(THRESHOLDS[1:])
    axes.plot(THRESHOLDS[1:], exact, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), label="theory, 2 in 2")
    _finish(axes, "Orthogonal features in random rotations")


def _share(networks: pd.DataFrame) -> pd.Series:
    """The mean share of polysemantic neurons at each of `THRESHOLDS` but 0."""
    names = [f"polysemantic_at_{i}" for i in range(1, len(THRESHOLDS))]
    return networks[names].div(networks["neurons"], axis=0).mean()


def _finish(axes: Axes, title: str) -> None:
    axes.set(
        title=title, xscale="log", ylim=(-0.03, 1.03), xlabel="Relative threshold",
        ylabel="Share of polysemantic neurons",
    )  # fmt: skip
    axes.legend(loc="upper center", bbox_to_anchor=(0.46, -0.19), ncols=3)
