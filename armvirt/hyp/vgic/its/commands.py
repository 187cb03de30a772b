"""The command queue of an ITS, and a handler for each command (IHI 0069 5.3; kvm/vgic/vgic-its.c).

A handler returns `arch.E_DONE` or the error number of the command. As in KVM, the queue does not
stall after an error: the ITS continues with the next command. GITS_TYPER.SEIS is 0, so the guest
gets no SError. The trace shows every command and its error.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch import its as arch
from armvirt.arch.gic import FIRST_LPI
from armvirt.events import ItsCommand
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic import lpi as lpis
from armvirt.hyp.vgic.its import tables
from armvirt.hyp.vgic.its.its import COLLECTION_TABLE, DEVICE_TABLE, MAX_EVENTS, Its
from armvirt.hyp.vgic.vm_interface import fetch
from armvirt.records import NamedTuple

Handler = Callable[..., int]


class Command(NamedTuple):
    """An ITS command. ``operands`` has the names of the fields that the caller passes to
    ``handler``, in order. ``layout`` has the bit positions of these fields (`arch.FIELDS`)."""

    name: str
    operands: tuple[str, ...]
    handler: Handler
    layout: tuple[tuple[int, int, int], ...]


# Devices and events -----------------------------------------------------------------------------


def _mapd(its: Its, device_id: int, size: int, itt: int, valid: int) -> int:
    """Map a device, or unmap the device if V = 0. If the device is mapped already, its events are
    unmapped first, because MAPD invalidates the cached data of the device (IHI 0069 5.3, MAPD)."""
    if tables.entry_address(its, DEVICE_TABLE, device_id) is None:
        return arch.E_MAPD_DEVICE_OOR
    if valid and size + 1 > arch.ID_BITS:
        return arch.E_MAPD_ITTSIZE_OOR
    its.free_device(device_id)
    if valid:
        its.map_device(device_id, itt, size + 1)
    else:
        tables.clear_device(its, device_id)
    return arch.E_DONE


def _mapti(its: Its, device_id: int, event_id: int, intid: int, icid: int) -> int:
    """Map an event to an LPI and a collection. MAPC may map the collection later. If the event is
    mapped already, its translation does not change (UNPREDICTABLE in the architecture)."""
    device = its.devices.get(device_id)
    if device is None:
        return arch.E_MAPTI_UNMAPPED_DEVICE
    if event_id >= 1 << device.event_bits:
        return arch.E_MAPTI_ID_OOR
    if not FIRST_LPI <= intid < arch.lpis_end(its.dist.propbaser):
        return arch.E_MAPTI_PHYSICALID_OOR
    if event_id in device.events:
        return arch.E_DONE
    if its.events >= MAX_EVENTS:
        return arch.E_NO_MEMORY
    collection = its.collections.get(icid)
    if collection is None:
        if tables.entry_address(its, COLLECTION_TABLE, icid) is None:
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
    tables.clear_event(its, device, event_id)
    return arch.E_DONE


def _movi(its: Its, device_id: int, event_id: int, icid: int) -> int:
    event = its.find(device_id, event_id)
    if event is None:
        return arch.E_MOVI_UNMAPPED_INTERRUPT
    collection = its.collections.get(icid)
    if collection is None or event.collection.target is None or collection.target is None:
        return arch.E_MOVI_UNMAPPED_COLLECTION
    event.collection = collection
    lpis.move(its.dist, event.lpi, collection.target)
    return arch.E_DONE


def _int(its: Its, device_id: int, event_id: int) -> int:
    return its.trigger(device_id, event_id)


def _clear(its: Its, device_id: int, event_id: int) -> int:
    """Clear the pending state of an LPI, also if the LPI is pending in a list register. (KVM does
    not clear the state in a list register.)"""
    event = its.find(device_id, event_id)
    if event is None:
        return arch.E_CLEAR_UNMAPPED_INTERRUPT
    flush.sync_all(its.dist)
    event.lpi.pending_latch = False
    its.dist.queue(event.lpi)
    return arch.E_DONE


def _inv(its: Its, device_id: int, event_id: int) -> int:
    event = its.find(device_id, event_id)
    if event is None:
        return arch.E_INV_UNMAPPED_INTERRUPT
    lpis.invalidate(its.dist, event.lpi)
    return arch.E_DONE


# Collections and redistributors -----------------------------------------------------------------


def _mapc(its: Its, icid: int, rdbase: int, valid: int) -> int:
    """Map a collection to a vCPU, or unmap the collection if V = 0. With V = 0 RDbase is ignored.
    (KVM checks RDbase also with V = 0.)"""
    if not valid:
        its.free_collection(icid)
        return arch.E_DONE
    if not its.dist.has_vcpu(rdbase):
        return arch.E_MAPC_PROCNUM_OOR
    if icid not in its.collections and tables.entry_address(its, COLLECTION_TABLE, icid) is None:
        return arch.E_MAPC_COLLECTION_OOR
    its.map_collection(icid, rdbase)
    return arch.E_DONE


def _invall(its: Its, icid: int) -> int:
    collection = its.collections.get(icid)
    if collection is None or collection.target is None:
        return arch.E_INVALL_UNMAPPED_COLLECTION
    lpis.invalidate_all(its.dist, collection.target)
    return arch.E_DONE


def _movall(its: Its, source: int, target: int) -> int:
    """Move every LPI of one redistributor to another redistributor. The command also moves the LPIs
    that other ITSs map."""
    dist = its.dist
    if not dist.has_vcpu(source) or not dist.has_vcpu(target):
        return arch.E_MOVALL_PROCNUM_OOR
    if source != target:
        lpis.move_all(dist, source, target)
    return arch.E_DONE


def _sync(_: Its) -> int:
    """Do nothing, because every command has taken effect before the ITS reads the next command."""
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
    """Execute the commands from GITS_CREADR to GITS_CWRITER while the ITS is enabled. One call does
    at most as much work as one guest access may do: `backlog.STEPS` steps.

    A command counts as one step, plus one step for each LPI that the command changes. A command
    that changes many LPIs can need several guest accesses. The next command waits until the work of
    this command is done. The guest's next accesses, and a timer after `backlog.SLICE_NS` ns of
    virtual time, execute the remaining commands.
    """
    base, size = its.cbaser & arch.CBASER_ADDRESS, arch.queue_size(its.cbaser)
    backlog = its.dist.backlog
    while its.enabled and its.creadr != its.cwriter:
        if backlog.jobs or (backlog.steps <= 0 and not its.executed):
            backlog.later()
            return
        if not its.executed:
            backlog.steps -= 1
            data = fetch(its.dist.memory, base + its.creadr, arch.COMMAND_SIZE)
            if data is not None:
                execute(its, data)
        its.executed = bool(backlog.jobs)
        if not its.executed:
            its.creadr = (its.creadr + arch.COMMAND_SIZE) % size


def execute(its: Its, data: bytes) -> None:
    """Execute one command. ``data`` has the 32 bytes of the command."""
    value = int.from_bytes(data, "little")
    command = COMMANDS.get(value & 0xFF)
    bus = its.dist.bus
    before = _event(its, value, command) if bus.active else None
    if command is None:
        error = arch.E_UNKNOWN
    else:
        operands = [
            (value >> first & (1 << width) - 1) << scale for first, width, scale in command.layout
        ]
        error = command.handler(its, *operands)
    if before is not None:
        # DISCARD unmaps the LPI of the trace event, so the INTID is read before the command. MAPTI
        # maps the LPI, so the INTID is read after the command.
        event = before if before.intid >= 0 else _event(its, value, command)
        bus.emit(event._replace(error=error))


def _event(its: Its, value: int, command: Command | None) -> ItsCommand:
    """The trace event of a command. A field that the command does not have is -1."""
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
