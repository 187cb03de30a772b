"""Rules of the GIC that implementers often miss: one test for each.

Those about one guest are instructions of a guest on the KVM API; those about several vCPUs use the
vGIC without an engine, which adds nothing to them.
"""

from __future__ import annotations

import pytest
from gic_vm import (
    ICPENDR,
    ISACTIVER,
    ISENABLER,
    ISPENDR,
    NR_IRQS,
    SPURIOUS,
    Puppet,
    make_gic,
    make_vm,
)
from hyp_tools import GICD, GICR
from vgic_rig import Rig

from armvirt.arch import gic as arch
from armvirt.arch.gic import ListRegister
from armvirt.hyp.kvm import Vm

SPI, VTIMER = 40, 27
PENDING_AND_ACTIVE = 3


def machine(level: bool = True, eoimode: int = 0, list_registers: int = 4) -> tuple[Vm, Puppet]:
    vm = make_vm((0,), list_registers=list_registers)
    make_gic(vm)
    guest = Puppet(vm)
    guest.start_gic(level, eoimode, (SPI, SPI + 1, VTIMER))
    return vm, guest


def list_registers(vm: Vm) -> list[ListRegister]:
    return [ListRegister.decode(value) for value in vm.host.pe.vif.lr if value]


# 7: routing -------------------------------------------------------------------------------------


def routed(level: bool) -> Rig:
    rig = Rig(vcpus=2)
    rig.configure(SPI, level)
    rig.set_priority(SPI, 0x80)
    rig.enable(SPI)
    return rig


@pytest.mark.parametrize("level", [False, True])
def test_what_pends_follows_its_route(level: bool) -> None:
    rig = routed(level)
    rig.inject(SPI)
    assert rig.vif(0).virq
    rig.route(SPI, 1)
    assert not rig.vif(0).virq and rig.vif(1).virq
    assert (rig.ack(0), rig.ack(1)) == (SPURIOUS, SPI)


@pytest.mark.parametrize("level", [False, True])
def test_what_is_active_never_migrates(level: bool) -> None:
    """It pends again meanwhile: that goes to the new vCPU, but only after the old one has ended
    it."""
    rig = routed(level)
    rig.inject(SPI)
    assert rig.ack(0) == SPI
    rig.route(SPI, 1)
    if not level:
        rig.inject(SPI)
    assert rig.active(SPI) and not rig.vif(1).virq and rig.ack(1) == SPURIOUS
    rig.eoi(SPI, 0)
    assert rig.ack(1) == SPI


def test_a_disabled_distributor_holds_what_pends_but_not_what_is_active() -> None:
    vm, guest = machine()
    vm.irq_line(SPI, True)
    vm.irq_line(SPI + 1, True)
    assert guest.icc("IAR1") == SPI
    guest.store(GICD, 0)
    assert guest.bit(ISACTIVER, SPI) and guest.icc("HPPIR1") == SPURIOUS
    vm.irq_line(SPI, False)
    guest.icc("EOIR1", SPI)
    assert not guest.bit(ISACTIVER, SPI) and guest.take() is None
    guest.store(GICD, 2)
    assert guest.take() == SPI + 1


# 8: the latch of a level interrupt --------------------------------------------------------------


def test_ispendr_on_a_level_interrupt_is_a_latch_beside_the_line() -> None:
    vm, guest = machine()
    guest.set_bit(ISPENDR, SPI)
    assert guest.bit(ISPENDR, SPI)
    vm.irq_line(SPI, True)
    vm.irq_line(SPI, False)
    assert guest.bit(ISPENDR, SPI), "the line has come and gone, the latch is there"
    assert guest.take() == SPI
    assert not guest.bit(ISPENDR, SPI)
    guest.icc("EOIR1", SPI)
    assert guest.take() is None, "it was good for one delivery"


def test_icpendr_cannot_clear_a_high_line() -> None:
    vm, guest = machine()
    guest.set_bit(ISPENDR, SPI)
    vm.irq_line(SPI, True)
    guest.set_bit(ICPENDR, SPI)
    assert guest.bit(ISPENDR, SPI)
    vm.irq_line(SPI, False)
    assert not guest.bit(ISPENDR, SPI) and guest.take() is None


def test_icpendr_clears_the_latch() -> None:
    _, guest = machine()
    guest.set_bit(ISPENDR, SPI)
    guest.set_bit(ICPENDR, SPI)
    assert not guest.bit(ISPENDR, SPI) and guest.take() is None


# 9: never pending and active --------------------------------------------------------------------


@pytest.mark.parametrize("eoimode", [0, 1])
def test_a_software_level_is_never_pending_and_active(eoimode: int) -> None:
    """The line stays high: it comes again at once after the end, because the EOI bit brings the
    hypervisor."""
    vm, guest = machine(eoimode=eoimode)
    vm.irq_line(SPI, True)
    for _ in range(3):
        assert guest.take() == SPI
        guest.bit(ISPENDR, SPI)  # a fold and a flush in between
        held = list_registers(vm)
        assert [(r.vintid, r.state_name, r.eoi) for r in held] == [(SPI, "active", True)]
        guest.end(SPI, eoimode)
    vm.irq_line(SPI, False)
    assert guest.take() is None


@pytest.mark.parametrize("eoimode", [0, 1])
def test_a_software_edge_may_be_pending_and_active(eoimode: int) -> None:
    vm, guest = machine(level=False, eoimode=eoimode)
    vm.irq_line(SPI, True)
    assert guest.take() == SPI
    vm.irq_line(SPI, True)
    assert guest.bit(ISPENDR, SPI) and guest.bit(ISACTIVER, SPI)
    assert [r.state_name for r in list_registers(vm)] == ["pending+active"]
    assert guest.take() is None
    guest.end(SPI, eoimode)
    assert guest.take() == SPI


def test_a_mapped_interrupt_is_never_pending_and_active() -> None:
    vm, guest = machine()
    guest.do("write CNTV_CVAL_EL0", value=0)
    guest.do("write CNTV_CTL_EL0", value=1)
    assert guest.take() == VTIMER
    guest.bit(ISPENDR, VTIMER)
    held = list_registers(vm)
    assert [(r.vintid, r.state_name, r.pintid) for r in held] == [(VTIMER, "active", VTIMER)]


# 10: mapped level interrupts --------------------------------------------------------------------


def test_the_physical_timer_interrupt_stays_active_until_the_guests_end() -> None:
    vm, guest = machine()
    guest.do("write CNTV_CVAL_EL0", value=0)
    guest.do("write CNTV_CTL_EL0", value=1)
    assert (
        vm.host.gic.is_active(0, VTIMER)
        and guest.take() == VTIMER
        and vm.host.gic.is_active(0, VTIMER)
    )
    guest.do("write CNTV_CTL_EL0", value=2)
    guest.icc("EOIR1", VTIMER)
    assert not vm.host.gic.is_active(0, VTIMER) and guest.take() is None


def test_a_timer_that_still_fires_comes_again() -> None:
    vm, guest = machine()
    guest.do("write CNTV_CVAL_EL0", value=0)
    guest.do("write CNTV_CTL_EL0", value=1)
    for _ in range(3):
        assert guest.take() == VTIMER
        guest.icc("EOIR1", VTIMER)
    assert vm.host.gic.is_active(0, VTIMER)


def test_a_timer_that_is_stopped_before_the_acknowledge_is_retracted() -> None:
    """Line sampled at the fold; low leaves nothing for the guest to end, so the host's interrupt is
    deactivated."""
    vm, guest = machine()
    guest.do("write CNTV_CVAL_EL0", value=0)
    guest.do("write CNTV_CTL_EL0", value=1)
    assert guest.icc("HPPIR1") == VTIMER
    guest.do("write CNTV_CTL_EL0", value=0)
    assert not guest.bit(ISPENDR, VTIMER)
    assert guest.take() is None and not vm.host.gic.is_active(0, VTIMER)


# 11: priorities ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [5, 6, 7])
def test_binary_points_are_one_apart(bits: int) -> None:
    vm = make_vm((0,), priority_bits=bits)
    make_gic(vm)
    guest = Puppet(vm)
    for name in ("BPR0", "BPR1"):
        guest.icc(name, 0)
    assert (guest.icc("BPR0"), guest.icc("BPR1")) == (7 - bits, 8 - bits)
    guest.icc("BPR0", 5)
    guest.icc("CTLR", arch.CTLR_CBPR)
    guest.icc("BPR1", 2)
    assert guest.icc("BPR1") == 6, "BPR0 + 1, writes ignored"
    guest.icc("BPR0", 7)
    assert guest.icc("BPR1") == 7
    guest.icc("CTLR", 0)
    assert guest.icc("BPR1") == 8 - bits


def test_the_mask_is_strict() -> None:
    vm, guest = machine()
    guest.set_priority(SPI, 0x80)
    guest.icc("PMR", 0x80)
    vm.irq_line(SPI, True)
    assert guest.take() is None and guest.icc("IAR1") == SPURIOUS and guest.icc("HPPIR1") == SPI
    guest.icc("PMR", 0x88)
    assert guest.take() == SPI


def test_the_lowest_priority_is_never_signalled() -> None:
    """0xFF is stored as 0xF8, and the mask cannot be above that with five bits."""
    vm, guest = machine()
    guest.set_priority(SPI, 0xFF)
    guest.icc("PMR", 0xFF)
    vm.irq_line(SPI, True)
    assert guest.icc("PMR") == 0xF8 and guest.take() is None


# 12: the end of interrupt -----------------------------------------------------------------------


def test_eoir_drops_a_priority_whatever_it_is_told() -> None:
    vm, guest = machine()
    vm.irq_line(SPI, True)
    assert guest.take() == SPI and guest.icc("RPR") == 0xA0
    guest.icc("EOIR1", SPI + 1)
    assert guest.icc("RPR") == 0xFF and guest.bit(ISACTIVER, SPI)


def test_eoimode_1_needs_dir() -> None:
    vm, guest = machine(eoimode=1)
    vm.irq_line(SPI, True)
    assert guest.take() == SPI
    vm.irq_line(SPI, False)
    guest.icc("EOIR1", SPI)
    assert guest.icc("RPR") == 0xFF and guest.bit(ISACTIVER, SPI)
    guest.icc("DIR", SPI)
    assert not guest.bit(ISACTIVER, SPI)


def test_dir_is_ignored_with_eoimode_0() -> None:
    vm, guest = machine()
    vm.irq_line(SPI, True)
    assert guest.take() == SPI
    guest.icc("DIR", SPI)
    assert guest.bit(ISACTIVER, SPI) and guest.icc("RPR") == 0xA0


def test_an_end_that_ends_nothing_deactivates_nothing() -> None:
    """One list register, two active: an EOIR with no priority active must not be taken for the end
    of the second."""
    vm, guest = machine(list_registers=1)
    guest.set_priority(SPI + 1, 0x80)
    vm.irq_line(SPI, True)
    assert guest.take() == SPI
    vm.irq_line(SPI + 1, True)
    assert guest.take() == SPI + 1
    guest.icc("AP1R0", 0)
    guest.icc("EOIR1", 99)
    assert guest.bit(ISACTIVER, SPI) and guest.bit(ISACTIVER, SPI + 1)


# 13: accesses that make no sense ----------------------------------------------------------------

ARRAYS = (ISENABLER, ISPENDR, ISACTIVER)


@pytest.mark.parametrize("offset", [0x014, 0x03C, 0x0FC, 0xF00, 0x3000, 0x5FFC, 0xFFCC])
def test_reserved_offsets_of_the_distributor_are_raz_wi(offset: int) -> None:
    _, guest = machine()
    guest.store(GICD + offset, 0xFFFF_FFFF)
    assert guest.load(GICD + offset) == 0


@pytest.mark.parametrize("register", ARRAYS)
def test_private_fields_of_the_distributor_are_raz_wi(register: int) -> None:
    _, guest = machine()
    before = guest.load(GICR + 0x1_0000 + register)
    guest.store(GICD + register, 0xFFFF_FFFF)
    assert guest.load(GICD + register) == 0 and guest.load(GICR + 0x1_0000 + register) == before


@pytest.mark.parametrize("register", ARRAYS)
def test_interrupts_that_are_not_implemented_are_raz_wi(register: int) -> None:
    _, guest = machine()
    for intid in (NR_IRQS, 1019, 1020):
        guest.set_bit(register, intid)
        assert not guest.bit(register, intid)


def test_waker_is_raz_wi() -> None:
    """KVM's redistributors are always awake; QEMU's come up asleep."""
    _, guest = machine()
    guest.store(GICR + 0x14, 2)
    assert guest.load(GICR + 0x14) == 0


def test_wrong_widths_are_raz_wi() -> None:
    rig = Rig()
    for size, offset in (
        (1, 0x104),
        (2, 0x104),
        (8, 0x100),
        (4, 0x102),
        (2, 0x420),
        (4, 0x6102),
        (8, 0x0),
    ):
        rig.dist.write(0, offset, size, (1 << 8 * size) - 1)
        assert rig.dist.read(0, offset, size) == 0, (size, offset)
    assert rig.dist.read(0, 0x104, 4) == 0
