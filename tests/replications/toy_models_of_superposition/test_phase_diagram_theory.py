"""Tests of phase_diagram_theory.py: closed forms against quadrature, quadrature against sampling."""

import numpy as np
import pytest
import torch

from common.features import Independent
from replications.toy_models_of_superposition.model import LinearModel, ToyModel
from replications.toy_models_of_superposition.phase_diagram_theory import (
    CONFIGURATIONS,
    Phase,
    best_configuration,
    best_phase,
    boundary_error,
    closed_form_error,
    closed_form_losses,
    configurations,
    exact_boundary,
    exact_optimum,
    optimum_step,
    population_loss,
    relative_gap,
    theory_boundary,
    triple_point_error,
    two_feature_loss,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_closed_form_is_the_models_loss(name: str) -> None:
    assert closed_form_error(name) < 1e-6


@pytest.mark.parametrize("n_features", [2, 3])
def test_boundaries_and_triple_points_are_where_the_models_losses_cross(n_features: int) -> None:
    assert boundary_error(n_features) < 1e-6
    assert triple_point_error(n_features) < 1e-6


def test_a_wrong_closed_form_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = CONFIGURATIONS["antipodal_2"]._replace(loss=lambda r, p: (1 + r) * p**2 / 6.01)
    monkeypatch.setitem(CONFIGURATIONS, "antipodal_2", wrong)
    assert closed_form_error("antipodal_2") == pytest.approx(6.01 / 6 - 1, rel=1e-3)


@pytest.mark.parametrize("model", [ToyModel, LinearModel])
@pytest.mark.parametrize("n_features", [2, 3])
def test_population_loss_is_the_mean_over_samples(
    model: type[ToyModel], n_features: int, rng: np.random.Generator
) -> None:
    networks, batches, batch = 3, 64, 4096
    weight = rng.normal(size=(networks, n_features - 1, n_features))
    bias = 0.2 * rng.normal(size=(networks, n_features))
    r, p = np.array([0.2, 1.0, 5.0]), np.array([0.1, 0.5, 0.9])
    factors = {
        "extra_importance": torch.from_numpy(r)[:, None],
        "density": torch.from_numpy(p)[:, None],
        "bias": torch.ones(networks, 1),
    }
    weights = {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
    losses, features = [], Independent(n_features, 0.5)
    for _ in range(batches):
        uniforms = [torch.from_numpy(rng.random((1, batch))) for _ in range(n_features)]
        losses.append(n_features * model.loss(weights, factors, features.sample(uniforms, factors)).numpy())
    error = np.std(losses, axis=0, ddof=1) / batches**0.5
    # t with 63 degrees of freedom: beyond 6 standard errors in 1 of 10^7 networks
    assert np.all(
        np.abs(population_loss(weight, bias, r, p, model.loss) - np.mean(losses, axis=0)) < 6 * error
    )
    assert np.all(error < 0.02 * np.mean(losses, axis=0))


def test_population_loss_broadcasts() -> None:
    weight, bias = np.array([[1.0, -0.5]]), np.array([0.1, 0.2])
    losses = population_loss(weight, bias, np.array([[0.5], [2.0]]), np.array([0.1, 0.3, 0.9]))
    assert losses.shape == (2, 3)
    assert losses[1, 2] == pytest.approx(float(population_loss(weight, bias, 2.0, 0.9)), rel=1e-12)


def test_exchanging_two_features_inverts_the_importance(rng: np.random.Generator) -> None:
    weight, bias = rng.normal(size=(5, 1, 2)), 0.2 * rng.normal(size=(5, 2))
    r, p = rng.uniform(0.1, 10, 5), rng.uniform(0.01, 1, 5)
    exchanged = r * population_loss(weight[..., ::-1], bias[:, ::-1], 1 / r, p)
    np.testing.assert_allclose(exchanged, population_loss(weight, bias, r, p), rtol=1e-4)


def test_two_feature_loss_is_the_population_loss(rng: np.random.Generator) -> None:
    weight, bias = rng.normal(size=(40, 2)), 0.3 * rng.normal(size=(40, 2))
    weight[0, 1] = weight[1, 0] = 0
    r, p = rng.uniform(0.1, 10, 40), rng.uniform(0.01, 1, 40)
    expected = population_loss(weight[:, None], bias, r, p)
    np.testing.assert_allclose(two_feature_loss(weight, bias, r, p), expected, rtol=1e-4)


def test_phases_of_the_best_configuration() -> None:
    for r, p, two, three in (
        (0.3, 0.9, Phase.NOT_LEARNED, Phase.NOT_LEARNED),
        (3.0, 0.9, Phase.DEDICATED, Phase.DEDICATED),
        (0.3, 0.1, Phase.SUPERPOSITION, Phase.SUPERPOSITION),
        (3.0, 0.1, Phase.SUPERPOSITION, Phase.DEDICATED),
    ):
        assert (int(best_phase(2, r, p)), int(best_phase(3, r, p))) == (two, three)
    names = np.array(configurations(3))
    assert names[best_configuration(3, 3.0, 0.1)] == "others_antipodal_3"
    assert names[best_configuration(3, 3.0, 0.9)] == "ignore_other_3"


@pytest.mark.parametrize("n_features", [2, 3])
def test_gap_closes_on_the_boundary(n_features: int) -> None:
    r = np.array([0.1, 0.5, 2.0, 10.0])
    np.testing.assert_allclose(relative_gap(n_features, r, theory_boundary(r, n_features)), 0, atol=1e-12)
    losses = np.sort(closed_form_losses(n_features, 0.3, 0.1))
    assert relative_gap(n_features, 0.3, 0.1) == pytest.approx(losses[1] / losses[0] - 1)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="n_features: the paper's phase diagrams have 2 or 3, got 4"):
        configurations(4)
    with pytest.raises(ValueError, match="configuration: expected one of ignore_extra_2"):
        closed_form_error("antipodal")
    with pytest.raises(ValueError, match=r"expected 0\.1 to 10, got 20"):
        exact_boundary(20.0)


@pytest.mark.parametrize(
    ("p", "lengths"), [(1.0, (0.94, 0.37)), (0.8, (0.93, 0.44)), (0.7, (0.76, 0.76)), (0.6, (0.87, 0.87))]
)
def test_exact_optimum_at_equal_importance(p: float, lengths: tuple[float, float]) -> None:
    # at p = 1 the sign of the shorter weight does not matter, as x and 1 - x are distributed alike
    np.testing.assert_allclose(np.abs(exact_optimum(1.0, p)[0]), lengths, atol=0.006)


def test_exact_optimum_inside_the_superposition_region() -> None:
    weight, bias = exact_optimum(0.316, 0.384)
    np.testing.assert_allclose(weight, [1.045, -0.736], atol=0.003)
    np.testing.assert_allclose(bias, [0.02, 0.13], atol=0.005)
    mirrored = exact_optimum(1 / 0.316, 0.384)
    np.testing.assert_allclose(mirrored, [weight[::-1], bias[::-1]], atol=1e-4)


def test_exact_optimum_is_below_all_others_near_it(rng: np.random.Generator) -> None:
    for r, p in ((0.316, 0.2), (0.8, 0.62), (3.0, 0.5), (1.0, 0.75)):
        weight, bias = exact_optimum(r, p)
        lowest = population_loss(weight[None], bias, r, p)
        others = two_feature_loss(
            rng.normal(size=(20_000, 2)), rng.uniform(-0.1, 0.6, size=(20_000, 2)), r, p
        )
        assert lowest < others.min()
        assert lowest <= closed_form_losses(2, r, p).min() * (1 + 1e-9)


@pytest.mark.parametrize(("r", "published"), [(0.1, 0.182), (0.178, 0.277), (0.316, 0.388), (0.562, 0.514)])
def test_exact_boundary_is_where_two_optima_have_equal_losses(r: float, published: float) -> None:
    p = exact_boundary(r)
    assert p == pytest.approx(published, rel=0.011)
    assert exact_boundary(1 / r) == pytest.approx(p, rel=2e-4)
    dense, sparse = exact_optimum(r, p * 1.001)[0], exact_optimum(r, p * 0.999)
    assert abs(dense[1]) < 0.01
    assert sparse[0][1] < -0.6
    # the optimum of the sparse side against the closed form of the dense side, by the model's own loss
    assert population_loss(sparse[0][None], sparse[1], r, p) == pytest.approx(
        float(CONFIGURATIONS["ignore_extra_2"].loss(np.asarray(r), np.asarray(p))), rel=1e-3
    )


def test_exact_optimum_jumps_at_equal_importance_too() -> None:
    p = exact_boundary(1.0)
    assert p == pytest.approx(0.7065, abs=5e-4)
    np.testing.assert_allclose(np.abs(exact_optimum(1.0, p * 1.001)[0]), [0.917, 0.513], atol=0.003)
    np.testing.assert_allclose(np.abs(exact_optimum(1.0, p * 0.999)[0]), [0.756, 0.756], atol=0.003)


def test_optimum_step_is_the_jump() -> None:
    assert 0.63 < optimum_step(0.1, densities=20) < 0.8
