"""KVM's arch_timer on a PE: lifecycle, mapped interrupts, traps, user-space interface, and the edge
cases of KVM's selftests arch_timer and arch_timer_edge_cases, for both timers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.arch import timer as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS
from armvirt.errors import KvmError
from armvirt.events import Event, EventBus, Stamp, TimerLine, TimerWrite
from armvirt.hw.clock import Clock
from armvirt.hw.timer import COUNTER_START, GenericTimer, SystemCounter
from armvirt.hyp.timer import arch_timer
from armvirt.hyp.timer.arch_timer import ArchTimer, ArchTimerVmData, TimerId

VCPU = 0
HOST_VTIMER = 27
DEF = 100_000  # a delay in ticks
TVAL_MAX = 0x7FFF_FFFF
INT32_MIN = 0x8000_0000


class FakeVgic:
    """Level-sensitive PPIs of one vCPU with KVM's mapped-interrupt rules, and nothing else."""

    def __init__(self) -> None:
        self.level: dict[int, bool] = {}
        self.active: set[int] = set()
        self.owners: dict[int, object] = {}
        self.mapped: dict[int, tuple[int, Callable[[], bool]]] = {}
        self.resets: list[int] = []

    def inject(self, vcpu_id: int | None, intid: int, level: bool, owner: object = None) -> None:
        assert vcpu_id == VCPU and owner is self.owners[intid]
        self.level[intid] = level

    def map_phys_irq(
        self, vcpu_id: int, intid: int, host_intid: int, get_input_level: Callable[[], bool]
    ) -> None:
        self.mapped[intid] = host_intid, get_input_level

    def set_owner(self, vcpu_id: int, intid: int, owner: object) -> None:
        if self.owners.setdefault(intid, owner) is not owner:
            raise KvmError("EEXIST", f"interrupt {intid} has an owner")

    def is_active(self, vcpu_id: int, intid: int) -> bool:
        return intid in self.active

    def reset_mapped_irq(self, vcpu_id: int, intid: int) -> None:
        self.resets.append(intid)
        self.active.discard(intid)
        self.level[intid] = False


class Machine:
    """One PE, one vCPU, its timers, a physical GIC reduced to one PPI, and a guest that handles
    interrupts.

    Guest registers go the way they go on an nVHE host: CNTV_* to the hardware, CNTP_* by trap.
    """

    def __init__(
        self, frequency: int = 1_000_000_000, which: str = "vtimer", load: bool = True
    ) -> None:
        self.clock, self.bus, self.vgic = Clock(), EventBus(), FakeVgic()
        self.line = self.phys_active = False
        self.exits = self.wakes = 0
        self.hw = self.new_pe(frequency)
        self.vm_data = ArchTimerVmData(SystemCounter(self.clock, frequency))
        self.timer = ArchTimer(
            self.vm_data, VCPU, self.clock, self.vgic, self.set_phys_active, self.wake, bus=self.bus
        )
        self.use(which)
        if load:
            self.timer.enable()
            self.timer.vcpu_load(self.hw)

    def use(self, which: str) -> None:
        self.which = which
        virtual = which == "vtimer"
        self.id = TimerId.VTIMER if virtual else TimerId.PTIMER
        self.context = self.timer.cpu.vtimer if virtual else self.timer.cpu.ptimer
        self.intid = 27 if virtual else 30
        letter = "V" if virtual else "P"
        self.ctl, self.cval, self.tval = (
            vars(arch)[f"CNT{letter}_{r}_EL0"] for r in ("CTL", "CVAL", "TVAL")
        )
        self.cnt = arch.CNTVCT_EL0 if virtual else arch.CNTPCT_EL0
        self.cnt_one_reg = (
            arch.CNTV_CVAL_EL0 if virtual else arch.CNTPCT_EL0
        )  # swapped for the virtual timer

    def new_pe(self, frequency: int) -> GenericTimer:
        return GenericTimer(self.clock, frequency, self._line, self.bus)

    def _line(self, name: str, level: bool) -> None:
        if name == "vtimer":
            self.line = level

    def set_phys_active(self, host_intid: int, active: bool) -> None:
        assert host_intid == HOST_VTIMER
        self.phys_active = active

    def wake(self) -> None:
        self.wakes += 1

    # The guest -----------------------------------------------------------------------------------

    def read(self, encoding: int) -> int:
        return (
            self.timer.trap(encoding, False)
            if self.hw.traps_to_el2(encoding)
            else self.hw.read(encoding)
        )

    def write(self, encoding: int, value: int) -> None:
        if self.hw.traps_to_el2(encoding):
            self.timer.trap(encoding, True, value)
        else:
            self.hw.write(encoding, value)
        self.fold()
        self.host()

    def fold(self) -> None:
        """The vGIC folds its list registers: a mapped interrupt that is still pending has its line
        sampled, and a line that fell under it takes the physical active state along (KVM does this
        at the next exit)."""
        if (
            self.pending()
            and self.intid in self.vgic.mapped
            and not self.vgic.mapped[self.intid][1]()
        ):
            self.vgic.level[self.intid] = self.phys_active = False

    def now(self) -> int:
        return self.read(self.cnt)

    def pending(self) -> bool:
        return self.vgic.level.get(self.intid, False) and self.intid not in self.vgic.active

    def take(self) -> None:
        """The guest acknowledges its interrupt, checking what the selftest's handler checks."""
        assert self.pending()
        status = self.read(self.ctl) & (CTL_ENABLE | CTL_ISTATUS)
        assert (self.now() >= self.read(self.cval)) == (status == CTL_ENABLE | CTL_ISTATUS)
        self.vgic.active.add(self.intid)
        if self.intid in self.vgic.mapped:
            self.vgic.level[self.intid] = False  # lowered when the list register was filled

    def eoi(self) -> None:
        """The guest ends it: a mapped interrupt is deactivated on the host too, and the host looks
        again."""
        self.vgic.active.remove(self.intid)
        if self.intid in self.vgic.mapped:
            self.phys_active = False
        self.host()

    def handle(self) -> None:
        """Take, mask and disable, end: as the selftest's handler does."""
        self.take()
        self.write(self.ctl, CTL_IMASK)
        self.eoi()

    # The host ------------------------------------------------------------------------------------

    def host(self) -> None:
        """Deliver the physical interrupt if it is deliverable."""
        if self.line and not self.phys_active:
            self.phys_active = True
            self.exits += 1
            self.timer.host_irq(HOST_VTIMER)

    def advance(self, ns: int) -> None:
        """Let virtual time pass from deadline to deadline, as the run loop does."""
        until = self.clock.now + ns
        while True:
            dues = [
                d
                for d in (self.clock.deadline(), self.hw.deadline())
                if d is not None and d <= until
            ]
            self.clock.advance_to(min(dues, default=until))
            self.hw.update()
            self.clock.run_due()
            self.fold()  # a count that rolls over lets a line fall
            self.host()
            if not dues:
                return

    def migrate(self) -> None:
        """Move the vCPU to another PE."""
        self.timer.vcpu_put()
        assert not self.line
        self.hw = self.new_pe(self.hw.frequency_hz)
        self.timer.vcpu_load(self.hw)
        self.host()

    def user_set_count(self, count: int) -> None:
        """User space moves the counter between two runs."""
        self.timer.vcpu_put()
        self.timer.set_one_reg(self.cnt_one_reg, count)
        self.timer.vcpu_load(self.hw)
        self.host()


@pytest.fixture(params=["vtimer", "ptimer"])
def m(request: pytest.FixtureRequest) -> Machine:
    return Machine(which=request.param)


# Pure decisions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ctl", "can"), [(0, False), (1, True), (2, False), (3, False), (5, True), (7, False)]
)
def test_timer_can_fire(ctl: int, can: bool) -> None:
    assert arch_timer.timer_can_fire(ctl) is can


@given(st.integers(0, 3), st.integers(0, MASK64), st.integers(0, MASK64))
def test_timer_should_fire(ctl: int, cval: int, now: int) -> None:
    assert arch_timer.timer_should_fire(ctl, cval, now) is (ctl == 1 and now >= cval)


def test_timer_map_of_an_nvhe_host() -> None:
    timer = Machine().timer
    assert timer.map == (timer.cpu.vtimer, None, None, timer.cpu.ptimer)


# Offsets and counters ---------------------------------------------------------------------------


def test_the_virtual_count_starts_at_zero_at_creation() -> None:
    machine = Machine()
    assert machine.read(arch.CNTVCT_EL0) == 0
    assert machine.read(arch.CNTPCT_EL0) == COUNTER_START


def test_a_vm_that_is_created_late_or_with_a_start_of_its_own() -> None:
    clock = Clock()
    clock.advance_to(5000)
    counter = SystemCounter(clock, 1_000_000_000)
    assert counter.count() - ArchTimerVmData(counter).voffset == 0
    assert counter.count() - ArchTimerVmData(counter, 777).voffset == 777
    assert ArchTimerVmData(counter, MASK64).voffset == counter.count() + 1


def test_all_vcpus_share_the_offset() -> None:
    machine = Machine()
    other = ArchTimer(
        machine.vm_data,
        1,
        machine.clock,
        machine.vgic,
        machine.set_phys_active,
        machine.wake,
        name="other",
    )
    machine.vm_data.set_count(TimerId.VTIMER, 99)
    assert (
        other.get_one_reg(arch.CNTV_CVAL_EL0) == machine.timer.get_one_reg(arch.CNTV_CVAL_EL0) == 99
    )
    assert machine.read(arch.CNTVCT_EL0) == 99


def test_set_counter_offset_moves_both_and_freezes_cnt() -> None:
    machine = Machine()
    machine.vm_data.set_counter_offset(1000)
    assert machine.read(arch.CNTVCT_EL0) == machine.read(arch.CNTPCT_EL0) == COUNTER_START - 1000
    machine.timer.set_one_reg(arch.CNTV_CVAL_EL0, 5)
    machine.timer.set_one_reg(arch.CNTPCT_EL0, 5)
    assert machine.read(arch.CNTVCT_EL0) == machine.read(arch.CNTPCT_EL0) == COUNTER_START - 1000


def test_the_physical_count_traps_only_while_it_is_offset() -> None:
    machine = Machine()
    assert not machine.hw.traps_to_el2(arch.CNTPCT_EL0)
    assert machine.hw.traps_to_el2(arch.CNTP_CTL_EL0)
    machine.vm_data.set_count(TimerId.PTIMER, 0)
    assert machine.hw.traps_to_el2(arch.CNTPCT_EL0)
    assert machine.timer.trap(arch.CNTPCT_EL0, False) == 0
    machine.timer.vcpu_put()
    assert not machine.hw.traps_to_el2(arch.CNTP_CTL_EL0), "the host uses its own timer"


# Lifecycle --------------------------------------------------------------------------------------


def test_enable_maps_the_virtual_timer_only_and_owns_both() -> None:
    machine = Machine()
    assert set(machine.vgic.mapped) == {27} and machine.vgic.mapped[27][0] == HOST_VTIMER
    assert set(machine.vgic.owners) == {27, 30}
    machine.timer.enable()  # a second first run changes nothing


def test_put_saves_and_stops_the_hardware(m: Machine) -> None:
    m.write(m.cval, 0x1234_5678_9ABC)
    m.write(m.ctl, CTL_ENABLE)
    m.timer.vcpu_put()
    assert m.hw.vtimer.ctl == m.hw.ptimer.ctl == 0 and m.hw.cntvoff == 0
    assert m.clock.deadline() is None
    m.timer.vcpu_load(m.hw)
    assert m.read(m.cval) == 0x1234_5678_9ABC
    assert m.read(m.ctl) & 3 == CTL_ENABLE


def test_put_twice_is_put_once() -> None:
    machine = Machine()
    machine.write(machine.cval, 5)
    machine.timer.vcpu_put()
    machine.timer.vcpu_put()
    assert machine.timer.get_one_reg(arch.CNTVCT_EL0) == 5


def test_restore_programs_offset_and_timer_as_one() -> None:
    machine = Machine()
    machine.write(machine.cval, 50)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    assert (machine.hw.vtimer.ctl, machine.hw.cntvoff) == (0, 0)
    machine.timer.vcpu_load(machine.hw)
    assert (machine.hw.vtimer.ctl, machine.hw.vtimer.cval) == (CTL_ENABLE, 50)
    assert machine.hw.cntvoff == machine.timer.vm_data.voffset


def test_time_passes_while_the_vcpu_is_put(m: Machine) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    m.timer.vcpu_put()
    m.clock.advance_to(m.clock.now + DEF)
    assert m.timer.is_pending()
    m.timer.vcpu_load(m.hw)
    assert m.pending()
    m.handle()
    assert not m.pending()


def test_loading_with_the_level_high_makes_the_host_interrupt_active_first() -> None:
    machine = Machine()
    machine.write(machine.tval, DEF)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    machine.clock.advance_to(DEF)
    exits = machine.exits
    machine.timer.vcpu_load(machine.hw)
    machine.host()
    assert machine.line and machine.phys_active
    assert machine.exits == exits, "an entry with the interrupt inactive would exit at once"


def test_loading_while_the_guest_handles_the_interrupt_keeps_it_active() -> None:
    machine = Machine()
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.take()
    machine.write(machine.ctl, CTL_IMASK)
    machine.migrate()
    assert machine.phys_active and not machine.line
    machine.eoi()
    assert not machine.phys_active


def test_loading_an_idle_timer_clears_what_another_vcpu_left() -> None:
    machine = Machine()
    machine.timer.vcpu_put()
    machine.phys_active = True
    machine.timer.vcpu_load(machine.hw)
    assert not machine.phys_active


def test_reset_turns_timers_off_and_keeps_cval(m: Machine) -> None:
    m.advance(10)
    m.write(m.cval, 3)
    m.write(m.ctl, CTL_ENABLE)
    assert m.pending()
    m.timer.vcpu_reset()
    assert m.read(m.ctl) & 3 == 0 and m.read(m.cval) == 3
    assert not m.pending() and not m.line and not m.phys_active
    assert m.vgic.resets == [27]
    assert m.clock.deadline() is None


def test_a_spurious_host_interrupt_is_deactivated() -> None:
    machine = Machine()
    machine.phys_active = True
    assert machine.timer.host_irq(HOST_VTIMER) is False
    assert not machine.phys_active and not machine.pending()


def test_host_interrupts_of_others_are_ignored() -> None:
    machine = Machine()
    assert machine.timer.host_irq(30) is False
    machine.timer.vcpu_put()
    assert machine.timer.host_irq(HOST_VTIMER) is False


def test_a_line_that_falls_before_it_is_taken_is_retracted() -> None:
    machine = Machine()
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    assert machine.pending() and machine.phys_active
    machine.write(machine.tval, DEF)
    assert not machine.pending() and not machine.phys_active
    machine.advance(DEF)
    assert machine.pending() and machine.exits == 2


def test_the_guest_gets_a_level_again_that_it_did_not_lower() -> None:
    machine = Machine()
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.take()
    machine.eoi()
    assert machine.exits == 2 and machine.pending()


def test_the_input_level_callback_samples_the_hardware() -> None:
    machine = Machine()
    _, level = machine.vgic.mapped[27]
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    assert level()
    machine.write(machine.ctl, CTL_IMASK)
    assert not level()


# Blocking ---------------------------------------------------------------------------------------


def block(machine: Machine) -> None:
    machine.timer.vcpu_put()
    machine.timer.blocking()


def test_a_blocked_vcpu_is_woken_at_the_exact_ns(m: Machine) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    assert m.clock.deadline() == DEF
    m.clock.advance_to(DEF - 1)
    m.clock.run_due()
    assert m.wakes == 0
    m.clock.advance_to(DEF)
    m.clock.run_due()
    assert m.wakes == 1 and m.timer.is_pending()
    m.timer.vcpu_load(m.hw)
    assert m.pending()


def test_the_earlier_of_both_timers_wakes() -> None:
    machine = Machine()
    for encoding, value in ((arch.CNTV_TVAL_EL0, 500), (arch.CNTP_TVAL_EL0, 300)):
        machine.write(encoding, value)
    machine.write(arch.CNTV_CTL_EL0, 1)
    machine.write(arch.CNTP_CTL_EL0, 1)
    block(machine)
    assert machine.clock.deadline() == 300


@pytest.mark.parametrize("ctl", [0, CTL_IMASK, CTL_ENABLE | CTL_IMASK])
def test_a_timer_that_cannot_fire_arms_nothing(m: Machine, ctl: int) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, ctl)
    block(m)
    assert m.clock.deadline() is None and not m.timer.is_pending()


def test_blocking_does_not_wait_for_a_timer_that_the_vgic_was_told_of(m: Machine) -> None:
    m.write(m.tval, 0)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    told = m.context.irq_level
    assert m.clock.deadline() == (None if told else m.clock.now)


def test_loading_and_unblocking_cancel_the_background_timer(m: Machine) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    m.timer.unblocking()
    assert m.clock.deadline() is None
    m.timer.blocking()
    m.timer.vcpu_load(m.hw)
    m.advance(DEF)
    assert m.wakes == 0


def test_a_background_timer_that_wakes_early_sleeps_on(m: Machine) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    m.timer._bg.start(5)
    m.clock.advance_to(5)
    m.clock.run_due()
    assert m.wakes == 0 and m.clock.deadline() == DEF


def test_moving_the_counter_moves_the_background_timer(m: Machine) -> None:
    m.timer.set_one_reg(m.cnt_one_reg, 0)
    m.write(m.cval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    m.timer.set_one_reg(m.cnt_one_reg, DEF - 7)
    assert m.clock.deadline() == 7
    m.timer.set_one_reg(m.cnt_one_reg, DEF)
    assert m.clock.deadline() is None and m.timer.is_pending() and m.context.irq_level


def cval_one_reg(m: Machine) -> int:
    return arch.CNTVCT_EL0 if m.which == "vtimer" else arch.CNTP_CVAL_EL0


def test_a_timer_that_the_vmm_starts_wakes_a_vcpu_that_waited_for_none(m: Machine) -> None:
    block(m)
    assert m.clock.deadline() is None
    m.timer.set_one_reg(cval_one_reg(m), m.timer.get_one_reg(m.cnt_one_reg) + DEF)
    m.timer.set_one_reg(m.ctl, CTL_ENABLE)
    assert m.clock.deadline() == DEF


def test_a_counter_that_is_moved_back_starts_the_background_timer(m: Machine) -> None:
    m.timer.set_one_reg(m.cnt_one_reg, DEF)
    m.write(m.cval, DEF - 7)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    m.timer.set_one_reg(m.cnt_one_reg, 0)
    assert m.clock.deadline() == DEF - 7 and not m.context.irq_level
    m.timer.unblocking()
    m.timer.set_one_reg(m.cnt_one_reg, 1)
    assert m.clock.deadline() is None, "who does not sleep has no background timer"


def test_a_level_that_fell_without_a_word_is_told_again_to_a_sleeping_vcpu(m: Machine) -> None:
    m.write(m.cval, 0)
    m.write(m.ctl, CTL_ENABLE)
    m.write(m.ctl, CTL_ENABLE | CTL_IMASK)
    assert not m.pending()
    block(m)
    m.timer.set_one_reg(m.ctl, CTL_ENABLE)
    assert m.pending()


def test_that_a_vcpu_sleeps_is_saved(m: Machine) -> None:
    block(m)
    m.timer.load(json.loads(json.dumps(m.timer.state())))
    m.timer.set_one_reg(m.ctl, CTL_ENABLE)
    m.timer.set_one_reg(cval_one_reg(m), m.timer.get_one_reg(m.cnt_one_reg) + DEF)
    assert m.clock.deadline() == DEF


# Traps ------------------------------------------------------------------------------------------


def test_trapped_reads_and_writes() -> None:
    machine = Machine(which="ptimer")
    trap = machine.timer.trap
    assert trap(arch.CNTP_CVAL_EL0, True, 1 << 63) == 0
    assert trap(arch.CNTP_CVAL_EL0, False) == 1 << 63
    trap(arch.CNTP_TVAL_EL0, True, -5 & 0xFFFF_FFFF)
    assert trap(arch.CNTP_CVAL_EL0, False) == COUNTER_START - 5
    assert trap(arch.CNTP_TVAL_EL0, False) == 0xFFFF_FFFB
    trap(arch.CNTP_CTL_EL0, True, 0xFF)
    assert trap(arch.CNTP_CTL_EL0, False) == CTL_ENABLE | CTL_IMASK | CTL_ISTATUS


def test_istatus_of_a_disabled_timer() -> None:
    """UNKNOWN. The guest reads the same of an emulated timer as of one on hardware; user space gets
    the condition, as in KVM."""
    for which in ("ptimer", "vtimer"):
        machine = Machine(which=which)
        machine.write(machine.cval, 0)
        assert machine.read(machine.ctl) == 0
        encoding = {"ptimer": arch.CNTP_CTL_EL0, "vtimer": arch.CNTV_CTL_EL0}[which]
        assert machine.timer.get_one_reg(encoding) == CTL_ISTATUS


@pytest.mark.parametrize("encoding", [arch.CNTFRQ_EL0, arch.CNTKCTL_EL1, 0xC000])
def test_registers_that_are_not_the_timers_are_undefined(encoding: int) -> None:
    with pytest.raises(KeyError):
        Machine().timer.trap(encoding, False)


@pytest.mark.parametrize("counter", [arch.CNTPCT_EL0, arch.CNTVCT_EL0])
def test_a_guest_cannot_write_counters(counter: int) -> None:
    with pytest.raises(KeyError):
        Machine().timer.trap(counter, True, 0)


def test_a_direct_timer_that_is_reached_by_trap_goes_through_save_and_restore() -> None:
    machine = Machine()
    machine.timer.trap(arch.CNTV_CVAL_EL0, True, 77)
    machine.timer.trap(arch.CNTV_CTL_EL0, True, CTL_ENABLE)
    assert (machine.hw.vtimer.cval, machine.hw.vtimer.ctl) == (77, CTL_ENABLE)
    assert machine.timer.trap(arch.CNTV_TVAL_EL0, False) == 77
    machine.timer.trap(arch.CNTV_TVAL_EL0, True, 9)
    assert machine.timer.trap(arch.CNTVCT_EL0, False) == 0 and machine.hw.vtimer.cval == 9


def test_a_trap_of_the_physical_timer_leaves_the_virtual_one_alone() -> None:
    machine = Machine()
    machine.write(arch.CNTV_TVAL_EL0, 0)
    machine.write(arch.CNTV_CTL_EL0, CTL_ENABLE)
    lines: list[object] = []

    def sink(_stamp: Stamp, event: Event) -> None:
        lines.append(event)

    machine.bus.subscribe(sink)
    machine.write(arch.CNTP_TVAL_EL0, 0)
    machine.write(arch.CNTP_CTL_EL0, CTL_ENABLE)
    machine.write(arch.CNTP_CTL_EL0, 0)
    assert lines == [
        TimerWrite("ptimer", "tval", 0),
        TimerWrite("ptimer", "ctl", 1),
        TimerLine("ptimer", 1),
        TimerWrite("ptimer", "ctl", 0),
        TimerLine("ptimer", 0),
    ]


# User space -------------------------------------------------------------------------------------


def test_one_reg_ids_of_cval_and_cnt_are_swapped_for_the_virtual_timer_only() -> None:
    machine = Machine()
    timer = machine.timer
    machine.timer.vcpu_put()
    timer.set_one_reg(0xDF02, 0x1111)  # KVM_REG_ARM_TIMER_CVAL
    timer.set_one_reg(0xDF1A, 0x2222)  # KVM_REG_ARM_TIMER_CNT
    timer.set_one_reg(0xDF19, 0x7)  # KVM_REG_ARM_TIMER_CTL
    timer.set_one_reg(0xDF12, 0x3333)
    timer.set_one_reg(0xDF01, 0x4444)
    timer.set_one_reg(0xDF11, 0x2)
    assert (timer.cpu.vtimer.cval, timer.now(timer.cpu.vtimer), timer.cpu.vtimer.ctl) == (
        0x1111,
        0x2222,
        3,
    )
    assert (timer.cpu.ptimer.cval, timer.now(timer.cpu.ptimer), timer.cpu.ptimer.ctl) == (
        0x3333,
        0x4444,
        2,
    )
    assert [timer.get_one_reg(e) for e in (0xDF02, 0xDF1A, 0xDF12, 0xDF01)] == [
        0x1111,
        0x2222,
        0x3333,
        0x4444,
    ]
    assert timer.get_one_reg(0xDF19) == 7  # ISTATUS is computed for the reader


@pytest.mark.parametrize("intid", [0, 15, 32, -1, 1020])
def test_a_timer_interrupt_must_be_a_ppi(intid: int) -> None:
    with pytest.raises(KvmError, match="EINVAL"):
        Machine().vm_data.set_ppi(TimerId.VTIMER, intid)


def test_timer_interrupts_are_fixed_after_the_first_run() -> None:
    with pytest.raises(KvmError, match="EBUSY"):
        Machine().vm_data.set_ppi(TimerId.VTIMER, 20)


def test_two_timers_on_one_ppi_fail_at_the_first_run_only() -> None:
    machine = Machine(load=False)
    machine.vm_data.set_ppi(TimerId.VTIMER, 30)
    with pytest.raises(KvmError, match="EINVAL: two timers share a PPI"):
        machine.timer.enable()


def test_another_ppi_is_used_everywhere() -> None:
    machine = Machine(load=False)
    machine.vm_data.set_ppi(TimerId.VTIMER, 20)
    machine.timer.enable()
    machine.timer.vcpu_load(machine.hw)
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    assert machine.vgic.level == {20: True} and 20 in machine.vgic.mapped


# The selftests' stages --------------------------------------------------------------------------


@pytest.mark.parametrize("migrate", [False, True])
@pytest.mark.parametrize("register", ["cval", "tval"])
@pytest.mark.parametrize("frequency", [1_000_000_000, 62_500_000, 24_000_000])
def test_one_interrupt_per_program(
    which_timer: str, register: str, frequency: int, migrate: bool
) -> None:
    machine = Machine(frequency, which_timer)
    for _ in range(5):
        period = 240
        start = machine.now()
        if register == "cval":
            machine.write(machine.cval, start + period)
        else:
            machine.write(machine.tval, period)
        machine.write(machine.ctl, CTL_ENABLE)
        if migrate:
            machine.migrate()
        machine.advance((period - 1) * 10**9 // frequency)
        assert not machine.pending()
        machine.advance(2 * 10**9 // frequency)
        assert machine.pending() and period <= machine.now() - start <= period + 2
        machine.handle()
        machine.advance(3 * period * 10**9 // frequency)
        assert not machine.pending()


@pytest.fixture(params=["vtimer", "ptimer"])
def which_timer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_tval_sanity(m: Machine) -> None:
    m.user_set_count(DEF)
    m.write(m.cval, m.now() - 1)
    for _ in range(2):
        assert m.read(m.tval) & INT32_MIN, "a deadline in the past is a negative TVAL"
        m.migrate()
    m.write(m.tval, 0xFFFF_FFFF)
    assert m.read(m.cval) == m.now() - 1
    m.write(m.cval, m.now() + TVAL_MAX + 100)
    assert m.read(m.tval) & INT32_MIN
    m.write(m.cval, m.now() + 2 * TVAL_MAX + 100)
    assert m.read(m.tval) == 98
    m.user_set_count(1000)
    m.write(m.tval, -10_000 & 0xFFFF_FFFF)
    assert m.read(m.cval) == 1000 - 10_000 & MASK64
    m.write(m.tval, 0)
    m.advance(3)
    assert m.read(m.tval) == -3 & 0xFFFF_FFFF


@pytest.mark.parametrize(
    "program", ["cval past", "tval past", "cval zero", "tval zero", "tval min"]
)
def test_past_deadlines_fire_at_once(m: Machine, program: str) -> None:
    m.user_set_count(INT32_MIN + DEF)
    register, kind = program.split()
    value = {"past": (m.now() if register == "cval" else 0) - DEF, "zero": 0, "min": INT32_MIN}[
        kind
    ]
    m.write(m.cval if register == "cval" else m.tval, value & MASK64)
    m.write(m.ctl, CTL_ENABLE)
    assert m.pending()
    m.handle()
    assert not m.pending()


@pytest.mark.parametrize(
    ("old", "register", "value", "new"),
    [
        (0, "cval", DEF, DEF + 1),
        (MASK64, "cval", 1, 2),
        (0, "tval", -1, DEF + 1),
        (0, "tval", -1, TVAL_MAX),
        (0, "tval", TVAL_MAX, TVAL_MAX + 1),
    ],
)
def test_moving_the_counter_ahead_of_the_timer_fires(
    m: Machine, old: int, register: str, value: int, new: int
) -> None:
    m.user_set_count(old)
    m.advance(1)  # the guest's program takes place a little after the counter was set
    m.write(m.cval if register == "cval" else m.tval, value & MASK64)
    m.write(m.ctl, CTL_ENABLE)
    m.user_set_count(new)
    assert m.pending()
    m.handle()
    m.advance(DEF)
    assert not m.pending()


@pytest.mark.parametrize(("register", "value"), [("cval", DEF - 1), ("tval", -1)])
@pytest.mark.parametrize("loaded", [False, True])
def test_moving_the_counter_back_retracts_a_high_line(
    m: Machine, register: str, value: int, loaded: bool
) -> None:
    m.user_set_count(DEF)
    m.write(m.cval if register == "cval" else m.tval, value & MASK64)
    m.write(m.ctl, CTL_ENABLE)
    assert m.pending()
    if loaded:
        m.timer.set_one_reg(m.cnt_one_reg, 0)
        m.host()
    else:
        m.user_set_count(0)
    assert not m.pending() and not m.phys_active
    m.advance(DEF - 2)
    assert not m.pending()
    m.advance(1)
    assert m.pending(), "the deadline is still there"


def test_the_counter_rolls_over_before_the_deadline() -> None:
    machine = Machine(which="ptimer")
    machine.user_set_count(0)
    machine.write(machine.cval, DEF)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    machine.timer.set_one_reg(machine.cnt_one_reg, MASK64)
    machine.clock.advance_to(machine.clock.now + 1)
    machine.timer.vcpu_load(machine.hw)
    assert machine.now() == 0 and not machine.pending()


def test_a_deadline_beyond_tval_max(m: Machine) -> None:
    m.user_set_count(0)
    m.write(m.cval, TVAL_MAX + DEF)
    m.write(m.ctl, CTL_ENABLE)
    m.advance(DEF)
    assert not m.pending()
    m.user_set_count(TVAL_MAX)
    m.advance(DEF - 1)
    assert not m.pending()
    m.advance(1)
    assert m.pending()


@pytest.mark.parametrize(("first", "second"), [(5 * DEF, DEF), (DEF, 5 * DEF)])
def test_reprogramming_gives_one_interrupt(m: Machine, first: int, second: int) -> None:
    m.write(m.tval, first)
    m.write(m.ctl, CTL_ENABLE)
    start = m.now()
    m.write(m.tval, second)
    m.advance(second - 1)
    assert not m.pending()
    m.advance(1)
    assert m.pending() and m.now() >= start + second
    m.handle()
    m.advance(10 * DEF)
    assert not m.pending()


def test_fires_ten_times_by_ctl_alone(m: Machine) -> None:
    m.write(m.tval, 0)
    for _ in range(10):
        m.write(m.ctl, CTL_ENABLE)
        m.handle()
        assert not m.pending()


def test_a_masked_timer_that_is_past_fires_when_unmasked(m: Machine) -> None:
    m.advance(DEF)
    m.write(m.tval, -1 & 0xFFFF_FFFF)
    m.write(m.ctl, CTL_ENABLE | CTL_IMASK)
    m.advance(DEF)
    assert not m.pending()
    m.write(m.ctl, CTL_ENABLE)
    m.handle()
    assert not m.pending()


# Exactness, events, state -----------------------------------------------------------------------


@pytest.mark.parametrize("frequency", [62_500_000, 24_000_000, 999_999_937])
def test_deltas_are_exact_and_rounded_up(which_timer: str, frequency: int) -> None:
    machine = Machine(frequency, which_timer)
    machine.advance(17)
    machine.write(machine.tval, 3)
    machine.write(machine.ctl, CTL_ENABLE)
    context = machine.timer.cpu.vtimer if which_timer == "vtimer" else machine.timer.cpu.ptimer
    delta = machine.timer.compute_delta(context)
    machine.advance(delta - 1)
    assert not machine.timer.should_fire(context) and not machine.pending()
    machine.advance(1)
    assert machine.timer.should_fire(context) and machine.pending()


STEPS = ("tval", "ctl", "wait", "move", "back", "cval")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["vtimer", "ptimer"]),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 400)), max_size=15),
)
def test_putting_and_loading_anywhere_changes_nothing(
    which: str, steps: list[tuple[str, int]]
) -> None:
    """One machine stays loaded, the other migrates after every step: the guest sees the same."""
    still, moving = Machine(62_500_000, which), Machine(62_500_000, which)
    for kind, value in steps:
        for machine in (still, moving):
            if kind in ("tval", "ctl", "cval"):
                machine.write(getattr(machine, kind), value & 3 if kind == "ctl" else value)
            elif kind == "wait":
                machine.advance(value)
            else:
                machine.user_set_count(
                    machine.now() + (value if kind == "move" else -value) & MASK64
                )
        moving.migrate()
        views = [
            (m.pending(), m.read(m.ctl), m.read(m.cval), m.now(), m.line) for m in (still, moving)
        ]
        assert views[0] == views[1]
        context = still.timer.cpu.vtimer if which == "vtimer" else still.timer.cpu.ptimer
        assert still.pending() == still.timer.should_fire(context)


def test_two_vcpus_share_one_pe() -> None:
    machine = Machine()
    vgic = FakeVgic()
    other = ArchTimer(
        machine.vm_data,
        VCPU,
        machine.clock,
        vgic,
        machine.set_phys_active,
        machine.wake,
        name="second",
    )
    other.enable()
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    other.vcpu_load(machine.hw)
    machine.host()
    assert not machine.line and not machine.phys_active
    assert machine.hw.vtimer.ctl == 0 and not vgic.level.get(27)


class Armed(NamedTuple):
    which: str
    block: bool


@pytest.mark.parametrize("case", [Armed(w, b) for w in ("vtimer", "ptimer") for b in (False, True)])
def test_state_round_trip_with_an_armed_timer(case: Armed) -> None:
    machine = Machine(which=case.which)
    machine.write(machine.tval, DEF)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    if case.block:
        machine.timer.blocking()
    saved = json.loads(
        json.dumps([o.state() for o in (machine.clock, machine.vm_data, machine.timer)])
    )

    other = Machine(which=case.which, load=False)
    other.clock.load(saved[0])
    other.vm_data.load(saved[1])
    other.timer.load(saved[2])
    assert [o.state() for o in (other.clock, other.vm_data, other.timer)] == saved
    assert other.clock.deadline() == (DEF if case.block else None)
    other.timer.vcpu_load(other.hw)
    other.advance(DEF - 1)
    assert not other.pending()
    other.advance(1)
    assert other.pending()


def test_the_state_of_a_loaded_vcpu_is_the_guests_view() -> None:
    machine = Machine()
    machine.write(machine.cval, 12345)
    machine.write(machine.ctl, CTL_ENABLE)
    before = machine.timer.state()
    machine.timer.vcpu_put()
    assert machine.timer.state() == before and before["version"] == 1


def test_rows() -> None:
    machine = Machine()
    machine.write(machine.tval, 10)
    machine.write(machine.ctl, CTL_ENABLE)
    virtual, physical = machine.timer.rows()
    assert (virtual["timer"], virtual["ppi"], virtual["loaded"], virtual["fires_in_ns"]) == (
        "vtimer",
        27,
        True,
        10,
    )
    assert (physical["timer"], physical["ppi"], physical["fires_in_ns"]) == ("ptimer", 30, None)
