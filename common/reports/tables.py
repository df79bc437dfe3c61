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

from common.specs.fields import BUILT_IN, DECIDED
from common.system.files import write
from common.system.text import counted, markdown
from common.verdicts.claims import Claim, Verdict

if TYPE_CHECKING:  # comparing reports does not need what writing one needs
    from matplotlib.figure import Figure

    from common.verdicts.evaluate import Outcome
    from common.verdicts.record import Change, Record

START, END = "<!-- claims: written by `replicate record` -->", "<!-- end of claims -->"

_MARKED = re.compile(
    rf"^{re.escape(START)}(?P<claims>[ \t]*(?P<end>\r?\n)(?:.*\n)*?){re.escape(END)}[ \t]*\r?$", re.MULTILINE
)

ESTIMATE = "estimate [95 % CI]"
"""The head of a column of estimates; in the profile `decided`, each interval is that of its look."""

_STYLE = {
    Verdict.REPRODUCED: "green",
    Verdict.NOT_REPRODUCED: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.UNDECIDABLE: "cyan",
    Verdict.INVALID: "bold red",
}


def number(value: float) -> str:
    """A number with four significant digits; small ones in powers of ten."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """A duration in the largest unit that fits into it at least twice."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def interval(value: float, low: float, high: float) -> str:
    """An estimate with its interval, if it has one: exact theory has none, and one seed gives none."""
    if math.isnan(value):
        return "none"
    if math.isinf(low) or math.isinf(high):
        return f"{number(value)} [unknown]"
    return number(value) if low == high else f"{number(value)} [{number(low)}, {number(high)}]"


def published(claim: Claim) -> str:
    """The published or theoretical value of a claim, or the bound that it sets."""
    value = claim.published.value if claim.published else None
    return published_in_words(value, claim.theory.value if claim.theory else None, *claim.region)


def published_in_words(published: float | None, theory: float | None, low: float, high: float) -> str:
    """The published value, else that of theory; where there is neither, the acceptance region."""
    if published is not None:
        return number(published)
    return f"theory: {number(theory)}" if theory is not None else region_in_words(low, high)


def control_result(n_failed: int, n_claims: int) -> str:
    """How many of the claims that a control must fail it failed, and whether that is all of them."""
    start = f"fails {n_failed} of {counted(n_claims, 'claim')}"
    if n_failed == n_claims:
        return f"{start}, as required"
    return f"{start}; it must fail {'it' if n_claims == 1 else f'all {n_claims}'}"


def accepted(claim: Claim) -> str:
    """The acceptance region of a claim, in words."""
    return region_in_words(*claim.region)


def region_in_words(low: float, high: float) -> str:
    """A region of values, one end of which may be infinite."""
    if math.isinf(low):
        return f"at most {number(high)}"
    return f"at least {number(low)}" if math.isinf(high) else f"{number(low)} to {number(high)}"


def table(name: str, outcomes: "Mapping[str, Outcome]", changes: "list[Change] | None") -> Table:
    """The claims of one replication, one per line, with their outcomes and whether they match the record.

    `changes` is None where nothing is compared with the record.
    """
    kept = {change.claim: change.by_chance for change in changes or []}
    words = {None: Text("yes"), True: Text("within chance"), False: Text("no", "bold red")}
    shown = Table(title=name, title_justify="left", caption_justify="left")
    estimate = "estimate [CI of its look]" if any(one.look for one in outcomes.values()) else ESTIMATE
    for column in ("claim", "published", estimate, "acceptance region", "verdict", "matches record"):
        shown.add_column(column, overflow="fold", no_wrap=column in ("claim", "verdict"))
    for claim, outcome in outcomes.items():
        shown.add_row(
            claim,
            published(outcome.claim),
            interval(outcome.value, outcome.low, outcome.high),
            accepted(outcome.claim),
            Text(outcome.verdict, _STYLE[outcome.verdict]),
            "" if changes is None else words[kept.get(claim)],
        )
    return shown


def remarks(outcomes: "Mapping[str, Outcome]", *, is_explained: bool = True) -> list[str]:
    """A line for each claim that was not reproduced: why and, if it `is_explained`, what was found out."""
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
    """The recorded claims of one replication as lines of Markdown, with the verdicts in full and decided.

    The estimate is that of the latter, where it is recorded.
    """
    told = [f"{profile}: {_counts(records[profile])}" for profile in BUILT_IN if profile in records]
    lines = [f"**{_code(name)}**: {'; '.join(told) or 'not recorded yet'}", ""]
    profiles = [profile for profile in BUILT_IN if profile in records] or ["full"]
    estimate = "estimate [CI of its look]" if DECIDED in profiles else ESTIMATE
    lines += [
        f"| claim | published | {estimate} | acceptance region | {' | '.join(profiles)} |",
        f"|---|---|---|---{'|---' * len(profiles)}|",
    ]
    for key, claim in claims.items():
        kept = [records[one].claims.get(key) if one in records else None for one in profiles]
        last = next((one for one in reversed(kept) if one), None)
        estimate = interval(last.value, last.low, last.high) if last else ""
        verdicts = [str(one.verdict) if one else "not recorded yet" for one in kept]
        cells = [
            markdown(claim.statement),
            published(claim),
            estimate,
            accepted(claim),
            *(one if one == Verdict.REPRODUCED else f"**{one}**" for one in verdicts),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _counts(record: "Record") -> str:
    """The number of claims with each verdict that a record has."""
    verdicts = [claim.verdict for claim in record.claims.values()]
    return ", ".join(f"{n} {verdict}" for verdict in Verdict if (n := verdicts.count(verdict)))


def final_verdicts(records: "Mapping[str, Record]") -> dict[str, Verdict]:
    """The recorded verdict of each claim: that of decided, where it is recorded, else that of full."""
    profiles = [records[profile] for profile in BUILT_IN if profile in records]
    return {name: claim.verdict for record in profiles for name, claim in record.claims.items()}


class PaperClaims(NamedTuple):
    """The claims of one paper's folder, and their recorded verdicts, as in `final_verdicts`."""

    folder: str
    title: str
    claims: list[tuple[Claim, Verdict | None]]

    def add(self, claims: Mapping[str, Claim], records: "Mapping[str, Record]") -> None:
        """Add the claims of one of the folder's replications, with the verdicts of its record."""
        recorded = final_verdicts(records)
        self.claims.extend((claim, recorded.get(name)) for name, claim in claims.items())

    def sentence(self) -> str:
        """How many of the paper's own statements, and of the claims derived here, were reproduced."""
        own = [verdict for claim, verdict in self.claims if claim.source.read_by != "derived"]
        derived = [verdict for claim, verdict in self.claims if claim.source.read_by == "derived"]
        parts = []
        if own:
            parts.append(f"of its own {counted(len(own), 'statement')}, {_fates(own)}")
        if derived:
            parts.append(f"of {counted(len(derived), 'claim')} derived here, {_fates(derived)}")
        link = f"[{_code(self.folder)}](replications/{quote(self.folder)}/README.md#claims)"
        return f"*{markdown(self.title)}* ({link}): {'; '.join(parts)}."


def _fates(verdicts: Sequence[Verdict | None]) -> str:
    """How many were reproduced and how many were not, in words."""
    words = {
        Verdict.REPRODUCED: ("was reproduced", "were reproduced"),
        Verdict.NOT_REPRODUCED: ("was not", "were not"),
        Verdict.INCONCLUSIVE: ("is inconclusive", "are inconclusive"),
        Verdict.UNDECIDABLE: ("is undecidable", "are undecidable"),
        Verdict.INVALID: ("is invalid", "are invalid"),
        None: ("is not recorded yet", "are not recorded yet"),
    }
    counts = {verdict: n for verdict in words if (n := sum(one is verdict for one in verdicts))}
    if len(counts) == 1 and len(verdicts) > 1:
        return "none was reproduced" if Verdict.NOT_REPRODUCED in counts else f"all {words[verdicts[0]][1]}"
    *first, last = [f"{n} {words[verdict][n != 1]}" for verdict, n in counts.items()]
    return f"{', '.join(first)} and {last}" if first else last


def summary(papers: Iterable[PaperClaims]) -> list[str]:
    """The outcome of each paper's claims, as lines of Markdown: a list with one sentence per paper."""
    return [*(f"- {paper.sentence()}" for paper in papers), ""]


def with_claims(readme: str, lines: list[str]) -> str:
    """The text `readme` with the lines put between its markers; unchanged if it has none.

    Each marker is on a line of its own.
    """
    marked = _MARKED.search(readme)
    if marked is None:
        return readme
    end = marked["end"]  # the line ending of this file
    shown = end.join(["", "", *lines, ""])
    return f"{readme[: marked.start('claims')]}{shown}{readme[marked.end('claims') :]}"


def _code(name: str) -> str:
    """The name of a replication as code, or as text where code cannot hold it."""
    return f"`{name}`" if re.fullmatch(r"[\w/.-]+", name) else markdown(name)


def save_figures(figures: "Mapping[str, Figure]", folder: Path, within: Path) -> list[Path]:
    """Write each figure as PNG and PDF into a folder in `within`; returns the PNGs' paths."""
    for name, figure in figures.items():
        for suffix in ("png", "pdf"):
            buffer = io.BytesIO()
            figure.savefig(buffer, dpi=200, format=suffix)
            write(folder / f"{name}.{suffix}", buffer.getvalue(), within)
    return [folder / f"{name}.png" for name in figures]
