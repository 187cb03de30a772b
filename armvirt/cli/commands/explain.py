"""``armvirt explain``: boot a guest, and say why an interrupt does not come at some moment."""

from __future__ import annotations

import argparse

from armvirt.cli import session, stopping
from armvirt.cli.show import echo_console, show
from armvirt.errors import UserError
from armvirt.trace.writers import LastWriters
from armvirt.views.explain import check


def execute(arguments: argparse.Namespace) -> int:
    """0 whenever there is an explanation, whatever became of the guest."""
    if arguments.intid is None:
        raise UserError("armvirt explain needs --intid N, the interrupt that does not come")
    machine = session.build_machine(arguments, sinks=[LastWriters()], trace_hash=False)
    for intid in (arguments.intid, arguments.versus):
        if intid is not None:
            check(machine, intid, arguments.vcpu)  # complains before the guest runs
    echo_console(machine, arguments)
    result = stopping.run_to(machine, arguments)
    explanation = machine.explain(arguments.intid, arguments.vcpu, arguments.versus)
    show(explanation, arguments, result, machine)
    return 0
