"""The last checks that an interrupt has to pass: the physical CPU, the list registers, the virtual
interrupt signal, and PSTATE.

These checks are about the work of EL2 and the hardware. The guest cannot observe this work. The
guest only observes whether the interrupt is taken.
"""

from __future__ import annotations

from armvirt.arch.gic import ICH_HCR_EN, LR_PENDING, ListRegister
from armvirt.arch.named import HCR_VF, HCR_VI
from armvirt.arch.pstate import PSTATE_F, PSTATE_I, Vector, vector_offset
from armvirt.hyp.diagnosis import present_state as present
from armvirt.hyp.diagnosis.checks import Case, set_priority
from armvirt.hyp.diagnosis.finding import Check, Finding, Register, Write
from armvirt.hyp.vcpu.power import Power
from armvirt.hyp.vgic.irq import VgicIrq


def loaded(case: Case) -> Finding | None:
    """Check whether the vCPU is loaded on a physical CPU. The result is None if the vCPU is powered
    off, because then the check `checks.power` has failed already."""
    here = case.cpu.vcpu_id
    if case.view.power is Power.OFF:
        return None
    if case.cpu.vif is not None:
        return Finding(Check.LOADED, True, f"vCPU {here} is on a physical CPU")
    if case.view.waking:
        text = f"vCPU {here} has been woken, and is loaded on a physical CPU next"
        return Finding(Check.LOADED, True, text)
    if case.view.power is Power.BLOCKED:
        text = f"blocked: this interrupt would wake vCPU {here}"
    else:
        text = f"vCPU {here} waits for its turn on the CPU"
    remedy = "let the host run it: nothing is missing in the guest"
    return Finding(Check.LOADED, False, text, None, None, remedy)


def in_list_register(case: Case) -> Finding:
    """Check whether the interrupt is pending in a list register of the vCPU. If it is not, the
    finding gives the reason."""
    if case.irq.lr >= 0 and case.irq.vcpu != case.cpu.vcpu_id:
        other = f"vCPU {case.irq.vcpu}"
        text = f"still in a list register of {other}, until the next exit of {other}"
        return Finding(
            Check.LIST_REGISTER,
            False,
            text,
            None,
            None,
            "let the vCPUs run: nothing is missing in the guest",
        )
    if case.cpu.dirty:
        return _before_the_entry(case)
    if case.lr & LR_PENDING:
        register = Register(f"ICH_LR{case.irq.lr}_EL2", cpu=case.cpu.vcpu_id)
        text = f"LR{case.irq.lr}: {ListRegister.decode(case.lr)}"
        return Finding(Check.LIST_REGISTER, True, text, register, case.lr)
    if case.irq in case.cpu.outside:  # the last flush had no list register left
        winners = case.cpu.resident
        text = f"all {len(winners)} list registers hold more urgent interrupts: {', '.join(map(_named, winners))}"
        return Finding(Check.LIST_REGISTER, False, text, None, None, *_overtake(case, winners[-1]))
    return _before_the_entry(case)


def _before_the_entry(case: Case) -> Finding:
    """Predict the next flush. In a flush, EL2 fills the list registers before the guest entry. The
    check passes if this interrupt gets a list register, and fails if another interrupt comes
    first."""
    coming = [irq for irq in case.cpu.ap_list if _may_come(case, irq)]
    best = min(coming, key=lambda irq: irq.priority, default=case.irq)
    if best is case.irq:
        return Finding(
            Check.LIST_REGISTER, True, "it goes into a list register before the next instruction"
        )
    text = f"{_named(best)} comes first: more urgent than priority {case.irq.priority:#04x}"
    if best.priority == case.irq.priority:
        text = f"{_named(best)} comes first: the same priority, and it was pending before"
    return Finding(Check.LIST_REGISTER, False, text, None, None, *_overtake(case, best))


def _may_come(case: Case, irq: VgicIrq) -> bool:
    pending = present.pending(case.dist, irq) and not present.active(case.dist, irq)
    return pending and irq.enabled and bool(case.cpu.vmcr >> irq.group & 1)


def _named(irq: VgicIrq) -> str:
    return f"INTID {irq.intid} (priority {irq.priority:#04x})"


def _overtake(case: Case, other: VgicIrq) -> tuple[str, Write | None]:
    """The remedy if another interrupt comes before the interrupt of ``case``. ``other`` is the
    other interrupt. Either the guest ends ``other``, or it gives the interrupt of ``case`` a lower
    priority value than ``other`` has."""
    remedy = f"let INTID {other.intid} be taken and ended"
    if other.priority < 8 or other.active:
        return remedy, None
    how, fix = set_priority(case, other.priority - 8)
    return f"{remedy}, or {how}", fix


def highest(case: Case) -> Finding:
    """Check whether the interrupt is the pending interrupt with the highest priority. The CPU
    interface signals only this one (IHI 0069 4.8.2)."""
    register = case.control(f"highest{case.irq.group}")
    best = present.highest_pending(case.dist, case.cpu)
    value = 1023 if best is None or best.group != case.irq.group else best.intid
    if best is None or best is case.irq:
        return Finding(
            Check.HIGHEST, True, "it is the highest-priority pending interrupt", register, value
        )
    text = f"{_named(best)} comes first: more urgent than priority {case.irq.priority:#04x}"
    if best.priority == case.irq.priority:
        text = f"{_named(best)} comes first: the same priority, and list register {best.lr} before {case.irq.lr}"
    return Finding(Check.HIGHEST, False, text, register, value, *_overtake(case, best))


def hypervisor_enable(case: Case) -> Finding:
    """Check ICH_HCR_EL2.En. If En is 0, the virtual CPU interface signals no interrupt."""
    assert case.cpu.vif is not None
    on, register = (
        bool(case.cpu.vif.hcr & ICH_HCR_EN),
        Register("ICH_HCR_EL2", "En", cpu=case.cpu.vcpu_id),
    )
    remedy = "" if on else "let the vCPU run: the hypervisor sets it before the next entry"
    return Finding(
        Check.HYPERVISOR, on, f"ICH_HCR_EL2.En is {int(on)}", register, case.cpu.vif.hcr, remedy
    )


def virtual_line(case: Case) -> Finding:
    """Check the vIRQ or vFIQ signal from the virtual CPU interface to the PE. The value of the
    finding has both signals: bit VI of HCR_EL2 for vIRQ, and bit VF for vFIQ."""
    vif = case.cpu.vif
    assert vif is not None
    high = vif.virq if case.as_irq else vif.vfiq
    name, bit = ("vIRQ", "VI") if case.as_irq else ("vFIQ", "VF")
    register = Register("HCR_EL2", bit, cpu=case.cpu.vcpu_id)
    value = (HCR_VI if vif.virq else 0) | (HCR_VF if vif.vfiq else 0)
    return Finding(
        Check.VIRTUAL_LINE, high, f"{name} is {'high' if high else 'low'}", register, value
    )


def exception_mask(case: Case, signalled: bool) -> Finding:
    """Check PSTATE.I for an IRQ, or PSTATE.F for an FIQ. ``signalled`` is True if the interrupt
    passed all other checks."""
    pstate, name = case.view.pstate, "I" if case.as_irq else "F"
    if pstate is None:
        return Finding(Check.PSTATE, True, f"see PSTATE.{name}")
    masked = bool(pstate & (PSTATE_I if case.as_irq else PSTATE_F))
    register = Register("PSTATE", name, cpu=case.cpu.vcpu_id)
    if masked:
        remedy = f"clear PSTATE.{name}: MSR DAIFClr, #{2 if case.as_irq else 1}"
        return Finding(
            Check.PSTATE, False, f"PSTATE.{name} is 1: EL1 masks it", register, pstate, remedy
        )
    taken = f": {_vector(case)}" if signalled else ""
    return Finding(Check.PSTATE, True, f"PSTATE.{name} is 0{taken}", register, pstate)


def _vector(case: Case) -> str:
    """A text with the address of the exception vector at which the PE takes the interrupt (DDI 0487
    D1.3.1.5, vector offsets)."""
    pstate, vbar = case.view.pstate or 0, case.view.vbar
    offset = vector_offset(pstate, Vector.IRQ if case.as_irq else Vector.FIQ)
    where = "" if vbar is None else f" to {vbar + offset:#x} (VBAR_EL1+{offset:#x})"
    return f"taken before the next instruction{where}"
