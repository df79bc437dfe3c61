"""A replication as a whole: its runs, its claims, and their verdicts compared with the record."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from common.errors import InputError
from common.runs.numerics import one_thread
from common.runs.store import Run
from common.runs.workers import spread
from common.specs.fields import BUILT_IN, DECIDED
from common.specs.find import Files, find_spec, make_importable, results_folder
from common.specs.spec import Spec, is_neutral, is_of_the_setting, resolve
from common.specs.sweep import instances
from common.verdicts import record as records
from common.verdicts.claims import Claim, Claims, Verdict, check_functions
from common.verdicts.deciding import standing
from common.verdicts.estimates import reads
from common.verdicts.evaluate import Outcome, evaluate
from common.verdicts.looks import Looks, looks_of
from common.verdicts.suite import Suite, Written


class Replication(NamedTuple):
    """A replication's run in one profile, its controls' runs, and its claims.

    `overridden`: the spec was changed, so nothing is compared with the record. `for_reference`: more than its
    seeds were changed, so verdicts do not apply to the paper; `not_asked` are then the claims without rows.
    `all_claims` are the claims of all profiles, which are passed to the figures. `looks`: where claims are
    judged at several numbers of seeds, in the profile `decided`; `run` then asks for the networks that they
    have read so far.
    """

    files: Files
    run: Run
    controls: dict[str, Run]
    claims: dict[str, Claim]
    all_claims: Claims
    overridden: bool
    for_reference: bool
    not_asked: list[str]
    looks: Looks | None = None

    @property
    def name(self) -> str:
        """Its name, `paper/result`."""
        return self.files.name

    @property
    def runs(self) -> list[Run]:
        """The run and the runs of the controls."""
        return [self.run, *self.controls.values()]

    def rejects(self, control: str) -> list[str]:
        """The claims that a control must fail, among those that are judged."""
        return [claim for claim in self.run.spec.controls[control].rejects if claim in self.claims]


class Judged(NamedTuple):
    """The outcomes of a replication's claims, and the verdicts on those that its controls must fail.

    `changes` is what differs from the record, by chance or not; None where the spec was changed and nothing
    is compared. `record` is the record compared with, None if there is none; `other_hash`: it was made with
    another spec or other versions. `elsewhere` has the verdicts recorded in the profiles full and decided, if
    that is another one, by claim and profile.
    """

    outcomes: dict[str, Outcome]
    controls: dict[str, dict[str, Verdict]]
    changes: list[records.Change] | None
    record: records.Record | None
    other_hash: bool
    elsewhere: Mapping[str, dict[str, Verdict]] = MappingProxyType({})

    @property
    def problems(self) -> list[records.Change]:
        """What differs from the record by more than chance explains."""
        return [change for change in self.changes or [] if not change.by_chance]


def load_replication(
    root: Path,
    name: str,
    profile: str = "full",
    overrides: Mapping[str, tuple[Any, str]] | None = None,
    out: Path | None = None,
    keep_weights: str | None = None,
) -> Replication:
    """The replication that `find_spec` finds at `root` by its name or path, as `load_all` loads it.

    Raises:
        InputError: for the first mistake in the name, spec, overrides (see `load_spec`), claims or query.
    """
    files = find_spec(root, name)
    written = Suite(files.root).read(files, profile, overrides)
    return load_all([written], root, out, keep_weights)[0]


def load_all(
    written: Sequence[Written], root: Path, out: Path | None = None, keep_weights: str | None = None
) -> list[Replication]:
    """Load replications whose files were read: import what they name, and resolve each spec once.

    Results are in `out` (default: `results_folder` of each one's own root, of `root` if it is installed).
    Runs keep the weights of the networks that `keep_weights` selects (see `Run`); controls keep none.

    Raises:
        InputError: for the first mistake in a spec, claims or the query.
    """
    for one in written:
        make_importable(one.files)
    return [
        _load(one, out or results_folder(root if one.files.installed else one.files.root), keep_weights)
        for one in written
    ]


def _load(written: Written, out: Path, keep_weights: str | None) -> Replication:
    spec, changed = resolve(written.run), list(written.overrides)
    check_functions(*written.claims, spec.code)
    for_reference = any(map(is_of_the_setting, changed))
    claims, not_asked = _with_rows(written, spec, for_reference)
    run, looks = Run(spec, out, keep_weights), None
    if spec.profile == DECIDED:
        looks = looks_of(spec.fields)
        run = standing(run, claims, looks).judged
    replication = Replication(
        written.files,
        run,
        {},
        claims,
        written.claims.claims,
        not all(map(is_neutral, changed)),
        for_reference,
        not_asked,
        looks,
    )
    for control in spec.controls:
        broken = Run(resolve(written.control(control)), out)
        if not _differ(broken.spec, spec):
            why = f" (changed by {', '.join(changed)})" if changed else ""
            problem = f"breaks nothing: the run{why} has all of its networks too, so it cannot fail a claim"
            raise written.run.document.error(("controls", control, "set"), problem)
        if replication.rejects(control):
            replication.controls[control] = broken
    return replication


def _differ(broken: Spec, spec: Spec) -> bool:
    """Whether a control has networks that the run does not have, seeds aside."""
    rest, points = _networks(broken)
    rest_of_run, points_of_run = _networks(spec)
    return rest != rest_of_run or not points <= points_of_run


def _networks(spec: Spec) -> tuple[dict[str, Any], set[str]]:
    """What defines the networks of a spec, seeds aside: what all share, and each point of the sweep."""
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
    """The verdicts on stored results, compared with the record; `n_claims` counts the suite's, see `Suite`.

    Raises:
        InputError: if results are incomplete.
    """
    spec = replication.run.spec
    tables = {}
    for run in replication.runs:
        table = run.table()
        if table is None:
            why = run.why_incomplete()
            raise InputError(f"{replication.name} ({run.variant.name}): {why}; `replicate run` trains it")
        tables[run.spec.control] = table
    controls = {}
    for name in replication.controls:
        broken = {claim: replication.claims[claim] for claim in replication.rejects(name)}
        lost = evaluate(broken, spec.code, tables[name], of_control=True)
        controls[name] = {claim: outcome.verdict for claim, outcome in lost.items()}
    outcomes = evaluate(replication.claims, spec.code, tables[None], looks=replication.looks)
    if replication.overridden:
        return Judged(outcomes, controls, None, None, False)
    stored = records.load(replication.files.record)
    record = stored.get(spec.profile)
    other_hash = record is not None and record.hash != replication.run.hash
    changes = records.differences(record, outcomes, controls, n_claims)
    if record is not None:
        changes += records.unsound(record, outcomes, same_hash=not other_hash)
    changes += records.uninvestigated(stored, replication.claims)
    elsewhere: dict[str, dict[str, Verdict]] = {name: {} for name in outcomes}
    for profile in BUILT_IN:
        if profile != spec.profile and profile in stored:
            for name, claim in stored[profile].claims.items():
                elsewhere.setdefault(name, {})[profile] = claim.verdict
    return Judged(outcomes, controls, changes, record, other_hash, elsewhere)


def judge_all(replications: Sequence[Replication], n_claims: Mapping[Path, int]) -> list[Judged]:
    """`judge` each replication; if there are many, on all processors.

    `n_claims` has the number of claims of each root.

    Raises:
        InputError: if results are incomplete.
    """
    counts = [n_claims[replication.files.root] for replication in replications]
    with spread(len(replications)) as spread_map:
        return list(spread_map(judge, replications, counts))


def _with_rows(written: Written, spec: Spec, for_reference: bool) -> tuple[dict[str, Claim], list[str]]:
    """The claims that are judged in the profile of `spec`, and the claims that cannot be.

    Only where the spec was changed, `for_reference`, may the sweep lack the rows of a claim.

    Raises:
        InputError: if a claim names a place that the spec does not have, or no claim is left.
    """
    rows, not_asked, document = instances(spec), [], written.claims.document
    for name, claim in written.judged.items():
        try:
            reads(claim, spec.code, rows)
        except ValueError as error:
            if not for_reference:
                key = "at" if claim.estimate.rows is None else "rows"
                raise document.error(("claims", name, "estimate", key), str(error)) from None
            not_asked.append(name)
    judged = {name: claim for name, claim in written.judged.items() if name not in not_asked}
    if not judged:
        raise document.error(("claims",), "nothing to judge: the changed sweep has no rows for any claim")
    return judged, not_asked
