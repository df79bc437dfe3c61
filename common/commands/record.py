"""The command `record`, and the tables of recorded claims in the READMEs."""

import os
from datetime import UTC, datetime
from pathlib import Path

from common.commands.asked import Asked
from common.errors import InputError, one_line
from common.reports import tables
from common.specs.papers import load_papers
from common.system.files import write
from common.system.git import committed
from common.system.terminal import Terminal
from common.verdicts import record as records
from common.verdicts.judge import judge_all, load_all
from common.verdicts.suite import Suite


def record(asked: Asked, console: Terminal) -> int:
    """Make the stored results the reference, and show what changes.

    Raises:
        InputError: in CI, for a replication of another root, and for files that are not committed.
    """
    root = asked.root
    if os.environ.get("CI"):
        raise InputError("record: not allowed in CI: make a record where someone reviews what changes")
    files = [one.files for one in asked.replications]
    for other in (one for one in files if one.root != root):
        raise InputError(f"record: {other.name} belongs to another root; record it with --root {other.root}")
    at = committed(root, [path for one in files for path in (one.path, one.expected)])
    replications = load_all(asked.replications, root, asked.out)
    suite = asked.suites[root]
    n_claims = suite.n_claims
    for replication, judged in zip(replications, judge_all(replications, {root: n_claims}), strict=True):
        manifest = replication.run.manifest()
        assert manifest is not None
        stored = records.load(replication.files.record)
        old = stored.get(asked.profile)
        for change in records.differences(old, judged.outcomes, judged.controls, n_claims):
            console.print(f"{replication.name}: {change.claim}: {change.problem}")
        stored[asked.profile] = records.Record(
            hash=replication.run.hash,
            versions=manifest["versions"],
            device=manifest["device"],
            commit=at,
            date=datetime.now(UTC).date().isoformat(),
            core_s={
                run.variant.name: float(about["core_s"])
                for run in replication.runs
                if (about := run.manifest()) is not None
            },
            claims={name: records.recorded(outcome) for name, outcome in judged.outcomes.items()},
            controls=judged.controls,
        )
        records.save(replication.files.record, stored)
        console.print(f"written: {replication.files.record}")
    for path, text in readmes(suite).items():
        write(path, text, within=root)
    return 0


def readmes(suite: Suite) -> dict[Path, str]:
    """The existing READMEs with the recorded claims: counts in the suite's, each claim in its paper's.

    Raises:
        InputError: if a README cannot be read.
    """
    titles = {key: paper.title for key, paper in load_papers(suite.root).items()}
    papers: dict[str, tables.PaperClaims] = {}
    lines: dict[Path, list[str]] = {}
    for name, files in suite.replications.items():
        folder, claims, stored = files.path.parent, suite.claims(files).claims, records.load(files.record)
        key = suite.fields(files).paper
        paper = papers.setdefault(folder.name, tables.PaperClaims(folder.name, titles.get(key, key), []))
        paper.add(claims, stored)
        lines.setdefault(folder / "README.md", []).extend(tables.claims_table(name, claims, stored))
    lines[suite.root / "README.md"] = tables.summary(papers.values())
    return {path: tables.with_claims(_text(path), claims) for path, claims in lines.items() if path.exists()}


def _text(path: Path) -> str:
    """The text of a file, with its line endings unchanged."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from None
