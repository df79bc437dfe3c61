"""Tests of five_features: the exact loss and its optima, shapes in the plane, estimates on made-up tables."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch

from common.features import Independent
from common.verdicts.claims import Verdict
from replications.toy_models_of_superposition import five_features
from replications.toy_models_of_superposition.five_features import (
    PUBLISHED_SHAPE,
    Panel,
    angle_difference,
    angle_within,
    held_out_ratio,
    length_ratio,
    loss,
    mean_bias,
    mean_norm,
    not_below_the_optimum,
    published_lengths,
    select,
    shows,
)
from replications.toy_models_of_superposition.five_features_theory import (
    Array,
    Order,
    Shape,
    advantage,
    best,
    local_optimum,
    optimal_loss,
    optimum_from,
    orders,
    population_loss,
    ring,
    shape_of,
)
from replications.toy_models_of_superposition.model import DecayingImportance
from replications.toy_models_of_superposition.phase_diagram_theory import exact_optimum, two_feature_loss
from tests.replications.under_test import UnderTest, trained

FIVE_FEATURES = UnderTest("toy_models_of_superposition/five_features")
FACTORS: dict[Panel, tuple[float, float]] = {
    "s0": (1.0, 0.9),
    "s0.8": (0.2, 0.9),
    "s0.9": (0.1, 0.9),
    "s0.9_steep": (0.1, 0.7),
    "s0.8_equal": (0.2, 1.0),
}
SHAPES: dict[Panel, Shape] = {**PUBLISHED_SHAPE, "s0.9_steep": "digons", "s0.8_equal": "pentagon"}


FRACTIONS_AND_MORE = [
    *(name for name, claim in FIVE_FEATURES.claims.items() if claim.kind == "fraction"),
    *("length_ratio", "norm_s0.9", "bias_last_s0.8", "angle_s0.9"),
]


def turned(weight: Array, degrees: float, flip: bool = False) -> Array:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.asarray(np.array([[c, -s], [s, c]]) @ weight * ([[1], [-1]] if flip else 1.0))


def at(order: Sequence[int], angles: Sequence[float], norms: Sequence[float] | None = None) -> Array:
    """Weights with features in these directions, in degrees, and the others not embedded."""
    weight = np.full((2, 5), 0.01)
    for i, angle, norm in zip(order, angles, norms or [1.0] * len(order), strict=True):
        weight[:, i] = norm * np.cos(math.radians(angle)), norm * np.sin(math.radians(angle))
    return weight


# --- the exact loss


def test_the_loss_of_what_is_ignored_and_of_what_is_kept() -> None:
    importance = 0.9 ** np.arange(5)
    for p in (1.0, 0.3):
        ignored = population_loss(np.zeros((2, 5)), np.full(5, p / 2), p, 0.9)
        assert ignored == pytest.approx(importance.sum() * (p / 3 - p**2 / 4))
        kept = population_loss(at([0, 1], [0, 90]) * [1, 1, 0, 0, 0], [0, 0, p / 2, p / 2, p / 2], p, 0.9)
        assert kept == pytest.approx(importance[2:].sum() * (p / 3 - p**2 / 4))


def test_the_loss_of_antipodal_pairs_is_the_papers() -> None:
    p, weight = 0.4, at([0, 1, 2, 3], [0, 90, 180, 270]) * [1, 1, 1, 1, 0]
    pairs = (0.9 ** np.arange(4)).sum() * p**2 / 6
    found = population_loss(weight, [0, 0, 0, 0, p / 2], p, 0.9)
    assert found == pytest.approx(pairs + 0.9**4 * (p / 3 - p**2 / 4))


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_the_exact_loss_is_the_mean_of_the_models(density: float) -> None:
    """Over 400 000 samples: five standard errors, a false alarm in 10^6 runs of other seeds, for each."""
    draw = np.random.default_rng(5)
    weight, bias = draw.normal(size=(2, 5)) * 0.7, draw.normal(size=5) * 0.2
    uniforms = torch.from_numpy(draw.random((5, 1, 400_000)))
    decay = torch.tensor([[0.8]], dtype=torch.float64)
    factors = {"density": torch.tensor([[density]], dtype=torch.float64)}
    x = Independent(5, density).sample(list(uniforms), factors)
    weights = {"weight": torch.from_numpy(weight)[None], "bias": torch.from_numpy(bias)[None]}
    ones = {"decay": decay, "bias": torch.ones(1, 1, dtype=torch.float64)}
    each = [x_i.reshape(400, 1, 1000) for x_i in x]
    means = torch.stack([DecayingImportance.loss(weights, ones, [c[k] for c in each]) for k in range(400)])
    exact = population_loss(weight, bias, density, 0.8)
    error = 5 * means.std() / 400**0.5
    assert error < 0.02 * means.mean()
    assert abs(5 * means.mean() - exact) < 5 * error


@pytest.mark.parametrize("density", [0.1, 0.2, 1.0])
def test_more_nodes_do_not_change_the_loss(density: float) -> None:
    found = best(density, 0.9, SHAPES[next(p for p, f in FACTORS.items() if f == (density, 0.9))])
    assert found is not None
    finer = population_loss(found.weight, found.bias, density, 0.9, nodes=18)
    assert finer == pytest.approx(found.loss, rel=3e-5)


# --- optima


def test_optimum_without_sparsity() -> None:
    found = best(1.0, 0.9, "orthogonal")
    assert found is not None
    assert found.loss == pytest.approx((0.9**2 + 0.9**3 + 0.9**4) / 12, rel=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.weight, axis=0), [1, 1, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(found.bias, [0, 0, 0.5, 0.5, 0.5], atol=1e-3)
    assert best(1.0, 0.9, "digons") is None
    with pytest.raises(ValueError, match=r"^shape: 'digons' is not stable at density 1 and decay 0\.9$"):
        optimal_loss(1.0, 0.9, "digons")


def test_pairs_at_right_angles_are_optima_of_two_features_apart() -> None:
    p, total = 0.2, 0.9**4 * (0.2 / 3 - 0.2**2 / 4)
    norms, biases = np.zeros(5), np.full(5, p / 2)
    for pair in ([0, 3], [1, 2]):
        r = 0.9 ** (pair[1] - pair[0])
        weight, bias = exact_optimum(r, p)
        total += 0.9 ** pair[0] * float(two_feature_loss(weight, bias, r, p))
        norms[pair], biases[pair] = np.abs(weight), bias
    found = best(p, 0.9, "digons")
    assert found is not None
    assert found.loss == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.weight, axis=0), norms, atol=1e-3)
    np.testing.assert_allclose(found.bias, biases, atol=1e-3)
    np.testing.assert_allclose(ring(found.weight).gaps, 90, atol=0.01)


def test_the_theory_values_of_the_claims_are_those_of_the_optima() -> None:
    functions = {"mean_norm": lambda o: np.linalg.norm(o.weight, axis=0), "mean_bias": lambda o: o.bias}
    checked = 0
    for claim in FIVE_FEATURES.claims.values():
        args = claim.estimate.args
        if claim.theory is None or "panel" not in args:
            continue
        optimum = best(*FACTORS[args["panel"]], SHAPES[args["panel"]])
        assert optimum is not None
        if claim.estimate.function == "loss":
            assert claim.theory.value == pytest.approx(optimum.loss, rel=3e-5)
        else:
            value = functions[str(claim.estimate.function)](optimum)[args["of"]].mean()
            assert claim.theory.value == pytest.approx(value, abs=1e-3)
        checked += 1
    assert checked == 15


@pytest.mark.parametrize("panel", ["s0.8", "s0.9", "s0.9_steep", "s0.8_equal"])
def test_no_optimum_from_a_random_start_is_lower(panel: Panel) -> None:
    density, decay = FACTORS[panel]
    lowest = best(density, decay, SHAPES[panel])
    assert lowest is not None
    coarse = local_optimum(density, decay, ring(lowest.weight).order, nodes=6)
    draw = np.random.default_rng(0)
    for _ in range(4):
        found = optimum_from(density, decay, draw.normal(size=(2, 5)) / 2, np.zeros(5), nodes=6)
        assert found.loss > (1 - 2e-3) * coarse.loss


def test_the_published_shapes_are_the_best_and_others_where_importances_differ() -> None:
    assert advantage(0.2, 0.9, "digons") == pytest.approx(0.072, abs=1e-3)
    assert advantage(0.1, 0.9, "pentagon") == pytest.approx(0.212, abs=1e-3)
    assert advantage(0.1, 0.7, "digons") > 0.1
    assert advantage(0.2, 1.0, "pentagon") > 0.02
    assert advantage(0.1, 0.7, "pentagon") < 0


def test_orders_of_the_features_around_a_shape() -> None:
    assert [len(orders(name)) for name in ("orthogonal", "digons", "pentagon")] == [1, 3, 12]
    assert orders("digons") == [(0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 1, 3)]


# --- shapes


@pytest.mark.parametrize("degrees", [0.0, 77.0, 200.0])
@pytest.mark.parametrize("flip", [False, True])
def test_rings_do_not_depend_on_how_the_plane_is_turned(degrees: float, flip: bool) -> None:
    cases: list[tuple[Order, list[float]]] = [
        ((0, 1, 3, 4, 2), [74, 72, 70, 71, 73]),
        ((0, 2, 1, 3), [88, 92, 89, 91]),
        ((0, 1), [90, 270]),
        ((2,), [360]),
    ]
    for order, gaps in cases:
        weight = at(order, [0, *np.cumsum(gaps)[:-1]], [1 + 0.1 * i for i in order])
        found = ring(turned(weight, degrees, flip))
        assert found.order == order
        np.testing.assert_allclose(found.gaps, gaps)
    assert ring(np.zeros((2, 5))).order == ()


def test_shapes() -> None:
    def name(order: Order, angles: Sequence[float]) -> Shape | None:
        return shape_of(ring(at(order, angles)))

    assert name((0, 1), (0, 90)) == name((3, 1), (10, 275)) == "orthogonal"
    assert name((0, 1), (0, 100)) is name((0, 1), (0, 180)) is None
    assert name((0, 1, 2, 3), (0, 90, 180, 270)) == name((1, 2, 3, 4), (0, 85, 180, 265)) == "digons"
    assert name((0, 1, 2, 3), (0, 80, 180, 270)) is None
    assert name((4, 3, 2, 1, 0), (0, 72, 144, 216, 288)) == "pentagon"
    assert name((0, 1, 2, 3, 4), (0, 90, 180, 270, 315)) is None
    assert name((0, 1, 2), (0, 120, 240)) is name((), ()) is None


# --- estimates


def networks(panel: Panel, weights: Sequence[Array], biases: Array | None = None) -> pd.DataFrame:
    """A row for each network, the seeds in order, the losses too: the first of ten is the best."""
    density, decay = FACTORS[panel]
    stack = np.array(weights)
    seeds = np.arange(len(stack))
    table = pd.DataFrame(
        {"part": panel, "seed": seeds, "density": density, "decay": decay, "loss": 1.0 + seeds}
    )
    for i in range(5):
        table[f"bias_{i}"] = 0.0 if biases is None else biases[i]
        for k in range(2):
            table[f"weight_{k}_{i}"] = stack[:, k, i]
    return table


def ideal(seeds: int) -> pd.DataFrame:
    """Networks that are the exact optima, turned, with noise; three of ten are stuck."""
    draw = np.random.default_rng(0)
    parts = []
    for panel, name in SHAPES.items():
        optimum = best(*FACTORS[panel], name)
        assert optimum is not None
        noise = 0.002 * draw.normal(size=(seeds, 2, 5))
        weights = [turned(optimum.weight + noise[s], 7.0 * s, s % 2 == 1) for s in range(seeds)]
        stuck = at([0, 1, 2], [0, 90, 180])
        weights = [stuck if s % 10 > 6 else weight for s, weight in enumerate(weights)]
        parts.append(networks(panel, weights, optimum.bias[:, None] + 0.002 * draw.normal(size=(5, seeds))))
    return pd.concat(parts, ignore_index=True)


def test_the_best_of_every_ten_is_selected() -> None:
    weights = [at([0, 1], [0, 90], [1 + s, 1 + s]) for s in range(25)]
    table = networks("s0", weights)
    table["loss"] = [0.5 if s in (7, 12) else 1.0 + s for s in range(25)]
    assert select(table, "s0").weight[:, 0, 0].tolist() == pytest.approx([8, 13, 21])
    assert select(table.sample(frac=1, random_state=1), "s0").weight[:, 0, 0].tolist() == [8, 13, 21]
    assert len(select(table, "s0", best_of=1).weight) == 25
    assert mean_norm(table, "s0", [0, 1]) == pytest.approx(14)
    with pytest.raises(ValueError, match=r"^panel: no network of 's0\.8'$"):
        select(table, "s0.8")
    with pytest.raises(ValueError, match=r"^panel 's0': a network has diverged$"):
        select(table.assign(loss=math.nan), "s0")


def test_shapes_are_of_the_most_important_features() -> None:
    right, wrong = at([0, 1, 2, 3], [0, 90, 180, 270]), at([0, 1, 2, 4], [0, 90, 180, 270])
    table = networks("s0.8", [right, wrong, at([0, 1], [0, 90])])
    assert shows(table, "s0.8", "digons", best_of=1).tolist() == [True, False, False]
    assert shows(table, "s0.8", "digons").tolist() == [True]
    assert select(table, "s0.8", 1).shown() == ["digons", "other features", "orthogonal"]


def test_angles_and_biases() -> None:
    table = networks("s0.8", [at([0, 1, 2, 3], [0, 91, 180, 275])], np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert angle_within(table, "s0.8", 88, 92).tolist() == [True, True, False, False]
    assert angle_difference(table, "s0.8") == pytest.approx(5, abs=0.01)
    assert mean_bias(table, "s0.8", [1, 4]) == pytest.approx(0.35)
    with pytest.raises(ValueError, match=r"^panel 's0\.8': no network shows the published shape$"):
        angle_difference(networks("s0.8", [at([0, 1], [0, 90])]), "s0.8")


def test_losses_are_exact_and_not_below_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ideal(10)
    for panel, name in PUBLISHED_SHAPE.items():
        assert loss(table, panel) == pytest.approx(optimal_loss(*FACTORS[panel], name), rel=2e-3)
    assert not_below_the_optimum(table).tolist() == 3 * [True]
    # a claimed optimum that is not the lowest
    monkeypatch.setattr(five_features, "optimal_loss", lambda *of: 1.01 * optimal_loss(*of))
    assert not_below_the_optimum(table).tolist() == 3 * [False]


def test_losses_by_another_reduction_are_seen() -> None:
    table = ideal(30)
    exact = {panel: select(table, panel).losses().mean() for panel in PUBLISHED_SHAPE}
    held_out = table["part"].map(exact).astype(float).fillna(1) / 5 + 1e-9 * table["seed"]
    table["loss"] = held_out
    assert held_out_ratio(table) == pytest.approx(1, abs=1e-2)
    for times, verdict in ((1, Verdict.REPRODUCED), (5, Verdict.NOT_REPRODUCED)):
        judged = FIVE_FEATURES.judged(table.assign(loss=times * held_out), ["held_out_loss"])
        assert judged["held_out_loss"].verdict is verdict


def test_the_margin_of_held_out_losses_is_above_their_error() -> None:
    """Of 100 batches of 256 inputs, as in the quick profile: 3 % at S = .9, less at the others."""
    margin = FIVE_FEATURES.claims["held_out_loss"].margin
    assert margin is not None
    assert margin.value is not None
    draw = np.random.default_rng(0)
    errors = []
    for panel, shape in PUBLISHED_SHAPE.items():
        density, decay = FACTORS[panel]
        optimum = best(density, decay, shape)
        assert optimum is not None
        x = draw.random((200_000, 5)) * (draw.random((200_000, 5)) < density)
        output = np.maximum(x @ optimum.weight.T @ optimum.weight + optimum.bias, 0)
        each = (output - x) ** 2 @ decay ** np.arange(5)
        errors.append(each.std() / each.mean() / 25_600**0.5)
    assert max(errors) == errors[-1] == pytest.approx(0.03, abs=2e-3)
    assert margin.value > 5 * max(errors)


def test_verdicts() -> None:
    """With 100 seeds ten networks are selected: too few to say of a share of 1 that it is above .9."""
    table = ideal(100)
    assert length_ratio(table) == pytest.approx(1.0957, abs=1e-3)
    outcomes = FIVE_FEATURES.judged(table, FRACTIONS_AND_MORE)
    few = {name for name in outcomes if name.endswith("_best")} | {"not_below_the_optimum"}
    assert {outcomes[name].value for name in few} == {1.0}
    inconclusive = {name for name, outcome in outcomes.items() if outcome.verdict is Verdict.INCONCLUSIVE}
    assert inconclusive == few
    # the published five lengths differ by so much that they say little of their mean
    assert outcomes.pop("length_ratio").verdict is Verdict.UNDECIDABLE
    assert {o.verdict for name, o in outcomes.items() if name not in inconclusive} == {Verdict.REPRODUCED}
    assert outcomes["pairs_each"].value == 0.7

    columns = [f"weight_{k}_{i}" for k in range(2) for i in range(5)]
    table.loc[table["part"] == "s0.9", columns] *= 1.06
    longer = FIVE_FEATURES.judged(table, ["length_ratio", "norm_s0.9"])
    assert longer["length_ratio"].verdict is Verdict.REPRODUCED
    assert longer["norm_s0.9"].verdict is Verdict.NOT_REPRODUCED


def test_verdicts_on_networks_that_show_two_features_only() -> None:
    weights = [turned(at([0, 1], [0, 90]), 11.0 * s) for s in range(50)]
    table = pd.concat([networks(panel, weights) for panel in FACTORS], ignore_index=True)
    outcomes = FIVE_FEATURES.judged(table, FRACTIONS_AND_MORE)
    assert outcomes["orthogonal_each"].verdict is Verdict.REPRODUCED
    lost = {name for name, outcome in outcomes.items() if outcome.verdict is Verdict.NOT_REPRODUCED}
    of_shapes = {"pairs_best", "pairs_each", "pentagon_best", "pentagon_each", "angles_s0.9"}
    assert of_shapes | {"equal_pentagon_best", "steep_pairs_best"} <= lost
    assert outcomes["angle_s0.9"].verdict is Verdict.INVALID


# --- training


@pytest.mark.usefixtures("uncompiled")
def test_trained_networks_find_the_optimum_of_two_features() -> None:
    """Smaller and faster: where nothing is ever zero, most networks keep the two most important features."""
    small = {
        "features.init_args.batch_size": 64, "optimizer.init_args.lr": 0.03, "trainer.max_steps": 300,
        "seeds": 10, "sweep": [{"part": "s0", "density": 1.0, "decay": 0.6}],
    }  # fmt: skip
    a_spec = FIVE_FEATURES.spec(changes=small)
    table = trained(a_spec)
    assert shows(table, "s0", "orthogonal").all()
    assert mean_norm(table, "s0", [0, 1]) == pytest.approx(1, abs=0.1)
    assert loss(table, "s0") == pytest.approx((0.6**2 + 0.6**3 + 0.6**4) / 12, rel=0.05)


def test_figures_are_drawn_of_what_is_there() -> None:
    table = ideal(20)
    drawn = FIVE_FEATURES.figures(table)
    assert list(drawn) == ["five_features"]
    plane = drawn["five_features"].axes[0]
    ends = [line.get_xydata()[0] for line in plane.lines if line.get_marker() == "o"]  # type: ignore[index]
    lengths = sorted(float(np.linalg.norm(end)) for end in ends)
    assert lengths == pytest.approx([0, 0, 0, 1, 1], abs=0.02)
    for part in ("s0", "s0.8"):
        assert list(FIVE_FEATURES.figures(table[table["part"] == part])) == ["five_features"]
    assert FIVE_FEATURES.figures(table[table["part"] == "s0.8_equal"]) == {}
    assert published_lengths(FIVE_FEATURES.claims) == pytest.approx((1.13, 1.19), abs=0.0005)
