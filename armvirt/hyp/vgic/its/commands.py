"""The commands of an ITS (IHI 0069 5.3; kvm/vgic/vgic-its.c). A handler gives `arch.E_DONE` or the
command's error.

A command in error is skipped: GITS_TYPER.SEIS = 0, and KVM does not stall the queue. It is in the
trace, as everything that the queue brings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from armvirt.arch import its as arch
from armvirt.arch.gic import FIRST_LPI
from armvirt.events import ItsCommand
from armvirt.hyp.vgic.its import lpi as lpis
from armvirt.hyp.vgic.its import tables as its_tables
from armvirt.hyp.vgic.its.guest_memory import fetch
from armvirt.hyp.vgic.its.its import COLLECTION_TABLE, DEVICE_TABLE, MAX_EVENTS, Its

Handler = Callable[..., int]


class Command(NamedTuple):
    """``operands`` are the fields that the handler takes, in order; ``layout`` says where they are
    (`arch.FIELDS`)."""

    name: str
    operands: tuple[str, ...]
    handler: Handler
    layout: tuple[tuple[int, int, int], ...]


# Devices and events -----------------------------------------------------------------------------


def _mapd(its: Its, device_id: int, size: int, itt: int, valid: int) -> int:
    """Mapping a device anew unmaps what it had (5.3, MAPD: cached data of the device are
    invalidated)."""
    if its_tables.entry_address(its, DEVICE_TABLE, device_id) is None:
        return arch.E_MAPD_DEVICE_OOR
    if valid and size + 1 > arch.ID_BITS:
        return arch.E_MAPD_ITTSIZE_OOR
    its.free_device(device_id)
    if valid:
        its.map_device(device_id, itt, size + 1)
    else:
        its_tables.clear_device(its, device_id)
    return arch.E_DONE


def _mapti(its: Its, device_id: int, event_id: int, intid: int, icid: int) -> int:
    """An event that is mapped already stays as it is, which is UNPREDICTABLE. The collection may be
    mapped later."""
    device = its.devices.get(device_id)
    if device is None:
        return arch.E_MAPTI_UNMAPPED_DEVICE
    if event_id >= 1 << device.event_bits:
        return arch.E_MAPTI_ID_OOR
    if not FIRST_LPI <= intid < arch.lpis_end(its.vgic.propbaser):
        return arch.E_MAPTI_PHYSICALID_OOR
    if event_id in device.events:
        return arch.E_DONE
    if its.events >= MAX_EVENTS:
        return arch.E_NO_MEMORY
    collection = its.collections.get(icid)
    if collection is None:
        if its_tables.entry_address(its, COLLECTION_TABLE, icid) is None:
            return arch.E_MAPC_COLLECTION_OOR
        collection = its.map_collection(icid, None)
    its.map_event(device, event_id, collection, intid)
    return arch.E_DONE


def _mapi(its: Its, device_id: int, event_id: int, icid: int) -> int:
    return _mapti(its, device_id, event_id, event_id, icid)


def _discard(its: Its, device_id: int, event_id: int) -> int:
    event = its.find(device_id, event_id)
    if event is None or event.collection.target is None:
        return arch.E_DISCARD_UNMAPPED_INTERRUPT
    device = its.devices[device_id]
    its.free_event(device, event_id)
    its_tables.clear_event(its, device, event_id)
    return arch.E_DONE


def _movi(its: Its, device_id: int, event_id: int, icid: int) -> int:
    event = its.find(device_id, event_id)
    if event is None:
        return arch.E_MOVI_UNMAPPED_INTERRUPT
    collection = its.collections.get(icid)
    if collection is None or event.collection.target is None or collection.target is None:
        return arch.E_MOVI_UNMAPPED_COLLECTION
    event.collection = collection
    lpis.move(its.vgic, event.lpi, collection.target)
    return arch.E_DONE


def _int(its: Its, device_id: int, event_id: int) -> int:
    return its.trigger(device_id, event_id)


def _clear(its: Its, device_id: int, event_id: int) -> int:
    """KVM clears the latch alone; an LPI that is pending in a list register is cleared too,
    wherever that is."""
    event = its.find(device_id, event_id)
    if event is None:
        return arch.E_CLEAR_UNMAPPED_INTERRUPT
    its.vgic.before_access()
    event.lpi.pending_latch = False
    its.vgic.queue(event.lpi)
    return arch.E_DONE


def _inv(its: Its, device_id: int, event_id: int) -> int:
    event = its.find(device_id, event_id)
    if event is None:
        return arch.E_INV_UNMAPPED_INTERRUPT
    lpis.invalidate(its.vgic, event.lpi)
    return arch.E_DONE


# Collections and redistributors -----------------------------------------------------------------


def _mapc(its: Its, icid: int, rdbase: int, valid: int) -> int:
    """RDbase means nothing with V = 0, where KVM checks it all the same."""
    if not valid:
        its.free_collection(icid)
        return arch.E_DONE
    if not its.vgic.has_vcpu(rdbase):
        return arch.E_MAPC_PROCNUM_OOR
    if (
        icid not in its.collections
        and its_tables.entry_address(its, COLLECTION_TABLE, icid) is None
    ):
        return arch.E_MAPC_COLLECTION_OOR
    its.map_collection(icid, rdbase)
    return arch.E_DONE


def _invall(its: Its, icid: int) -> int:
    collection = its.collections.get(icid)
    if collection is None or collection.target is None:
        return arch.E_INVALL_UNMAPPED_COLLECTION
    lpis.invalidate_all(its.vgic, collection.target)
    return arch.E_DONE


def _movall(its: Its, source: int, target: int) -> int:
    """Every LPI of one redistributor goes to another, by whichever ITS it came."""
    vgic = its.vgic
    if not vgic.has_vcpu(source) or not vgic.has_vcpu(target):
        return arch.E_MOVALL_PROCNUM_OOR
    if source != target:
        lpis.move_all(vgic, source, target)
    return arch.E_DONE


def _sync(_: Its) -> int:
    """Every command has its effect before the next one is read."""
    return arch.E_DONE


HANDLERS: dict[str, Handler] = {
    "MOVI": _movi, "INT": _int, "CLEAR": _clear, "SYNC": _sync, "MAPD": _mapd, "MAPC": _mapc, "MAPTI": _mapti,
    "MAPI": _mapi, "INV": _inv, "INVALL": _invall, "MOVALL": _movall, "DISCARD": _discard,
}  # fmt: skip
COMMANDS: dict[int, Command] = {
    opcode: Command(
        name, operands, HANDLERS[name], tuple(arch.FIELDS[operand] for operand in operands)
    )
    for opcode, (name, operands) in arch.COMMANDS.items()
}


# The queue --------------------------------------------------------------------------------------


def process(its: Its) -> None:
    """Execute what is between GITS_CREADR and GITS_CWRITER, while the ITS is enabled and the access
    has steps left.

    A command is a step, besides the LPIs that it touches, and the next one waits until its job is
    done. What is left goes on at the guest's next access, and later by itself
    (`armvirt.hyp.vgic.backlog`): no guest can keep the host busy with one store, and one that waits
    for GITS_CREADR sees no difference.
    """
    base, size = its.cbaser & arch.CBASER_ADDRESS, arch.queue_size(its.cbaser)
    backlog = its.vgic.backlog
    while its.enabled and its.creadr != its.cwriter:
        if backlog.jobs or (backlog.steps <= 0 and not its.executed):
            backlog.later()
            return
        if not its.executed:
            backlog.steps -= 1
            data = fetch(its.vgic.memory, base + its.creadr, arch.COMMAND_SIZE)
            if data is not None:
                execute(its, data)
        its.executed = bool(backlog.jobs)
        if not its.executed:
            its.creadr = (its.creadr + arch.COMMAND_SIZE) % size


def execute(its: Its, data: bytes) -> None:
    """One command of 32 bytes."""
    value = int.from_bytes(data, "little")
    command = COMMANDS.get(value & 0xFF)
    bus = its.vgic.bus
    before = _event(its, value, command) if bus.active else None
    if command is None:
        error = arch.E_UNKNOWN
    else:
        operands = [
            (value >> first & (1 << width) - 1) << scale for first, width, scale in command.layout
        ]
        error = command.handler(its, *operands)
    if before is not None:
        # DISCARD's event had an LPI before, MAPTI's has one after.
        event = before if before.intid >= 0 else _event(its, value, command)
        bus.emit(event._replace(error=error))


def _event(its: Its, value: int, command: Command | None) -> ItsCommand:
    """A command for the trace; -1 for what it does not have."""
    operands = () if command is None else command.operands
    field = {
        name: arch.command_field(value, name) if name in operands else -1 for name in arch.FIELDS
    }
    found = its.find(field["device"], field["event"])
    return ItsCommand(
        op=f"{value & 0xFF:#04x}" if command is None else command.name,
        device=field["device"],
        event=field["event"],
        intid=field["intid"] if found is None else found.lpi.intid,
        error=arch.E_DONE,
        icid=field["icid"],
        target=field["rdbase2"]
        if "rdbase2" in operands
        else field["rdbase"]
        if field["valid"]
        else -1,
        valid=field["valid"],
    )
