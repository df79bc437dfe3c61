"""One feature's weights without interference: estimates, the paper's prediction, a mean field, the figure.

The table has one row per network, for both schemes: `euler`, the authors', and `ode`, the equation. `alive_i`
and `l1_norm_i` are the number of nonzero weights, m', and the L1 norm at `TIMES[i]`. All times are in units
of 1/lambda.
Source: Lecomte et al. 2023, arXiv 2312.03096; the prediction as in the authors' code.
"""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_trapezoid
from scipy.special import ndtr

from common.statistics import t_quantile
from common.style import BLUE, INK, ORANGE, PUBLISHED_MARK
from common.verdicts.claims import Claims
from replications.incidental_polysemanticity.sparsification_model import TIMES, Array

Scheme = Literal["euler", "ode"]
Quantity = Literal["alive", "l1_norm"]


def predicted(quantity: Quantity, n_hidden: int, time: ArrayLike) -> Array:
    """The paper's prediction: max(1, 1/(1/sqrt(m) + lambda t)) for the L1 norm, and its square for m'."""
    l1_norm = np.maximum(1, 1 / (n_hidden**-0.5 + np.asarray(time, dtype=float)))
    return np.asarray(l1_norm if quantity == "l1_norm" else l1_norm**2)


def mean_field_alive(n_hidden: int, time: ArrayLike) -> Array:
    """The number of nonzero weights, m', where m is large, lambda sqrt(m) small and the start half-normal.

    A weight is alive while w(0) = sigma |x| > b = sigma z, so m' = 2 Q(z) m with the normal tail Q. The norm
    is 1: a^2 m sigma^2 2 g(z) = 1, where 2 g = E (|x| - z)+^2 = 2 ((1 + z^2) Q - z phi). With b' = lambda / a
    the integral of dz / sqrt(2 g) is lambda t sqrt(m), and sigma drops out.
    """
    z = np.linspace(0, 8, 8001)
    tail, density = ndtr(-z), np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    g = (1 + z**2) * tail - z * density
    when = cumulative_trapezoid(1 / np.sqrt(2 * g), z, initial=0)
    at = np.interp(np.sqrt(n_hidden) * np.asarray(time, dtype=float), when, z)
    return np.asarray(2 * ndtr(-at) * n_hidden)


def alive(table: pd.DataFrame, n_hidden: int, time: float, scheme: Scheme = "euler") -> float:
    """The mean m' of the networks at one of `TIMES`.

    Raises:
        ValueError: if the table has no such networks, or `time` is not one of `TIMES`.
    """
    at = np.flatnonzero(np.isclose(TIMES, time, rtol=1e-6, atol=0))
    if not len(at):
        raise ValueError(f"time: the weights are not looked at at {time:g}")
    return float(courses(table, "alive", n_hidden, scheme)[:, at[0]].mean())


def alive_ratio(
    table: pd.DataFrame, n_hidden: int, time: float, theory: Literal["published", "mean_field"]
) -> float:
    """The mean m' over the paper's prediction, or over that of the mean field.

    Raises:
        ValueError: as `alive`.
    """
    expected = (
        mean_field_alive(n_hidden, time) if theory == "mean_field" else predicted("alive", n_hidden, time)
    )
    return alive(table, n_hidden, time) / float(expected)


def within_factor_two(table: pd.DataFrame, quantity: Quantity, n_hidden: int) -> "pd.Series[bool]":
    """Whether the paper's prediction holds to a factor 2, for each network and each of `TIMES`.

    Raises:
        ValueError: if the table has no such networks.
    """
    ratio = _over_prediction(table, quantity, n_hidden)
    return pd.Series(np.abs(np.log2(ratio)).ravel() <= 1)


def l1_norm_ratio(table: pd.DataFrame, n_hidden: int, extreme: Literal["lowest", "highest"]) -> float:
    """The L1 norm over its prediction: the lowest or the highest over time, the mean of that over networks.

    Raises:
        ValueError: if the table has no such networks.
    """
    ratio = _over_prediction(table, "l1_norm", n_hidden)
    return float((ratio.min(axis=1) if extreme == "lowest" else ratio.max(axis=1)).mean())


def schemes_difference(
    table: pd.DataFrame, quantity: Literal["alive", "l1_norm", "end_time"], n_hidden: int
) -> float:
    """The largest relative difference over time between the means of the Euler scheme and of the equation.

    Raises:
        ValueError: if the table has no such networks.
    """
    euler, ode = (courses(table, quantity, n_hidden, scheme).mean(axis=0) for scheme in ("euler", "ode"))
    return float(np.abs(euler / ode - 1).max())


def one_left(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a single weight was left in the end, for each network, by both schemes."""
    return table["end_time"].notna()


def largest_survives(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the last weight is the one that was largest at the start, for each network.

    Of the Euler scheme: the solution of the equation has it so by construction.
    """
    return table.loc[table["scheme"] == "euler", "largest_survives"] == 1


def order_preserved(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether no weight was ever larger than one that was larger at the start, for each network.

    Of the Euler scheme, as `largest_survives`. Seen at `TIMES` and whenever dropped weights are cleared away.
    """
    return table.loc[table["scheme"] == "euler", "order_preserved"] == 1


def courses(table: pd.DataFrame, quantity: str, n_hidden: int, scheme: str = "euler") -> Array:
    """A quantity of the networks: an array (networks, times), or (networks, 1) of one that has no course.

    Raises:
        ValueError: if the table has no such networks.
    """
    rows = (table["scheme"] == scheme) & (table["n_hidden"] == n_hidden)
    if not rows.any():
        raise ValueError(f"the table has no networks of m = {n_hidden} by the scheme {scheme!r}")
    names = [quantity] if quantity in table else [f"{quantity}_{i}" for i in range(len(TIMES))]
    return table.loc[rows, names].to_numpy(dtype=float)


def _over_prediction(table: pd.DataFrame, quantity: Quantity, n_hidden: int) -> Array:
    return courses(table, quantity, n_hidden) / predicted(quantity, n_hidden, TIMES)


def figures(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The number of nonzero weights and the L1 norm of the widest networks over time, by the Euler scheme."""
    euler = table[table["scheme"] == "euler"]
    if euler.empty:
        return {}
    n_hidden = int(euler["n_hidden"].max())
    figure = Figure(figsize=(7.4, 4))
    left, right = figure.subplots(1, 2)
    _draw_courses(left, euler, "alive", n_hidden)
    _draw_courses(right, euler, "l1_norm", n_hidden)
    mean_field = mean_field_alive(n_hidden, TIMES[1:])
    some = mean_field >= 1
    label = "mean field of many weights"
    left.plot(TIMES[1:][some], mean_field[some], color=ORANGE, linestyle=(0, (1, 1.2)), label=label)
    left.set_ylabel("Number of nonzero weights, m'")
    right.set_ylabel("L1 norm")
    _draw_published(left, claims, n_hidden)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"One feature's weights without interference, m = {n_hidden:,}")
    return {"sparsification": figure}


def _draw_courses(axes: Axes, table: pd.DataFrame, quantity: Quantity, n_hidden: int) -> None:
    """Every network, their mean with its 95 % interval, and the prediction, from the first time after 0."""
    time, values = TIMES[1:], courses(table, quantity, n_hidden)[:, 1:]
    n = len(values)
    axes.plot(time, values.T, color=BLUE, linewidth=0.4, alpha=0.35)
    axes.plot([], [], color=BLUE, linewidth=0.4, label=f"{n} networks")
    mean = values.mean(axis=0)
    if n > 1:
        half = t_quantile(0.975, n) * values.std(axis=0, ddof=1) / np.sqrt(n)
        axes.fill_between(time, mean - half, mean + half, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(time, mean, color=BLUE, label="mean, with 95 % interval")
    expected = predicted(quantity, n_hidden, time)
    axes.plot(time, expected, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), label="the paper's prediction")
    axes.set(xscale="log", yscale="log", xlim=(time[0], time[-1]), xlabel=r"Time, in units of 1/$\lambda$")


def _draw_published(axes: Axes, claims: Claims, n_hidden: int) -> None:
    """The published counts of networks so wide, and the end of the published curve."""
    label = "published, with reading error"
    for claim in claims.values():
        published, args = claim.published, claim.estimate.args
        if published and claim.estimate.function == "alive" and args["n_hidden"] == n_hidden:
            error, at = published.reading_error, args["time"]
            axes.errorbar(at, published.value, error, color=INK, label=label, **PUBLISHED_MARK)
            label = ""
    if claims["end_time"].estimate.at["n_hidden"] == n_hidden:
        end = claims.published("end_time")
        axes.errorbar(end.value, 1, xerr=end.reading_error, clip_on=False, color=INK, **PUBLISHED_MARK)
