"""The present state of the vGIC, as rows of plain data for tables. No function changes a state. The
list registers are read, but not copied back into the vGIC's interrupts (KVM calls this copy a
fold)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from armvirt.arch.gic import (
    GICR_RD_ROWS,
    MPIDR_AFF0_TO_2,
    OFFSETS,
    VMCR_VCBPR,
    VMCR_VENG0,
    VMCR_VENG1,
    VMCR_VEOIM,
    ListRegister,
    active_priority_registers,
    is_private,
)
from armvirt.hyp.diagnosis import present_state as present
from armvirt.hyp.diagnosis import register_names as naming
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers.frames import distributor_map
from armvirt.hyp.vgic.registers.mmio_v3 import RD_MAP

if TYPE_CHECKING:
    from armvirt.hyp.vgic.distributor import Distributor

Row = dict[str, object]

DISTRIBUTOR = {name: OFFSETS[name] for name in ("GICD_CTLR", "GICD_TYPER", "GICD_IIDR")}
REDISTRIBUTOR = {
    row.name: row for row in GICR_RD_ROWS if row.name in ("GICR_CTLR", "GICR_TYPER", "GICR_WAKER")
}


def distributor(dist: Distributor) -> list[Row]:
    """The registers of the distributor, one row for each register: name, offset, value and
    meaning."""
    cpu, frame = next(iter(dist.cpus())), distributor_map(dist.model)
    says = {
        "GICD_CTLR": ", ".join(
            f"group {n} {'on' if dist.enables >> n & 1 else 'off'}" for n in range(2)
        ),
        "GICD_TYPER": f"{dist.nr_irqs} INTIDs",
        "GICD_IIDR": f"revision {dist.revision}",
    }
    return [
        {"register": name, "offset": f"{offset:#x}", "value": f"{frame.read(dist, cpu, offset, 4):#x}",
         "meaning": says[name]}
        for name, offset in DISTRIBUTOR.items()
    ]  # fmt: skip


def redistributors(dist: Distributor, cpus: Iterable[VgicCpu]) -> list[Row]:
    """The redistributors of a GICv3 with their addresses and registers, one row per vCPU. The
    result is empty for a GICv2."""
    if dist.model == 2:
        return []
    return [
        {"vcpu": cpu.vcpu_id, "affinity": f"{cpu.mpidr & MPIDR_AFF0_TO_2:#x}",
         "address": "" if cpu.redist_base is None else f"{cpu.redist_base:#x}",
         **{name: f"{RD_MAP.read(dist, cpu, row.offset, row.widths[-1]):#x}"
            for name, row in REDISTRIBUTOR.items()}}
        for cpu in cpus
    ]  # fmt: skip


def interfaces(dist: Distributor, cpus: Iterable[VgicCpu]) -> list[Row]:
    """The CPU interfaces, one row per vCPU. A row has the fields of ICH_VMCR_EL2 (priority mask,
    effective binary points, modes, group enables), the running priority, the highest pending
    interrupt and the active-priority registers."""
    return [_interface(dist, cpu) for cpu in cpus]


def _interface(dist: Distributor, cpu: VgicCpu) -> Row:
    best, vif = present.highest_pending(dist, cpu), cpu.vif
    lines = (
        [name for name, high in (("vIRQ", vif.virq), ("vFIQ", vif.vfiq)) if high]
        if vif is not None
        else []
    )
    return {
        "vcpu": cpu.vcpu_id, "loaded": vif is not None,
        "group 0": bool(cpu.vmcr & VMCR_VENG0), "group 1": bool(cpu.vmcr & VMCR_VENG1),
        "PMR": f"{cpu.priority_mask:#04x}", "RPR": f"{present.running_priority(cpu):#04x}",
        "HPPI": None if best is None else best.intid,
        "BPR0": present.binary_point(cpu, 0), "BPR1": present.binary_point(cpu, 1),
        "CBPR": int(bool(cpu.vmcr & VMCR_VCBPR)), "EOImode": int(bool(cpu.vmcr & VMCR_VEOIM)),
        "AP0R": _words(cpu, 0), "AP1R": _words(cpu, 1), "VMCR": f"{cpu.vmcr:#x}",
        "HCR": None if vif is None else f"{vif.hcr:#x}", "signals": " ".join(lines),
    }  # fmt: skip


def _words(cpu: VgicCpu, group: int) -> str:
    """The values of the active-priority registers of a group. The number of these registers depends
    on the number of preemption bits (IHI 0069 12.2.1)."""
    count = active_priority_registers(present.preemption_bits(cpu))
    words = cpu.active_priorities(group)[:count]
    return " ".join(f"{word:#x}" for word in words)


def list_registers(cpus: Iterable[VgicCpu]) -> list[Row]:
    """The list registers that are not zero, for each vCPU that is loaded on a PE."""
    return [
        {"vcpu": cpu.vcpu_id, "list register": f"ICH_LR{n}_EL2", "value": f"{value:#018x}", **_decoded(value)}
        for cpu in cpus if cpu.vif is not None for n, value in enumerate(cpu.vif.lr) if value
    ]  # fmt: skip


def _decoded(value: int) -> Row:
    lr = ListRegister.decode(value)
    return {
        "INTID": lr.vintid, "state": lr.state_name, "priority": f"{lr.priority:#04x}", "group": lr.group,
        "pINTID": lr.pintid, "EOI": lr.eoi,
    }  # fmt: skip


def interrupts(
    dist: Distributor, cpus: Iterable[VgicCpu], *, everything: bool = False
) -> list[Row]:
    """The interrupts of the VM, one row for each. They are the SGIs and PPIs of each vCPU in
    ``cpus``, all SPIs, and the LPIs to which an ITS translates an event. If ``everything`` is
    False, the result has only the interrupts that are enabled, pending, active or on an ap_list.
    The enable bit of an SGI does not count, because an SGI is always enabled."""
    return [
        _interrupt(dist, irq, owner)
        for irq, owner in _all(dist, cpus)
        if everything or _in_use(dist, irq)
    ]


def _all(dist: Distributor, cpus: Iterable[VgicCpu]) -> Iterator[tuple[VgicIrq, VgicCpu | None]]:
    for cpu in cpus:
        yield from ((irq, cpu) for irq in cpu.private)
    for intid in range(32, dist.nr_irqs):
        irq = dist.spi(intid)
        if irq is not None:
            yield irq, None
    yield from ((dist.lpis[intid], None) for intid in sorted(dist.lpis))


def _in_use(dist: Distributor, irq: VgicIrq) -> bool:
    enabled = irq.enabled and irq.intid >= 16
    return (
        enabled or present.pending(dist, irq) or present.active(dist, irq) or irq.vcpu is not None
    )


def _interrupt(dist: Distributor, irq: VgicIrq, owner: VgicCpu | None) -> Row:
    return {
        "INTID": irq.intid, "kind": naming.kind_of(irq.intid), "target": _target(irq, owner), "enabled": irq.enabled,
        "pending": present.pending(dist, irq), "active": present.active(dist, irq),
        "priority": f"{irq.priority:#04x}", "group": irq.group, "trigger": "level" if irq.level else "edge",
        "line": ("high" if present.line(irq) else "low") if irq.level else "",
        "in": f"LR{irq.lr} of vCPU {irq.vcpu}" if irq.lr >= 0 else "ap_list" if irq.vcpu is not None else "",
        "host": irq.hwintid if irq.hw else None,
    }  # fmt: skip


def _target(irq: VgicIrq, owner: VgicCpu | None) -> str:
    if owner is not None and is_private(irq.intid):
        return f"vCPU {owner.vcpu_id}"
    where = "nobody" if irq.target is None else f"vCPU {irq.target}"
    return (
        f"any ({where})"
        if irq.any_cpu
        else where
        if irq.target is not None
        else f"nobody ({routing.router(irq):#x})"
    )
