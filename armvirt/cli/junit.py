"""Outcomes as a JUnit XML report, the form that CI systems read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from armvirt.cli.outcome import Outcome

# What XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)


def report(outcomes: Sequence[Outcome]) -> bytes:
    """One test suite called armvirt, one test case per guest."""
    errors = sum(bool(outcome.error) for outcome in outcomes)
    bad = sum(not outcome.ok for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    suites = xml.Element("testsuites")
    counts = {"tests": len(outcomes), "failures": bad - errors, "errors": errors, "skipped": 0}
    attributes = {key: str(value) for key, value in counts.items()}
    suite = xml.SubElement(suites, "testsuite", {"name": "armvirt", **attributes, "time": f"{seconds:.3f}"})
    for outcome in outcomes:
        _case(suite, outcome)
    xml.indent(suites)
    document: bytes = xml.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(suite: xml.Element, outcome: Outcome) -> None:
    name = {"classname": "armvirt", "name": _clean(outcome.name), "time": f"{outcome.seconds:.3f}"}
    case = xml.SubElement(suite, "testcase", name)
    if outcome.ok:
        return
    problem = xml.SubElement(case, "error" if outcome.error else "failure", {"message": _clean(outcome.headline)})
    lines = [line for title, rows in outcome.details() for line in (f"{title}:", *rows)]
    problem.text = _clean("\n".join(lines))
