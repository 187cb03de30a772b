"""A rig with an ITS: guest memory is a bytearray with the tables, and the test writes the command
queue."""

from __future__ import annotations

from vgic_rig import Rig

from armvirt.arch import its as arch
from armvirt.arch.gic import GITS_TRANSLATER
from armvirt.errors import KvmError
from armvirt.events import Event, ItsCommand, Stamp
from armvirt.hyp.vgic.device import AddrType, Group
from armvirt.hyp.vgic.device.its import ItsDevice
from armvirt.hyp.vgic.its.frame import ItsFrame
from armvirt.hyp.vgic.its.its import Its
from armvirt.hyp.vgic.registers.frames import Frame

GITS = 0x0808_0000
DOORBELL = GITS + GITS_TRANSLATER
RAM, RAM_SIZE = 0x4000_0000, 2 << 20
QUEUE, DEVICES, COLLECTIONS, LEVEL2 = RAM, RAM + 0x1_0000, RAM + 0x2_0000, RAM + 0x3_0000
PROPERTIES, PENDING, ITTS = (
    RAM + 0x4_0000,
    RAM + 0x6_0000,
    RAM + 0xA_0000,
)  # PENDING: 64 KiB per vCPU
CTLR, IIDR, TYPER, CBASER, CWRITER, CREADR, BASER0, BASER1 = 0, 4, 8, 0x80, 0x88, 0x90, 0x100, 0x108
GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER = 0x00, 0x70, 0x78
GICR_INVLPIR, GICR_INVALLR, GICR_SYNCR = 0xA0, 0xB0, 0xC0
LPI = 8192
ENABLE = 1
STRIDE = 0x2_0000


class Memory:
    """RAM_SIZE bytes at RAM; ``writes`` are the addresses that were written through it."""

    def __init__(self) -> None:
        self.bytes = bytearray(RAM_SIZE)
        self.writes: list[int] = []

    def _at(self, ipa: int, size: int) -> int:
        if not RAM <= ipa or ipa + size > RAM + RAM_SIZE:
            raise KvmError("EFAULT", f"no memory at {ipa:#x}")
        return ipa - RAM

    def read(self, ipa: int, size: int) -> bytes:
        at = self._at(ipa, size)
        return bytes(self.bytes[at : at + size])

    def write(self, ipa: int, data: bytes) -> None:
        at = self._at(ipa, len(data))
        self.writes.append(ipa)
        self.bytes[at : at + len(data)] = data

    def word(self, ipa: int) -> int:
        return int.from_bytes(self.read(ipa, 8), "little")

    def put(self, ipa: int, value: int, size: int = 8) -> None:
        self.write(ipa, value.to_bytes(size, "little"))


class ItsRig(Rig):
    """``ready``: tables, queue and LPIs are set up as a guest would, LPIs on every vCPU, collection
    n to vCPU n."""

    def __init__(self, vcpus: int = 1, list_registers: int = 4, ready: bool = True) -> None:
        super().__init__(vcpus, list_registers)
        self.memory = Memory()
        self.vgic.dist.memory = self.memory
        self.its_device = ItsDevice(lambda: self.vgic)
        self.its_device.set_attr(Group.ADDR, AddrType.ITS, GITS)
        self.its: Its = self.its_device.its
        self.gits: Frame = ItsFrame(self.its)
        self.commands: list[ItsCommand] = []
        self.bus.subscribe(self._record)
        if ready:
            self.set_up()

    def _record(self, _: Stamp, event: Event) -> None:
        if isinstance(event, ItsCommand):
            self.commands.append(event)

    def set_up(self) -> None:
        for vcpu in range(len(self.vifs)):
            self.enable_lpis(vcpu)
        self.set(CBASER, QUEUE | arch.VALID)
        self.set(BASER0, DEVICES | arch.VALID)
        self.set(BASER1, COLLECTIONS | arch.VALID)
        self.set(CTLR, ENABLE, 4)
        for vcpu in range(len(self.vifs)):
            assert self.do("MAPC", icid=vcpu, rdbase=vcpu, valid=1) == 0

    # Registers

    def set(self, offset: int, value: int, size: int = 8) -> None:
        self.gits.write(0, offset, size, value)
        self.settle()

    def get(self, offset: int, size: int = 8) -> int:
        return self.gits.read(0, offset, size)

    def rd(self, vcpu: int, offset: int, value: int | None = None, size: int = 8) -> int:
        """A register in RD_base of a vCPU's redistributor: write ``value``, or read."""
        if value is None:
            return self.redist.read(vcpu, vcpu * STRIDE + offset, size)
        self.redist.write(vcpu, vcpu * STRIDE + offset, size, value)
        self.settle()
        return 0

    def enable_lpis(self, vcpu: int = 0, flags: int = 0) -> None:
        self.rd(vcpu, GICR_PROPBASER, PROPERTIES | 15)
        self.rd(vcpu, GICR_PENDBASER, PENDING + vcpu * 0x1_0000 | flags)
        self.rd(vcpu, GICR_CTLR, ENABLE, 4)

    def disable_lpis(self, vcpu: int = 0) -> None:
        self.rd(vcpu, GICR_CTLR, 0, 4)

    # The queue

    def push(self, name: str, **fields: int) -> None:
        """Put a command into the queue and tell the ITS."""
        self.push_raw(arch.encode_command(name, **fields))

    def push_raw(self, data: bytes) -> None:
        at = self.its.cwriter
        self.memory.write((self.its.cbaser & arch.CBASER_ADDRESS) + at, data)
        self.set(CWRITER, (at + 32) % arch.queue_size(self.its.cbaser))

    def do(self, name: str, **fields: int) -> int:
        """A command; 0, or its error."""
        self.push(name, **fields)
        assert self.get(CREADR) == self.get(CWRITER)
        assert self.commands[-1].op == name
        return self.commands[-1].error

    def map_device(self, device: int = 0, size: int = 4) -> None:
        """``size``: EventID bits, minus one."""
        assert self.do("MAPD", device=device, size=size, itt=ITTS + device * 0x1000, valid=1) == 0

    def map(
        self, intid: int, device: int = 0, event: int | None = None, icid: int = 0, prop: int = 0xA3
    ) -> None:
        """Configure an LPI and translate an event (INTID - 8192 by default) to it; the device is
        mapped if needed."""
        if device not in self.its.devices:
            self.map_device(device)
        self.configure_lpi(intid, prop)
        event = intid - LPI if event is None else event
        assert self.do("MAPTI", device=device, event=event, intid=intid, icid=icid) == 0

    def configure_lpi(self, intid: int, prop: int) -> None:
        """Write the byte in the configuration table; nothing is invalidated."""
        self.memory.put(PROPERTIES + intid - LPI, prop, 1)

    def table_bit(self, intid: int, vcpu: int = 0) -> int:
        return self.memory.read(PENDING + vcpu * 0x1_0000 + intid // 8, 1)[0] >> intid % 8 & 1

    def set_table_bit(self, intid: int, vcpu: int = 0) -> None:
        at = PENDING + vcpu * 0x1_0000 + intid // 8
        self.memory.put(at, self.memory.read(at, 1)[0] | 1 << intid % 8, 1)

    def msi(self, event: int, device: int = 0) -> bool:
        """KVM_SIGNAL_MSI."""
        delivered = self.vgic.signal_msi(DOORBELL, event, device)
        self.settle()
        return delivered

    def taken(self, vcpu: int = 0) -> list[int]:
        """Everything that a vCPU takes until nothing is left."""
        intids = []
        while (intid := self.serve(vcpu)) != 1023:
            intids.append(intid)
            assert len(intids) < 10_000
        return intids

    def another(self, with_memory: bool = True) -> ItsRig:
        """A new machine of the same shape, ITS and LPIs untouched; with a copy of this one's
        memory."""
        other = ItsRig(self.shape[0], self.shape[1], ready=False)
        if with_memory:
            other.memory.bytes[:] = self.memory.bytes
        return other
