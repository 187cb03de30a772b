"""The checks of an LPI that differ from the checks of other interrupts: ITS, translation,
configuration table and collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from armvirt.arch import its as arch
from armvirt.arch.gic import GICR_CTLR_ENABLE_LPIS, OFFSETS
from armvirt.hyp.diagnosis import register_names as naming
from armvirt.hyp.diagnosis.finding import Check, Finding, Register, Write
from armvirt.hyp.vgic.irq import Lpi
from armvirt.hyp.vgic.registers.mmio_v3 import RD_MAP
from armvirt.hyp.vgic.vm_interface import fetch
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.hyp.diagnosis.checks import Case
    from armvirt.hyp.vgic.cpu import VgicCpu
    from armvirt.hyp.vgic.distributor import Distributor
    from armvirt.hyp.vgic.its.its import Event, Its
    from armvirt.hyp.vgic.vgic import Vgic

TRANSLATION = Register("ITS translation")
COLLECTION = Register("ITS collection")
PENDING = Register("LPI pending state")


class Source(NamedTuple):
    """An event that an ITS translates to an LPI."""

    its: Its
    device: int
    number: int
    event: Event

    def __str__(self) -> str:
        return f"device {self.device}, event {self.number}"


def source_of(all_its: Sequence[Its], intid: int) -> Source | None:
    """The first event that an ITS translates to an LPI; None if there is no such event. ``intid``
    is the INTID of the LPI."""
    return next(
        (
            Source(its, device.device_id, number, event)
            for its in all_its
            for device in its.devices.values()
            for number, event in device.events.items()
            if event.lpi.intid == intid
        ),
        None,
    )


def unmapped(vgic: Vgic, cpu: VgicCpu, intid: int) -> list[Finding]:
    """The findings for an LPI to which no ITS translates an event. The other checks are not
    possible, because the vGIC has no state for this LPI."""
    remedy = f"queue MAPTI for the DeviceID and EventID of its device, with INTID {intid}"
    event = Finding(
        Check.EVENT,
        False,
        "no ITS translates an event to it: messages are lost",
        TRANSLATION,
        None,
        remedy,
    )
    return [lpis_enabled_at(vgic.dist, cpu), its_enabled(vgic.its, None, True), event]


def lpis_enabled(case: Case) -> Finding:
    return lpis_enabled_at(case.dist, case.cpu)


def lpis_enabled_at(dist: Distributor, cpu: VgicCpu) -> Finding:
    """Check GICR_CTLR.EnableLPIs. This is the first check of an LPI. While EnableLPIs is 0, the
    pending state of an LPI is in the pending table in memory, and nowhere else (IHI 0069 5.1.2)."""
    register = naming.redistributor(cpu, "GICR_CTLR", "EnableLPIs")
    value = RD_MAP.read(dist, cpu, OFFSETS["GICR_CTLR"], 4)
    on = bool(value & GICR_CTLR_ENABLE_LPIS)
    text = f"GICR_CTLR.EnableLPIs of vCPU {cpu.vcpu_id} is {int(on)}"
    if on:
        return Finding(Check.LPIS, True, text, register, value)
    whole = register._replace(field="")
    return Finding(
        Check.LPIS, False, text, register, value, f"set EnableLPIs (bit 0) of {whole}",
        Write(whole, value | GICR_CTLR_ENABLE_LPIS),
    )  # fmt: skip


def its_on(case: Case) -> Finding:
    return its_enabled(case.its, source_of(case.its, case.irq.intid), not case.pending)


def its_enabled(all_its: Sequence[Its], source: Source | None, needed: bool) -> Finding:
    """Check GITS_CTLR.Enabled. While Enabled is 0, the ITS ignores messages and executes no
    commands (IHI 0069 12.19, GITS_CTLR). ``needed`` is False if the LPI is pending already. In this
    case the LPI needs no message, and the check passes."""
    its = all_its[0] if source is None else source.its
    register = Register("GITS_CTLR", "Enabled", "GITS", OFFSETS["GITS_CTLR"])
    value = (arch.CTLR_ENABLED if its.enabled else 0) | (
        arch.CTLR_QUIESCENT if its.quiescent else 0
    )
    text = f"GITS_CTLR.Enabled is {int(its.enabled)}"
    if its.enabled or not needed:
        return Finding(
            Check.ITS,
            True,
            text + ("" if its.enabled else ", but it is pending already"),
            register,
            value,
        )
    waiting = (its.cwriter - its.creadr) % max(arch.queue_size(its.cbaser), 1) // arch.COMMAND_SIZE
    queue = f", and {waiting} commands wait in its queue" if waiting else ""
    fix = Write(register._replace(field=""), arch.CTLR_ENABLED)
    ready = its.cbaser & its.baser[0] & its.baser[1] & arch.VALID
    remedy = str(fix) if ready else f"set up GITS_CBASER, GITS_BASER0 and GITS_BASER1, then {fix}"
    return Finding(
        Check.ITS, False, f"{text}: messages are ignored{queue}", register, value, remedy, fix
    )


def translated(case: Case) -> Finding:
    """Report the event that an ITS translates to the LPI. This check always passes. The case that
    no ITS translates an event to the LPI is handled by `unmapped`."""
    return Finding(
        Check.EVENT, True, f"translated from {source_of(case.its, case.irq.intid)}", TRANSLATION
    )


def source(case: Case) -> Finding:
    if case.pending:
        return Finding(Check.PENDING, True, "pending", PENDING)
    text = "not pending: no message came, or it was served"
    found = source_of(case.its, case.irq.intid)
    where = "" if found is None or found.its.doorbell is None else f" at {found.its.doorbell:#x}"
    event = "its EventID" if found is None else f"EventID {found.number}"
    who = "its device" if found is None else f"device {found.device}"
    return Finding(
        Check.PENDING, False, text, PENDING, None,
        f"let {who} write {event} to GITS_TRANSLATER{where}, or queue the ITS command INT",
    )  # fmt: skip


def enable(case: Case) -> Finding:
    """Check the enable bit of the LPI's configuration byte. The redistributor uses the byte that it
    has read last. If the guest changes the byte in the table, the change has no effect before INV
    or INVALL (IHI 0069 5.1.1, 5.3)."""
    irq, register = case.irq, naming.property_byte(case.dist, case.irq.intid, "bit 0")
    data = fetch(case.dist.memory, arch.property_address(case.dist.propbaser, irq.intid), 1)
    value = None if data is None else data[0]
    if irq.enabled:
        stale = (
            ""
            if value is None or value & arch.LPI_ENABLE
            else ", though bit 0 is 0 now: no INV or INVALL since"
        )
        return Finding(
            Check.ENABLE, True, f"enabled when its configuration was read{stale}", register, value
        )
    if value is None:
        text, remedy = (
            "its configuration is not in memory, and counts as 0",
            "set GICR_PROPBASER to a table in memory",
        )
    elif value & arch.LPI_ENABLE:
        text = "disabled when its configuration was read, though bit 0 is 1 now: no INV or INVALL since"
        remedy = "queue the ITS command INV, or INVALL"
    else:
        text = "bit 0 of its configuration byte is 0"
        remedy = f"set bit 0 of the {register.name}, then queue the ITS command INV"
    return Finding(Check.ENABLE, False, text, register, value, remedy)


def group(case: Case) -> Finding:
    return Finding(Check.GROUP, True, "group 1: signalled as IRQ (LPIs always are)")


def route(case: Case) -> Finding:
    """Check that the redistributor of this vCPU has the LPI.

    Usually the LPI is on the redistributor to which its collection is mapped. MOVALL, or an event
    of another collection, can move the LPI to another redistributor. MOVI moves the LPI back. A
    message that comes while the LPI is not pending also moves the LPI back (`Its.trigger`).
    """
    lpi, here = case.irq, case.cpu.vcpu_id
    assert isinstance(lpi, Lpi)
    found = source_of(case.its, lpi.intid)
    collection = "its collection" if found is None else f"collection {found.event.collection.icid}"
    mapped = lpi.home if found is None else found.event.collection.target
    text = f"{collection}: mapped to {_vcpu(mapped)}"
    if lpi.home != mapped:
        text += f", but {_vcpu(lpi.home)} has the LPI"
    if lpi.target == here:
        return Finding(Check.ROUTE, True, text, COLLECTION)
    command = f"MOVI with {collection}" if mapped == here else "MAPC or MOVI"
    remedy = f"queue {command} so that it goes to vCPU {here}"
    return Finding(Check.ROUTE, False, text, COLLECTION, None, remedy)


def _vcpu(vcpu_id: int | None) -> str:
    return "no vCPU" if vcpu_id is None else f"vCPU {vcpu_id}"


def not_active(case: Case) -> Finding:
    return Finding(Check.ACTIVE, True, "LPIs have no active state")
