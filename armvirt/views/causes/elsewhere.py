"""Rules for writes to a wrong interrupt, vCPU, frame or group, and for interrupts that the priority
mask blocks."""

from __future__ import annotations

from collections.abc import Iterator

from armvirt.arch.gic import (
    FIRST_LPI,
    GICR_SIZE,
    IGROUPR,
    ISENABLER,
    MPIDR_AFF0_TO_2,
    NR_PRIVATE,
    is_private,
)
from armvirt.arch.pstate import PSTATE_I
from armvirt.hyp.diagnosis import register_names as naming
from armvirt.hyp.diagnosis.finding import Check, Register
from armvirt.hyp.vcpu.power import Power
from armvirt.trace.sources import TIMER_INTIDS
from armvirt.trace.writers import LastWrite
from armvirt.views.causes.evidence import Cause, Evidence

OPEN = 0xF0  # the guest means a mask of at least this value to block no interrupt


def enabled_elsewhere(evidence: Evidence) -> Cause | None:
    """Detect an interrupt that is not enabled because the guest wrote ISENABLER in a wrong frame,
    on a wrong vCPU, or for a wrong INTID."""
    held = evidence.holds(Check.ENABLE)
    if held is None or evidence.intid >= FIRST_LPI or not evidence.written(held).never:
        return None
    found = next(_misplaced(evidence), None)
    if found is None:
        return None
    why, write = found
    where = f"{evidence.place(write.pc)} at {write.ns:,} ns"
    text = f"is not taken by vCPU {evidence.vcpu}: {held.text} ({evidence.written(held).full}); {why} ({where})"
    return Cause("enabled-elsewhere", text, held.remedy)


def _misplaced(evidence: Evidence) -> Iterator[tuple[str, LastWrite]]:
    """Yield (description, write) for each write of ISENABLER in a wrong frame, on a wrong vCPU, or
    for a wrong INTID. The most likely mistake comes first."""
    yield from _other_frames(evidence)
    yield from _other_cpus(evidence)
    yield from _other_intids(evidence)


def _other_frames(evidence: Evidence) -> Iterator[tuple[str, LastWrite]]:
    intid, recorder = evidence.intid, evidence.recorder
    if not is_private(intid) or evidence.dist.model == 2:
        return
    if write := recorder.memory("GICD", ISENABLER, bit=intid):
        yield (
            f"GICD_ISENABLER0 bit {intid} was written, which is RES0 with affinity routing (GICR has it)",
            write,
        )
    base = evidence.dist.cpu(evidence.vcpu).redist_index * GICR_SIZE
    write = recorder.memory("GICR", base + ISENABLER)
    if write is not None and write.value >> intid & 1:
        yield (
            f"GICR+{base + ISENABLER:#x} was written, which is in RD_base, not in SGI_base, 64 KiB up",
            write,
        )


def _other_cpus(evidence: Evidence) -> Iterator[tuple[str, LastWrite]]:
    if not is_private(evidence.intid):
        return
    for cpu in evidence.dist.cpus():
        if cpu.vcpu_id == evidence.vcpu or not cpu.private[evidence.intid].enabled:
            continue
        register = naming.bit_register(evidence.dist, cpu, evidence.intid, ISENABLER)
        if write := evidence.write_of(register):
            yield (
                f"it was enabled on vCPU {cpu.vcpu_id} instead, by {register.name} ({register.address})",
                write,
            )


def _other_intids(evidence: Evidence) -> Iterator[tuple[str, LastWrite]]:
    """Yield (description, write) for each write that enabled a wrong INTID. The wrong INTID may be
    the number in the device tree (32 less for an SPI, 16 less for a PPI), the PPI of the other
    timer, or any other private interrupt."""
    intid = evidence.intid
    offset = NR_PRIVATE if intid >= NR_PRIVATE else 16
    for other, why in (
        (
            intid - offset,
            f"INTID {intid - offset} was enabled instead: device trees count this kind from {offset}",
        ),
        *(
            (each, f"{evidence.intid_names.described(each)}, was enabled instead")
            for each in TIMER_INTIDS.values()
            if evidence.timer
        ),
        *(
            (each, f"INTID {each} was enabled instead")
            for each in range(16, NR_PRIVATE)
            if is_private(intid)
        ),
    ):
        if (
            other != intid
            and other >= 0
            and (write := evidence.write_of(evidence.bit(ISENABLER, other)))
        ):
            yield why, write


def other_group(evidence: Evidence) -> Cause | None:
    """Detect an interrupt that is in the wrong group. The group of the interrupt is not enabled or
    is masked, but the other group is enabled."""
    held, irq = evidence.holds(Check.DISTRIBUTOR, Check.GROUP_ENABLE, Check.PSTATE), evidence.irq
    if held is None or irq is None or irq.intid >= FIRST_LPI:
        return None
    other = 1 - irq.group
    cpu = evidence.dist.cpu(evidence.vcpu)
    open_for_other = bool(evidence.dist.enables >> other & 1) and bool(cpu.vmcr >> other & 1)
    if not open_for_other or (held.station is Check.PSTATE and not _fiq_alone(evidence)):
        return None
    group = evidence.bit(IGROUPR)
    text = (
        f"is not taken by vCPU {evidence.vcpu}: it is in group {irq.group} by {group.name} {group.field} "
        f"({evidence.wrote(group)}), and {held.text}, while group {other} is open"
    )
    value = "1" if other else "0"
    return Cause("group", text, f"write {value} to {group.field} of {group.name} ({group.address})")


def _fiq_alone(evidence: Evidence) -> bool:
    """True if PSTATE.F blocks the interrupt and PSTATE.I is clear. The guest then expects IRQs, not
    FIQs."""
    pstate = evidence.machine.board.vcpus[evidence.vcpu].context.pstate
    at = evidence.at(Check.PSTATE)
    if at is None or at.passed or at.register is None:
        return False
    return at.register.field == "F" and not pstate & PSTATE_I


def routed_to_the_wrong(evidence: Evidence) -> Cause | None:
    """Detect an SPI that the guest has routed to no vCPU, or to a vCPU that cannot take the SPI.
    Such a vCPU is powered off, has not enabled the group of the SPI, or masks the priority of the
    SPI."""
    held = evidence.holds(Check.VCPU, Check.GROUP_ENABLE, Check.MASK, Check.ROUTE)
    irq = evidence.irq
    if held is None or irq is None or not NR_PRIVATE <= irq.intid < FIRST_LPI or irq.any_cpu:
        return None
    if held.station is Check.ROUTE and irq.target is not None:
        return None
    register: Register = naming.routing_register(evidence.dist, irq.intid)
    if (held.station is not Check.ROUTE and evidence.vcpu == 0) or evidence.write_of(
        register
    ) is None:
        return None
    able = next((cpu for cpu in evidence.dist.cpus() if _can_take(evidence, cpu.vcpu_id)), None)
    if able is None:
        return None
    to = "nobody" if irq.target is None else f"vCPU {irq.target}"
    text = f"is routed to {to} by {register.name} ({evidence.wrote(register)}): {held.text}"
    value = 1 << able.vcpu_id if evidence.dist.model == 2 else able.mpidr & MPIDR_AFF0_TO_2
    field = f"{register.field} of " if register.field else ""
    return Cause(
        "route",
        text,
        f"write {value:#x} to {field}{register._replace(field='')}, for vCPU {able.vcpu_id}",
    )


def _can_take(evidence: Evidence, vcpu: int) -> bool:
    cpu = evidence.dist.cpu(vcpu)
    irq = evidence.irq
    on = evidence.machine.board.vcpus[vcpu].power is not Power.OFF
    return (
        irq is not None
        and on
        and bool(cpu.vmcr >> irq.group & 1)
        and irq.priority < cpu.priority_mask
    )


def masked(evidence: Evidence) -> Cause | None:
    """Detect an interrupt that the priority mask blocks. The cause names the last writes of the
    mask and of the priority. If the mask was never written, the result is None, because the check
    of the mask explains enough."""
    held, irq = evidence.holds(Check.MASK), evidence.irq
    if held is None or irq is None or held.register is None or evidence.written(held).never:
        return None
    mask = held.value or 0
    byte = naming.priority_byte(evidence.dist, evidence.dist.cpu(evidence.vcpu), irq.intid)
    name = "its configuration byte" if irq.intid >= FIRST_LPI else f"{byte.name} {byte.field}"
    by = "" if irq.intid >= FIRST_LPI else f" ({evidence.wrote(byte)})"
    ours = f"priority {irq.priority:#04x} in {name}{by}"
    theirs = f"{held.register.name} {mask:#04x} ({evidence.wrote(held.register)})"
    where = f"is not taken by vCPU {evidence.vcpu}"
    if mask >= OPEN:
        return Cause(
            "priority", f"{where}: {ours} is too low, it is not below {theirs}", held.remedy
        )
    return Cause("mask", f"{where}: {theirs} masks {ours}", held.remedy)
