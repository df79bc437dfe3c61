"""Claims and verdicts as tables, for the terminal and for the README."""

import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from rich.table import Table
from rich.text import Text

from common.system.files import write
from common.system.text import markdown
from common.verdicts.claims import Claim, Verdict

if TYPE_CHECKING:  # reports are compared without what it takes to make one
    from matplotlib.figure import Figure

    from common.verdicts.evaluate import Outcome
    from common.verdicts.record import Change, Record

START, END = "<!-- claims: written by `replicate record` -->", "<!-- end of claims -->"

_MARKED = re.compile(
    rf"^{re.escape(START)}(?P<claims>[ \t]*(?P<end>\r?\n)(?:.*\n)*?){re.escape(END)}[ \t]*\r?$", re.MULTILINE
)

_STYLE = {
    Verdict.REPRODUCED: "green",
    Verdict.NOT_REPRODUCED: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.INVALID: "bold red",
}


def number(value: float) -> str:
    """A number with four significant digits; small ones in powers of ten."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """A duration in the largest unit of which it has at least two."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def interval(value: float, low: float, high: float) -> str:
    """An estimate with its interval, if it has one: exact theory has none, a single seed's is unknown."""
    if math.isnan(value):
        return "none"
    if math.isinf(low) or math.isinf(high):
        return f"{number(value)} [unknown]"
    return number(value) if low == high else f"{number(value)} [{number(low)}, {number(high)}]"


def said(claim: Claim) -> str:
    """The published or theory value of a claim, or the bound that it sets."""
    published = claim.published.value if claim.published else None
    return said_in_words(published, claim.theory.value if claim.theory else None, *claim.region)


def said_in_words(published: float | None, theory: float | None, low: float, high: float) -> str:
    """The value that was published or follows from theory; where there is neither, the region."""
    if published is not None:
        return f"published {number(published)}"
    return f"theory {number(theory)}" if theory is not None else region_in_words(low, high)


def accepted(claim: Claim) -> str:
    """The values that count as reproduced."""
    return region_in_words(*claim.region)


def region_in_words(low: float, high: float) -> str:
    """A region of values, of which one end may be infinite."""
    if math.isinf(low):
        return f"at most {number(high)}"
    return f"at least {number(low)}" if math.isinf(high) else f"{number(low)} to {number(high)}"


def table(name: str, outcomes: "Mapping[str, Outcome]", changes: "list[Change] | None") -> Table:
    """The claims of one replication, a line each, with what came out and whether that is as recorded.

    `changes` is None where nothing is compared with the record.
    """
    kept = {change.claim: change.by_chance for change in changes or []}
    words = {None: Text("yes"), True: Text("within chance"), False: Text("no", "bold red")}
    shown = Table(title=name, title_justify="left", caption_justify="left")
    for column in ("claim", "said", "ours [95 %]", "accepted", "verdict", "as recorded"):
        shown.add_column(column, overflow="fold", no_wrap=column in ("claim", "verdict"))
    for claim, outcome in outcomes.items():
        shown.add_row(
            claim,
            said(outcome.claim),
            interval(outcome.value, outcome.low, outcome.high),
            accepted(outcome.claim),
            Text(outcome.verdict, _STYLE[outcome.verdict]),
            "" if changes is None else words[kept.get(claim)],
        )
    return shown


def remarks(outcomes: "Mapping[str, Outcome]", *, is_explained: bool = True) -> list[str]:
    """A line for each claim that was not reproduced: why, and if it `is_explained` what was found out."""
    lines = []
    for name, outcome in outcomes.items():
        if outcome.verdict is Verdict.REPRODUCED:
            continue
        line = f"{name}: {outcome.verdict}: {outcome.reason}"
        if outcome.claim.investigated and is_explained:
            line += f" Investigated: {' '.join(outcome.claim.investigated.split())}"
        lines.append(line)
    return lines


def claims_table(name: str, claims: Mapping[str, Claim], records: "Mapping[str, Record]") -> list[str]:
    """The recorded claims of one replication as lines of Markdown, with the verdicts of the full profile."""
    recorded = records["full"].claims if "full" in records else {}
    counts = verdict_counts(records)
    said_of = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    lines = [f"**{_code(name)}**: {said_of or 'not recorded yet'}", ""]
    lines += ["| claim | said | ours [95 %] | accepted | verdict |", "|---|---|---|---|---|"]
    for key, claim in claims.items():
        ours, verdict = "", "not recorded yet"
        if key in recorded:
            kept = recorded[key]
            ours, verdict = interval(kept.value, kept.low, kept.high), str(kept.verdict)
        emphasis = "" if verdict == Verdict.REPRODUCED else "**"
        cells = [
            markdown(claim.statement),
            said(claim),
            ours,
            accepted(claim),
            f"{emphasis}{verdict}{emphasis}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def verdict_counts(records: "Mapping[str, Record]") -> dict[Verdict, int]:
    """How many claims the full profile's record has of each verdict."""
    recorded = records["full"].claims.values() if "full" in records else []
    return {verdict: sum(claim.verdict is verdict for claim in recorded) for verdict in Verdict}


def summary(records: "Mapping[str, Mapping[str, Record]]") -> list[str]:
    """How many claims of each replication have which verdict, as lines of Markdown; `records` is by name."""
    lines = [f"| replication | {' | '.join(Verdict)} |", f"|---|{'---|' * len(Verdict)}"]
    for name, stored in records.items():
        paper = quote(name.split("/")[0])
        counts = " | ".join(str(n) for n in verdict_counts(stored).values())
        lines.append(f"| [{_code(name)}](replications/{paper}/README.md#claims) | {counts} |")
    return [*lines, ""]


def with_claims(readme: str, lines: list[str]) -> str:
    """The text `readme` with the lines put between its markers; unchanged if it has none.

    A marker stands on a line of its own.
    """
    marked = _MARKED.search(readme)
    if marked is None:
        return readme
    end = marked["end"]  # of a line in this file
    shown = end.join(["", "", *lines, ""])
    return f"{readme[: marked.start('claims')]}{shown}{readme[marked.end('claims') :]}"


def _code(name: str) -> str:
    """The name of a replication as code; as text where code cannot hold it."""
    return f"`{name}`" if re.fullmatch(r"[\w/.-]+", name) else markdown(name)


def save_figures(figures: "Mapping[str, Figure]", folder: Path, within: Path) -> list[Path]:
    """Write each figure as PNG and PDF into a folder in `within`; the PNGs' paths."""
    for name, figure in figures.items():
        for suffix in ("png", "pdf"):
            buffer = io.BytesIO()
            figure.savefig(buffer, dpi=200, format=suffix)
            write(folder / f"{name}.{suffix}", buffer.getvalue(), within)
    return [folder / f"{name}.png" for name in figures]
