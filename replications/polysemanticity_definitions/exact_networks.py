"""Networks that get stuck beside an exact solution, and wide ones that do not: estimates and figures.

The table has one row per trained network, with its part (the optimiser, see `CONDITIONS`), task, density,
width as a multiple of the exact solution's, the relative loss (1 for a network whose output is 0), and the
columns of `TwoLayerNetwork.metrics`.
Source: Chan 2024, footnote 13.
"""

import itertools
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.statistics import Interval, fraction_interval
from common.style import INK, ORDERED
from common.verdicts.claims import Claims
from replications.polysemanticity_definitions.exact_networks_model import INPUTS_READ, RESPONDS

Task = Literal["absolute", "and"]
Colour = tuple[float, float, float]

STUCK_ABOVE = 1e-4
LOW = 0.1

FLOOR = 1e-8
"""Relative losses below this are rounding error, and count as this in logarithms."""


class Condition(NamedTuple):
    """How the networks of a part were trained."""

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
    """Whether each stuck network of the exact width ends below a tenth of the loss of output 0."""
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
    """The effect of `factor` minus that of the optimiser."""
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

LOWEST_SHOWN = 1e-12
WITH_NEURONS = ("adamw_0.01", "adamw_0.1")


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The losses of all networks, and the shares of stuck networks and of polysemantic neurons."""
    return {"exact_networks_loss": _losses(table), "exact_networks_shares": _shares(table)}


def _losses(table: pd.DataFrame) -> Figure:
    """The loss of each network, by optimiser and width."""
    figure = Figure(figsize=(7.4, 6))
    panels = figure.subplots(2, 1, sharex=True)
    groups = _groups(table)
    labels = {(part, width): _label(part, width) for part, width in groups}
    shown = pd.DataFrame(
        {
            "group": [labels[key] for key in zip(table["part"], table["width"], strict=True)],
            "loss": table["loss"].clip(lower=LOWEST_SHOWN),
            "density": table["density"],
            "task": table["task"],
        }
    )
    for axes, task in zip(panels, NAMES, strict=True):
        axes.set(yscale="log", ylim=(LOWEST_SHOWN / 3, 3))
        sns.stripplot(
            shown[shown["task"] == task], x="group", y="loss", hue="density", order=list(labels.values()),
            dodge=True, palette=_colours(table), size=3, alpha=0.6, legend=False, ax=axes,
        )  # fmt: skip
        axes.axhline(STUCK_ABOVE, color=INK, linewidth=0.8, linestyle="--")
        axes.set(xlabel="", ylabel="Relative loss")
        axes.set_title(NAMES[task], loc="left")
    _legend(figure, table)
    return figure


def _shares(table: pd.DataFrame) -> Figure:
    """The share of stuck networks at the exact width, and of polysemantic neurons by decay and width."""
    figure = Figure(figsize=(8, 5.6))
    panels = figure.subplots(2, 2, width_ratios=(1.1, 1))
    exact = [(part, width) for part, width in _groups(table) if width == 1]
    with_neurons = [(part, width) for part, width in _groups(table) if part in WITH_NEURONS]
    for (left, right), task in zip(panels, NAMES, strict=True):
        of_task = table[table["task"] == task]
        stuck = of_task.assign(hits=of_task["loss"] > STUCK_ABOVE, units=1)
        _draw_shares(left, stuck, exact, _colours(table))
        many = of_task[f"polysemantic_neurons_{RESPONDS.index(0.1)}"]
        _draw_shares(
            right, of_task.assign(hits=many, units=of_task["active_neurons"]), with_neurons, _colours(table)
        )
        left.set_title(f"{NAMES[task]}, exact width: stuck networks", loc="left")
        left.set_ylabel("Share above a loss of 1e-4")
        reads = ["", "two", "three"][INPUTS_READ[task]]
        right.set_title(f"neurons that read at least {reads} inputs", loc="left")
        right.set_ylabel("Share of active neurons")
    _legend(figure, table)
    return figure


def _groups(table: pd.DataFrame) -> list[tuple[str, int]]:
    """The parts and widths that there are, the exact width first."""
    found = set(zip(table["part"], table["width"], strict=True))
    return sorted(found, key=lambda group: (group[1], list(CONDITIONS).index(group[0])))


def _colours(table: pd.DataFrame) -> dict[float, Colour]:
    """A colour for each density, from light to dark."""
    densities = sorted(table["density"].unique().tolist())
    return dict(zip(densities, sns.color_palette(ORDERED, len(densities)), strict=True))


def _draw_shares(
    axes: Axes, table: pd.DataFrame, groups: list[tuple[str, int]], colours: dict[float, Colour]
) -> None:
    """For each group and density the share of `hits` among `units`, with its 95 % interval over seeds."""
    for (place, (part, width)), (i, density) in itertools.product(enumerate(groups), enumerate(colours)):
        rows = table[(table["part"] == part) & (table["width"] == width) & (table["density"] == density)]
        if len(rows):
            value, (low, high) = share_interval(rows)
            error = [[max(0.0, value - low)], [max(0.0, high - value)]]
            x = place + 0.22 * (i - (len(colours) - 1) / 2)
            axes.errorbar(x, value, error, fmt="o", color=colours[density])
    axes.set_xticks(range(len(groups)), [_label(part, width) for part, width in groups])
    axes.set_ylim(-0.04, 1.04)


def share_interval(rows: pd.DataFrame) -> tuple[float, Interval]:
    """The share of the columns `hits` among `units`, and its 95 % interval, of width 0 for one seed."""
    value, units = rows["hits"].sum() / rows["units"].sum(), int(rows["units"].sum())
    seeds = rows["seed"].unique()
    if len(seeds) < 2:
        return float(value), (float(value), float(value))
    left_out = [rows[rows["seed"] != seed] for seed in seeds]
    samples = [float(left["hits"].sum() / left["units"].sum()) for left in left_out]
    return float(value), fraction_interval(float(value), units, samples)


def _label(part: str, width: int) -> str:
    optimizer, decay = CONDITIONS[part]
    name = f"{optimizer}\n{decay:g}" if decay else f"{optimizer}\n"
    return name if width == 1 else f"{name}\n{width}-fold"


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colour, label=f"density {density:g}")
        for density, colour in _colours(table).items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
