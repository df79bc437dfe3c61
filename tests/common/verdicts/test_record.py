"""Tests of verdicts/record.py: what a record keeps, and which differences from it are reported."""

import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.verdicts import record
from common.verdicts.claims import Claim, Verdict
from common.verdicts.evaluate import Outcome, evaluate
from common.verdicts.record import Change, Record, RecordedClaim, differences, recorded, uninvestigated

steady = settings(derandomize=True, deadline=None, database=None)

CLAIM = Claim.model_validate(
    {
        "statement": "s",
        "kind": "theory",
        "source": {"paper": "someone2020", "where": "figure 1", "read_by": "text"},
        "estimate": {"metric": "x"},
        "theory": {"value": 0.0},
        "margin": {"value": 1.0, "rule": "r"},
    }
)
EXPLAINED = CLAIM.model_copy(update={"investigated": "the paper's law holds only for many features"})


def outcome(
    value: float,
    samples: list[float] | None = None,
    verdict: Verdict = Verdict.REPRODUCED,
    ends: tuple[float, float] | None = None,
) -> Outcome:
    low, high = ends or (value - 0.1, value + 0.1)
    return Outcome("c", CLAIM, value, low, high, (-1.0, 1.0), samples or [], verdict, None, "because")


def mean_of(x: Any) -> Outcome:
    x = np.asarray(x)
    return outcome(float(x.mean()), [float(v) for v in (x.sum() - x) / (len(x) - 1)])


def record_of(outcomes: dict[str, Outcome], **parts: Any) -> Record:
    return Record(
        hash="12ab",
        versions={"torch": "2.13.0", "python": "3.11"},
        device="cpu",
        commit="0a1b2c3",
        date="2026-01-31",
        claims={name: recorded(result) for name, result in outcomes.items()},
        **parts,
    )


def compared(old: Outcome, new: Outcome, n_claims: int = 1) -> list[Change]:
    return differences(record_of({"c": old}), {"c": new}, {}, n_claims)


INVALID = outcome(math.nan, verdict=Verdict.INVALID)
ONE_SEED = outcome(1.0, verdict=Verdict.INCONCLUSIVE, ends=(-math.inf, math.inf))


# --- the file


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert record.load(tmp_path / "result.record.yaml") == {}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "result.record.yaml"
    outcomes = {"mean": mean_of([1.0, 2.0, 4.0]), "theory": outcome(1e-7), "bad": INVALID, "alone": ONE_SEED}
    controls = {"no_l1": {"mean": Verdict.NOT_REPRODUCED}}
    records = {"full": record_of(outcomes, controls=controls), "quick": record_of({})}
    record.save(path, records)
    loaded = record.load(path)
    # NaN is not equal to itself
    assert repr(loaded) == repr(records)
    assert loaded["full"].claims["alone"].low == -math.inf
    assert [change.claim for change in differences(loaded["full"], outcomes, controls, 1)] == ["bad"]


def test_saving_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "result.record.yaml"
    record.save(path, {"full": record_of({"c": mean_of(np.random.default_rng(0).normal(size=10))})})
    first = path.read_text()
    assert first.startswith("# Written by `replicate record`, never by hand.\n")
    record.save(path, record.load(path))
    assert path.read_text() == first
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_numbers_have_six_digits() -> None:
    kept = recorded(outcome(math.pi, [1e-9 / 3, -2e9 / 3]))
    assert (kept.value, kept.samples) == (3.14159, [3.33333e-10, -666667000.0])


@given(st.text("0123456789eE+-._:abnoxyZT", min_size=1))
@example("123e456")
@steady
def test_text_stays_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """A commit or hash such as 123e456 looks like a number."""
    path = tmp_path_factory.mktemp("record") / "result.record.yaml"
    records = {"full": record_of({}).model_copy(update={"commit": text, "versions": {text: text}})}
    record.save(path, records)
    assert record.load(path) == records


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.record.yaml"
    record.save(path, {"full": record_of({})})

    def stopped(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        record.save(path, {"quick": record_of({})})
    assert list(record.load(path)) == ["full"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles: [", "1: not YAML: .*"),
        ("", "1: expected a mapping of keys to values"),
        ("profiles:\n  full: {hash: a}", r"2: profiles\.full\.versions: missing key"),
        ("profiles: {}\nclaims: {}", "2: claims: unknown key; valid: profiles"),
    ],
)
def test_a_malformed_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "result.record.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"record.yaml:{message}"):
        record.load(path)


def test_an_unknown_verdict(tmp_path: Path) -> None:
    path = tmp_path / "result.record.yaml"
    record.save(path, {"full": record_of({"c": outcome(1.0)})})
    path.write_text(path.read_text().replace("verdict: reproduced", "verdict: fine"))
    with pytest.raises(
        InputError, match=r"claims\.c\.verdict: input should be 'reproduced', .* or 'invalid', got 'fine'"
    ):
        record.load(path)


# --- differences


def test_no_difference() -> None:
    for same in (mean_of([1.0, 2.0, 4.0]), outcome(0.0), outcome(1 / 3), ONE_SEED):
        assert not compared(same, same)


def test_no_record_makes_everything_new() -> None:
    controls = {"no_l1": {"c": Verdict.NOT_REPRODUCED}}
    assert differences(None, {"c": outcome(1.0)}, controls, 1) == [
        Change("c", "new: reproduced, not in the record"),
        Change("no_l1: c", "new: this control is not in the record"),
    ]


def test_claims_that_came_and_went() -> None:
    old = record_of({"gone": outcome(1.0), "kept": outcome(1.0)})
    assert differences(old, {"kept": outcome(1.0), "came": outcome(1.0)}, {}, 3) == [
        Change("gone", "vanished: it is in the record, but was not evaluated"),
        Change("came", "new: reproduced, not in the record"),
    ]


@pytest.mark.parametrize("old", Verdict)
@pytest.mark.parametrize("new", Verdict)
def test_a_verdict_that_changed_either_way(old: Verdict, new: Verdict) -> None:
    changes = compared(outcome(1.0, verdict=old), outcome(1.0, verdict=new))
    expected = [] if old is new else [Change("c", f"verdict changed from {old} to {new}: because")]
    if old is new is Verdict.INVALID:  # nothing was judged
        expected = [Change("c", "invalid, as recorded: because")]
    assert changes == expected


@pytest.mark.parametrize("old", Verdict)
@pytest.mark.parametrize("new", Verdict)
def test_chance_explains_a_step_to_or_from_inconclusive_by_other_networks(old: Verdict, new: Verdict) -> None:
    x = np.random.default_rng(1).normal(1.0, 0.1, 10)
    was, near, far = (mean_of(y) for y in (x, [*x[:-1], x[-1] + 0.01], x + 1.0))
    one_step = {
        frozenset({Verdict.INCONCLUSIVE, other}) for other in (Verdict.REPRODUCED, Verdict.NOT_REPRODUCED)
    }
    for now, expected in ((near, {old, new} in one_step), (far, False), (was, False)):
        changes = compared(replace(was, verdict=old), replace(now, verdict=new))
        assert [change.by_chance for change in changes] == (
            [] if old is new and now is not far and new is not Verdict.INVALID else [expected]
        )


@pytest.mark.parametrize("value", [0.0, 1e-7, 1.234564999, 4e8])
def test_an_exact_value_moves_by_its_rounding_only(value: float) -> None:
    assert not compared(outcome(value), outcome(value * (1 + 1e-6)))
    assert not compared(outcome(value), outcome(value + 1e-10))
    (change,) = compared(outcome(value), outcome(value * 1.0001 + 1e-8))
    assert change.problem.startswith("value moved from ")


def test_a_value_that_moved() -> None:
    x = np.random.default_rng(1).normal(1.0, 0.1, 10)
    assert not compared(mean_of(x), mean_of(x + 0.05))
    (change,) = compared(mean_of(x), mean_of(x + 1.0))
    assert change.problem.startswith(f"value moved from {x.mean():.6g} to {x.mean() + 1:.6g}, by more than ")


def test_samples_that_vanished_are_no_licence() -> None:
    x = np.random.default_rng(1).normal(1.0, 0.1, 10)
    assert compared(mean_of(x), outcome(2.0))
    assert compared(outcome(2.0), mean_of(x))
    assert not compared(mean_of(x), outcome(float(x.mean()) + 0.01))


def test_one_seed_gives_no_spread_to_move_in() -> None:
    assert not compared(ONE_SEED, ONE_SEED)
    (change,) = compared(ONE_SEED, replace(ONE_SEED, value=1.001))
    assert change.problem.startswith("value moved from 1 to 1.001")


# --- records that would disarm the comparison


def written(value: str = "1.", low: str = ".9", high: str = "1.1", samples: str = "[1., 1.1, .9]") -> str:
    return (
        "profiles:\n  full:\n    hash: a\n    versions: {}\n    device: CPU\n    commit: b\n    date: c\n"
        f"    claims:\n      x: {{verdict: reproduced, value: {value}, low: {low}, high: {high}, "
        f"samples: {samples}}}\n"
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"value": ".nan"},
        {"value": ".inf"},
        {"samples": "[1.]"},
        {"samples": "[1., .nan]"},
        {"samples": "[1., -.inf, 1.]"},
        {"low": "-.inf"},
        {"high": ".inf"},
        {"low": "-.inf", "high": ".inf"},
        {"low": ".nan"},
        {"low": "-1e308", "high": "1e308"},
        {"low": "2.", "high": "3."},
        {"low": "1.1", "high": ".9"},
        {"samples": "[]", "value": ".nan"},
    ],
)
def test_a_record_that_compares_with_nothing_is_refused(tmp_path: Path, parts: dict[str, str]) -> None:
    path = tmp_path / "result.record.yaml"
    path.write_text(written(), encoding="utf-8")
    assert record.load(path)["full"].claims["x"].value == 1
    path.write_text(written(**parts), encoding="utf-8")
    with pytest.raises(InputError, match=rf"^{path}:9: .*; record it anew") as raised:
        record.load(path)
    assert "\n" not in str(raised.value)


X = np.random.default_rng(5).normal(0.1, 0.1, 10)


def judged(x: Any, kind: str = "theory") -> Outcome:
    """What becomes of a claim on the mean of `x`."""
    table = pd.DataFrame({"seed": range(len(x)), "x": x})
    claim = CLAIM
    if kind == "fraction":
        parts = {"kind": "fraction", "estimate": {"function": "positive"}, "theory": None, "margin": None}
        claim = Claim.model_validate({**CLAIM.model_dump(), **parts, "bound": {"at_least": 0.5, "rule": "r"}})
    code = ModuleType("replications.paper.result")
    vars(code)["positive"] = _positive
    return evaluate({"c": claim}, code, table)["c"]


def _positive(table: pd.DataFrame) -> "pd.Series[bool]":
    return table["x"] > 0


@pytest.mark.parametrize("kind", ["theory", "fraction"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_a_record_as_it_was_made_is_sound(kind: str, scale: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(0.1, 0.1, 3 + 20 * seed) * scale
    new = judged(x, kind)
    assert record.unsound(record_of({"c": new}), {"c": new}, same_hash=True) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"samples": [1e308, -1e308] * 5}, "samples spread further than its interval"),
        ({"samples": [0.0, 10.0] * 5}, "samples spread further than its interval"),
        ({"samples": [0.1]}, "the record has 1 samples, this run 10"),
        ({"samples": [0.1, 0.1]}, "the record has 2 samples, this run 10"),
        ({"samples": []}, "the record has 0 samples, this run 10"),
        ({"verdict": Verdict.NOT_REPRODUCED}, "recorded as not reproduced, which does not follow"),
        ({"verdict": Verdict.INCONCLUSIVE}, "recorded as inconclusive, which does not follow"),
        ({"low": -5.0, "high": 5.0}, "recorded as reproduced, which does not follow"),
    ],
)
def test_a_record_that_was_changed_by_hand_is_a_problem(changes: dict[str, Any], problem: str) -> None:
    new = judged(X)
    old = record_of({"c": new})
    claims = {"c": old.claims["c"].model_copy(update=changes)}
    (change,) = record.unsound(old.model_copy(update={"claims": claims}), {"c": new}, same_hash=True)
    assert problem in change.problem
    assert not change.by_chance


@pytest.mark.parametrize("n_claims", [1, 2])
def test_false_alarms_of_independent_runs_stay_in_the_budget(n_claims: int) -> None:
    """Two runs of the same normal mean: an alarm in at most .01 / n_claims of cases, and in some.

    At most, as the t quantile has the degrees of freedom of one run, not of both. False-alarm rate of this
    test: 3e-5 for the first check; for the second 5e-5, to see none of the 10 expected.
    """
    runs, rate = 6000, record.FALSE_ALARMS / n_claims
    x = np.random.default_rng(2).normal(size=(runs, 2, 10))
    alarms = sum(bool(compared(mean_of(a), mean_of(b), n_claims)) for a, b in x)
    assert alarms / runs < rate + 4 * math.sqrt(rate * (1 - rate) / runs)
    assert alarms > 0


def test_the_tolerance_grows_with_the_number_of_claims() -> None:
    x = np.random.default_rng(3).normal(1.0, 0.1, 10)
    moved = mean_of(x + 0.3)
    assert compared(mean_of(x), moved, n_claims=1)
    assert not compared(mean_of(x), moved, n_claims=1000)


@given(st.floats(-10, 10), st.floats(-10, 10), st.integers(1, 500))
@steady
def test_differences_are_symmetric(first: float, second: float, n_claims: int) -> None:
    x = np.array([-1.0, 0.0, 0.5, 1.0])
    there = compared(mean_of(x + first), mean_of(x + second), n_claims)
    back = compared(mean_of(x + second), mean_of(x + first), n_claims)
    assert bool(there) == bool(back)


# --- controls and explanations


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.NOT_REPRODUCED])
def test_a_control_must_break_its_claim(verdict: Verdict) -> None:
    controls = {"no_l1": {"a": Verdict.NOT_REPRODUCED, "b": verdict}}
    expected = [Change("no_l1: b", f"{verdict}, though the control breaks it on purpose")]
    assert differences(record_of({}, controls=controls), {}, controls, 1) == expected


def test_a_control_that_was_not_run() -> None:
    old = record_of({}, controls={"no_l1": {"a": Verdict.NOT_REPRODUCED}})
    expected = [Change("no_l1: a", "vanished: this control is in the record, but was not run")]
    assert differences(old, {}, {}, 1) == expected
    assert differences(old, {}, {"no_l1": {}}, 1) == expected


@pytest.mark.parametrize("verdict", Verdict)
def test_failures_need_an_explanation(verdict: Verdict) -> None:
    records = {"full": record_of({"c": outcome(1.0, verdict=verdict)})}
    expected = [Change("c", f"recorded as {verdict}, but `investigated` says nothing")]
    assert uninvestigated(records, {"c": CLAIM}) == ([] if verdict is Verdict.REPRODUCED else expected)
    assert not uninvestigated(records, {"c": EXPLAINED})
    # other profiles may be too small to decide, and a claim without a record is reported as new
    assert not uninvestigated({"quick": records["full"]}, {"c": CLAIM})
    assert not uninvestigated(records, {"other": CLAIM})


def test_a_recorded_claim_is_frozen() -> None:
    kept: RecordedClaim = recorded(outcome(1.0))
    with pytest.raises(ValueError, match="frozen"):
        kept.value = 2.0
