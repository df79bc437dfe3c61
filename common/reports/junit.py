"""A report for CI: JUnit XML, and a badge."""

import xml.etree.ElementTree as ET
from typing import Any

from common.reports.compare import cases_of
from common.reports.schema import Report
from common.system.text import visible
from common.verdicts.claims import Verdict


def junit(report: Report) -> str:
    """JUnit XML: a test case per claim, and per claim that a control must fail; it passes if it matches."""
    suites = ET.Element("testsuites", name=visible(f"replicate, {report.profile}"))
    for replication in report.replications:
        problems: dict[str, list[str]] = {}
        for change in replication.problems:
            problems.setdefault(change.claim, []).append(change.problem)
        cases = {name: case.said for name, case in cases_of(replication).items()}
        cases |= {name: "not judged" for name in problems if name not in cases}  # it is only in the record
        skipped = len(cases) if replication.changes is None else 0
        numbers = {"tests": len(cases), "failures": len(problems), "errors": 0, "skipped": skipped}
        counts = {name: str(number) for name, number in numbers.items()}
        shown = visible(replication.name)
        suite = ET.SubElement(suites, "testsuite", {"name": shown, **counts})
        for name, said in cases.items():
            case = ET.SubElement(suite, "testcase", classname=shown.replace("/", "."), name=visible(name))
            if name in problems:
                problem = visible("; ".join(problems[name]))
                ET.SubElement(case, "failure", message=f"differs from the record: {problem}").text = problem
            if skipped:
                ET.SubElement(
                    case, "skipped", message="the spec was changed, so nothing is compared with the record"
                )
            ET.SubElement(case, "system-out").text = visible(said)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def badge(report: Report) -> dict[str, Any]:
    """The report as a badge, in the schema of shields.io's endpoint badges."""
    reproduced = report.counts[Verdict.REPRODUCED]
    colour = {True: "brightgreen", False: "red", None: "lightgrey"}[report.as_recorded]
    message = f"{reproduced} of {report.n_claims} reproduced"
    if report.as_recorded is False:
        message += ", differs from record"
    if any(replication.for_reference for replication in report.replications):
        message += " with a changed spec"
    return {"schemaVersion": 1, "label": "claims", "message": message, "color": colour}
