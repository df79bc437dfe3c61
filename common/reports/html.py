"""The report as one HTML page that needs no network, server or JavaScript: `page`."""

import base64
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import jinja2
import matplotlib as mpl
import pandas as pd
import yaml
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from common.reports.compare import ours
from common.reports.schema import ClaimReport, Report
from common.reports.tables import control_result, duration, published_in_words, region_in_words
from common.specs.document import Strict
from common.system.text import cell, counted, visible
from common.verdicts.claims import Verdict

FIGURE_BYTES = 300_000
"""In a larger SVG, points and lines are drawn as pixels."""

TABLE_BYTES = 600_000
"""A larger table is averaged over seeds, and then thinned out."""

_SYMBOL = {
    Verdict.REPRODUCED: "✓",
    Verdict.NOT_REPRODUCED: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.UNDECIDABLE: "∅",
    Verdict.INVALID: "!",
}
_CLASS = {verdict: verdict.name.lower() for verdict in Verdict}


class Picture(Strict):
    """A figure as SVG, and what it shows in words."""

    name: str
    svg: str
    text: str


class Exhibit(Strict):
    """A replication's figures, and the data behind them as CSV; `note` says which part of the table it is."""

    about: str
    pictures: list[Picture]
    csv: str
    note: str


def exhibit(about: str, figures: Mapping[str, Figure], table: pd.DataFrame) -> Exhibit:
    """Figures and instances table, small enough for a page; `about` says what the figures show."""
    pictures = [Picture(name=n, svg=_svg(figure), text=_in_words(figure)) for n, figure in figures.items()]
    csv, note = _csv(table)
    return Exhibit(about=about, pictures=pictures, csv=csv, note=note)


def page(report: Report, exhibits: Mapping[str, Exhibit]) -> str:
    """The HTML of the report, with the exhibit of each replication, by its name."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.filters.update(
        accepted=_accepted, data_uri=_data_uri, duration=duration, link=_link, ours=ours, published=_published
    )
    environment.globals.update(control_result=control_result, counted=counted)
    environment.filters.update(anchor=_anchor, authors=_authors, symbol=_SYMBOL.__getitem__, yaml=_yaml)
    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=report, exhibits=exhibits, verdicts=list(Verdict), css_class=_CLASS
    )


def _svg(figure: Figure) -> str:
    """The figure as SVG, the same bytes each time; partly drawn as pixels where vectors are too large."""

    def drawn() -> str:
        buffer = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "replicate"}):
            figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
        return visible(buffer.getvalue())

    svg = drawn()
    if len(svg) > FIGURE_BYTES:
        for axes in figure.axes:
            for artist in axes.get_children():
                if isinstance(artist, (Line2D, Collection)):
                    artist.set_rasterized(True)
        svg = drawn()
    return svg


def _in_words(figure: Figure) -> str:
    """The text alternative of a figure: all text in it except the numbers on its axes."""
    texts = [t.get_text() for t in figure.findobj(Text) if t.get_visible()]
    written = [text for text in texts if "mathdefault" not in text]  # as in powers of ten on an axis
    words = (" ".join(re.sub(r"[${}\\]", "", text).split()) for text in written)
    return "; ".join(dict.fromkeys(text for text in words if re.search(r"[^\W\d_]", text)))


def _csv(table: pd.DataFrame) -> tuple[str, str]:
    """The table as CSV, or as much of it as a page can hold, and a note on which part that is."""

    def text(part: pd.DataFrame) -> str:
        safe = part.copy()
        for name in part.select_dtypes(exclude="number"):
            safe[name] = part[name].astype(object).map(_cell)
        return safe.rename(columns=_cell).to_csv(index=False, float_format="%.6g", lineterminator="\n")

    csv = text(table)
    if len(csv) <= TABLE_BYTES:
        return csv, f"all {len(table):,} rows, one per network, to six digits"
    factors = list(table.columns[: table.columns.get_loc("seed")])
    groups = table.groupby(factors, sort=False, dropna=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    means.insert(0, "networks", groups.size())
    note = f"means over seeds, {len(means):,} rows to six digits; the whole table has {len(table):,} rows"
    csv = text(means.reset_index())
    if len(csv) > TABLE_BYTES:
        means = means.drop(columns=[name for name in means if re.search(r"_\d+$", str(name))])
        note += f" and {len(table.columns)} columns, of which numbered ones (name_0, name_1) are left out"
        csv = text(means.reset_index())
    if len(csv) > TABLE_BYTES:
        step = -(-len(csv) // TABLE_BYTES)
        note += f"; only one in {step} rows of means"
        csv = text(means.iloc[::step].reset_index())
    return csv, note


def _cell(value: object) -> object:
    return cell(value) if isinstance(value, str) else value


def _data_uri(text: str, media_type: str) -> str:
    if media_type == "text/csv":  # nearly all of its characters need no escape
        return f"data:text/csv;charset=utf-8,{quote(text, safe=',')}"
    return f"data:{media_type};base64,{base64.b64encode(text.encode()).decode()}"


def _anchor(name: str) -> str:
    """The name of a replication as a unique anchor; also the name of its data file."""
    signs = {"/": "-"}
    return re.sub(r"[^A-Za-z0-9_]", lambda sign: signs.get(sign[0], f".{ord(sign[0]):x}."), name)


def _shown(value: object) -> object:
    """A value as the page shows it; the page's own markup is left unchanged."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _authors(author: str) -> str:
    """The authors in BibTeX's form; if there are more than three, only the first."""
    names = author.split(" and ")
    return f"{names[0]} et al." if len(names) > 3 else "; ".join(names)


def _link(url: str | None) -> str | None:
    """The address, if it is a web address."""
    return url if url and re.fullmatch(r"https?://[^\s\x00-\x20]+", url, re.IGNORECASE) else None


def _published(claim: ClaimReport) -> str:
    return published_in_words(claim.published, claim.theory, *_region(claim))


def _accepted(claim: ClaimReport) -> str:
    return region_in_words(*_region(claim))


def _region(claim: ClaimReport) -> tuple[float, float]:
    low, high = claim.region_low, claim.region_high
    return -math.inf if low is None else low, math.inf if high is None else high


def _yaml(data: object) -> str:
    text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100)
    return text
