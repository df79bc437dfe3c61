"""How two reports differ."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from common.errors import InputError
from common.reports.schema import ClaimReport, ReplicationReport, Report
from common.reports.tables import interval
from common.system.text import counted
from common.verdicts.claims import Verdict


class Case(NamedTuple):
    """A claim of a replication, or one that a control must fail."""

    verdict: Verdict
    as_recorded: bool | None
    said: str
    claim: ClaimReport | None = None


def cases_of(replication: ReplicationReport) -> dict[str, Case]:
    """All that was judged in a replication, by name: its claims, and those that its controls must fail."""
    cases = {
        claim.name: Case(claim.verdict, claim.as_recorded, f"{claim.verdict}: {claim.reason}", claim)
        for claim in replication.claims
    }
    for control in replication.controls:
        for claim in control.claims:
            said = f"{claim.verdict} ({control.why})"
            cases[f"{control.name}: {claim.name}"] = Case(claim.verdict, claim.as_recorded, said)
    return cases


DIGITS = 1e-6
"""The relative difference from which on two values of a claim count as different, as in a record."""


def compare(a: Report, b: Report) -> Iterator[str]:
    """A line for each verdict and value that differs between `a` and `b`, or is in only one of them.

    Raises:
        InputError: if neither has a claim, so there is nothing to compare.
    """
    if not (a.n_claims or b.n_claims):
        raise InputError("nothing to compare: no claim was judged in either report")
    was, now = ({replication.name: replication for replication in one.replications} for one in (a, b))
    for name in {**was, **now}:
        if name not in was or name not in now:
            state, side = ("gone", was) if name in was else ("new", now)
            yield f"{name}: {state}, with {counted(len(side[name].claims), 'claim')}"
            continue
        old, new = cases_of(was[name]), cases_of(now[name])
        for claim in {**old, **new}:
            if claim not in new:
                yield f"{name}: {claim}: gone, was {old[claim].verdict}"
            elif claim not in old:
                yield f"{name}: {claim}: new, {new[claim].verdict}"
            elif problem := _difference(old[claim], new[claim]):
                yield f"{name}: {claim}: {problem}"


def _difference(old: Case, new: Case) -> str:
    parts = []
    if old.verdict is not new.verdict:
        parts.append(f"verdict changed from {old.verdict} to {new.verdict}")
    if old.claim and new.claim:
        numbers = zip(_numbers(old.claim), _numbers(new.claim), strict=True)
        if any(not _is_close(one, other) for one, other in numbers):
            parts.append(f"value moved from {ours(old.claim)} to {ours(new.claim)}")
    return ", ".join(parts)


def _numbers(claim: ClaimReport) -> list[float | None]:
    return [claim.value, claim.low, claim.high]


def _is_close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=DIGITS, abs_tol=1e-9)


def ours(claim: ClaimReport) -> str:
    """The estimate of a claim with its interval, as text."""
    value, low, high = (math.nan if one is None else one for one in _numbers(claim))
    return interval(value, *((-math.inf, math.inf) if math.isnan(low) or math.isnan(high) else (low, high)))
