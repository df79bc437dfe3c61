"""Tests of reports/html.py: what is in the page, and in a browser that it shows, filters, stays offline."""

import io
import json
import re
import shutil
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from csv import reader
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from selenium import webdriver
from selenium.webdriver.common.by import By

from common.reports import html
from common.reports.schema import Report

HOSTILE = "<script>document.title = 'taken over'</script> & \"quoted\" x < y"
VERDICTS = ["reproduced", "not reproduced", "inconclusive", "undecidable", "invalid"]
TABLE = pd.DataFrame({"part": "a", "density": [0.1, 0.1, 0.2], "seed": [0, 1, 0], "loss": [1 / 3, 1, 2]})
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
DRIVER = shutil.which("chromedriver")


def replication(name: str, paper: str, verdicts: list[str], changed: str = "") -> dict[str, Any]:
    run = {
        "folder": f"{name}/full/0", "hash": "0", "instances": 3, "shards": 4, "compiled_shards": 3,
        "device": "CPU", "wall_s": 61.0,
        "finished": "2026-01-01", "versions": {"torch": "2"}, "spec": {"seeds": [0, 1]},
    }  # fmt: skip
    claims = [
        {
            "name": f"claim_{i}", "statement": HOSTILE, "kind": "ordering", "paper": paper,
            "where": "figure 1", "read_by": "text", "published": None, "theory": None, "region_low": 0.5,
            "region_high": None, "rule": "half", "value": 1.0, "low": 0.9, "high": 1.1, "verdict": verdict,
            "reason": "for one reason", "more_seeds": None, "needed_half_width": None,
            "seeds": 2, "look": None, "investigated": HOSTILE,
            "as_recorded": f"claim_{i}" != changed,
        }
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip
    lost = [{"name": "claim_0", "verdict": "not reproduced", "as_recorded": True}]
    return {
        "name": name, "title": f"Title of {name}", "paper": paper, "command": f"replicate run {name}",
        "for_reference": False, "not_asked": [],
        "commit": "abc+", "run": run, "record": None, "claims": claims,
        "controls": [{"name": "broken", "why": "on purpose", "run": run, "claims": lost}],
        "changes": [
            *([{"claim": changed, "problem": "moved", "by_chance": False}] if changed else []),
            {"claim": "claim_0", "problem": "to inconclusive", "by_chance": True},
        ],
    }  # fmt: skip


def report() -> Report:
    papers = {
        "first": {"title": HOSTILE, "url": "https://example.org/first"},
        "second": {"title": "Second", "url": "javascript:alert(1)"},
    }
    return Report.model_validate_json(json.dumps({
        "profile": "full", "written": "2026-01-01", "as_recorded": False, "papers": papers,
        "counts": {"reproduced": 2, "not reproduced": 2, "inconclusive": 1, "undecidable": 1, "invalid": 1},
        "replications": [
            replication("one/a", "first", VERDICTS, changed="claim_1"),
            replication("two/b", "second", ["reproduced", "not reproduced"]),
        ],
        "not_run": [{"name": "two/c", "title": "Never run", "why": "full: never run"}],
    }))  # fmt: skip


def figure(points: int = 3) -> Figure:
    drawn = Figure(figsize=(3, 2))
    axes = drawn.add_subplot(xlabel="density $p$", title="Points")
    axes.plot(np.linspace(0, 1, points), np.sin(np.arange(points)), "o")
    return drawn


@pytest.fixture(scope="module")
def page() -> str:
    figures = {"points": figure(), "more": figure()}
    shown = html.exhibit("Some points.", figures, TABLE)
    return html.page(report(), {"one/a": shown, "two/b": shown})


def test_what_comes_from_files_is_shown_and_not_run(page: str) -> None:
    assert page.count("<script>") == 1
    assert "&lt;script&gt;document.title" in page
    assert 'href="https://example.org/first"' in page
    assert "javascript:" not in page
    assert "full: never run" in page
    assert "2 of 7 claims were reproduced" in page
    assert "with uncommitted changes" in page
    assert page.count(">within chance<") == 3  # a claim of each, and all of the second
    assert page.count("to inconclusive") == 2


def test_nothing_is_fetched_from_elsewhere(page: str) -> None:
    sources = re.findall(r'\bsrc="([^"]*)"|<link rel="icon" href="([^"]*)"|url\(([^)]*)\)', page)
    assert len(sources) == 5
    assert all("".join(source).startswith("data:") for source in sources)
    assert "default-src 'none'" in page


def test_a_figure_is_the_same_each_time_and_says_what_it_shows() -> None:
    (one,), (other,) = (html.exhibit("", {"f": figure()}, TABLE).pictures for _ in range(2))
    assert one == other
    assert one.text == "density p; Points"
    named = figure()
    named.axes[0].set(xscale="symlog", yticks=[0, 1], yticklabels=["without", "with"])
    (shown,) = html.exhibit("", {"f": named}, TABLE).pictures
    assert shown.text == "density p; without; with; Points"


def test_a_figure_of_many_points_is_drawn_as_pixels() -> None:
    few, many = (html.exhibit("", {"f": figure(n)}, TABLE).pictures[0].svg for n in (100, 30_000))
    assert "<image" not in few
    assert "<image" in many
    assert len(many) < html.FIGURE_BYTES


def test_the_data_are_those_of_the_table() -> None:
    shown = html.exhibit("", {}, TABLE)
    assert shown.csv == "part,density,seed,loss\na,0.1,0,0.333333\na,0.1,1,1\na,0.2,0,2\n"
    assert shown.note == "all 3 rows, one per network, to six digits"


def test_a_large_table_is_averaged_and_then_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TABLE.assign(norm_0=1.0)
    monkeypatch.setattr(html, "TABLE_BYTES", 70)
    means = html.exhibit("", {}, table)
    assert means.csv == "part,density,networks,loss,norm_0\na,0.1,2,0.666667,1\na,0.2,1,2,1\n"
    assert "means over seeds, 2 rows" in means.note
    assert "the whole table has 3 rows" in means.note
    monkeypatch.setattr(html, "TABLE_BYTES", 60)
    cut = html.exhibit("", {}, table)
    assert cut.csv == "part,density,networks,loss\na,0.1,2,0.666667\na,0.2,1,2\n"
    assert "5 columns, of which numbered ones (name_0, name_1) are left out" in cut.note
    monkeypatch.setattr(html, "TABLE_BYTES", 50)
    shortest = html.exhibit("", {}, table)
    assert shortest.csv == "part,density,networks,loss\na,0.1,2,0.666667\n"
    assert "only one in 2 rows of means" in shortest.note


ACTS = " <img src=x onerror=alert(1)> \"'`{{ 7 * 7 }}{% raw %} &amp; \x1b[31m\x07\u202e]]>"
MEANT = ("verdict", "kind", "read_by", "counts", "paper", "papers", "url")


def everywhere(data: Any, text: str) -> Any:
    """A report's data with `text` after each text that the report only shows."""
    if isinstance(data, dict):
        return {key: one if key in MEANT else everywhere(one, text) for key, one in data.items()}
    if isinstance(data, list):
        return [everywhere(one, text) for one in data]
    return f"{data}{text}" if isinstance(data, str) else data


class Tags(HTMLParser):
    """The tags in a page with the names of their attributes, and all text with that in attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[Any] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))
        self.text += [value or "" for name, value in attrs if name not in ("src", "href", "id", "download")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_any_text_is_shown_as_it_is() -> None:
    pages = {}
    for text in ("", ACTS):
        data = everywhere(report().model_dump(mode="json"), text)
        data["papers"] = everywhere(data["papers"], text)
        shown = html.exhibit(f"About.{text}", {f"figure{text}": figure()}, TABLE)
        whole = Report.model_validate_json(json.dumps(data))
        pages[text] = Tags(html.page(whole, {one.name: shown for one in whole.replications}))
    assert pages[ACTS].tags == pages[""].tags
    said = " ".join(pages[ACTS].text)
    assert (
        said.count(ACTS.replace("\x1b", "\ufffd").replace("\x07", "\ufffd").replace("\u202e", "\ufffd")) > 50
    )
    assert not set(said) & set("\x1b\x07\u202e")


@pytest.mark.parametrize(
    ("url", "is_link"),
    [
        ("https://a.b/c?d=e&f", True), ("HTTP://a.b", True), ("javascript:alert(1)", False),
        ("data:text/html,a", False), (" https://a.b", False), ("https://a.b c", False), ("//a.b", False),
        ("https://a.b\n", False), ("", False), ("javascript:https://a.b", False), ("https://a\x1b.b", False),
    ],
)  # fmt: skip
def test_only_addresses_of_the_web_are_links(url: str, is_link: bool) -> None:
    whole = report()
    papers = {"first": whole.papers["first"].model_copy(update={"url": url})}
    shown = html.exhibit("", {}, TABLE)
    found = html.page(whole.model_copy(update={"papers": papers}), {"one/a": shown, "two/b": shown})
    assert len(re.findall(r'<a href="(?!#)[^"]*" rel', found)) == is_link


def test_names_that_differ_have_anchors_that_differ() -> None:
    names = [
        "a/b",
        "a-b/c",
        "a/b-c",
        "a.b/c",
        "a/b.c",
        "a b/c",
        "a/b c",
        "a/b_c",
        "a/b-title",
        "ä/b",
        "a/ä",
        "A/b",
    ]
    names += ["a/.2d.", "a/-", "a/2d", "a/b\n", "a/b\t"]
    anchors = {html._anchor(name) for name in names}
    assert len(anchors) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", anchor, re.ASCII) for anchor in anchors)
    assert html._anchor("toy_models/five_features") == "toy_models-five_features"


def test_no_cell_of_the_data_is_a_formula() -> None:
    signs = ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "a=1", None]
    table = pd.DataFrame({
        "=part": signs, "kind": pd.Categorical(["-a"] * len(signs)), "self": True, "seed": range(len(signs)),
        "loss": [-1.5, float("-inf"), float("nan"), *[1e-9] * 5], "mixed": [-1, "-1", -0.5, *[None] * 5],
    })  # fmt: skip
    csv = html.exhibit("", {}, table).csv
    head, *rows = reader(io.StringIO(csv, newline=""))
    assert head == ["'=part", "kind", "self", "seed", "loss", "mixed"]
    assert [row[0] for row in rows] == ["'=1+1", "'+1", "'-1", "'@a", "'\t=1", "'\ufffd=1", "a=1", ""]
    assert {tuple(row[1:3]) for row in rows} == {("'-a", "True")}
    assert [row[4] for row in rows][:3] == ["-1.5", "-inf", ""]
    assert [row[5] for row in rows][:4] == ["-1", "'-1", "-0.5", ""]


@pytest.mark.filterwarnings("ignore:Glyph 27:UserWarning")
def test_a_figure_with_any_text_is_an_image() -> None:
    drawn = Figure(figsize=(3, 2))
    drawn.add_subplot(title="a -- \x1b[31m </svg> ]]>")
    (picture,) = html.exhibit("", {"f": drawn}, TABLE).pictures
    assert ET.fromstring(picture.svg).tag.endswith("svg")


@pytest.fixture(scope="module")
def browser(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium with the page opened from its file; all that it logs and requests is kept."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver")
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page, encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.get(path.as_uri())
        yield driver
    finally:
        driver.quit()


def shown_rows(browser: webdriver.Chrome) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, "tr.claim")
    sections = [row.find_element(By.XPATH, "ancestor::section").get_attribute("id") for row in rows]
    return [
        f"{section} {row.get_attribute('data-verdict')}"
        for section, row in zip(sections, rows, strict=True)
        if row.is_displayed()
    ]


@pytest.mark.browser
def test_the_page_logs_no_error_and_requests_nothing(browser: webdriver.Chrome) -> None:
    assert browser.title == "Replications: 2 of 7 claims reproduced"
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
    log = browser.get_log("performance")  # type: ignore[no-untyped-call]
    events = [json.loads(entry["message"])["message"] for entry in log]
    sent = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.startswith("file:") for url in sent)
    assert [url for url in sent if not url.startswith(("file:", "data:"))] == []


@pytest.mark.browser
def test_every_figure_has_a_size_and_every_table_of_data_a_link(browser: webdriver.Chrome) -> None:
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt])"
    )
    assert len(sizes) == 4
    assert all(complete and width > 100 and height > 100 for complete, width, height, _ in sizes)
    assert sizes[0][3] == "Figure points. density p; Points"
    links = browser.find_elements(By.CSS_SELECTOR, "a.data")
    assert [link.get_attribute("download") for link in links] == ["one-a.csv", "two-b.csv"]
    data = str(links[0].get_attribute("href")).removeprefix("data:text/csv;charset=utf-8,")
    assert urllib.parse.unquote(data) == html.exhibit("", {}, TABLE).csv


@pytest.mark.browser
def test_filters_hide_and_show_rows(browser: webdriver.Chrome) -> None:
    everything = [f"one-a {v}" for v in VERDICTS] + [f"two-b {v}" for v in VERDICTS[:2]]
    assert shown_rows(browser) == everything
    boxes = {
        box.get_attribute("value"): box for box in browser.find_elements(By.CSS_SELECTOR, "[name=verdict]")
    }
    boxes["reproduced"].click()
    assert shown_rows(browser) == ["one-a " + v for v in VERDICTS[1:]] + ["two-b not reproduced"]
    boxes["not reproduced"].click()
    assert shown_rows(browser) == ["one-a inconclusive", "one-a undecidable", "one-a invalid"]
    assert not browser.find_element(By.ID, "two-b").is_displayed()
    assert browser.find_element(By.NAME, "shown").text == "3 claims shown"
    for verdict in ("reproduced", "not reproduced"):
        boxes[verdict].click()
    changed = browser.find_element(By.NAME, "changed")
    changed.click()
    assert shown_rows(browser) == ["one-a not reproduced"]
    changed.click()
    browser.find_element(By.CSS_SELECTOR, "option[value=second]").click()
    assert shown_rows(browser) == everything[len(VERDICTS) :]
    browser.find_element(By.CSS_SELECTOR, "option[value='']").click()
    assert shown_rows(browser) == everything


CONTRASTS = """
const rgb = text => text.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
  .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const behind = e => {
  for (; e; e = e.parentElement) {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
};
return [...document.body.querySelectorAll("*")]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.checkVisibility())
  .filter(e => !e.closest("form"))
  .map(e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.tagName + "." + e.className];
  });
"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_fits_a_phone(browser: webdriver.Chrome, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    screen = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (scheme == "light")
    contrasts = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 100
    assert [low for low in contrasts if low[0] < 4.5] == []
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide == 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
