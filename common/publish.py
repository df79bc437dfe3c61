"""The report on what is stored: judged or taken over, written as a page for people and files for machines."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from pydantic import ValidationError

from common.answer import Answer, NotRun, ReplicationAnswer, answer, badge, junit, replication_answer
from common.blame import blamed
from common.claims import draw
from common.document import InputError, Strict
from common.files import write
from common.fit import diverged
from common.git import commit
from common.html import Exhibit, exhibit, page
from common.papers import load_papers
from common.replication import Judged, Replication, count_claims, judge_all
from common.report import save_figures
from common.results import Run
from common.sweep import shards
from common.workers import spread


class Fresh(NamedTuple):
    """What was just judged, and its figures in the form that the report has, if they were just drawn."""

    judged: Judged
    exhibit: Exhibit | None = None


class Drawn(NamedTuple):
    """A replication's figures: for the report, as files, and why there are none if networks have diverged."""

    exhibit: Exhibit
    files: list[Path]
    problem: str | None


class _Part(Strict):
    """One replication's part of a report, kept beside it; `digest` is of all that it was made from.

    In its file a line with the digest of the rest goes before it.
    """

    digest: str
    answer: ReplicationAnswer
    exhibit: Exhibit


def publish(
    profile: str,
    replications: list[Replication],
    to: Path,
    fresh: Mapping[str, Fresh],
    commands: Mapping[str, str],
    *,
    within: Path,
    judge_rest: bool,
    not_loaded: Sequence[NotRun] = (),
) -> Answer:
    """Write the report on `replications` into the folder `to`, which is or lies in the folder `within`.

    What is `fresh` is taken as it is. Of the rest, a part that an earlier report has is taken over if neither
    data nor code nor claims have changed; others are judged if `judge_rest`, else listed as not judged.
    `commands` are those that rerun each replication, `not_loaded` others that are only listed.

    Raises:
        InputError: if it cannot be written; a file is written whole or not at all.
    """
    roots = dict.fromkeys(replication.found.root for replication in replications)
    n_claims = {root: count_claims(root) for root in roots}
    code = {root: commit(root) for root in roots}
    digests = {one.name: _digest(one, commands[one.name], n_claims[one.found.root]) for one in replications}
    paths = {name: to / "parts" / f"{name.replace('/', '.')}.{profile}.json" for name in digests}
    stored = {name: _load(paths[name], digest) for name, digest in digests.items()}
    not_run = list(not_loaded)
    to_judge = []
    for replication in replications:
        name = replication.name
        if name in fresh or stored[name]:
            continue
        why = _why_incomplete(replication)
        if why is None and judge_rest:
            to_judge.append(replication)
            continue
        why = why or "there are results, not judged by this code yet; `replicate report` judges them"
        not_run.append(NotRun(name=name, title=replication.run.spec.fields.title, why=why))
    judged = zip(to_judge, judge_all(to_judge, n_claims), strict=True)
    fresh = {**fresh, **{one.name: Fresh(found) for one, found in judged}}
    exhibits = {name: found.exhibit for name, found in fresh.items() if found.exhibit}
    exhibits |= {name: kept.exhibit for name, kept in stored.items() if kept}
    to_draw = [one for one in replications if one.name in fresh and one.name not in exhibits]
    with spread(len(to_draw)) as spread_map:
        exhibits |= zip((one.name for one in to_draw), spread_map(_drawn_exhibit, to_draw), strict=True)
    parts: list[_Part] = []
    for replication in replications:
        name, path = replication.name, paths[replication.name]
        kept = stored[name]
        if found := fresh.get(name):
            given = replication_answer(
                replication, found.judged, commands[name], code[replication.found.root]
            )
            kept = _Part(digest=digests[name], answer=given, exhibit=exhibits[name])
            text = kept.model_dump_json()
            write(path, f"{_digest_of(text)}\n{text}", within)
        if kept:
            parts.append(kept)
    written = datetime.now(UTC).isoformat(timespec="seconds")
    papers = {key: paper for root in roots for key, paper in load_papers(root).items()}
    report = answer(profile, written, papers, [part.answer for part in parts], not_run)
    _write(to, within, report, {part.answer.name: part.exhibit for part in parts})
    return report


def draw_figures(replication: Replication) -> Drawn:
    """Draw the figures of a replication, and put them beside its results.

    Raises:
        InputError: if they cannot be drawn, and no network has diverged.
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
        for figure in figures.values():  # which is laid out: not again for each format
            figure.set_layout_engine("none")
        files = save_figures(figures, run.folder / "figures", run.out)
    return Drawn(_exhibit(replication, figures), files, problem)


def schema() -> str:
    """The JSON schema of `report.json`."""
    return json.dumps(Answer.model_json_schema(mode="serialization"), indent=1) + "\n"


def _write(to: Path, within: Path, report: Answer, exhibits: Mapping[str, Exhibit]) -> None:
    texts = {
        "report.html": page(report, exhibits),
        "report.json": report.model_dump_json(indent=1) + "\n",
        "report.schema.json": schema(),
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
    """In which what matplotlib cannot draw, such as a formula that it cannot read, is told in one line."""
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
    """Why there is nothing to judge; None if all results are there."""
    for run in replication.runs:
        if run.table() is None:
            return f"{run.variant.name}: {run.why_incomplete(shards(run.spec))}"
    return None


def _digest(replication: Replication, command: str, n_claims: int) -> str:
    """Of the data, the claims and the code that decide a replication's part of the report."""
    digest = hashlib.sha256(f"{n_claims} {command}".encode())
    for run in replication.runs:
        manifest = run.manifest()
        digest.update(f"{run.hash} {manifest and manifest['instances_digest']}".encode())
    found = replication.found
    code = [*found.path.parent.glob("*.py"), *Path(__file__).parent.glob("*.py")]
    for path in (found.path, found.expected, found.record, *sorted(code)):
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()


def _load(path: Path, digest: str) -> _Part | None:
    """The part kept in the file `path`, None if there is none, it is damaged, or it is not of this digest."""
    try:
        first, _, text = path.read_bytes().decode().partition("\n")
        if first != _digest_of(text):
            return None
        part = _Part.model_validate_json(text)
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return part if part.digest == digest else None


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
