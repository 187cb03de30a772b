"""``armvirt migrate-test``: runs a guest twice and compares the two runs. In one of the runs the
guest is migrated to another emulated host."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from armvirt.cli import printing, session
from armvirt.errors import UserError
from armvirt.units import human_time

if TYPE_CHECKING:
    from armvirt.machine import Machine


def execute(arguments: argparse.Namespace) -> int:
    """Run the guest once with the migration and once without, and print how the two runs differ.
    Returns 0 if the runs do not differ, else 1."""
    if arguments.at is None:
        raise UserError("armvirt migrate-test needs --at TIME, when the guest moves")
    from armvirt.machine import migrate

    def make(**more: Any) -> Machine:
        return session.build_machine(arguments, trace_hash=False, **more)

    start = migrate.COUNTER_START if arguments.counter_start is None else arguments.counter_start
    report = migrate.compare(
        make,
        arguments.at,
        counter_start=start,
        tolerance_ns=arguments.tolerance,
        max_insns=arguments.max_insns,
    )
    printing.line(f"moved at {human_time(report.at_ns)}: {session.ending(report.moved)}")
    printing.line(f"not moved: {session.ending(report.straight)}")
    for difference in report.differences:
        printing.remark(difference)
    return 0 if report.same else 1
