"""Noise on the hidden layer, Lecomte et al. 2023: estimates of the fourth norm over time, and the figure.

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
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from common.style import GREY, INK, ORDERED, PUBLISHED_MARK, number
from common.verdicts.claims import Claims
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
    """The recorded curves of the networks with this noise; all kinds or all sigmas where none is given.

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
    """The mean fourth norm over networks and over the recorded steps of a window.

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
        ValueError: if it is above `height` from the first step on or never reaches it; and as `curves`.
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


SIGMAS = (0.07, 0.1, 0.15)
COLOURS = dict(zip(SIGMAS, sns.color_palette(ORDERED, len(SIGMAS)), strict=True))
_DASHED: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (4, 2))}
_HATCHED: dict[str, Any] = {"facecolor": "none", "edgecolor": GREY, "hatch": "////", "linewidth": 0.6}


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The fourth norm over time: mean and middle 80 % of networks, with the published values.

    Raises:
        ValueError: as `curves`.
    """
    figure = Figure(figsize=(7, 4))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    noises: tuple[Noise, Noise] = ("bernoulli", "gaussian")
    for axes, noise in zip(panels, noises, strict=True):
        _draw_courses(axes, table[table["part"] == noise])
        _draw_published(axes, claims, noise)
        axes.axhline(SPHERE, **_DASHED)
        axes.set(
            title=f"{noise.capitalize()} noise", xlabel="Training steps",
            ylabel="Fourth norm of a feature's weights", xscale="log", yscale="log", xlim=(5, 130_000),
            ylim=(0.08, 1.05),
        )  # fmt: skip
        axes.label_outer()
    number(panels[0].yaxis, (0.1, 0.2, 0.4, 0.8))
    handles = [
        *(Line2D([], [], color=ink, label=rf"$\sigma$ = {sigma:g}") for sigma, ink in COLOURS.items()),
        Patch(facecolor=GREY, alpha=0.3, label="middle 80 % of networks"),
        Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle="none", label="published"),
        Patch(**_HATCHED, label="published range"),
        Line2D([], [], label="random directions, 3/(m+2)", **_DASHED),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fourth_norm": figure}


def _draw_courses(axes: Axes, table: pd.DataFrame) -> None:
    """Mean and middle 80 % of the networks of each sigma, from the first step after the start."""
    step = {f"fourth_norm_{i}": step for i, step in enumerate(STEPS) if i and f"fourth_norm_{i}" in table}
    long = table.melt("sigma", list(step), "step", "fourth_norm")
    long["step"] = long["step"].map(step).astype(float)
    colours = {sigma: COLOURS.get(sigma, INK) for sigma in table["sigma"].unique()}
    sns.lineplot(
        long, x="step", y="fourth_norm", hue="sigma", palette=colours, errorbar=("pi", 80),
        err_kws={"linewidth": 0}, legend=False, ax=axes,
    )  # fmt: skip


def _draw_published(axes: Axes, claims: Claims, noise: Noise) -> None:
    """The points read off the published curves, their common start, and the range of Gaussian noise."""
    start = claims.published("start_first_shown")
    axes.errorbar(6, start.value, start.half_width, color=INK, **PUBLISHED_MARK, clip_on=False)
    if noise == "gaussian":
        stays = claims.published("gaussian_s0.1")
        axes.axhspan(stays.value - stays.half_width, stays.value + stays.half_width, **_HATCHED)
    for x, y, x_error, y_error, sigma in readings(claims) if noise == "bernoulli" else ():
        axes.errorbar(x, y, y_error or None, x_error or None, color=COLOURS[sigma], **PUBLISHED_MARK)


class Reading(NamedTuple):
    """A point of a published curve under Bernoulli noise, with the 95 % half widths of reading it."""

    step: float
    value: float
    step_error: float
    value_error: float
    sigma: float


def readings(claims: Claims) -> list[Reading]:
    """The points of the published curves that the claims are about: crossings of a height, and levels."""
    found = []
    for claim in claims.values():
        published, args = claim.published, claim.estimate.args
        if published is None or args.get("noise") != "bernoulli":
            continue
        if claim.estimate.function == "crossing":
            found.append(Reading(published.value, args["height"], published.half_width, 0, args["sigma"]))
        elif claim.estimate.function == "level":
            step = args["steps"][0]
            found.append(Reading(step, published.value, 0, published.half_width, args["sigma"]))
    return found
