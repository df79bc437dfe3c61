"""The report on stored results: judged or taken over, written as a web page and machine-readable files."""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure
from pydantic import ValidationError

from common.errors import InputError, blamed
from common.reports.html import Exhibit, exhibit, page
from common.reports.junit import badge, junit
from common.reports.schema import (
    NotRun,
    ReplicationReport,
    Report,
    json_schema,
    replication_report,
    report_on,
)
from common.reports.tables import save_figures
from common.runs.shard import diverged
from common.runs.store import Run, finished, variant_of
from common.runs.workers import spread
from common.specs.document import Strict
from common.specs.find import Files
from common.specs.papers import load_papers
from common.system.files import SUITE, write
from common.system.git import commit
from common.verdicts.evaluate import draw
from common.verdicts.judge import Judged, Replication, judge_all
from common.verdicts.suite import Written


class Fresh(NamedTuple):
    """What was just judged, and its figures in the form that the report needs, if they were just drawn."""

    judged: Judged
    exhibit: Exhibit | None = None


class Drawn(NamedTuple):
    """A replication's figures: for the report, as files, and why there are none if networks diverged."""

    exhibit: Exhibit
    files: list[Path]
    problem: str | None


class _Section(Strict):
    """One replication's part of a report, kept beside it; `digest` covers all that it was made from.

    `code`: the folders whose code its spec names, other than its own and `common/`. The first line of its
    file is the digest of the rest.
    """

    digest: str
    code: list[str]
    report: ReplicationReport
    exhibit: Exhibit


def publish(
    profile: str,
    replications: Sequence[Replication | Written],
    to: Path,
    fresh: Mapping[str, Fresh],
    commands: Mapping[str, str],
    n_claims: Mapping[Path, int],
    *,
    within: Path,
    not_read: Sequence[NotRun] = (),
) -> Report:
    """Write the report on `replications` into the folder `to`, which is `within` or lies in it.

    What is `fresh` is taken unchanged. The part of any other replication is taken over from an earlier report
    if neither data nor code nor claims have changed; otherwise a `Replication` is judged, and one that is
    only `Written`, whose results are in `within`, is listed as not judged. `commands` rerun each replication,
    `n_claims` has the number of claims of each root, `not_read` are others that are only listed.

    Raises:
        InputError: if it cannot be written; each file is written whole or not at all.
    """
    roots = dict.fromkeys(one.files.root for one in replications)
    commits = {root: commit(root) for root in roots}
    names = [one.name for one in replications]
    paths = {name: to / "sections" / f"{name.replace('/', '.')}.{profile}.json" for name in names}
    basis = {one.name: f"{n_claims[one.files.root]} {commands[one.name]}" for one in replications}
    sections: dict[str, _Section] = {}
    not_run = list(not_read)
    to_judge: list[Replication] = []
    for one in replications:
        name = one.name
        if name in fresh:
            continue
        if kept := _load(paths[name], one, basis[name], within):
            sections[name] = kept
        elif isinstance(one, Written):
            not_run.append(NotRun(name=name, title=one.run.fields.title, why=_why_not_judged(one, within)))
        elif why := _why_incomplete(one):
            not_run.append(NotRun(name=name, title=one.run.spec.fields.title, why=why))
        else:
            to_judge.append(one)
    judged = zip(to_judge, judge_all(to_judge, n_claims), strict=True)
    fresh = {**fresh, **{one.name: Fresh(outcome) for one, outcome in judged}}
    made = [one for one in replications if isinstance(one, Replication) and one.name in fresh]
    to_draw = [one for one in made if fresh[one.name].exhibit is None]
    exhibits = {name: new.exhibit for name, new in fresh.items() if new.exhibit}
    with spread(len(to_draw)) as spread_map:
        exhibits |= zip((one.name for one in to_draw), spread_map(_drawn_exhibit, to_draw), strict=True)
    for one in made:
        name = one.name
        report = replication_report(one, fresh[name].judged, commands[name], commits[one.files.root])
        code = _code_elsewhere(one)
        digest = _digest(one.files, basis[name], code, _states(one))
        sections[name] = _Section(digest=digest, code=code, report=report, exhibit=exhibits[name])
        text = sections[name].model_dump_json()
        write(paths[name], f"{_digest_of(text)}\n{text}", within)
    written = datetime.now(UTC).isoformat(timespec="seconds")
    papers = {key: paper for root in roots for key, paper in load_papers(root).items()}
    ordered = [sections[name] for name in names if name in sections]
    whole = report_on(profile, written, papers, [section.report for section in ordered], not_run)
    _write(to, within, whole, {section.report.name: section.exhibit for section in ordered})
    return whole


def draw_figures(replication: Replication) -> Drawn:
    """Draw the figures of a replication, and write them beside its results.

    Raises:
        InputError: if they cannot be drawn although no network diverged.
    """
    run, problem = replication.run, None
    table = _table(run)
    try:
        figures = draw(run.spec.code, table, replication.all_claims)
    except InputError as error:
        if diverged(table).empty:
            raise
        figures, problem = {}, str(error)
    with _while_drawing(run):
        for figure in figures.values():  # its layout is done: do not repeat it for each format
            figure.set_layout_engine("none")
        files = save_figures(figures, run.folder / "figures", run.out)
    return Drawn(_exhibit(replication, figures), files, problem)


def _write(to: Path, within: Path, report: Report, exhibits: Mapping[str, Exhibit]) -> None:
    texts = {
        "report.html": page(report, exhibits),
        "report.json": report.model_dump_json(indent=1) + "\n",
        "report.schema.json": json_schema(),
        "junit.xml": junit(report),
        "badge.json": json.dumps(badge(report)) + "\n",
    }
    for name, text in texts.items():
        write(to / name, text, within)


def _drawn_exhibit(replication: Replication) -> Exhibit:
    run = replication.run
    with _while_drawing(run):
        return _exhibit(replication, draw(run.spec.code, _table(run), replication.all_claims))


def _while_drawing(run: Run) -> AbstractContextManager[None]:
    """A context that reports in one line what matplotlib cannot draw, such as an invalid formula."""
    code = run.spec.code
    return blamed("figures()", at=code.__file__ or code.__name__, after="; what was trained is stored")


def _exhibit(replication: Replication, figures: Mapping[str, Figure]) -> Exhibit:
    about = (inspect.getdoc(replication.run.spec.code.figures) or "").split("\n\nRaises:")[0]
    return exhibit(about.replace("`", ""), figures, _table(replication.run))


def _table(run: Run) -> pd.DataFrame:
    table = run.table()
    assert table is not None
    return table


def _why_incomplete(replication: Replication) -> str | None:
    """Why there is nothing to judge; None if the results are complete."""
    for run in replication.runs:
        if run.table() is None:
            return f"{run.variant.name}: {run.why_incomplete()}"
    return None


def _why_not_judged(written: Written, out: Path) -> str:
    """Why a replication has no part to take over, as far as this is known without resolving its spec."""
    for control in (None, *written.run.fields.controls):
        variant = variant_of(written.run.profile, control)
        folder = out / written.name / variant
        if any(folder.glob("*/manifest.json")):
            continue
        if any(folder.glob("*/shards/*")):
            return f"{variant}: not finished; `replicate run` continues it"
        return f"{variant}: never run"
    how = "`replicate report` judges them, or says what has changed since"
    return f"its results have not been judged by this version of the code; {how}"


def _load(path: Path, one: Replication | Written, basis: str, out: Path) -> _Section | None:
    """The part kept in the file `path`; None if there is none, or it is damaged or out of date."""
    try:
        first, _, text = path.read_bytes().decode().partition("\n")
        if first != _digest_of(text):
            return None
        part = _Section.model_validate_json(text)
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    states = _states(one) if isinstance(one, Replication) else _states_of(part.report, out)
    return part if part.digest == _digest(one.files, basis, part.code, states) else None


def _digest(files: Files, basis: str, code_elsewhere: Sequence[str], states: Sequence[str]) -> str:
    """The digest of the data, claims and code that decide a replication's part of the report.

    The spec, the code of the classes that it names and the version of torch decide the hash of its runs: they
    can be compared without importing anything.
    """
    digest = hashlib.sha256(f"{basis} {torch.__version__} {[*code_elsewhere]} {[*states]}".encode())
    folders = [files.path.parent, *map(Path, code_elsewhere)]
    code = [*(path for folder in folders for path in folder.glob("*.py")), *(SUITE / "common").rglob("*.py")]
    for path in (files.path, files.expected, files.record, files.samples, *sorted(code)):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _code_elsewhere(replication: Replication) -> list[str]:
    """The folders of the code that the specs of its runs name, other than its own and `common/`.

    That is the module with the estimates and figures, and those of the classes: what a control names too.
    """
    estimates = replication.run.spec.code.__file__
    folders = {Path(estimates).resolve().parent} if estimates else set()
    for named in dict.fromkeys(one for run in replication.runs for one in run.spec.classes):
        code = getattr(inspect.unwrap(named.__init__), "__code__", None)  # type: ignore[misc]
        for file in (getattr(sys.modules[named.__module__], "__file__", None), code and code.co_filename):
            if file is not None:
                folders.add(Path(file).resolve().parent)
    own = replication.files.path.resolve().parent
    return sorted(str(one) for one in folders if one != own and not one.is_relative_to(SUITE / "common"))


def _states(replication: Replication) -> list[str]:
    """What is stored for each run: its folder, its hash, and the digest of its table."""
    return [_state(run.folder, run.hash, run.manifest()) for run in replication.runs]


def _states_of(report: ReplicationReport, out: Path) -> list[str]:
    """`_states` of the runs in a report, as far as they are still stored unchanged."""
    states = []
    for run in (report.run, *(control.run for control in report.controls)):
        manifest = finished(folder := out / run.folder)
        same = manifest is not None and (manifest["hash"], manifest["spec"]) == (run.hash, run.spec)
        states.append(_state(folder, run.hash, manifest if same else None))
    return states


def _state(folder: Path, run_hash: str, manifest: Mapping[str, Any] | None) -> str:
    place = "/".join(folder.parts[-4:])
    return f"{place} {run_hash} {manifest and manifest['instances_digest']}"


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
