"""Rows of KVM's vgic_irq selftest: every injection interface, edge and level, both EOI modes, by
guest code.

The guest opens its interrupt window, acknowledges and ends as a real one; between its accesses the
VMM injects. After each delivery the states that the selftest asserts are looked at through the
guest's own registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
from gic_vm import (
    ICPENDR,
    ISACTIVER,
    ISPENDR,
    NR_IRQS,
    SPURIOUS,
    Puppet,
    make_gic,
    make_vm,
)
from hyp_tools import errno_of

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.hyp.kvm import GsiRoute, VgicDevice, VgicGroup, irq_line_word

EDGE, LEVEL = False, True
SPIS, SGIS, PPIS = tuple(range(32, NR_IRQS)), tuple(range(16)), tuple(range(16, 20))
TYPE_CPU, TYPE_SPI, TYPE_PPI = 0, 1, 2
BAD = (NR_IRQS, 1020, 1024, 1120, 5120, 0xFFFF_FFFF)


class Bench:
    """A guest and its VMM. ``level`` is how SPIs are configured."""

    def __init__(
        self, level: bool, eoimode: int, intids: Sequence[int], list_registers: int = 4
    ) -> None:
        self.level, self.eoimode = level, eoimode
        self.vm = make_vm((0,), list_registers=list_registers)
        self.gic: VgicDevice = make_gic(self.vm)  # type: ignore[assignment]
        self.guest = Puppet(self.vm)
        self.guest.start_gic(level, eoimode, intids)
        self.resampled: list[int] = []
        self._fds: dict[int, Callable[[], None]] = {}

    # Ways in

    def line(self, intid: int, level: bool) -> None:
        kind = TYPE_PPI if intid < 32 else TYPE_SPI
        self.vm.irq_line_raw(irq_line_word(kind, intid), level)

    def irq_line(self, intid: int) -> None:
        """An edge is a pulse; a level is raised, and lowered by the handler."""
        self.line(intid, True)
        if not self.level:
            self.line(intid, False)

    def irq_line_high(self, intid: int) -> None:
        self.line(intid, True)

    def level_info(self, intid: int) -> None:
        attr = intid // 32 * 32
        value = self.gic.get_attr(VgicGroup.LEVEL_INFO, attr) | 1 << intid % 32
        self.gic.set_attr(VgicGroup.LEVEL_INFO, attr, value)

    def irqfd(self, intid: int) -> None:
        gsi = intid - 32
        if gsi not in self._fds:
            resample = (lambda: self.resampled.append(intid)) if self.level else None
            self._fds[gsi] = self.vm.irqfd(gsi, resample)
        self._fds[gsi]()

    def ispendr_by_guest(self, intid: int) -> None:
        self.guest.set_bit(ISPENDR, intid)

    def ispendr_by_user(self, intid: int) -> None:
        """The raw latch; user space writes whole words."""
        group, base = (VgicGroup.REDIST_REGS, 0x1_0000) if intid < 32 else (VgicGroup.DIST_REGS, 0)
        attr = base + ISPENDR + intid // 32 * 4
        self.gic.set_attr(group, attr, self.gic.get_attr(group, attr) | 1 << intid % 32)

    def lower(self, intid: int) -> None:
        if self.level and intid >= 16:
            self.line(intid, False)

    # What the selftest's handler does

    def deliver(self, intid: int) -> None:
        guest, edge = self.guest, not self.level or intid < 16
        assert guest.take() == intid
        assert guest.bit(ISACTIVER, intid)
        if edge:
            assert not guest.bit(ISPENDR, intid)
        else:
            self.lower(intid)
        guest.icc("EOIR1", intid)
        assert guest.icc("AP1R0") == 0 and guest.icc("RPR") == 0xFF
        assert guest.bit(ISACTIVER, intid) == self.eoimode
        if self.eoimode:
            guest.icc("DIR", intid)
        assert not guest.bit(ISACTIVER, intid) and not guest.bit(ISPENDR, intid)

    def empty(self) -> None:
        assert self.guest.icc("IAR1") == SPURIOUS and self.guest.take() is None


EDGE_WAYS = ("irq_line", "irqfd", "ispendr_by_guest", "ispendr_by_user")
LEVEL_WAYS = ("irq_line_high", "level_info", "irqfd", "ispendr_by_guest", "ispendr_by_user")
PRIVATE_WAYS = (
    "irq_line_high",
    "level_info",
    "ispendr_by_guest",
    "ispendr_by_user",
)  # of PPIs, which are levels
SGI_WAYS = ("ispendr_by_guest", "ispendr_by_user")
SPI_COMBINATIONS = [(EDGE, way) for way in EDGE_WAYS] + [(LEVEL, way) for way in LEVEL_WAYS]
EVERY = (
    [(level, way, SPIS) for level, way in SPI_COMBINATIONS]
    + [(LEVEL, way, PPIS) for way in PRIVATE_WAYS]
    + [(EDGE, way, SGIS) for way in SGI_WAYS]
)
eoimodes = pytest.mark.parametrize("eoimode", [0, 1])
every_way = pytest.mark.parametrize(
    ("level", "way", "intids"),
    EVERY,
    ids=[f"{'level' if v else 'edge'}-{w}-{i[0]}" for v, w, i in EVERY],
)


@eoimodes
@every_way
def test_one_at_a_time(level: bool, way: str, intids: Sequence[int], eoimode: int) -> None:
    """The first, the last and one between: delivered once, in the states that the selftest's
    handler asserts."""
    bench = Bench(level, eoimode, intids)
    for intid in (intids[0], intids[len(intids) // 2], intids[-1]):
        getattr(bench, way)(intid)
        bench.deliver(intid)
        bench.empty()


@eoimodes
@every_way
def test_all_at_once(level: bool, way: str, intids: Sequence[int], eoimode: int) -> None:
    """Each exactly once, in the order of their priorities, however few list registers there are."""
    bench = Bench(level, eoimode, intids)
    for intid in intids:
        bench.guest.set_priority(intid, intid % 31 << 3)
    for intid in intids:
        getattr(bench, way)(intid)
    expected = sorted(intids, key=lambda i: i % 31)
    priorities = {intid: intid % 31 for intid in intids}
    taken = []
    while (intid := bench.guest.take()) is not None:
        bench.lower(intid)
        bench.guest.end(intid, eoimode)
        taken.append(intid)
    assert sorted(taken) == sorted(intids)
    assert [priorities[i] for i in taken] == [priorities[i] for i in expected]
    bench.empty()
    assert not any(
        bench.guest.load(bench.guest.frame(intids[0]) + at) for at in (ISPENDR, ISACTIVER)
    )


@eoimodes
@pytest.mark.parametrize("list_registers", [1, 4, 16])
@every_way
def test_preemption(
    level: bool, way: str, intids: Sequence[int], eoimode: int, list_registers: int
) -> None:
    """Each preempts the one before, 4 deep and as deep as there are priorities; the ends come in
    reverse order, the deactivations in the order of arrival (as newer selftests have it)."""
    intids = intids[:31]
    bench = Bench(level, eoimode, intids, list_registers)
    guest = bench.guest
    for depth in {4, len(intids)}:
        nested = intids[:depth]
        for n, intid in enumerate(nested):
            guest.set_priority(intid, 8 * (depth - 1 - n))
        for intid in nested:
            getattr(bench, way)(intid)
            guest.do("wfi")
            assert guest.icc("IAR1") == intid
            bench.lower(intid)
        assert guest.icc("RPR") == 0 and guest.icc("AP1R0") == (1 << depth) - 1
        for n, intid in enumerate(reversed(nested)):
            guest.icc("EOIR1", intid)
            assert guest.icc("AP1R0") == (1 << depth) - (1 << n + 1)
        if eoimode:
            assert all(guest.bit(ISACTIVER, intid) for intid in nested)
            for intid in nested:
                guest.icc("DIR", intid)
        assert not any(guest.bit(ISACTIVER, intid) for intid in nested)
        bench.empty()


@eoimodes
@pytest.mark.parametrize("list_registers", [1, 4])
@pytest.mark.parametrize("intids", [SGIS, PPIS, SPIS[:31]], ids=["SGI", "PPI", "SPI"])
@pytest.mark.parametrize("by_user", [True, False])
def test_restored_active_state(
    intids: Sequence[int], eoimode: int, by_user: bool, list_registers: int
) -> None:
    """ISACTIVER and AP1R0 as the destination of a migration sets them; the guest then ends all,
    nested as they were."""
    bench = Bench(LEVEL, eoimode, intids, list_registers)
    guest, count = bench.guest, len(intids)
    for n, intid in enumerate(intids):
        guest.set_priority(intid, 8 * (count - 1 - n))
    group, base = (VgicGroup.REDIST_REGS, 0x1_0000) if intids[0] < 32 else (VgicGroup.DIST_REGS, 0)
    for n, intid in enumerate(intids):
        if by_user:
            attr = base + ISACTIVER + intid // 32 * 4
            bench.gic.set_attr(group, attr, 1 << intid % 32)
            ap1r0 = ICC_REGISTERS["ICC_AP1R0_EL1"]
            value = bench.gic.get_attr(VgicGroup.CPU_SYSREGS, ap1r0) | 1 << n
            bench.gic.set_attr(VgicGroup.CPU_SYSREGS, ap1r0, value)
        else:
            guest.set_bit(ISACTIVER, intid)
            guest.icc("AP1R0", guest.icc("AP1R0") | 1 << n)
    assert all(guest.bit(ISACTIVER, intid) for intid in intids) and guest.icc("RPR") == 0
    for intid in reversed(intids):
        guest.end(intid, eoimode)
    assert not any(guest.bit(ISACTIVER, intid) for intid in intids)
    assert guest.icc("AP1R0") == 0
    bench.empty()


# What is refused, and never delivered -----------------------------------------------------------


@pytest.mark.parametrize("intid", BAD)
@pytest.mark.parametrize("level", [EDGE, LEVEL])
def test_bad_intids_of_irq_line(intid: int, level: bool) -> None:
    """EINVAL; numbers that do not fit the word's 16 bits cannot be asked for, and `Vm.irq_line`
    refuses them too."""
    bench = Bench(level, 0, SPIS[:1])
    if intid <= 0xFFFF:
        assert errno_of(lambda: bench.line(intid, True)) == "EINVAL"
    assert errno_of(lambda: bench.vm.irq_line(intid, True)) == "EINVAL"
    bench.empty()


@pytest.mark.parametrize("intid", BAD)
def test_bad_intids_of_level_info(intid: int) -> None:
    """The attribute has 10 bits for the INTID: EINVAL above, silence for those that there are
    not."""
    bench = Bench(LEVEL, 0, SPIS[:1])
    attr = intid // 32 * 32
    if intid > 1023:
        assert (
            errno_of(lambda: bench.gic.set_attr(VgicGroup.LEVEL_INFO, attr, 1 << intid % 32))
            == "EINVAL"
        )
    else:
        bench.gic.set_attr(VgicGroup.LEVEL_INFO, attr, 1 << intid % 32)
        assert bench.gic.get_attr(VgicGroup.LEVEL_INFO, attr) == 0
    bench.empty()


@pytest.mark.parametrize("intid", BAD)
def test_bad_intids_of_irq_routing(intid: int) -> None:
    """Only pins from 988 on are refused. A GSI that is routed to an SPI that the vGIC lacks does
    nothing."""
    bench = Bench(EDGE, 0, SPIS[:1])
    pin = intid - 32
    route = GsiRoute(5, pin)
    if pin >= 988:
        assert errno_of(lambda: bench.vm.set_gsi_routing([route])) == "EINVAL"
    else:
        bench.vm.set_gsi_routing([route])
        bench.vm.irqfd(5)()
    bench.empty()


@pytest.mark.parametrize("intid", [NR_IRQS, 1020, 1024])
def test_bad_intids_of_ispendr(intid: int) -> None:
    """Beyond the implemented interrupts: RAZ/WI for the guest and for user space."""
    bench = Bench(EDGE, 0, SPIS[:1])
    bench.guest.set_bit(ISPENDR, intid)
    assert bench.guest.bit(ISPENDR, intid) == 0
    bench.ispendr_by_user(intid)
    bench.empty()


@pytest.mark.parametrize(
    ("kind", "number", "errno"),
    [
        (TYPE_CPU, 0, "ENXIO"),
        (TYPE_PPI, 15, "EINVAL"),
        (TYPE_PPI, 32, "EINVAL"),
        (TYPE_SPI, 31, "EINVAL"),
        (3, 40, "EINVAL"),
        (15, 40, "EINVAL"),
    ],
)
def test_words_of_irq_line_that_are_refused(kind: int, number: int, errno: str) -> None:
    bench = Bench(LEVEL, 0, SPIS[:1])
    assert errno_of(lambda: bench.vm.irq_line_raw(irq_line_word(kind, number), True)) == errno


@pytest.mark.parametrize("vcpu", [1, 255, 256, 4095])
def test_a_ppi_of_a_vcpu_that_is_not_there(vcpu: int) -> None:
    bench = Bench(LEVEL, 0, SPIS[:1])
    assert (
        errno_of(lambda: bench.vm.irq_line_raw(irq_line_word(TYPE_PPI, 20, vcpu), True)) == "EINVAL"
    )


def test_irq_line_without_a_controller_and_before_init() -> None:
    vm = make_vm()
    assert (
        errno_of(lambda: vm.irq_line_raw(irq_line_word(TYPE_CPU, 40), True)) == "EINVAL"
    )  # it is IRQ or FIQ
    for kind in (TYPE_SPI, TYPE_PPI):
        assert errno_of(lambda kind=kind: vm.irq_line_raw(irq_line_word(kind, 40), True)) == "ENXIO"
    vm.create_device("arm-vgic-v3")
    assert errno_of(lambda: vm.irq_line_raw(irq_line_word(TYPE_SPI, 40), True)) == "EBUSY"
    assert errno_of(lambda: vm.irqfd(8)) == "EAGAIN"


def test_a_timers_ppi_is_not_user_spaces() -> None:
    """Its line has an owner: the injection is dropped, without an error."""
    bench = Bench(LEVEL, 0, (27,))
    bench.line(27, True)
    bench.empty()


# Routing and irqfds -----------------------------------------------------------------------------


def test_a_gsi_goes_where_it_is_routed() -> None:
    bench = Bench(EDGE, 0, SPIS)
    trigger = bench.vm.irqfd(3)
    trigger()
    bench.deliver(35)
    bench.vm.set_gsi_routing([GsiRoute(3, 50), GsiRoute(4, 50)])
    trigger()
    bench.vm.irqfd(4)()
    bench.deliver(82)
    bench.empty()
    bench.vm.set_gsi_routing([])
    trigger()
    bench.empty()


@pytest.mark.parametrize(
    "entries",
    [
        [GsiRoute(0, 988)],
        [GsiRoute(0, -1)],
        [GsiRoute(0, 0, irqchip=1)],
        [GsiRoute(0, 0), GsiRoute(0, 1)],
        [GsiRoute(4096, 0)],
    ],
    ids=["pin 988", "pin -1", "irqchip 1", "twice", "GSI 4096"],
)
def test_routes_that_are_refused_change_nothing(entries: list[GsiRoute]) -> None:
    bench = Bench(EDGE, 0, SPIS)
    bench.vm.set_gsi_routing([GsiRoute(7, 8)])
    assert errno_of(lambda: bench.vm.set_gsi_routing(entries)) == "EINVAL"
    bench.vm.irqfd(7)()
    bench.deliver(40)


@pytest.mark.parametrize(("eoimode", "list_registers"), list(product([0, 1], [1, 4])))
def test_a_resampled_line_stays_high_until_the_end(eoimode: int, list_registers: int) -> None:
    """Asserted until the guest deactivates, in whatever way; then lowered, then its device is
    asked."""
    bench = Bench(LEVEL, eoimode, SPIS, list_registers)
    guest = bench.guest
    for intid in (40, 41, 42):
        bench.irqfd(intid)
    assert bench.gic.get_attr(VgicGroup.LEVEL_INFO, 32) == 7 << 8
    for intid in (40, 41, 42):
        assert guest.take() == intid and bench.resampled == list(range(40, intid))
        guest.icc("EOIR1", intid)
        if eoimode:
            assert bench.resampled == list(range(40, intid))
            guest.icc("DIR", intid)
        guest.do("wfi" if intid < 42 else "read RPR")
        assert bench.resampled == list(range(40, intid + 1))
    assert bench.gic.get_attr(VgicGroup.LEVEL_INFO, 32) == 0
    bench.empty()


@pytest.mark.parametrize("list_registers", [1, 4])
def test_resampling_of_nested_interrupts(list_registers: int) -> None:
    """With one list register, most of them are ended by EOIcount."""
    bench = Bench(LEVEL, 0, SPIS, list_registers)
    guest = bench.guest
    for n, intid in enumerate((40, 41, 42)):
        guest.set_priority(intid, 0x80 - 8 * n)
        bench.irqfd(intid)
        assert guest.icc("IAR1") == intid
    for intid in (42, 41, 40):
        guest.icc("EOIR1", intid)
    guest.do("read RPR")
    assert bench.resampled == [42, 41, 40]
    bench.empty()


def test_a_device_that_still_wants_attention() -> None:
    """It triggers again in its resampler, twice."""
    bench = Bench(LEVEL, 0, SPIS)
    calls = []

    def resample() -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            trigger()

    trigger = bench.vm.irqfd(8, resample)
    trigger()
    for _ in range(3):
        assert bench.guest.take() == 40
        bench.guest.end(40, 0)
    bench.empty()
    assert calls == [0, 1, 2]


def test_irqfds_on_one_gsi_share_its_line() -> None:
    bench = Bench(LEVEL, 0, SPIS)
    calls: list[str] = []
    first, second = (lambda: calls.append("first")), (lambda: calls.append("second"))
    raise_first = bench.vm.irqfd(8, first)
    bench.vm.irqfd(8, second)()
    raise_first()
    assert bench.guest.take() == 40
    bench.guest.end(40, 0)
    bench.empty()
    assert calls == ["first", "second"]
    bench.vm.irqfd_deassign(8, second)
    raise_first()
    assert bench.guest.take() == 40
    bench.guest.end(40, 0)
    assert calls == ["first", "second", "first"]
    raise_first()
    bench.vm.irqfd_deassign(8, first)
    bench.empty()


# Latches ----------------------------------------------------------------------------------------


def test_user_spaces_latch_is_raw() -> None:
    """ISPENDR of user space sets and clears the latch whatever the configuration, and does not read
    the line."""
    bench = Bench(LEVEL, 0, SPIS)
    attr = ISPENDR + 4
    bench.line(40, True)
    assert bench.guest.bit(ISPENDR, 40) and bench.gic.get_attr(VgicGroup.DIST_REGS, attr) == 0
    bench.gic.set_attr(VgicGroup.DIST_REGS, attr, 1 << 9)
    assert bench.gic.get_attr(VgicGroup.DIST_REGS, attr) == 1 << 9
    bench.gic.set_attr(VgicGroup.DIST_REGS, attr, 0)
    assert bench.guest.bit(ISPENDR, 41) == 0 and bench.guest.bit(ISPENDR, 40) == 1


def test_icpendr_of_user_space_is_ignored() -> None:
    bench = Bench(EDGE, 0, SPIS)
    bench.irq_line(40)
    bench.gic.set_attr(VgicGroup.DIST_REGS, ICPENDR + 4, 0xFFFF_FFFF)
    bench.deliver(40)
