"""Tests of phase_diagram.py: estimates on tables of made-up networks, whose answers are known."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from common.metrics import feature_norm, superposition
from common.style import BLUE, RED
from replications.toy_models_of_superposition.phase_diagram import (
    EXACT_BOUNDARY,
    PUBLISHED_BOUNDARY,
    agreement,
    at_optimum,
    boundary,
    boundary_log_ratio,
    confused_loss,
    confused_product,
    largest_step,
    phase,
    superposition_when_dense,
)
from replications.toy_models_of_superposition.phase_diagram_cells import Selection, cells, diagram
from replications.toy_models_of_superposition.phase_diagram_figures import (
    NOT_LEARNED,
    PUBLISHED_AT_ONE,
    colour,
    published_boundary,
)
from replications.toy_models_of_superposition.phase_diagram_theory import (
    CONFIGURATIONS,
    Phase,
    best_configuration,
    configurations,
    exact_boundary,
    exact_optimum,
    relative_gap,
    theory_boundary,
    two_feature_loss,
)
from tests.replications.under_test import UnderTest

PHASES = UnderTest("toy_models_of_superposition/phase_diagram")
CLAIMS = PHASES.claims
CUT_DENSITIES = np.geomspace(1, 0.1, 60)
STEP = CUT_DENSITIES[0] / CUT_DENSITIES[1]
SELECTIONS: tuple[Selection, Selection] = ("published", "best")
LEARNED_BOTH, LEARNED_FIRST, LEARNED_EXTRA = [[1.0, -1.0]], [[1.0, 0.0]], [[0.0, 1.0]]


def networks(
    part: str, weight: ArrayLike, r: ArrayLike, p: ArrayLike, seed: ArrayLike = 0, loss: ArrayLike = 1.0
) -> pd.DataFrame:
    """Rows of the instances table from weights (rows, n_hidden, n_features)."""
    stack = np.asarray(weight, float)
    rows, n_hidden, n_features = stack.shape
    columns = {
        "part": part, "n_features": n_features, "n_hidden": n_hidden, "extra_importance": r, "density": p,
        "bias": part != "no_bias", "seed": seed, "loss": loss,
    }  # fmt: skip
    table = pd.DataFrame(columns, index=range(rows))
    norms, shared = (f(torch.from_numpy(stack)).numpy() for f in (feature_norm, superposition))
    for i in range(n_features):
        table[f"feature_norm_{i}"], table[f"superposition_{i}"] = norms[:, i], shared[:, i]
        for k in range(n_hidden):
            table[f"weight_{k}_{i}"] = stack[:, k, i]
    return table


def ideal(part: str, n_features: int, r: ArrayLike, p: ArrayLike, seeds: int = 3) -> pd.DataFrame:
    """The theory's best networks on a grid."""
    at = [a.ravel() for a in np.meshgrid(r, p, np.arange(seeds))]
    weights = np.array([CONFIGURATIONS[name].weight for name in configurations(n_features)], float)
    return networks(part, weights[best_configuration(n_features, at[0], at[1])], *at)


def cut(is_pair: NDArray[np.bool_], r: float, seed: int = 0, loss: float = 1.0) -> pd.DataFrame:
    """One seed's networks along a cut: the antipodal pair, or only the more important feature."""
    alone = LEARNED_FIRST if r < 1 else LEARNED_EXTRA
    return networks(
        "cuts", np.where(is_pair[:, None, None], LEARNED_BOTH, alone), r, CUT_DENSITIES, seed, loss
    )


def cuts_with_boundaries(at: dict[float, float], seeds: int = 3) -> pd.DataFrame:
    return pd.concat([cut(p > CUT_DENSITIES, r, seed) for r, p in at.items() for seed in range(seeds)])


GRID = np.geomspace(0.1, 10, 12), np.geomspace(1, 0.01, 12)


def whole_table() -> pd.DataFrame:
    return pd.concat(
        [
            ideal("two_features", 2, *GRID),
            ideal("three_features", 3, *GRID),
            cuts_with_boundaries(published_boundary(CLAIMS)),
        ],
        ignore_index=True,
    )


def test_selection_leaves_out_the_worst_or_takes_the_best() -> None:
    weight = [[[1.0, -0.1]], [[1.0, -0.5]], [[1.0, -0.9]]]
    table = networks("cuts", weight, 0.5, 0.3, seed=[0, 1, 2], loss=[0.2, 0.3, 0.1])
    assert cells(table, "cuts", "published").norm == pytest.approx([0.5])
    assert cells(table, "cuts", "best").norm == pytest.approx([0.9])
    table.loc[1, ["loss", "feature_norm_1"]] = np.nan
    assert cells(table, "cuts", "published").norm == pytest.approx([0.5])
    table.loc[0, "feature_norm_1"] = np.nan
    with pytest.raises(ValueError, match="part 'cuts': a selected network has diverged"):
        cells(table, "cuts", "published")


def test_cells_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    table = whole_table()
    table["loss"] = rng.integers(0, 3, len(table)) / 10.0  # with ties
    for name in table.columns[table.columns.str.startswith(("feature_norm", "superposition"))]:
        table[name] += rng.random(len(table))
    mixed = table.sample(frac=1, random_state=1)
    for part in ("two_features", "three_features", "cuts"):
        for selection in SELECTIONS:
            pairs = zip(cells(table, part, selection), cells(mixed, part, selection), strict=True)
            for a, b in pairs:
                np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-12)


def test_phases() -> None:
    assert phase([0.49, 0.51, 0.51], [1.0, 0.24, 0.26]).tolist() == [
        Phase.NOT_LEARNED,
        Phase.DEDICATED,
        Phase.SUPERPOSITION,
    ]


@pytest.mark.parametrize(("part", "n_features"), [("two_features", 2), ("three_features", 3)])
def test_agreement_counts_the_planted_cells(part: str, n_features: int) -> None:
    table = ideal(part, n_features, *GRID)
    assert agreement(table, part).all()
    assert len(agreement(table, part)) == 144
    decided = agreement(table, part, selection="best", decided=True)
    assert len(decided) == int((relative_gap(n_features, *np.meshgrid(*GRID)) > 0.2).sum()) < 144
    # at the sparsest density all extra features less important than the others are in superposition
    wrong = (table["density"] == GRID[1][-1]) & (table["extra_importance"] < 0.5)
    table.loc[wrong, f"feature_norm_{n_features - 1}"] = 0.1
    cells_wrong = int(wrong.sum()) // 3
    assert cells_wrong == 4
    assert agreement(table, part).mean() == 1 - cells_wrong / 144
    assert not agreement(table, part).loc[GRID[0][0], GRID[1][-1]]


@pytest.mark.parametrize("r", PUBLISHED_BOUNDARY)
@pytest.mark.parametrize("selection", SELECTIONS)
def test_boundary_is_found_to_within_a_step(r: float, selection: Selection) -> None:
    planted = PUBLISHED_BOUNDARY[r]
    table = cuts_with_boundaries({r: planted})
    assert abs(np.log(boundary(table, r, selection) / planted)) < np.log(STEP)


def test_there_is_no_boundary_of_equal_importances() -> None:
    with pytest.raises(ValueError, match="r: the boundary is defined for importances other than 1"):
        boundary(cuts_with_boundaries({1.0: PUBLISHED_AT_ONE}), 1.0)


def test_published_boundary_is_that_of_the_claims() -> None:
    assert published_boundary(CLAIMS) == {**PUBLISHED_BOUNDARY, 1.0: PUBLISHED_AT_ONE}


@pytest.mark.parametrize("r", [0.316, 3.16])
def test_boundary_does_not_see_a_stuck_network(r: float) -> None:
    good = [cut(CUT_DENSITIES < 0.4, r, seed) for seed in range(3)]
    stuck = cut(np.zeros(60, dtype=bool), r, seed=3, loss=2.0)
    table = pd.concat([*good, stuck])
    for selection in SELECTIONS:
        assert boundary(table, r, selection) == boundary(pd.concat(good), r, selection)


def test_boundary_is_interpolated_in_log_density() -> None:
    table = networks("cuts", [[[1.0, 0.0]], [[1.0, 0.2]], [[1.0, 0.6]]], 0.1, [1.0, 0.4, 0.1])
    assert boundary(table, 0.1, "best") == pytest.approx(0.4 * 0.25**0.75)


@pytest.mark.parametrize(
    ("is_pair", "message"), [(np.zeros, "no density has both"), (np.ones, "already at the highest density")]
)
def test_boundary_that_is_not_there(is_pair: type, message: str) -> None:
    for r in (0.1, 10.0):
        with pytest.raises(ValueError, match=message):
            boundary(cut(is_pair(60, dtype=bool), r), r, "best")


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
def test_boundary_log_ratio(factor: float) -> None:
    references = {"published": PUBLISHED_BOUNDARY, "exact": EXACT_BOUNDARY}
    references["theory"] = {r: float(theory_boundary(r, 2)) for r in EXACT_BOUNDARY}
    for name, at in references.items():
        table = cuts_with_boundaries({r: factor * p for r, p in at.items()})
        found = boundary_log_ratio(table, name)  # type: ignore[arg-type]
        assert found == pytest.approx(np.log(factor), abs=np.log(STEP) / 2)


def test_exact_boundaries_are_as_computed() -> None:
    for r, p in EXACT_BOUNDARY.items():
        assert exact_boundary(r) == pytest.approx(p, rel=4e-4)


def test_largest_step_tells_a_jump_from_a_slope() -> None:
    r, n = 0.316, len(CUT_DENSITIES)
    assert largest_step(cut(CUT_DENSITIES < 0.4, r), r) == 1
    assert largest_step(cut(CUT_DENSITIES < 0.4, 1 / r), 1 / r) == 1
    short = -np.linspace(0, 1, n)
    slope = np.stack([np.ones(n), short], axis=1)[:, None]
    assert largest_step(networks("cuts", slope, r, CUT_DENSITIES), r) == pytest.approx(1 / (n - 1))
    # which of two exchangeable features is the longer is no jump
    turned = np.where(np.arange(n)[:, None, None] % 2, slope, slope[..., ::-1])
    assert largest_step(networks("cuts", turned, 1.0, CUT_DENSITIES), 1.0) == pytest.approx(1 / (n - 1))
    assert largest_step(cut(np.zeros(n, dtype=bool), r), r) == 0


def test_superposition_when_dense() -> None:
    assert superposition_when_dense(whole_table(), "three_features") == 0
    weight = [[[1.0, -1.0]], [[0.2, 1.0]], [[1.0, 0.1]]]
    table = networks("two_features", weight, [0.1, 1.0, 0.3], [0.5, 1.0, 1.0])
    assert superposition_when_dense(table, "two_features", "best") == pytest.approx(0.04)
    with pytest.raises(ValueError, match="no extra feature is learned at density 1"):
        superposition_when_dense(table[table["density"] < 1], "two_features", "best")


def test_confused_feature_and_its_loss() -> None:
    half = 0.5**0.5
    weight = [[[half, half]], [[-half, -half]], [[1.0, -1.0]]]
    table = networks("no_bias", weight, 1.0, 0.6, seed=[0, 1, 2], loss=[0.055, 0.0551, 0.06])
    assert confused_product(table, 0.6) == pytest.approx(0.5)
    assert confused_loss(table, 0.6) == pytest.approx(0.6 / 3 - 0.6**2 / 4, rel=1e-5)
    table["density"] = 0.4
    table["loss"] = [0.0467, 0.0467, 0.0267]
    assert confused_product(table, 0.4) == -1
    assert confused_loss(table, 0.4) == pytest.approx(0.4**2 / 3, rel=1e-5)


def test_lengths_at_the_optimum() -> None:
    """Of three networks one is stuck, with the extra feature not learned."""
    weight = [[[1.0, -0.9]], [[-1.1, 0.9]], [[1.0, 0.1]]]
    table = networks("cuts", weight, 0.1, 0.1, seed=[0, 1, 2], loss=[0.055, 0.0551, 0.06])
    assert at_optimum(table, "norm", 0.1, 0.1) == pytest.approx(0.9)
    assert at_optimum(table, "superposition", 0.1, 0.1) == pytest.approx((1 + 1.1**2) / 2)
    with pytest.raises(ValueError, match="quantity: expected one of norm, superposition, got 'loss'"):
        at_optimum(table, "loss", 0.1, 0.1)  # type: ignore[arg-type]


def test_the_theory_of_the_lengths() -> None:
    (other, extra), _ = exact_optimum(0.1, 0.1)
    for name, value in (("pair_norm", abs(extra)), ("pair_superposition", other**2)):
        theory = CLAIMS[name].theory
        assert theory is not None
        assert value == pytest.approx(theory.value, abs=1e-3)


def test_the_margin_of_a_length_is_above_the_jitter_of_adamw() -> None:
    """Near an optimum each step is the rate times gradient over its root mean square, a linear process.

    The covariance of such a process solves a Lyapunov equation, of the curvature and the spread of gradients.
    """
    r, p, rate, batch = 0.1, 0.1, 1e-3, 1024
    at = np.concatenate(exact_optimum(r, p))
    shift = 1e-3 * np.eye(4)
    around = at + np.array([[a + b, a - b] for a in shift for b in shift]).reshape(4, 4, 2, 4)
    around = np.concatenate([around, 2 * at - around], axis=2)
    losses = two_feature_loss(around[..., :2], around[..., 2:], r, p) / 2  # the model's is the mean
    curvature = losses @ [1, -1, 1, -1] / (4 * 1e-6)

    def loss(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        error = torch.relu(weights[:2] * (weights[:2] @ x) + weights[2:]) - x
        return (torch.tensor([1, r]) * error.square()).mean()

    uniforms = torch.rand(2, 200_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = torch.vmap(torch.func.grad(loss), (None, 0))(
        torch.from_numpy(at), uniforms[0] * (uniforms[1] < p)
    )
    spread = np.cov(gradients.numpy().T) / batch
    size = np.sqrt(np.diag(spread))
    covariance = linalg.solve_continuous_lyapunov(
        rate * curvature / size[:, None], rate**2 * spread / np.outer(size, size)
    )
    other, extra = np.sqrt(np.diag(covariance))[:2]
    assert extra == pytest.approx(0.007, abs=5e-4)
    margins = [CLAIMS[name].margin for name in ("pair_norm", "pair_superposition")]
    for margin, jitter in zip(margins, (extra, 2 * at[0] * other), strict=True):
        assert margin is not None
        assert margin.value is not None
        assert margin.value > 2.5 * jitter


def test_missing_rows_are_named() -> None:
    table = cut(CUT_DENSITIES < 0.4, 0.316)
    for estimate in (agreement, superposition_when_dense, diagram):
        with pytest.raises(ValueError, match="part 'two_features': the table has no such networks"):
            estimate(table, "two_features")
    with pytest.raises(ValueError, match=r"r = 0\.5 has 0"):
        boundary(table, 0.5, "best")
    with pytest.raises(ValueError, match="needs at least 2 seeds per cell"):
        boundary(table, 0.316, "published")
    with pytest.raises(ValueError, match=r"part 'no_bias': no network at r = 1, p = 0\.6"):
        confused_product(table, 0.6)
    with pytest.raises(ValueError, match=r"part 'no_bias': no network at r = 1, p = 0\.3"):
        confused_loss(networks("no_bias", [[[1.0, 1.0]]], 1.0, 0.6), 0.3)
    with pytest.raises(ValueError, match="selection: expected published or best, got 'worst'"):
        cells(table, "cuts", "worst")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reference: expected one of published, theory, exact, got 'mine'"):
        boundary_log_ratio(table, "mine", "best")  # type: ignore[arg-type]


def test_colours_at_the_corners() -> None:
    norm, shared = np.array([0, 0, 1, 1, 7, 0.5, np.nan]), np.array([0, 1, 0, 1, 9, 0, 0])
    grey, blue, red = (np.array(rgb) for rgb in (NOT_LEARNED, BLUE, RED))
    expected = [grey, grey, blue, red, red, (grey + blue) / 2, np.ones(3)]
    np.testing.assert_allclose(colour(norm, shared), expected)


def test_diagram_holds_the_selected_networks_in_their_places() -> None:
    table = ideal("three_features", 3, *GRID)
    shown = diagram(table, "three_features")
    np.testing.assert_array_equal(shown.r, GRID[0])
    np.testing.assert_array_equal(shown.p, GRID[1][::-1])
    np.testing.assert_array_equal(shown.norm[-1], GRID[0] > 1)
    np.testing.assert_array_equal(shown.norm[0], 1)
    np.testing.assert_array_equal(shown.superposition[0], GRID[0] < 1)
    gap = diagram(table[(table["density"] < 1) | (table["extra_importance"] < 10)], "three_features")
    assert np.argwhere(np.isnan(gap.norm)).tolist() == [[11, 11]]


def test_figures_are_those_of_the_parts_there() -> None:
    table = whole_table()
    drawn = PHASES.figures(table)
    assert list(drawn) == ["two_features", "three_features", "cuts"]
    shown = [line.get_xydata() for line in drawn["two_features"].axes[0].lines if line.get_marker() == "o"]
    assert [tuple(point) for point in np.asarray(shown[0])] == [*published_boundary(CLAIMS).items()]
    assert list(PHASES.figures(table[table["part"] == "three_features"])) == ["three_features"]
    assert PHASES.figures(table[:0]) == {}
