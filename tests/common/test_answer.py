"""Tests of common/answer.py: the fields of report.json, JUnit, badge, and the comparison of two reports."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from common.answer import (
    Answer,
    ClaimAnswer,
    ControlAnswer,
    ControlClaim,
    NotAsRecorded,
    Paper,
    ReplicationAnswer,
    RunAnswer,
    answer,
    badge,
    compare,
    junit,
    load,
)
from common.claims import Verdict
from common.document import InputError


def claim(name: str, **changes: Any) -> ClaimAnswer:
    fields: dict[str, Any] = {
        "name": name, "statement": "x < y & z", "kind": "theory", "paper": "p", "where": "w",
        "read_by": "derived", "published": None, "theory": 1.0, "region_low": 0.9, "region_high": 1.1,
        "rule": "r", "value": 1.0, "low": 0.95, "high": 1.05, "verdict": Verdict.REPRODUCED,
        "reason": "1 lies inside", "more_seeds": None, "investigated": None, "as_recorded": True,
    }  # fmt: skip
    return ClaimAnswer(**(fields | changes))


def report(
    *claims: ClaimAnswer, changes: dict[str, str] | None = None, by_chance: str = "", name: str = "p/one"
) -> Answer:
    run = RunAnswer(
        folder="p/one/full/0",
        hash="0",
        instances=2,
        device="CPU",
        wall_s=1.0,
        finished="",
        versions={},
        spec={},
    )
    lost = ControlClaim(name="a", verdict=Verdict.NOT_REPRODUCED, as_recorded=True)
    replication = ReplicationAnswer(
        name=name,
        title="One",
        paper="p",
        command="replicate run p/one",
        commit="c",
        run=run,
        record=None,
        claims=list(claims),
        controls=[ControlAnswer(name="broken", why="it is", run=run, claims=[lost])],
        changes=[
            NotAsRecorded(claim=c, problem=problem, by_chance=c == by_chance)
            for c, problem in (changes or {}).items()
        ],
    )
    return answer("full", "now", {"p": Paper(title="P"), "q": Paper(title="Q")}, [replication], [])


MISSED = {"verdict": Verdict.NOT_REPRODUCED, "value": 2.0, "low": 1.9, "high": 2.1}


def test_the_answer_counts() -> None:
    whole = report(claim("a"), claim("b", **MISSED), claim("c"))
    assert whole.counts == {"reproduced": 2, "not reproduced": 1, "inconclusive": 0, "invalid": 0}
    assert whole.as_recorded is True
    assert list(whole.papers) == ["p"]  # only those that a claim is of
    assert report(claim("a"), changes={"a": "moved"}).as_recorded is False
    assert report(claim("a"), changes={"a": "changed"}, by_chance="a").as_recorded is True


def test_the_names_of_the_fields_stay() -> None:
    """Whoever changes these raises `version`, as others read them."""
    properties = {
        name: " ".join(part["properties"]) for name, part in Answer.model_json_schema()["$defs"].items()
        if "properties" in part
    }  # fmt: skip
    assert " ".join(Answer.model_json_schema()["properties"]) == (
        "version profile written counts as_recorded papers replications not_run"
    )
    assert properties == {
        "ClaimAnswer": "name statement kind paper where read_by published theory region_low region_high rule "
        "value low high verdict reason more_seeds investigated as_recorded",
        "ControlAnswer": "name why run claims",
        "ControlClaim": "name verdict as_recorded",
        "NotAsRecorded": "claim problem by_chance",
        "NotRun": "name title why",
        "Paper": "title author year url",
        "RecordAnswer": "commit date hash other_hash",
        "ReplicationAnswer": "name title paper command commit run record claims controls changes",
        "RunAnswer": "folder hash instances device wall_s finished versions spec",
    }


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
    [({}, "1 of 2 reproduced", "brightgreen"), ({"a": "moved"}, "1 of 2 reproduced, not as recorded", "red")],
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
        "p/two: new, with 1 claims",
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    whole = report(claim("a", value=None, low=None, high=None), claim("b"))
    (tmp_path / "report.json").write_text(whole.model_dump_json(), encoding="utf-8")
    assert load(tmp_path) == load(tmp_path / "report.json") == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not a report"),
        ("[]", "not a report"),
        ("{}", "profile: Field required"),
    ],
)
def test_what_is_no_report_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_field_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    data = json.loads(report(claim("a")).model_dump_json())
    data["replications"][0]["claims"][0]["p_value"] = 1
    (tmp_path / "report.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"replications\.0\.claims\.0\.p_value"):
        load(tmp_path)
