"""The vGIC's state as plain data: save, check and restore.

Interrupts in list registers are saved as INTIDs; the state of the PE has the list register values.
Addresses, owners and host interrupts (the wiring) are not saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from armvirt.arch.gic import FIRST_SPI
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.state import State, checked

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.its import Its

STATE_VERSION = 1


def save(dist: Distributor, its: Sequence[Its]) -> State:
    """The state that the guest can observe, as plain data."""
    return {
        "version": STATE_VERSION,
        "model": dist.model,
        "initialized": dist.initialized,
        "ready": dist.ready,
        "enables": dist.enables,
        "revision": dist.revision,
        "v2_groups_user_writable": dist.v2_groups_user_writable,
        "nr_irqs": dist.nr_irqs,
        "cpus": [cpu.state() for cpu in dist.cpus()],
        "spis": [irq.state() for irq in dist.spis(FIRST_SPI, dist.nr_spis)],
        "propbaser": dist.propbaser,
        "lpis": [lpi.state() for lpi in dist.lpis.values()],
        "its": [each.state() for each in its],
        "backlog": dist.backlog.state(),
    }


def check_shape(dist: Distributor, its: Sequence[Its], saved: State) -> None:
    """Check that `load` can restore ``saved``. StateError for the state of another version.
    ValueError if the state is of a vGIC of another model, or with other vCPUs, INTIDs or ITSs."""
    checked(saved, "Vgic", STATE_VERSION)
    becomes_ready = dist.model == 2 and saved["initialized"] and not dist.initialized
    if saved["initialized"] != dist.initialized and not becomes_ready:
        raise ValueError("saved state is of another shape: one vGIC is initialised and one is not")
    count = dist.nr_irqs_after_init if becomes_ready else dist.nr_irqs
    shape = (saved["model"], saved["nr_irqs"], [cpu["vcpu_id"] for cpu in saved["cpus"]])
    if shape != (dist.model, count, [cpu.vcpu_id for cpu in dist.cpus()]):
        raise ValueError("saved state is of another shape: a vGIC with other vCPUs or interrupts")
    if len(saved["its"]) != len(its):
        raise ValueError("saved state is of another shape: a vGIC with another number of ITSs")


def load(dist: Distributor, its: Sequence[Its], saved: State) -> None:
    """Restore what `save` returned. The caller runs `check_shape` first. LPIs are restored before
    the lists that contain their INTIDs."""
    dist.ready, dist.enables, dist.revision = saved["ready"], saved["enables"], saved["revision"]
    dist.v2_groups_user_writable = saved["v2_groups_user_writable"]
    spis = dist.spis(FIRST_SPI, dist.nr_spis)
    for irq, one in zip(spis, saved["spis"], strict=True):
        irq.load(one)
    dist.any_cpu = {irq for irq in spis if irq.any_cpu}
    dist.backlog.load(saved["backlog"])
    if its:
        from armvirt.hyp.vgic.its.its import load_all

        load_all(dist, its, saved)
    for cpu, one in zip(dist.cpus(), saved["cpus"], strict=True):
        _load_cpu(dist, cpu, one)
    dist.stray_active = {irq for irq in spis if irq.active and irq.vcpu is None}


def _load_cpu(dist: Distributor, cpu: VgicCpu, saved: State) -> None:
    for irq, private in zip(cpu.private, saved["private"], strict=True):
        irq.load(private)
    cpu.ap0r, cpu.ap1r = list(saved["ap0r"]), list(saved["ap1r"])
    cpu.num_pri_bits, cpu.vmcr = saved["num_pri_bits"], saved["vmcr"]
    for name in ("resident", "outside", "cleared"):
        setattr(cpu, name, [dist.irq(cpu.vcpu_id, intid) for intid in saved[name]])
    cpu.ap_list = dict.fromkeys(dist.irq(cpu.vcpu_id, intid) for intid in saved["ap_list"])
    for irq in cpu.ap_list:
        irq.vcpu = cpu.vcpu_id
    for index, irq in enumerate(cpu.resident):
        irq.lr = index
    cpu.mapped = [irq for irq in cpu.resident if irq.hw and irq.level]
    cpu.groups, cpu.running_before = saved["groups"], list(saved["running_before"])
    cpu.lpis_enabled, cpu.pendbaser = saved["lpis_enabled"], saved["pendbaser"]
    cpu.lpis_wanted, cpu.invalidate_wanted = saved["lpis_wanted"], saved["invalidate_wanted"]
    cpu.dirty, cpu.used = saved["dirty"], saved["used"]
