"""Networks that get stuck beside an exact solution, and wide ones that do not: estimates and figures.

The table has one row per trained network, with its part (the optimiser, see `CONDITIONS`), task, density,
width as a multiple of the exact solution's, the relative loss (1 for a network whose output is 0), and the
columns of `TwoLayerNetwork.metrics`.
Source: Chan 2024, footnote 13.
"""

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.statistics import Interval, fraction_interval
from common.style import BLUE, INK, NORMAL, ORANGE, RED, SMALL, short
from replications.polysemanticity_definitions.exact_networks_model import INPUTS_READ, RESPONDS

Task = Literal["absolute", "and"]
Colour = tuple[float, float, float]

STUCK_ABOVE = 1e-4
LOW = 0.1

FLOOR = 1e-8
"""Relative losses below it count as this one in logarithms: their size is that of rounding."""


class Condition(NamedTuple):
    """What networks of a part were trained with."""

    optimizer: str
    weight_decay: float


CONDITIONS = {
    "adam": Condition("Adam", 0.0),
    "adamw_0.01": Condition("AdamW", 0.01),
    "adamw_0.1": Condition("AdamW", 0.1),
    "adamw_1": Condition("AdamW", 1.0),
    "sgd": Condition("SGD", 0.0),
    "rmsprop": Condition("RMSprop", 0.0),
}

LEVELS = {
    "weight_decay": ["adam", "adamw_0.01", "adamw_0.1", "adamw_1"],
    "optimizer": ["adam", "sgd", "rmsprop"],
}

NAMES = {"absolute": "|x|", "and": "pairwise AND"}


def stuck(
    table: pd.DataFrame, task: Task, trained_by: str | None = None, width: int = 1
) -> "pd.Series[bool]":
    """Whether each network ends with a relative loss above 1e-4.

    Args:
        table: the instances
        task: which task
        trained_by: only networks trained with this optimiser
        width: neurons, as a multiple of the exact solution's

    Raises:
        ValueError: if there are none, here and in the other functions.
    """
    rows = _of(table, task, width, trained_by)
    return pd.Series(rows["loss"].to_numpy() > STUCK_ABOVE)


def solved(table: pd.DataFrame, task: Task, width: int) -> "pd.Series[bool]":
    """Whether each network ends with a relative loss of at most 1e-4."""
    return pd.Series(_of(table, task, width)["loss"].to_numpy() <= STUCK_ABOVE)


def low(table: pd.DataFrame, task: Task) -> "pd.Series[bool]":
    """Whether each stuck network of the exact width ends below a tenth of the loss of doing nothing."""
    rows = _of(table, task, 1)
    return pd.Series(rows.loc[rows["loss"] > STUCK_ABOVE, "loss"].to_numpy() < LOW)


def polysemantic(table: pd.DataFrame, task: Task, width: int, threshold: float = 0.1) -> "pd.Series[bool]":
    """Whether each active neuron of the solved networks reads more inputs than those of the exact solution.

    Args:
        table: the instances
        task: which task
        width: neurons, as a multiple of the exact solution's
        threshold: an input is read whose weight is at least this share of the neuron's largest
    """
    rows = _of(table, task, width)
    rows = rows[rows["loss"] <= STUCK_ABOVE]
    many = rows[f"polysemantic_neurons_{RESPONDS.index(threshold)}"].to_numpy(int)
    rest = rows["active_neurons"].to_numpy(int) - many
    return pd.Series(np.repeat(np.tile([True, False], len(rows)), np.column_stack([many, rest]).ravel()))


def effect(table: pd.DataFrame, task: Task, factor: str) -> float:
    """How much a factor moves the mean log10 loss at the exact width: root mean square over its values.

    Args:
        table: the instances
        task: which task
        factor: `weight_decay` (0 to 1, by AdamW), `density` (of the same networks), or `optimizer` (Adam,
            SGD and RMSprop, without decay)
    """
    rows = _of(table, task, 1)
    parts = LEVELS["optimizer" if factor == "optimizer" else "weight_decay"]
    rows = rows[rows["part"].isin(parts)]
    levels = rows["density"] if factor == "density" else rows["part"]
    means = np.log10(rows["loss"].clip(lower=FLOOR)).groupby(levels).mean()
    if len(means) < 2:
        raise ValueError(f"{factor}: an effect needs two values, got {len(means)}")
    return float(np.sqrt(means.var(ddof=0)))


def effect_over_optimizer(table: pd.DataFrame, task: Task, factor: str) -> float:
    """By how much the effect of `factor` is larger than that of the optimiser."""
    return effect(table, task, factor) - effect(table, task, "optimizer")


def _of(table: pd.DataFrame, task: Task, width: int, trained_by: str | None = None) -> pd.DataFrame:
    chosen = (table["task"] == task) & (table["width"] == width)
    if trained_by is not None:
        parts = [part for part, condition in CONDITIONS.items() if condition.optimizer == trained_by]
        chosen &= table["part"].isin(parts)
    rows = table[chosen]
    if rows.empty:
        raise ValueError(f"width: no {trained_by or 'network'} on {task} with width {width}")
    if rows["loss"].isna().any():
        raise ValueError(f"{task}, width {width}: a network diverged")
    return rows


# --- figures

COLOURS = (RED, ORANGE, BLUE)
LOWEST_SHOWN = 1e-12
WITH_NEURONS = ("adamw_0.01", "adamw_0.1")


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """The losses of all networks, and the shares of stuck networks and of polysemantic neurons."""
    return {"exact_networks_loss": _losses(table), "exact_networks_shares": _shares(table)}


def _losses(table: pd.DataFrame) -> Figure:
    """The loss of each network, by optimiser and width."""
    figure = Figure(figsize=(7.4, 6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    groups, draw = _groups(table), np.random.default_rng(0)
    for axes, task in zip(panels, NAMES, strict=True):
        for x, rows, colour in _places(table[table["task"] == task], groups, 0.26):
            shifted = x + draw.uniform(-0.08, 0.08, len(rows))
            loss = rows["loss"].clip(lower=LOWEST_SHOWN)
            axes.plot(shifted, loss, "o", color=colour, markersize=3, alpha=0.6, markeredgewidth=0)
        axes.axhline(STUCK_ABOVE, color=INK, linewidth=0.8, linestyle="--")
        axes.set(yscale="log", ylim=(LOWEST_SHOWN / 3, 3))
        _style(axes, groups, NAMES[task], "Relative loss")
    _legend(figure, panels[0], table)
    return figure


def _shares(table: pd.DataFrame) -> Figure:
    """The share of stuck networks at the exact width, and of polysemantic neurons by decay and width."""
    figure = Figure(figsize=(7.4, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, width_ratios=(1.1, 1))
    exact = [(part, width) for part, width in _groups(table) if width == 1]
    with_neurons = [(part, width) for part, width in _groups(table) if part in WITH_NEURONS]
    for (left, right), task in zip(panels, NAMES, strict=True):
        of_task = table[table["task"] == task]
        for x, rows, colour in _places(of_task, exact, 0.22):
            _draw_share(left, x, rows.assign(hits=rows["loss"] > STUCK_ABOVE, units=1), colour)
        for x, rows, colour in _places(of_task, with_neurons, 0.22):
            many = rows[f"polysemantic_neurons_{RESPONDS.index(0.1)}"]
            _draw_share(right, x, rows.assign(hits=many, units=rows["active_neurons"]), colour)
        _style(left, exact, f"{NAMES[task]}, exact width: stuck", "Share above 1e-4")
        reads = ["", "two", "three"][INPUTS_READ[task]]
        _style(right, with_neurons, f"neurons that read {reads} inputs or more", "Share of active neurons")
        for axes in (left, right):
            axes.set_ylim(-0.04, 1.04)
    _legend(figure, panels[0, 0], table)
    return figure


def _groups(table: pd.DataFrame) -> list[tuple[str, int]]:
    """The parts and widths that there are, the exact width first."""
    found = set(zip(table["part"], table["width"], strict=True))
    return sorted(found, key=lambda group: (group[1], list(CONDITIONS).index(group[0])))


def _places(
    table: pd.DataFrame, groups: list[tuple[str, int]], step: float
) -> Iterator[tuple[float, pd.DataFrame, Colour]]:
    """For each group and density that there are: where it is drawn, its networks, its colour."""
    densities = _densities(table)
    for (place, (part, width)), (i, density) in itertools.product(enumerate(groups), enumerate(densities)):
        rows = table[(table["part"] == part) & (table["width"] == width) & (table["density"] == density)]
        if len(rows):
            yield place + (i - (len(densities) - 1) / 2) * step, rows, COLOURS[i % len(COLOURS)]


def _densities(table: pd.DataFrame) -> list[float]:
    return sorted(table["density"].unique().tolist())


def _draw_share(axes: Axes, x: float, rows: pd.DataFrame, colour: Colour) -> None:
    """The share of hits among the units of all rows, with its 95 % interval over seeds."""
    value, (low, high) = share_interval(rows)
    axes.errorbar(
        x, value, [[max(0.0, value - low)], [max(0.0, high - value)]], fmt="o", color=colour, markersize=4,
        elinewidth=1,
    )  # fmt: skip


def share_interval(rows: pd.DataFrame) -> tuple[float, Interval]:
    """The share of the columns `hits` among `units`, and its 95 % interval, of no width for one seed."""
    value, units = rows["hits"].sum() / rows["units"].sum(), int(rows["units"].sum())
    seeds = rows["seed"].unique()
    if len(seeds) < 2:
        return float(value), (float(value), float(value))
    left_out = [rows[rows["seed"] != seed] for seed in seeds]
    samples = [float(left["hits"].sum() / left["units"].sum()) for left in left_out]
    return float(value), fraction_interval(float(value), units, samples)


def _style(axes: Axes, groups: list[tuple[str, int]], title: str, label: str) -> None:
    axes.set_xticks(range(len(groups)), [_label(part, width) for part, width in groups])
    axes.set_title(title, fontsize=NORMAL, color=INK, loc="left")
    axes.set_ylabel(label, fontsize=NORMAL, color=INK)
    axes.tick_params(which="both", labelsize=SMALL, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _label(part: str, width: int) -> str:
    optimizer, decay = CONDITIONS[part]
    name = f"{optimizer}\n{short(decay)}" if decay else f"{optimizer}\n"
    return name if width == 1 else f"{name}\n{width}-fold"


def _legend(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    handles = [
        axes.plot([], [], "o", color=COLOURS[i % len(COLOURS)], markersize=4, label=f"density {short(d)}")[0]
        for i, d in enumerate(_densities(table))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL)
