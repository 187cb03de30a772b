"""``armvirt gic``: boot a guest, and show its interrupt controller as it is at some moment."""

from __future__ import annotations

import argparse

from armvirt.cli import session, stopping
from armvirt.cli.show import echo_console, show
from armvirt.views.gic import GicView


def execute(arguments: argparse.Namespace) -> int:
    """0 whenever there is something to show, whatever became of the guest."""
    machine = session.build_machine(arguments, trace_hash=False)
    GicView(machine, arguments.vcpu)  # complains before the guest runs
    echo_console(machine, arguments)
    result = stopping.run_to(machine, arguments)
    view = GicView(machine, arguments.vcpu, everything=arguments.all)
    show(view, arguments, result, machine)
    return 0
