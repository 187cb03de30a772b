"""The life of an interrupt from injection to the guest's end of interrupt, rule by rule."""

from __future__ import annotations

import pytest
from vgic_rig import SPURIOUS, VTIMER, Rig

from armvirt.arch import gic as arch
from armvirt.arch.gic import ICC_REGISTERS, ListRegister
from armvirt.errors import KvmError
from armvirt.events import IccWrite, ListRegisterWrite, VgicInject

EDGE, LEVEL = 40, 50


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    for intid in (EDGE, LEVEL):
        rig.enable(intid)
    rig.configure(EDGE, level=False)
    rig.configure(LEVEL, level=True)
    return rig


# Edge and level ---------------------------------------------------------------------------------


def test_edge_is_delivered_once(rig: Rig) -> None:
    rig.pulse(EDGE)
    rig.pulse(EDGE)
    assert rig.serve() == EDGE and rig.serve() == SPURIOUS


def test_edge_while_active_is_delivered_again(rig: Rig) -> None:
    rig.pulse(EDGE)
    assert rig.ack() == EDGE
    assert not rig.pending(EDGE) and rig.active(EDGE)
    rig.pulse(EDGE)
    assert rig.pending(EDGE) and rig.ack() == SPURIOUS
    rig.eoi(EDGE)
    assert rig.serve() == EDGE and rig.serve() == SPURIOUS


def test_level_is_delivered_while_the_line_is_high(rig: Rig) -> None:
    rig.inject(LEVEL)
    assert [rig.serve(), rig.serve()] == [LEVEL, LEVEL]
    assert rig.ack() == LEVEL
    rig.inject(LEVEL, False)
    rig.eoi(LEVEL)
    assert rig.ack() == SPURIOUS and not rig.active(LEVEL)


def test_level_that_drops_before_the_acknowledge_is_retracted(rig: Rig) -> None:
    rig.inject(LEVEL)
    assert rig.vif(0).virq
    rig.inject(LEVEL, False)
    assert not rig.vif(0).virq and rig.ack() == SPURIOUS


def test_a_repeated_level_changes_nothing(rig: Rig) -> None:
    rig.inject(LEVEL)
    rig.vgic.inject(None, LEVEL, True)
    assert not rig.vgic.dirty(0)


def test_a_latched_level_interrupt_is_delivered_once(rig: Rig) -> None:
    rig.set_bit(0x200, LEVEL)
    assert rig.pending(LEVEL)
    assert rig.serve() == LEVEL and rig.serve() == SPURIOUS and not rig.pending(LEVEL)


def test_icpendr_cannot_clear_a_high_line(rig: Rig) -> None:
    rig.inject(LEVEL)
    rig.set_bit(0x280, LEVEL)
    assert rig.pending(LEVEL) and rig.serve() == LEVEL
    rig.pulse(EDGE)
    rig.set_bit(0x280, EDGE)
    assert rig.ack() == LEVEL, "the edge is gone, the line is not"


def test_level_in_a_list_register_asks_for_eoi_maintenance(rig: Rig) -> None:
    rig.inject(LEVEL)
    fields = ListRegister.decode(rig.vif(0).lr[0])
    assert fields.eoi and fields.pending and not fields.active
    rig.ack()
    rig.vgic.sync(0)
    rig.vgic.flush(0)
    assert not ListRegister.decode(rig.vif(0).lr[0]).pending, "level: never pending and active"


@pytest.mark.parametrize("intid", [96, 1020, 1024, 1120, 5120, 0xFFFF_FFFF, -1])
def test_intids_that_do_not_exist(rig: Rig, intid: int) -> None:
    with pytest.raises(KvmError, match="EINVAL"):
        rig.vgic.inject(0, intid, True)


def test_private_interrupts_need_a_vcpu(rig: Rig) -> None:
    for vcpu in (None, 7):
        with pytest.raises(KvmError, match="EINVAL"):
            rig.vgic.inject(vcpu, VTIMER, True)


def test_nothing_can_be_injected_before_init(rig: Rig) -> None:
    rig.vgic.dist.initialized = False
    with pytest.raises(KvmError, match="EBUSY"):
        rig.vgic.inject(None, EDGE, True)


@pytest.mark.parametrize("nr_irqs", [64, 1024])
def test_the_number_of_interrupts_bounds_the_intids(nr_irqs: int) -> None:
    rig = Rig(nr_irqs=nr_irqs)
    last = min(nr_irqs, 1020) - 1
    rig.enable(last)
    rig.pulse(last)
    assert rig.serve() == last
    with pytest.raises(KvmError, match="EINVAL"):
        rig.vgic.inject(None, last + 1, True)


# Enables ----------------------------------------------------------------------------------------


def test_a_disabled_interrupt_waits(rig: Rig) -> None:
    rig.disable(EDGE)
    rig.pulse(EDGE)
    assert rig.pending(EDGE) and rig.ack() == SPURIOUS
    rig.enable(EDGE)
    assert rig.serve() == EDGE


def test_disabling_recalls_it_from_the_list_register(rig: Rig) -> None:
    rig.pulse(EDGE)
    rig.disable(EDGE)
    assert rig.ack() == SPURIOUS and rig.pending(EDGE)
    rig.enable(EDGE)
    assert rig.serve() == EDGE and rig.serve() == SPURIOUS


def test_a_disabled_active_interrupt_does_not_pend_again(rig: Rig) -> None:
    rig.pulse(EDGE)
    rig.ack()
    rig.disable(EDGE)
    rig.pulse(EDGE)
    rig.eoi(EDGE)
    assert rig.ack() == SPURIOUS and rig.pending(EDGE) and not rig.active(EDGE)


def test_the_distributor_gates_pending_but_not_active(rig: Rig) -> None:
    rig.pulse(EDGE)
    rig.ack()
    rig.inject(LEVEL)
    rig.dist.write(0, 0, 4, 0)
    rig.settle()
    assert rig.active(EDGE) and rig.ack() == SPURIOUS
    rig.eoi(EDGE)
    assert not rig.active(EDGE)
    rig.pulse(EDGE)
    rig.kicked.clear()
    rig.dist.write(0, 0, 4, 2)
    rig.settle()
    assert 0 in rig.kicked
    assert sorted([rig.serve(), rig.ack()]) == [EDGE, LEVEL]


# Priorities and list registers ------------------------------------------------------------------


@pytest.mark.parametrize("eoimode", [0, 1])
@pytest.mark.parametrize("list_registers", [1, 2, 4])
def test_more_interrupts_than_list_registers(eoimode: int, list_registers: int) -> None:
    rig = Rig(list_registers=list_registers)
    rig.icc(0, "CTLR", arch.CTLR_EOIMODE * eoimode)
    intids = list(range(40, 52))
    for intid in intids:
        rig.configure(intid, level=False)
        rig.set_priority(intid, 0xF0 - (intid - 40) * 8)
        rig.enable(intid)
    for intid in intids:
        rig.pulse(intid)
    served = []
    while (intid := rig.ack()) != SPURIOUS:
        served.append(intid)
        rig.eoi(intid)
        if eoimode:
            rig.dir(intid)
    assert served == intids[::-1]
    assert not any(rig.active(intid) for intid in intids)


@pytest.mark.parametrize("eoimode", [0, 1])
@pytest.mark.parametrize("level", [False, True])
def test_more_nested_interrupts_than_list_registers(eoimode: int, level: bool) -> None:
    """Active interrupts overflow: EOIcount brings them back with EOImode 0, a trap of DIR with
    EOImode 1."""
    rig = Rig(list_registers=2)
    rig.icc(0, "CTLR", arch.CTLR_EOIMODE * eoimode)
    intids = list(range(40, 47))
    for n, intid in enumerate(intids):
        rig.configure(intid, level)
        rig.set_priority(intid, 0xC0 - n * 8)
        rig.enable(intid)
        rig.inject(intid)
        assert rig.ack() == intid
    assert all(rig.active(intid) for intid in intids)
    for intid in reversed(intids):
        if level:
            rig.inject(intid, False)
        rig.eoi(intid)
        if eoimode:
            rig.dir(intid)
        assert not rig.active(intid)
    assert rig.icc(0, "AP1R0") == 0 and rig.ack() == SPURIOUS


def test_a_disabled_group_yields_its_list_register() -> None:
    rig = Rig(list_registers=2)
    for intid in (40, 41, 42):
        rig.enable(intid)
    for intid in (40, 41):
        rig.set_priority(intid, 0x10)
    rig.set_priority(42, 0x80)
    rig.dist.write(0, 0x84, 4, 1 << 10)  # 42 in group 1, 40 and 41 in group 0, which is off
    for intid in (40, 41, 42):
        rig.pulse(intid)
    assert rig.serve() == 42
    rig.icc(0, "IGRPEN0", 1)
    assert rig.vif(0).vfiq and rig.icc(0, "IAR0") in (40, 41)


def test_a_new_group_enable_refills_the_list_registers() -> None:
    rig = Rig(list_registers=1)
    rig.enable(40)
    rig.enable(41)
    rig.set_priority(40, 0x10)
    rig.set_priority(41, 0x80)
    rig.dist.write(0, 0x84, 4, 1 << 9)
    rig.pulse(40)
    rig.pulse(41)
    rig.icc(0, "IGRPEN0", 1)
    assert rig.vif(0).vfiq, "group 0 was switched on: its more urgent interrupt takes over"
    assert rig.icc(0, "IAR0") == 40


def test_a_priority_change_reaches_the_list_register(rig: Rig) -> None:
    rig.set_priority(LEVEL, 0x80)
    rig.set_priority(EDGE, 0x88)
    rig.pulse(EDGE)
    rig.inject(LEVEL)
    rig.set_priority(EDGE, 0x40)
    assert rig.ack() == EDGE


def test_only_five_priority_bits_exist(rig: Rig) -> None:
    rig.set_priority(EDGE, 0xFF)
    assert rig.dist.read(0, 0x400 + EDGE, 1) == 0xF8
    rig.pulse(EDGE)
    assert rig.ack() == SPURIOUS, "the lowest priority is never below the mask"


# Several vCPUs ----------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Rig:
    rig = Rig(vcpus=2)
    rig.configure(EDGE, level=False)
    rig.enable(EDGE)
    return rig


def test_a_pending_interrupt_follows_its_route(pair: Rig) -> None:
    pair.pulse(EDGE)
    assert pair.vif(0).virq
    pair.route(EDGE, 1)
    assert not pair.vif(0).virq and pair.serve(1) == EDGE and pair.ack(0) == SPURIOUS


def test_an_active_interrupt_stays_where_it_is(pair: Rig) -> None:
    pair.pulse(EDGE)
    assert pair.ack(0) == EDGE
    pair.route(EDGE, 1)
    pair.pulse(EDGE)
    assert pair.ack(1) == SPURIOUS
    pair.eoi(EDGE, 0)
    assert pair.ack(0) == SPURIOUS and pair.serve(1) == EDGE


def test_a_route_to_nobody_keeps_it_pending(pair: Rig) -> None:
    pair.route(EDGE, 9)
    pair.pulse(EDGE)
    assert pair.pending(EDGE) and pair.ack(0) == pair.ack(1) == SPURIOUS
    pair.route(EDGE, 1)
    assert pair.serve(1) == EDGE


def test_it_leaves_a_vcpu_that_is_not_loaded_at_once(pair: Rig) -> None:
    pair.put(0)
    pair.pulse(EDGE)
    pair.route(EDGE, 1)
    assert pair.serve(1) == EDGE and not pair.vgic.pending(0)


@pytest.mark.parametrize("active_elsewhere", [False, True])
def test_dir_from_another_vcpu(pair: Rig, active_elsewhere: bool) -> None:
    for vcpu in (0, 1):
        pair.icc(vcpu, "CTLR", arch.CTLR_EOIMODE)
    pair.pulse(EDGE)
    pair.ack(0)
    pair.eoi(EDGE, 0)
    pair.dir(EDGE, int(active_elsewhere))
    assert not pair.active(EDGE)
    pair.pulse(EDGE)
    assert pair.serve(0) == EDGE


def test_dir_trap_is_ignored_with_eoimode_0_and_for_what_does_not_exist(pair: Rig) -> None:
    pair.pulse(EDGE)
    pair.ack(0)
    pair.vgic.dir(0, EDGE)
    assert pair.active(EDGE)
    pair.icc(0, "CTLR", arch.CTLR_EOIMODE)
    for intid in (500, 1019, 1023, 8192):
        pair.vgic.dir(0, intid)


def sgi(targets: int, intid: int = 5, irm: int = 0, aff1: int = 0) -> int:
    return targets | aff1 << 16 | intid << 24 | irm << 40


def test_sgi_to_a_list_of_targets() -> None:
    rig = Rig(vcpus=3)
    rig.icc(0, "SGI1R", sgi(0b101))
    assert [rig.serve(n) for n in range(3)] == [5, SPURIOUS, 5]
    rig.icc(0, "SGI1R", sgi(0b10, aff1=1))
    assert rig.serve(1) == SPURIOUS


def test_sgi_to_all_others() -> None:
    rig = Rig(vcpus=3)
    rig.icc(1, "SGI1R", sgi(0, irm=1))
    assert [rig.serve(n) for n in range(3)] == [5, SPURIOUS, 5]


@pytest.mark.parametrize(("name", "group", "taken"), [
    ("SGI1R", 1, True), ("SGI0R", 1, False), ("ASGI1R", 1, False),
    ("SGI1R", 0, True), ("SGI0R", 0, True), ("ASGI1R", 0, True),
])  # fmt: skip
def test_the_group_of_the_target_filters_sgis(name: str, group: int, taken: bool) -> None:
    rig = Rig()
    rig.redist.write(0, 0x1_0080, 4, 0xFFFF_FFFF * group)
    rig.icc(0, name, sgi(1))
    assert rig.pending(5) == taken


@pytest.mark.parametrize(("name", "value", "targets"), [
    ("SGI1R", sgi(0b11), [0, 1]), ("SGI1R", sgi(0), [-1]), ("SGI1R", sgi(1, aff1=1), [-1]), ("SGI0R", sgi(1), [-1]),
])  # fmt: skip
def test_an_sgi_is_an_event_for_each_target_or_for_nobody(
    name: str, value: int, targets: list[int]
) -> None:
    rig, seen = Rig(vcpus=2), []
    rig.bus.subscribe(lambda _, event: seen.append(event))
    rig.icc(0, name, value)
    assert [event for event in seen if event.kind != "lr"] == [
        IccWrite(f"ICC_{name}_EL1", value), *(VgicInject(5, 1, target) for target in targets)
    ]  # fmt: skip


def test_dispatch_is_by_encoding() -> None:
    rig = Rig()
    rig.vgic.sgi(0, ICC_REGISTERS["ICC_SGI1R_EL1"], sgi(1))
    assert rig.vgic.dirty(0) and rig.vgic.pending(0)


# The end of an interrupt whose priority is not what it was --------------------------------------


@pytest.mark.parametrize("list_registers", [1, 4])
def test_a_priority_that_is_changed_while_it_is_active(list_registers: int) -> None:
    """Whether the change reaches an active interrupt is IMPLEMENTATION DEFINED; its end deactivates
    it in any case."""
    rig = Rig(list_registers=list_registers)
    for intid, priority in ((EDGE, 0x80), (EDGE + 1, 0x40), (EDGE + 2, 0x20)):
        rig.enable(intid)
        rig.set_priority(intid, priority)
        rig.pulse(intid)
        assert rig.ack() == intid
    rig.set_priority(EDGE, 0xA0)
    rig.set_priority(EDGE + 1, 0x10)
    for intid in (EDGE + 2, EDGE + 1, EDGE):
        rig.eoi(intid)
        assert not rig.active(intid)
    rig.pulse(EDGE)
    assert rig.icc(0, "RPR") == 0xFF and rig.ack() == EDGE and rig.icc(0, "RPR") == 0xA0


def test_what_pends_again_has_the_new_priority(rig: Rig) -> None:
    rig.set_priority(EDGE, 0x80)
    rig.pulse(EDGE)
    assert rig.ack() == EDGE
    rig.pulse(EDGE)
    rig.set_priority(EDGE, 0x40)
    rig.eoi(EDGE)
    assert rig.ack() == EDGE and rig.icc(0, "RPR") == 0x40


def test_a_binary_point_that_is_changed_while_it_is_active_outside() -> None:
    """The bit that is dropped is that of the acknowledge, which the present binary point does not
    lead to."""
    rig = Rig(list_registers=1)
    for intid, priority in ((EDGE, 0x98), (EDGE + 1, 0xC0)):
        rig.enable(intid)
        rig.set_priority(intid, priority)
        rig.pulse(intid)
    assert rig.ack() == EDGE
    rig.icc(0, "BPR1", 7)
    rig.put(0)
    rig.load(0, 0)
    rig.settle()
    assert rig.vgic.dist.cpu(0).outside[0].intid == EDGE
    rig.eoi(EDGE)
    assert not rig.active(EDGE) and rig.ack() == EDGE + 1


# WFI --------------------------------------------------------------------------------------------


def test_wfi_ends_for_what_is_pending_and_above_the_mask(rig: Rig) -> None:
    assert not rig.vgic.pending(0)
    rig.set_priority(EDGE, 0x80)
    rig.pulse(EDGE)
    assert rig.vgic.pending(0)
    rig.icc(0, "PMR", 0x80)
    assert not rig.vgic.pending(0)
    rig.icc(0, "PMR", 0xF0)
    rig.icc(0, "IGRPEN1", 0)
    assert rig.vgic.pending(0), "group enables are not considered"
    rig.icc(0, "IGRPEN1", 1)
    rig.ack()
    assert not rig.vgic.pending(0)


def test_wfi_of_a_vcpu_that_is_not_loaded(rig: Rig) -> None:
    rig.put(0)
    rig.vgic.inject(None, EDGE, True)
    assert rig.vgic.pending(0) and rig.kicked[-1] == 0


# Mapped interrupts ------------------------------------------------------------------------------


class Timer:
    """A mapped vtimer: a line into the physical GIC, and the host's handler."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.line, self.owner = rig, False, object()
        rig.gic.enable(0, VTIMER, True)
        rig.vgic.set_owner(0, VTIMER, self.owner)
        rig.vgic.map_phys_irq(0, VTIMER, VTIMER, lambda: self.line)
        rig.enable(VTIMER)

    def set(self, level: bool) -> None:
        self.line = level
        self.rig.gic.set_line(0, VTIMER, level)
        self.host()

    def host(self) -> None:
        if self.rig.gic.deliverable(0):
            assert self.rig.gic.acknowledge(0) == VTIMER
            self.rig.vgic.inject(0, VTIMER, True, self.owner)
        self.rig.settle()


@pytest.fixture
def timer() -> Timer:
    return Timer(Rig())


def test_a_mapped_interrupt_goes_in_as_hardware(timer: Timer) -> None:
    timer.set(True)
    fields = ListRegister.decode(timer.rig.vif(0).lr[0])
    assert fields.pintid == VTIMER and fields.pending and not fields.eoi
    assert timer.rig.gic.is_active(0, VTIMER)


def test_deactivation_by_the_guest_lets_the_host_interrupt_fire_again(timer: Timer) -> None:
    rig = timer.rig
    timer.set(True)
    assert rig.ack() == VTIMER and rig.vgic.is_active(0, VTIMER)
    rig.eoi(VTIMER)
    assert rig.gic.deliverable(0), "the line is still high"
    timer.host()
    assert rig.ack() == VTIMER
    timer.set(False)
    rig.eoi(VTIMER)
    assert (
        not rig.gic.is_active(0, VTIMER)
        and not rig.vgic.is_active(0, VTIMER)
        and rig.ack() == SPURIOUS
    )


def test_a_mapped_line_that_falls_before_the_acknowledge_is_retracted(timer: Timer) -> None:
    rig = timer.rig
    timer.set(True)
    timer.line = False
    rig.gic.set_line(0, VTIMER, False)
    assert rig.vgic.dirty(0), "nobody injects a falling line: it is found out"
    rig.settle()
    assert not rig.vif(0).virq and not rig.gic.is_active(0, VTIMER)
    timer.set(True)
    assert rig.serve() == VTIMER


def test_a_mapped_line_that_falls_outside_the_list_registers_is_not_offered() -> None:
    rig = Rig(list_registers=1)
    timer = Timer(rig)
    rig.set_priority(VTIMER, 0x80)
    rig.set_priority(40, 0x40)
    rig.configure(40, level=False)
    rig.enable(40)
    rig.pulse(40)
    timer.set(True)
    timer.line = False
    rig.gic.set_line(0, VTIMER, False)
    rig.dist.write(0, 0x280 + 4, 4, 1 << 40 % 32)
    rig.vgic.refresh(0)
    assert not rig.vif(0).virq and not rig.gic.is_active(0, VTIMER)
    timer.set(True)
    assert rig.serve() == VTIMER


def test_ispendr_of_an_active_mapped_interrupt_is_delivered_after_its_end(timer: Timer) -> None:
    rig = timer.rig
    timer.set(True)
    assert rig.ack() == VTIMER
    timer.set(False)
    rig.set_bit(0x200, VTIMER)
    rig.eoi(VTIMER)
    assert rig.serve() == VTIMER and rig.serve() == SPURIOUS and not rig.gic.is_active(0, VTIMER)


def test_an_injected_low_level_retracts_too(timer: Timer) -> None:
    timer.set(True)
    timer.line = False
    timer.rig.vgic.inject(0, VTIMER, False, timer.owner)
    assert timer.rig.vgic.dirty(0)


def test_a_stranger_cannot_inject_an_owned_interrupt(timer: Timer) -> None:
    timer.rig.inject(VTIMER, vcpu=0)
    assert timer.rig.ack() == SPURIOUS
    with pytest.raises(KvmError, match="EEXIST"):
        timer.rig.vgic.set_owner(0, VTIMER, object())
    with pytest.raises(KvmError, match="EINVAL"):
        timer.rig.vgic.set_owner(0, 3, timer.owner)


def test_a_line_that_falls_while_disabled_frees_the_host_interrupt(timer: Timer) -> None:
    rig = timer.rig
    timer.set(True)
    rig.disable(VTIMER)
    timer.set(False)
    rig.enable(VTIMER)
    assert rig.ack() == SPURIOUS and not rig.gic.is_active(0, VTIMER)
    timer.set(True)
    assert rig.serve() == VTIMER


def test_ispendr_of_a_mapped_interrupt_activates_the_host_one(timer: Timer) -> None:
    rig = timer.rig
    rig.set_bit(0x200, VTIMER)
    assert rig.gic.is_active(0, VTIMER) and rig.pending(VTIMER)
    assert rig.serve() == VTIMER and rig.serve() == SPURIOUS and not rig.gic.is_active(0, VTIMER)
    rig.set_bit(0x200, VTIMER)
    rig.set_bit(0x280, VTIMER)
    assert rig.ack() == SPURIOUS and not rig.gic.is_active(0, VTIMER)


def test_isactiver_of_a_mapped_interrupt_activates_the_host_one(timer: Timer) -> None:
    rig = timer.rig
    rig.set_bit(0x300, VTIMER)
    assert rig.gic.is_active(0, VTIMER) and rig.vgic.is_active(0, VTIMER)
    rig.set_bit(0x380, VTIMER)
    assert not rig.gic.is_active(0, VTIMER) and not rig.vgic.is_active(0, VTIMER)


def test_icactiver_of_a_mapped_interrupt_wakes_for_a_line_that_is_high(timer: Timer) -> None:
    rig = timer.rig
    timer.set(True)
    assert rig.ack() == VTIMER
    rig.put(0)
    rig.kicked.clear()
    rig.redist.write(0, 0x1_0380, 4, 1 << VTIMER)
    assert rig.vgic.pending(0) and rig.kicked == [0]
    rig.load(0, 0)
    rig.settle()
    assert rig.vif(0).lr[0] >> 62 == 1 and rig.gic.is_active(0, VTIMER)


def test_reset_forgets_what_a_mapped_interrupt_was_doing(timer: Timer) -> None:
    rig = timer.rig
    timer.set(True)
    rig.ack()
    rig.vgic.reset_mapped_irq(0, VTIMER)
    rig.settle()
    assert not rig.vgic.is_active(0, VTIMER) and not rig.vif(0).virq
    rig.vgic.reset_mapped_irq(0, EDGE)


def test_unmap(timer: Timer) -> None:
    timer.rig.vgic.unmap(0, VTIMER)
    timer.rig.vgic.inject(0, VTIMER, True, timer.owner)
    timer.rig.settle()
    assert ListRegister.decode(timer.rig.vif(0).lr[0]).pintid is None
    assert not timer.rig.vgic.is_active(0, VTIMER)


# The protocol around an entry -------------------------------------------------------------------


def test_acknowledge_and_end_need_no_sync(rig: Rig) -> None:
    rig.pulse(EDGE)
    rig.vif(0).icc_access(ICC_REGISTERS["ICC_IAR1_EL1"], False, 0, 1, True, True)
    rig.vif(0).icc_access(ICC_REGISTERS["ICC_EOIR1_EL1"], True, EDGE, 1, True, True)
    assert not rig.vgic.dirty(0)
    rig.pulse(EDGE)
    assert rig.serve() == EDGE


def test_flush_alone_folds_first(rig: Rig) -> None:
    rig.pulse(EDGE)
    rig.ack()
    rig.vgic.inject(None, LEVEL, True)
    rig.vgic.flush(0)
    states = {
        fields.vintid: fields.state_name
        for fields in map(ListRegister.decode, rig.vif(0).lr)
        if fields.vintid
    }
    assert states == {EDGE: "active", LEVEL: "pending"}


def test_put_and_load_on_another_pe() -> None:
    rig = Rig(vcpus=2)
    rig.enable(EDGE)
    rig.configure(EDGE, level=False)
    rig.icc(0, "BPR1", 5)
    rig.pulse(EDGE)
    rig.ack(0)
    rig.put(0)
    rig.put(1)
    assert (
        rig.vifs[0].lr == [0] * 4
        and rig.vifs[0].hcr == 0
        and rig.vifs[0].running_priority() == 0xFF
    )
    rig.load(0, 1)
    rig.load(1, 0)
    rig.settle()
    assert rig.icc(0, "BPR1") == 5 and rig.icc(0, "RPR") == 0 and rig.active(EDGE)
    rig.eoi(EDGE, 0)
    assert not rig.active(EDGE)


def test_events(rig: Rig) -> None:
    events: list[object] = []
    rig.bus.subscribe(lambda stamp, event: events.append(event))
    rig.inject(LEVEL)
    rig.pulse(EDGE)
    writes = [event for event in events if isinstance(event, ListRegisterWrite)]
    assert [event for event in events if isinstance(event, VgicInject)] == [
        VgicInject(LEVEL, 1, 0), VgicInject(EDGE, 1, 0)
    ]  # fmt: skip
    assert [(write.lr, write.intid) for write in writes] == [(0, LEVEL), (1, EDGE)], (
        "unchanged ones are not repeated"
    )


def test_reset_and_rows(rig: Rig) -> None:
    rig.inject(LEVEL)
    rig.ack()
    assert any(row["intid"] == LEVEL and row["lr"] == 0 for row in rig.vgic.rows())
    rig.put(0)
    rig.vgic.reset()
    fresh = Rig(enable=False)
    fresh.put(0)
    fresh.vgic.reset()
    assert rig.vgic.state() == fresh.vgic.state()


def test_state_round_trip_in_the_middle(rig: Rig) -> None:
    rig.pulse(EDGE)
    rig.ack()
    rig.inject(LEVEL)
    rig.pulse(EDGE)
    other = rig.clone()
    assert other.vgic.state() == rig.vgic.state()
    other.eoi(EDGE)
    assert sorted([other.serve(), other.ack()]) == [EDGE, LEVEL]
    with pytest.raises(ValueError, match="other vCPUs"):
        Rig(vcpus=2).vgic.load_state(rig.vgic.state())


@pytest.mark.parametrize("looks", [False, True])
def test_an_interrupt_that_comes_again_is_behind_what_waits(rig: Rig, looks: bool) -> None:
    """Of two with one priority the one that arrived first comes first, whether or not EL2 has seen
    the end of its first time."""
    rig.enable(EDGE)
    rig.enable(EDGE + 1)
    rig.pulse(EDGE)
    rig.pulse(EDGE + 1)
    assert rig.serve() == EDGE
    if looks:
        rig.vgic.sync(0)
        rig.vgic.flush(0)
    rig.pulse(EDGE)
    assert [rig.serve(), rig.serve(), rig.serve()] == [EDGE + 1, EDGE, SPURIOUS]


@pytest.mark.parametrize("looks", [False, True])
def test_a_mapped_level_that_rises_again_is_behind_what_waits(rig: Rig, looks: bool) -> None:
    line = True
    rig.vgic.map_phys_irq(0, VTIMER, VTIMER, lambda: line)
    rig.enable(VTIMER)
    rig.enable(EDGE)
    rig.inject(VTIMER, vcpu=0)
    assert rig.ack() == VTIMER
    rig.pulse(EDGE)
    line = False
    rig.eoi(VTIMER)
    if looks:
        rig.vgic.sync(0)
        rig.vgic.flush(0)
    line = True
    rig.inject(VTIMER, vcpu=0)
    assert [rig.serve(), rig.serve()] == [EDGE, VTIMER]


@pytest.mark.parametrize("looks", [False, True])
def test_equals_come_in_their_order_whoever_has_overflowed(looks: bool) -> None:
    """A mapped interrupt goes into a list register before others of its priority in no order but
    that of arrival."""
    rig, line = Rig(list_registers=4), False
    rig.vgic.map_phys_irq(0, VTIMER, VTIMER, lambda: line)
    for intid in (VTIMER, 40, 41, 42, 43):
        rig.enable(intid)
        rig.set_priority(intid, 0x80 if intid != 40 else 0)
    for intid in (41, 42, 43, 40):
        rig.pulse(intid)
    line = True
    rig.inject(VTIMER, vcpu=0)
    assert rig.serve() == 40
    if looks:
        rig.vgic.sync(0)
        rig.vgic.flush(0)
    assert [rig.serve() for _ in range(4)] == [41, 42, 43, VTIMER]


def test_the_end_of_what_was_made_inactive_by_hand_is_seen_at_once() -> None:
    """Else another one that runs at its priority by the next exit would be taken for it."""
    rig = Rig()
    rig.enable(EDGE)
    rig.pulse(EDGE)
    assert rig.ack() == EDGE
    rig.set_bit(0x380, EDGE)
    assert rig.vgic.dist.cpu(0).cleared and rig.vif(0).hcr & arch.ICH_HCR_LRENPIE
    rig.eoi(EDGE)
    assert not rig.vgic.dist.cpu(0).cleared and rig.vif(0).hcr == arch.ICH_HCR_EN
    assert rig.vgic.dist.spi(EDGE).acked is None  # type: ignore[union-attr]
