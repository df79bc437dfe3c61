"""Tests of the theme: all figures are drawn in it, and nothing else is."""

import io
from types import ModuleType
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib.figure import Figure

from common.errors import InputError
from common.style import number, themed
from common.verdicts.claims import Claims
from common.verdicts.evaluate import draw

UNLIKE_IT: Any = {
    "axes.grid": True, "axes.spines.top": True, "font.size": 20, "lines.linewidth": 5, "text.color": "red",
    "xtick.major.size": 12, "ytick.labelsize": 3, "legend.frameon": True,
    "figure.constrained_layout.use": False,
}  # fmt: skip
TABLE = pd.DataFrame({"x": [1.0, 2.0, 4.0], "y": [3.0, 1.0, 2.0]})


def plot(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    figure = Figure()
    axes = figure.add_subplot(xscale="log", xlabel="x")
    axes.plot(table["x"], table["y"], label="a line")
    sns.stripplot(table, x="x", y="y", native_scale=True, ax=axes)  # scattered at random
    axes.legend(title="legend")
    return {"plot": figure}


def drawn(figures: Any = plot) -> Figure:
    code = ModuleType("code_of_figures")
    code.figures = figures  # type: ignore[attr-defined]
    return draw(code, TABLE, Claims())["plot"]


def svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "test"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def test_a_figure_looks_the_same_wherever_it_is_drawn_and_saved() -> None:
    with mpl.rc_context(UNLIKE_IT):
        elsewhere = drawn()
    with themed():
        in_theme = svg(drawn())
    assert svg(drawn()) == svg(elsewhere) == in_theme != svg(plot(TABLE, Claims())["plot"])


def fails(table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    raise ValueError("not drawn")


def test_nothing_is_changed_outside() -> None:
    with mpl.rc_context(UNLIKE_IT):
        before = dict(mpl.rcParams)
        np.random.seed(1)
        number_without = np.random.random()
        np.random.seed(1)
        drawn()
        with pytest.raises(InputError, match="not drawn"):
            drawn(fails)
        assert dict(mpl.rcParams) == before
        assert np.random.random() == number_without


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1, "1"), (10, "10"), (1e-4, "0.0001")]
)
def test_numbers_at_an_axis(value: float, text: str) -> None:
    axes = Figure().add_subplot(xscale="symlog", xlim=(0, 100))
    number(axes.xaxis, [value])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [text]
    assert not any(tick.get_text() for tick in axes.get_xticklabels(minor=True))
