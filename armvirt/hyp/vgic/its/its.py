"""An Interrupt Translation Service: (DeviceID, EventID) to an LPI and the vCPU that gets it
(kvm/vgic/vgic-its.c).

The maps are held here, as KVM does: the tables that the guest provides are an allowance of how many
entries there can be, and the place where `armvirt.hyp.vgic.its.tables` saves them. Commands are in
`its_cmd`, registers in `its_regs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from armvirt.arch import its as arch
from armvirt.arch.gic import GITS_TRANSLATER
from armvirt.events import VgicInject
from armvirt.hyp.vgic.backlog import RELEASE
from armvirt.hyp.vgic.its import lpi as lpis

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.lpi import Lpi
    from armvirt.hyp.vgic.vgic import Vgic

#: Events that one ITS maps at most, so that a guest that maps one LPI again and again is no danger
#: to the host.
MAX_EVENTS = 1 << 18
DEVICE_TABLE, COLLECTION_TABLE = 0, 1
TYPES = (arch.TYPE_DEVICE, arch.TYPE_COLLECTION)


class Collection:
    """Interrupts with a common target; ``target`` None: MAPTI named it, and no MAPC has."""

    __slots__ = ("icid", "target")

    def __init__(self, icid: int, target: int | None = None) -> None:
        self.icid, self.target = icid, target


class Event:
    """A translation. While its collection has no target, the event is inert."""

    __slots__ = ("collection", "lpi")

    def __init__(self, collection: Collection, lpi: Lpi) -> None:
        self.collection, self.lpi = collection, lpi


class Device:
    """A DeviceID with its events, by EventID; the ITT is at ``itt`` and takes EventIDs of
    ``event_bits`` bits."""

    __slots__ = ("device_id", "event_bits", "events", "itt")

    def __init__(self, device_id: int, itt: int, event_bits: int) -> None:
        self.device_id, self.itt, self.event_bits = device_id, itt, event_bits
        self.events: dict[int, Event] = {}


class Its:
    """One ITS of a GICv3. ``base`` is its address, None until it has one; ``creadr`` and
    ``cwriter`` are byte offsets. ``baser`` are the tables of devices and collections; ``events`` is
    how many are mapped. ``executed``: the command at GITS_CREADR was, and its job may be under way.
    """

    __slots__ = ("abi_revision", "base", "baser", "cbaser", "collections", "creadr", "cwriter", "devices", "enabled",
                 "events", "executed", "vgic")  # fmt: skip

    def __init__(self, vgic: Vgic) -> None:
        self.vgic = vgic
        self.base: int | None = None
        self.abi_revision = 0
        self.devices: dict[int, Device] = {}
        self.collections: dict[int, Collection] = {}
        self.forget()

    def reset(self) -> None:
        """KVM_DEV_ARM_ITS_CTRL_RESET: as created, at its address. LPIs that nobody else maps are
        gone."""
        self.free_devices()
        self.forget()

    def forget(self) -> None:
        """As created, with no map; the LPIs are for the caller to forget."""
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
        """GITS_BASER<n> as it is stored: type, entry and page size are this ITS's; collections have
        a flat table."""
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
        """The address of GITS_TRANSLATER."""
        return None if self.base is None else self.base + GITS_TRANSLATER

    @property
    def quiescent(self) -> bool:
        return self.creadr == self.cwriter

    # Messages ------------------------------------------------------------------------------------

    def find(self, device_id: int, event_id: int) -> Event | None:
        device = self.devices.get(device_id)
        return None if device is None else device.events.get(event_id)

    def trigger(self, device_id: int, event_id: int) -> int:
        """A device writes its EventID, or the guest says so by INT: `arch.E_DONE`, or why nothing
        became pending.

        After MOVALL the LPI may be elsewhere than its collection: a new message goes where the
        collection says.
        """
        if not self.enabled:
            return arch.E_BUSY
        event = self.find(device_id, event_id)
        if event is None or event.collection.target is None:
            return arch.E_INT_UNMAPPED_INTERRUPT
        vgic, lpi, target = self.vgic, event.lpi, event.collection.target
        if not vgic.cpu(target).lpis_enabled:
            return arch.E_BUSY
        vgic.settle(lpi)
        if lpi.home != target and not lpi.pending_latch:
            lpis.move(vgic, lpi, target)
        lpi.pending_latch = True
        if vgic.bus.active:
            vgic.bus.emit(VgicInject(lpi.intid, 1, vgic.id_base | target))
        vgic.queue(lpi)
        return arch.E_DONE

    # Maps ----------------------------------------------------------------------------------------

    def map_device(self, device_id: int, itt: int, event_bits: int) -> Device:
        device = self.devices[device_id] = Device(device_id, itt, event_bits)
        return device

    def free_device(self, device_id: int) -> None:
        """Unmap a device and its events. One that is not mapped: nothing."""
        device = self.devices.pop(device_id, None)
        if device is not None:
            self._release([device])

    def free_devices(self) -> None:
        gone, self.devices = self.devices, {}
        self.vgic.backlog.spend(len(gone))
        self._release(gone.values())

    def _release(self, devices: Iterable[Device]) -> None:
        """Their LPIs go one by one, but no message finds one of these events any more."""
        intids = [event.lpi.intid for device in devices for event in device.events.values()]
        self.events -= len(intids)
        self.vgic.backlog.add(RELEASE, None, intids)

    def map_event(self, device: Device, event_id: int, collection: Collection, intid: int) -> None:
        """Translate an event that is not mapped; the caller has checked the ids."""
        device.events[event_id] = Event(
            collection, lpis.acquire(self.vgic, intid, collection.target)
        )
        self.events += 1

    def free_event(self, device: Device, event_id: int) -> None:
        event = device.events.pop(event_id)
        self.events -= 1
        self.vgic.before_access()
        lpis.release(self.vgic, event.lpi)

    def map_collection(self, icid: int, target: int | None) -> Collection:
        """Create a collection, or give it another target, where its interrupts go with their
        pending state."""
        collection = self.collections.get(icid)
        if collection is None:
            collection = self.collections[icid] = Collection(icid, target)
        elif collection.target != target:
            collection.target = target
            self.vgic.backlog.add(
                "move to", target, dict.fromkeys(e.lpi.intid for e in self.events_of(collection))
            )
        return collection

    def free_collection(self, icid: int) -> None:
        """Unmap a collection. Events that name it stay, their LPIs go nowhere until it is mapped
        again (IHI 0069 5.3, MAPC; in KVM such an event has lost its collection for good)."""
        collection = self.collections.get(icid)
        if collection is None:
            return
        if any(self.events_of(collection)):
            self.map_collection(icid, None)
        else:
            del self.collections[icid]

    def free_collections(self) -> None:
        """`free_collection` of all, in one walk over the events."""
        self.vgic.backlog.spend(self.events + len(self.devices) + len(self.collections))
        events = [event for device in self.devices.values() for event in device.events.values()]
        moving = dict.fromkeys(
            event.lpi.intid for event in events if event.collection.target is not None
        )
        used = {event.collection for event in events}
        self.collections = {icid: each for icid, each in self.collections.items() if each in used}
        for collection in self.collections.values():
            collection.target = None
        self.vgic.backlog.add("move to", None, moving)

    def events_of(self, collection: Collection) -> Iterator[Event]:
        """The events in a collection: a walk over all."""
        self.vgic.backlog.spend(self.events + len(self.devices))
        return (
            e
            for device in self.devices.values()
            for e in device.events.values()
            if e.collection is collection
        )

    # State ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """Every translation, as plain data for a table; ``vcpu`` is None where the collection is
        not mapped."""
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
        """Registers and maps; the LPIs themselves are the vGIC's."""
        return {
            "version": 1,
            "abi_revision": self.abi_revision,
            "enabled": self.enabled,
            "cbaser": self.cbaser,
            "creadr": self.creadr,
            "executed": self.executed,
            "cwriter": self.cwriter,
            "baser": list(self.baser),
            "collections": [[c.icid, c.target] for c in self.collections.values()],
            "devices": [
                [d.device_id, d.itt, d.event_bits, _events(d)] for d in self.devices.values()
            ],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state`. The vGIC has the LPIs already, with no references (see `load_all`)."""
        self.abi_revision, self.enabled, self.cbaser = (
            state["abi_revision"],
            state["enabled"],
            state["cbaser"],
        )
        self.creadr, self.cwriter, self.baser = (
            state["creadr"],
            state["cwriter"],
            list(state["baser"]),
        )
        self.executed = state["executed"]
        self.collections = {icid: Collection(icid, target) for icid, target in state["collections"]}
        self.devices, self.events = {}, 0
        for device_id, itt, bits, events in state["devices"]:
            device = self.map_device(device_id, itt, bits)
            for number, icid, intid in events:
                lpi = self.vgic.lpis[intid]
                lpi.references += 1
                device.events[number] = Event(self.collections[icid], lpi)
            self.events += len(events)


def _events(device: Device) -> list[list[int]]:
    return [
        [number, event.collection.icid, event.lpi.intid] for number, event in device.events.items()
    ]


def reset_all(vgic: Vgic) -> None:
    """Every ITS and LPI, and GICR_PROPBASER, as created. The lists that LPIs are on are cleared by
    the caller."""
    for its in vgic.its:
        its.forget()
    vgic.lpis.clear()
    vgic.backlog.jobs.clear()
    vgic.propbaser = arch.PROPBASER_RESET


def load_all(vgic: Vgic, state: dict[str, Any]) -> None:
    """Restore the LPIs and every ITS of a vGIC's state; redistributors and ap_lists are restored by
    the vGIC, after."""
    enabled = {cpu["vcpu_id"]: cpu["lpis_enabled"] for cpu in state["cpus"]}
    vgic.propbaser, vgic.lpis = state["propbaser"], {}
    for saved in state["lpis"]:
        lpi = vgic.lpis[saved["intid"]] = lpis.Lpi(saved["intid"])
        lpi.load(saved)
        lpi.target = lpi.home if enabled.get(lpi.home) else None
    for its, saved in zip(vgic.its, state["its"], strict=True):
        its.load(saved)
