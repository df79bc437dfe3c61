"""Tests of sparsification: exact solutions of the scheme and the equation, estimates on made-up tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from common.features import generator
from common.runs.shard import fit_shard
from common.specs.spec import load_spec
from common.specs.sweep import shards
from common.verdicts.claims import Claims, Verdict
from common.verdicts.evaluate import draw, evaluate
from replications.incidental_polysemanticity import sparsification, sparsification_model
from replications.incidental_polysemanticity.sparsification import (
    alive,
    alive_ratio,
    courses,
    l1_norm_ratio,
    largest_survives,
    mean_field_alive,
    one_left,
    order_preserved,
    predicted,
    schemes_difference,
    within_factor_two,
)
from replications.incidental_polysemanticity.sparsification_model import (
    STEP,
    TIMES,
    Array,
    Course,
    Sparsification,
    euler,
    observed_steps,
    solve,
    start_weights,
)
from tests.conftest import load_claims

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "replications" / "incidental_polysemanticity" / "sparsification.yaml"
SMALL: dict[str, tuple[Any, str]] = {
    "model.init_args.l1": (1e-3, "the test"),
    "model.init_args.time_unit": (1e3, "the test"),
    "seeds": (8, "the test"),
    "sweep.0.n_hidden": ([1000], "the test"),
}


def starts(n_hidden: int, networks: int = 3) -> Array:
    """Start weights, scaled to a norm of .9: the norm of a few can be so large that steps of .5 overshoot."""
    weights = np.stack([start_weights(generator("start", 50 + i), n_hidden) for i in range(networks)])
    return np.asarray(0.9 * weights / np.linalg.norm(weights, axis=1, keepdims=True))


def even(start: Array, l1: float) -> Course:
    return euler(start, np.full_like(start, l1), 1 / l1)


def reduced(start: Array, l1: float) -> tuple[list[int], list[float], float]:
    """The Euler scheme of one network in two variables: w_k = a (w_k(0) - b), exactly."""
    steps = observed_steps(1 / l1)
    scale, lost, step = 1.0, 0.0, 0
    counts: list[int] = []
    sums: list[float] = []
    while True:
        above = start[start > lost]
        weight = scale * (above - lost)
        while len(counts) < len(steps) and (steps[len(counts)] == step or len(above) == 1):
            counts.append(len(above))
            sums.append(float(weight.sum()))
        if len(above) == 1:
            return counts, sums, step * STEP * l1
        scale *= 1 + STEP * (1 - float(weight @ weight))
        lost += STEP * l1 / scale
        step += 1


@pytest.mark.parametrize("n_hidden", [2, 3, 400])
def test_euler_is_the_scheme_in_two_variables(n_hidden: int) -> None:
    start = starts(n_hidden)
    found = even(start, 5e-3)
    for i in range(len(start)):
        counts, sums, end = reduced(start[i], 5e-3)
        np.testing.assert_array_equal(found.alive[i], counts)
        np.testing.assert_allclose(found.l1_norm[i], sums, rtol=1e-9)
        assert found.end_time[i] == pytest.approx(end, rel=1e-12)
        # a penalty that is 1 % off would be seen
        other = reduced(start[i], 5e-3 * 1.01)[1]
        assert not np.allclose(found.l1_norm[i], other, rtol=1e-4)
    assert found.largest_survives.all()
    assert found.order_preserved.all()


def test_networks_do_not_depend_on_each_other() -> None:
    start = starts(200, 5)
    together = even(start, 1e-2)
    for i in range(5):
        alone = even(start[i : i + 1], 1e-2)
        for a, b in zip(together, alone, strict=True):
            # not to the last bit: zeros between weights change the order of a sum
            np.testing.assert_allclose(a[i], b[0], rtol=1e-9)


def test_euler_approaches_the_equation_in_proportion_to_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    start, l1 = starts(100), 1e-2
    at = int(np.argmin(np.abs(TIMES - 0.1)))  # 10 units of time, a whole number of steps for all
    exact = solve(start, l1, 1 / l1)
    errors = []
    for step in (0.1, 0.02, 0.004):
        monkeypatch.setattr(sparsification_model, "STEP", step)
        errors.append(even(start, l1).l1_norm[:, at] / exact.l1_norm[:, at] - 1)
    np.testing.assert_allclose(errors[0] / errors[1], 5, rtol=0.1)
    np.testing.assert_allclose(errors[1] / errors[2], 5, rtol=0.02)
    # and in the end too, where the time is one of the steps
    np.testing.assert_allclose(even(start, l1).end_time, exact.end_time, rtol=5e-4)


def test_equation_in_the_limit_of_small_lambda() -> None:
    # |W|^2 stays at 1, so lambda T is the integral of db / |(w(0) - b)+|: with n weights alive, an arsinh
    start = starts(50)
    found = solve(start, 1e-6, 1e6)
    for i, weights in enumerate(start):
        gap = weights[0] - weights
        n = np.arange(2, len(weights) + 1)
        low, high = gap[1:], np.r_[gap[2:], weights[0]]
        mean, sd = np.array([(gap[:k].mean(), gap[:k].std()) for k in n]).T
        pieces = (np.arcsinh((high - mean) / sd) - np.arcsinh((low - mean) / sd)) / np.sqrt(n)
        assert found.end_time[i] == pytest.approx(pieces.sum(), rel=1e-4)
        assert found.l1_norm[i, -1] == pytest.approx(1, rel=1e-5) or found.alive[i, -1] > 1


def test_both_schemes_without_l1() -> None:
    start = starts(300)
    for course in (euler(start, np.zeros_like(start), 100.0), solve(start, 0.0, 100.0)):
        assert (course.alive == 300).all()
        direction = start / np.linalg.norm(start, axis=1, keepdims=True)
        np.testing.assert_allclose(course.l1_norm[:, 0], start.sum(axis=1), rtol=1e-9)
        np.testing.assert_allclose(course.l1_norm[:, -1], direction.sum(axis=1), rtol=1e-8)
        assert np.isnan(course.end_time).all()
        assert not (course.largest_survives == 1).any()


def test_start_weights() -> None:
    start = start_weights(generator("start", 0), 40_000)
    assert (np.diff(start) <= 0).all()
    assert (start > 0).all()
    # sd of the sum of squares: .81 sqrt(2 / m); 5 of them are passed by chance in 1 case of 2e6
    assert (start**2).sum() == pytest.approx(0.81, abs=5 * 0.81 * (2 / 40_000) ** 0.5)
    again = np.sort(np.abs(generator("start", 0).standard_normal(40_000)))[::-1]
    np.testing.assert_allclose(start, 0.9 / 200 * again)


def test_who_survives_is_measured() -> None:
    start = starts(300)
    swapped = start.copy()
    swapped[:, [0, 1]] = start[:, [1, 0]]
    found = even(swapped, 5e-3)
    assert not found.largest_survives.any()
    assert not found.order_preserved.any()
    np.testing.assert_allclose(found.end_time, even(start, 5e-3).end_time)
    # an order that is wrong only among weights dropped early is seen as well
    swapped = start.copy()
    swapped[:, [280, 250]] = start[:, [250, 280]]
    found = even(swapped, 5e-3)
    assert found.largest_survives.all()
    assert not found.order_preserved.any()


def test_order_that_changes_on_the_way_is_seen() -> None:
    start = starts(300)
    l1 = np.full_like(start, 5e-3)
    l1[:, 0] *= 3
    found = euler(start, l1, 200.0)
    assert not found.largest_survives.any()
    assert not found.order_preserved.any()
    assert np.isfinite(found.end_time).all()


def test_a_model_in_a_shard() -> None:
    spec = load_spec(SPEC, overrides=SMALL)
    table = pd.concat([fit_shard(spec, shard).table for shard in shards(spec)])
    assert table.groupby("scheme").size().to_dict() == {"euler": 8, "ode": 8}
    assert (table["alive_0"] == 1000).all()
    assert one_left(table).all()
    assert largest_survives(table).all()
    assert len(order_preserved(table)) == 8
    ode = table[table["scheme"] == "ode"]
    assert ode[["largest_survives", "order_preserved"]].isna().all(axis=None)
    # 4 units of time, as lambda sqrt(m) is larger than as published
    assert schemes_difference(table, "end_time", 1000) < 4e-3
    with pytest.raises(ValueError, match="uneven: the equation is solved for a single lambda"):
        Sparsification([0], "ode", 10, 1e-3, 1e3, uneven=0.5)


def claims() -> Claims:
    return load_claims(
        ROOT / "expected" / "incidental_polysemanticity" / "sparsification.yaml", sparsification
    )


@pytest.mark.parametrize("control", ["no_l1", "uneven_l1"])
def test_controls_are_rejected_and_would_pass_unbroken(control: str) -> None:
    broken = load_spec(SPEC, "quick", control)
    tables = [fit_shard(broken, shard).table for shard in shards(broken)]
    judged = {name: claims()[name] for name in broken.controls[control].rejects}
    lost = evaluate(judged, sparsification, pd.concat(tables))
    assert {outcome.verdict for outcome in lost.values()} == {Verdict.NOT_REPRODUCED}
    whole = load_spec(SPEC, "quick", overrides={**SMALL, "seeds": (40, "the test")})
    tables = [
        fit_shard(whole, shard).table for shard in shards(whole) if "euler" in set(shard.rows["scheme"])
    ]
    kept = evaluate(judged, sparsification, pd.concat(tables))
    assert {outcome.verdict for outcome in kept.values()} == {Verdict.REPRODUCED}


def test_numbers_of_the_claims_follow_their_rules() -> None:
    found = claims()
    for name in ("alive_1e3", "alive_1e4"):
        published = found.published(name)
        assert published.sd == pytest.approx(published.value**0.5, rel=5e-3)
        assert published.reading_error == pytest.approx(0.05 * published.value)
    for exponent in (3, 4, 5):
        theory = found[f"end_time_m1e{exponent}"].theory
        assert theory is not None
        assert theory.value == pytest.approx(1 - 10 ** (-exponent / 2), abs=1e-6)
        # where the prediction of m' comes down to 1, and not before
        assert predicted("alive", 10**exponent, theory.value + 1e-5) == 1
        assert predicted("alive", 10**exponent, theory.value - 1e-3) > 1


def made_up(n_hidden: int = 10_000, networks: int = 3, **factors: float) -> pd.DataFrame:
    """Networks of both schemes that follow the prediction, times a factor for each quantity."""
    rows = [
        {
            "scheme": scheme,
            "n_hidden": n_hidden,
            "seed": seed,
            "end_time": 1.0,
            "largest_survives": 1.0 if scheme == "euler" else np.nan,
            "order_preserved": 1.0 if scheme == "euler" else np.nan,
            **{
                f"{quantity}_{i}": value * factors.get(quantity, 1)
                for quantity in ("alive", "l1_norm")
                for i, value in enumerate(predicted(quantity, n_hidden, TIMES))
            },
        }
        for scheme in ("euler", "ode")
        for seed in range(networks)
    ]
    return pd.DataFrame(rows)


def test_prediction() -> None:
    assert predicted("l1_norm", 100, 0) == pytest.approx(10)
    assert predicted("alive", 100_000, [0.01, 0.1]) == pytest.approx([5772, 94], rel=5e-3)
    assert predicted("alive", 100_000, 2) == 1


def test_mean_field() -> None:
    assert mean_field_alive(1000, 0) == pytest.approx(1000)
    # 2 g = 1 at the start, so z = lambda t sqrt(m) there
    assert mean_field_alive(10_000, 1e-4) == pytest.approx(20_000 * norm.sf(0.01), rel=1e-4)

    def squared_distance(z: float) -> float:
        return float(2 * quad(lambda x: (x - z) ** 2 * norm.pdf(x), z, np.inf)[0])

    z = 2.5
    time = quad(lambda u: squared_distance(u) ** -0.5, 0, z)[0] / 100
    assert mean_field_alive(10_000, time) == pytest.approx(20_000 * norm.sf(z), rel=1e-4)


def test_mean_field_is_what_many_weights_do() -> None:
    found = even(starts(5000, 4), 1e-4).alive.mean(axis=0)
    for time, rel in ((0.01, 0.03), (0.1, 0.15)):
        at = int(np.argmin(np.abs(TIMES - time)))
        # 4 standard deviations of a binomial count; each is passed by chance in less than 1 case of 1e4
        expected = float(mean_field_alive(5000, time))
        assert found[at] == pytest.approx(expected, rel=rel)
        assert rel > 4 / (4 * expected) ** 0.5 * (1 - expected / 5000) ** 0.5


def test_estimates_of_networks_that_follow_the_prediction() -> None:
    table = made_up()
    for time in (0.01, 0.1):
        assert alive_ratio(table, 10_000, time, "published") == pytest.approx(1)
        expected = float(mean_field_alive(10_000, time))
        assert alive_ratio(table, 10_000, time, "mean_field") * expected == pytest.approx(
            alive(table, 10_000, time)
        )
    for quantity in ("alive", "l1_norm"):
        assert len(within_factor_two(table, quantity, 10_000)) == 3 * len(TIMES)
    assert schemes_difference(table, "alive", 10_000) == pytest.approx(0)
    assert one_left(table).sum() == 6


@pytest.mark.parametrize(("factor", "holds"), [(0.4, False), (0.6, True), (1.9, True), (2.1, False)])
def test_factor_two(factor: float, holds: bool) -> None:
    table = made_up(alive=factor)
    assert (within_factor_two(table, "alive", 10_000) == holds).all()
    assert within_factor_two(table, "l1_norm", 10_000).all()


def test_extremes_are_taken_over_time_and_averaged_over_networks() -> None:
    table = made_up(l1_norm=1.1)
    table.loc[table["seed"] == 0, "l1_norm_30"] *= 2
    table.loc[table["seed"] == 1, "l1_norm_90"] /= 2
    assert l1_norm_ratio(table, 10_000, "highest") == pytest.approx(1.1 * (2 + 1 + 1) / 3)
    assert l1_norm_ratio(table, 10_000, "lowest") == pytest.approx(1.1 * (1 + 0.5 + 1) / 3)


def test_difference_of_the_schemes() -> None:
    table = made_up()
    ode = table["scheme"] == "ode"
    table.loc[ode, "alive_70"] /= 1.03
    table.loc[ode, "alive_71"] *= 1.01
    table.loc[ode, "end_time"] = 1.25
    assert schemes_difference(table, "alive", 10_000) == pytest.approx(0.03)
    assert schemes_difference(table, "l1_norm", 10_000) == pytest.approx(0)
    assert schemes_difference(table, "end_time", 10_000) == pytest.approx(0.2)


def test_who_survives_is_read_from_the_euler_scheme() -> None:
    table = made_up()
    first = (table["scheme"] == "euler") & (table["seed"] == 0)
    table.loc[first, ["largest_survives", "order_preserved", "end_time"]] = [0.0, 0.0, np.nan]
    assert largest_survives(table).tolist() == [False, True, True]
    assert order_preserved(table).tolist() == [False, True, True]
    assert one_left(table).sum() == 5


def test_what_is_missing_is_named() -> None:
    table = made_up()
    with pytest.raises(ValueError, match="no networks of m = 1000 by the scheme 'euler'"):
        alive(table, 1000, 0.1)
    with pytest.raises(ValueError, match=r"time: the weights are not looked at at 0\.12"):
        alive(table, 10_000, 0.12)
    with pytest.raises(ValueError, match="by the scheme 'ode'"):
        schemes_difference(table[table["scheme"] == "euler"], "alive", 10_000)


def test_figure_shows_networks_mean_and_prediction() -> None:
    table = made_up(n_hidden=100_000, alive=1.5)
    table.loc[table["seed"] == 0, "alive_50"] *= 2
    figure = draw(sparsification, table, claims())["sparsification"]
    left, right = figure.axes
    lines = {str(line.get_label()): line for line in left.get_lines()}
    mean = courses(table, "alive", 100_000)[:, 1:].mean(axis=0)
    shown = next(line for label, line in lines.items() if label.startswith("mean, with"))
    np.testing.assert_array_equal(np.asarray(shown.get_xdata()), TIMES[1:])
    np.testing.assert_allclose(np.asarray(shown.get_ydata()), mean)
    prediction = np.asarray(lines["the paper's prediction"].get_ydata())
    boosted = np.arange(1, len(TIMES)) == 50
    np.testing.assert_allclose(np.where(boosted, 2, 1.5) * prediction, mean)
    published = [(float(x), float(y)) for line in left.get_lines() for x, y in _markers(line)]
    assert published == [(0.01, 14500), (0.1, 250), (1.3, 1)]  # as expected/ has them
    assert not [pair for line in right.get_lines() for pair in _markers(line)]
    assert draw(sparsification, table[table["scheme"] == "ode"], claims()) == {}
    narrow = draw(sparsification, made_up(n_hidden=10_000), claims())["sparsification"].axes[0]
    assert not [pair for line in narrow.get_lines() for pair in _markers(line)]


def _markers(line: Any) -> list[tuple[float, float]]:
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True)) if line.get_marker() == "o" else []
