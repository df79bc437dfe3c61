"""Tests of verdicts/record.py: what a record keeps, and which differences from it are reported."""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.specs.find import RESTORE
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
    took = {"full": 123.4, "full-no_l1": 3.7}
    records = {"full": record_of(outcomes, controls=controls, core_s=took), "quick": record_of({})}
    record.save(path, records)
    loaded = record.load(path)
    # NaN is not equal to itself
    assert repr(loaded) == repr(records)
    assert loaded["full"].claims["alone"].low == -math.inf
    path.write_text(re.sub(r" *core_s: .*\n", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    assert record.load(path)["full"].core_s == {}  # as in older records
    assert [change.claim for change in differences(loaded["full"], outcomes, controls, 1)] == ["bad"]


def record_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_saving_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "result.record.yaml"
    record.save(path, {"full": record_of({"c": mean_of(np.random.default_rng(0).normal(size=10))})})
    assert record_files(tmp_path) == ["result.record.yaml", "result.samples.parquet"]
    first = path.read_text()
    assert first.startswith("# Written by `replicate record`, never by hand.\n")
    # the same samples as another version of pyarrow would write them
    samples = tmp_path / "result.samples.parquet"
    pq.write_table(pq.read_table(samples).replace_schema_metadata(), samples, compression="none")
    other = samples.read_bytes()
    record.save(path, record.load(path))
    assert (path.read_text(), samples.read_bytes()) == (first, other)
    assert record_files(tmp_path) == ["result.record.yaml", "result.samples.parquet"]


@pytest.mark.filterwarnings("ignore:.*infer_string")
@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("read", [True, False])
def test_pandas_kinds_of_text_are_one(tmp_path: Path, written: bool, read: bool) -> None:
    """A setting, or a variable of the environment, makes texts Python's objects."""
    path = tmp_path / "result.record.yaml"
    records = {"full": record_of({"c": mean_of([1.0, 2.0, 4.0])}), "quick": record_of({"d": outcome(1.0)})}
    for kept in (records, {"quick": records["quick"]}):
        with pd.option_context("future.infer_string", written):
            record.save(path, kept)
        with pd.option_context("future.infer_string", read):
            assert record.load(path) == kept


def test_the_same_record_is_the_same_bytes(tmp_path: Path) -> None:
    records = {"full": record_of({"c": mean_of([1.0, 2.0, 4.0])}), "quick": record_of({"d": outcome(1.0)})}
    for name in ("a", "b"):
        record.save(tmp_path / name / "result.record.yaml", records)
    for name in record_files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_claim_is_a_line(tmp_path: Path) -> None:
    """Its samples, of which there may be thousands, are elsewhere."""
    path = tmp_path / "result.record.yaml"
    name = "agreement_of_three_features_on_the_boundaries"
    worst = outcome(-1.23456e-05, [-1.1e-05] * 999, Verdict.NOT_REPRODUCED, (-1.34567e-05, -1.12345e-05))
    record.save(path, {"full": record_of({name: worst, "b": outcome(1.0)})})
    *_, first, second, _ = path.read_text().splitlines()
    expected = "{verdict: not reproduced, value: -1.23456e-05, low: -1.34567e-05, high: -1.12345e-05}"
    assert first == f"      {name}: {expected}"
    assert second == "      b: {verdict: reproduced, value: 1.0, low: 0.9, high: 1.1}"


names = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def claims(draw: st.DrawFn) -> RecordedClaim:
    """Any that a record may hold."""
    verdict = draw(st.sampled_from(Verdict))
    if verdict is Verdict.INVALID:
        any_number = st.floats()
        value, low, high = draw(any_number), draw(any_number), draw(any_number)
        return RecordedClaim(
            verdict=verdict, value=value, low=low, high=high, samples=draw(st.lists(any_number))
        )
    number = st.floats(-1e300, 1e300)
    low, value, high = sorted([draw(number), draw(number), draw(number)])
    if verdict is Verdict.INCONCLUSIVE and draw(st.booleans()):
        low, high = -math.inf, math.inf
    samples = draw(st.lists(number).filter(lambda numbers: len(numbers) != 1))
    return RecordedClaim(verdict=verdict, value=value, low=low, high=high, samples=samples)


@given(st.dictionaries(names, st.dictionaries(names, claims(), max_size=4), max_size=3))
@steady
def test_any_record_that_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, profiles: dict[str, dict[str, RecordedClaim]]
) -> None:
    path = tmp_path_factory.mktemp("record") / "result.record.yaml"
    records = {name: record_of({}).model_copy(update={"claims": own}) for name, own in profiles.items()}
    record.save(path, records)
    assert repr(record.load(path)) == repr(records)


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


def killed(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize("there", [False, True])
def test_a_save_that_fails_changes_neither_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, whole: int
) -> None:
    path = tmp_path / "result.record.yaml"
    if there:
        record.save(path, {"full": record_of({"c": mean_of([1.0, 2.0, 4.0])})})
    before = {name: (tmp_path / name).read_bytes() for name in record_files(tmp_path)}
    _after(whole, "write_bytes", full_disk, monkeypatch)
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be written: No space left on device"):
        record.save(path, {"quick": record_of({"c": mean_of([1.0, 2.0, 3.0])})})
    monkeypatch.undo()
    assert {name: (tmp_path / name).read_bytes() for name in record_files(tmp_path)} == before


def test_a_save_that_is_stopped_between_the_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, samples = tmp_path / "result.record.yaml", tmp_path / "result.samples.parquet"
    first, second = ({"full": record_of({"c": mean_of([1.0, 2.0, x])})} for x in (4.0, 3.0))

    def stopped(renamed: int, records: dict[str, Record]) -> None:
        with monkeypatch.context() as patch:
            _after(renamed, "replace", killed, patch)
            with pytest.raises(KeyboardInterrupt):
                record.save(path, records)

    stopped(0, first)
    assert record.load(path) == {}
    stopped(1, first)
    with pytest.raises(InputError, match=f"^{samples}: samples without their record: no {path.name}"):
        record.load(path)
    record.save(path, first)
    stopped(0, second)
    assert record.load(path) == first
    stopped(1, second)
    said = f"^{samples}: its samples of the profile 'full' do not match the digest in {path.name}; "
    with pytest.raises(InputError, match=said):
        record.load(path)
    record.save(path, second)
    assert record.load(path) == second
    assert len(record_files(tmp_path)) == 2


def _after(times: int, method: str, breaks: Callable[..., None], patch: pytest.MonkeyPatch) -> None:
    """Let a method of paths do its work so many times, and then break."""
    left, works = [None] * times, getattr(Path, method)
    patch.setattr(Path, method, lambda *a: (left.pop() or works if left else breaks)(*a))


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
        Change("gone", "missing: it is in the record, but was not judged"),
        Change("came", "new: reproduced, not in the record"),
    ]


@pytest.mark.parametrize("old", Verdict)
@pytest.mark.parametrize("new", Verdict)
def test_a_verdict_that_changed_either_way(old: Verdict, new: Verdict) -> None:
    changes = compared(outcome(1.0, verdict=old), outcome(1.0, verdict=new))
    expected = [] if old is new else [Change("c", f"verdict changed from {old} to {new}: because")]
    if old is new is Verdict.INVALID:  # nothing was judged
        expected = [Change("c", "invalid, as in the record: because")]
    assert changes == expected


@pytest.mark.parametrize("old", Verdict)
@pytest.mark.parametrize("new", Verdict)
def test_chance_explains_a_step_to_or_from_inconclusive_by_other_networks(old: Verdict, new: Verdict) -> None:
    x = np.random.default_rng(1).normal(1.0, 0.1, 10)
    was, near, far = (mean_of(y) for y in (x, [*x[:-1], x[-1] + 0.01], x + 1.0))
    one_step = {
        frozenset({between, other})
        for between in (Verdict.INCONCLUSIVE, Verdict.UNDECIDABLE)
        for other in Verdict
        if other not in (between, Verdict.INVALID)
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


def save_unchecked(path: Path, **changes: Any) -> None:
    """Write a record of the claim `x`, whatever numbers it gets."""
    parts = {"verdict": Verdict.REPRODUCED, "value": 1.0, "low": 0.9, "high": 1.1, "samples": [1.0, 1.1, 0.9]}
    claim = RecordedClaim.model_construct(**{**parts, **changes})
    record.save(path, {"full": record_of({}).model_copy(update={"claims": {"x": claim}})})


@pytest.mark.parametrize(
    "changes",
    [
        {"value": math.nan},
        {"value": math.inf},
        {"samples": [1.0]},
        {"samples": [1.0, math.nan]},
        {"samples": [1.0, -math.inf, 1.0]},
        {"low": -math.inf},
        {"high": math.inf},
        {"low": -math.inf, "high": math.inf},
        {"low": math.nan},
        {"low": -1e308, "high": 1e308},
        {"low": 2.0, "high": 3.0},
        {"low": 1.1, "high": 0.9},
        {"samples": [], "value": math.nan},
    ],
)
def test_a_record_that_compares_with_nothing_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "result.record.yaml"
    save_unchecked(path)
    assert record.load(path)["full"].claims["x"].value == 1
    save_unchecked(path, **changes)
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if text.strip().startswith("x:"))
    with pytest.raises(InputError, match=rf"^{path}:{line}: .*; restore .*`replicate record`") as raised:
        record.load(path)
    assert "\n" not in str(raised.value)


# --- samples that are not those of the record


def _table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Damage by which the file is a sound one of another table."""

    def damage(samples: Path) -> None:
        change(pd.read_parquet(samples)).to_parquet(samples, index=False)

    return damage


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(samples: Path) -> None:
        samples.write_bytes(change(samples.read_bytes()))

    return damage


def _missing(samples: Path) -> None:
    samples.unlink()


def _folder(samples: Path) -> None:
    samples.unlink()
    samples.mkdir()


def _link_to_nothing(samples: Path) -> None:
    samples.unlink()
    samples.symlink_to("nothing")


def _of_another_record(samples: Path) -> None:
    record.save(samples.with_name("other.record.yaml"), {"full": record_of({"mean": mean_of([1.0, 2.0])})})
    samples.with_name("other.samples.parquet").replace(samples)
    samples.with_name("other.record.yaml").unlink()


def _one_value_changed(table: pd.DataFrame) -> pd.DataFrame:
    values = table["value"].to_numpy(copy=True)
    values[1] = np.nextafter(values[1], 2.0)
    return table.assign(value=values)


def _profiles_swapped(table: pd.DataFrame) -> pd.DataFrame:
    return table.replace({"profile": {"full": "quick", "quick": "full"}})


def _more(**parts: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    row = {"profile": "full", "claim": "mean", "sample": 3, "value": 1.0, **parts}
    return lambda table: pd.concat([table, pd.DataFrame([row])])


UNREAD, OTHER = (
    "SAMPLES: cannot be read: ",
    "SAMPLES: its samples of the profile 'full' do not match the digest in",
)
COLUMNS = rf"{UNREAD}the columns are not profile \(str\), claim \(str\), sample \(int64\), value \(float64\)"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing, "RECORD: its samples are missing: no result.samples.parquet beside it"),
        (_folder, UNREAD),
        (_link_to_nothing, UNREAD),
        (_bytes(lambda data: b""), UNREAD),
        (_bytes(lambda data: data[:50]), UNREAD),
        (_bytes(lambda data: data[:-1]), UNREAD),
        (_bytes(lambda data: b"profile,claim,sample,value\nfull,mean,0,1.0\n"), UNREAD),
        (_of_another_record, OTHER),
        (_table(_one_value_changed), OTHER),
        (_table(_profiles_swapped), OTHER),
        (_table(lambda table: table.assign(value=-table["value"])), OTHER),
        (_table(lambda table: table.assign(value=np.nan)), OTHER),
        (_table(lambda table: table.assign(value=np.inf)), OTHER),
        (_table(lambda table: table[table["sample"] < 2]), OTHER),
        (_table(lambda table: table[table["claim"] != "mean"]), OTHER),
        (_table(lambda table: table[table["profile"] != "full"]), OTHER),
        (_table(lambda table: table.iloc[:0]), OTHER),
        (_table(lambda table: table.replace({"claim": {"mean": "means"}})), OTHER),
        (_table(_more()), OTHER),
        (_table(_more(claim="new", sample=0)), OTHER),
        (_table(_more(profile="long", sample=0)), "SAMPLES: has samples of the profile 'long', which result"),
        (_table(_more(profile=None)), f"{UNREAD}the samples of each claim are not numbered from 0"),
        (_table(lambda table: table.iloc[1:]), f"{UNREAD}the samples of each claim are not numbered from 0"),
        (_table(lambda table: table.iloc[::-1]), f"{UNREAD}the samples of each claim are not numbered"),
        (_table(lambda table: pd.concat([table, table])), f"{UNREAD}the samples of each claim are not"),
        (_table(lambda table: table.rename(columns={"value": "estimate"})), COLUMNS),
        (_table(lambda table: table.drop(columns="sample")), COLUMNS),
        (_table(lambda table: table.assign(seed=0)), COLUMNS),
        (_table(lambda table: table.astype({"value": "float32"})), COLUMNS),
        (_table(lambda table: table.astype({"value": "str"})), COLUMNS),
    ],
)  # fmt: skip
def test_samples_that_are_not_those_of_the_record_are_told(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path, samples = tmp_path / "result.record.yaml", tmp_path / "result.samples.parquet"
    records = {
        "full": record_of({"mean": mean_of([1.0, 2.0, 4.0]), "other": mean_of([1.0, 2.0, 3.0])}),
        "quick": record_of({"mean": mean_of([1.0, 5.0, 4.0]), "theory": outcome(1.0)}),
    }
    record.save(path, records)
    damage(samples)
    message = message.replace("RECORD", str(path)).replace("SAMPLES", str(samples))
    with pytest.raises(InputError, match=f"^{message}.*; {re.escape(RESTORE)}$") as raised:
        record.load(path)
    assert "\n" not in str(raised.value)
    if not samples.is_dir():  # what is to be replaced need not be readable
        record.save(path, records)
        assert record.load(path) == records


@given(st.integers(0, 10**6), st.integers(1, 255))
@steady
def test_a_damaged_byte_is_told_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    path = tmp_path_factory.mktemp("record") / "result.record.yaml"
    records = {"full": record_of({"mean": mean_of([1.0, 2.0, 4.0])})}
    record.save(path, records)
    samples = path.with_name("result.samples.parquet")
    data = bytearray(samples.read_bytes())
    data[place % len(data)] ^= change
    samples.write_bytes(data)
    with suppress(InputError):
        assert record.load(path) == records


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mean:", "means:", r"\d+: profiles\.full\.claims: no claim 'mean', though result\.samples\.parquet"),
        ("samples: ", "samples: 0", r"? its samples of the profile 'full' do not match the digest in"),
        ("    samples: ", "    # ", r"\d+: profiles\.full\.samples: missing key"),
        ("high: 3.0}", "high: 3.0, samples: [1.0]}", r"\d+: this record has an older format, which"),
        ("high: 3.0}", "high: 3.0, samples: []}", r"\d+: this record has an older format, which"),
    ],
)  # fmt: skip
def test_a_record_that_is_not_that_of_its_samples_is_told(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "result.record.yaml"
    mean = replace(mean_of([1.0, 2.0, 3.0]), low=1.0, high=3.0)
    record.save(path, {"full": record_of({"mean": mean})})
    text = path.read_text()
    head, body = text.split("profiles:\n")
    assert old in body
    path.write_text(f"{head}profiles:\n{body.replace(old, new, 1)}")
    with pytest.raises(InputError, match=rf"^{tmp_path}/result\.(record\.yaml|samples\.parquet):{message}"):
        record.load(path)


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
        ({"samples": [1e308, -1e308] * 5}, "samples spread wider than its interval"),
        ({"samples": [0.0, 10.0] * 5}, "samples spread wider than its interval"),
        ({"samples": [0.1]}, "the record has 1 sample, but this run has 10"),
        ({"samples": [0.1, 0.1]}, "the record has 2 samples, but this run has 10"),
        ({"samples": []}, "the record has 0 samples, but this run has 10"),
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
    expected = [Change("no_l1: b", f"{verdict}, though the control must fail this claim")]
    assert differences(record_of({}, controls=controls), {}, controls, 1) == expected


def test_a_control_that_was_not_run() -> None:
    old = record_of({}, controls={"no_l1": {"a": Verdict.NOT_REPRODUCED}})
    expected = [Change("no_l1: a", "missing: this control is in the record, but was not run")]
    assert differences(old, {}, {}, 1) == expected
    assert differences(old, {}, {"no_l1": {}}, 1) == expected


@pytest.mark.parametrize("verdict", Verdict)
def test_failures_need_an_explanation(verdict: Verdict) -> None:
    records = {"full": record_of({"c": outcome(1.0, verdict=verdict)})}
    expected = [Change("c", f"recorded as {verdict}, but `investigated` does not say why")]
    needs_none = verdict in (Verdict.REPRODUCED, Verdict.UNDECIDABLE)
    assert uninvestigated(records, {"c": CLAIM}) == ([] if needs_none else expected)
    assert not uninvestigated(records, {"c": EXPLAINED})
    # other profiles may be too small to decide, and a claim without a record is reported as new
    assert not uninvestigated({"quick": records["full"]}, {"c": CLAIM})
    assert not uninvestigated(records, {"other": CLAIM})


def test_a_recorded_claim_is_frozen() -> None:
    kept: RecordedClaim = recorded(outcome(1.0))
    with pytest.raises(ValueError, match="frozen"):
        kept.value = 2.0
