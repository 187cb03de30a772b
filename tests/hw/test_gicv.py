"""The GICV frame: one test for each rule of IHI 0048 that a GICv2 guest depends on."""

from __future__ import annotations

import json

import pytest

from armvirt.arch import gic as arch
from armvirt.arch.gic import GICC_ROWS, ICC_REGISTERS, ICH_REGISTERS, LR_CPUID_SHIFT, ListRegister
from armvirt.events import Acknowledge, EndOfInterrupt, Event, EventBus, Stamp
from armvirt.hw import gicv
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import IccAction, VirtualCpuInterface

SPURIOUS, GROUP1_ONLY = 1023, 1022
OFFSETS = {row.name.removeprefix("GICC_"): row.offset for row in GICC_ROWS}
ENABLE0, ENABLE1, ACKCTL, FIQEN, CBPR, EOIMODE = 1, 2, 4, 8, 0x10, 0x200


class Guest:
    """A GICv2 guest's EL1 in front of a virtual CPU interface. ``ctlr`` is what it writes to
    GICC_CTLR."""

    def __init__(self, ctlr: int = ENABLE0 | ENABLE1, prebits: int = 5) -> None:
        self.gic, self.bus = PhysicalGic(1), EventBus()
        self.vif = VirtualCpuInterface(0, self.gic, self.bus, 4, prebits)
        self.vif.sre = False
        self.vif.restore(0, [0] * 4, [0] * 4)
        self.vif.program(arch.ICH_HCR_EN, [])
        self.write("PMR", 0xFF)
        self.write("CTLR", ctlr)

    def read(self, name: str) -> int:
        return gicv.read(self.vif, OFFSETS[name], 4)

    def write(self, name: str, value: int) -> None:
        gicv.write(self.vif, OFFSETS[name], 4, value)

    def pend(
        self, lr: int, intid: int, priority: int = 0x80, group: int = 0, **fields: object
    ) -> None:
        value = ListRegister(intid, priority, group, True, False)._replace(**fields).encode()  # type: ignore[arg-type]
        self.vif.write_ich(ICH_REGISTERS[f"ICH_LR{lr}_EL2"], value)

    def lr(self, n: int) -> ListRegister:
        return ListRegister.decode(self.vif.lr[n])

    @property
    def eoicount(self) -> int:
        return self.vif.hcr >> arch.ICH_HCR_EOICOUNT_SHIFT


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_every_register_of_the_frame_is_bound_once() -> None:
    names = [row.name for row in gicv.BINDINGS]
    assert sorted(names) == sorted(row.name for row in GICC_ROWS)
    assert len(set(names)) == len(names)


# The mode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ICC_IAR1_EL1", "ICC_SRE_EL1", "ICC_SGI1R_EL1", "ICC_PMR_EL1"])
def test_without_sre_there_are_no_system_registers(guest: Guest, name: str) -> None:
    outcome = guest.vif.icc_access(ICC_REGISTERS[name], name == "ICC_SGI1R_EL1", 0, 1, True, True)
    assert outcome.action is IccAction.UNDEF


def test_ack_control_and_fiq_enable_are_writable_without_sre_alone(guest: Guest) -> None:
    guest.write("CTLR", 0xFFFF_FFFF)
    assert guest.read("CTLR") == 0x21F
    guest.vif.sre = True
    guest.vif.restore(0, [0] * 4, [0] * 4)
    assert guest.vif.vmcr & 0xF == arch.VMCR_VFIQEN
    guest.vif.restore(arch.VMCR_VACKCTL, [0] * 4, [0] * 4)
    assert not guest.vif.vmcr & arch.VMCR_VACKCTL


@pytest.mark.parametrize(
    ("ctlr", "group", "lines"),
    [
        (ENABLE0, 0, (True, False)),
        (ENABLE0 | FIQEN, 0, (False, True)),
        (ENABLE1 | FIQEN, 1, (True, False)),
        (ENABLE1, 0, (False, False)),
    ],
)
def test_group_0_is_a_fiq_only_if_the_guest_says_so(
    ctlr: int, group: int, lines: tuple[bool, bool]
) -> None:
    guest = Guest(ctlr)
    guest.pend(0, 40, group=group)
    assert (guest.vif.virq, guest.vif.vfiq) == lines


@pytest.mark.parametrize("size", [1, 2, 8])
def test_only_words_are_registers(guest: Guest, size: int) -> None:
    guest.pend(0, 40)
    assert gicv.read(guest.vif, OFFSETS["IAR"], size) == 0
    gicv.write(guest.vif, OFFSETS["PMR"], size, 0)
    assert guest.read("PMR") == 0xF8 and guest.read("IAR") == 40
    assert gicv.read(guest.vif, 0x2C, 4) == gicv.read(guest.vif, 0x1004, 4) == 0


# Acknowledge ------------------------------------------------------------------------------------


def test_an_interrupt_from_acknowledge_to_end(guest: Guest) -> None:
    guest.pend(0, 40, 0x80)
    assert guest.read("RPR") == 0xFF and guest.read("HPPIR") == 40
    assert guest.read("IAR") == 40
    assert guest.lr(0).active and not guest.vif.virq
    assert guest.read("RPR") == 0x80 and guest.read("IAR") == SPURIOUS
    guest.write("EOIR", 40)
    assert guest.read("RPR") == 0xFF and not guest.lr(0).active and guest.eoicount == 0


def test_both_groups_active_priorities_are_in_ap1r(guest: Guest) -> None:
    guest.pend(0, 40, 0x80)
    guest.read("IAR")
    assert guest.read("APR0") == guest.vif.ap1r[0] == 1 << (0x80 >> 3) and guest.vif.ap0r == [0]
    guest.write("APR0", 0)
    assert guest.read("RPR") == 0xFF
    guest.write("APR1", 1)
    assert guest.read("APR1") == 0


def test_group_1_needs_ack_control(guest: Guest) -> None:
    guest.pend(0, 40, group=1)
    assert guest.read("IAR") == guest.read("HPPIR") == GROUP1_ONLY
    assert guest.lr(0).pending, "1022 acknowledges nothing"
    guest.write("CTLR", ENABLE0 | ENABLE1 | ACKCTL)
    assert guest.read("HPPIR") == 40 and guest.read("IAR") == 40


def test_1022_is_for_interrupts_that_could_be_taken(guest: Guest) -> None:
    guest.pend(0, 40, 0x80, group=1)
    guest.write("PMR", 0x80)
    assert guest.read("IAR") == SPURIOUS
    assert guest.read("HPPIR") == GROUP1_ONLY, "which does not depend on the mask"
    guest.write("CTLR", ENABLE0)
    assert guest.read("HPPIR") == SPURIOUS, "nor is a disabled group pending"


def test_the_aliased_registers_are_for_group_1(guest: Guest) -> None:
    guest.pend(0, 40, 0x40, group=0)
    assert guest.read("AIAR") == guest.read("AHPPIR") == SPURIOUS and guest.lr(0).pending
    guest.pend(1, 41, 0x20, group=1)
    assert guest.read("AHPPIR") == 41 and guest.read("AIAR") == 41
    guest.write("AEOIR", 41)
    assert not guest.lr(1).active and guest.read("RPR") == 0xFF


def test_an_sgi_brings_its_sender(guest: Guest) -> None:
    guest.pend(0, 5 | 3 << LR_CPUID_SHIFT)
    assert guest.read("HPPIR") == guest.read("IAR") == 5 | 3 << 10
    guest.write("EOIR", 5)
    assert guest.lr(0).active and guest.eoicount == 1, (
        "another sender's SGI, which is in no list register"
    )
    guest.vif.ap1r[0] = 1 << 16
    guest.write("EOIR", 5 | 3 << 10)
    assert not guest.lr(0).active and guest.eoicount == 1


# End of interrupt -------------------------------------------------------------------------------


@pytest.mark.parametrize("intid", [1020, 1022, 1023])
def test_special_numbers_end_nothing(guest: Guest, intid: int) -> None:
    guest.pend(0, 40)
    guest.read("IAR")
    guest.write("EOIR", intid)
    assert guest.read("RPR") == 0x80 and guest.lr(0).active


def test_eoir_ends_group_1_whatever_ack_control_says(guest: Guest) -> None:
    guest.pend(0, 40, group=1)
    assert guest.read("AIAR") == 40
    guest.write("EOIR", 40)
    assert not guest.lr(0).active and guest.read("RPR") == 0xFF


def test_aeoir_does_not_end_group_0(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.read("IAR")
    guest.write("AEOIR", 40)
    assert guest.lr(0).active and guest.read("RPR") == 0x80


def test_split_end_of_interrupt() -> None:
    guest = Guest(ENABLE0 | EOIMODE)
    guest.pend(0, 2 | 6 << LR_CPUID_SHIFT)
    guest.write("EOIR", guest.read("IAR"))
    assert guest.read("RPR") == 0xFF and guest.lr(0).active
    guest.write("DIR", 2)
    assert guest.lr(0).active and guest.eoicount == 1
    guest.write("DIR", 2 | 6 << 10)
    assert not guest.lr(0).active
    guest.write("DIR", 1023)
    assert guest.eoicount == 1


def test_dir_without_split_is_ignored(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.read("IAR")
    guest.write("DIR", 40)
    assert guest.lr(0).active


def test_an_end_that_drops_no_priority_is_not_counted(guest: Guest) -> None:
    guest.write("EOIR", 40)
    assert guest.eoicount == 0


def test_a_hardware_interrupt_is_ended_in_the_physical_gic(guest: Guest) -> None:
    guest.gic.set_active(0, 27, True)
    guest.pend(0, 27, pintid=27)
    guest.write("EOIR", guest.read("IAR"))
    assert not guest.gic.is_active(0, 27)


# Priorities -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prebits", "bpr", "mask"), [(5, 2, 0xF8), (6, 1, 0xFC), (7, 0, 0xFE)])
def test_minimum_binary_points_and_implemented_priority_bits(
    prebits: int, bpr: int, mask: int
) -> None:
    guest = Guest(prebits=prebits)
    assert (guest.read("BPR"), guest.read("ABPR"), guest.read("PMR")) == (bpr, bpr + 1, mask)
    guest.write("BPR", 0)
    guest.write("ABPR", 7)
    assert (guest.read("BPR"), guest.read("ABPR")) == (bpr, 7)
    guest.write(f"APR{(1 << prebits - 5) - 1}", 2)
    assert guest.vif.ap1r[-1] == 2


def test_each_group_is_split_by_its_own_binary_point() -> None:
    """Group 1 by ABPR, also where IAR acknowledges it; with CBPR by BPR."""
    guest = Guest(ENABLE0 | ENABLE1 | ACKCTL)
    guest.write("BPR", 6)  # group priority: bit 7
    guest.write("ABPR", 5)  # bits 7 to 5
    guest.pend(0, 40, 0xA0, group=1)
    assert guest.read("IAR") == 40 and guest.read("RPR") == 0xA0
    guest.pend(1, 41, 0x80, group=1)
    assert guest.vif.virq, "ABPR tells 0x80 and 0xa0 apart"
    guest.write("CTLR", ENABLE0 | ENABLE1 | ACKCTL | CBPR)
    assert guest.read("ABPR") == 5, "which CBPR does not hide"
    guest.write("APR0", 1 << 16)
    assert not guest.vif.virq, "BPR does not"


# Events and state -------------------------------------------------------------------------------


def test_events_carry_the_interrupt_without_its_sender(guest: Guest) -> None:
    seen: list[Event] = []

    def record(_: Stamp, event: Event) -> None:
        seen.append(event)

    guest.bus.subscribe(record)
    guest.pend(0, 5 | 3 << LR_CPUID_SHIFT)
    guest.pend(1, 40, group=1)
    guest.write("EOIR", guest.read("IAR"))
    guest.write("AEOIR", guest.read("AIAR"))
    guest.read("IAR")
    assert seen == [
        Acknowledge(5), EndOfInterrupt(5, "EOIR"), Acknowledge(40), EndOfInterrupt(40, "AEOIR"), Acknowledge(1023),
    ]  # fmt: skip


def test_the_mode_is_state(guest: Guest) -> None:
    guest.write("CTLR", ENABLE0 | ACKCTL)
    guest.pend(0, 40)
    guest.read("IAR")
    saved = json.loads(json.dumps(guest.vif.state()))
    other = Guest()
    other.vif.sre = True
    other.vif.load(saved)
    assert other.vif.state() == guest.vif.state()
    assert other.read("CTLR") == ENABLE0 | ACKCTL and not other.vif.vfiq
    other.vif.reset()
    assert other.vif.sre and other.vif.vmcr & arch.VMCR_VFIQEN
