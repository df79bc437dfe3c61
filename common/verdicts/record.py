"""The reference results, `expected/<paper>/<result>.record.yaml`: read, written, compared with a run.

Their samples, which nobody reads line by line, are beside them in `<result>.samples.parquet`.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, Self, cast

import numpy as np
import pandas as pd
import yaml
from pandas.api.types import is_string_dtype
from pydantic import Field, model_validator

from common.errors import InputError, one_line
from common.specs.document import Document, Loader, Strict
from common.specs.fields import BUILT_IN
from common.specs.find import RESTORE, samples_of, without_record
from common.statistics import jackknife, jackknife_error, t_quantile, widen
from common.system.files import write_all
from common.system.text import counted
from common.verdicts.claims import Claim, Verdict
from common.verdicts.evaluate import Outcome, verdict_of

FALSE_ALARMS = 0.01
"""The probability that a run of the whole suite reports a moved value where nothing has changed."""

_OPEN = {Verdict.INCONCLUSIVE, Verdict.UNDECIDABLE}
"""The verdicts between reproduced and not reproduced: one step away from either, and from each other."""

_HEADER = """\
# Written by `replicate record`, never by hand.
# `samples` is a digest of the profile's samples, which are in RESULT.samples.parquet.
"""
_DIGITS = 6
_WIDTH = 130
"""Line width: a claim whose name has at most 45 letters fits on one line."""

_COLUMNS = {"profile": "str", "claim": "str", "sample": "int64", "value": "float64"}
"""The columns of the samples and their types; the samples of a claim are numbered from 0."""

_Samples = dict[str, list[float]]
"""The samples of one profile, by claim; claims without samples are left out."""

# a file holds the verdict as text, which a strict model would not take for a Verdict
RecordedVerdict = Annotated[Verdict, Field(strict=False)]


class RecordedClaim(Strict):
    """The outcome of one claim; `samples` are its estimates with one seed left out."""

    verdict: RecordedVerdict
    value: float
    low: float
    high: float
    samples: list[float] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_numbers(self) -> Self:
        if self.verdict is Verdict.INVALID:
            return self
        if not all(map(math.isfinite, [self.value, *self.samples])):
            raise ValueError(f"value and samples must be numbers; {RESTORE}")
        if len(self.samples) == 1:
            raise ValueError(f"a single sample has no spread; {RESTORE}")
        no_interval = math.isinf(self.low) and math.isinf(self.high) and self.verdict is Verdict.INCONCLUSIVE
        if no_interval and math.isnan(self.value) and not self.samples:
            return self  # not judged yet: its first look, or the one of a test, has not got its seeds
        if not (no_interval or (self.low <= self.value <= self.high and math.isfinite(self.high - self.low))):
            raise ValueError(f"low and high must be numbers, with value between them; {RESTORE}")
        return self


class Record(Strict):
    """The reference run of one profile: what ran, on what device, and the outcomes.

    `core_s`: the processor seconds that its networks and those of each control took, by variant, as in
    `full-no_l1`; older records have none.
    """

    hash: str
    versions: dict[str, str]
    device: str
    commit: str
    date: str
    core_s: dict[str, float] = Field(default_factory=dict)
    claims: dict[str, RecordedClaim]
    controls: dict[str, dict[str, RecordedVerdict]] = Field(default_factory=dict)


class _Profile(Record):
    """A record as in the YAML file: with a digest of its samples in place of the samples."""

    samples: str


class _RecordFile(Strict):
    profiles: dict[str, _Profile]


class Change(NamedTuple):
    """One result that differs from the record: the claim (or `control: claim`), and how it differs.

    `by_chance`: the value moved by no more than it may, and the verdict changed to or from inconclusive or
    undecidable.
    """

    claim: str
    problem: str
    by_chance: bool = False


class _Dumper(yaml.SafeDumper):
    """Quotes all text that our loader would not read as text, such as the commit 123e456."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def recorded(outcome: Outcome) -> RecordedClaim:
    """The part of `outcome` that a record keeps, rounded to its digits."""
    value, low, high, *samples = map(_rounded, [outcome.value, outcome.low, outcome.high, *outcome.samples])
    return RecordedClaim(verdict=outcome.verdict, value=value, low=low, high=high, samples=samples)


def load(path: Path) -> dict[str, Record]:
    """The records in the file `path` and its file of samples, by profile; none if there are no such files.

    Raises:
        InputError: if they are not a record, or the samples do not belong to it.
    """
    if problem := without_record(path):
        raise InputError(problem)
    if not os.path.lexists(path):
        return {}
    document = Document.load(path)
    for place, origin in document.origins.items():
        if place[2:3] == ("claims",) and place[4:] == ("samples",):
            why = "has an older format, which includes its samples"
            raise InputError(f"{origin}: this record {why}; remove the file and run `replicate record`")
    document.validate(_RecordFile)
    beside, profiles = samples_of(path), document.data["profiles"]
    if not os.path.lexists(beside):
        raise InputError(f"{path}: its samples are missing: no {beside.name} beside it; {RESTORE}")
    samples = _load_samples(beside)
    if unknown := [profile for profile in samples if profile not in profiles]:
        raise InputError(
            f"{beside}: has samples of the profile {unknown[0]!r}, which {path.name} lacks; {RESTORE}"
        )
    records = {}
    for profile, parts in profiles.items():
        own = samples.get(profile, {})
        if parts.pop("samples") != _digest(own):
            what = f"its samples of the profile {profile!r} do not match the digest in {path.name}"
            raise InputError(f"{beside}: {what}; {RESTORE}")
        for claim, values in own.items():
            if claim not in parts["claims"]:
                what = f"no claim {claim!r}, though {beside.name} has samples of it"
                raise document.error(("profiles", profile, "claims"), f"{what}; {RESTORE}")
            parts["claims"][claim]["samples"] = values
        records[profile] = document.validate(Record, parts, ("profiles", profile))
    return records


def save(path: Path, records: Mapping[str, Record]) -> None:
    """Write `records`, by profile, to the file `path` and its file of samples, both or neither.

    Samples that are already in their file are not written again: other versions of pyarrow write other bytes.
    If the process is killed between the two files, `load` reports it.
    """
    samples = {
        profile: {name: claim.samples for name, claim in record.claims.items() if claim.samples}
        for profile, record in records.items()
    }
    without = {"claims": {"__all__": {"samples"}}}
    profiles = {
        profile: {"samples": _digest(samples[profile]), **record.model_dump(mode="json", exclude=without)}
        for profile, record in records.items()
    }
    data = {"profiles": profiles}
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=_WIDTH)
    files: dict[Path, bytes | str] = {path: _HEADER + text}
    beside = samples_of(path)
    if not _holds(beside, samples):
        files = {beside: _table(samples), **files}
    write_all(files, within=path.parent)


def _table(samples: Mapping[str, _Samples]) -> bytes:
    rows = [
        (profile, claim, number, value)
        for profile, claims in samples.items()
        for claim, values in claims.items()
        for number, value in enumerate(values)
    ]
    buffer = io.BytesIO()
    pd.DataFrame(rows, columns=[*_COLUMNS]).astype(_COLUMNS).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _load_samples(path: Path) -> dict[str, _Samples]:
    """The samples in the file `path`, by profile and claim.

    Raises:
        InputError: if it is damaged.
    """
    try:
        return _by_claim(pd.read_parquet(io.BytesIO(path.read_bytes())))
    except Exception as error:  # of many classes
        raise InputError(f"{path}: cannot be read: {one_line(error)[:200]}; {RESTORE}") from None


def _by_claim(table: pd.DataFrame) -> dict[str, _Samples]:
    """The samples in a table that `_table` wrote.

    Raises:
        ValueError: if it is another table.
    """
    # pandas reads text as `str` or, depending on the user's settings, as `object`
    dtypes = ["str" if is_string_dtype(column) else str(column.dtype) for _, column in table.items()]
    if [*zip(table, dtypes, strict=True)] != [*_COLUMNS.items()]:
        raise ValueError(f"the columns are not {', '.join(f'{n} ({t})' for n, t in _COLUMNS.items())}")
    by_claim = table.groupby(["profile", "claim"], sort=False)
    if not (table["sample"] == by_claim.cumcount()).all():
        raise ValueError("the samples of each claim are not numbered from 0")
    samples: dict[str, _Samples] = {}
    for key, values in by_claim["value"]:
        profile, claim = cast(tuple[str, str], key)
        samples.setdefault(profile, {})[claim] = values.tolist()
    return samples


def _holds(path: Path, samples: Mapping[str, _Samples]) -> bool:
    """Whether the file `path` exists and has exactly these samples."""
    try:
        there = _load_samples(path)
    except InputError:
        return False
    return all(_digest(there.get(name, {})) == _digest(samples.get(name, {})) for name in {*there, *samples})


def _digest(samples: Mapping[str, Sequence[float]]) -> str:
    """The digest of one profile's samples: of their values, not of the file."""
    digest = hashlib.sha256()
    for claim, values in sorted(samples.items()):
        numbers = np.array(values, "<f8")
        numbers[np.isnan(numbers)] = np.nan  # a file does not keep the bits of a NaN
        digest.update(json.dumps([claim, len(values)]).encode() + numbers.tobytes())
    return digest.hexdigest()[:16]


def differences(
    record: Record | None,
    outcomes: Mapping[str, Outcome],
    controls: Mapping[str, Mapping[str, Verdict]],
    n_claims: int,
) -> list[Change]:
    """Where `outcomes` and `controls` differ from `record`, over the keys of both.

    An invalid claim was not judged: it is a problem, whatever the record says.

    `n_claims` is the number of claims of the whole suite, over which the budget `FALSE_ALARMS` is split
    evenly (Bonferroni). The test assumes that run and record are independent. Reruns with the same seeds
    differ less than that, so the budget is an upper bound: on another kind of processor, which rounds
    differently, only some networks end elsewhere. A control's verdict other than "not reproduced" is always a
    problem, whatever the record says.
    """
    claims = record.claims if record else {}
    changes = []
    for name in {**claims, **outcomes}:
        if name not in outcomes:
            changes.append(Change(name, "missing: it is in the record, but was not judged"))
        elif name not in claims:
            changes.append(Change(name, f"new: {outcomes[name].verdict}, not in the record"))
        elif change := _moved(name, claims[name], outcomes[name], n_claims):
            changes.append(change)
    was, now = _flat(record.controls if record else {}), _flat(controls)
    for name in {**was, **now}:
        if name not in now:
            changes.append(Change(name, "missing: this control is in the record, but was not run"))
        elif now[name] is not Verdict.NOT_REPRODUCED:
            changes.append(Change(name, f"{now[name]}, though the control must fail this claim"))
        elif name not in was:
            changes.append(Change(name, "new: this control is not in the record"))
    return changes


def uninvestigated(records: Mapping[str, Record], claims: Mapping[str, Claim]) -> list[Change]:
    """The claims that the records do not have as reproduced, and that no text explains.

    Of a claim in the profiles full and decided, the latter's verdict counts. An undecidable claim needs no
    text: what keeps it open is the published number alone, and its reason says how precise that would have to
    be; of our networks there is nothing to find out.
    """
    final = {
        name: claim.verdict
        for profile in BUILT_IN
        if profile in records
        for name, claim in records[profile].claims.items()
    }
    return [
        Change(name, f"recorded as {final[name]}, but `investigated` does not say why")
        for name, claim in claims.items()
        if claim.investigated is None
        and final.get(name, Verdict.REPRODUCED) not in (Verdict.REPRODUCED, Verdict.UNDECIDABLE)
    ]


def unsound(record: Record, outcomes: Mapping[str, Outcome], *, same_hash: bool) -> list[Change]:
    """The claims whose record does not follow from its own samples, so nothing can be compared with it.

    With the `same_hash`, record and `outcomes` have the same seeds, and so the same number of samples; but
    where claims are judged look by look, on another kind of processor another look may have decided.
    """
    changes = []
    for name, old in record.claims.items():
        if name in outcomes and (problem := _unsound(old, outcomes[name], same_hash)):
            changes.append(
                Change(name, f"{problem}: the record or the claim was edited; run `replicate record`")
            )
    return changes


def _unsound(old: RecordedClaim, new: Outcome, same_hash: bool) -> str | None:
    if Verdict.INVALID in (old.verdict, new.verdict):
        return None
    if same_hash and new.look is None and len(old.samples) != len(new.samples):
        return f"the record has {counted(len(old.samples), 'sample')}, but this run has {len(new.samples)}"
    if not old.samples or new.claim.power is not None or math.isinf(old.low):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = widen(old.value, jackknife(old.value, old.samples), new.claim.published_half_width)
    if new.claim.kind == "fraction":
        low, high = max(0.0, low), min(1.0, high)
    # samples are rounded to the digits of a record, which makes the interval uncertain by this much
    digits = 10.0 ** (1 - _DIGITS) * max(map(abs, [old.value, *old.samples]))
    slack = t_quantile(0.975, len(old.samples)) * math.sqrt(len(old.samples)) * digits
    if not (old.low <= low + slack and high - slack <= old.high):
        return "the record's samples spread wider than its interval"
    shifts = (-slack, 0.0, slack)
    follow = {verdict_of((old.low + a, old.high + b), new.region) for a in shifts for b in shifts}
    if Verdict.INCONCLUSIVE in follow and new.claim.published_half_width:
        follow.add(Verdict.UNDECIDABLE)
    if old.verdict not in follow:
        return f"recorded as {old.verdict}, which does not follow from its interval and the acceptance region"
    return None


def _moved(name: str, old: RecordedClaim, new: Outcome, n_claims: int) -> Change | None:
    distance, allowed = abs(new.value - old.value), _tolerance(old, new, n_claims)
    if old.verdict is not new.verdict:
        # where no estimate has changed, the way of judging has
        both = {old.verdict, new.verdict}
        is_step = bool(both & _OPEN) and Verdict.INVALID not in both
        by_chance = is_step and distance <= allowed and not _alike(old, new)
        problem = f"verdict changed from {old.verdict} to {new.verdict}: {new.reason}"
        return Change(name, problem, by_chance)
    if new.verdict is Verdict.INVALID:
        return Change(name, f"invalid, as in the record: {new.reason}")
    if math.isnan(old.value) and math.isnan(new.value):  # not judged yet, in either
        return None
    if not distance <= allowed:
        problem = (
            f"value moved from {old.value:.6g} to {new.value:.6g}, by more than the {allowed:.2g} allowed"
        )
        return Change(name, problem)
    return None


def _alike(old: RecordedClaim, new: Outcome) -> bool:
    """Whether value and samples equal those recorded, to the digits of a record."""
    was, now = [old.value, *old.samples], [new.value, *new.samples]
    return len(was) == len(now) and np.allclose(was, now, rtol=10.0 ** (1 - _DIGITS), atol=1e-9)


def _tolerance(old: RecordedClaim, new: Outcome, n_claims: int) -> float:
    """How far the value may have moved: the t quantile of the claim's share of the budget, and rounding."""
    # one step of the last digit recorded, which for exact theory is all
    rounding = max(10.0 ** (1 - _DIGITS) * abs(old.value), 1e-9)
    # without an interval, as with one seed, chance cannot be told from change: equal networks give equal
    # values
    if math.isinf(old.low) or math.isinf(new.low):
        return rounding
    spreads = [samples for samples in (old.samples, new.samples) if samples]
    if not spreads:
        return rounding
    error = math.hypot(*map(jackknife_error, spreads))
    return rounding + t_quantile(1 - FALSE_ALARMS / n_claims / 2, min(map(len, spreads))) * error


def _flat(controls: Mapping[str, Mapping[str, Verdict]]) -> dict[str, Verdict]:
    return {f"{control}: {name}": v for control, claims in controls.items() for name, v in claims.items()}


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
