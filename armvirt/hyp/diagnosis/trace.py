"""Why a vCPU does not take an interrupt: the checks of the interrupt from its source to the PE, and
the first check that blocks the interrupt.

No state changes. The checks read the list registers, but do not copy them back into the vGIC's
interrupts (KVM calls this copy a fold).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from armvirt.arch.gic import FIRST_LPI, LR_PENDING
from armvirt.arch.its import ID_BITS
from armvirt.hyp.diagnosis import checks, lpi_checks
from armvirt.hyp.diagnosis import delivery_checks as delivery
from armvirt.hyp.diagnosis.checks import Case
from armvirt.hyp.diagnosis.finding import Check, CpuView, Finding
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.records import NamedTuple

__all__ = ["Comparison", "CpuView", "Finding", "blocker", "compare", "first_held", "trace"]

_RUNNING = CpuView()
LPIS_END = 1 << ID_BITS  # above the last LPI (GICD_TYPER.IDbits)

#: A function that makes one check. The result is None if the check does not apply to the interrupt.
_CheckFunction = Callable[[Case], "Finding | None"]
_CHECKS: tuple[_CheckFunction, ...] = (
    checks.timer, checks.source, checks.enable, checks.distributor, checks.group, checks.route,
    checks.power, checks.not_active, checks.interface_enable, checks.mask, checks.preemption, delivery.loaded,
)  # fmt: skip
_LPI_CHECKS: tuple[_CheckFunction, ...] = (
    lpi_checks.lpis_enabled, lpi_checks.its_on, lpi_checks.translated, lpi_checks.source, lpi_checks.enable,
    checks.distributor, lpi_checks.group, lpi_checks.route, checks.power, lpi_checks.not_active,
    checks.interface_enable, checks.mask, checks.preemption, delivery.loaded,
)  # fmt: skip
#: The checks that follow if the interrupt has passed all checks above and is in a list register.
_ON_A_PE: tuple[Callable[[Case], Finding], ...] = (
    delivery.highest, delivery.hypervisor_enable, delivery.virtual_line,
)  # fmt: skip


def trace(vgic: Vgic, vcpu_id: int, intid: int, view: CpuView = _RUNNING) -> list[Finding]:
    """Check an interrupt on its way to a vCPU, and return the `Finding` of each check. The list
    registers are checked only if all checks before them pass and the vCPU is loaded. The last
    finding is always about PSTATE.

    For an LPI to which no ITS translates an event, the result has only the findings of
    `lpi_checks.unmapped`. KvmError EINVAL for an INTID that does not exist.
    """
    if _is_unmapped(vgic, intid):
        return lpi_checks.unmapped(vgic, vgic.dist.cpu(vcpu_id), intid)
    case = Case.of(vgic, vcpu_id, intid, view)
    walk = _LPI_CHECKS if intid >= FIRST_LPI else _CHECKS
    found = [finding for check in walk if (finding := check(case)) is not None]
    if first_held(found) is None and case.cpu.vif is not None:
        found += _on_a_pe(case)
    return [*found, delivery.exception_mask(case, first_held(found) is None)]


def _on_a_pe(case: Case) -> list[Finding]:
    """The findings of the checks from the list registers on, for a loaded vCPU. If the list
    registers are out of date, or if the interrupt is pending in no list register, the result has
    only the finding of `in_list_register`."""
    first = delivery.in_list_register(case)
    stale = case.cpu.dirty or not case.lr & LR_PENDING
    return [first] if stale else [first, *(check(case) for check in _ON_A_PE)]


def _is_unmapped(vgic: Vgic, intid: int) -> bool:
    return bool(vgic.its) and FIRST_LPI <= intid < LPIS_END and intid not in vgic.dist.lpis


def first_held(findings: Sequence[Finding]) -> Finding | None:
    """The first of the ``findings`` that blocks the interrupt. None if no finding blocks the
    interrupt; then the PE takes the interrupt."""
    return next((finding for finding in findings if not finding.passed), None)


def blocker(vgic: Vgic, vcpu_id: int, intid: int, view: CpuView = _RUNNING) -> Finding | None:
    """Make the checks of `trace`, and return the first finding that blocks the interrupt; None if
    the PE takes the interrupt."""
    return first_held(trace(vgic, vcpu_id, intid, view))


class Comparison(NamedTuple):
    """Why a vCPU takes one interrupt before another interrupt. ``rule`` is "priority",
    "preemption", "list register order", or the name of the check that blocks the other interrupt.
    If the first interrupt does not come before the other interrupt, ``rule`` is "nothing". ``text``
    explains the rule."""

    rule: str
    text: str


def compare(
    vgic: Vgic, vcpu_id: int, taken: int, other: int, view: CpuView = _RUNNING
) -> Comparison:
    """Explain why a vCPU takes, or took, one interrupt and not another. ``taken`` is the INTID of
    the interrupt that the vCPU takes. ``other`` is the INTID of the interrupt that it does not
    take. KvmError EINVAL for an INTID that does not exist."""
    held = first_held(trace(vgic, vcpu_id, other, view))
    if held is not None and held.station not in _RIVALRY:
        return Comparison(held.station.value, f"INTID {other} is held: {held.text}")
    if _is_unmapped(vgic, taken):
        return _not_pending(taken, other)
    first, second = Case.of(vgic, vcpu_id, taken, view), Case.of(vgic, vcpu_id, other, view)
    if first.active and held is not None and held.station is Check.RUNNING:
        return Comparison("preemption", f"INTID {other} does not preempt: {held.text}")
    return _by_priority(first, second, held)


#: Checks that block an interrupt only because of another interrupt, or only until the vCPU runs.
_RIVALRY = {
    Check.RUNNING, Check.LOADED, Check.LIST_REGISTER, Check.HIGHEST, Check.HYPERVISOR, Check.VIRTUAL_LINE,
    Check.PSTATE,
}  # fmt: skip


def _by_priority(first: Case, second: Case, held: Finding | None) -> Comparison:
    taken, other = first.irq, second.irq
    ours, theirs = (
        f"INTID {taken.intid} ({taken.priority:#04x})",
        f"INTID {other.intid} ({other.priority:#04x})",
    )
    if not first.active and not first.pending:
        return _not_pending(taken.intid, other.intid)
    if taken.priority < other.priority:
        return Comparison("priority", f"{ours} is more urgent than {theirs}: the lower value wins")
    if other.priority < taken.priority:
        return Comparison("nothing", f"{theirs} is more urgent than {ours}: it comes first")
    if held is None:
        return Comparison(
            "nothing", f"{theirs} comes first: the same priority, and the lower list register"
        )
    text = "the specification leaves the order open; here the lower list register, which is the order of arrival, wins"
    return Comparison("list register order", f"{ours} and {theirs} have the same priority: {text}")


def _not_pending(taken: int, other: int) -> Comparison:
    return Comparison(
        "nothing", f"INTID {taken} is not pending: INTID {other} does not wait for it"
    )
