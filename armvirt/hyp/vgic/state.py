"""The vGIC's state as plain data, and back. What is in list registers is in it as INTIDs: the
values are the PE's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from armvirt.arch.gic import FIRST_SPI
from armvirt.hyp.vgic.cpu import VgicCpu

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic


def state(vgic: Vgic) -> dict[str, object]:
    """Everything the guest can tell. Addresses, owners and mapped host interrupts are wiring, and
    not in it."""
    return {
        "version": 1,
        "model": vgic.model,
        "initialized": vgic.initialized,
        "ready": vgic.ready,
        "enables": vgic.enables,
        "revision": vgic.revision,
        "v2_groups_user_writable": vgic.v2_groups_user_writable,
        "nr_irqs": vgic.nr_irqs,
        "cpus": [cpu.state() for cpu in vgic.cpus()],
        "spis": [irq.state() for irq in vgic.spis(FIRST_SPI, vgic.nr_spis)],
        "propbaser": vgic.propbaser,
        "lpis": [lpi.state() for lpi in vgic.lpis.values()],
        "its": [its.state() for its in vgic.its],
        "backlog": vgic.backlog.state(),
    }


def load(vgic: Vgic, saved: dict[str, Any]) -> None:
    """Restore `state`; see `Vgic.load_state`. LPIs come before the lists that they are on."""
    check_shape(vgic, saved)
    if saved["initialized"] and vgic.model == 2:
        vgic.init()
    vgic.ready, vgic.enables, vgic.revision = saved["ready"], saved["enables"], saved["revision"]
    vgic.v2_groups_user_writable = saved["v2_groups_user_writable"]
    spis = vgic.spis(FIRST_SPI, vgic.nr_spis)
    for irq, one in zip(spis, saved["spis"], strict=True):
        irq.load(one)
    vgic.any_cpu = {irq for irq in spis if irq.any_cpu}
    if vgic.its:
        from armvirt.hyp.vgic.its import its

        its.load_all(vgic, saved)
    for cpu, one in zip(vgic.cpus(), saved["cpus"], strict=True):
        _load_cpu(vgic, cpu, one)
    vgic.stray_active = {irq for irq in spis if irq.active and irq.vcpu is None}
    vgic.backlog.load(saved["backlog"])


def check_shape(vgic: Vgic, saved: dict[str, Any]) -> None:
    """ValueError for the state of a vGIC of another shape: model, vCPUs, interrupts, ITSs."""
    becomes_ready = vgic.model == 2 and saved["initialized"] and not vgic.initialized
    if saved["initialized"] != vgic.initialized and not becomes_ready:
        raise ValueError("saved state is of another shape: one vGIC is initialised and one is not")
    count = vgic.nr_irqs_after_init if becomes_ready else vgic.nr_irqs
    shape = (saved["model"], saved["nr_irqs"], [cpu["vcpu_id"] for cpu in saved["cpus"]])
    if shape != (vgic.model, count, [cpu.vcpu_id for cpu in vgic.cpus()]):
        raise ValueError("saved state is of another shape: a vGIC with other vCPUs or interrupts")
    if len(saved["its"]) != len(vgic.its):
        raise ValueError("saved state is of another shape: a vGIC with another number of ITSs")


def _load_cpu(vgic: Vgic, cpu: VgicCpu, saved: dict[str, Any]) -> None:
    for irq, private in zip(cpu.private, saved["private"], strict=True):
        irq.load(private)
    cpu.ap0r, cpu.ap1r = list(saved["ap0r"]), list(saved["ap1r"])
    cpu.num_pri_bits, cpu.vmcr = saved["num_pri_bits"], saved["vmcr"]
    for name in ("resident", "outside", "cleared"):
        setattr(cpu, name, [vgic.irq(cpu.vcpu_id, intid) for intid in saved[name]])
    cpu.ap_list = dict.fromkeys(vgic.irq(cpu.vcpu_id, intid) for intid in saved["ap_list"])
    for irq in cpu.ap_list:
        irq.vcpu = cpu.vcpu_id
    for index, irq in enumerate(cpu.resident):
        irq.lr = index
    cpu.mapped = [irq for irq in cpu.resident if irq.hw and irq.level]
    cpu.groups, cpu.running_before = saved["groups"], list(saved["running_before"])
    cpu.lpis_enabled, cpu.pendbaser = saved["lpis_enabled"], saved["pendbaser"]
    cpu.lpis_wanted, cpu.invalidate_wanted = saved["lpis_wanted"], saved["invalidate_wanted"]
    cpu.dirty, cpu.used = saved["dirty"], saved["used"]
