"""The translation state of the ITS (devices, events, collections) and what each command does to it.

IHI 0069 5.3 "ITS commands". A command that names something unmapped is an error and has no effect.
"""

from __future__ import annotations

from .irq import FIRST_LPI, NOWHERE, Lpi
from .lpi import INTID_LIMIT, LpiUnit
from .state import GicState


class Event:
    """One interrupt translation entry."""

    __slots__ = ("collection", "lpi")

    def __init__(self, lpi: Lpi, collection: int) -> None:
        self.lpi = lpi
        self.collection = collection


class Device:
    """One device table entry: 2**bits events."""

    __slots__ = ("bits", "events")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.events: dict[int, Event] = {}


class ItsMap:
    __slots__ = ("collections", "devices", "lpis", "state")

    def __init__(self, state: GicState, lpis: LpiUnit) -> None:
        self.state = state
        self.lpis = lpis
        self.devices: dict[int, Device] = {}
        self.collections: dict[int, int] = {}  # ICID -> CPU

    def _find(self, device: int, event: int) -> Event | None:
        found = self.devices.get(device)
        return None if found is None else found.events.get(event)

    def _find_routed(self, device: int, event: int) -> Event | None:
        """The mapping, None also if its collection is unmapped: an error of every command that
        needs a target."""
        found = self._find(device, event)
        if found is None:
            return None
        if found.collection not in self.collections:
            self.state.note("an ITS command on an event whose collection is unmapped")
            return None
        return found

    # ---- devices and events

    def mapd(self, device: int, bits: int, valid: bool) -> None:
        """MAPD: V 1 on a mapped device drops its events first; V 0 only drops them."""
        old = self.devices.pop(device, None)
        if old is not None:
            self._free(old)
        if valid:
            self.devices[device] = Device(bits)

    def _free(self, device: Device) -> None:
        for event in device.events.values():
            if event.lpi.latch:
                # IHI 0069 5.3 MAPD: software must have discarded them, or their pending state is
                # UNPREDICTABLE
                self.state.note("MAPD dropped a pending LPI")
            self.lpis.unmap(event.lpi)
        device.events.clear()

    def free_devices(self) -> None:
        """GITS_BASER0.Valid is 0."""
        for device in self.devices.values():
            self._free(device)
        self.devices.clear()

    def mapti(self, device: int, event: int, intid: int, collection: int) -> None:
        """MAPTI, MAPI (INTID = EventID). The collection may be mapped later; an existing event is
        left alone."""
        found = self.devices.get(device)
        if (
            found is None
            or event >> found.bits
            or not FIRST_LPI <= intid < INTID_LIMIT
            or event in found.events
        ):
            return
        lpi = self.lpis.map(intid, self.collections.get(collection, NOWHERE))
        found.events[event] = Event(lpi, collection)

    def discard(self, device: int, event: int) -> None:
        """DISCARD: the pending state and the mapping."""
        found = self._find_routed(device, event)
        if found is not None:
            del self.devices[device].events[event]
            self.lpis.unmap(found.lpi)

    def movi(self, device: int, event: int, collection: int) -> None:
        """MOVI: both collections must be mapped; the pending state moves to the new target."""
        found = self._find_routed(device, event)
        if found is not None and collection in self.collections:
            found.collection = collection
            self.lpis.move(found.lpi, self.collections[collection])

    # ---- collections

    def mapc(self, collection: int, cpu: int, valid: bool) -> None:
        """MAPC. Its LPIs, and their pending state, follow the collection; without one they are
        inert."""
        if not valid:
            self._detach(collection)
            return
        if cpu >= len(self.state.cpus):
            return
        self.collections[collection] = cpu
        for lpi in self._lpis_of(collection):
            self.lpis.move(lpi, cpu)

    def _detach(self, collection: int) -> None:
        if self.collections.pop(collection, None) is None:
            return
        for lpi in self._lpis_of(collection):
            if lpi.latch:
                # IHI 0069 5.3 MAPC: software must ensure that nothing pending targets the
                # collection
                self.state.note("MAPC unmapped the collection of a pending LPI")
            self.lpis.move(lpi, NOWHERE)

    def _lpis_of(self, collection: int) -> list[Lpi]:
        return [
            event.lpi
            for device in self.devices.values()
            for event in device.events.values()
            if event.collection == collection
        ]

    def free_collections(self) -> None:
        """GITS_BASER1.Valid is 0."""
        for collection in list(self.collections):
            self._detach(collection)

    def movall(self, source: int, destination: int) -> None:
        if source < len(self.state.cpus) and destination < len(self.state.cpus):
            self.lpis.move_all(source, destination)

    def invall(self, collection: int) -> None:
        cpu = self.collections.get(collection)
        if cpu is not None:
            self.lpis.invalidate_cpu(cpu)

    # ---- interrupts

    def trigger(self, device: int, event: int) -> bool:
        """An MSI or the INT command; False if it has no effect."""
        found = self._find(device, event)
        cpu = None if found is None else self.collections.get(found.collection)
        if found is None or cpu is None or not self.lpis.accepts(cpu, found.lpi.intid):
            return False
        self.lpis.set_pending(found.lpi, cpu)
        return True

    def clear(self, device: int, event: int) -> None:
        found = self._find_routed(device, event)
        if found is not None:
            self.lpis.clear_pending(found.lpi)

    def inv(self, device: int, event: int) -> None:
        found = self._find_routed(device, event)
        if found is not None:
            self.lpis.invalidate(found.lpi)

    def snapshot(self) -> dict[str, object]:
        return {
            "devices": {
                number: {
                    "bits": device.bits,
                    "events": {
                        n: (e.lpi.intid, e.collection) for n, e in sorted(device.events.items())
                    },
                }
                for number, device in sorted(self.devices.items())
            },
            "collections": dict(sorted(self.collections.items())),
        }
