"""Tests of noise.py and noise_model.py: the noise, the loss and its training worked out independently."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg, stats
from torch import Tensor
from torch.nn import functional

from common.features import Draws
from common.runs.shard import fit_shard
from common.specs.document import parse_value
from common.specs.spec import Spec, load_spec
from common.specs.sweep import shards
from common.verdicts.claims import Verdict
from common.verdicts.evaluate import draw, evaluate
from replications.incidental_polysemanticity import noise
from replications.incidental_polysemanticity.noise import (
    SPHERE,
    Noise,
    Reading,
    change,
    crossing,
    curves,
    lead,
    level,
    readings,
)
from replications.incidental_polysemanticity.noise_model import STEPS, HiddenNoise, NoisyAutoencoder
from tests.conftest import load_claims

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "replications" / "incidental_polysemanticity" / "noise.yaml"
CLAIMS = load_claims(ROOT / "expected" / "incidental_polysemanticity" / "noise.yaml", noise)

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
KINDS = {"bernoulli": -2, "gaussian": 0, "laplace": 3}


def spec(control: str | None = None, **changes: Any) -> Spec:
    overrides = {key.replace("__", "."): (parse_value(str(v)), "the test") for key, v in changes.items()}
    return load_spec(SPEC, control=control, overrides=overrides)


def sample(uniforms: Tensor, kind: str, sigma: float = 0.1) -> Tensor:
    """The noise of one network, of the shape of `uniforms`, (hidden,)."""
    factors = {"excess_kurtosis": torch.tensor([[float(KINDS[kind])]]), "sigma": torch.tensor([[sigma]])}
    return HiddenNoise(1, len(uniforms), 0, sigma).sample([uniforms[None]], factors)[0][0]


# --- the noise


EXTREMES = torch.tensor([0.0, 2**-24, 0.5 - 2**-24, 0.5, 1 - 2**-23, 1 - 2**-24])


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_finite_symmetric_and_never_zero(kind: str) -> None:
    x = sample(EXTREMES, kind)
    assert torch.isfinite(x).all()
    assert (x.sign() == torch.tensor([-1.0, -1, -1, 1, 1, 1])).all()
    torch.testing.assert_close(x, -x.flip(0), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_its_distribution(kind: str) -> None:
    u = (torch.arange(2**20) + 0.5) / 2**20
    x = sample(u, kind, sigma=0.3).double().numpy() / 0.3
    assert x.var() == pytest.approx(1, rel=1e-4)
    # the quantiles of a million equal shares, so without the rarest values
    assert stats.kurtosis(x) == pytest.approx(KINDS[kind], abs=0.01)
    if kind == "bernoulli":
        np.testing.assert_allclose(np.abs(x), 1, rtol=1e-6)
    else:
        cdf = stats.norm.cdf(x) if kind == "gaussian" else stats.laplace.cdf(x, scale=0.5**0.5)
        np.testing.assert_allclose(cdf, u.double().numpy(), atol=1e-6)


def test_kinds_and_sigmas_of_one_seed_share_their_uniforms_and_seeds_do_not() -> None:
    features = HiddenNoise(3, 4, torch.tensor([-2, 0, 0, -2]), torch.tensor([0.1, 0.1, 0.2, 0.1]))
    model = NoisyAutoencoder(features, [5, 5, 5, 6])
    draws = next(iter(Draws(features, [5, 6])))
    assert draws.shape == (2, 4)
    xi = features.sample([draws[model.seed_index]], model.factors)[0]
    torch.testing.assert_close(xi[2], 2 * xi[1])
    torch.testing.assert_close(xi[0], 0.1 * xi[1].sign())
    assert not torch.equal(xi[0], xi[3])
    assert torch.equal(model.weights["weight"][0], model.weights["weight"][2])
    assert not torch.equal(model.weights["weight"][0], model.weights["weight"][3])


def test_start_is_normal_with_variance_one_over_m() -> None:
    """Of 204 800 weights, to 4.5 standard errors: with other seeds a false alarm of 1e-5."""
    model = NoisyAutoencoder(HiddenNoise(8, 16, 0, 0.1), list(range(1600)))
    w = model.weights["weight"].detach().double().flatten()
    error = 4.5 / len(w) ** 0.5
    assert float(w.square().mean() * 16) == pytest.approx(1, abs=2**0.5 * error)
    assert float(w.pow(4).mean() * 256) == pytest.approx(3, abs=96**0.5 * error)


# --- the loss


def test_the_loss_is_the_summed_squared_error_with_one_noise_vector_for_all_inputs() -> None:
    weight = torch.tensor([[[1.0, 0.0], [0.5, -1.0]]])
    xi = torch.tensor([[0.2, -0.1]])
    # hidden (1.2, -.1) and (.7, -1.1); outputs (1.2, .7) and (.7, 1.45)
    expected = 0.2**2 + 0.7**2 + 0.7**2 + 0.45**2
    assert NoisyAutoencoder.loss({"weight": weight}, {}, [xi]).tolist() == pytest.approx([expected])
    # outputs (-.5, -.25) and (-1, .75) before the ReLU
    expected = 1 + 0 + 0 + 0.25**2
    loss = NoisyAutoencoder.loss({"weight": weight}, {}, [torch.tensor([[-1.5, -0.5]])])
    assert loss.tolist() == pytest.approx([expected])


def published_step(weight: Tensor, xi: Tensor, lr: float) -> Tensor:
    """One SGD step of one network, written as the paper has it: x, hidden, noise, output, squared error."""
    weight = weight.clone().requires_grad_()
    x = torch.eye(len(weight))
    output = torch.relu((x @ weight + xi) @ weight.T)
    functional.mse_loss(output, x, reduction="sum").backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return (weight - lr * weight.grad).detach()


@pytest.mark.usefixtures("uncompiled")
def test_training_is_plain_sgd_on_fresh_noise_and_records_the_fourth_norm() -> None:
    small = spec(
        features__init_args__n_features=3, features__init_args__n_hidden=5, seeds=2, trainer__max_steps=40
    )
    (shard,) = shards(small)
    table = fit_shard(small, shard).table
    recorded = [step for step in STEPS if step <= 40]
    assert recorded[:3] == [0, 6, 10]
    columns = [f"fourth_norm_{i}" for i in range(len(recorded))]
    assert [name for name in table.columns if name.startswith("fourth_norm_")] == columns
    row = table[(table["part"] == "bernoulli") & (table["sigma"] == 0.15) & (table["seed"] == 1)].iloc[0]
    features = HiddenNoise(3, 5, -2, 0.15)
    draws = iter(Draws(features, [1]))
    weight = NoisyAutoencoder(features, [1]).weights["weight"].detach()[0]
    course = [weight]
    for _ in range(40):
        course.append(published_step(course[-1], sample(next(draws)[0], "bernoulli", 0.15), 0.02))
    expected = [float((course[step] ** 4).sum(dim=1).mean()) for step in recorded]
    assert row[columns].tolist() == pytest.approx(expected, rel=1e-4)
    lengths = course[-1].square().sum(dim=1)
    assert row["squared_norm"] == pytest.approx(float(lengths.mean()), rel=1e-5)
    scaled = ((course[-1] ** 4).sum(dim=1) / lengths**2).mean()
    assert row["scaled_fourth_norm"] == pytest.approx(float(scaled), rel=1e-5)


# --- why the kind of noise matters


def bernoulli_vectors(n_hidden: int) -> Tensor:
    """All 2^n_hidden equally likely noise vectors of sigma 1."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n_hidden)), dtype=torch.float64)


def gaussian_square(a: float, v: float) -> float:
    """E ReLU(a + z)^2 for z of N(0, v)."""
    s = v**0.5
    return float((a**2 + v) * stats.norm.cdf(a / s) + a * s * stats.norm.pdf(a / s))


@pytest.mark.parametrize("a", [-0.2, -0.1, 0.1])
def test_the_effect_of_kurtosis_is_that_of_the_fourth_cumulant(a: float) -> None:
    w = np.linspace(1, 2, 16)  # unequal, as with equal ones z is on a lattice
    w /= np.linalg.norm(w)
    s = 0.15
    z = s * bernoulli_vectors(16).numpy() @ w
    exact = np.mean(np.maximum(a + z, 0) ** 2) - gaussian_square(a, s**2)
    density = stats.norm.pdf(a, scale=s)
    predicted = 2 * s**4 * (w**4).sum() * a * density / (12 * s**2)
    assert exact == pytest.approx(predicted, rel=1 / 16)  # the next order is of the order of 1/m of it


@pytest.mark.parametrize("a", [-0.3, -1.0, -1.5])
def test_a_row_of_one_weight_pays_least_under_bernoulli_and_most_under_laplace_noise(a: float) -> None:
    bernoulli = max(a + 1, 0) ** 2 / 2
    laplace = math.exp(2**0.5 * a) / 2
    assert bernoulli < gaussian_square(a, 1) < laplace


def test_bernoulli_noise_rewards_sparse_rows_and_rotations_leave_gaussian_noise_alone() -> None:
    """The exact expected loss of rows that point away from each other, in a sparse and in a dense basis."""
    n = m = 8
    sparse = torch.eye(n, m, dtype=torch.float64) - 0.06
    dense = sparse @ torch.from_numpy(hadamard(m))
    xi = 0.15 * bernoulli_vectors(m)
    losses = [
        NoisyAutoencoder.loss({"weight": rows.expand(len(xi), -1, -1)}, {}, [xi]).mean()
        for rows in (sparse, dense)
    ]
    assert losses[0] < losses[1] * 0.99
    # of Gaussian noise xi and its rotation are equally likely: in pairs the losses are the same
    gaussian = sample(torch.rand(100, m, generator=torch.Generator().manual_seed(0)).flatten(), "gaussian")
    xi = gaussian.reshape(100, m).double()
    pairs = [
        NoisyAutoencoder.loss({"weight": rows.expand(100, -1, -1)}, {}, [turned])
        for rows, turned in ((sparse, xi), (dense, xi @ torch.from_numpy(hadamard(m))))
    ]
    torch.testing.assert_close(*pairs)


def expected_loss(weight: Tensor, sigma: float) -> Tensor:
    """The loss of one network, mean over Gaussian noise in closed form; its diagonal is never cut off."""
    overlap = weight @ weight.T
    square = overlap.diagonal()
    spread = sigma * square.sqrt()[:, None]
    a = overlap / spread
    density = torch.exp(-(a**2) / 2) / (2 * math.pi) ** 0.5
    rectified = spread**2 * ((1 + a**2) * torch.special.ndtr(a) + a * density)
    own = (square - 1) ** 2 + sigma**2 * square
    total: Tensor = own.sum() + rectified.sum() - rectified.diagonal().sum()
    return total


def overlaps_of_least_loss(sigma: float, seed: int) -> Tensor:
    """W W^T where `expected_loss` is lowest, from a random start."""
    start = torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) / 4
    weight = start.requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=2000, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = expected_loss(weight, sigma)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (weight @ weight.T).detach()


def test_the_expected_loss_is_the_mean_over_noise() -> None:
    """Of 500,000 draws, to 5 standard errors: with other seeds a false alarm of 1e-6."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    weight /= torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    xi = 0.15 * torch.randn(500_000, 4, dtype=torch.float64, generator=generator)
    each = NoisyAutoencoder.loss({"weight": weight.expand(len(xi), -1, -1)}, {}, [xi])
    error = float(each.std()) / len(each) ** 0.5
    assert float(expected_loss(weight, 0.15)) == pytest.approx(float(each.mean()), abs=5 * error)


def test_the_expected_loss_is_least_for_a_simplex_of_the_claimed_length() -> None:
    theory, margin = CLAIMS["gaussian_length"].theory, CLAIMS["gaussian_length"].margin
    assert theory is not None
    assert margin is not None
    assert margin.value is not None
    for seed in range(3):
        found = overlaps_of_least_loss(0.15, seed)
        length = found.diagonal().mean()
        simplex = length * (torch.eye(8) * 8 - 1) / 7
        torch.testing.assert_close(found, simplex, rtol=0, atol=1e-5, check_dtype=False)
        assert float(length) == pytest.approx(theory.value, abs=1e-4)
        larger = float(overlaps_of_least_loss(0.15 * 2**0.5, seed).diagonal().mean())
        assert margin.value < (theory.value - larger) / 3


def hadamard(m: int) -> NDArray[np.float64]:
    return np.asarray(linalg.hadamard(m) / m**0.5)


@pytest.mark.usefixtures("uncompiled")
def test_trained_rows_get_sparse_under_bernoulli_noise_only() -> None:
    """At a larger rate and noise, with 64 seeds. With others than these, a false alarm of 1e-4.

    Under Bernoulli noise rows are sparser than under the others by 4 standard errors, and under Gaussian
    noise within 4 standard errors of random directions.
    """
    changes: dict[str, Any] = {
        "features__init_args__n_features": 4,
        "features__init_args__n_hidden": 8,
        "optimizer__init_args__lr": 0.05,
        "trainer__max_steps": 500,
        "seeds": 64,
        "shard_size": 1000,
        "sweep": "[{excess_kurtosis: [-2, 0, 3], sigma: .3}]",
    }
    (shard,) = shards(spec(**changes))
    table = fit_shard(spec(**changes), shard).table
    scaled = table.pivot(index="seed", columns="excess_kurtosis", values="scaled_fourth_norm").to_numpy()
    bernoulli, gaussian, laplace = scaled.T
    assert in_standard_errors(bernoulli - gaussian) > 4
    assert in_standard_errors(bernoulli - laplace) > 4
    assert abs(in_standard_errors(gaussian - 3 / (8 + 2))) < 4


def in_standard_errors(sample: NDArray[np.float64]) -> float:
    return float(sample.mean() / sample.std(ddof=1) * len(sample) ** 0.5)


# --- estimates and claims, on made-up courses


LOST_LENGTH = 0.49
"""What noise takes off the squared length of rows, over its variance: .011 at sigma = .15."""


def rises(at: float, height: float, end: float, start: float = 0.16) -> Curve:
    """A course from `start` to `end` that passes `height` at step `at`, a logistic curve in log steps."""
    odds = (height - start) / (end - height)
    return lambda t: np.asarray(start + (end - start) / (1 + (t / at) ** -4 / odds))


def stays(at: float) -> Curve:
    return lambda t: np.full_like(t, at)


AS_PUBLISHED: dict[tuple[Noise, float], Curve] = {
    ("bernoulli", 0.15): rises(4000, 0.4, 0.775),
    ("bernoulli", 0.1): rises(18_000, 0.4, 0.79),
    ("bernoulli", 0.07): rises(100_000, 0.316, 0.78),
    ("gaussian", 0.07): stays(SPHERE),
    ("gaussian", 0.1): stays(SPHERE),
    ("gaussian", 0.15): stays(SPHERE),
}


def slowed(factor: float) -> dict[tuple[Noise, float], Curve]:
    """What is published, with each step taking that many."""

    def slow(course: Curve) -> Curve:
        return lambda t: course(t / factor)

    return {kind: slow(course) for kind, course in AS_PUBLISHED.items()}


def networks(courses: dict[tuple[Noise, float], Curve], last: int = 100_000, seeds: int = 8) -> pd.DataFrame:
    """A table of networks whose mean has these courses; seeds stray by 1 %, in pairs to either side."""
    steps = np.array([step for step in STEPS if step <= last], dtype=float)
    rows = []
    for ((part, sigma), course), seed in itertools.product(courses.items(), range(seeds)):
        stray = 1 + 0.01 * (-1) ** seed * np.cos(seed // 2 + np.arange(len(steps)))
        values = stray * np.r_[3 / 16, 0.14, course(steps[2:])]
        row: dict[str, Any] = {"part": part, "sigma": sigma, "seed": seed}
        row |= {f"fourth_norm_{i}": value for i, value in enumerate(values)}
        length = 1 + 1e-4 * (-1) ** seed - LOST_LENGTH * sigma**2
        rows.append(row | {"scaled_fourth_norm": stray[-1] * SPHERE, "squared_norm": length})
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame) -> dict[str, Verdict]:
    return {name: outcome.verdict for name, outcome in evaluate(CLAIMS, noise, table).items()}


def test_level_and_its_changes() -> None:
    table = networks(AS_PUBLISHED)
    assert level(table, (0, 0)) == pytest.approx(3 / 16)
    assert level(table, (100_000, 100_000), "bernoulli", 0.07) == pytest.approx(0.316)
    assert level(table, (1000, 100_000), "gaussian", 0.1) == pytest.approx(SPHERE)
    linear = networks({("gaussian", 0.1): lambda t: t / 1e5})
    inside = [step for step in STEPS if 1000 <= step <= 10_000]
    assert level(linear, (1000, 10_000), "gaussian", 0.1) == pytest.approx(np.mean(inside) / 1e5)
    moved = change(linear, (5200, 5200), (20_000, 20_000), "gaussian", 0.1)
    assert moved == pytest.approx(0.148)
    flat = networks({("bernoulli", 0.15): stays(0.5), ("bernoulli", 0.1): stays(0.3)})
    assert lead(flat, 0.15, 0.1, (20_000, 20_000)) == pytest.approx(0.2)


@pytest.mark.parametrize(("sigma", "at"), [(0.15, 4000), (0.1, 18_000)])
def test_crossing_is_found_between_recorded_steps(sigma: float, at: int) -> None:
    assert at not in STEPS
    assert crossing(networks(AS_PUBLISHED), 0.4, "bernoulli", sigma) == pytest.approx(at, rel=2e-3)
    straight = networks({("bernoulli", sigma): lambda t: np.log(t / 5) / math.log(at / 5) * 0.4})
    assert crossing(straight, 0.4, "bernoulli", sigma) == pytest.approx(at)


def test_what_cannot_be_estimated_is_said() -> None:
    table = networks(AS_PUBLISHED, last=5200)
    assert curves(table).steps[-1] == 5200
    with pytest.raises(ValueError, match="steps: the last one recorded is 5200, before 20000"):
        level(table, (20_000, 20_000), "bernoulli", 0.15)
    with pytest.raises(ValueError, match="steps: none from 7 to 8 is recorded"):
        level(table, (7, 8), "bernoulli", 0.15)
    with pytest.raises(ValueError, match=r"no networks with noise bernoulli, sigma = 0\.2"):
        level(table, (6, 6), "bernoulli", 0.2)
    with pytest.raises(ValueError, match=r"bernoulli, sigma = 0\.07: the fourth norm stays below 0\.4"):
        crossing(table, 0.4, "bernoulli", 0.07)
    with pytest.raises(
        ValueError, match=r"gaussian, sigma = 0\.1: the fourth norm is above 0\.1 from the start"
    ):
        crossing(table, 0.1, "gaussian", 0.1)


def test_the_steps_of_claims_are_recorded() -> None:
    named = {
        step
        for claim in CLAIMS.values()
        for key in ("steps", "before", "after")
        for step in claim.estimate.args.get(key, [])
    }
    assert named <= set(STEPS)
    later = np.array([step for step in STEPS if step >= 100])
    assert (later[1:] / later[:-1]).max() < 1.09


def test_published_courses_reproduce_every_claim() -> None:
    assert set(verdicts(networks(AS_PUBLISHED)).values()) == {Verdict.REPRODUCED}


def test_wrong_courses_lose_their_claims() -> None:
    # an averaged instead of a summed error: gradients 64 times smaller
    lost = verdicts(networks(slowed(64)))
    for name in ("sparsifies_s0.15", "plateau_s0.15", "end_s0.1", "end_s0.07"):
        assert lost[name] is Verdict.NOT_REPRODUCED
    # a gradient without its factor 2
    lost = verdicts(networks(slowed(2)))
    for name in ("crossing_s0.15", "crossing_s0.1", "end_s0.07"):
        assert lost[name] is Verdict.NOT_REPRODUCED
    # Gaussian noise that prefers the neurons
    trend = {**AS_PUBLISHED, ("gaussian", 0.1): rises(50_000, 0.3, 0.5)}
    lost = verdicts(networks(trend))
    assert lost["gaussian_no_trend_s0.1"] is Verdict.NOT_REPRODUCED
    assert lost["gaussian_no_trend_s0.15"] is Verdict.REPRODUCED
    # the kinds exchanged
    swapped: dict[tuple[Noise, float], Curve] = {
        ("gaussian" if part == "bernoulli" else "bernoulli", sigma): course
        for (part, sigma), course in AS_PUBLISHED.items()
    }
    lost = verdicts(networks(swapped))
    assert lost["gaussian_s0.15"] is Verdict.NOT_REPRODUCED
    assert lost["sparsifies_s0.15"] is Verdict.NOT_REPRODUCED
    assert lost["faster_s0.15_than_s0.1"] is Verdict.INVALID  # a constant, as nothing moves


def test_the_control_is_rejected_where_the_unbroken_run_of_its_size_passes() -> None:
    broken, full = spec("laplace"), spec()
    (shard,) = shards(broken)
    assert set(shard.rows["excess_kurtosis"]) == {3}
    assert set(shard.rows["part"]) == {"bernoulli"}
    assert broken.optimizer_args == full.optimizer_args
    seeds, last = len(broken.seeds), broken.fields.trainer.max_steps
    rejected = broken.fields.controls["laplace"].rejects
    spread: dict[tuple[Noise, float], Curve] = {("bernoulli", 0.15): stays(0.15)}
    unbroken = {("bernoulli", 0.15): AS_PUBLISHED["bernoulli", 0.15]}
    for courses, verdict in ((spread, Verdict.NOT_REPRODUCED), (unbroken, Verdict.REPRODUCED)):
        found = verdicts(networks(courses, last, seeds))  # type: ignore[arg-type]
        assert {found[name] for name in rejected} == {verdict}


def test_the_figure_shows_the_published_points_that_claims_are_about() -> None:
    assert readings(CLAIMS) == [
        Reading(4000, 0.4, 580, 0, 0.15),
        Reading(20_000, 0.775, 0, 0.0238, 0.15),
        Reading(18_000, 0.4, 1450, 0, 0.1),
        Reading(100_000, 0.79, 0, 0.0237, 0.1),
        Reading(100_000, 0.316, 0, 0.0095, 0.07),
    ]
    panels = draw(noise, networks(AS_PUBLISHED), CLAIMS)["fourth_norm"].axes
    marked = [line for line in panels[0].lines if line.get_marker() == "o"]
    ends = [np.ravel([line.get_xdata(), line.get_ydata()]) for line in marked]
    expected = [(6, CLAIMS.published("start_first_shown").value), *(one[:2] for one in readings(CLAIMS))]
    np.testing.assert_array_equal(ends, expected)


def test_margin_of_gaussian_levels_follows_its_rule() -> None:
    """From half the range, the reading, and the sphere's moments: the spread of 40 uniform directions."""
    reading = math.hypot(0.0125, 0.03 * 0.1675)
    variance = (16 * 105 + 16 * 15 * 9) / (16 * 18 * 20 * 22) - SPHERE**2
    sampling = 1.96 * (variance / 40) ** 0.5
    margin = CLAIMS["gaussian_s0.1"].margin
    assert margin is not None
    assert margin.value == pytest.approx(reading + math.hypot(reading, sampling), abs=5e-4)
    margin = CLAIMS["start_drawn"].margin
    assert margin is not None
    assert margin.value == pytest.approx(1.96 * (96 / 16**3 / 40) ** 0.5, abs=5e-4)


def test_figure_is_drawn_from_any_part_of_the_sweep() -> None:
    table = networks(AS_PUBLISHED)
    for part in (table, networks(AS_PUBLISHED, last=5200), table[table["sigma"] == 0.15]):
        assert list(draw(noise, part, CLAIMS)) == ["fourth_norm"]
