"""LPIs: creation, routing, configuration tables, pending tables, and the LPI registers of a
redistributor (IHI 0069 chapter 5.1).

An `Lpi` object exists for each INTID that an ITS maps. Its configuration is a copy of one byte of
the table at GICR_PROPBASER, which all redistributors share (GICR_TYPER.CommonLPIAff = 0). An
invalidation reads the byte again. If LPIs are enabled on the redistributor, the `Lpi` object has
the pending state. If LPIs are disabled, the table at GICR_PENDBASER has the pending state. Work on
many LPIs can take several guest accesses (`armvirt.hyp.vgic.backlog`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from armvirt.arch import its as arch
from armvirt.arch.gic import FIRST_LPI
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic.backlog import RELEASE
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import PRIORITY_MASK, Lpi
from armvirt.hyp.vgic.vm_interface import fetch, store

Action = Callable[[Distributor, Any, "list[Lpi]"], None]

# Creation and routing ---------------------------------------------------------------------------


def acquire(dist: Distributor, intid: int, home: int | None) -> Lpi:
    """Map one more event to an LPI. ``intid`` is the INTID of the LPI. The first event creates the
    LPI (kvm vgic_add_lpi).

    ``home`` is the vCPU whose redistributor holds the new LPI, None if there is no such vCPU. An
    LPI that exists already keeps its ``home``. If the configuration of a new LPI cannot be read,
    the LPI is disabled, but the event is mapped: in IHI 0069, MAPTI does not read the
    configuration. (KVM does not map the event.)
    """
    lpi = dist.lpis.get(intid)
    if lpi is None:
        lpi = dist.lpis[intid] = Lpi(intid)
        _configure(lpi, _property(dist, intid))
        move(dist, lpi, home)
    lpi.references += 1
    return lpi


def release(dist: Distributor, lpi: Lpi) -> None:
    """Unmap one event of an LPI. If no other event is mapped to the LPI, remove the LPI and its
    pending state (IHI 0069 5.3, DISCARD). The caller runs `flush.sync_all` first."""
    lpi.references -= 1
    if lpi.references:
        return
    lpi.pending_latch = False
    lpi.home = lpi.target = None
    dist.queue(lpi)
    del dist.lpis[lpi.intid]


def move(dist: Distributor, lpi: Lpi, home: int | None) -> None:
    """Move an LPI and its pending state to the redistributor of vCPU ``home``. If ``home`` is None,
    the LPI is then on no redistributor.

    If the LPI was on no redistributor, and LPIs are enabled on the new redistributor, the pending
    bit is read from the pending table of the new redistributor.
    """
    before, lpi.home = lpi.home, home
    if before is None and home is not None and dist.cpu(home).lpis_enabled:
        _take_pending(dist, lpi)
    _retarget(dist, lpi)


def _retarget(dist: Distributor, lpi: Lpi) -> None:
    home = lpi.home
    lpi.target = home if home is not None and dist.cpu(home).lpis_enabled else None
    dist.queue(lpi)


def homed(dist: Distributor, vcpu_id: int) -> list[Lpi]:
    """The LPIs on the redistributor of this vCPU."""
    return [lpi for lpi in dist.lpis.values() if lpi.home == vcpu_id]


def _homed_intids(dist: Distributor, vcpu_id: int) -> list[int]:
    dist.backlog.spend(len(dist.lpis))
    return [lpi.intid for lpi in dist.lpis.values() if lpi.home == vcpu_id]


def move_all(dist: Distributor, source: int, target: int) -> None:
    """Move every LPI of one redistributor to another redistributor (MOVALL)."""
    dist.backlog.add("move from", [source, target], _homed_intids(dist, source))


def _move_from(dist: Distributor, about: list[int], lpis: list[Lpi]) -> None:
    source, target = about
    for lpi in lpis:
        if lpi.home == source:
            move(dist, lpi, target)


def _move_to(dist: Distributor, target: int | None, lpis: list[Lpi]) -> None:
    for lpi in lpis:
        move(dist, lpi, target)


def _release_all(dist: Distributor, _: None, lpis: list[Lpi]) -> None:
    """Release each LPI in ``lpis``. The list contains an LPI once for each event that was
    unmapped."""
    flush.sync_all(dist)
    for lpi in lpis:
        release(dist, lpi)


# Configuration ----------------------------------------------------------------------------------


def _property(dist: Distributor, intid: int) -> int:
    """The LPI's byte in the configuration table. The value is 0 (disabled) if the byte is beyond
    the end of the table or outside guest memory."""
    if intid >= arch.lpis_end(dist.propbaser):
        return 0
    data = fetch(dist.memory, arch.property_address(dist.propbaser, intid), 1)
    return data[0] if data else 0


def _configure(lpi: Lpi, value: int) -> None:
    lpi.priority = value & arch.LPI_PRIORITY & PRIORITY_MASK
    lpi.enabled = bool(value & arch.LPI_ENABLE)


def invalidate(dist: Distributor, lpi: Lpi) -> None:
    """Read the configuration of an LPI again (INV, GICR_INVLPIR)."""
    _configure(lpi, _property(dist, lpi.intid))
    dist.queue(lpi)


def invalidate_all(dist: Distributor, vcpu_id: int) -> None:
    """Read the configuration of all LPIs of a redistributor again (INVALL, GICR_INVALLR)."""
    dist.backlog.add("configure", vcpu_id, _homed_intids(dist, vcpu_id))


def _invalidate_some(dist: Distributor, vcpu_id: int, lpis: list[Lpi]) -> None:
    here = [lpi for lpi in lpis if lpi.home == vcpu_id]
    _configure_all(dist, here)
    for lpi in here:
        dist.queue(lpi)


def _configure_all(dist: Distributor, lpis: list[Lpi]) -> None:
    """Read the configuration of several LPIs. If the whole table is in guest memory, the table is
    read only once; otherwise each LPI's byte is read separately."""
    table = None
    end = min(max((lpi.intid for lpi in lpis), default=0) + 1, arch.lpis_end(dist.propbaser))
    if end > FIRST_LPI:
        table = fetch(
            dist.memory, arch.property_address(dist.propbaser, FIRST_LPI), end - FIRST_LPI
        )
    for lpi in lpis:
        index = lpi.intid - FIRST_LPI
        _configure(
            lpi,
            table[index]
            if table is not None and index < len(table)
            else _property(dist, lpi.intid),
        )


# Pending state ----------------------------------------------------------------------------------


def _take_pending(dist: Distributor, lpi: Lpi) -> None:
    """If the LPI's bit in the pending table is set, clear the bit and set ``pending_latch`` (kvm
    vgic_v3_lpi_sync_pending_status)."""
    if lpi.home is None:
        return
    address, bit = arch.pending_address(dist.cpu(lpi.home).pendbaser, lpi.intid)
    data = fetch(dist.memory, address, 1)
    if data and data[0] & bit:
        store(dist.memory, address, bytes((data[0] & ~bit,)))
        lpi.pending_latch = True


def store_pending(dist: Distributor, lpis: Iterable[Lpi]) -> bool:
    """Write the pending state of the LPIs in ``lpis`` into the pending tables of their
    redistributors. Return False if a table is outside guest memory. The caller runs
    `flush.sync_all` first. For KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, ``lpis`` has all LPIs."""
    complete = True
    for lpi in lpis:
        if lpi.home is None:
            continue
        address, bit = arch.pending_address(dist.cpu(lpi.home).pendbaser, lpi.intid)
        data = fetch(dist.memory, address, 1)
        if data is None:
            complete = False
        elif bool(data[0] & bit) != lpi.pending_latch:
            complete = store(dist.memory, address, bytes((data[0] ^ bit,))) and complete
    return complete


# The redistributor's registers ------------------------------------------------------------------


def set_enabled(dist: Distributor, cpu: VgicCpu, enabled: bool) -> None:
    """Write GICR_CTLR.EnableLPIs, which is RES0 without an ITS. If the vGIC has not finished
    earlier work on LPIs (`armvirt.hyp.vgic.backlog`), the write takes effect after this work."""
    if dist.has_its:
        cpu.lpis_wanted = enabled
        if not dist.backlog.jobs:
            take_up(dist)


def take_up(dist: Distributor) -> None:
    """Start the work for the writes of EnableLPIs and GICR_INVALLR that the guest made while the
    vGIC did other work on LPIs (`armvirt.hyp.vgic.backlog`). The caller checks that no such work is
    left."""
    for cpu in dist.cpus():
        if cpu.lpis_wanted != cpu.lpis_enabled:
            _switch(dist, cpu)
        elif cpu.invalidate_wanted:
            cpu.invalidate_wanted = False
            invalidate_all(dist, cpu.vcpu_id)
        if dist.backlog.jobs:
            return


def _switch(dist: Distributor, cpu: VgicCpu) -> None:
    cpu.lpis_enabled = cpu.lpis_wanted
    dist.backlog.add(
        "enable" if cpu.lpis_enabled else "disable", cpu.vcpu_id, _homed_intids(dist, cpu.vcpu_id)
    )


def _enable(dist: Distributor, vcpu_id: int, lpis: list[Lpi]) -> None:
    """Complete a write of EnableLPIs = 1: read the configuration and the pending state of each LPI
    in ``lpis`` that the redistributor holds. If GICR_PENDBASER.PTZ is 1, the pending table is all
    zero and is not read."""
    cpu = dist.cpu(vcpu_id)
    here = [lpi for lpi in lpis if lpi.home == vcpu_id]
    _configure_all(dist, here)
    for lpi in here:
        if not cpu.pendbaser & arch.PENDBASER_PTZ:
            _take_pending(dist, lpi)
        _retarget(dist, lpi)


def _disable(dist: Distributor, vcpu_id: int, lpis: list[Lpi]) -> None:
    """Complete a write of EnableLPIs = 0 for each LPI in ``lpis`` that the redistributor holds:
    remove the LPI from its list register, and write its pending state into the pending table.
    GICR_CTLR.RWP is 1 until this work is done (IHI 0069 12.11, GICR_CTLR). KVM discards the pending
    state (vgic_flush_pending_lpis)."""
    flush.sync_all(dist)
    here = [lpi for lpi in lpis if lpi.home == vcpu_id]
    store_pending(dist, here)
    for lpi in here:
        lpi.pending_latch = False
        _retarget(dist, lpi)


def settled(dist: Distributor, cpu: VgicCpu) -> bool:
    """Whether the vGIC has done all work on LPIs (`armvirt.hyp.vgic.backlog`), and every write of
    EnableLPIs and GICR_INVALLR to this redistributor has taken effect. If the result is True,
    GICR_CTLR.RWP and GICR_SYNCR.Busy are 0."""
    return (
        not dist.backlog.jobs and cpu.lpis_wanted == cpu.lpis_enabled and not cpu.invalidate_wanted
    )


def write_propbaser(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    """Write GICR_PROPBASER, which all redistributors share. ``cpu`` is the vCPU whose redistributor
    the guest accesses. The write is ignored in two cases: LPIs are enabled on this redistributor,
    or the vGIC has not finished earlier work on LPIs (`settled`)."""
    if not cpu.lpis_enabled and settled(dist, cpu):
        dist.propbaser = arch.sanitise(value & arch.PROPBASER_WRITABLE, arch.GICR_ATTRIBUTES)


def write_pendbaser(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    """Write GICR_PENDBASER of a redistributor. ``cpu`` is the vCPU that has this redistributor. The
    write is ignored in two cases: LPIs are enabled on this redistributor, or the vGIC has not
    finished earlier work on LPIs (`settled`)."""
    if not cpu.lpis_enabled and settled(dist, cpu):
        cpu.pendbaser = arch.sanitise(value & arch.PENDBASER_WRITABLE, arch.GICR_ATTRIBUTES)


def write_invlpir(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    """Write GICR_INVLPIR: read the configuration of the LPI whose INTID is in bits [31:0] again.
    The write is ignored while LPIs are disabled. A write with V = 1 (bit 63, a virtual LPI) is
    ignored too, because virtual LPIs are not implemented."""
    lpi = dist.lpis.get(value & 0xFFFF_FFFF)
    if cpu.lpis_enabled and lpi is not None and not value & arch.INVLPIR_V:
        invalidate(dist, lpi)


def write_invallr(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    """Write GICR_INVALLR: read the configuration of all LPIs of this redistributor again. The write
    is ignored while LPIs are disabled, and if V = 1 (bit 63). If the vGIC has not finished earlier
    work on LPIs (`armvirt.hyp.vgic.backlog`), the write takes effect after this work."""
    if cpu.lpis_enabled and not value & arch.INVLPIR_V:
        cpu.invalidate_wanted = True
        if not dist.backlog.jobs:
            take_up(dist)


#: The function for each ``action`` of a `backlog.Job`. One call handles a batch of LPIs.
ACTIONS: dict[str, Action] = {
    "configure": _invalidate_some, "enable": _enable, "disable": _disable, "move from": _move_from,
    "move to": _move_to, RELEASE: _release_all,
}  # fmt: skip


class LpiWorker:
    """Applies the actions that a `Backlog` has queued to the LPIs of a vGIC."""

    __slots__ = ("_dist",)

    def __init__(self, dist: Distributor) -> None:
        self._dist = dist

    def run(self, action: str, about: Any, intids: list[int]) -> None:
        """Apply an action to the LPIs with these INTIDs. ``action`` is a key of `ACTIONS`.
        ``about`` is the argument of the action, for example a vCPU id. An INTID is skipped if its
        LPI no longer exists."""
        lpis = self._dist.lpis
        ACTIONS[action](self._dist, about, [lpis[intid] for intid in intids if intid in lpis])

    def take_up(self) -> None:
        take_up(self._dist)
