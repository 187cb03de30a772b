"""Random use of a GICv3 with an ITS: its frame, LPI tables in memory, queues of valid and invalid
commands, messages.

`ItsFuzzer` is a `Fuzzer` whose VM has memory and an ITS. The laws are the same; LPIs are among the
shared interrupts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gic_fuzz import Fuzzer

from armvirt.arch import its as arch
from armvirt.arch.gic import GITS_TRANSLATER
from armvirt.errors import KvmError
from armvirt.hyp.vgic.device import AddrType, Group
from armvirt.hyp.vgic.device.its import ItsDevice
from armvirt.hyp.vgic.irq import VgicIrq

GITS_BASE = 0x0F00_0000
RAM, RAM_SIZE = 0x4000_0000, 1 << 20
QUEUE, DEVICES, COLLECTIONS, ITTS = RAM, RAM + 0x1_0000, RAM + 0x2_0000, RAM + 0x3_0000
PROPERTIES, PENDING = RAM + 0x4_0000, RAM + 0x8_0000
CTLR, CBASER, CWRITER, BASER0, BASER1 = 0x00, 0x80, 0x88, 0x100, 0x108
GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER = 0x00, 0x70, 0x78
NAMES = tuple(name for name, _ in arch.COMMANDS.values())
USEFUL = (*NAMES, "INT", "INT", "INT", "MAPTI", "MAPTI", "INV", "MAPC")


class Memory:
    """The guest memory that the vGIC accesses: RAM_SIZE bytes at RAM. An access elsewhere raises
    KvmError."""

    def __init__(self) -> None:
        self.bytes = bytearray(RAM_SIZE)

    def _at(self, ipa: int, size: int) -> int:
        if not RAM <= ipa <= RAM + RAM_SIZE - size:
            raise KvmError("EFAULT", f"no memory at {ipa:#x}")
        return ipa - RAM

    def read(self, ipa: int, size: int) -> bytes:
        at = self._at(ipa, size)
        return bytes(self.bytes[at : at + size])

    def write(self, ipa: int, data: bytes) -> None:
        at = self._at(ipa, len(data))
        self.bytes[at : at + len(data)] = data


class ItsFuzzer(Fuzzer):
    """A `Fuzzer` of a GICv3. Two machines in three start with tables, a queue and collections, as a
    guest sets them up."""

    def _create(self) -> None:
        self.model, self.intid_mask = 3, 0xFFFF
        super()._create()

    def _add_devices(self) -> None:
        self.memory = Memory()
        self.vgic.dist.memory = self.memory
        device = ItsDevice(lambda: self.vgic)
        device.set_attr(Group.ADDR, AddrType.ITS, GITS_BASE)
        self.its_device, self.its = device, device.its

    def _set_up(self) -> None:
        super()._set_up()
        if self.rng.random() < 1 / 3:
            return
        redist, gits = self._frame("GICR"), self._frame("GITS")
        for vcpu in range(self.vcpus):
            base = vcpu * 0x2_0000
            redist.write(vcpu, base + GICR_PROPBASER, 8, PROPERTIES | 13)
            redist.write(vcpu, base + GICR_PENDBASER, 8, PENDING + vcpu * 0x1_0000)
            redist.write(vcpu, base + GICR_CTLR, 4, 1)
        self.memory.write(PROPERTIES, bytes(self.rng.getrandbits(8) | 1 for _ in range(64)))
        for offset, value in ((CBASER, QUEUE), (BASER0, DEVICES), (BASER1, COLLECTIONS)):
            gits.write(0, offset, 8, value | arch.VALID)
        gits.write(0, CTLR, 4, 1)
        for vcpu in range(self.vcpus):
            self._push(arch.encode_command("MAPC", icid=vcpu, rdbase=vcpu, valid=1))
        self._push(arch.encode_command("MAPD", device=0, size=3, itt=ITTS, valid=1))

    def _weights(self) -> list[Callable[[], None]]:
        return [
            *super()._weights(),
            *[self._command] * 16,
            *[self._message] * 10,
            *[self._guest_memory] * 6,
        ]

    def _command(self) -> None:
        """Queue a command with small operands, or with 10% probability any 32 bytes."""
        rng = self.rng
        if rng.random() < 0.1:
            self._push(rng.randbytes(32))
            return
        device, event = int(rng.random() * 3), int(rng.random() * 16)
        fields = {
            "device": device, "event": event, "size": int(rng.random() * 5), "itt": ITTS + 0x1000 * device,
            "intid": 8192 + int(rng.random() * 48), "icid": int(rng.random() * 5), "rdbase": int(rng.random() * 5),
            "rdbase2": int(rng.random() * 5), "valid": int(rng.random() < 0.8),
        }  # fmt: skip
        name = USEFUL[int(rng.random() * len(USEFUL))]
        operands = dict(arch.COMMANDS.values())[name]
        chosen = {field: fields[field] for field in operands}
        self.log.append(f"command {name} {chosen}")
        self._push(arch.encode_command(name, **chosen))

    def _push(self, command: bytes) -> None:
        """Write a command into the queue, if the queue is in memory, and advance GITS_CWRITER in
        any case."""
        its = self.its
        try:
            self.memory.write((its.cbaser & arch.CBASER_ADDRESS) + its.cwriter, command)
        except KvmError:
            pass
        following = (its.cwriter + 32) % arch.queue_size(its.cbaser)
        self._frame("GITS").write(0, CWRITER, 8, following)

    def _message(self) -> None:
        rng = self.rng
        device, event = int(rng.random() * 3), int(rng.random() * 16)
        self.log.append(f"message of device {device}, event {event}")
        self.vgic.signal_msi(GITS_BASE + GITS_TRANSLATER, event, device)

    def _guest_memory(self) -> None:
        """A store of the guest, mostly to its tables."""
        rng = self.rng
        base = (PROPERTIES, PROPERTIES, PENDING + 1024, DEVICES, COLLECTIONS, ITTS)[
            int(rng.random() * 6)
        ]
        self.memory.write(base + int(rng.random() * 64), bytes((rng.getrandbits(8),)))

    def _base(self) -> int:
        """A value for registers with an address: mostly an address in memory, as all-ones is
        outside of it."""
        return RAM + 0x1_0000 * int(self.rng.random() * 16) | (
            arch.VALID if self.rng.random() < 0.8 else 0
        )

    def _value(self) -> int:
        return self._base() if self.rng.random() < 0.2 else super()._value()

    def irqs(self) -> Iterator[VgicIrq]:
        yield from super().irqs()
        yield from self.vgic.dist.lpis.values()
