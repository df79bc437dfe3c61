"""A replication as a whole: its runs and claims, and what became of them beside the record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import record as records
from common.claims import Claim, Outcome, Verdict, evaluate, load_claims, rows_at
from common.document import Document, InputError, nearest
from common.find import Found, find_spec, find_specs, results_folder
from common.results import Run
from common.spec import Spec, is_logging
from common.sweep import instances, shards
from common.threads import one_thread
from common.workers import spread


class Replication(NamedTuple):
    """A replication's run in one profile, its controls' runs, and its claims.

    `overridden`: the spec was changed in more than what is logged.
    """

    found: Found
    run: Run
    controls: dict[str, Run]
    claims: dict[str, Claim]
    overridden: bool

    @property
    def name(self) -> str:
        """Its name, `paper/result`."""
        return self.found.name

    @property
    def runs(self) -> list[Run]:
        """The run and those of the controls."""
        return [self.run, *self.controls.values()]


class Judged(NamedTuple):
    """What became of a replication's claims, and of those that its controls must lose.

    `changes` is what is not as recorded, by chance or not, None where the spec was changed and nothing is
    compared. `record` is what was compared with, None if there is none; `other_hash`: it is of another spec
    or other versions.
    """

    outcomes: dict[str, Outcome]
    controls: dict[str, dict[str, Verdict]]
    changes: list[records.Change] | None
    record: records.Record | None
    other_hash: bool

    @property
    def problems(self) -> list[records.Change]:
        """What is not as recorded, and not by chance."""
        return [change for change in self.changes or [] if not change.by_chance]


def load_replication(
    root: Path,
    name: str,
    profile: str = "full",
    overrides: Mapping[str, tuple[Any, str]] | None = None,
    out: Path | None = None,
    keep_weights: str | None = None,
) -> Replication:
    """The replication that `find_spec` finds at `root` by its name or path.

    Its results are in `out` (default: `results_folder` of its own root, of `root` if a package brought it).

    Its run keeps the weights of the networks that `keep_weights` says (see `Run`), its controls keep none.

    Raises:
        InputError: for the first mistake in the name, spec, overrides (see `load_spec`), claims or query.
    """
    found = find_spec(root, name)
    out = out or results_folder(root if found.installed else found.root)
    spec = found.spec(profile, overrides=overrides)
    claims = _judged_in(spec, found.expected)
    for control, breaks in spec.controls.items():
        for i, claim in enumerate(breaks.rejects):
            if claim not in claims:
                place = ("controls", control, "rejects", i)
                hint = f"in profile {spec.profile}; {nearest(claim, list(claims))}"
                raise Document.load(found.path).error(place, f"no claim {claim!r} {hint}")
    controls = {control: Run(found.spec(profile, control, overrides), out) for control in spec.controls}
    overridden = not all(map(is_logging, overrides or {}))
    return Replication(found, Run(spec, out, keep_weights), controls, claims, overridden)


@one_thread()
def judge(replication: Replication, n_claims: int) -> Judged:
    """The verdicts on stored results, beside the record; `n_claims` are those of the suite, `count_claims`.

    Raises:
        InputError: if results are not complete.
    """
    spec = replication.run.spec
    tables = {}
    for run in replication.runs:
        table = run.table()
        if table is None:
            why = run.why_incomplete(shards(run.spec))
            raise InputError(f"{replication.name} ({run.variant.name}): {why}; `replicate run` trains it")
        tables[run.spec.control] = table
    controls = {}
    for name, control in spec.controls.items():
        broken = {claim: replication.claims[claim] for claim in control.rejects}
        lost = evaluate(broken, spec.code, tables[name])
        controls[name] = {claim: outcome.verdict for claim, outcome in lost.items()}
    outcomes = evaluate(replication.claims, spec.code, tables[None])
    if replication.overridden:
        return Judged(outcomes, controls, None, None, False)
    stored = records.load(replication.found.record)
    record = stored.get(spec.profile)
    changes = records.differences(record, outcomes, controls, n_claims)
    changes += records.uninvestigated(stored, replication.claims)
    other_hash = record is not None and record.hash != replication.run.hash
    return Judged(outcomes, controls, changes, record, other_hash)


def judge_all(replications: Sequence[Replication], n_claims: Mapping[Path, int]) -> list[Judged]:
    """`judge` each of them; if there are many, on all processors.

    `n_claims` has the number of claims of each root.

    Raises:
        InputError: if results are not complete.
    """
    counts = [n_claims[replication.found.root] for replication in replications]
    with spread(len(replications)) as spread_map:
        return list(spread_map(judge, replications, counts))


def claims_of(found: Found) -> dict[str, Claim]:
    """All claims of a replication, of all profiles."""
    return load_claims(found.expected, found.spec().code)


def count_claims(root: Path) -> int:
    """The number of claims of the suite at `root`, over which the budget of false alarms is split."""
    return sum(len(claims_of(found)) for found in find_specs(root).values())


def _judged_in(spec: Spec, path: Path) -> dict[str, Claim]:
    """The claims in the file `path` that are judged in the profile of `spec`.

    Raises:
        InputError: if one names a profile that the spec has not, or a place that the sweep has not.
    """
    profiles = ["full", *spec.fields.profiles]
    claims = load_claims(path, spec.code)
    for name, claim in claims.items():
        for i, profile in enumerate(claim.profiles or []):
            if profile not in profiles:
                place = ("claims", name, "profiles", i)
                hint = nearest(profile, profiles)
                raise Document.load(path).error(place, f"no profile {profile!r} in {spec.path}; {hint}")
    judged = {name: claim for name, claim in claims.items() if spec.profile in (claim.profiles or profiles)}
    rows = instances(spec)
    for name, claim in judged.items():
        try:
            rows_at(claim.estimate, rows)
        except ValueError as error:
            raise Document.load(path).error(("claims", name, "estimate", "at"), str(error)) from None
    return judged
