"""How figures look: the theme that all are drawn in, and the colours and marks that replications share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.style
import numpy as np
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

INK, GREY = "0.15", "0.55"
"""What is written and what theory says, and what only helps the eye."""

BLUE, RED, ORANGE = (0.16, 0.40, 0.72), (0.84, 0.19, 0.18), (0.95, 0.56, 0.17)
"""Colours of what has no order."""

ORDERED = "rocket_r"
"""Seaborn's palette, from light to dark, for what has an order."""

PUBLISHED_MARK: dict[str, Any] = {
    "marker": "o", "linestyle": "none", "markersize": 5, "markerfacecolor": "white", "elinewidth": 1,
    "capsize": 2, "zorder": 4,
}  # fmt: skip
"""The open circles of published values, with their errors, for matplotlib's `errorbar`."""

_OWN = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.prop_cycle": cycler(color=[BLUE, RED, ORANGE, GREY]),
    "errorbar.capsize": 0,
    "figure.constrained_layout.use": True,
    "figure.labelsize": "medium",
    "figure.titlesize": "medium",
    "font.sans-serif": ["DejaVu Sans"],  # which comes with matplotlib: the same lines break on all machines
    "legend.frameon": False,
    "legend.handlelength": 1.7,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.9,
    **{f"{axis}tick.major.size": 3.5 for axis in "xy"},
    **{f"{axis}tick.minor.size": 2 for axis in "xy"},
}


@contextmanager
def themed() -> Iterator[None]:
    """The theme, seaborn's for papers. What is set outside neither matters inside nor is changed.

    Nor is numpy's global generator, by which seaborn scatters points: it begins at the same seed each time.
    """
    seaborn = {**sns.axes_style("ticks"), **sns.plotting_context("paper", font_scale=0.95)}
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with matplotlib.style.context(["default", {**seaborn, **_OWN}]):
            yield
    finally:
        np.random.set_state(state)


def number(axis: Axis, places: Sequence[float]) -> None:
    """Write these numbers at an axis, and no others, as an axis in powers of ten would."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A number as on an axis, without the zero before its point."""
    return f"{value:g}".removeprefix("0") or "0"
