"""The present state of ITSs and LPI tables, as rows of plain data for tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch import its as arch
from armvirt.hyp.diagnosis import present_state as present
from armvirt.hyp.vgic import lpi
from armvirt.hyp.vgic.its import registers
from armvirt.hyp.vgic.its.its import Its

if TYPE_CHECKING:
    from armvirt.hyp.vgic.distributor import Distributor
    from armvirt.hyp.vgic.vgic import Vgic

Row = dict[str, object]
REGISTERS = (
    "GITS_CTLR",
    "GITS_CBASER",
    "GITS_CWRITER",
    "GITS_CREADR",
    "GITS_BASER0",
    "GITS_BASER1",
)


def of(vgic: Vgic) -> dict[str, list[Row]]:
    """The rows of each table, by the name of the table. "LPI tables" has a row per redistributor.
    The other tables have the registers, the collections, the devices and the translations of every
    ITS. The result is empty if the VM has no ITS."""
    if not vgic.its:
        return {}
    return {
        "LPI tables": _tables(vgic.dist),
        "ITS": [row for its in vgic.its for row in _registers(its)],
        "ITS collections": [row for its in vgic.its for row in _collections(its)],
        "ITS devices": [row for its in vgic.its for row in _devices(its)],
        "ITS translations": [row for its in vgic.its for row in its.rows()],
    }


def in_use(vgic: Vgic) -> bool:
    """Whether the guest uses LPIs: LPIs are enabled on a redistributor, an ITS is enabled, or an
    ITS has a device or a collection."""
    return any(cpu.lpis_enabled for cpu in vgic.dist.cpus()) or any(
        its.enabled or its.devices or its.collections for its in vgic.its
    )


def _tables(dist: Distributor) -> list[Row]:
    """The rows of "LPI tables": GICR_PROPBASER (common to all redistributors), GICR_PENDBASER, and
    the number of LPIs of each redistributor."""
    return [
        {"vcpu": cpu.vcpu_id, "EnableLPIs": int(cpu.lpis_enabled), "GICR_PROPBASER": f"{dist.propbaser:#x}",
         "GICR_PENDBASER": f"{cpu.pendbaser:#x}", "LPIs": len(homed),
         "pending": sum(present.pending(dist, each) for each in homed)}
        for cpu in dist.cpus() for homed in (lpi.homed(dist, cpu.vcpu_id),)
    ]  # fmt: skip


def _registers(its: Its) -> list[Row]:
    """The registers of an ITS. This function does not execute the commands of the queue, but a read
    of GITS_* by the guest does."""
    size = arch.queue_size(its.cbaser)
    waiting = (its.cwriter - its.creadr) % max(size, 1) // arch.COMMAND_SIZE
    says = {
        "GITS_CTLR": "enabled" if its.enabled else "disabled",
        "GITS_CBASER": f"{size // arch.COMMAND_SIZE} commands" if its.cbaser & arch.VALID else "",
        "GITS_CREADR": f"{waiting} commands wait" if waiting else "all done",
        "GITS_BASER0": "devices",
        "GITS_BASER1": "collections",
    }
    return [
        {"register": name, "value": f"{binding.read(its):#x}", "meaning": says.get(name, "")}
        for binding in registers.BINDINGS for name in (binding.name,) if name in REGISTERS
    ]  # fmt: skip


def _collections(its: Its) -> list[Row]:
    return [{"collection": each.icid, "vcpu": each.target} for each in its.collections.values()]


def _devices(its: Its) -> list[Row]:
    return [
        {
            "device": each.device_id,
            "EventID bits": each.event_bits,
            "ITT": f"{each.itt:#x}",
            "events": len(each.events),
        }
        for each in its.devices.values()
    ]
