"""A replication as a whole: its runs and claims, and what became of them beside the record."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import record as records
from common.claims import Claim, Claims, Outcome, Verdict, evaluate, load_claims, n_claims_in, rows_at
from common.document import Document, InputError, nearest
from common.find import Found, find_spec, find_specs, results_folder
from common.results import Run
from common.spec import Spec, is_neutral, is_of_the_setting
from common.sweep import instances, shards
from common.threads import one_thread
from common.workers import spread


class Replication(NamedTuple):
    """A replication's run in one profile, its controls' runs, and its claims.

    `overridden`: the spec was changed, so that nothing is compared with the record. `for_reference`: in more
    than its seeds, so that verdicts are none on the paper; `not_asked` are then the claims without rows.
    """

    found: Found
    run: Run
    controls: dict[str, Run]
    claims: dict[str, Claim]
    overridden: bool
    for_reference: bool
    not_asked: list[str]

    @property
    def name(self) -> str:
        """Its name, `paper/result`."""
        return self.found.name

    @property
    def runs(self) -> list[Run]:
        """The run and those of the controls."""
        return [self.run, *self.controls.values()]

    @property
    def all_claims(self) -> Claims:
        """The claims of its file, of all profiles: what its figures get."""
        return load_claims(self.found.expected, self.run.spec.code)

    def rejects(self, control: str) -> list[str]:
        """The claims that a control must lose, of those that are asked."""
        return [claim for claim in self.run.spec.controls[control].rejects if claim in self.claims]


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
    changed = list(overrides or {})
    for_reference = any(map(is_of_the_setting, changed))
    claims, not_asked = _judged_in(spec, found.expected, for_reference)
    run = Run(spec, out, keep_weights)
    replication = Replication(
        found, run, {}, claims, not all(map(is_neutral, changed)), for_reference, not_asked
    )
    for control, breaks in spec.controls.items():
        for i, claim in enumerate(breaks.rejects):
            if claim not in claims and claim not in not_asked:
                place = ("controls", control, "rejects", i)
                hint = f"in profile {spec.profile}; {nearest(claim, list(claims))}"
                raise Document.load(found.path).error(place, f"no claim {claim!r} {hint}")
        broken = Run(found.spec(profile, control, overrides), out)
        if not _differ(broken.spec, spec):
            why = f", changed by {', '.join(changed)}," if changed else ""
            problem = (
                f"breaks nothing: its networks are some of those of the run{why} so it can lose no claim"
            )
            raise Document.load(found.path).error(("controls", control, "set"), problem)
        if replication.rejects(control):
            replication.controls[control] = broken
    return replication


def _differ(broken: Spec, spec: Spec) -> bool:
    """Whether a control has networks that the run has not, other than by their seeds."""
    rest, points = _networks(broken)
    rest_of_run, points_of_run = _networks(spec)
    return rest != rest_of_run or not points <= points_of_run


def _networks(spec: Spec) -> tuple[dict[str, Any], set[str]]:
    """What makes the networks of a spec but for their seeds: what all share, and each point of the sweep."""
    resolved = spec.resolved()
    rest = {name: value for name, value in resolved.items() if is_of_the_setting(name)}
    rest["trainer"] = {k: v for k, v in rest["trainer"].items() if is_of_the_setting(f"trainer.{k}")}
    for name in ("sweep", "model", "features"):
        rest[name] = rest[name].get("class_path") if isinstance(rest[name], dict) else None
    points = set()
    for grid in spec.grids:
        for values in itertools.product(*grid.factors.values()):
            point = spec.factors(dict(zip(grid.factors, values, strict=True)))
            own = grid.optimizer and grid.optimizer.model_dump()
            points.add(json.dumps([grid.part, point, own], sort_keys=True, default=list))
    return rest, points


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
    for name in replication.controls:
        broken = {claim: replication.claims[claim] for claim in replication.rejects(name)}
        lost = evaluate(broken, spec.code, tables[name], of_control=True)
        controls[name] = {claim: outcome.verdict for claim, outcome in lost.items()}
    outcomes = evaluate(replication.claims, spec.code, tables[None])
    if replication.overridden:
        return Judged(outcomes, controls, None, None, False)
    stored = records.load(replication.found.record)
    record = stored.get(spec.profile)
    other_hash = record is not None and record.hash != replication.run.hash
    changes = records.differences(record, outcomes, controls, n_claims)
    if record is not None:
        changes += records.unsound(record, outcomes, same_hash=not other_hash)
    changes += records.uninvestigated(stored, replication.claims)
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
    return sum(n_claims_in(found.expected) for found in find_specs(root).values())


def _judged_in(spec: Spec, path: Path, for_reference: bool) -> tuple[dict[str, Claim], list[str]]:
    """The claims in the file `path` that are judged in the profile of `spec`, and those that cannot be.

    Only where the spec was changed, `for_reference`, may the sweep lack the rows of a claim.

    Raises:
        InputError: if one names a profile or a place that the spec has not, or none is left.
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
    rows, not_asked = instances(spec), []
    for name, claim in judged.items():
        try:
            rows_at(claim.estimate, rows)
        except ValueError as error:
            if not for_reference:
                raise Document.load(path).error(("claims", name, "estimate", "at"), str(error)) from None
            not_asked.append(name)
    judged = {name: claim for name, claim in judged.items() if name not in not_asked}
    if not judged:
        why = "have no rows in the changed sweep" if not_asked else f"is judged in profile {spec.profile}"
        raise Document.load(path).error(
            ("claims",), f"nothing to judge: {'all' if not_asked else 'none'} {why}"
        )
    return judged, not_asked
