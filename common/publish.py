"""The report on what is stored: judged or taken over, written as a page for people and files for machines."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from pydantic import ValidationError

from common.answer import Answer, NotRun, ReplicationAnswer, answer, badge, junit, replication_answer
from common.claims import draw
from common.document import Strict
from common.html import Exhibit, exhibit, page
from common.papers import load_papers
from common.replication import Judged, Replication, count_claims, judge
from common.results import commit
from common.sweep import shards


class Fresh(NamedTuple):
    """What was just judged, and its figures if they were just drawn."""

    judged: Judged
    figures: Mapping[str, Figure] | None = None


class _Part(Strict):
    """One replication's part of a report, kept beside it; `digest` is of all that it was made from."""

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
    judge_rest: bool,
) -> Answer:
    """Write the report on `replications` into the folder `to`.

    What is `fresh` is taken as it is. Of the rest, a part that an earlier report has is taken over if neither
    data nor code nor claims have changed; others are judged if `judge_rest`, else listed as not judged.
    `commands` are those that rerun each replication.

    Raises:
        OSError: if it cannot be written.
    """
    roots = dict.fromkeys(replication.found.root for replication in replications)
    n_claims = {root: count_claims(root) for root in roots}
    code = {root: commit(root) for root in roots}
    parts: list[_Part] = []
    not_run: list[NotRun] = []
    for replication in replications:
        name, run = replication.name, replication.run
        path = to / "parts" / f"{name.replace('/', '.')}.{profile}.json"
        root = replication.found.root
        digest = _digest(replication, commands[name], n_claims[root])
        kept = _load(path, digest)
        found = fresh.get(name)
        why = None if found or kept else _why_incomplete(replication)
        if not (found or kept or why or judge_rest):
            why = "there are results, not judged by this code yet; `replicate report` judges them"
        if why:
            not_run.append(NotRun(name=name, title=run.spec.fields.title, why=why))
            continue
        if kept is None or found:
            found = found or Fresh(judge(replication, n_claims[root]))
            given = replication_answer(replication, found.judged, commands[name], code[root])
            kept = _Part(
                digest=digest, answer=given, exhibit=kept.exhibit if kept else _exhibit(replication, found)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(kept.model_dump_json(), encoding="utf-8")
        parts.append(kept)
    written = datetime.now(UTC).isoformat(timespec="seconds")
    papers = {key: paper for root in roots for key, paper in load_papers(root).items()}
    report = answer(profile, written, papers, [part.answer for part in parts], not_run)
    _write(to, report, {part.answer.name: part.exhibit for part in parts})
    return report


def schema() -> str:
    """The JSON schema of `report.json`."""
    return json.dumps(Answer.model_json_schema(mode="serialization"), indent=1) + "\n"


def _write(to: Path, report: Answer, exhibits: Mapping[str, Exhibit]) -> None:
    texts = {
        "report.html": page(report, exhibits),
        "report.json": report.model_dump_json(indent=1) + "\n",
        "report.schema.json": schema(),
        "junit.xml": junit(report),
        "badge.json": json.dumps(badge(report)) + "\n",
    }
    to.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (to / name).write_text(text, encoding="utf-8")


def _exhibit(replication: Replication, found: Fresh) -> Exhibit:
    table, code = replication.run.table(), replication.run.spec.code
    assert table is not None
    about = (inspect.getdoc(code.figures) or "").split("\n\nRaises:")[0].replace("`", "")
    return exhibit(about, found.figures or draw(code, table), table)


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
        part = _Part.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return part if part.digest == digest else None
