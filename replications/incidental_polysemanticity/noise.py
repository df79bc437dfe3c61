"""Noise on the hidden layer, Lecomte et al. 2023: estimates of the fourth norm's course, and the figure.

The table has one row per trained network, in the parts `bernoulli` and `gaussian`, with its fourth norm
sum_k W_ik^4 (mean over features) after each of `STEPS` that training reached: 3/(m+2) for rows in random
directions, near 1 for rows of a single weight.

Why the kind of noise matters: an output that should be 0 is ReLU(a + z), a = W_i.W_j and z = W_j.xi. Of noise
with variance s^2 per dimension and excess kurtosis K, the fourth cumulant of z is K s^4 sum_k W_jk^4, and to
first order in it the expected ReLU(a + z)^2 differs from that under Gaussian noise by

    -K s^4 sum_k W_jk^4 a g(a) / (12 v),   v = s^2 |W_j|^2,  g the density of N(0, v).

Noise drives a below 0. There the term has the sign of K, so a large fourth norm is rewarded under Bernoulli
noise (K = -2), punished under Laplace noise (K = 3), and neither under Gaussian noise, whose z depends on
lengths and angles only.

Source: arXiv 2312.03096, figure of the average fourth norm by noise; the explanation is by algebra.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import NDArray

from common.style import INK, NORMAL, POINT, SMALL, short
from replications.incidental_polysemanticity.noise_model import STEPS

Array = NDArray[np.float64]
Noise = Literal["bernoulli", "gaussian"]
Window = tuple[int, int]
"""First and last step, both included."""

SPHERE = 3 / 18
"""The mean fourth norm of rows of length 1 in random directions, 3/(m+2) at m = 16."""


class Curves(NamedTuple):
    """The fourth norm of some networks: `steps` (recorded,), `fourth_norm` (networks, recorded)."""

    steps: Array
    fourth_norm: Array

    @property
    def mean(self) -> Array:
        """The mean over networks, (recorded,)."""
        return np.asarray(self.fourth_norm.mean(axis=0))


def curves(table: pd.DataFrame, noise: Noise | None = None, sigma: float | None = None) -> Curves:
    """The recorded courses of the networks with this noise; of all kinds or all sigmas where none is given.

    Raises:
        ValueError: if there are no such networks.
    """
    rows = np.ones(len(table), dtype=bool)
    if noise is not None:
        rows &= np.asarray(table["part"] == noise)
    if sigma is not None:
        rows &= np.isclose(table["sigma"], sigma, rtol=1e-6, atol=0)
    if not rows.any():
        raise ValueError(f"the table has no networks with noise {noise or 'of any kind'}, sigma = {sigma}")
    columns = [name for i in range(len(STEPS)) if (name := f"fourth_norm_{i}") in table]
    return Curves(np.array(STEPS[: len(columns)], dtype=float), table[columns].to_numpy(dtype=float)[rows])


def level(
    table: pd.DataFrame, steps: Window, noise: Noise | None = None, sigma: float | None = None
) -> float:
    """The fourth norm, mean over networks and over the recorded steps of the window.

    Raises:
        ValueError: if training ended before the window does, or no step in it is recorded; and as `curves`.
    """
    first, last = steps
    found = curves(table, noise, sigma)
    if found.steps[-1] < last:
        raise ValueError(f"steps: the last one recorded is {found.steps[-1]:g}, before {last}")
    inside = (first <= found.steps) & (found.steps <= last)
    if not inside.any():
        raise ValueError(f"steps: none from {first} to {last} is recorded")
    return float(found.mean[inside].mean())


def change(table: pd.DataFrame, before: Window, after: Window, noise: Noise, sigma: float) -> float:
    """The change of the fourth norm's `level` from one window to the other.

    Raises:
        ValueError: as `level`.
    """
    return level(table, after, noise, sigma) - level(table, before, noise, sigma)


def lead(table: pd.DataFrame, sigma: float, over: float, steps: Window) -> float:
    """By how much Bernoulli noise of `sigma` is ahead of that of sigma `over`, in the fourth norm's `level`.

    Raises:
        ValueError: as `level`.
    """
    return level(table, steps, "bernoulli", sigma) - level(table, steps, "bernoulli", over)


def crossing(table: pd.DataFrame, height: float, noise: Noise, sigma: float) -> float:
    """The step at which the fourth norm's mean over networks first rises through `height`.

    Linear in the logarithm of the step between recorded ones.

    Raises:
        ValueError: if it is above from the first step on or never comes there; and as `curves`.
    """
    found = curves(table, noise, sigma)
    steps, mean = found.steps[1:], found.mean[1:]  # step 0 has no logarithm
    above = np.flatnonzero(mean >= height)
    if not len(above):
        raise ValueError(f"{noise}, sigma = {sigma:g}: the fourth norm stays below {height:g}")
    i = above[0]
    if i == 0:
        raise ValueError(f"{noise}, sigma = {sigma:g}: the fourth norm is above {height:g} from the start")
    share = (height - mean[i - 1]) / (mean[i] - mean[i - 1])
    return float(steps[i - 1] * (steps[i] / steps[i - 1]) ** share)


class Reading(NamedTuple):
    """A point of a published curve, with the 95 % half widths of reading it off the figure."""

    sigma: float
    step: float
    value: float
    step_error: float = 0.0
    value_error: float = 0.0


PUBLISHED = [
    Reading(0.15, 4000, 0.4, step_error=580),
    Reading(0.15, 20_000, 0.775, value_error=0.0238),
    Reading(0.1, 18_000, 0.4, step_error=1450),
    Reading(0.1, 100_000, 0.79, value_error=0.0237),
    Reading(0.07, 100_000, 0.316, value_error=0.0095),
]
"""The published curves under Bernoulli noise."""

PUBLISHED_START = (0.125, 0.155)
PUBLISHED_GAUSSIAN = (0.155, 0.18)
"""The ranges that the six published curves begin in, and that those under Gaussian noise stay in."""

COLOURS = {0.07: "#e3a72f", 0.1: "#d1495b", 0.15: "#3d3b8e"}
_DASHED: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (4, 2))}


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """The fourth norm's course: mean over networks, and the middle 80 % of them, with the published values.

    Raises:
        ValueError: as `curves`.
    """
    figure = Figure(figsize=(7, 4))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    figure.subplots_adjust(left=0.085, right=0.985, bottom=0.25, top=0.925, wspace=0.06)
    noises: tuple[Noise, Noise] = ("bernoulli", "gaussian")
    for axes, noise in zip(panels, noises, strict=True):
        here = table[table["part"] == noise]
        for sigma in sorted(here["sigma"].unique()):
            _draw(axes, curves(here, noise, sigma), COLOURS.get(sigma, INK))
        axes.axhline(SPHERE, **_DASHED)
        start = sum(PUBLISHED_START) / 2
        axes.errorbar(6, start, yerr=PUBLISHED_START[1] - start, color=INK, **POINT, clip_on=False)
        axes.set_title(f"{noise.capitalize()} noise", fontsize=NORMAL, color=INK)
        axes.set_xlabel("Training steps", fontsize=NORMAL, color=INK)
        _log_axes(axes)
    for sigma, step, value, step_error, value_error in PUBLISHED:
        panels[0].errorbar(
            step, value, xerr=step_error or None, yerr=value_error or None, color=COLOURS[sigma], **POINT
        )
    panels[1].axhspan(*PUBLISHED_GAUSSIAN, facecolor="none", edgecolor="0.55", hatch="////", linewidth=0.6)
    panels[0].set_ylabel("Fourth norm of a feature's weights", fontsize=NORMAL, color=INK)
    trained = [
        Line2D([], [], color=colour, linewidth=1.5, label=rf"$\sigma$ = {short(sigma)}")
        for sigma, colour in COLOURS.items()
    ]
    others = [
        Patch(facecolor="0.5", alpha=0.3, label="middle 80 % of networks"),
        Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle="none", label="published"),
        Patch(facecolor="none", edgecolor="0.55", hatch="////", label="published range"),
        Line2D([], [], label="random directions, 3/(m+2)", **_DASHED),
    ]
    figure.legend(
        handles=[*trained, *others], loc="lower center", bbox_to_anchor=(0.535, 0.0), ncols=4,
        frameon=False, fontsize=SMALL, handlelength=1.6, columnspacing=1.4,
    )  # fmt: skip
    return {"fourth_norm": figure}


def _draw(axes: Axes, found: Curves, colour: str) -> None:
    low, high = np.quantile(found.fourth_norm[:, 1:], (0.1, 0.9), axis=0)
    axes.fill_between(found.steps[1:], low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(found.steps[1:], found.mean[1:], color=colour, linewidth=1.5)


def _log_axes(axes: Axes) -> None:
    axes.set(xscale="log", yscale="log", xlim=(5, 130_000), ylim=(0.08, 1.05))
    axes.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.4, 0.8]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", colors=INK, labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
