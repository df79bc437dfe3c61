"""The weights of one feature without interference: the authors' Euler scheme, and the equation itself.

dw/dt = (1 - |W|^2) w - lambda for each nonzero weight; one that reaches zero stays there. Signs do not
matter, so weights are positive.
Source: Lecomte et al. 2023, one feature's weights over time; equation, start, step and end as in the authors'
code.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from pydantic import Field
from scipy.integrate import solve_ivp
from torch import Tensor

from common.computed import Computed
from common.features import generator

Array = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]

TIMES: Array = np.r_[0.0, 10 ** (np.arange(128) / 24 - 5)]
"""The times at which weights are recorded, in units of 1/lambda: 0, and 24 per decade from 1e-5 to 2."""

STEP = 0.5
START_SCALE = 0.9

LATEST = 10.0
"""The time after which a run stops without reaching a single weight, in units of 1/lambda.

In the limit of many weights one network in 300,000 takes as long. Its two largest weights are equal to 1 part
in exp(12) of their distance to the third: the logarithm of that ratio is sqrt(2) times the time it takes.
"""

# an array is cut to the weights alive when they fill less of it than this: what is saved pays for the copying
_CUT_BELOW = 0.8


class Course(NamedTuple):
    """The outcome of some networks.

    `alive` and `l1_norm` are the number of nonzero weights and their sum at `TIMES`. They stay constant
    once a single weight is left, at `end_time`: in units of 1/lambda, NaN if more are left.
    """

    alive: Float64[Array, "instances times"]
    l1_norm: Float64[Array, "instances times"]
    end_time: Float64[Array, "instances"]
    largest_survives: Float64[Array, "instances"]
    order_preserved: Float64[Array, "instances"]


class Sparsification(Computed):
    """One feature's weights from their start until a single one is left.

    Args:
        seeds: for each network the seed of its start weights
        scheme: `euler`, the authors' scheme with its step of 0.5, or `ode`, the equation
        n_hidden: weights, m in the paper
        l1: weight of the L1 norm, lambda in the paper
        time_unit: the time in whose units times are given: 1/lambda, also where lambda is turned off
        uneven: each weight has its own lambda, uniform within this share of `l1`; for a control
    """

    def __init__(
        self,
        seeds: Sequence[int],
        scheme: Literal["euler", "ode"],
        n_hidden: Annotated[int, Field(ge=2)],
        l1: Annotated[float, Field(ge=0)],
        time_unit: Annotated[float, Field(gt=0)],
        uneven: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        if uneven and scheme == "ode":
            raise ValueError("uneven: the equation is solved for a single lambda; use the Euler scheme")
        super().__init__(seeds)
        self.scheme, self.n_hidden, self.l1 = scheme, n_hidden, l1
        self.time_unit, self.uneven = time_unit, uneven

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """The fields of `Course`, tensors (instances, ...)."""
        draws = [generator("start", seed) for seed in self.seeds]
        start = np.stack([start_weights(draw, self.n_hidden) for draw in draws])
        if self.scheme == "ode":
            course = solve(start, self.l1, self.time_unit)
        else:
            share = np.stack([draw.uniform(-self.uneven, self.uneven, self.n_hidden) for draw in draws])
            course = euler(start, self.l1 * (1 + share), self.time_unit)
        return {name: torch.from_numpy(value) for name, value in course._asdict().items()}


def start_weights(draw: np.random.Generator, n_hidden: int) -> Float64[Array, "{n_hidden}"]:
    """The size of normal weights with standard deviation 0.9 / sqrt(n_hidden), largest first."""
    size = np.abs(draw.standard_normal(n_hidden)) * (START_SCALE / np.sqrt(n_hidden))
    return np.sort(size)[::-1]


def observed_steps(time_unit: float) -> list[int]:
    """The Euler steps nearest to `TIMES`, of which several can be the same at the start."""
    return [round(time * time_unit / STEP) for time in TIMES.tolist()]


def euler(
    start: Float64[Array, "instances hidden"], l1: Float64[Array, "instances hidden"], time_unit: float
) -> Course:
    """Euler steps of 0.5 from `start`, largest first, each weight with its own `l1`."""
    looks = [*observed_steps(time_unit), round(LATEST * time_unit / STEP)]
    course = _unknown(len(start))
    course.order_preserved[:], course.largest_survives[:] = True, False
    # columns are networks with more than two weights; a zero weight keeps its place until the next cut
    network, place = np.arange(len(start)), np.tile(np.arange(start.shape[1])[:, None], len(start))
    weight, loss = start.T.copy(), STEP * l1.T
    look, step, total = 0, 0, start.size
    while step < looks[-1] and len(network):
        while step == looks[look]:
            course.alive[network, look] = (weight > 0).sum(axis=0)
            course.l1_norm[network, look] = _sums(weight)
            course.order_preserved[network] *= _descends(weight)
            look += 1
        weight *= 1 + STEP - STEP * _sums(weight * weight)
        weight -= loss
        np.maximum(weight, 0, out=weight)  # growth is in proportion, so a zero stays one
        step += 1
        before, total = total, int(np.count_nonzero(weight))
        if total == before:
            continue
        alive = (weight > 0).sum(axis=0)
        few = alive <= 2
        too_wide = alive.max() < _CUT_BELOW * len(weight)
        if few.any() or too_wide:
            course.order_preserved[network] *= _descends(weight)
        for column in np.flatnonzero(few):
            two = np.sort(np.argsort(weight[:, column])[-2:])
            pair = weight[two, column], loss[two, column], place[two, column]
            _last_two(course, network[column], *pair, look, step, looks)
        if few.any():
            weight, loss = (np.compress(~few, a, axis=1) for a in (weight, loss))
            place, network = np.compress(~few, place, axis=1), network[~few]
            total = int(np.count_nonzero(weight))
        if too_wide:
            kept = np.argsort(weight == 0, axis=0, kind="stable")[: alive.max()]
            weight, loss = (np.take_along_axis(a, kept, axis=0) for a in (weight, loss))
            place = np.take_along_axis(place, kept, axis=0)
    return course._replace(end_time=course.end_time * STEP / time_unit)


def _sums(values: Float64[Array, "hidden instances"]) -> Float64[Array, "instances"]:
    """The sum of each column, added up from top to bottom.

    So zeros in between change no bit of it: a network's course does not depend on the others beside it, which
    decide how many zeros its column still has. numpy would add up a single column in another order.
    """
    assert values.flags.c_contiguous  # otherwise numpy adds up in another order
    return np.asarray(values.sum(axis=0) if values.shape[1] > 1 else np.add.accumulate(values)[-1])


def _last_two(
    course: Course, network: int, weight: Float64[Array, "2"], loss: Float64[Array, "2"],
    place: Int64[np.ndarray, "2"], look: int, step: int, looks: list[int],
) -> None:  # fmt: skip
    """Euler steps with one network's last two weights: as plain numbers one takes 0.3 us, as arrays 8 us."""
    a, b = weight.tolist()
    loss_a, loss_b = loss.tolist()
    while a > 0 and b > 0 and step < looks[-1]:
        while step == looks[look]:
            course.alive[network, look], course.l1_norm[network, look] = 2, a + b
            course.order_preserved[network] *= a >= b
            look += 1
        growth = 1 + STEP - STEP * (a * a + b * b)
        a, b = a * growth - loss_a, b * growth - loss_b
        step += 1
    a, b = max(a, 0.0), max(b, 0.0)
    course.alive[network, look:], course.l1_norm[network, look:] = (a > 0) + (b > 0), a + b
    course.order_preserved[network] *= a >= b
    if (a > 0) != (b > 0):
        course.end_time[network] = step  # `euler` makes it a time
        course.largest_survives[network] = place[0 if a > 0 else 1] == 0


def solve(start: Float64[Array, "instances hidden"], l1: float, time_unit: float) -> Course:
    """The solution of the equation from `start`, largest first.

    It keeps the order of the weights by construction: `largest_survives` and `order_preserved` are NaN, as
    they are not measured.
    """
    times, where = np.unique(np.multiply(observed_steps(time_unit), STEP), return_inverse=True)
    course = _unknown(len(start))
    for i, weights in enumerate(start):
        alive, l1_norm, end = _solution(weights, l1, times, LATEST * time_unit)
        course.alive[i], course.l1_norm[i], course.end_time[i] = alive[where], l1_norm[where], end / time_unit
    return course


def _solution(
    start: Float64[Array, "hidden"], l1: float, times: Float64[Array, "times"], latest: float
) -> tuple[Float64[Array, "times"], Float64[Array, "times"], float]:
    """The number of weights alive and their sum at `times`, and the time when one is left, of one network.

    All weights alive obey the same linear equation, so w_k(t) = a(t) (w_k(0) - b(t)) with a' = (1 - |W|^2) a,
    b' = lambda / a, a(0) = 1, b(0) = 0, while w_k(0) > b. Solved for the logarithms of a and of the room
    c = w_1(0) - b below the largest weight. With the gaps d_k = w_1(0) - w_k(0), |W|^2 = a^2 sum (c - d_k)^2
    over d_k < c, which loses no digits where only a few large weights are left.
    """
    gap = start[0] - start
    sums, squares = np.cumsum(gap), np.cumsum(gap**2)

    def slope(_: float, state: Array) -> tuple[float, float]:
        scale, room = np.exp(state)
        n = int(gap.searchsorted(room))
        squared_norm = scale**2 * (n * room**2 - 2 * room * sums[n - 1] + squares[n - 1])
        return 1 - squared_norm, -l1 / (scale * room)

    def one_left(_: float, state: Array) -> float:
        return float(state[1] - np.log(gap[1]))

    one_left.terminal = True  # type: ignore[attr-defined]
    # stiff: |W|^2 settles in a time of 1, and the end is near 1/lambda
    solution = solve_ivp(
        slope, (0.0, latest), (0.0, np.log(start[0])), "LSODA", t_eval=times, events=one_left,
        rtol=1e-9, atol=1e-10,
    )  # fmt: skip
    scale, room = np.exp(solution.y)
    n = gap.searchsorted(room)
    alive, l1_norm = n.astype(float), scale * (n * room - sums[n - 1])
    assert solution.t_events is not None
    assert solution.y_events is not None
    if not len(solution.t_events[0]):
        return alive, l1_norm, np.nan
    after = len(times) - len(alive)
    survivor = np.exp(solution.y_events[0][0].sum())
    return np.r_[alive, np.ones(after)], np.r_[l1_norm, np.full(after, survivor)], solution.t_events[0][0]


def _unknown(n_networks: int) -> Course:
    shapes = [(n_networks, len(TIMES))] * 2 + [(n_networks,)] * 3
    return Course(*(np.full(shape, np.nan) for shape in shapes))


def _descends(weight: Float64[Array, "hidden instances"]) -> Bool[np.ndarray, "instances"]:
    return np.asarray((np.diff(weight, axis=0) <= 0).all(axis=0))
