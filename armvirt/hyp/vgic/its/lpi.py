"""LPIs: edge-triggered, group 1, without active state; configured and parked in guest memory (IHI
0069 chapter 5.1).

There is an object per LPI that an ITS maps (struct vgic_irq with a reference count in KVM). Its
configuration is a copy of the byte in the table at GICR_PROPBASER, which all redistributors share
(GICR_TYPER.CommonLPIAff = 0); the copy is renewed when the guest invalidates it. Its pending state
is in the object while LPIs are enabled on its redistributor, and in the table at GICR_PENDBASER
while they are not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from armvirt.arch import its as arch
from armvirt.arch.gic import FIRST_LPI
from armvirt.hyp.vgic.backlog import RELEASE, Action
from armvirt.hyp.vgic.irq import PRIORITY_MASK, VgicIrq
from armvirt.hyp.vgic.its.guest_memory import fetch, store

if TYPE_CHECKING:
    from armvirt.hyp.vgic.cpu import VgicCpu
    from armvirt.hyp.vgic.vgic import Vgic

_SAVED = ("intid", "priority", "enabled", "pending_latch", "offered", "home")


class Lpi(VgicIrq):
    """``home`` is the vCPU whose redistributor holds it, None while its collection is mapped to
    none; ``target`` is the same, but None while LPIs are disabled there. ``references``: how many
    events are translated to it.
    """

    __slots__ = ("home", "references")

    def __init__(self, intid: int) -> None:
        super().__init__(intid, None)
        self.home: int | None = None
        self.references = 0

    def state(self) -> dict[str, object]:
        """What can differ between LPIs; references and targets follow from the ITSs and
        redistributors."""
        return {name: getattr(self, name) for name in _SAVED}

    def load(self, state: dict[str, object]) -> None:
        for name in _SAVED:
            setattr(self, name, state[name])


# Creation and routing ---------------------------------------------------------------------------


def acquire(vgic: Vgic, intid: int, home: int | None) -> Lpi:
    """The LPI that an event is translated to from now on; one that is not known yet is read in (kvm
    vgic_add_lpi).

    An INTID that another event has stays where it is. KVM refuses the event if the configuration
    cannot be read; here the LPI is disabled then, for mapping an event does not look at that table
    in the specification.
    """
    lpi = vgic.lpis.get(intid)
    if lpi is None:
        lpi = vgic.lpis[intid] = Lpi(intid)
        _configure(lpi, _property(vgic, intid))
        move(vgic, lpi, home)
    lpi.references += 1
    return lpi


def release(vgic: Vgic, lpi: Lpi) -> None:
    """An event is unmapped. With the last one the LPI goes, and its pending state with it (IHI 0069
    5.3, DISCARD).

    The caller has folded the list registers.
    """
    lpi.references -= 1
    if lpi.references:
        return
    lpi.pending_latch = False
    lpi.home = lpi.target = None
    vgic.queue(lpi)
    del vgic.lpis[lpi.intid]


def move(vgic: Vgic, lpi: Lpi, home: int | None) -> None:
    """Send an LPI to another redistributor, with its pending state.

    One that was nowhere takes the state that waits for it in the pending table: the redistributor
    would know it, having read the whole table when LPIs were enabled.
    """
    arrives = lpi.home is None and home is not None
    lpi.home = home
    if arrives and vgic.cpu(home).lpis_enabled:  # type: ignore[arg-type]
        _take_pending(vgic, lpi)
    _retarget(vgic, lpi)


def _retarget(vgic: Vgic, lpi: Lpi) -> None:
    home = lpi.home
    lpi.target = home if home is not None and vgic.cpu(home).lpis_enabled else None
    vgic.queue(lpi)


def homed(vgic: Vgic, vcpu_id: int) -> list[Lpi]:
    """The LPIs that a redistributor holds."""
    return [lpi for lpi in vgic.lpis.values() if lpi.home == vcpu_id]


def _homed_intids(vgic: Vgic, vcpu_id: int) -> list[int]:
    vgic.backlog.spend(len(vgic.lpis))
    return [lpi.intid for lpi in vgic.lpis.values() if lpi.home == vcpu_id]


def move_all(vgic: Vgic, source: int, target: int) -> None:
    """MOVALL: every LPI of one redistributor goes to another."""
    vgic.backlog.add("move from", [source, target], _homed_intids(vgic, source))


def _move_from(vgic: Vgic, about: list[int], lpis: list[Lpi]) -> None:
    source, target = about
    for lpi in lpis:
        if lpi.home == source:
            move(vgic, lpi, target)


def _move_to(vgic: Vgic, target: int | None, lpis: list[Lpi]) -> None:
    for lpi in lpis:
        move(vgic, lpi, target)


def _release_all(vgic: Vgic, _: None, lpis: list[Lpi]) -> None:
    """One entry for each event that was unmapped: an LPI may be there more than once."""
    vgic.before_access()
    for lpi in lpis:
        release(vgic, lpi)


# Configuration ----------------------------------------------------------------------------------


def _property(vgic: Vgic, intid: int) -> int:
    """The byte of the configuration table; 0, disabled, where the table is not in memory or does
    not reach."""
    if intid >= arch.lpis_end(vgic.propbaser):
        return 0
    data = fetch(vgic.memory, arch.property_address(vgic.propbaser, intid), 1)
    return data[0] if data else 0


def _configure(lpi: Lpi, value: int) -> None:
    lpi.priority = value & arch.LPI_PRIORITY & PRIORITY_MASK
    lpi.enabled = bool(value & arch.LPI_ENABLE)


def invalidate(vgic: Vgic, lpi: Lpi) -> None:
    """Read the configuration anew: INV, GICR_INVLPIR."""
    _configure(lpi, _property(vgic, lpi.intid))
    vgic.queue(lpi)


def invalidate_all(vgic: Vgic, vcpu_id: int) -> None:
    """The same for all LPIs of a redistributor: INVALL, GICR_INVALLR."""
    vgic.backlog.add("configure", vcpu_id, _homed_intids(vgic, vcpu_id))


def _invalidate_some(vgic: Vgic, vcpu_id: int, lpis: list[Lpi]) -> None:
    here = [lpi for lpi in lpis if lpi.home == vcpu_id]
    _configure_all(vgic, here)
    for lpi in here:
        vgic.queue(lpi)


def _configure_all(vgic: Vgic, lpis: list[Lpi]) -> None:
    """`_configure` with one read of the table, if it lies in memory as a whole."""
    table = None
    end = min(max((lpi.intid for lpi in lpis), default=0) + 1, arch.lpis_end(vgic.propbaser))
    if end > FIRST_LPI:
        table = fetch(
            vgic.memory, arch.property_address(vgic.propbaser, FIRST_LPI), end - FIRST_LPI
        )
    for lpi in lpis:
        index = lpi.intid - FIRST_LPI
        _configure(
            lpi,
            table[index]
            if table is not None and index < len(table)
            else _property(vgic, lpi.intid),
        )


# Pending state ----------------------------------------------------------------------------------


def _take_pending(vgic: Vgic, lpi: Lpi) -> None:
    """Move the bit in the pending table of its redistributor into the LPI (kvm
    vgic_v3_lpi_sync_pending_status)."""
    if lpi.home is None:
        return
    address, bit = arch.pending_address(vgic.cpu(lpi.home).pendbaser, lpi.intid)
    data = fetch(vgic.memory, address, 1)
    if data and data[0] & bit:
        store(vgic.memory, address, bytes((data[0] & ~bit,)))
        lpi.pending_latch = True


def store_pending(vgic: Vgic, lpis: Iterable[Lpi]) -> bool:
    """Write the pending state of these LPIs into the tables of their redistributors; False if some
    is not in memory.

    The caller has folded the list registers. KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES is this for all
    LPIs.
    """
    complete = True
    for lpi in lpis:
        if lpi.home is None:
            continue
        address, bit = arch.pending_address(vgic.cpu(lpi.home).pendbaser, lpi.intid)
        data = fetch(vgic.memory, address, 1)
        if data is None:
            complete = False
        elif bool(data[0] & bit) != lpi.pending_latch:
            complete = store(vgic.memory, address, bytes((data[0] ^ bit,))) and complete
    return complete


# The redistributor's registers ------------------------------------------------------------------


def set_enabled(vgic: Vgic, cpu: VgicCpu, enabled: bool) -> None:
    """GICR_CTLR.EnableLPIs. Without an ITS there is no such bit. While jobs are under way it takes
    effect after them."""
    if vgic.its:
        cpu.lpis_wanted = enabled
        if not vgic.backlog.jobs:
            take_up(vgic)


def take_up(vgic: Vgic) -> None:
    """No job is under way: what the redistributors have been asked for meanwhile is the next
    one."""
    for cpu in vgic.cpus():
        if cpu.lpis_wanted != cpu.lpis_enabled:
            _switch(vgic, cpu)
        elif cpu.invalidate_wanted:
            cpu.invalidate_wanted = False
            invalidate_all(vgic, cpu.vcpu_id)
        if vgic.backlog.jobs:
            return


def _switch(vgic: Vgic, cpu: VgicCpu) -> None:
    cpu.lpis_enabled = cpu.lpis_wanted
    vgic.backlog.add(
        "enable" if cpu.lpis_enabled else "disable", cpu.vcpu_id, _homed_intids(vgic, cpu.vcpu_id)
    )


def _enable(vgic: Vgic, vcpu_id: int, lpis: list[Lpi]) -> None:
    """Nothing is cached now: read configuration and pending state of every LPI here. With PTZ the
    table is all zero."""
    cpu = vgic.cpu(vcpu_id)
    here = [lpi for lpi in lpis if lpi.home == vcpu_id]
    _configure_all(vgic, here)
    for lpi in here:
        if not cpu.pendbaser & arch.PENDBASER_PTZ:
            _take_pending(vgic, lpi)
        _retarget(vgic, lpi)


def _disable(vgic: Vgic, vcpu_id: int, lpis: list[Lpi]) -> None:
    """LPIs leave the list registers, and what was pending is in the pending table when
    GICR_CTLR.RWP reads 0 (IHI 0069 12.11, GICR_CTLR). KVM forgets it (vgic_flush_pending_lpis).
    """
    vgic.before_access()
    here = [lpi for lpi in lpis if lpi.home == vcpu_id]
    store_pending(vgic, here)
    for lpi in here:
        lpi.pending_latch = False
        _retarget(vgic, lpi)


def settled(vgic: Vgic, cpu: VgicCpu) -> bool:
    """Whether what this redistributor was asked for is done: GICR_CTLR.RWP and GICR_SYNCR.Busy are
    0."""
    return (
        not vgic.backlog.jobs and cpu.lpis_wanted == cpu.lpis_enabled and not cpu.invalidate_wanted
    )


def write_propbaser(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    """GICR_PROPBASER, one for all redistributors; read-only while LPIs are enabled on the one that
    is written, or are just being disabled."""
    if not cpu.lpis_enabled and settled(vgic, cpu):
        vgic.propbaser = arch.sanitise(value & arch.PROPBASER_WRITABLE, arch.GICR_ATTRIBUTES)


def write_pendbaser(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    """GICR_PENDBASER; read-only while LPIs are enabled, or are just being disabled."""
    if not cpu.lpis_enabled and settled(vgic, cpu):
        cpu.pendbaser = arch.sanitise(value & arch.PENDBASER_WRITABLE, arch.GICR_ATTRIBUTES)


def write_invlpir(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    """GICR_INVLPIR: INTID in the low word. Bit 63 (V) would name a virtual LPI, of which there are
    none."""
    lpi = vgic.lpis.get(value & 0xFFFF_FFFF)
    if cpu.lpis_enabled and lpi is not None and not value >> 63:
        invalidate(vgic, lpi)


def write_invallr(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    """GICR_INVALLR: everything that this redistributor holds. While jobs are under way it takes
    effect after them."""
    if cpu.lpis_enabled and not value >> 63:
        cpu.invalidate_wanted = True
        if not vgic.backlog.jobs:
            take_up(vgic)


#: What jobs do to a batch of LPIs, see `armvirt.hyp.vgic.backlog`.
ACTIONS: dict[str, Action] = {
    "configure": _invalidate_some, "enable": _enable, "disable": _disable, "move from": _move_from,
    "move to": _move_to, RELEASE: _release_all,
}  # fmt: skip
