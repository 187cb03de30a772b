"""Rows of KVM's vgic_init and vgic_lpi_stress selftests about the ITS, and rules that implementers
often miss."""

from __future__ import annotations

import pytest
from gic_vm import IPA_END, NR_IRQS, SPURIOUS, Puppet, make_gic, make_vm
from hyp_tools import GICD, GICR, RAM, errno_of

from armvirt.errors import KvmError
from armvirt.hyp.kvm import VgicAddress, VgicCtrl, VgicGroup

GITS = 0x0808_0000
CTLR, CBASER, CWRITER, CREADR, BASER0 = 0x00, 0x80, 0x88, 0x90, 0x100
DEVICES, COLLECTIONS, QUEUE, PROPERTIES, PENDING, ITT = (
    RAM + 0x20_0000, RAM + 0x21_0000, RAM + 0x22_0000, RAM + 0x23_0000, RAM + 0x24_0000, RAM + 0x26_0000,
)  # fmt: skip
VALID = 1 << 63
LPI = 8192
MAPD, MAPC, MAPTI, INT, INV = 0x08, 0x09, 0x0A, 0x03, 0x0C


def _is_there() -> bool:
    try:
        vm = make_vm()
        make_gic(vm)
        vm.create_device("arm-its")
    except KvmError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _is_there(), reason="there is no ITS device yet")


class Its:
    """A VM with a GICv3 and an ITS at `GITS`; the guest's tables and queue are in RAM."""

    def __init__(self, place: bool = True) -> None:
        self.vm = make_vm()
        self.device = self.vm.create_device("arm-vgic-v3")
        self.its = self.vm.create_device("arm-its")
        self.device.set_attr(VgicGroup.NR_IRQS, 0, NR_IRQS)
        self.device.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
        self.device.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)
        self.device.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        if place:
            self.its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, GITS)
            self.its.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
            self.guest = Puppet(self.vm)
            self._sent = 0

    def store(self, offset: int, value: int, base: int = GITS) -> None:
        """A 64-bit register in two halves."""
        self.guest.store(base + offset, value & 0xFFFF_FFFF)
        self.guest.store(base + offset + 4, value >> 32)

    def load(self, offset: int, base: int = GITS) -> int:
        return self.guest.load(base + offset) | self.guest.load(base + offset + 4) << 32

    def tables(self) -> None:
        """64 KiB pages; ICIDs and DeviceIDs by flat tables."""
        self.store(BASER0, VALID | DEVICES | 2 << 8)
        self.store(BASER0 + 8, VALID | COLLECTIONS | 2 << 8)
        self.store(CBASER, VALID | QUEUE | 0xF)

    def start(self) -> None:
        self.guest.start_gic(False, 0, ())
        self.vm.write_memory(PROPERTIES, bytes([0xA0 | 2 | 1]) * 0x1000)
        self.store(0x70, PROPERTIES | 15, GICR)
        self.store(0x78, PENDING, GICR)
        self.guest.store(GICR, 1)
        self.tables()
        self.guest.store(GITS + CTLR, 1)

    def command(self, kind: int, device: int = 0, dw1: int = 0, dw2: int = 0) -> None:
        words = (kind | device << 32, dw1, dw2, 0)
        self.vm.write_memory(QUEUE + self._sent, b"".join(w.to_bytes(8, "little") for w in words))
        self._sent += 32
        self.store(CWRITER, self._sent)
        assert self.load(CREADR) == self._sent


def test_its_addresses() -> None:
    its = Its(place=False).its

    def set_address(base: int) -> None:
        its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, base)

    assert errno_of(lambda: set_address(0x40_1000)) == "EINVAL"
    assert errno_of(lambda: set_address(IPA_END)) == "E2BIG"
    assert errno_of(lambda: set_address(IPA_END - 0x1_0000)) == "E2BIG", (
        "half of it is beyond the end"
    )
    set_address(0x40_0000)
    assert errno_of(lambda: set_address(0x30_0000)) == "EEXIST"


def test_an_its_needs_a_gicv3() -> None:
    vm = make_vm()
    assert vm.create_device("arm-its", test=True) is None


def test_a_new_queue_starts_at_its_beginning() -> None:
    its = Its()
    its.tables()
    its.store(CWRITER, 0x40)
    its.store(CBASER, VALID | QUEUE | 0xF)
    assert its.load(CWRITER) == 0 and its.load(CREADR) == 0


@pytest.mark.parametrize("missing", [BASER0, BASER0 + 8, CBASER])
def test_it_is_enabled_only_with_all_tables(missing: int) -> None:
    its = Its()
    its.tables()
    its.store(missing, 0)
    its.guest.store(GITS + CTLR, 1)
    assert its.guest.load(GITS + CTLR) & 1 == 0
    its.tables()
    its.guest.store(GITS + CTLR, 1)
    assert its.guest.load(GITS + CTLR) & 1 == 1


def mapped(event: int = 0) -> Its:
    """Device 0, one event, to collection 0, which is processor 0; MAPTI comes before MAPC, which is
    legal."""
    its = Its()
    its.start()
    its.command(MAPD, dw1=4, dw2=VALID | ITT)
    its.command(MAPTI, dw1=event | LPI + event << 32)
    its.command(MAPC, dw2=VALID)
    return its


def test_an_lpi() -> None:
    its = mapped()
    its.command(INT)
    assert its.guest.take() == LPI
    its.guest.icc("EOIR1", LPI)
    assert its.guest.icc("RPR") == 0xFF and its.guest.icc("IAR1") == SPURIOUS


def test_an_lpi_ends_with_its_priority_in_either_mode() -> None:
    its = mapped()
    its.guest.icc("CTLR", 2)
    for _ in range(2):
        its.command(INT)
        assert its.guest.take() == LPI
        its.guest.icc("EOIR1", LPI)
    assert its.guest.icc("IAR1") == SPURIOUS


def test_the_configuration_is_cached_until_inv() -> None:
    its = mapped()
    its.vm.write_memory(PROPERTIES, bytes([0xA0 | 2]))
    its.command(INT)
    assert its.guest.take() == LPI, "still enabled"
    its.guest.icc("EOIR1", LPI)
    its.command(INV)
    its.command(INT)
    assert its.guest.take() is None
    its.vm.write_memory(PROPERTIES, bytes([0xA0 | 2 | 1]))
    its.command(INV)
    assert its.guest.take() == LPI, "it stayed pending"


def test_an_unmapped_device_is_skipped() -> None:
    """KVM reports the error nowhere: the command is dropped and the queue goes on."""
    its = mapped()
    its.command(MAPTI, device=1, dw1=(LPI + 9) << 32)
    its.command(INT, device=1)
    assert its.guest.take() is None
    its.command(INT)
    assert its.guest.take() == LPI
