"""How figures look: their common theme, and the colours and marks that replications share."""

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
"""For text and theory, and for guides to the eye."""

BLUE, RED, ORANGE = (0.16, 0.40, 0.72), (0.84, 0.19, 0.18), (0.95, 0.56, 0.17)
"""Colours for categories without an order."""

ORDERED = "rocket_r"
"""Seaborn's palette for ordered values, from light to dark."""

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
    "font.sans-serif": [
        "DejaVu Sans"
    ],  # it comes with matplotlib, so lines break in the same places on all machines
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
    """A context with the theme, seaborn's for papers. Outside settings neither matter inside nor are changed.

    The same goes for numpy's global generator, with which seaborn scatters points: it starts from a fixed
    seed.
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
    """Label an axis with exactly these numbers, also where it would show powers of ten."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
