"""The geometry of trained features that come in pairs, in two hidden dimensions, and how to draw it.

Features 0 and 1 are a pair, 2 and 3, and so on. Angles are in degrees. A feature counts as learned if its
length is at least half of 1/sqrt(2), the length in a pair merged into its principal component.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes

from common.style import BLUE, GREY, ORANGE, RED

Array = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]
Flags = np.ndarray[tuple[Any, ...], np.dtype[np.bool_]]

LEARNED = 0.5 / np.sqrt(2)

OFF = 6.0
"""The largest error of the angles of the published squares, as read off the figure."""

COLLAPSED = 30.0
"""Below this angle a pair has collapsed: it is nearer to 0 than to the 60 of a hexagon."""

PAIRINGS = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
"""The ways in which four features can be two antipodal pairs."""

COLOURS = (BLUE, RED, ORANGE)


def at(table: pd.DataFrame, part: str, density: float) -> Bool[Flags, "rows"]:
    """The rows of the networks of a part at a density.

    Raises:
        ValueError: if there are none.
    """
    densities = table["density"].to_numpy(dtype=float)
    here: Flags = (table["part"] == part).to_numpy() & (np.abs(densities - density) <= 1e-6 * density)
    if not here.any():
        raise ValueError(f"no network of part {part!r} at density {density:g}")
    return here


def weights(
    table: pd.DataFrame, rows: Bool[Flags, "rows"], n_hidden: int, n_features: int
) -> Float[Array, "instances {n_hidden} {n_features}"]:
    """The weights of the networks in these rows."""
    names = [f"weight_{k}_{i}" for k in range(n_hidden) for i in range(n_features)]
    # column by column: it takes a third of the time of pandas' own choice of rows and columns
    columns = [table[name].to_numpy()[rows] for name in names]
    return np.stack(columns, axis=1).astype(float).reshape(-1, n_hidden, n_features)


def learned(weight: Float[Array, "instances 2 features"]) -> Bool[Flags, "instances features"]:
    """Whether each feature is learned."""
    known: Flags = np.linalg.norm(weight, axis=1) >= LEARNED
    return known


def angles(weight: Float[Array, "instances 2 features"]) -> Float[Array, "instances features features"]:
    """The angle between any two features, 0 to 180."""
    direction = np.degrees(np.arctan2(weight[:, 1], weight[:, 0]))
    apart = np.abs(direction[:, :, None] - direction[:, None, :])
    return np.asarray(np.minimum(apart, 360 - apart))


def within(weight: Float[Array, "instances 2 features"]) -> Float[Array, "instances features//2"]:
    """The angle between the two features of each pair."""
    direction = np.degrees(np.arctan2(weight[:, 1], weight[:, 0]))
    apart = np.abs(direction[:, ::2] - direction[:, 1::2])
    return np.asarray(np.minimum(apart, 360 - apart))


def collapsed(
    weight: Float[Array, "instances 2 features"], degrees: float = COLLAPSED
) -> Bool[Flags, "instances features//2"]:
    """Whether both features of a pair are learned, in nearly one direction."""
    both = learned(weight).reshape(len(weight), -1, 2).all(axis=2)
    return both & (within(weight) < degrees)


def square(weight: Float[Array, "instances 2 4"], degrees: float = OFF) -> Int[np.ndarray, "instances"]:
    """The index in `PAIRINGS` of four features that are two orthogonal antipodal pairs; else -1.

    Args:
        weight: of each network
        degrees: by how much each of the six angles may be off
    """
    angle, known = angles(weight), learned(weight).all(axis=1)
    found = np.full(len(weight), -1)
    for k, pairing in enumerate(PAIRINGS):
        ideal = np.full((4, 4), 90.0)
        for i, j in pairing:
            ideal[i, j] = ideal[j, i] = 180
        np.fill_diagonal(ideal, 0)
        found[known & (np.abs(angle - ideal) <= degrees).all(axis=(1, 2))] = k
    return found


def hexagon(weight: Float[Array, "instances 2 6"], degrees: float = 30.0) -> Bool[Flags, "instances"]:
    """Whether six learned features lie around the circle, neighbours 60 apart.

    Args:
        weight: of each network
        degrees: by how much each angle may be off; with 30 each is nearer to 60 than to the 0 of a collapsed
            pair and to the 120 that a missing feature leaves
    """
    direction = np.sort(np.degrees(np.arctan2(weight[:, 1], weight[:, 0])), axis=1)
    gaps = np.diff(direction, axis=1, append=direction[:, :1] + 360)
    fits: Flags = learned(weight).all(axis=1) & (np.abs(gaps - 60) <= degrees).all(axis=1)
    return fits


def side_by_side(weight: Float[Array, "instances 2 features"]) -> Bool[Flags, "instances"]:
    """Whether in each pair one feature is next to the other around the circle."""
    order = np.argsort(np.arctan2(weight[:, 1], weight[:, 0]), axis=1)
    place = np.argsort(order, axis=1)
    n = weight.shape[2]
    apart = (place[:, ::2] - place[:, 1::2]) % n
    beside: Flags = ((apart == 1) | (apart == n - 1)).all(axis=1)
    return beside


def common_frame(weight: Float[Array, "2 features"]) -> Float[Array, "2 features"]:
    """One network's weights, rotated and reflected: feature 0 up, feature 1 to the left of it."""
    turned = np.degrees(np.arctan2(weight[1], weight[0]))
    turned = (turned - turned[0] + 180) % 360 - 180
    if turned[1] < 0:
        turned = -turned
    angle = np.radians(turned + 90)
    lengths = np.linalg.norm(weight, axis=0)
    return np.stack([lengths * np.cos(angle), lengths * np.sin(angle)])


def draw(axes: Axes, weight: Float[Array, "2 features"], title: str = "", paired: bool = True) -> None:
    """Draw one network's features as arrows in the common frame, pairs in colours."""
    around = np.linspace(0, 2 * np.pi, 100)
    axes.plot(np.cos(around), np.sin(around), color="0.85", linewidth=0.8)
    for i, (x, y) in enumerate(common_frame(weight).T):
        colour = COLOURS[i // 2] if paired else GREY
        axes.plot([0, x], [0, y], color=colour)
        axes.plot(x, y, "o" if i % 2 == 0 else "s", color=colour)
    axes.set(aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
    axes.set_axis_off()
    axes.set_title(title, pad=0)
