"""Tests of verdicts/claims.py: exact where there is a closed form, else simulations with fixed seeds.

A simulation checks a rate within 4 of its standard deviations: with other seeds than the fixed one, each such
check would fail a correct program with probability 6e-5 (both sides) or 3e-5 (one side).
"""

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from common.errors import InputError
from common.statistics import Z, agreeing, fraction_interval, jackknife, jackknife_error, widen, wilson
from common.verdicts.claims import Claim, Verdict
from common.verdicts.evaluate import Outcome, evaluate, more_seeds, verdict_of
from tests.conftest import load_claims

steady = settings(derandomize=True, deadline=None, database=None)
Samples = NDArray[np.float64]


def mean_of(table: pd.DataFrame, column: str, shift: float = 0.0) -> float:
    return float(table[column].mean(skipna=False)) + shift


def ratio(table: pd.DataFrame) -> float:
    return float(table["y"].mean() / table["x"].mean())


def above(table: pd.DataFrame, limit: float) -> "pd.Series[bool]":
    return table["x"] > limit


def numbers(table: pd.DataFrame) -> "pd.Series[float]":
    return table["x"]


def p_value(table: pd.DataFrame) -> float:
    return float(table["p"].mean())


def needs_seed_0(table: pd.DataFrame) -> float:
    if 0 not in set(table["seed"]):
        raise ValueError("seed 0 is missing")
    return float(table["x"].mean())


def broken(table: pd.DataFrame) -> float:
    raise ZeroDivisionError


def median_of_x(table: pd.DataFrame) -> float:
    return float(table["x"].median())


def exactly(value: float) -> float:
    return value


code = ModuleType("replications.paper.result")
for function in (mean_of, ratio, above, numbers, p_value, needs_seed_0, broken, exactly, median_of_x):
    setattr(code, function.__name__, function)

SOURCE = {"paper": "someone2020", "where": "figure 1", "read_by": "digitised"}
ONE_NETWORK = "the networks of all seeds are identical: all of their metrics are equal"
MEAN_OF_X = {"function": "mean_of", "args": {"column": "x"}}
KINDS: dict[str, dict[str, Any]] = {
    "published": {"published": {"value": 1.0, "reading_error": 0.1}, "margin": {"value": 0.5, "rule": "r"}},
    "theory": {"theory": {"value": 1.0}, "margin": {"value": 0.5, "rule": "r"}},
    "ordering": {"bound": {"at_least": 0.5, "rule": "r"}},
    "fraction": {"bound": {"at_least": 0.5, "rule": "r"}},
}


def claim(kind: str = "theory", estimate: dict[str, Any] = MEAN_OF_X, **parts: Any) -> dict[str, Any]:
    return {"statement": "s", "kind": kind, "source": SOURCE, "estimate": estimate, **(parts or KINDS[kind])}


def table_of(x: Any, seeds: Any = None) -> pd.DataFrame:
    return pd.DataFrame({"seed": range(len(x)) if seeds is None else seeds, "x": x})


def outcome(parts: dict[str, Any], table: pd.DataFrame) -> Outcome:
    return evaluate({"c": Claim.model_validate(parts)}, code, table)["c"]


def standardised(n: int, mean: float, sd: float) -> pd.DataFrame:
    """One row for each of n seeds, with exactly this mean and standard deviation."""
    z = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return table_of(mean + sd * z / z.std(ddof=1))


def leave_one_out(x: Samples) -> Samples:
    """Means (runs, seeds) without each seed, of x (runs, seeds)."""
    n = x.shape[-1]
    return np.asarray((x.sum(-1, keepdims=True) - x) / (n - 1))


# --- intervals


def test_jackknife_of_a_mean_is_the_t_interval() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, 7)
    expected = stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    assert jackknife(float(x.mean()), list(leave_one_out(x))) == pytest.approx((expected.low, expected.high))
    assert jackknife_error(list(leave_one_out(x))) == pytest.approx(x.std(ddof=1) / math.sqrt(7))


@pytest.mark.parametrize("seeds", [2, 5, 10])
def test_jackknife_covers_a_normal_mean(seeds: int) -> None:
    """The true mean lies in the interval in 95 % of cases. False-alarm rate of this test: 6e-5."""
    runs = 3000
    x = np.random.default_rng(1).normal(2.0, 1.0, (runs, seeds))
    intervals = [jackknife(v, s) for v, s in zip(x.mean(1), leave_one_out(x), strict=True)]
    coverage = np.mean([low <= 2.0 <= high for low, high in intervals])
    assert abs(coverage - 0.95) < 4 * math.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize("seeds", [5, 10])
def test_jackknife_covers_a_ratio(seeds: int) -> None:
    """A smooth function of means, not quite normal: at least 93 %. False-alarm rate of this test: 3e-5."""
    runs = 3000
    x = np.random.default_rng(2).normal(4.0, 1.0, (runs, seeds))
    intervals = [jackknife(v, s) for v, s in zip(1 / x.mean(1), 1 / leave_one_out(x), strict=True)]
    coverage = np.mean([low <= 0.25 <= high for low, high in intervals])
    assert coverage > 0.93 - 4 * math.sqrt(0.93 * 0.07 / runs)


def test_instances_of_one_seed_count_as_one() -> None:
    x = np.random.default_rng(8).normal(1.0, 0.1, 6)
    once = outcome(claim(), table_of(x))
    often = outcome(claim(), table_of(np.repeat(x, 50), np.repeat(range(6), 50)))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def clustered(runs: int, seeds: int, truth: float, concentration: float) -> Samples:
    """Shares (runs, seeds) of 20 units each; the units of a seed have correlation 1 / (1 + concentration)."""
    generator = np.random.default_rng(3)
    per_seed = generator.beta(concentration * truth, concentration * (1 - truth), (runs, seeds))
    return np.asarray(generator.binomial(20, per_seed) / 20)


def covered(share: Samples, truth: float) -> tuple[float, float]:
    """How often `fraction_interval` covers, and how often Wilson's interval of all units does."""
    units = 20 * share.shape[1]
    hits = [
        [low <= truth <= high for low, high in (fraction_interval(v, units, s), wilson(v, units, Z))]
        for v, s in zip(share.mean(1), leave_one_out(share), strict=True)
    ]
    ours, all_units = np.mean(hits, axis=0)
    return float(ours), float(all_units)


@pytest.mark.parametrize(("seeds", "truth"), [(5, 0.7), (10, 0.7), (5, 0.95), (10, 0.95)])
@pytest.mark.parametrize("concentration", [50, 1e6], ids=["little clustered", "independent"])
def test_fraction_interval_covers(seeds: int, truth: float, concentration: float) -> None:
    """At least 95 % covered. False-alarm rate of this test: 3e-5."""
    runs = 2000
    ours, _ = covered(clustered(runs, seeds, truth, concentration), truth)
    assert ours > 0.95 - 4 * math.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize(("seeds", "truth", "least"), [(5, 0.7, 0.95), (10, 0.7, 0.95), (10, 0.95, 0.9)])
def test_fraction_interval_covers_with_clustered_seeds(seeds: int, truth: float, least: float) -> None:
    """With correlation 1/6 within a seed Wilson's interval of all units covers in less than 75 %.

    Near 1 ours covers less than 95 %, too: a few seeds do not show how much they differ. False-alarm rate of
    this test: 3e-5 for each of the two checks.
    """
    runs = 2000
    ours, all_units = covered(clustered(runs, seeds, truth, 5), truth)
    assert ours > least - 4 * math.sqrt(least * (1 - least) / runs)
    assert all_units < 0.75 + 4 * math.sqrt(0.75 * 0.25 / runs)


def test_wilson_is_that_of_scipy() -> None:
    for good in (0, 15, 20):
        expected = stats.binomtest(good, 20).proportion_ci(method="wilson")
        assert wilson(good / 20, 20, Z) == pytest.approx((expected.low, expected.high))


def test_fraction_interval_is_the_wider_of_both_within_0_and_1() -> None:
    t = stats.t.ppf(0.975, 4)
    assert fraction_interval(0.75, 20, [0.75] * 5) == pytest.approx(wilson(0.75, 20, t))
    assert fraction_interval(0.75, 20, [0.5, 1.0]) == (0.0, 1.0)
    samples = [0.74, 0.75, 0.75, 0.75, 0.76]
    variance = 4 / 5 * 2 * 0.01**2
    score = wilson(0.75, 0.75 * 0.25 / variance, t)
    low, high = jackknife(0.75, samples)
    assert fraction_interval(0.75, 10**6, samples) == pytest.approx((min(low, score[0]), max(high, score[1])))
    assert fraction_interval(1.0, 100, [1.0] * 5) == pytest.approx((100 / (100 + t**2), 1.0))
    # a choice of the best seed can agree everywhere, and less without one seed
    assert fraction_interval(1.0, 100, [1.0, 1.0, 1.0, 1.0, 0.9])[1] == 1.0
    assert fraction_interval(1.0, 100, []) == (-math.inf, math.inf)


# --- verdicts


@pytest.mark.parametrize("seeds", [2, 5, 20])
@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_a_value_at_the_margin_seldom_passes(seeds: int, margin: float) -> None:
    """A true value on the edge of the region passes in at most 2.5 % of cases. False-alarm rate: 3e-5."""
    runs = 3000
    x = np.random.default_rng(4).normal(margin, 1.0, (runs, seeds))
    verdicts = [
        verdict_of(jackknife(v, s), (-margin, margin))
        for v, s in zip(x.mean(1), leave_one_out(x), strict=True)
    ]
    rate = np.mean([verdict is Verdict.REPRODUCED for verdict in verdicts])
    assert rate < 0.025 + 4 * math.sqrt(0.025 * 0.975 / runs)


def test_a_value_inside_the_margin_is_seldom_rejected() -> None:
    """A true value on the edge is called not reproduced in at most 2.5 % of cases. False-alarm rate: 3e-5."""
    runs = 3000
    x = np.random.default_rng(5).normal(0.5, 1.0, (runs, 10))
    verdicts = [
        verdict_of(jackknife(v, s), (-0.5, 0.5)) for v, s in zip(x.mean(1), leave_one_out(x), strict=True)
    ]
    rate = np.mean([verdict is Verdict.NOT_REPRODUCED for verdict in verdicts])
    assert rate < 0.025 + 4 * math.sqrt(0.025 * 0.975 / runs)


@pytest.mark.parametrize("kind", ["published", "theory", "ordering"])
def test_two_seeds_with_a_large_spread_decide_nothing(kind: str) -> None:
    assert outcome(claim(kind), table_of([0.5, 1.6])).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("kind", ["published", "theory", "ordering", "fraction"])
def test_one_seed_decides_nothing(kind: str) -> None:
    estimate = {"function": "above", "args": {"limit": 0.0}} if kind == "fraction" else MEAN_OF_X
    result = outcome(claim(kind, estimate), table_of([1.0] * 500, [3] * 500))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert (result.value, result.low, result.high) == (1.0, -math.inf, math.inf)
    assert (result.samples, result.more_seeds) == ([], None)
    assert result.reason == "1 comes from one seed, which gives no interval"


@pytest.mark.parametrize("kind", ["published", "theory", "ordering"])
@pytest.mark.parametrize("estimate", [MEAN_OF_X, {"metric": "x"}], ids=["function", "metric"])
def test_same_and_plainly_different_numbers(kind: str, estimate: dict[str, Any]) -> None:
    same = outcome(claim(kind, estimate), standardised(10, 1.0, 0.05))
    assert same.verdict is Verdict.REPRODUCED
    assert outcome(claim(kind, estimate), standardised(10, -1.0, 0.05)).verdict is Verdict.NOT_REPRODUCED
    assert same.value == pytest.approx(1.0)
    assert len(same.samples) == 10


@pytest.mark.parametrize("parts", [{}, {"published": {"value": 1.0}, "margin": {"value": 0.2, "rule": "r"}}])
def test_same_and_plainly_different_fractions(parts: dict[str, Any]) -> None:
    parts = claim("fraction", {"function": "above", "args": {"limit": 0.0}}, **parts)
    x, seeds = np.ones(200), np.repeat(np.arange(10), 20)
    assert outcome(parts, table_of(x, seeds)).verdict is Verdict.REPRODUCED
    assert outcome(parts, table_of(-x, seeds)).verdict is Verdict.NOT_REPRODUCED
    # 140 of 200 units would decide in both cases, but they are 7 of 10 seeds
    split = outcome(parts, table_of(x * np.where(seeds < 7, 1, -1), seeds))
    assert split.value == pytest.approx(0.7)
    assert split.verdict is Verdict.INCONCLUSIVE


def test_same_and_plainly_different_theory_needs_no_seeds() -> None:
    estimate = {"function": "exactly", "args": {"value": 1.25}}
    same = outcome(claim("theory", estimate), table_of([1.0]))
    assert (same.verdict, same.value, same.low, same.high) == (Verdict.REPRODUCED, 1.25, 1.25, 1.25)
    assert same.samples == []
    assert same.reason == "1.25 lies inside [0.5, 1.5]"
    other = outcome(claim("theory", {"function": "exactly", "args": {"value": 1.51}}), table_of([1.0]))
    assert other.verdict is Verdict.NOT_REPRODUCED
    assert other.reason == "1.51 lies outside [0.5, 1.5]"


@pytest.mark.parametrize(("bound", "inside"), [({"at_least": 0.0}, 1.0), ({"at_most": 0.0}, -1.0)])
def test_one_sided_bounds(bound: dict[str, float], inside: float) -> None:
    parts = claim("ordering", bound={**bound, "rule": "r"})
    for mean, expected in ((inside, "reproduced"), (0.0, "inconclusive"), (-inside, "not reproduced")):
        assert outcome(parts, standardised(10, mean, 0.5)).verdict == expected
    assert outcome(parts, standardised(10, 1e6 * inside, 0.5)).verdict is Verdict.REPRODUCED


def test_reasons_are_plain_sentences() -> None:
    near = outcome(claim("theory"), standardised(10, 1.0, 0.1))
    assert near.reason == "1 [0.9285, 1.072] lies inside [0.5, 1.5]"
    edge = outcome(claim("theory"), standardised(10, 1.4, 0.2))
    assert edge.reason == "1.4 [1.257, 1.543] lies partly inside [0.5, 1.5]; about 8 more seeds would decide"
    open_ = outcome(claim("published"), standardised(10, 1.45, 0.2))
    assert open_.reason.endswith("; about 54 more seeds would show that it cannot be decided")
    one = table_of([1.5] * 2 + [1.4, 1.6])
    assert outcome(claim(), one).reason.endswith("; no number of seeds would decide")


# --- the error of a published number


def test_published_error_adds_sample_reading_and_grid() -> None:
    published = {"value": 2.0, "sd": 0.4, "n": 16, "reading_error": 0.2, "resolution": 0.3}
    result = Claim.model_validate(
        claim("published", published=published, margin={"rule": "published_precision"})
    )
    assert result.published is not None
    error = math.sqrt(0.4**2 / 16 + (0.2 / 1.959964) ** 2 + 0.3**2 / 12)
    assert result.published.error == pytest.approx(error)
    assert result.published_half_width == pytest.approx(1.959964 * error)
    assert result.region == pytest.approx((2 - 2 * 1.959964 * error, 2 + 2 * 1.959964 * error))


def test_published_error_widens_the_interval_in_quadrature() -> None:
    parts = claim(
        "published", published={"value": 1.0, "reading_error": 0.3}, margin={"value": 1.0, "rule": "r"}
    )
    result = outcome(parts, standardised(10, 1.0, 0.5))
    own = stats.t.ppf(0.975, 9) * 0.5 / math.sqrt(10)
    assert (result.high - 1.0, 1.0 - result.low) == pytest.approx((math.hypot(own, 0.3),) * 2)


def test_published_precision_has_95_percent_power() -> None:
    """A same result, ours known exactly, passes in 95 % of cases. False-alarm rate of this test: 6e-5."""
    runs, error = 4000, 0.1
    published = np.random.default_rng(6).normal(1.0, error, runs)
    half = Z * error
    verdicts = [verdict_of(widen(1.0, (1.0, 1.0), half), (p - 2 * half, p + 2 * half)) for p in published]
    power = np.mean([verdict is Verdict.REPRODUCED for verdict in verdicts])
    assert abs(power - 0.95) < 4 * math.sqrt(0.95 * 0.05 / runs)


def test_published_precision_rejects_what_is_far() -> None:
    published = {"value": 1.0, "sd": 0.4, "n": 16}
    parts = claim("published", published=published, margin={"rule": "published_precision"})
    assert outcome(parts, standardised(20, 1.1, 0.1)).verdict is Verdict.REPRODUCED
    assert outcome(parts, standardised(20, 1.7, 0.1)).verdict is Verdict.NOT_REPRODUCED


# --- how many more seeds


@pytest.mark.parametrize("mean", [0.9, 1.25, 1.75])
@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("kind", ["theory", "ordering"])
def test_more_seeds_is_the_smallest_number_that_decides(mean: float, seeds: int, kind: str) -> None:
    parts = claim(kind, **{"bound": {"at_most": 1.5, "rule": "r"}} if kind == "ordering" else {})
    first = outcome(parts, standardised(seeds, mean, 1.0))
    assert first.verdict is Verdict.INCONCLUSIVE
    assert first.more_seeds is not None
    enough = seeds + first.more_seeds
    decided = Verdict.REPRODUCED if mean < 1.5 else Verdict.NOT_REPRODUCED
    assert outcome(parts, standardised(enough, mean, 1.0)).verdict is decided
    if enough - 1 > seeds:
        assert outcome(parts, standardised(enough - 1, mean, 1.0)).verdict is Verdict.INCONCLUSIVE


def test_more_seeds_with_a_published_error() -> None:
    parts = claim(
        "published", published={"value": 1.0, "reading_error": 0.2}, margin={"value": 0.5, "rule": "r"}
    )
    first = outcome(parts, standardised(5, 1.2, 0.5))
    assert first.more_seeds is not None
    assert outcome(parts, standardised(5 + first.more_seeds, 1.2, 0.5)).verdict is Verdict.REPRODUCED
    assert outcome(parts, standardised(4 + first.more_seeds, 1.2, 0.5)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("p", "seeds", "verdict", "more"),
    [
        (0.5, 6, Verdict.REPRODUCED, None),
        (0.01, 6, Verdict.REPRODUCED, None),
        (0.5, 5, Verdict.INCONCLUSIVE, 1),
        (0.5, 1, Verdict.INCONCLUSIVE, 5),
        (0.009, 6, Verdict.NOT_REPRODUCED, None),
        (0.009, 2, Verdict.NOT_REPRODUCED, None),
        (0.0, 6, Verdict.NOT_REPRODUCED, None),
        (math.nan, 6, Verdict.INVALID, None),
    ],
)
def test_a_fit_needs_no_alarm_and_seeds_enough(
    p: float, seeds: int, verdict: Verdict, more: int | None
) -> None:
    parts = {"bound": {"at_least": 0.01, "rule": "r"}, "power": {"seeds": 6, "rule": "r"}}
    table = pd.DataFrame({"p": p, "seed": range(seeds)})
    found = outcome(claim("fit", {"function": "p_value"}, **parts), table)
    assert (found.verdict, found.more_seeds) == (verdict, more)


def test_no_number_of_seeds_decides() -> None:
    # on the edge; one seed
    assert more_seeds(1.5, (1.4, 1.6), 10, 0.0, (0.5, 1.5)) is None
    assert more_seeds(1.0, (-math.inf, math.inf), 1, 0.0, (0.5, 1.5)) is None


# --- outcomes on which all seeds agree


def alike(value: float, seeds: int, **more: Any) -> pd.DataFrame:
    """Networks with other losses, all with this outcome."""
    return table_of(np.full(seeds, value)).assign(loss=np.arange(seeds) + 1.0, **more)


FEATURES = claim("published", {"metric": "x"}, published={"value": 5}, margin={"value": 0.5, "rule": "half"})


@pytest.mark.parametrize(
    ("value", "seeds", "verdict", "more"),
    [
        (5, 5, Verdict.INCONCLUSIVE, 1),
        (5, 2, Verdict.INCONCLUSIVE, 4),
        (5, 6, Verdict.REPRODUCED, None),
        (5, 100, Verdict.REPRODUCED, None),
        (5.25, 6, Verdict.REPRODUCED, None),
        (4, 6, Verdict.NOT_REPRODUCED, None),
        (4, 5, Verdict.INCONCLUSIVE, 1),
        (0, 40, Verdict.NOT_REPRODUCED, None),
    ],
)
def test_seeds_that_all_agree_are_an_outcome(
    value: float, seeds: int, verdict: Verdict, more: int | None
) -> None:
    result = outcome(FEATURES, alike(value, seeds))
    assert (result.value, result.verdict, result.more_seeds) == (value, verdict, more)
    assert f"all {seeds} seeds" in result.reason
    if more is None:
        assert (result.low, result.high) == (value, value)


def test_agreement_is_widened_by_the_published_error() -> None:
    published = {"value": 5, "sd": 1.0, "n": 4}
    result = outcome({**FEATURES, "published": published}, alike(5, 10))
    assert (result.low, result.high) == pytest.approx((5 - 1.96 / 2, 5 + 1.96 / 2), abs=1e-4)
    assert result.verdict is Verdict.UNDECIDABLE


@pytest.mark.parametrize("seeds", [2, 5, 6, 40])
def test_the_exact_interval_of_the_share_that_agrees(seeds: int) -> None:
    """That of Clopper and Pearson, which lies above 1/2 from six seeds on."""
    low = stats.binomtest(seeds, seeds).proportion_ci(0.95, method="exact").low
    assert (low > 0.5) == (seeds >= agreeing())
    if seeds >= agreeing():
        assert f"more than {low:.0%} of all seeds would" in outcome(FEATURES, alike(5, seeds)).reason


def test_a_control_is_judged_as_all_its_networks_are() -> None:
    """Two seeds of a broken network are two, and it may be one and the same for all."""
    claims = {"features": Claim.model_validate(FEATURES)}
    for table in (alike(0, 2), table_of(np.zeros(2))):
        result = evaluate(claims, code, table, of_control=True)["features"]
        assert (result.value, result.verdict) == (0, Verdict.NOT_REPRODUCED)
    assert evaluate(claims, code, alike(5, 2), of_control=True)["features"].verdict is Verdict.REPRODUCED


def test_an_estimate_that_does_not_see_each_seed_is_no_agreement() -> None:
    table = table_of([1.0, 5, 5, 5, 5, 5, 5, 9]).assign(loss=np.arange(8))
    result = outcome({**FEATURES, "estimate": {"function": "median_of_x"}}, table)
    assert result.verdict is Verdict.INVALID
    assert result.reason.startswith("every choice of seeds gives the same, but single seeds differ")
    assert outcome({**FEATURES, "estimate": {"function": "median_of_x"}}, alike(5, 8)).reason.endswith(
        "all 8 seeds agree, so more than 63% of all seeds would"
    )


@pytest.mark.parametrize("value", [0.5, -3.0])
def test_a_comparison_in_which_nothing_differs_is_no_agreement(value: float) -> None:
    """A lead of 0 where at least 0 is asked; a network's own number may be the least that is asked."""
    table = alike(value, 20)
    bound = {"bound": {"at_least": value, "rule": "r"}}
    result = outcome(claim("ordering", MEAN_OF_X, **bound), table)
    assert result.verdict is Verdict.INVALID
    assert result.reason.endswith(f"gives {value:.4g}, exactly an end of the acceptance region")
    assert outcome(claim("ordering", {"metric": "x"}, **bound), table).verdict is Verdict.REPRODUCED


# --- claims that cannot pass or cannot fail


@pytest.mark.parametrize(
    ("kind", "parts", "problem"),
    [
        ("fraction", {"bound": {"at_least": -1}}, "cannot fail"),
        ("fraction", {"bound": {"at_least": 0}}, "cannot fail"),
        ("fraction", {"bound": {"at_most": 1}}, "cannot fail"),
        ("fraction", {"bound": {"at_least": 1.5}}, "cannot pass"),
        ("fraction", {"bound": {"at_least": 1}}, "cannot pass"),
        ("fraction", {"bound": {"at_most": 0}}, "cannot pass"),
        ("fraction", {"bound": {"at_most": -0.5}}, "cannot pass"),
        ("fraction", {"published": {"value": 0.5}, "margin": {"value": 0.5}}, "cannot fail"),
        ("fraction", {"published": {"value": 3}, "margin": {"value": 1}}, "cannot pass"),
        ("fit", {"bound": {"at_least": 0}}, "cannot fail"),
        ("fit", {"bound": {"at_least": 1}}, "cannot pass"),
        ("fit", {"bound": {"at_least": 2}}, "cannot pass"),
        ("ordering", {"bound": {"at_least": -1e300}}, "cannot fail"),
        ("ordering", {"bound": {"at_most": 1e39}}, "cannot fail"),
        ("ordering", {"bound": {"at_least": 1e39}}, "cannot pass"),
        ("theory", {"theory": {"value": 1}, "margin": {"value": 1e308}}, "beyond"),
        ("theory", {"theory": {"value": 1e308}, "margin": {"value": 1e308}}, "beyond"),
        ("published", {"published": {"value": -1e300}, "margin": {"value": 1}}, "beyond"),
    ],
)
def test_a_claim_that_cannot_pass_or_fail_is_refused(kind: str, parts: dict[str, Any], problem: str) -> None:
    given = {
        "statement": "it is so",
        "kind": kind,
        "source": {"paper": "p", "where": "w", "read_by": "text"},
        "estimate": {"function": "p_value"},
    }
    rules = {part: {**value, "rule": "r"} if part != "theory" and part != "published" else value
             for part, value in parts.items()}  # fmt: skip
    power = {"power": {"seeds": 8, "rule": "r"}} if kind == "fit" else {}
    with pytest.raises(pydantic.ValidationError, match=f"{problem}.*; set a "):
        Claim.model_validate({**given, **rules, **power})


# --- what cannot be judged


@pytest.mark.parametrize(
    ("estimate", "x", "reason"),
    [
        (MEAN_OF_X, [1.0, math.nan, 1.1], "the estimate is nan"),
        (MEAN_OF_X, [1.0, math.inf, 1.1], "the estimate is inf"),
        ({"metric": "x"}, [1.0, math.nan, 1.1], "the estimate is nan"),
        (MEAN_OF_X, [], "the estimate is nan"),
        ({"metric": "x"}, [], "no row at all"),
        (MEAN_OF_X, [0.1] * 3, ONE_NETWORK),
        ({"metric": "x"}, [0.0] * 2, ONE_NETWORK),
        ({"metric": "x"}, [5.0] * 20, ONE_NETWORK),
        ({"metric": "x", "at": {"seed": 7}}, [1.0, 1.1], "no row at seed = 7"),
        ({"metric": "norm"}, [1.0, 1.1], "no column 'norm'; valid: seed, x"),
        ({"metric": "x", "at": {"sed": 1}}, [1.0, 1.1], "no column 'sed'; did you mean 'seed'?"),
        ({"function": "mean_of", "args": {"column": "z"}}, [1.0, 1.1], "no 'z' in the data"),
        ({"function": "needs_seed_0"}, [1.0, 1.1], "without seed 0: seed 0 is missing"),
    ],
)
def test_invalid(estimate: dict[str, Any], x: list[float], reason: str) -> None:
    result = outcome(claim("theory", estimate), table_of(np.array(x, dtype=float)))
    assert result.verdict is Verdict.INVALID
    assert result.reason == reason
    assert math.isnan(result.value)
    assert math.isnan(result.low)
    assert (result.samples, result.more_seeds) == ([], None)


def test_a_fraction_of_nothing_is_invalid() -> None:
    parts = claim("fraction", {"function": "above", "args": {"limit": 0.0}})
    assert outcome(parts, table_of(np.empty(0))).reason == "there are no units to judge"


def test_an_invalid_claim_leaves_the_others_alone() -> None:
    claims = {
        "bad": Claim.model_validate(claim("theory", {"metric": "z"})),
        "good": Claim.model_validate(claim()),
    }
    outcomes = evaluate(claims, code, standardised(10, 1.0, 0.1))
    assert [(o.name, o.verdict) for o in outcomes.values()] == [
        ("bad", Verdict.INVALID),
        ("good", Verdict.REPRODUCED),
    ]


def test_mistakes_in_the_code_are_not_swallowed() -> None:
    with pytest.raises(InputError, match=r"test_claims.py:\d+: broken\(\) failed: ZeroDivisionError"):
        outcome(claim("theory", {"function": "broken"}), table_of([1.0, 2.0]))
    with pytest.raises(InputError, match="numbers: a fraction needs a Series of bool, got float64"):
        outcome(claim("fraction", {"function": "numbers"}), table_of([1.0, 2.0]))


# --- which rows


def test_mean_of_a_metric_at_factors() -> None:
    table = pd.DataFrame(
        {
            "seed": [0, 0, 0, 0, 1, 1, 1, 1],
            "part": ["a", "a", "a", "b"] * 2,
            "density": [0.1 + 0.2, 0.3, 0.3000001, 0.3] * 2,
            "relu": [True, True, True, False] * 2,
            "m": [1.0, 2.0, 100.0, 100.0, 2.0, 4.0, 100.0, 100.0],
        }
    )
    wanted = {"part": "a", "density": 0.3, "relu": True}
    result = outcome(claim("theory", {"metric": "m", "at": wanted, "statistic": "mean"}), table)
    assert result.value == 2.25
    assert result.samples == [3.0, 1.5]
    for other in (1, "a"):
        missing = outcome(claim("theory", {"metric": "m", "at": {"density": other}}), table)
        assert missing.reason == f"no row at density = {other}"


@given(st.permutations(range(12)))
@settings(steady, max_examples=20)
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    generator = np.random.default_rng(7)
    table = table_of(generator.normal(1.0, 0.2, 12), np.repeat(range(4), 3)).assign(
        y=generator.normal(1, 0.2, 12)
    )
    for parts in (
        claim("theory"),
        claim("theory", {"function": "ratio"}),
        claim("theory", {"metric": "x"}),
        claim("fraction", {"function": "above", "args": {"limit": 0.9}}),
    ):
        one, other = outcome(parts, table), outcome(parts, table.iloc[order])
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))
        assert other.samples == pytest.approx(one.samples)
        assert other.verdict is one.verdict


# --- properties of judge

finite = st.floats(-1e6, 1e6)
ends = st.tuples(finite, finite).map(lambda pair: (min(pair), max(pair)))
wider = st.tuples(st.floats(0, 1e6), st.floats(0, 1e6))


@given(ends, ends, wider)
@steady
def test_widening_the_interval_never_decides(
    interval: tuple[float, float], region: tuple[float, float], by: tuple[float, float]
) -> None:
    before = verdict_of(interval, region)
    after = verdict_of((interval[0] - by[0], interval[1] + by[1]), region)
    assert after in (before, Verdict.INCONCLUSIVE)


@given(ends, ends, wider)
@steady
def test_widening_the_region_never_turns_a_pass_into_a_failure(
    interval: tuple[float, float], region: tuple[float, float], by: tuple[float, float]
) -> None:
    order = [Verdict.NOT_REPRODUCED, Verdict.INCONCLUSIVE, Verdict.REPRODUCED]
    before, after = verdict_of(interval, region), verdict_of(interval, (region[0] - by[0], region[1] + by[1]))
    assert order.index(after) >= order.index(before)


@given(ends, ends)
@steady
def test_judge_is_symmetric(interval: tuple[float, float], region: tuple[float, float]) -> None:
    assert verdict_of((-interval[1], -interval[0]), (-region[1], -region[0])) is verdict_of(interval, region)


@given(ends)
@steady
def test_judge_at_the_ends(interval: tuple[float, float]) -> None:
    low, high = interval
    assert verdict_of(interval, interval) is Verdict.REPRODUCED
    assert verdict_of(interval, (high + 1, math.inf)) is Verdict.NOT_REPRODUCED
    assert verdict_of((-math.inf, math.inf), interval) is Verdict.INCONCLUSIVE
    assert verdict_of((-math.inf, math.inf), (low, math.inf)) is Verdict.INCONCLUSIVE
    assert verdict_of((math.nan, high), interval) is verdict_of((low, math.nan), interval) is Verdict.INVALID


@given(finite, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
@steady
def test_widen_adds_in_quadrature(value: float, below: float, over: float, half: float) -> None:
    own = (value - below, value + over)
    low, high = widen(value, own, half)
    assert low <= own[0] + 1e-6
    assert high >= own[1] - 1e-6
    assert high - value == pytest.approx(math.hypot(over, half), abs=1e-6)


# --- the file

TEXT = """\
claims:
  first:
    statement: s
    kind: published
    source: {paper: someone2020, where: figure 1, read_by: text}
    published: {value: .173, reading_error: 1e-2, resolution: .008}
    estimate: {function: mean_of, args: {column: x}}
    margin: {rule: published_precision}
    investigated: null
"""


def changed(**parts: Any) -> Callable[[dict[str, Any]], None]:
    """Set each key (`a__b` for b in a) of the claim to its value, or delete it where that is None."""

    def change(claim: dict[str, Any]) -> None:
        for key, value in parts.items():
            *parents, last = key.split("__")
            target = claim
            for parent in parents:
                target = target[parent]
            if value is None:
                del target[last]
            else:
                target[last] = value

    return change


BOUND = {"at_least": 0.5, "rule": "r"}


def test_load_claims(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(TEXT)
    claims = load_claims(tmp_path / "claims.yaml", code)
    assert list(claims) == ["first"]
    assert claims["first"].published is not None
    assert claims["first"].published.resolution == 0.008
    with pytest.raises(ValueError, match="frozen"):
        claims["first"].kind = "theory"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"claims\.yaml: cannot be read: .*No such file") as error:
        load_claims(tmp_path / "claims.yaml", code)
    assert "\n" not in str(error.value)


# each: what is changed in TEXT (a key that is not there yet comes last), and the line and message
ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"margn": "x"}, "10: claims.first.margn: unknown key; did you mean 'margin'?"),
    "missing key": ({"statement": None}, "2: claims.first.statement: missing key"),
    "empty text": (
        {"statement": ""},
        "3: claims.first.statement: string should have at least 1 character, got ''",
    ),
    "kind": (
        {"kind": "best"},
        "4: claims.first.kind: input should be 'published', 'theory', 'ordering', 'fraction' or 'fit', "
        "got 'best'",
    ),
    "read_by": (
        {"source__read_by": "eye"},
        "5: claims.first.source.read_by: input should be 'text', 'digitised', 'derived' or 'code', got 'eye'",
    ),
    "no published": (
        {"published": None},
        "2: claims.first: kind published needs published and margin, got margin",
    ),
    "theory": (
        {"kind": "theory"},
        "2: claims.first: kind theory needs theory and margin, got margin, published",
    ),
    "ordering": ({"kind": "ordering"}, "2: claims.first: kind ordering needs bound, got margin, published"),
    "fraction": (
        {"kind": "fraction", "published": None, "margin": None},
        "2: claims.first: kind fraction needs bound or published and margin, got none",
    ),
    "no published error": (
        {"published": {"value": 1.0}},
        "2: claims.first: the margin rule published_precision needs the error of the published number: "
        "sd and n, reading_error or resolution",
    ),
    "sd without n": (
        {"published__sd": 1.0},
        "6: claims.first.published: sd needs n, the number of networks (or runs) that it was computed from",
    ),
    "zero error": (
        {"published__reading_error": 0.0},
        "6: claims.first.published.reading_error: input should be greater than 0, got 0.0",
    ),
    "text for a number": (
        {"published__value": "x"},
        "6: claims.first.published.value: input should be a valid number, got 'x'",
    ),
    "nan": (
        {"published__value": math.nan},
        "6: claims.first.published.value: input should be a finite number, got nan",
    ),
    "margin without value": (
        {"margin__rule": "taste"},
        "8: claims.first.margin: give either the rule published_precision without a value, or "
        "a value with its own rule",
    ),
    "margin with both": (
        {"margin__value": 1.0},
        "8: claims.first.margin: give either the rule published_precision without a value, or "
        "a value with its own rule",
    ),
    "margin without rule": ({"margin": {"value": 1.0}}, "8: claims.first.margin.rule: missing key"),
    "two bounds": (
        {"kind": "ordering", "published": None, "margin": None, "bound": {**BOUND, "at_most": 1.0}},
        "8: claims.first.bound: give exactly one of at_least and at_most",
    ),
    "no estimate": ({"estimate": {}}, "7: claims.first.estimate: give exactly one of function and metric"),
    "args of a metric": (
        {"estimate": {"metric": "x", "args": {}}},
        "7: claims.first.estimate: args cannot be combined with metric",
    ),
    "rows of a function": (
        {"estimate__at": {"x": 1}},
        "7: claims.first.estimate: at cannot be combined with function",
    ),
    # delete-one jackknife intervals of a median are far too narrow
    "median": (
        {"estimate": {"metric": "x", "statistic": "median"}},
        "7: claims.first.estimate.statistic: input should be 'mean', got 'median'",
    ),
    "fraction of a metric": (
        {"kind": "fraction", "published": None, "margin": None, "bound": BOUND, "estimate": {"metric": "x"}},
        "2: claims.first: kind fraction needs estimate.function, which returns true or false for each unit",
    ),
    "fit without power": (
        {"kind": "fit", "published": None, "margin": None, "bound": BOUND},
        "2: claims.first: kind fit needs power and bound, got bound",
    ),
    "fit of a metric": (
        {
            "kind": "fit",
            "published": None,
            "margin": None,
            "bound": BOUND,
            "power": {"seeds": 2, "rule": "r"},
            "estimate": {"metric": "x"},
        },
        "2: claims.first: kind fit needs estimate.function, which returns a p-value, and bound.at_least",
    ),
    "no profiles": (
        {"profiles": []},
        "10: claims.first.profiles: list should have at least 1 item, not 0",
    ),
    "fraction of a theory": (
        {
            "kind": "fraction",
            "published": None,
            "margin": None,
            "bound": BOUND,
            "estimate": {"function": "exactly", "args": {"value": 1.0}},
        },
        "6: claims.first.estimate.function: kind fraction needs exactly(table, ...)",
    ),
    "function": (
        {"estimate__function": "mean_off"},
        "7: claims.first.estimate.function: no function 'mean_off' in replications.paper.result; "
        "did you mean 'mean_of'?",
    ),
    "unknown argument": (
        {"estimate__args": {"column": "x", "shifft": 1.0}},
        "7: claims.first.estimate.args.shifft: unknown argument; did you mean 'shift'?",
    ),
    "missing argument": ({"estimate__args": {}}, "7: claims.first.estimate.args.column: missing key"),
    "type of an argument": (
        {"estimate__args": {"column": "x", "shift": "far"}},
        "7: claims.first.estimate.args.shift: input should be a valid number, got 'far'",
    ),
    "table given": (
        {"estimate__args": {"column": "x", "table": 1}},
        "7: claims.first.estimate.args.table: unknown argument; valid: column, shift",
    ),
}


@pytest.mark.parametrize(("parts", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_name_the_line_and_what_is_right(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    path = tmp_path / "claims.yaml"
    data = yaml.safe_load(TEXT.replace("1e-2", "1.0e-2"))
    changed(**parts)(data["claims"]["first"])
    # every key of the claim on a line of its own, as in TEXT
    lines = [
        f"    {key}: {yaml.safe_dump(v, default_flow_style=True, width=9999)}"
        for key, v in data["claims"]["first"].items()
    ]
    path.write_text(
        "claims:\n  first:\n" + "\n".join(line.replace("\n...", "").strip("\n") for line in lines)
    )
    with pytest.raises(InputError) as error:
        load_claims(path, code)
    assert str(error.value) == f"{path}:{message}"


def test_no_claims(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text("claims: {}")
    with pytest.raises(InputError, match="1: claims: dictionary should have at least 1 item"):
        load_claims(tmp_path / "claims.yaml", code)
