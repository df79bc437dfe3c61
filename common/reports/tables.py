"""Claims and verdicts as tables, for the terminal and for the README."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
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


class PaperClaims(NamedTuple):
    """The claims of one paper's folder, and their verdicts in the full profile's records."""

    folder: str
    title: str
    claims: list[tuple[Claim, Verdict | None]]

    def add(self, claims: Mapping[str, Claim], records: "Mapping[str, Record]") -> None:
        """Add the claims of one of the folder's replications, with the verdicts of its record."""
        recorded = records["full"].claims if "full" in records else {}
        for name, claim in claims.items():
            self.claims.append((claim, recorded[name].verdict if name in recorded else None))

    def sentence(self) -> str:
        """How many of the paper's own statements were reproduced, and of those derived here, in Markdown."""
        own = [verdict for claim, verdict in self.claims if claim.source.read_by != "derived"]
        derived = [verdict for claim, verdict in self.claims if claim.source.read_by == "derived"]
        parts = []
        if own:
            parts.append(f"of its own {_counted(len(own), 'statement')}, {_fates(own)}")
        if derived:
            parts.append(f"of {_counted(len(derived), 'claim')} derived here, {_fates(derived)}")
        link = f"[{_code(self.folder)}](replications/{quote(self.folder)}/README.md#claims)"
        return f"*{markdown(self.title)}* ({link}): {'; '.join(parts)}."


def _fates(verdicts: Sequence[Verdict | None]) -> str:
    """How many were reproduced and how many were not, in words."""
    said = {
        Verdict.REPRODUCED: ("was reproduced", "were reproduced"),
        Verdict.NOT_REPRODUCED: ("was not", "were not"),
        Verdict.INCONCLUSIVE: ("is inconclusive", "are inconclusive"),
        Verdict.INVALID: ("is invalid", "are invalid"),
        None: ("is not recorded yet", "are not recorded yet"),
    }
    counts = {verdict: n for verdict in said if (n := sum(one is verdict for one in verdicts))}
    if len(counts) == 1 and len(verdicts) > 1:
        return "none was reproduced" if Verdict.NOT_REPRODUCED in counts else f"all {said[verdicts[0]][1]}"
    *first, last = [f"{n} {said[verdict][n != 1]}" for verdict, n in counts.items()]
    return f"{', '.join(first)} and {last}" if first else last


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def summary(papers: Iterable[PaperClaims]) -> list[str]:
    """What became of each paper's claims, as lines of Markdown: a list with a sentence each."""
    return [*(f"- {paper.sentence()}" for paper in papers), ""]


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
