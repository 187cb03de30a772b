"""An Interrupt Translation Service, which translates a DeviceID and an EventID to an LPI and its
target vCPU (kvm/vgic/vgic-its.c).

The mappings of devices, events and collections are Python objects; in KVM they are C objects. The
guest provides tables in its memory. The sizes of the tables limit the number of mappings.
`armvirt.hyp.vgic.its.tables` saves the mappings in the guest's tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from armvirt.arch import its as arch
from armvirt.arch.gic import GITS_TRANSLATER
from armvirt.events import VgicInject
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic import lpi as lpis
from armvirt.hyp.vgic.backlog import RELEASE
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import Lpi
from armvirt.state import State, checked, fields_of, load_fields

STATE_VERSION = 1

#: The maximum number of events of an ITS. A guest can map many events to one LPI, so this number
#: limits the host memory that a guest can use.
MAX_EVENTS = 1 << 18
DEVICE_TABLE, COLLECTION_TABLE = 0, 1
TYPES = (arch.TYPE_DEVICE, arch.TYPE_COLLECTION)


class Collection:
    """A collection of events that have the same target vCPU. ``target`` is the id of this vCPU,
    None if MAPC has not mapped the collection. MAPTI can name a collection before MAPC maps the
    collection."""

    __slots__ = ("icid", "target")

    def __init__(self, icid: int, target: int | None = None) -> None:
        self.icid, self.target = icid, target


class Event:
    """The translation of an EventID of a device to an LPI and a collection. A message for this
    event has no effect if MAPC has not mapped the collection."""

    __slots__ = ("collection", "lpi")

    def __init__(self, collection: Collection, lpi: Lpi) -> None:
        self.collection, self.lpi = collection, lpi


class Device:
    """A device that MAPD has mapped. ``events`` has the mapped events by EventID. An EventID has
    ``event_bits`` bits. ``itt`` is the address of the Interrupt Translation Table, which has one
    entry for each EventID."""

    __slots__ = ("device_id", "event_bits", "events", "itt")

    def __init__(self, device_id: int, itt: int, event_bits: int) -> None:
        self.device_id, self.itt, self.event_bits = device_id, itt, event_bits
        self.events: dict[int, Event] = {}


class Its:
    """One ITS of a GICv3.

    ``base`` is the address of the ITS, None before user space sets the address. ``cbaser``,
    ``creadr`` and ``cwriter`` are the registers of the command queue. ``baser`` has GITS_BASER0
    (devices) and GITS_BASER1 (collections). ``events`` is the number of mapped events. ``executed``
    is True if the ITS has executed the command at GITS_CREADR, but GITS_CREADR has not advanced
    because LPIs still have to change (`armvirt.hyp.vgic.backlog`).
    """

    #: The attributes that are saved without a conversion; `state` also saves the mappings.
    SAVED = ("abi_revision", "enabled", "cbaser", "creadr", "executed", "cwriter", "baser")
    __slots__ = (
        "abi_revision", "base", "baser", "cbaser", "collections", "creadr", "cwriter", "devices", "dist",
        "enabled", "events", "executed",
    )  # fmt: skip

    def __init__(self, dist: Distributor) -> None:
        self.dist = dist
        self.base: int | None = None
        self.abi_revision = 0
        self.devices: dict[int, Device] = {}
        self.collections: dict[int, Collection] = {}
        self.forget()

    def reset(self) -> None:
        """Reset to the state after creation (KVM_DEV_ARM_ITS_CTRL_RESET). The address of the ITS
        does not change. An LPI is removed if no other ITS maps the LPI."""
        self.free_devices()
        self.forget()

    def forget(self) -> None:
        """Reset to the state after creation, and remove the mappings of devices, events and
        collections. The LPIs are not removed; the caller removes the LPIs."""
        self.devices.clear()
        self.collections.clear()
        self.enabled = self.executed = False
        self.cbaser = arch.CBASER_RESET
        self.creadr = self.cwriter = 0
        self.events = 0
        self.baser = [
            self.sanitised_baser(index, arch.INNER_SHAREABLE << arch.GITS_ATTRIBUTES[1])
            for index in (0, 1)
        ]

    @staticmethod
    def sanitised_baser(index: int, value: int) -> int:
        """The value that GITS_BASER<n> (n is ``index``) has after a write of ``value``. The fields
        Type, Entry_Size and Page_Size are read-only. A collection table is always flat."""
        value &= ~(
            arch.BASER_READ_ONLY
            | arch.BASER_PAGE_SIZE
            | (arch.INDIRECT if index == COLLECTION_TABLE else 0)
        )
        value |= (
            TYPES[index] << arch.BASER_TYPE_SHIFT
            | arch.ENTRY_SIZE - 1 << arch.BASER_ENTRY_SHIFT
            | arch.BASER_64K
        )
        return arch.sanitise(value, arch.GITS_ATTRIBUTES)

    @property
    def doorbell(self) -> int | None:
        """The address of GITS_TRANSLATER. None before user space sets the address of the ITS."""
        return None if self.base is None else self.base + GITS_TRANSLATER

    @property
    def quiescent(self) -> bool:
        return self.creadr == self.cwriter

    # Messages ------------------------------------------------------------------------------------

    def find(self, device_id: int, event_id: int) -> Event | None:
        device = self.devices.get(device_id)
        return None if device is None else device.events.get(event_id)

    def trigger(self, device_id: int, event_id: int) -> int:
        """Make the LPI of an event pending, because a device has written the EventID or because the
        ITS executes the command INT. Return `arch.E_DONE`, or an error number if no LPI became
        pending.

        After MOVALL, the redistributor that holds the LPI can differ from the target of the event's
        collection. If the LPI is not pending, the message first moves the LPI to the target of the
        collection.
        """
        if not self.enabled:
            return arch.E_BUSY
        event = self.find(device_id, event_id)
        if event is None or event.collection.target is None:
            return arch.E_INT_UNMAPPED_INTERRUPT
        dist, lpi, target = self.dist, event.lpi, event.collection.target
        if not dist.cpu(target).lpis_enabled:
            return arch.E_BUSY
        flush.sync_owner(dist, lpi)
        if lpi.home != target and not lpi.pending_latch:
            lpis.move(dist, lpi, target)
        lpi.pending_latch = True
        if dist.bus.active:
            dist.bus.emit(VgicInject(lpi.intid, 1, dist.id_base | target))
        dist.queue(lpi)
        return arch.E_DONE

    # Maps ----------------------------------------------------------------------------------------

    def map_device(self, device_id: int, itt: int, event_bits: int) -> Device:
        device = self.devices[device_id] = Device(device_id, itt, event_bits)
        return device

    def free_device(self, device_id: int) -> None:
        """Unmap a device and its events. No effect if the device is not mapped."""
        device = self.devices.pop(device_id, None)
        if device is not None:
            self._release([device])

    def free_devices(self) -> None:
        gone, self.devices = self.devices, {}
        self.dist.backlog.spend(len(gone))
        self._release(gone.values())

    def _release(self, devices: Iterable[Device]) -> None:
        """Release the LPIs of all events of ``devices``. The caller has already removed these
        devices from the ITS. If there are many LPIs, later guest accesses finish this work
        (`armvirt.hyp.vgic.backlog`)."""
        intids = [event.lpi.intid for device in devices for event in device.events.values()]
        self.events -= len(intids)
        self.dist.backlog.add(RELEASE, None, intids)

    def map_event(self, device: Device, event_id: int, collection: Collection, intid: int) -> None:
        """Map an event of a device to an LPI. ``event_id`` is the EventID, and ``intid`` is the
        INTID of the LPI. The caller has checked that the event is not mapped and that the ids are
        valid."""
        device.events[event_id] = Event(
            collection, lpis.acquire(self.dist, intid, collection.target)
        )
        self.events += 1

    def free_event(self, device: Device, event_id: int) -> None:
        event = device.events.pop(event_id)
        self.events -= 1
        flush.sync_all(self.dist)
        lpis.release(self.dist, event.lpi)

    def map_collection(self, icid: int, target: int | None) -> Collection:
        """Create a collection, or change the target of a collection. ``icid`` is the collection id.
        ``target`` is the id of the target vCPU, or None if the collection has no target. A
        collection has no target in two cases: MAPTI has named it but MAPC has not mapped it yet, or
        MAPC has unmapped it. If the target of an existing collection changes, the LPIs of the
        collection move with their pending state to the new target."""
        collection = self.collections.get(icid)
        if collection is None:
            collection = self.collections[icid] = Collection(icid, target)
        elif collection.target != target:
            collection.target = target
            self.dist.backlog.add(
                "move to", target, dict.fromkeys(e.lpi.intid for e in self.events_of(collection))
            )
        return collection

    def free_collection(self, icid: int) -> None:
        """Unmap a collection. The events of the collection stay mapped, but their LPIs have no
        target until MAPC maps the collection again (IHI 0069 5.3, MAPC). In KVM the events lose
        their collection: a later MAPC does not give their LPIs a target."""
        collection = self.collections.get(icid)
        if collection is None:
            return
        if any(self.events_of(collection)):
            self.map_collection(icid, None)
        else:
            del self.collections[icid]

    def free_collections(self) -> None:
        """Unmap all collections, in a single walk over all events of the ITS."""
        self.dist.backlog.spend(self.events + len(self.devices) + len(self.collections))
        events = [event for device in self.devices.values() for event in device.events.values()]
        moving = dict.fromkeys(
            event.lpi.intid for event in events if event.collection.target is not None
        )
        used = {event.collection for event in events}
        self.collections = {icid: each for icid, each in self.collections.items() if each in used}
        for collection in self.collections.values():
            collection.target = None
        self.dist.backlog.add("move to", None, moving)

    def events_of(self, collection: Collection) -> Iterator[Event]:
        """The events of a collection. The function has to walk over all events of the ITS."""
        self.dist.backlog.spend(self.events + len(self.devices))
        return (
            e
            for device in self.devices.values()
            for e in device.events.values()
            if e.collection is collection
        )

    # State ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """The translations of all events. The result has one dict of plain data for each event.
        ``vcpu`` is the vCPU whose redistributor holds the LPI, None if no redistributor holds the
        LPI."""
        return [
            {
                "device": device.device_id,
                "event": number,
                "intid": event.lpi.intid,
                "icid": event.collection.icid,
                "vcpu": event.lpi.home,
            }
            for device in self.devices.values()
            for number, event in device.events.items()
        ]

    def state(self) -> dict[str, object]:
        """The registers and the mappings of the ITS as plain data. The LPIs are saved by
        `armvirt.hyp.vgic.state`."""
        return {
            "version": STATE_VERSION,
            **fields_of(self, self.SAVED),
            "collections": [[c.icid, c.target] for c in self.collections.values()],
            "devices": [
                [d.device_id, d.itt, d.event_bits, _events(d)] for d in self.devices.values()
            ],
        }

    def load(self, state: State) -> None:
        """Restore the result of `state`. The caller `load_all` has created the LPIs with
        ``references`` = 0. This method adds 1 to the ``references`` of an LPI for each event of the
        LPI."""
        checked(state, "Its", STATE_VERSION)
        load_fields(self, self.SAVED, state)
        self.collections = {icid: Collection(icid, target) for icid, target in state["collections"]}
        self.devices, self.events = {}, 0
        for device_id, itt, bits, events in state["devices"]:
            device = self.map_device(device_id, itt, bits)
            for number, icid, intid in events:
                lpi = self.dist.lpis[intid]
                lpi.references += 1
                device.events[number] = Event(self.collections[icid], lpi)
            self.events += len(events)


def _events(device: Device) -> list[list[int]]:
    return [
        [number, event.collection.icid, event.lpi.intid] for number, event in device.events.items()
    ]


def enable_lpis(dist: Distributor) -> None:
    """Make LPIs available. If GICR_PROPBASER is 0, set GICR_PROPBASER to its reset value.
    `Vgic.add_its` calls this function for each ITS; a GICv3 without an ITS has no LPIs."""
    if not dist.has_its:
        dist.has_its = True
        dist.backlog.worker = lpis.LpiWorker(dist)
    dist.propbaser = dist.propbaser or arch.PROPBASER_RESET


def load_all(dist: Distributor, all_its: Sequence[Its], state: dict[str, Any]) -> None:
    """Restore the LPIs and the ITSs from the state of a vGIC. `armvirt.hyp.vgic.state` restores
    GICR_PROPBASER, the redistributors, the ap_lists, and the unfinished work on LPIs."""
    enabled = {cpu["vcpu_id"]: cpu["lpis_enabled"] for cpu in state["cpus"]}
    dist.lpis = {}
    for saved in state["lpis"]:
        lpi = dist.lpis[saved["intid"]] = Lpi(saved["intid"])
        lpi.load(saved)
        lpi.target = lpi.home if enabled.get(lpi.home) else None
    for its, saved in zip(all_its, state["its"], strict=True):
        its.load(saved)
    for action, _, intids in state["backlog"]:
        if action == RELEASE:  # each INTID in the job is one reference of an unmapped event
            for intid in intids:
                dist.lpis[intid].references += 1
