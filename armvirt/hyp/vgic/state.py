"""The vGIC's state as plain data: save, check and restore.

The tables ``SAVED`` of `Distributor`, `VgicCpu`, `VgicIrq`, `Lpi` and `Its` have the names of the
attributes that are saved without a conversion. This module converts the other attributes. The lists
of interrupts of a vCPU are saved as lists of INTIDs. The values of the list registers are part of
the saved state of the PE, and this module does not save them. Three more things are not saved: the
addresses of frames, the owners of interrupts, and the functions that read the lines of interrupts
that are mapped to host interrupts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from armvirt.arch.gic import FIRST_SPI
from armvirt.hyp.vgic.cpu import APRS, VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.state import State, checked, fields_of, load_fields

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.its import Its

STATE_VERSION = 1


def save(dist: Distributor, its: Sequence[Its]) -> State:
    """The state of the vGIC that the guest can observe, as plain data."""
    return {
        "version": STATE_VERSION,
        **fields_of(dist, (*dist.SHAPE, *dist.SAVED)),
        "cpus": [_save_cpu(cpu) for cpu in dist.cpus()],
        "spis": [irq.state() for irq in dist.spis(FIRST_SPI, dist.nr_spis)],
        "lpis": [lpi.state() for lpi in dist.lpis.values()],
        "its": [each.state() for each in its],
        "backlog": dist.backlog.state(),
    }


def check_shape(dist: Distributor, its: Sequence[Its], saved: State) -> None:
    """Check that `load` can restore ``saved`` into ``dist``. StateError if the version in ``saved``
    differs from the version that this code writes. ValueError if ``saved`` and ``dist`` have
    different models, vCPU ids, numbers of INTIDs or numbers of ITSs. ValueError if the saved vGIC
    is initialised and ``dist`` is not, or the reverse. Exception: a GICv2 that is not initialised
    accepts the state of an initialised GICv2."""
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
    """Restore the result of `save`. The caller runs `check_shape` first. LPIs are restored before
    the ap_lists, because an ap_list refers to LPIs."""
    load_fields(dist, dist.SAVED, saved)
    spis = dist.spis(FIRST_SPI, dist.nr_spis)
    _load_irqs(spis, saved["spis"])
    dist.any_cpu = {irq for irq in spis if irq.any_cpu}
    dist.backlog.load(saved["backlog"])
    if its:
        from armvirt.hyp.vgic.its.its import load_all

        load_all(dist, its, saved)
    for cpu, one in zip(dist.cpus(), saved["cpus"], strict=True):
        _load_cpu(dist, cpu, one)
    dist.stray_active = {irq for irq in spis if irq.active and irq.vcpu is None}


def _save_cpu(cpu: VgicCpu) -> State:
    """The state of one vCPU as plain data. A list of interrupts is saved as a list of INTIDs in the
    same order."""
    return {
        **fields_of(cpu, cpu.SAVED),
        "ap0r": _padded(cpu.active_priorities(0)),
        "ap1r": _padded(cpu.active_priorities(1)),
        "private": [irq.state() for irq in cpu.private],
        **{name: [irq.intid for irq in getattr(cpu, name)] for name in cpu.SAVED_LISTS},
    }


def _load_cpu(dist: Distributor, cpu: VgicCpu, saved: State) -> None:
    """Restore one vCPU. The function computes ``mapped`` of the vCPU, and ``vcpu`` and ``lr`` of
    each interrupt, from the saved ap_list and the saved list ``resident`` (the interrupts in list
    registers)."""
    _load_irqs(cpu.private, saved["private"])
    cpu.ap0r, cpu.ap1r = list(saved["ap0r"]), list(saved["ap1r"])
    load_fields(cpu, cpu.SAVED, saved)
    for name in cpu.SAVED_LISTS:
        setattr(cpu, name, [dist.irq(cpu.vcpu_id, intid) for intid in saved[name]])
    cpu.ap_list = dict.fromkeys(cpu.ap_list)
    for irq in cpu.ap_list:
        irq.vcpu = cpu.vcpu_id
    for index, irq in enumerate(cpu.resident):
        irq.lr = index
    cpu.mapped = [irq for irq in cpu.resident if irq.mapped_level]


def _load_irqs(irqs: Iterable[VgicIrq], saved: Iterable[State]) -> None:
    for irq, one in zip(irqs, saved, strict=True):
        irq.load(one)


def _padded(registers: list[int]) -> list[int]:
    """Pad a list of active-priority registers with zeros to four registers, the maximum of the
    architecture."""
    return registers + [0] * (APRS - len(registers))
