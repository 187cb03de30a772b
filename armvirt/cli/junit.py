"""Writes the outcomes of a suite as a JUnit XML report, the format that CI systems read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as xml

from armvirt.cli.printing import LONGEST
from armvirt.printable import escaped, printable
from armvirt.suite.outcome import Outcome


def report(outcomes: Sequence[Outcome]) -> bytes:
    """The report in UTF-8: one test suite called armvirt, with one test case per guest."""
    errors = sum(bool(outcome.error) for outcome in outcomes)
    bad = sum(not outcome.ok for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    suites = xml.Element("testsuites")
    counts = {"tests": len(outcomes), "failures": bad - errors, "errors": errors, "skipped": 0}
    attributes = {key: str(value) for key, value in counts.items()}
    suite = xml.SubElement(
        suites, "testsuite", {"name": "armvirt", **attributes, "time": f"{seconds:.3f}"}
    )
    for outcome in outcomes:
        _case(suite, outcome)
    xml.indent(suites)
    document: bytes = xml.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(suite: xml.Element, outcome: Outcome) -> None:
    """Add the test case of one guest to ``suite``. XML 1.0 forbids most control characters, so all
    texts are made printable first."""
    name = {
        "classname": "armvirt",
        "name": printable(outcome.name),
        "time": f"{outcome.seconds:.3f}",
    }
    case = xml.SubElement(suite, "testcase", name)
    if outcome.ok:
        return
    message = printable(outcome.headline, LONGEST)
    problem = xml.SubElement(case, "error" if outcome.error else "failure", {"message": message})
    lines = [line for title, rows in outcome.details() for line in (f"{title}:", *rows)]
    problem.text = "\n".join(map(escaped, lines))
