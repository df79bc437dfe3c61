"""How figures look: the colours, sizes of text and numbers that all replications share."""

from typing import Any

INK, GREY = "0.1", "0.55"
BLUE, RED, ORANGE = (0.16, 0.40, 0.72), (0.84, 0.19, 0.18), (0.95, 0.56, 0.17)
SMALL, NORMAL = 8, 9
"""Sizes of text, in points: of ticks and legends, of labels and titles."""

POINT: dict[str, Any] = {
    "marker": "o", "linestyle": "none", "markersize": 5, "markerfacecolor": "white", "elinewidth": 1,
    "capsize": 2, "zorder": 4,
}  # fmt: skip
"""The open circles of published values, with their reading errors, for matplotlib's `errorbar`."""


def short(value: float) -> str:
    """A number as on an axis, without the zero before its point."""
    return f"{value:g}".removeprefix("0")
