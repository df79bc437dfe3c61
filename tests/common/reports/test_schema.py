"""Tests of reports/schema.py: the fields of report.json, JUnit, badge, and the comparison of two reports."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from common.cli import main
from common.errors import InputError
from common.reports.compare import compare
from common.reports.junit import badge, junit
from common.reports.schema import (
    MOST_BYTES,
    ClaimReport,
    ControlClaim,
    ControlReport,
    NotAsRecorded,
    ReplicationReport,
    Report,
    RunReport,
    load,
    report_on,
)
from common.specs.papers import Paper
from common.system import text
from common.verdicts.claims import Verdict


def claim(name: str, **changes: Any) -> ClaimReport:
    fields: dict[str, Any] = {
        "name": name, "statement": "x < y & z", "kind": "theory", "paper": "p", "where": "w",
        "read_by": "derived", "published": None, "theory": 1.0, "region_low": 0.9, "region_high": 1.1,
        "rule": "r", "value": 1.0, "low": 0.95, "high": 1.05, "verdict": Verdict.REPRODUCED,
        "reason": "1 lies inside", "more_seeds": None, "needed_half_width": None, "seeds": 2, "look": None,
        "investigated": None, "as_recorded": True,
    }  # fmt: skip
    return ClaimReport(**(fields | changes))


def report(
    *claims: ClaimReport, changes: dict[str, str] | None = None, by_chance: str = "", name: str = "p/one"
) -> Report:
    run = RunReport(
        folder="p/one/full/0",
        hash="0",
        instances=2,
        shards=1,
        compiled_shards=1,
        device="CPU",
        wall_s=1.0,
        finished="",
        versions={},
        spec={},
    )
    lost = ControlClaim(name="a", verdict=Verdict.NOT_REPRODUCED, as_recorded=True)
    replication = ReplicationReport(
        for_reference=False,
        not_asked=[],
        name=name,
        title="One",
        paper="p",
        command="replicate run p/one",
        commit="c",
        run=run,
        record=None,
        claims=list(claims),
        controls=[ControlReport(name="broken", why="it is", run=run, claims=[lost])],
        changes=[
            NotAsRecorded(claim=c, problem=problem, by_chance=c == by_chance)
            for c, problem in (changes or {}).items()
        ],
    )
    return report_on("full", "now", {"p": Paper(title="P"), "q": Paper(title="Q")}, [replication], [])


MISSED = {"verdict": Verdict.NOT_REPRODUCED, "value": 2.0, "low": 1.9, "high": 2.1}


def test_the_answer_counts() -> None:
    whole = report(claim("a"), claim("b", **MISSED), claim("c"))
    assert whole.counts == {
        "reproduced": 2,
        "not reproduced": 1,
        "inconclusive": 0,
        "undecidable": 0,
        "invalid": 0,
    }
    assert whole.as_recorded is True
    assert list(whole.papers) == ["p"]  # only those that a claim is of
    assert report(claim("a"), changes={"a": "moved"}).as_recorded is False
    assert report(claim("a"), changes={"a": "changed"}, by_chance="a").as_recorded is True


def test_the_names_of_the_fields_stay() -> None:
    """Whoever changes these raises `version`, as others read them."""
    properties = {
        name: " ".join(part["properties"]) for name, part in Report.model_json_schema()["$defs"].items()
        if "properties" in part
    }  # fmt: skip
    assert " ".join(Report.model_json_schema()["properties"]) == (
        "version profile written counts as_recorded papers replications not_run"
    )
    assert properties == {
        "ClaimReport": "name statement kind paper where read_by published theory region_low region_high rule "
        "value low high verdict reason more_seeds needed_half_width seeds look investigated as_recorded "
        "elsewhere",
        "ControlReport": "name why run claims",
        "ControlClaim": "name verdict as_recorded",
        "NotAsRecorded": "claim problem by_chance",
        "NotRun": "name title why",
        "Paper": "title author year url",
        "RecordReport": "commit date hash other_hash",
        "ReplicationReport": "name title paper command commit run record claims controls changes "
        "for_reference not_asked",
        "RunReport": "folder hash instances shards compiled_shards device wall_s finished versions spec",
    }


def test_two_reports_without_a_claim_are_not_the_same() -> None:
    empty = report_on("quick", "now", {}, [], [])
    with pytest.raises(InputError, match="nothing to compare: no claim was judged in either report"):
        list(compare(empty, empty))


def test_junit_skips_what_is_not_compared() -> None:
    whole = report(claim("a"), claim("b", **MISSED))
    changed = whole.replications[0].model_copy(update={"changes": None, "controls": []})
    (suite,) = ET.fromstring(junit(whole.model_copy(update={"replications": [changed]})))
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("2", "0", "2")
    assert {case.find("skipped") is not None for case in suite} == {True}


def test_junit_fails_what_is_not_as_recorded_and_nothing_else() -> None:
    hostile = "</system-out>\x00]]>"
    xml = junit(
        report(
            claim("a"),
            claim("b", **MISSED, reason=hostile),
            changes={"a": "moved", "b": "changed", "gone": "vanished", "broken: a": "reproduced"},
            by_chance="b",
        )
    )
    (suite,) = ET.fromstring(xml)
    assert suite.attrib == {"name": "p/one", "tests": "4", "failures": "3", "errors": "0", "skipped": "0"}
    cases = {case.attrib["name"]: case for case in suite}
    assert [name for name, case in cases.items() if case.find("failure") is not None] == [
        "a", "broken: a", "gone",
    ]  # fmt: skip
    assert {case.attrib["classname"] for case in cases.values()} == {"p.one"}
    assert cases["b"].findtext("system-out") == "not reproduced: </system-out>\ufffd]]>"
    assert cases["broken: a"].findtext("system-out") == "not reproduced (it is)"
    assert not list(suite.iter("skipped"))


@pytest.mark.parametrize(
    ("changes", "message", "colour"),
    [
        ({}, "1 of 2 reproduced", "brightgreen"),
        ({"a": "moved"}, "1 of 2 reproduced, differs from record", "red"),
    ],
)
def test_the_badge(changes: dict[str, str], message: str, colour: str) -> None:
    shown = badge(report(claim("a"), claim("b", **MISSED), changes=changes))
    assert shown == {"schemaVersion": 1, "label": "claims", "message": message, "color": colour}


def test_compare_says_what_differs() -> None:
    old = report(claim("a"), claim("b"), claim("c"), claim("d", value=None, low=None, high=None))
    assert list(compare(old, old)) == []
    new = report(
        claim("a", value=1 + 1e-8),  # rounding
        claim("b", **MISSED),
        claim("c", high=1.06),
        claim("e"),
    )
    assert list(compare(old, new)) == [
        "p/one: b: verdict changed from reproduced to not reproduced, value moved from 1 [0.95, 1.05] to "
        "2 [1.9, 2.1]",
        "p/one: c: value moved from 1 [0.95, 1.05] to 1 [0.95, 1.06]",
        "p/one: d: gone, was reproduced",
        "p/one: e: new, reproduced",
    ]
    assert list(compare(old, report(claim("a"), name="p/two"))) == [
        "p/one: gone, with 4 claims",
        "p/two: new, with 1 claim",
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    whole = report(claim("a", value=None, low=None, high=None), claim("b"))
    (tmp_path / "report.json").write_text(whole.model_dump_json(), encoding="utf-8")
    assert load(tmp_path) == load(tmp_path / "report.json") == whole


def changed(path: str, value: str) -> bytes:
    """A report with the JSON `value` at the place `path`."""
    data: Any = json.loads(report(claim("a")).model_dump_json())
    *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    place = data
    for part in parents:
        place = place[part]
    place[last] = "HERE"
    return json.dumps(data).replace('"HERE"', value).encode()


VALUE = "replications.0.claims.0.value"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: "),
        (b"", "EOF while parsing"),
        (b"{", "not a report"),
        (b"[]", "not a report"),
        (b"null", "not a report"),
        (b"{}", "profile: Field required"),
        (b"\0" * 1000, "Invalid JSON: expected value"),
        (b"NaN", "not a report"),
        (b"\xff\xfe{", "not a report"),
        (b'{"profile": "caf\xe9"}', "invalid unicode code point"),
        (b'{"profile": "\\ud800"}', "Invalid JSON"),
        (b"[" * 1_000_000, "recursion limit exceeded"),
        (b'{"a":' * 1_000_000, "recursion limit exceeded"),
        (b"[" + b"1," * 600_000 + b"1]", "it is larger than any"),
        (b" " * (MOST_BYTES + 1), "it is larger than any"),
        (changed(VALUE, "NaN"), f"{VALUE}: Input should be a finite number"),
        (changed(VALUE, "1e999"), f"{VALUE}: Input should be a finite number"),
        (changed(VALUE, "-Infinity"), f"{VALUE}: Input should be a finite number"),
        (changed(VALUE, '"1"'), f"{VALUE}: Input should be a valid number"),
        (changed("replications.0.run.wall_s", "NaN"), "run.wall_s: Input should be a finite number"),
        (changed("replications.0.claims.0.verdict", '"maybe"'), "verdict: Input should be 'reproduced'"),
        (changed("replications", "{}"), "replications: Input should be a valid array"),
        (changed("replications.0.run.spec", "[" * 500 + "]" * 500), "recursion limit exceeded"),
        (changed("a\\n\x1bb", "1").replace(b"\\\\n", b"\\n"), "a b: Extra inputs are not permitted"),
        (changed("version", "5"), "this report has version '5'; expected '4': write it again"),
        (changed("version", '"2"'), "this report has version '2'"),
        (changed("version", "2.5"), "this report has version '2.5'; expected '4'"),
        (changed("version", "null"), "this report has version 'None'"),
        (changed("version", "[" + "1," * 1000 + "1]"), "this report has version '[1, 1, "),
        (b'{"version": 1, "of": "an older kind"}', "this report has version '1'; expected '4'"),
    ],
)
def test_what_is_no_report_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in text.visible(str(error.value)).replace("a \ufffdb", "a b")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_file_that_has_no_end_is_an_error() -> None:
    with pytest.raises(InputError, match="it is larger than any"):
        load(Path("/dev/zero"))


@pytest.mark.parametrize(
    "hostile", ["</testsuite>", "]]>", '" a="', "\x00\x1b\x9b", "\ud800\uffff", "a\nb", "&amp;"]
)
def test_junit_holds_any_text(hostile: str) -> None:
    run = claim(hostile, **MISSED, reason=hostile)
    whole = report(run, claim("b"), changes={hostile: hostile, "b": hostile}, name=f"p/{hostile}")
    suites = ET.fromstring(junit(whole.model_copy(update={"profile": hostile})))
    shown = text.visible(hostile)
    assert suites.attrib["name"] == f"replicate, {shown}"
    (suite,) = suites
    assert suite.attrib["name"] == f"p/{shown}"
    assert [case.attrib["name"] for case in suite] == [shown, "b", "broken: a"]
    assert {case.attrib["classname"] for case in suite} == {f"p/{shown}".replace("/", ".")}
    first = suite[0]
    assert [part.text for part in first] == [shown, f"not reproduced: {shown}"]
    assert first[0].attrib["message"] == f"differs from the record: {shown}"


@pytest.mark.parametrize("hostile", ["[/red]", ":smile:", "\x1b[31mred", "\u202eabc", "a\nb"])
def test_the_command_compares_reports_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hostile: str
) -> None:
    for name, whole in (
        ("a", report(claim(hostile), claim("b", reason=hostile), name=f"p/{hostile}")),
        ("b", report(claim(hostile, **MISSED), claim(f"{hostile}2"), name=f"p/{hostile}")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(whole.model_dump_json(), encoding="utf-8")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    shown = text.line(hostile)
    assert capsys.readouterr().out.splitlines() == [
        f"p/{shown}: {shown}: verdict changed from reproduced to not reproduced, value moved from "
        "1 [0.95, 1.05] to 2 [1.9, 2.1]",
        f"p/{shown}: b: gone, was reproduced",
        f"p/{shown}: {shown}2: new, reproduced",
    ]


def test_a_field_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    data = json.loads(report(claim("a")).model_dump_json())
    data["replications"][0]["claims"][0]["p_value"] = 1
    (tmp_path / "report.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"replications\.0\.claims\.0\.p_value"):
        load(tmp_path)
