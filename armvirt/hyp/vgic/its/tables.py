"""The tables of an ITS in guest memory (kvm/vgic/vgic-its.c). The module computes the addresses of
table entries, and saves and restores the mappings of devices, events and collections.

When MAPD unmaps a device or DISCARD unmaps an event, the ITS writes an invalid entry into the
table. This entry replaces the entry that an earlier save may have written, so a restore does not
map the device or the event. All other entries are written at a save.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from armvirt.arch import its as arch
from armvirt.arch.gic import FIRST_LPI
from armvirt.errors import KvmError
from armvirt.hyp.vgic.its.its import COLLECTION_TABLE, DEVICE_TABLE, MAX_EVENTS, Device, Its
from armvirt.hyp.vgic.vm_interface import fetch_entry, store

_IDS = 1 << arch.ID_BITS
Restore = Callable[[int, int], int]
"""A function that restores one table entry. The arguments are an id (DeviceID or EventID) and its
table entry. The result is the distance to the id whose entry is restored next: 1 after an invalid
entry, 0 after the last entry."""


def entry_address(its: Its, table: int, number: int) -> int | None:
    """The address of the table entry of a DeviceID or a collection id (kvm vgic_its_check_id).
    ``table`` is `DEVICE_TABLE` or `COLLECTION_TABLE`, ``number`` is the id. None if the guest's
    table has no entry for the id, or if the entry is outside guest memory."""
    baser = its.baser[table]
    if number >= _IDS:
        return None
    if baser & arch.INDIRECT:
        address = _second_level(its, baser, number)
    elif number < arch.table_size(baser) // arch.ENTRY_SIZE:
        address = arch.table_address(baser) + number * arch.ENTRY_SIZE
    else:
        address = None
    return (
        address
        if address is not None and fetch_entry(its.dist.memory, address) is not None
        else None
    )


def _second_level(its: Its, baser: int, number: int) -> int | None:
    index, within = divmod(number, arch.ENTRIES_PER_PAGE)
    if index >= arch.table_size(baser) // arch.ENTRY_SIZE:
        return None
    entry = fetch_entry(its.dist.memory, arch.table_address(baser) + index * arch.ENTRY_SIZE)
    if entry is None or not entry & arch.VALID:
        return None
    return (entry & arch.LEVEL1_ADDRESS) + within * arch.ENTRY_SIZE


def clear_device(its: Its, device_id: int) -> None:
    """Write an invalid entry into the device table for a device that MAPD has unmapped."""
    address = entry_address(its, DEVICE_TABLE, device_id)
    if address is not None:
        _write(its, address, 0)


def clear_event(its: Its, device: Device, event_id: int) -> None:
    """Write an invalid entry into the device's ITT for an event that DISCARD has unmapped."""
    _write(its, device.itt + event_id * arch.ENTRY_SIZE, 0)


def _write(its: Its, address: int, entry: int) -> bool:
    return store(its.dist.memory, address, entry.to_bytes(arch.ENTRY_SIZE, "little"))


def _save_entry(its: Its, address: int, entry: int) -> None:
    if not _write(its, address, entry):
        raise KvmError("EFAULT", f"an ITS table at {address:#x} is not in memory")


# Save -------------------------------------------------------------------------------------------


def save(its: Its) -> None:
    """Save the mappings of devices, events and collections into the tables in guest memory
    (KVM_DEV_ARM_ITS_SAVE_TABLES). KvmError EFAULT if a table is outside guest memory, EINVAL if the
    device table has no entry for a device."""
    if its.baser[DEVICE_TABLE] & arch.VALID:
        _save_devices(its)
    if its.baser[COLLECTION_TABLE] & arch.VALID:
        _save_collections(its)


def _following(ids: list[int], most: int) -> list[tuple[int, int]]:
    """Pairs of an id and the distance to the next id in ``ids``. If the distance is greater than
    ``most``, the pair has ``most``. The last id has the distance 0."""
    return (
        [(one, min(other - one, most)) for one, other in pairwise(ids)] + [(ids[-1], 0)]
        if ids
        else []
    )


def _save_devices(its: Its) -> None:
    for device_id, following in _following(sorted(its.devices), arch.MAX_NEXT_DEVICE):
        device = its.devices[device_id]
        address = entry_address(its, DEVICE_TABLE, device_id)
        if address is None:
            raise KvmError(
                "EINVAL", f"device {device_id:#x} has no room in the guest's device table any more"
            )
        _save_events(its, device)
        _save_entry(its, address, arch.device_entry(following, device.itt, device.event_bits))


def _save_events(its: Its, device: Device) -> None:
    for number, following in _following(sorted(device.events), arch.MAX_NEXT_EVENT):
        event = device.events[number]
        entry = arch.event_entry(following, event.lpi.intid, event.collection.icid)
        _save_entry(its, device.itt + number * arch.ENTRY_SIZE, entry)


def _save_collections(its: Its) -> None:
    """Write one table entry for each collection. An entry contains its collection id, so the
    entries are in any order without gaps. If the table has space, an invalid entry after the last
    entry marks the end."""
    address = arch.table_address(its.baser[COLLECTION_TABLE])
    for collection in its.collections.values():
        target = arch.NOT_MAPPED if collection.target is None else collection.target
        _save_entry(its, address, arch.collection_entry(target, collection.icid))
        address += arch.ENTRY_SIZE
    if len(its.collections) * arch.ENTRY_SIZE < arch.table_size(its.baser[COLLECTION_TABLE]):
        _save_entry(its, address, 0)


# Restore ----------------------------------------------------------------------------------------


def restore(its: Its) -> None:
    """Restore the mappings of devices, events and collections from the tables in guest memory
    (KVM_DEV_ARM_ITS_RESTORE_TABLES). KvmError EINVAL if a table is invalid, EEXIST if an id is
    mapped already, EFAULT if a table is outside guest memory, ENOMEM if there are more than
    `MAX_EVENTS` events. After an error, nothing is mapped."""
    try:
        if its.baser[COLLECTION_TABLE] & arch.VALID:
            _restore_collections(its)
        if its.baser[DEVICE_TABLE] & arch.VALID:
            _restore_devices(its)
    except KvmError:
        its.free_devices()
        its.free_collections()
        raise


def _read(its: Its, address: int) -> int:
    entry = fetch_entry(its.dist.memory, address)
    if entry is None:
        raise KvmError("EFAULT", f"an ITS table at {address:#x} is not in memory")
    return entry


def _restore_collections(its: Its) -> None:
    start = arch.table_address(its.baser[COLLECTION_TABLE])
    size = min(arch.table_size(its.baser[COLLECTION_TABLE]), _IDS * arch.ENTRY_SIZE)
    for address in range(start, start + size, arch.ENTRY_SIZE):
        entry = _read(its, address)
        if not entry & arch.VALID:
            return
        target, icid = arch.collection_fields(entry)
        if target != arch.NOT_MAPPED and not its.dist.has_vcpu(target):
            raise KvmError("EINVAL", f"saved collection {icid} has target {target}: no such vCPU")
        if icid in its.collections:
            raise KvmError("EEXIST", f"collection {icid} is mapped already")
        if entry_address(its, COLLECTION_TABLE, icid) is None:
            raise KvmError("EINVAL", f"saved collection {icid} has no room in its table")
        its.map_collection(icid, None if target == arch.NOT_MAPPED else target)


def _scan(its: Its, base: int, first: int, entries: int, restore_entry: Restore) -> bool:
    """Walk over the entries of a table (kvm scan_its_table). ``base`` is the address of the first
    entry, ``first`` is the id of this entry, and ``entries`` is the number of entries in the table.
    The walk calls ``restore_entry`` for an entry, and then skips to the entry at the returned
    distance. Return True if the distance is 0 (last entry), False if the walk reaches the end of
    the table."""
    index = 0
    while index < entries:
        offset = restore_entry(first + index, _read(its, base + index * arch.ENTRY_SIZE))
        if not offset:
            return True
        index += offset
    return False


def _restore_devices(its: Its) -> None:
    baser = its.baser[DEVICE_TABLE]
    base, entries = arch.table_address(baser), arch.table_size(baser) // arch.ENTRY_SIZE

    def device(device_id: int, entry: int) -> int:
        return _restore_device(its, device_id, entry)

    if not baser & arch.INDIRECT:
        _scan(its, base, 0, min(entries, _IDS), device)
        return
    for index in range(min(entries, _IDS // arch.ENTRIES_PER_PAGE)):
        level1 = _read(its, base + index * arch.ENTRY_SIZE)
        if level1 & arch.VALID:
            first = index * arch.ENTRIES_PER_PAGE
            if _scan(its, level1 & arch.LEVEL1_ADDRESS, first, arch.ENTRIES_PER_PAGE, device):
                return


def _restore_device(its: Its, device_id: int, entry: int) -> int:
    if not entry & arch.VALID:
        return 1
    following, itt, event_bits = arch.device_fields(entry)
    if event_bits > arch.ID_BITS:
        raise KvmError("EINVAL", f"saved device {device_id:#x} has EventIDs of {event_bits} bits")
    if device_id in its.devices:
        raise KvmError("EEXIST", f"device {device_id:#x} is mapped already")
    device = its.map_device(device_id, itt, event_bits)
    _scan(
        its,
        itt,
        0,
        1 << event_bits,
        lambda number, saved: _restore_event(its, device, number, saved),
    )
    return following


def _restore_event(its: Its, device: Device, number: int, entry: int) -> int:
    following, intid, icid = arch.event_fields(entry)
    if not intid:
        return 1
    where = f"saved event {number} of device {device.device_id:#x}"
    if not FIRST_LPI <= intid < arch.END_LPI:
        raise KvmError("EINVAL", f"{where} has INTID {intid}, which is no LPI")
    if number + following >= 1 << device.event_bits:
        raise KvmError("EINVAL", f"{where} points beyond its table")
    collection = its.collections.get(icid)
    if collection is None:
        raise KvmError("EINVAL", f"{where} is in collection {icid}, which is not mapped")
    if its.events >= MAX_EVENTS:
        raise KvmError("ENOMEM", f"more than {MAX_EVENTS} events are mapped")
    its.map_event(device, number, collection, intid)
    return following
