"""The checks that an interrupt has to pass from its source to the virtual CPU interface. Each
function makes one check and returns the result as a `Finding`.

The order of the checks is the order in IHI 0069 4.1 and 4.8: pending, enabled, group enabled,
targeted, sufficient priority. `delivery_checks` has the checks of KVM's ap_list and of the list
registers. `lpi_checks` has the checks of LPIs, whose state is in tables instead of registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from armvirt.arch.gic import (
    FIRST_LPI,
    GICC_CPUID_SHIFT,
    IDLE_PRIORITY,
    IGROUPR,
    ISACTIVER,
    ISENABLER,
    ISPENDR,
    MPIDR_AFF0_TO_2,
    VMCR_VENG0,
    VMCR_VENG1,
    VMCR_VEOIM,
    VMCR_VFIQEN,
    implemented_priority,
    is_private,
    is_sgi,
)
from armvirt.arch.its import LPI_ENABLE
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS
from armvirt.hyp.diagnosis import present_state as present
from armvirt.hyp.diagnosis import register_names as naming
from armvirt.hyp.diagnosis.finding import Check, CpuView, Finding, Register, TimerView, Write, span
from armvirt.hyp.vcpu.power import Power
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers.frames import distributor_map
from armvirt.hyp.vgic.spi_routing import router
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.hyp.vgic.distributor import Distributor
    from armvirt.hyp.vgic.its.its import Its
    from armvirt.hyp.vgic.vgic import Vgic

PMR_OPEN = 0xFF  # masks only the lowest priority that the interface implements


class Case(NamedTuple):
    """One interrupt and one vCPU, with the state that the checks read."""

    dist: Distributor
    its: Sequence[Its]
    irq: VgicIrq
    cpu: VgicCpu
    view: CpuView
    pending: bool
    active: bool
    lr: int  # ICH_LR<n>_EL2, 0 if the interrupt is in no list register

    @classmethod
    def of(cls, vgic: Vgic, vcpu_id: int, intid: int, view: CpuView) -> Case:
        """Collect the state of an interrupt and a vCPU. KvmError EINVAL for an INTID that does not
        exist."""
        dist = vgic.dist
        irq = dist.irq(vcpu_id, intid)
        pending, active = present.pending(dist, irq), present.active(dist, irq)
        lr = present.list_register(dist, irq)
        return cls(dist, vgic.its, irq, dist.cpu(vcpu_id), view, pending, active, lr)

    @property
    def as_irq(self) -> bool:
        """Whether the interrupt is signalled as IRQ and not as FIQ. An interrupt of group 1 is an
        IRQ. With a GICv2, an interrupt of group 0 is also an IRQ while GICC_CTLR.FIQEn is 0."""
        return bool(self.irq.group) or (self.dist.model == 2 and not self.cpu.vmcr & VMCR_VFIQEN)

    def control(self, what: str) -> Register:
        return naming.interface(self.dist, self.cpu, what)


# Source -----------------------------------------------------------------------------------------


def timer(case: Case) -> Finding | None:
    """Check the timer that drives a PPI. The check passes if the timer has fired, or if the
    interrupt is pending or active. The result is None if no timer drives the interrupt."""
    view = case.view.timer
    if view is None:
        return None
    control = Register(f"{view.prefix}_CTL_EL0", cpu=case.cpu.vcpu_id)
    value = view.ctl | (CTL_ISTATUS if view.ctl & CTL_ENABLE and view.cval <= view.now else 0)
    text = _timer_state(view)
    if case.pending or case.active or view.fires_in_ns == 0:
        return Finding(Check.TIMER, True, text, control, value)
    if not view.ctl & CTL_ENABLE or view.ctl & CTL_IMASK:
        fix = Write(control, CTL_ENABLE)
        remedy = f"{fix} (ENABLE, and not IMASK)"
        return Finding(Check.TIMER, False, text, control, value, remedy, fix)
    compare = Register(f"{view.prefix}_CVAL_EL0", cpu=case.cpu.vcpu_id)
    remedy = f"wait {span(view.fires_in_ns or 0)}, or write a lower value to {compare}"
    return Finding(Check.TIMER, False, text, compare, view.cval, remedy, Write(compare, view.now))


def _timer_state(view: TimerView) -> str:
    if not view.ctl & CTL_ENABLE:
        return f"{view.prefix}_CTL_EL0.ENABLE is 0: the timer is off"
    if view.ctl & CTL_IMASK:
        met = "its condition is met" if view.cval <= view.now else "its condition is not met either"
        return f"{view.prefix}_CTL_EL0.IMASK is 1: the timer's output is masked; {met}"
    if view.cval > view.now:
        return f"the timer fires in {span(view.fires_in_ns or 0)}: count {view.now:#x}, CVAL {view.cval:#x}"
    return f"the timer has fired: count {view.now:#x}, CVAL {view.cval:#x}"


def source(case: Case) -> Finding:
    """Check whether the interrupt is pending. An interrupt can be pending by its line, by a latched
    edge, or by a write of ISPENDR."""
    irq = case.irq
    kind = f"level, line {'high' if present.line(irq) else 'low'}" if irq.level else "edge"
    register = naming.bit_register(case.dist, case.cpu, irq.intid, ISPENDR)
    value = _bits(case, lambda each: int(present.pending(case.dist, each)))
    if case.pending:
        return Finding(Check.PENDING, True, f"pending ({kind})", register, value)
    if case.active:
        text = f"active, and not pending again ({kind}): the guest took it and has not ended it"
        return Finding(Check.PENDING, False, text, *_active_register(case), *_end(case))
    text = f"not pending ({kind}): its source never fired, or it was served"
    fix = Write(register, 1 << irq.intid % 32)
    return Finding(Check.PENDING, False, text, register, value, _raise(case), fix)


def _raise(case: Case) -> str:
    intid = case.irq.intid
    if is_sgi(intid):
        sender = "GICD_SGIR" if case.dist.model == 2 else "ICC_SGI1R_EL1"
        return f"send it by a write of {sender} that names vCPU {case.cpu.vcpu_id} (INTID {intid})"
    by_hand = Write(naming.bit_register(case.dist, case.cpu, intid, ISPENDR), 1)
    return f"let its device {'raise the line' if case.irq.level else 'send an edge'}, or {by_hand}"


def _bits(case: Case, field: Callable[[VgicIrq], int]) -> int:
    """The value of the register that `naming.bit_register` returns, one bit for each interrupt.
    ``field(irq)`` returns the bit of the interrupt that is its argument."""
    return naming.bit_value(case.dist, case.cpu, case.irq.intid, field)


def _active_register(case: Case) -> tuple[Register, int]:
    register = naming.bit_register(case.dist, case.cpu, case.irq.intid, ISACTIVER)
    return register, _bits(case, lambda each: int(present.active(case.dist, each)))


def _end(case: Case) -> tuple[str, Write]:
    """The remedy for an active interrupt, as text and as a `Write`. The write is to EOIR, or to DIR
    if EOImode is 1 (IHI 0069 4.8.3)."""
    split = case.cpu.vmcr & VMCR_VEOIM
    register = case.control("dir" if split else f"eoi{case.irq.group}")
    value = case.irq.intid
    if case.dist.model == 2 and is_sgi(value):
        # GICC_EOIR needs the CPUID that was read from GICC_IAR.
        value |= case.irq.active_source << GICC_CPUID_SHIFT
    fix = Write(register, value)
    return f"end its handler with a write of {value} to {register._replace(field='')}", fix


# Distributor and redistributor ------------------------------------------------------------------


def enable(case: Case) -> Finding:
    register = naming.bit_register(case.dist, case.cpu, case.irq.intid, ISENABLER)
    on = case.irq.enabled
    value = _bits(case, lambda each: int(each.enabled))
    fix = Write(register, 1 << case.irq.intid % 32)
    text = f"{register.name} {register.field} is {int(on)}"
    return Finding(Check.ENABLE, on, text, register, value, _if(on, str(fix)), None if on else fix)


def _if(passed: bool, remedy: str) -> str:
    return "" if passed else remedy


def distributor(case: Case) -> Finding:
    """Check GICD_CTLR: the distributor must forward interrupts of this group."""
    group = case.irq.group
    register = naming.distributor_control(case.dist, group)
    on = bool(case.dist.enables >> group & 1)
    value = distributor_map(case.dist.model).read(case.dist, case.cpu, register.offset, 4)
    fix = Write(register._replace(field=""), value | 1 << group)
    remedy = f"set {register.field} (bit {group}) of {register._replace(field='')}"
    text = f"GICD_CTLR.EnableGrp{group} is {int(on)}"
    return Finding(
        Check.DISTRIBUTOR, on, text, register, value, _if(on, remedy), None if on else fix
    )


def group(case: Case) -> Finding:
    """Report the group of the interrupt. The group decides whether the interrupt is an IRQ or an
    FIQ, and which group enable bits apply. This check always passes."""
    irq = case.irq
    signal = "IRQ" if case.as_irq else "FIQ"
    register = naming.bit_register(case.dist, case.cpu, irq.intid, IGROUPR)
    value = _bits(case, lambda each: each.group)
    return Finding(Check.GROUP, True, f"group {irq.group}: signalled as {signal}", register, value)


def route(case: Case) -> Finding:
    """Check whether this vCPU is the target of the interrupt. An active interrupt has no other
    target than the vCPU on which it is active."""
    irq, here = case.irq, case.cpu.vcpu_id
    if case.active and irq.vcpu not in (None, here):
        text = f"it is active on vCPU {irq.vcpu}, and an active interrupt does not migrate"
        return Finding(
            Check.ROUTE, False, text, *_active_register(case), f"end it on vCPU {irq.vcpu}"
        )
    if is_private(irq.intid):
        return Finding(Check.ROUTE, True, f"private to vCPU {here}")
    register = naming.routing_register(case.dist, irq.intid)
    value = irq.targets if case.dist.model == 2 else router(irq)
    if irq.target == here:
        how = ", one of the vCPUs that may take it" if irq.any_cpu else ""
        return Finding(Check.ROUTE, True, f"routed to vCPU {here}{how}", register, value)
    return _routed_elsewhere(case, register, value)


def _routed_elsewhere(case: Case, register: Register, value: int) -> Finding:
    irq, here = case.irq, case.cpu.vcpu_id
    fix = Write(register, 1 << here if case.dist.model == 2 else case.cpu.mpidr & MPIDR_AFF0_TO_2)
    if irq.target is not None:
        return Finding(
            Check.ROUTE, False, f"it is routed to vCPU {irq.target}", register, value, str(fix), fix
        )
    if irq.any_cpu:
        fix = Write(case.control(f"group{irq.group}"), 1)
        text = f"it may go to any vCPU, but none has group {irq.group} enabled"
        return Finding(Check.ROUTE, False, text, register, value, str(fix), fix)
    text = f"{register.name} names affinity {irq.mpidr:#x}: no such vCPU"
    return Finding(Check.ROUTE, False, text, register, value, str(fix), fix)


def power(case: Case) -> Finding:
    """Check whether the vCPU is powered on (PSCI). KVM does not run a vCPU that is off."""
    here, state = case.cpu.vcpu_id, case.view.power
    if state is not Power.OFF:
        text = "blocked in WFI or WFE" if state is Power.BLOCKED else "on"
        return Finding(Check.VCPU, True, text)
    remedy = f"start it with PSCI CPU_ON (MPIDR_EL1 {case.cpu.mpidr & MPIDR_AFF0_TO_2:#x})"
    return Finding(Check.VCPU, False, f"vCPU {here} is powered off", None, None, remedy)


def not_active(case: Case) -> Finding:
    """Check that the interrupt is not active. While an interrupt is active, it is not signalled,
    even if it is pending, too. The guest has to deactivate it first."""
    register, value = _active_register(case)
    if not case.active:
        return Finding(Check.ACTIVE, True, "not active", register, value)
    again = " and pending again" if case.pending else ""
    text = f"active{again}: the guest took it and has not ended it"
    return Finding(Check.ACTIVE, False, text, register, value, *_end(case))


# CPU interface ----------------------------------------------------------------------------------


def interface_enable(case: Case) -> Finding:
    group = case.irq.group
    register = case.control(f"group{group}")
    on = bool(case.cpu.vmcr >> group & 1)
    value = case.cpu.vmcr & (VMCR_VENG0 | VMCR_VENG1) if case.dist.model == 2 else int(on)
    fix = Write(register, value | 1 << group if case.dist.model == 2 else 1)
    name = f"{register.name}.{register.field}"
    remedy = str(fix) if group else f"{fix}, or put INTID {case.irq.intid} into group 1"
    return Finding(
        Check.GROUP_ENABLE,
        on,
        f"{name} is {int(on)}",
        register,
        value,
        _if(on, remedy),
        None if on else fix,
    )


def mask(case: Case) -> Finding:
    """Check the priority mask. The priority value of the interrupt has to be lower than the mask
    (IHI 0069 4.8.6)."""
    register, value, priority = case.control("mask"), case.cpu.priority_mask, case.irq.priority
    if priority < value:
        return Finding(
            Check.MASK,
            True,
            f"priority {priority:#04x} is below {register.name} {value:#04x}",
            register,
            value,
        )
    text = f"priority {priority:#04x} is not below {register.name} {value:#04x}"
    fix = Write(register, PMR_OPEN)
    remedy = f"write more than {priority:#x} to {register}"
    if priority >= _highest_mask(case.cpu):
        # The lowest priority (0xF8 with five priority bits) is masked by every value of the mask.
        how, fix = set_priority(case, 0xA0)
        remedy = f"no mask lets the lowest priority through: {how}"
    return Finding(Check.MASK, False, text, register, value, remedy, fix)


def set_priority(case: Case, priority: int) -> tuple[str, Write]:
    """The remedy that changes the priority of the interrupt to ``priority``, as text and as a
    `Write`. The configuration byte of an LPI has both the priority and the enable bit. Therefore
    the write for an LPI also sets the enable bit. After the write, the guest has to queue INV."""
    register, lpi = (
        naming.priority_byte(case.dist, case.cpu, case.irq.intid),
        case.irq.intid >= FIRST_LPI,
    )
    fix = Write(register, priority | (LPI_ENABLE if lpi else 0))
    return f"{fix}{', then queue the ITS command INV' if lpi else ''}", fix


def _highest_mask(cpu: VgicCpu) -> int:
    return implemented_priority(present.preemption_bits(cpu))


def preemption(case: Case) -> Finding:
    """Check preemption. The group priority of the interrupt has to be lower (a smaller number) than
    the group priority of the running priority. Both group priorities use the binary point of the
    interrupt's group (IHI 0069 4.8.4 to 4.8.6, CanSignalVirtualInterrupt)."""
    register, value, irq = case.control("running"), present.running_priority(case.cpu), case.irq
    if value == IDLE_PRIORITY:
        return Finding(Check.RUNNING, True, "nothing is running", register, value)
    own = present.group_priority(case.cpu, irq.group, irq.priority)
    runner = present.running(case.dist, case.cpu)
    if runner is irq:
        return Finding(
            Check.RUNNING, True, f"it runs itself, running priority {value:#04x}", register, value
        )
    rounded = own != irq.priority or (runner is not None and runner.priority != value)
    by = f" with binary point {present.binary_point(case.cpu, irq.group)}" if rounded else ""
    if own < present.group_priority(case.cpu, irq.group, value):
        text = f"priority {irq.priority:#04x} preempts the running priority {value:#04x}{by}"
        return Finding(Check.RUNNING, True, text, register, value)
    who = (
        "something" if runner is None else f"INTID {runner.intid} (priority {runner.priority:#04x})"
    )
    text = (
        f"{who} is being handled, running priority {value:#04x}: "
        f"priority {irq.priority:#04x} does not preempt it{by}"
    )
    return Finding(Check.RUNNING, False, text, register, value, *_drop(case, runner))


def _drop(case: Case, runner: VgicIrq | None) -> tuple[str, Write | None]:
    register = case.control(f"eoi{case.irq.group if runner is None else runner.group}")
    if runner is None:
        return (
            f"end what is running with a write of its INTID to {register._replace(field='')}",
            None,
        )
    fix = Write(register, runner.intid)
    return (
        f"end INTID {runner.intid} with a write of {runner.intid} to {register._replace(field='')}",
        fix,
    )
