"""Tests of judging at looks (looks.py, evaluate.py), and of the rows that claims read (estimates.py)."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.specs.fields import Fields
from common.specs.query import holds
from common.specs.spec import Spec, is_neutral
from common.statistics import TAIL, agreeing, jackknife, z_quantile
from common.verdicts.claims import Claim, Verdict
from common.verdicts.estimates import Part, reads
from common.verdicts.evaluate import (
    Outcome,
    evaluate,
    is_undecidable,
    needed_half_width,
    published_networks,
    verdict_of,
)
from common.verdicts.looks import SHARES, Looks, looks_of
from tests.conftest import load_claims

steady = settings(derandomize=True, deadline=None, database=None)


def mean(table: pd.DataFrame) -> float:
    return float(table["x"].mean())


def largest(table: pd.DataFrame) -> float:
    return float(table["x"].max())


def positive(table: pd.DataFrame) -> "pd.Series[bool]":
    return table["x"] > 0


def p_value(table: pd.DataFrame) -> float:
    return float(table["p"].mean())


def exactly(value: float) -> float:
    return value


def only_a(table: pd.DataFrame) -> float:
    assert set(table["part"]) == {"a"}
    return mean(table)


code = ModuleType("replications.paper.result")
for function in (mean, largest, positive, p_value, exactly, only_a):
    setattr(code, function.__name__, function)

LOOKS = Looks([4, 12, 40])


def claim(kind: str = "theory", estimate: dict[str, Any] | None = None, **parts: Any) -> Claim:
    parts = parts or {"theory": {"value": 0.0}, "margin": {"value": 1.0, "rule": "r"}}
    source = {"paper": "someone2020", "where": "figure 1", "read_by": "text"}
    estimate = estimate or {"metric": "x"}
    return Claim.model_validate(
        {"statement": "s", "kind": kind, "source": source, "estimate": estimate, **parts}
    )


def published(error: float = 0.1, margin: float | None = 1.0, **more: Any) -> Claim:
    rule = {"rule": "published_precision"} if margin is None else {"value": margin, "rule": "r"}
    number = {"value": 0.0, **(more or {"reading_error": error})}
    return claim("published", published=number, margin=rule)


def spread(n: int, mean: float = 0.0, sd: float = 1.0, seed: int = 0) -> Any:
    """Numbers with exactly this mean and standard deviation."""
    x = np.random.default_rng(seed).normal(size=n)
    return mean + sd * (x - x.mean()) / x.std(ddof=1)


def table_of(x: Any, seeds: Any = None, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({**columns, "seed": range(len(x)) if seeds is None else seeds, "x": x})


def judged(one: Claim, table: pd.DataFrame, looks: Looks | None = LOOKS) -> Outcome:
    return evaluate({"c": one}, code, table, looks=looks)["c"]


# --- which looks, and their shares of the error


@pytest.mark.parametrize(
    ("given", "looks"),
    [
        ({"seeds": 16}, [16, 48, 160]),
        ({"seeds": 1}, [2, 6, 20]),
        ({"seeds": [3, 7, 20]}, [3, 9, 30]),
        ({"seeds": 16, "looks": [5]}, [5]),
        ({"seeds": 16, "looks": [5, 70]}, [5, 70]),
    ],
)
def test_looks_of_a_spec(given: dict[str, Any], looks: list[int]) -> None:
    fields = {"title": "t", "paper": "p", "version": 1, "code": "c", "model": {"class_path": "m"}}
    assert looks_of(Fields.model_validate({**fields, "sweep": [{}], **given})) == Looks(looks)


@pytest.mark.parametrize(
    ("looks", "problem"),
    [
        ("[1, 3]", "the first look needs at least 2 seeds"),
        ("[4, 4]", "expected increasing numbers of seeds"),
        ("[2, 3, 4, 5]", "expected one to 3 numbers of seeds"),
        ("[]", "expected one to 3 numbers of seeds"),
        ("[0, 3]", "input should be greater than 0"),
    ],
)
def test_looks_that_are_none(small: Any, looks: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"^the test: looks(\.0)?: {problem}"):
        small(looks=looks)


def test_looks_change_no_result(small: Any) -> None:
    with_looks: Spec = small(looks="[4, 8]")
    assert with_looks.resolved() == small().resolved()
    assert is_neutral("looks")


@pytest.mark.parametrize("seeds", [[4], [4, 12], [4, 12, 40]])
def test_the_shares_sum_to_the_error_of_one_side(seeds: list[int]) -> None:
    tails = Looks(seeds).tails
    assert sum(tails) == pytest.approx(TAIL, rel=1e-12)
    assert np.allclose(np.divide(tails, tails[-1]), np.divide(SHARES, SHARES[-1])[-len(seeds) :])


@pytest.mark.parametrize(("tail", "seeds"), [(0.025, 6), (0.015, 7), (0.005, 8)])
def test_how_many_must_agree_follows_from_the_tail(tail: float, seeds: int) -> None:
    assert agreeing(tail) == seeds
    assert 0.5**seeds <= tail < 0.5 ** (seeds - 1)


# --- the first look that decides


@pytest.mark.parametrize("at", [0.0, 3.0])
def test_the_first_look_that_decides_does_and_later_networks_change_nothing(at: float) -> None:
    early = spread(4, at, 0.1)
    found = judged(claim(), table_of([*early, *spread(36, 5.0)]))
    alone = judged(claim(), table_of(early))
    expected = Verdict.REPRODUCED if at == 0 else Verdict.NOT_REPRODUCED
    assert (found.verdict, found.look, found.seeds) == (expected, 1, 4)
    assert (found.value, found.low, found.high, found.samples, found.reason) == (
        alone.value, alone.low, alone.high, alone.samples, alone.reason,
    )  # fmt: skip
    assert found.reason.startswith("look 1 of 3 (4 seeds): ")


@pytest.mark.parametrize("estimate", [{"metric": "x"}, {"function": "mean"}])
def test_each_look_has_the_interval_of_its_share(estimate: dict[str, Any]) -> None:
    x = spread(40, 1.0, 1.0)  # at the end of the region: open at each look
    one = claim(estimate=estimate)
    for look, (n, tail) in enumerate(zip(LOOKS.seeds, LOOKS.tails, strict=True), start=1):
        found = judged(one, table_of(x[:n]))
        samples = [float(np.delete(x[:n], i).mean()) for i in range(n)]
        assert (found.look, found.seeds) == (look, n)
        assert (found.low, found.high) == pytest.approx(jackknife(float(x[:n].mean()), samples, tail))
        assert found.verdict is Verdict.INCONCLUSIVE


def test_an_open_claim_says_what_the_next_look_needs() -> None:
    first = judged(claim(), table_of(spread(11, 1.0)))
    assert (first.look, first.seeds, first.more_seeds) == (1, 4, 8)
    assert first.reason.startswith("look 1 of 3 (4 seeds): ")
    assert first.reason.endswith("partly inside [-1, 1]; look 2 needs 8 more seeds")
    last = judged(claim(), table_of(spread(50, 1.02, 0.3)[:40]))
    assert (last.look, last.seeds) == (3, 40)
    assert last.more_seeds is not None
    assert last.reason.endswith(f"; limit reached; about {last.more_seeds} more seeds would decide")


def test_before_the_first_look_nothing_is_judged() -> None:
    found = judged(claim(), table_of(spread(3)))
    assert (found.verdict, found.look, found.seeds, found.more_seeds) == (Verdict.INCONCLUSIVE, 0, 3, 1)
    assert math.isnan(found.value)
    assert found.reason == "look 1 of 3 needs 4 seeds of each network that the claim reads; there are 3"


def test_each_claim_is_judged_on_the_seeds_of_its_own_rows() -> None:
    part = ["a"] * 12 + ["b"] * 4
    table = table_of([*spread(12, 1.0), *spread(4, 0.0, 0.1)], [*range(12), *range(4)], part=part)
    of_a, of_b = ({"metric": "x", "at": {"part": p}} for p in "ab")
    assert judged(claim(estimate=of_a), table).look == 2
    assert judged(claim(estimate=of_b), table).verdict is Verdict.REPRODUCED
    both = judged(claim(estimate={"function": "mean"}), table)
    assert (both.look, both.seeds, both.more_seeds) == (1, 4, 8)
    of_rows = judged(claim(estimate={"function": "only_a", "rows": "part == 'a'"}), table)
    assert (of_rows.look, of_rows.seeds) == (2, 12)


def test_the_first_seeds_are_the_first_of_those_there_are() -> None:
    x = spread(4, 0.0, 0.1)
    table = table_of([9.0, *x, 9.0], [99, 20, 3, 7, 11, 50])
    found = judged(claim(), table, Looks([4]))
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert (found.seeds, found.look) == (4, 1)


def test_exact_theory_is_decided_at_the_first_look() -> None:
    found = judged(claim(estimate={"function": "exactly", "args": {"value": 0.5}}), table_of([1.0]))
    assert (found.verdict, found.look, found.seeds) == (Verdict.REPRODUCED, 1, 0)
    assert found.reason == "0.5 lies inside [-1, 1]"


@pytest.mark.parametrize(
    ("needed", "seeds", "p", "verdict", "look"),
    [
        (4, 4, 0.001, Verdict.NOT_REPRODUCED, 1),
        (10, 11, 0.001, Verdict.INCONCLUSIVE, 1),
        (10, 12, 0.001, Verdict.NOT_REPRODUCED, 2),
        (10, 12, 0.5, Verdict.REPRODUCED, 2),
        (50, 39, 0.001, Verdict.INCONCLUSIVE, 2),
        (50, 40, 0.001, Verdict.NOT_REPRODUCED, 3),
        (50, 40, 0.5, Verdict.INCONCLUSIVE, 3),
    ],
)
def test_a_fit_is_tested_once(needed: int, seeds: int, p: float, verdict: Verdict, look: int) -> None:
    parts = {"bound": {"at_least": 0.01, "rule": "r"}, "power": {"seeds": needed, "rule": "r"}}
    found = judged(
        claim("fit", {"function": "p_value"}, **parts), pd.DataFrame({"seed": range(seeds), "p": p})
    )
    assert (found.verdict, found.look) == (verdict, look)


def test_without_looks_all_seeds_are_judged_at_once() -> None:
    found = judged(claim(), table_of(spread(40, 0.0, 0.1)), looks=None)
    assert (found.verdict, found.look, found.seeds) == (Verdict.REPRODUCED, None, 40)
    assert not found.reason.startswith("look")


def test_seeds_that_agree_need_as_many_as_the_look_says() -> None:
    table = table_of(np.zeros(12)).assign(loss=np.arange(12.0))
    first = judged(claim(), table[:7], Looks([7, 12, 40]))
    assert (first.verdict, first.more_seeds) == (Verdict.INCONCLUSIVE, 5)
    assert "all 7 seeds give 0" in first.reason
    second = judged(claim(), table, Looks([7, 12, 40]))
    assert (second.verdict, second.look) == (Verdict.REPRODUCED, 2)


# --- what the published number leaves open


eighths = st.integers(-24, 24).map(lambda n: n / 8)
sizes = st.integers(1, 16).map(lambda n: n / 8)


@given(eighths, st.integers(0, 16), sizes, eighths, sizes)
@settings(steady, max_examples=300)
def test_undecidable_is_open_at_every_value_of_our_interval(
    start: float, length: int, half: float, low: float, width: float
) -> None:
    # verdicts change only at eighths: all values in between are like those in the middle
    tried = [start + n / 16 for n in range(2 * length + 1)]
    region = (low, low + width)
    verdicts = {verdict_of((value - half, value + half), region) for value in tried}
    undecidable = is_undecidable((tried[0], tried[-1]), half, region)
    assert undecidable == (verdicts == {Verdict.INCONCLUSIVE})


def test_without_a_published_error_nothing_is_undecidable() -> None:
    assert not is_undecidable((1.0, 1.0), 0.0, (0.0, 1.0))
    assert judged(claim(), table_of(spread(40, 1.0, 1e-9))).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("looks", [None, LOOKS, Looks([40])])
@pytest.mark.parametrize("margin", [1.0, None])
def test_what_only_the_published_number_could_decide_is_undecidable(
    looks: Looks | None, margin: float | None
) -> None:
    one, value = published(0.5, margin), 0.9
    found = judged(one, table_of(spread(40, value, 0.01)), looks)
    tail = looks.tails[-1] if looks else TAIL
    assert found.verdict is Verdict.UNDECIDABLE
    assert found.more_seeds is None
    needed = found.needed_half_width
    assert needed is not None
    assert needed == pytest.approx(needed_half_width(one, found.value, tail))
    for factor, decides in ((0.98, True), (1.02, False)):
        other = published(needed * factor, margin)
        half = z_quantile(tail) / z_quantile() * needed * factor
        verdict = verdict_of((found.value - half, found.value + half), other.region)
        assert (verdict is not Verdict.INCONCLUSIVE) == decides
    assert f"below ±{needed:.2g} would" in found.reason


def test_with_few_seeds_more_may_decide() -> None:
    found = judged(published(0.5), table_of(spread(4, 0.9, 1.0)), None)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.more_seeds is not None
    assert found.reason.endswith("would show that it cannot be decided")
    enough = 4 + found.more_seeds
    assert judged(published(0.5), table_of(spread(enough, 0.9, 1.0)), None).verdict is Verdict.UNDECIDABLE
    assert (
        judged(published(0.5), table_of(spread(enough - 1, 0.9, 1.0)), None).verdict is Verdict.INCONCLUSIVE
    )


def test_no_later_look_decides_what_an_earlier_one_finds_undecidable() -> None:
    """The half width of the last look, the smallest, is what counts at all of them."""
    at_first, at_last = (z_quantile(tail) * 0.1 for tail in (LOOKS.tails[0], LOOKS.tails[-1]))
    value = 1.0 - (at_first + at_last) / 2  # open with the first half width, decided with the last
    one = published(z_quantile() * 0.1)
    x = spread(40, value, 1e-6)
    found = judged(one, table_of(x))
    assert (found.verdict, found.look) == (Verdict.REPRODUCED, 3)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ({"sd": 1.0, "n": 5}, 385),
        ({"sd": 1.0, "n": 5, "reading_error": 0.05}, 513),
        ({"sd": 1.0, "n": 5, "reading_error": 0.2}, None),
        ({"reading_error": 0.2}, None),
    ],
)
def test_how_many_published_networks_would_decide(number: dict[str, Any], expected: int | None) -> None:
    one = published(**number)
    needed = needed_half_width(one, 0.9)
    assert needed == pytest.approx(0.1)
    assert published_networks(one, 0.1) == expected
    found = judged(one, table_of(spread(40, 0.9, 1e-4)), None)
    assert found.verdict is Verdict.UNDECIDABLE
    if expected is not None:
        assert f"about {expected} published networks instead of 5" in found.reason


# --- rows and groups


def parts_table(seeds: int = 6) -> pd.DataFrame:
    rows = [(part, m, seed) for part in "ab" for seed in range(seeds) for m in (1, 2)]
    table = pd.DataFrame(rows, columns=["part", "m", "seed"])
    return table.assign(x=np.random.default_rng(1).normal(size=len(table)))


@pytest.mark.parametrize(
    ("estimate", "wanted"),
    [
        ({"metric": "x"}, lambda t: t["m"] > 0),
        ({"metric": "x", "at": {"part": "a", "m": 2}}, lambda t: (t["part"] == "a") & (t["m"] == 2)),
        ({"function": "mean"}, lambda t: t["m"] > 0),
        ({"function": "mean", "rows": "part == 'b' and m > 1"}, lambda t: (t["part"] == "b") & (t["m"] > 1)),
        ({"function": "exactly", "args": {"value": 1.0}}, lambda t: t["m"] < 0),
    ],
)
def test_the_rows_that_a_claim_reads(estimate: dict[str, Any], wanted: Any) -> None:
    table = parts_table()
    mask = reads(claim(estimate=estimate), code, table.drop(columns="x"))
    assert mask.tolist() == wanted(table).tolist()
    # a claim's outcome does not depend on others
    other = table.assign(x=table["x"].where(mask, 99.0))
    one, two = (evaluate({"c": claim(estimate=estimate)}, code, t)["c"] for t in (table, other))
    assert (one.value, one.samples) == (two.value, two.samples)


@pytest.mark.parametrize("query", ["depth > 1", "m > 7", "m + 1"])
def test_rows_that_are_none_are_refused(query: str) -> None:
    with pytest.raises(ValueError, match=r"columns are part, m$|holds for no row|is not a condition"):
        holds(query, parts_table())


def test_groups_are_averaged_and_an_incomplete_one_is_left_out() -> None:
    x = np.random.default_rng(2).normal(size=23)
    one = claim(estimate={"function": "largest", "group": 5})
    found = judged(one, table_of(x), None)
    groups = x[:20].reshape(4, 5).max(axis=1)
    assert found.value == pytest.approx(groups.mean())
    assert found.samples == pytest.approx([np.delete(groups, i).mean() for i in range(4)])
    assert (found.low, found.high) == pytest.approx(jackknife(found.value, found.samples))
    assert found.seeds == 20


def test_groups_are_of_consecutive_seeds_whatever_the_order_of_rows() -> None:
    table = parts_table(10)
    one = claim(estimate={"function": "largest", "group": 5})
    shuffled = table.sample(frac=1, random_state=0)
    assert judged(one, shuffled, None).samples == judged(one, table, None).samples


@pytest.mark.parametrize(("seeds", "first"), [(9, 5), (4, 4)])
def test_a_single_group_is_judged_by_its_seeds(seeds: int, first: int) -> None:
    """As in a run of the published size, which has just one group."""
    one = judged(claim(estimate={"function": "largest", "group": 5}), table_of(spread(seeds)), None)
    without = judged(claim(estimate={"function": "largest"}), table_of(spread(seeds)[:first]), None)
    assert (one.value, one.samples, one.seeds) == (without.value, without.samples, first)


def test_a_group_counts_as_one_unit_of_a_fraction() -> None:
    bound = {"bound": {"at_least": 0.5, "rule": "r"}}
    x = np.ones(60)
    once = judged(claim("fraction", {"function": "positive", "group": 10}, **bound), table_of(x), None)
    six = judged(claim("fraction", {"function": "positive"}, **bound), table_of(x[:6]), None)
    assert (once.value, once.low, once.high) == (six.value, six.low, six.high)
    assert 0 <= once.low < 1


def test_more_seeds_of_groups_are_whole_groups() -> None:
    one = claim(estimate={"function": "mean", "group": 5})
    found = judged(one, table_of(np.random.default_rng(3).normal(0.9, 1, 30)), None)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.more_seeds is not None
    assert found.more_seeds % 5 == 0


@pytest.mark.parametrize("values", ["float64", "float32", "int64", "bool"])
@pytest.mark.parametrize(("seeds", "rows"), [(2, 1), (7, 3), (160, 1), (33, 16)])
def test_means_without_each_seed_are_those_one_by_one_to_the_bit(values: str, seeds: int, rows: int) -> None:
    generator = np.random.default_rng(4)
    column = (generator.normal(size=seeds * rows) * 100).astype(values)
    seed = generator.permutation(np.repeat(np.arange(seeds), rows))
    part = Part(pd.DataFrame({"seed": seed, "x": column}))
    means = part.means_without_each("x")
    assert means is not None
    assert means.tolist() == [float(np.mean(column[seed != one])) for one in range(seeds)]


TEXT = """\
claims:
  first:
    statement: s
    kind: theory
    source: {{paper: someone2020, where: figure 1, read_by: text}}
    theory: {{value: 0.0}}
    estimate: {estimate}
    margin: {{value: 1.0, rule: r}}
"""


@pytest.mark.parametrize(
    ("estimate", "message"),
    [
        ("{metric: x, rows: m == 1}", "7: claims.first.estimate: rows cannot be combined with metric"),
        ("{metric: x, group: 5}", "7: claims.first.estimate: group cannot be combined with metric"),
        ("{function: mean, group: 0}", "7: claims.first.estimate.group: input should be greater than 0"),
        ("{function: mean, rows: seed < 5}", "7: claims.first.estimate.rows: rows cannot select seeds"),
        ("{function: mean, rows: 'm =='}", "7: claims.first.estimate.rows: 'm ==': invalid syntax"),
        ("{function: mean, rows: f(m)}", "7: claims.first.estimate.rows: call is not allowed"),
        (
            "{function: exactly, args: {value: 1.0}, rows: m == 1}",
            r"7: claims.first.estimate.rows: needs exactly\(table, ...\)",
        ),
        (
            "{function: exactly, args: {value: 1.0}, group: 2}",
            r"7: claims.first.estimate.group: needs exactly\(table, ...\)",
        ),
    ],
)
def test_keys_that_do_not_fit(tmp_path: Path, estimate: str, message: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(TEXT.format(estimate=estimate))
    with pytest.raises(InputError, match=rf"^{path}:{message}") as error:
        load_claims(path, code)
    assert "\n" not in str(error.value)


def test_a_mean_of_p_values_is_refused() -> None:
    parts = {"bound": {"at_least": 0.01, "rule": "r"}, "power": {"seeds": 2, "rule": "r"}}
    with pytest.raises(pydantic.ValidationError, match="kind fit cannot be combined with"):
        claim("fit", {"function": "p_value", "group": 2}, **parts)
