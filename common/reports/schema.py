"""The content of `report.json`: the report on a suite, as classes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InputError, one_line
from common.specs.document import Strict
from common.specs.papers import Paper
from common.verdicts.claims import Verdict

if TYPE_CHECKING:  # reading a report does not need what writing one needs
    from common.runs.store import Run
    from common.verdicts.evaluate import Outcome
    from common.verdicts.judge import Judged, Replication

MOST_BYTES = 50_000_000
"""A larger file is not a report: a claim takes about a thousand bytes."""

MOST_COMMAS = 500_000
"""A file with more is not a report either: pydantic collects all mistakes, and each value may be one."""

VERSION: Final = 4
"""The version of `report.json` that is written and read."""


class _Finite(Strict):
    """A part of a report: JSON has no NaN or infinity; they are written as null."""

    model_config = ConfigDict(allow_inf_nan=False)


class _Versioned(BaseModel):
    version: Any = VERSION


class ClaimReport(_Finite):
    """A published statement and its outcome.

    `published`, `theory`: the published or theoretical value, null where the claim sets a bound. `region_low`
    and `region_high`: the acceptance region, null at an open end; `rule` is its reason. `value` is the
    estimate, null if there is none; `low` and `high` are the interval that was judged, null if unknown: the
    95 % interval, or with looks that of the look. `seeds` is the number of seeds judged, 0 for exact theory;
    `look` the number of the look that decided or that the claim has got to, null where claims are judged
    once. `more_seeds` would end an inconclusive claim's being so, or are those to its next look.
    `needed_half_width`: the half width of the published number's 95 % interval below which an undecidable
    claim would be decided, null for others, or if none would. `as_recorded` is false if verdict or value
    differ from the record by more than chance explains, null where nothing is compared.
    `elsewhere`: the verdicts recorded in the profiles full and decided, if that is another one.
    """

    name: str
    statement: str
    kind: Literal["published", "theory", "ordering", "fraction", "fit"]
    paper: str
    where: str
    read_by: str
    published: float | None
    theory: float | None
    region_low: float | None
    region_high: float | None
    rule: str
    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    reason: str
    more_seeds: int | None
    needed_half_width: float | None
    seeds: int
    look: int | None
    investigated: str | None
    as_recorded: bool | None
    elsewhere: dict[str, Verdict] = Field(default_factory=dict)


class ControlClaim(_Finite):
    """A claim that a control must fail, and its verdict in that control."""

    name: str
    verdict: Verdict
    as_recorded: bool | None


class RunReport(_Finite):
    """A finished run: where its results are stored below OUT, and where it ran; `wall_s` in seconds.

    `compiled_shards`: how many of the `shards` were trained by compiled code; null if nothing was trained.
    """

    folder: str
    hash: str
    instances: int
    shards: int
    compiled_shards: int | None
    device: str
    wall_s: float
    finished: str
    versions: dict[str, str]
    spec: dict[str, Any]


class ControlReport(_Finite):
    """A run that was broken on purpose, and the claims that it must fail."""

    name: str
    why: str
    run: RunReport
    claims: list[ControlClaim]


class RecordReport(_Finite):
    """The record compared with; `other_hash`: it was made with another spec or other versions."""

    commit: str
    date: str
    hash: str
    other_hash: bool


class NotAsRecorded(_Finite):
    """One result that differs from the record: the claim (or `control: claim`), and how it differs.

    `by_chance`: the verdict changed to or from inconclusive or undecidable, while the value moved by no more
    than it may.
    """

    claim: str
    problem: str
    by_chance: bool


class ReplicationReport(_Finite):
    """A replication in one profile; `changes` is null where its spec was changed and nothing is compared.

    `for_reference`: more than its seeds were changed, so verdicts do not apply to the paper; `not_asked` are
    then the claims that are not judged because the changed sweep lacks their networks.
    """

    name: str
    title: str
    paper: str
    command: str
    commit: str
    run: RunReport
    record: RecordReport | None
    claims: list[ClaimReport]
    controls: list[ControlReport]
    changes: list[NotAsRecorded] | None
    for_reference: bool
    not_asked: list[str]

    @property
    def problems(self) -> list[NotAsRecorded]:
        """What differs from the record by more than chance explains."""
        return [change for change in self.changes or [] if not change.by_chance]

    @property
    def chances(self) -> list[NotAsRecorded]:
        """The verdicts that differ from the record within chance."""
        return [change for change in self.changes or [] if change.by_chance]


class NotRun(_Finite):
    """A replication without a judged result in this profile, and why."""

    name: str
    title: str
    why: str


class Report(_Finite):
    """The whole report. `version` is raised whenever the meaning of a field changes.

    `counts` has the number of claims of each verdict, `as_recorded` is null where nothing was compared.
    """

    version: Literal[4] = VERSION
    profile: str
    written: str
    counts: dict[Verdict, int]
    as_recorded: bool | None
    papers: dict[str, Paper]
    replications: list[ReplicationReport]
    not_run: list[NotRun] = Field(default_factory=list)

    @property
    def n_claims(self) -> int:
        """The number of claims judged."""
        return sum(self.counts.values())


def report_on(
    profile: str,
    written: str,
    papers: Mapping[str, Paper],
    replications: list[ReplicationReport],
    not_run: list[NotRun],
) -> Report:
    """The report on these replications."""
    claims = [claim for replication in replications for claim in replication.claims]
    compared = [replication for replication in replications if replication.changes is not None]
    return Report(
        profile=profile,
        written=written,
        counts={verdict: sum(claim.verdict is verdict for claim in claims) for verdict in Verdict},
        as_recorded=not any(replication.problems for replication in compared) if compared else None,
        papers={key: papers[key] for key in sorted({claim.paper for claim in claims} & set(papers))},
        replications=replications,
        not_run=not_run,
    )


def replication_report(
    replication: "Replication", judged: "Judged", command: str, commit: str
) -> ReplicationReport:
    """The report on one replication; `command` reruns it, `commit` is that of the judging code."""
    spec = replication.run.spec
    changed = {change.claim for change in judged.problems}

    def as_recorded(name: str) -> bool | None:
        return None if judged.changes is None else name not in changed

    stored = judged.record
    return ReplicationReport(
        name=replication.name,
        title=spec.fields.title,
        paper=spec.fields.paper,
        command=command,
        commit=commit,
        run=_run(replication.run),
        record=None
        if stored is None
        else RecordReport(
            commit=stored.commit, date=stored.date, hash=stored.hash, other_hash=judged.other_hash
        ),
        claims=[
            _claim(
                outcome,
                as_recorded(name),
                judged.elsewhere.get(name, {}),
                is_explained=not replication.for_reference,
            )
            for name, outcome in judged.outcomes.items()
        ],
        controls=[
            ControlReport(
                name=control,
                why=spec.controls[control].why,
                run=_run(replication.controls[control]),
                claims=[
                    ControlClaim(name=name, verdict=verdict, as_recorded=as_recorded(f"{control}: {name}"))
                    for name, verdict in verdicts.items()
                ],
            )
            for control, verdicts in judged.controls.items()
        ],
        changes=None
        if judged.changes is None
        else [NotAsRecorded(**change._asdict()) for change in judged.changes],
        for_reference=replication.for_reference,
        not_asked=replication.not_asked,
    )


def _run(run: "Run") -> RunReport:
    manifest = run.manifest()
    assert manifest is not None
    same: dict[str, Any] = {name: manifest.get(name) for name in RunReport.model_fields if name != "folder"}
    return RunReport(folder="/".join(run.folder.parts[-4:]), **same)


def _claim(
    outcome: "Outcome", as_recorded: bool | None, elsewhere: dict[str, Verdict], *, is_explained: bool
) -> ClaimReport:
    """A claim and its outcome; `is_explained`: what was found out about it applies to this setting."""
    claim = outcome.claim
    region = claim.margin or claim.bound
    assert region is not None
    return ClaimReport(
        name=outcome.name,
        statement=one_line(claim.statement),
        kind=claim.kind,
        paper=claim.source.paper,
        where=claim.source.where,
        read_by=claim.source.read_by,
        published=claim.published.value if claim.published else None,
        theory=claim.theory.value if claim.theory else None,
        region_low=_finite(outcome.region[0]),
        region_high=_finite(outcome.region[1]),
        rule=one_line(region.rule),
        value=_finite(outcome.value),
        low=_finite(outcome.low),
        high=_finite(outcome.high),
        verdict=outcome.verdict,
        reason=outcome.reason,
        more_seeds=outcome.more_seeds,
        needed_half_width=outcome.needed_half_width,
        seeds=outcome.seeds,
        look=outcome.look,
        investigated=one_line(claim.investigated) if claim.investigated and is_explained else None,
        as_recorded=as_recorded,
        elsewhere=elsewhere,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def json_schema() -> str:
    """The JSON schema of `report.json`."""
    return json.dumps(Report.model_json_schema(mode="serialization"), indent=1) + "\n"


def load(path: Path) -> Report:
    """The report in the file `path`, or in the folder `path` as `report.json`.

    Raises:
        InputError: if there is none, or it is not a report of this version.
    """
    path = path / "report.json" if path.is_dir() else path
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from None
    if len(text) > MOST_BYTES or text.count(b",") > MOST_COMMAS:
        raise InputError(f"{path}: not a report written by `replicate report`: it is larger than any report")
    try:
        version = _Versioned.model_validate_json(text).version
        if type(version) is not int or version != VERSION:
            raise InputError(
                f"{path}: this report has version {str(version)[:80]!r}; expected '{VERSION}': "
                "write it again with `replicate report`"
            )
        return Report.model_validate_json(text)
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200]
        problem = one_line(f"{place}: {first['msg']}" if place else first["msg"])
        raise InputError(f"{path}: not a report written by `replicate report`: {problem}") from None
