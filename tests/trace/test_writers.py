"""The last writer of a register: for each bit where the register has a bit for each INTID, else for
each byte."""

from __future__ import annotations

from armvirt.events import (
    Acknowledge,
    ExceptionEntry,
    GicAccess,
    IccWrite,
    ItsCommand,
    Schedule,
    Stamp,
    TimerWrite,
    VgicInject,
)  # fmt: skip
from armvirt.trace.writers import OFF, LastWrite, LastWriters, register_name


class Guest:
    """Each call happens one ns after the one before; the PC is 0x1000 times that."""

    def __init__(self) -> None:
        self.seen = LastWriters()
        self.ns = 0

    def does(self, event: object, vcpu: int = 0) -> None:
        self.ns += 1
        self.seen(Stamp(self.ns, self.ns, vcpu, 0x1000 * self.ns), event)  # type: ignore[arg-type]

    def writes(
        self, offset: int, value: int, size: int = 4, frame: str = "GICD", vcpu: int = 0
    ) -> None:
        self.does(GicAccess(frame, offset, size, value, 1), vcpu)


def ns(write: LastWrite | None) -> int | None:
    return None if write is None else write.ns


def test_the_bit_of_another_interrupt_is_no_write() -> None:
    guest = Guest()
    guest.writes(0x104, 1 << 8)
    guest.writes(0x104, 1 << 9)
    assert ns(guest.seen.memory("GICD", 0x104, bit=8)) == 1
    assert ns(guest.seen.memory("GICD", 0x104, bit=9)) == 2
    assert (
        guest.seen.memory("GICD", 0x104, bit=10) is None
        and guest.seen.memory("GICD", 0x108, bit=8) is None
    )


def test_set_and_clear_registers_are_one_state() -> None:
    guest = Guest()
    guest.writes(0x104, 1 << 8)
    guest.writes(0x184, 1 << 8)
    assert guest.seen.memory("GICD", 0x104, bit=8) == LastWrite(
        "GICD_ICENABLER1", 1 << 8, 2, 0, 0x2000
    )


def test_redistributors_of_several_cpus() -> None:
    guest = Guest()
    guest.writes(0x1_0100, 1 << 27, frame="GICR")
    guest.writes(0x3_0180, 1 << 27, frame="GICR")
    first, second = (guest.seen.memory("GICR", offset, bit=27) for offset in (0x1_0100, 0x3_0100))
    assert first is not None and second is not None
    assert (first.what, second.what) == ("GICR_ISENABLER0", "GICR_ICENABLER0")
    guest.writes(0x0_0100, 1, frame="GICR")  # in RD_base, no register of bits
    assert ns(guest.seen.memory("GICR", 0x1_0100, bit=0)) is None


def test_bytes_of_a_word() -> None:
    guest = Guest()
    guest.writes(0x428, 0xA0A0A0A0)
    guest.writes(0x429, 0x40, size=1)
    assert [ns(guest.seen.memory("GICD", 0x428 + n, 1)) for n in range(4)] == [1, 2, 1, 1]
    assert ns(guest.seen.memory("GICD", 0x428, 4)) == 2
    guest.writes(0x6140, 0, size=8)
    assert ns(guest.seen.memory("GICD", 0x6144, 4)) == 3


def test_banks() -> None:
    guest = Guest()
    guest.writes(0x4, 0xF0, frame="GICC", vcpu=0)
    guest.writes(0x4, 0x80, frame="GICC", vcpu=1)
    assert [ns(guest.seen.memory("GICC", 0x4, vcpu=n)) for n in (0, 1, -1)] == [1, 2, 2]


def test_a_read_is_no_write() -> None:
    guest = Guest()
    guest.does(GicAccess("GICD", 0x104, 4, 0x100, 0))
    assert guest.seen.memory("GICD", 0x104, bit=8) is None


def test_system_registers_are_each_cpus_own() -> None:
    guest = Guest()
    guest.does(IccWrite("ICC_PMR_EL1", 0xFF))
    guest.does(IccWrite("ICC_PMR_EL1", 0x80), vcpu=1)
    assert guest.seen.system(0, "ICC_PMR_EL1") == LastWrite("ICC_PMR_EL1", 0xFF, 1, 0, 0x1000)
    assert (
        ns(guest.seen.system(1, "ICC_PMR_EL1")) == 2 and guest.seen.system(2, "ICC_PMR_EL1") is None
    )


def test_tval_is_a_view_of_cval() -> None:
    guest = Guest()
    guest.does(TimerWrite("vtimer", "cval", 5))
    guest.does(TimerWrite("vtimer", "tval", 6))
    guest.does(TimerWrite("ptimer", "tval", 7))
    assert guest.seen.system(0, "CNTV_CVAL_EL0") == LastWrite("CNTV_TVAL_EL0", 6, 2, 0, 0x2000)
    assert guest.seen.system(0, "CNTV_CTL_EL0") is None


def test_what_was_raised_taken_and_entered() -> None:
    guest = Guest()
    guest.does(VgicInject(27, 1, 0))
    guest.does(ExceptionEntry("irq", 0, 0, 0x280))
    entry = guest.seen.entered(0)
    assert ns(guest.seen.raised(27, 0)) == 1 and guest.seen.raised(27, 1) is None
    assert entry is not None and entry.ns == 2 and guest.seen.entered(1) is None
    guest.does(Acknowledge(27))
    assert guest.seen.entered(0) is None and ns(guest.seen.acknowledged(27, 0)) == 3
    guest.does(ExceptionEntry("sync", 0, 0, 0x200))
    assert guest.seen.entered(0) is None


def test_commands_of_an_its_by_what_they_are_about() -> None:
    guest = Guest()
    guest.does(ItsCommand("MAPC", -1, -1, -1, 0, 2, 1, 1))
    guest.does(ItsCommand("MAPTI", 7, 0, 8192, 0, 2))
    guest.does(ItsCommand("MAPTI", 7, 1, 8193, 0, 3))
    guest.does(ItsCommand("INVALL", -1, -1, -1, 0, 2))
    guest.does(ItsCommand("MAPD", 7, -1, -1, 0, valid=0))
    guest.does(ItsCommand("MAPD", 8, -1, -1, 0, valid=0))
    maps, reads = ("MAPC", "MAPTI"), ("INV", "INVALL")
    assert ns(guest.seen.commanded(8192, maps)) == 2 and ns(guest.seen.commanded(8193, maps)) == 3
    assert ns(guest.seen.commanded(8192, reads)) == 4 and guest.seen.commanded(8193, reads) is None
    assert ns(guest.seen.commanded(8192, ("MAPTI", "MAPD"))) == 5
    guest.does(ItsCommand("MAPC", -1, -1, -1, 0, 2, 0, 1))
    assert ns(guest.seen.commanded(8192, maps)) == 7
    assert guest.seen.commanded(9000, maps) is None


def test_a_command_in_error_counts_for_the_lpi_that_it_names() -> None:
    guest = Guest()
    guest.does(ItsCommand("MAPTI", 7, 99, 8192, 0x1_0A05, 2))
    write = guest.seen.commanded(8192, ("MAPTI", "MAPC"))
    assert write is not None and write.value == 0x1_0A05


def test_cpu_off_resets_the_cpu_interface() -> None:
    guest = Guest()
    guest.does(IccWrite("ICC_PMR_EL1", 0xF0), vcpu=1)
    guest.does(IccWrite("ICC_PMR_EL1", 0xF0), vcpu=0)
    guest.does(TimerWrite("vtimer", "ctl", 1), vcpu=1)
    guest.does(Schedule(1, "off"), vcpu=1)
    off = guest.seen.system(1, "ICC_PMR_EL1")
    assert off is not None and (off.what, off.ns, off.vcpu) == (OFF, 4, 1)
    assert (
        ns(guest.seen.system(0, "ICC_PMR_EL1")) == 2
        and ns(guest.seen.system(1, "CNTV_CTL_EL0")) == 3
    )


def test_a_restart_forgets_everything() -> None:
    guest = Guest()
    guest.writes(0x104, 1 << 8)
    guest.does(Acknowledge(40))
    assert guest.seen.never("written") == "never written"
    guest.seen.restart(500)
    assert (
        guest.seen.memory("GICD", 0x104, bit=8) is None
        and not guest.seen.history.of(40, 0).taken.count
    )
    assert guest.seen.never("written") == "not written since 500 ns" and not guest.seen.blind
    guest.seen.restart(600, loaded=True)
    assert guest.seen.blind


def test_names_of_registers() -> None:
    named = {("GICR", 0x14): "GICR_WAKER", ("GICR", 0x3_0100): "GICR_ISENABLER0", ("GICD", 0x204): "GICD_ISPENDR1",
             ("GITS", 0x90): "GITS_CREADR", ("GICC", 0x18): "GICC_HPPIR", ("GICR", 0x100): "GICR+0x100"}  # fmt: skip
    assert {place: register_name(*place) for place in named} == named
