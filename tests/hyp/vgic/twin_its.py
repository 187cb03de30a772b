"""As `twin`, for a GICv3 with an ITS.

Each has its own copy of guest memory: the vGIC writes to pending tables, the model never does.
Every event of a device is translated to an LPI of its own, as two events with one LPI are
UNPREDICTABLE.
"""

from __future__ import annotations

import twin
from gicmodel.model import GicModel
from its_rig import (
    BASER0,
    BASER1,
    CBASER,
    COLLECTIONS,
    CREADR,
    CTLR,
    CWRITER,
    DEVICES,
    DOORBELL,
    ENABLE,
    GICR_CTLR,
    GICR_INVALLR,
    GICR_INVLPIR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GITS,
    ITTS,
    LPI,
    PENDING,
    PROPERTIES,
    QUEUE,
    Memory,
)
from twin import NR_IRQS, PRIORITIES, Act, Host, Twin, peek

from armvirt.arch import its as arch
from armvirt.hyp.vgic.device import AddrType, Group
from armvirt.hyp.vgic.device.its import ItsDevice
from armvirt.hyp.vgic.its.frame import ItsFrame

DEVICE_COUNT, EVENT_BITS = 3, 2
LPIS = tuple(range(LPI, LPI + (DEVICE_COUNT << EVENT_BITS)))
QUEUE_SIZE = 4096
LAST_LPI_ID_BITS = 13  # PROPBASER.IDbits, minus one: a short table is quick to read


class ItsHost(Host):
    """A host whose VM has an ITS and memory for its tables."""

    def __init__(self, cpus: int, list_registers: int, prebits: int) -> None:
        super().__init__(cpus, list_registers, prebits)
        self.memory = Memory()
        self.vgic.dist.memory = self.memory
        device = ItsDevice(lambda: self.vgic)
        device.set_attr(Group.ADDR, AddrType.ITS, GITS)
        self.its = device.its
        self.frames["GITS"] = ItsFrame(self.its)

    def blank(self) -> Host:
        other = ItsHost(*self.shape)
        other.memory.bytes[:] = self.memory.bytes
        return other


class ModelMemory(Memory):
    """The model's view of a copy of guest memory: integers."""

    def read(self, ipa: int, size: int) -> int:  # type: ignore[override]
        return int.from_bytes(super().read(ipa, size), "little")

    def write(self, ipa: int, size: int, value: int) -> None:  # type: ignore[override]
        super().write(ipa, value.to_bytes(size, "little"))


class ItsTwin(Twin):
    """Set up as a guest does it: LPIs enabled everywhere, collection n on CPU n, one device
    mapped."""

    host: ItsHost

    def make_host(self, cpus: int, list_registers: int, prebits: int) -> Host:
        return ItsHost(cpus, list_registers, prebits)

    def make_model(self, prebits: int) -> GicModel:
        self.memory = ModelMemory()
        return GicModel(3, self.cpus, NR_IRQS, prio_bits=prebits, lpis=True, memory=self.memory)

    def set_up(self) -> None:
        super().set_up()
        self.at, self.lpis_on = 0, [True] * self.cpus
        self.collections: dict[int, int] = {}
        for cpu in range(self.cpus):
            self.redist_write(cpu, cpu, GICR_PROPBASER, 8, PROPERTIES | LAST_LPI_ID_BITS)
            self.redist_write(cpu, cpu, GICR_PENDBASER, 8, PENDING + cpu * 0x1_0000)
            self.redist_write(cpu, cpu, GICR_CTLR, 4, ENABLE)
        for offset, value in ((CBASER, QUEUE), (BASER0, DEVICES), (BASER1, COLLECTIONS)):
            self.its_write(offset, 8, value | arch.VALID)
        self.its_write(CTLR, 4, ENABLE)
        for cpu in range(self.cpus):
            self.command("MAPC", icid=cpu, rdbase=cpu, valid=1)
        self.map_device(0)
        for intid in LPIS[: 1 << EVENT_BITS]:
            self.set_property(intid, 0xA0 | ENABLE)
            self.command("MAPTI", device=0, event=intid - LPI, intid=intid, icid=0)

    def its_write(self, offset: int, size: int, value: int) -> None:
        self.host.frames["GITS"].write(0, offset, size, value)
        self.model.its_write(offset, size, value)

    def put(self, address: int, data: bytes) -> None:
        """The guest writes to memory."""
        self.host.memory.write(address, data)
        Memory.write(self.memory, address, data)

    def set_property(self, intid: int, value: int) -> None:
        self.put(PROPERTIES + intid - LPI, bytes((value,)))

    def command(self, name: str, **fields: int) -> None:
        if name == "MAPC" and fields["rdbase"] < self.cpus:
            self.collections[fields["icid"]] = fields["rdbase"]
        self.put(QUEUE + self.at, arch.encode_command(name, **fields))
        self.at = (self.at + 32) % QUEUE_SIZE
        self.its_write(CWRITER, 8, self.at)
        assert (
            self.host.frames["GITS"].read(0, CREADR, 8) == self.model.its_read(CREADR, 8) == self.at
        )

    def map_device(self, device: int) -> None:
        self.command(
            "MAPD", device=device, size=EVENT_BITS - 1, itt=ITTS + device * 0x1000, valid=1
        )

    def copy_pending_tables(self) -> None:
        """What the redistributors have written to memory, or read from it and cleared."""
        for cpu in range(self.cpus):
            at = PENDING + cpu * 0x1_0000 + LPI // 8
            Memory.write(self.memory, at, self.host.memory.read(at, 8))

    def _compare_interrupts(self) -> None:
        super()._compare_interrupts()
        vgic = self.host.vgic
        for intid in LPIS:
            lpi = vgic.dist.lpis.get(intid)
            theirs = self.model.pending(intid)
            if lpi is None:
                assert not theirs, f"LPI {intid} is not mapped, and pending in the model"
            elif lpi.home is not None and self.lpis_on[lpi.home]:
                assert peek(vgic, lpi).pending == theirs, (
                    f"LPI {intid} is pending: {not theirs}, in the model {theirs}"
                )


# Actions ----------------------------------------------------------------------------------------


def _event(x: int) -> tuple[int, int, int]:
    """(device, event, LPI), mostly of the device that is mapped from the start."""
    index = x % len(LPIS) if x & 0x8000 else x % (1 << EVENT_BITS)
    return index >> EVENT_BITS, index & (1 << EVENT_BITS) - 1, LPI + index


def message(pair: ItsTwin, _: int, x: int, __: int) -> None:
    device, event, _lpi = _event(x)
    ours, theirs = pair.host.vgic.signal_msi(DOORBELL, event, device), pair.model.msi(device, event)
    assert ours == theirs, (
        f"message of device {device}, event {event}: {ours}, in the model {theirs}"
    )


def translate(pair: ItsTwin, _: int, x: int, y: int) -> None:
    """MAPTI, and MAPD before it now and then."""
    if not all(pair.lpis_on):
        return
    device, event, lpi = _event(x | 0x8000)
    if y & 7 == 0:
        pair.map_device(device)
    pair.command("MAPTI", device=device, event=event, intid=lpi, icid=(y >> 3) % pair.cpus)


def act_on_event(pair: ItsTwin, _: int, x: int, y: int) -> None:
    device, event, _lpi = _event(x)
    name = ("INT", "INT", "INT", "INV", "INV", "CLEAR", "MOVI", "DISCARD")[
        y & 7 if all(pair.lpis_on) else y & 3
    ]
    fields = {"icid": (y >> 3) % (pair.cpus + (y & 0x700 == 0))} if name == "MOVI" else {}
    pair.command(name, device=device, event=event, **fields)


def act_on_collection(pair: ItsTwin, _: int, x: int, y: int) -> None:
    if not all(pair.lpis_on):
        return
    icid, cpu = x % pair.cpus, y % (pair.cpus + (x & 0x700 == 0))
    match x >> 12 & 7:
        case 0 | 1:
            pair.command("MAPC", icid=icid, rdbase=cpu, valid=1)
        case 2 if y & 0x300 == 0:
            pair.command("MAPC", icid=icid, rdbase=cpu, valid=0)
        case 3:
            move_everything(pair, icid, cpu % pair.cpus)
        case 4:
            pair.command("SYNC", rdbase=icid)
        case _:
            pair.command("INVALL", icid=icid)


def move_everything(pair: ItsTwin, source: int, target: int) -> None:
    """MOVALL, and its collections after it, or what is cached where is not said (IHI 0069 5.3,
    MOVALL)."""
    moving = [icid for icid, where in pair.collections.items() if where == source]
    pair.command("MOVALL", rdbase=source, rdbase2=target)
    for icid in moving:
        pair.command("MAPC", icid=icid, rdbase=target, valid=1)


def configure_lpi(pair: ItsTwin, cpu: int, x: int, y: int) -> None:
    """A new configuration byte, which counts after one of the ways to invalidate; or never."""
    device, event, lpi = _event(x)
    pair.set_property(
        lpi, PRIORITIES[y % len(PRIORITIES)] | (ENABLE if y & 0x600 else 0) | y >> 4 & 2
    )
    match y >> 12 & 7:
        case 0 | 1 | 2:
            pair.command("INV", device=device, event=event)
        case 3:
            pair.command("INVALL", icid=x % pair.cpus)
        case 4:
            known = pair.host.vgic.dist.lpis.get(lpi)
            if known is not None and known.home is not None:
                pair.redist_write(cpu, known.home, GICR_INVLPIR, 8, lpi)
        case 5:
            pair.redist_write(cpu, x % pair.cpus, GICR_INVALLR, 8, 0)


def switch_lpis(pair: ItsTwin, cpu: int, x: int, y: int) -> None:
    """EnableLPIs of one redistributor; off for a while, then on again.

    Meanwhile nothing moves or is unmapped: what becomes of state that waits in a table then,
    software has to see to.
    """
    on = y & 3 != 0
    if on != pair.lpis_on[cpu]:
        pair.redist_write(cpu, cpu, GICR_CTLR, 4, ENABLE if on else 0)
        pair.lpis_on[cpu] = on
        pair.copy_pending_tables()


def switch_its(pair: ItsTwin, _: int, __: int, y: int) -> None:
    pair.its_write(CTLR, 4, 0)
    message(pair, 0, y, 0)
    pair.its_write(CTLR, 4, ENABLE)


_WEIGHTS = {"drive": 6, "pulse": 5, "send_sgi": 4, "configure": 1, "route": 2}
ItsTwin.actions = (
    *(act._replace(weight=_WEIGHTS.get(act.name, act.weight)) for act in twin.ACTIONS),
    Act("message", 14, message),
    Act("translate", 4, translate),
    Act("act_on_event", 14, act_on_event),
    Act("act_on_collection", 4, act_on_collection),
    Act("configure_lpi", 8, configure_lpi),
    Act("switch_lpis", 3, switch_lpis),
    Act("switch_its", 1, switch_its),
)
