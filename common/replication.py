"""A replication as a whole: its runs and claims, and what became of them beside the record."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common import record as records
from common.claims import Claim, Outcome, Verdict, evaluate, load_claims
from common.document import Document, InputError, nearest
from common.results import Run
from common.spec import Spec, find_spec, find_specs, is_logging, load_spec
from common.sweep import shards


class Replication(NamedTuple):
    """A replication's run in one profile, its controls' runs, and its claims.

    `overridden`: the spec was changed in more than what is logged.
    """

    name: str
    run: Run
    controls: dict[str, Run]
    claims: dict[str, Claim]
    record_path: Path
    overridden: bool

    @property
    def runs(self) -> list[Run]:
        """The run and those of the controls."""
        return [self.run, *self.controls.values()]


class Judged(NamedTuple):
    """What became of a replication's claims, and of those that its controls must lose.

    `changes` is what is not as recorded, None where the spec was changed and nothing is compared.
    `other_hash`: the record is of another spec or other versions.
    """

    outcomes: dict[str, Outcome]
    controls: dict[str, dict[str, Verdict]]
    changes: list[records.Change] | None
    other_hash: bool


def find_root(given: Path | None = None) -> Path:
    """The suite's folder: `given`, else the working directory if it is one, else where this package is.

    From then on its replications can be imported.

    Raises:
        InputError: if there is no suite in it.
    """
    package = Path(__file__).resolve().parent.parent
    root = given or (Path.cwd() if (Path.cwd() / "replications").is_dir() else package)
    if not (root / "replications").is_dir():
        raise InputError(
            f"{root}: no folder replications/ in it; give the suite's folder as --root, or root="
        )
    if str(root.resolve()) not in sys.path:
        sys.path.insert(0, str(root.resolve()))  # specs name their classes by module
    return root


def load_replication(
    root: Path,
    name: str,
    profile: str = "full",
    overrides: Mapping[str, tuple[Any, str]] | None = None,
    out: Path | None = None,
    keep_weights: str | None = None,
) -> Replication:
    """The replication `name` of the suite at `root`; its results are in `out` (default: root/results).

    Its run keeps the weights of the networks that `keep_weights` says (see `Run`), its controls keep none.

    Raises:
        InputError: for the first mistake in the spec, the overrides (see `load_spec`), claims or query.
    """
    path, out = find_spec(root, name), out or root / "results"
    spec = load_spec(path, profile, overrides=overrides)
    expected = root / "expected" / name
    claims = _judged_in(spec, expected.with_name(f"{expected.name}.yaml"))
    for control, breaks in spec.controls.items():
        for i, claim in enumerate(breaks.rejects):
            if claim not in claims:
                place = ("controls", control, "rejects", i)
                hint = f"in profile {spec.profile}; {nearest(claim, list(claims))}"
                raise Document.load(path).error(place, f"no claim {claim!r} {hint}")
    controls = {control: Run(load_spec(path, profile, control, overrides), out) for control in spec.controls}
    record_path = expected.with_name(f"{expected.name}.record.yaml")
    overridden = not all(map(is_logging, overrides or {}))
    return Replication(name, Run(spec, out, keep_weights), controls, claims, record_path, overridden)


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
        return Judged(outcomes, controls, None, False)
    stored = records.load(replication.record_path)
    record = stored.get(spec.profile)
    changes = records.differences(record, outcomes, controls, n_claims)
    changes += records.uninvestigated(stored, replication.claims)
    other_hash = record is not None and record.hash != replication.run.hash
    return Judged(outcomes, controls, changes, other_hash)


def claims_of(root: Path, name: str) -> dict[str, Claim]:
    """All claims of the replication `name`, of all profiles."""
    return load_claims(root / "expected" / f"{name}.yaml", load_spec(find_spec(root, name)).code)


def count_claims(root: Path) -> int:
    """The number of claims of the suite at `root`, over which the budget of false alarms is split."""
    return sum(len(claims_of(root, name)) for name in find_specs(root))


def _judged_in(spec: Spec, path: Path) -> dict[str, Claim]:
    """The claims in the file `path` that are judged in the profile of `spec`.

    Raises:
        InputError: if one names a profile that the spec has not.
    """
    profiles = ["full", *spec.fields.profiles]
    claims = load_claims(path, spec.code)
    for name, claim in claims.items():
        for i, profile in enumerate(claim.profiles or []):
            if profile not in profiles:
                place = ("claims", name, "profiles", i)
                hint = nearest(profile, profiles)
                raise Document.load(path).error(place, f"no profile {profile!r} in {spec.path}; {hint}")
    return {name: claim for name, claim in claims.items() if spec.profile in (claim.profiles or profiles)}
