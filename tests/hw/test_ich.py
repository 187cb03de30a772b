"""The virtual CPU interface: one test for each rule of IHI 0069 that guests and hypervisors depend
on."""

from __future__ import annotations

import json

import pytest
from ich_guest import Guest

from armvirt.arch import gic as arch
from armvirt.arch.encoding import sysreg
from armvirt.arch.gic import ICC_REGISTERS, ICH_REGISTERS
from armvirt.events import Acknowledge, EndOfInterrupt, EventBus, IccWrite
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import ICC_BINDINGS, IccAction, VirtualCpuInterface

SPURIOUS = 1023


@pytest.fixture
def guest() -> Guest:
    return Guest()


# Acknowledge ------------------------------------------------------------------------------------


def test_group_1_is_signalled_as_irq_and_group_0_as_fiq(guest: Guest) -> None:
    guest.pend(0, 40, group=1)
    assert (guest.vif.virq, guest.vif.vfiq) == (True, False)
    guest.pend(0, 40, group=0)
    assert (guest.vif.virq, guest.vif.vfiq) == (False, True)


def test_iar_makes_it_active_and_raises_the_running_priority(guest: Guest) -> None:
    guest.pend(0, 40, 0x80)
    assert guest.read("RPR") == 0xFF
    assert guest.read("IAR1") == 40
    assert guest.lr(0).active and not guest.lr(0).pending
    assert guest.read("RPR") == 0x80 and guest.read("AP1R0") == 1 << (0x80 >> 3)
    assert not guest.vif.virq and guest.read("IAR1") == SPURIOUS


def test_the_most_urgent_wins_and_ties_go_to_the_lowest_list_register(guest: Guest) -> None:
    guest.pend(0, 40, 0x90)
    guest.pend(1, 41, 0x88)
    guest.pend(2, 42, 0x88)
    assert guest.read("HPPIR1") == 41 and guest.read("IAR1") == 41


def test_hppir_has_no_side_effect_and_ignores_the_mask(guest: Guest) -> None:
    guest.write("PMR", 0)
    guest.pend(0, 40)
    assert [guest.read("HPPIR1"), guest.read("HPPIR1"), guest.read("HPPIR0")] == [40, 40, SPURIOUS]
    assert guest.lr(0).pending


def test_the_other_groups_iar_is_spurious(guest: Guest) -> None:
    guest.pend(0, 40, group=0)
    assert guest.read("IAR1") == SPURIOUS and guest.read("IAR0") == 40
    assert guest.read("AP0R0") == 1 << 16 and guest.read("AP1R0") == 0


@pytest.mark.parametrize(("mask", "signalled"), [(0x80, False), (0x88, True), (0x78, False)])
def test_the_priority_mask_is_strict(guest: Guest, mask: int, signalled: bool) -> None:
    guest.pend(0, 40, 0x80)
    guest.write("PMR", mask)
    assert guest.vif.virq is signalled
    assert guest.read("IAR1") == (40 if signalled else SPURIOUS)


def test_priority_ff_is_never_signalled() -> None:
    guest = Guest(prebits=7)
    guest.pend(0, 40, 0xFF)
    assert guest.lr(0).priority == 0xFE, "seven priority bits: the lowest is RES0"
    guest = Guest()
    guest.pend(0, 40, 0xF8)
    assert not guest.vif.virq, "the mask 0xFF reads as 0xF8, which is not above 0xF8"


def test_a_disabled_group_is_invisible(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.write("IGRPEN1", 0)
    assert not guest.vif.virq and guest.read("HPPIR1") == SPURIOUS
    guest.write("IGRPEN1", 1)
    assert guest.vif.virq


def test_nothing_is_signalled_while_the_interface_is_off(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.vif.write_ich(ICH_REGISTERS["ICH_HCR_EL2"], 0)
    assert not guest.vif.virq and guest.read("IAR1") == SPURIOUS


def test_a_special_intid_in_a_list_register_vanishes(guest: Guest) -> None:
    guest.pend(0, 1021)
    assert guest.read("IAR1") == 1021 and not guest.lr(0).pending and guest.read("RPR") == 0xFF


def test_an_lpi_has_no_active_state(guest: Guest) -> None:
    guest.pend(0, 8192)
    assert guest.read("IAR1") == 8192 and not guest.lr(0).active and guest.read("RPR") == 0x80
    guest.write("EOIR1", 8192)
    assert guest.read("RPR") == 0xFF and guest.vif.hcr >> 27 == 0


# Preemption -------------------------------------------------------------------------------------


def test_nested_interrupts_unwind_in_reverse_order(guest: Guest) -> None:
    for n, priority in enumerate((0x80, 0x78, 0x70, 0x68)):
        guest.pend(n, 40 + n, priority)
        assert guest.read("IAR1") == 40 + n and guest.read("RPR") == priority
    for n, priority in ((3, 0x70), (2, 0x78), (1, 0x80), (0, 0xFF)):
        guest.write("EOIR1", 40 + n)
        assert guest.read("RPR") == priority
    assert guest.vif.elrsr == 0xF


def test_an_equal_priority_does_not_preempt(guest: Guest) -> None:
    guest.pend(0, 40, 0x80)
    guest.read("IAR1")
    guest.pend(1, 41, 0x80)
    assert not guest.vif.virq


def test_the_binary_point_groups_priorities(guest: Guest) -> None:
    guest.write("BPR1", 5)  # three bits of group priority: 0x80 and 0x98 are one group
    guest.pend(0, 40, 0x98)
    guest.read("IAR1")
    assert guest.read("RPR") == 0x80
    guest.pend(1, 41, 0x88)
    assert not guest.vif.virq
    guest.pend(1, 41, 0x78)
    assert guest.vif.virq


def test_binary_points_have_minimums_one_apart() -> None:
    for prebits in (5, 6, 7):
        guest = Guest(prebits=prebits)
        guest.write("BPR0", 0)
        guest.write("BPR1", 0)
        assert (guest.read("BPR0"), guest.read("BPR1")) == (7 - prebits, 8 - prebits)


def test_cbpr_makes_bpr0_rule_both_groups(guest: Guest) -> None:
    guest.write("BPR1", 6)
    guest.write("CTLR", arch.CTLR_CBPR)
    guest.write("BPR0", 4)
    guest.write("BPR1", 3)
    assert guest.read("BPR1") == 5
    guest.pend(0, 40, 0x98)
    guest.read("IAR1")
    assert guest.read("RPR") == 0x80
    guest.write("BPR0", 7)
    assert guest.read("BPR1") == 7, "BPR0 + 1 saturates"
    guest.write("CTLR", 0)
    assert guest.read("BPR1") == 6, "the write under CBPR was ignored"


# End of interrupt -------------------------------------------------------------------------------


def test_eoir_drops_and_deactivates(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.write("EOIR1", 40)
    assert guest.vif.lr[0] & arch.LR_STATE == 0 and guest.read("RPR") == 0xFF


def test_eoimode_1_needs_dir(guest: Guest) -> None:
    guest.write("CTLR", arch.CTLR_EOIMODE)
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.write("EOIR1", 40)
    assert guest.lr(0).active and guest.read("RPR") == 0xFF and guest.read("AP1R0") == 0
    guest.write("DIR", 40)
    assert not guest.lr(0).active


def test_dir_is_ignored_with_eoimode_0(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.write("DIR", 40)
    assert guest.lr(0).active and guest.vif.hcr >> 27 == 0


def test_eoir_of_what_is_in_no_list_register_is_counted(guest: Guest) -> None:
    guest.write("AP1R0", 1 << 4)
    guest.write("EOIR1", 99)
    assert guest.read("RPR") == 0xFF, "the priority drops whatever is written"
    assert guest.vif.hcr >> 27 == 1
    guest.write("CTLR", arch.CTLR_EOIMODE)
    guest.write("EOIR1", 99)
    assert guest.vif.hcr >> 27 == 1, "with EOImode 1 the write would not have deactivated anything"
    guest.write("DIR", 99)
    assert guest.vif.hcr >> 27 == 2


def test_special_intids_are_not_ended(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.write("EOIR1", SPURIOUS)
    assert guest.read("RPR") == 0x80 and guest.vif.hcr >> 27 == 0


def test_eoir_of_the_wrong_group_only_drops(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.write("EOIR0", 40)
    assert guest.read("RPR") == 0xFF and guest.lr(0).active


def test_eoir_out_of_order_only_drops(guest: Guest) -> None:
    guest.pend(0, 40, 0x80)
    guest.read("IAR1")
    guest.pend(1, 41, 0x40)
    guest.read("IAR1")
    guest.write("EOIR1", 40)
    assert guest.lr(0).active and guest.lr(1).active and guest.read("RPR") == 0x80


def test_pending_and_active_becomes_pending(guest: Guest) -> None:
    guest.pend(0, 40, active=True)
    guest.write("AP1R0", 1 << 16)
    assert not guest.vif.virq
    guest.write("EOIR1", 40)
    assert guest.lr(0).pending and guest.vif.virq


def test_a_hardware_list_register_deactivates_the_physical_interrupt(guest: Guest) -> None:
    guest.gic.set_active(0, 30, True)
    guest.pend(0, 27, pintid=30)
    assert guest.read("IAR1") == 27
    guest.write("EOIR1", 27)
    assert not guest.gic.is_active(0, 30)


def test_a_tie_between_the_groups_drops_group_0_first(guest: Guest) -> None:
    guest.write("AP0R0", 1 << 3)
    guest.write("AP1R0", 1 << 3)
    guest.write("EOIR1", 40)
    assert (guest.read("AP0R0"), guest.read("AP1R0")) == (0, 1 << 3)


def test_seven_preemption_bits_have_four_active_priority_registers() -> None:
    guest = Guest(prebits=7)
    guest.pend(0, 40, 0xC2)
    guest.read("IAR1")
    assert guest.read("AP1R3") == 1 << (0xC2 >> 1) % 32 and guest.read("RPR") == 0xC2


# Maintenance ------------------------------------------------------------------------------------


def hcr(guest: Guest, bits: int) -> None:
    guest.vif.write_ich(ICH_REGISTERS["ICH_HCR_EL2"], arch.ICH_HCR_EN | bits)


def test_eoi_maintenance(guest: Guest) -> None:
    guest.pend(1, 40, eoi=True)
    assert guest.vif.eisr == 0
    guest.read("IAR1")
    guest.write("EOIR1", 40)
    assert guest.vif.eisr == 2 and guest.vif.misr == arch.MISR_EOI and guest.vif.maintenance
    assert guest.vif.elrsr == 0b1101, "a list register that waits for maintenance is not free"


def test_underflow_maintenance(guest: Guest) -> None:
    hcr(guest, arch.ICH_HCR_UIE)
    assert guest.vif.misr == arch.MISR_U
    guest.pend(0, 40)
    assert guest.vif.maintenance
    guest.pend(1, 41)
    assert not guest.vif.maintenance


def test_no_pending_maintenance(guest: Guest) -> None:
    guest.pend(0, 40)
    hcr(guest, arch.ICH_HCR_NPIE)
    assert not guest.vif.maintenance
    guest.read("IAR1")
    assert guest.vif.misr == arch.MISR_NP


def test_lrenp_needs_both_the_enable_and_a_count(guest: Guest) -> None:
    hcr(guest, arch.ICH_HCR_LRENPIE)
    assert not guest.vif.maintenance
    guest.write("AP1R0", 1 << 4)
    guest.write("EOIR1", 99)
    assert guest.vif.misr == arch.MISR_LRENP


@pytest.mark.parametrize(
    ("bit", "register", "value", "cause"),
    [
        (arch.ICH_HCR_VGRP0EIE, "IGRPEN0", 1, arch.MISR_VGRP0E),
        (arch.ICH_HCR_VGRP0DIE, "IGRPEN0", 0, arch.MISR_VGRP0D),
        (arch.ICH_HCR_VGRP1EIE, "IGRPEN1", 1, arch.MISR_VGRP1E),
        (arch.ICH_HCR_VGRP1DIE, "IGRPEN1", 0, arch.MISR_VGRP1D),
    ],
)
def test_group_maintenance_watches_its_own_group(
    guest: Guest, bit: int, register: str, value: int, cause: int
) -> None:
    hcr(guest, bit)
    guest.write("IGRPEN0" if register == "IGRPEN1" else "IGRPEN1", value)
    guest.write(register, 1 - value)
    assert guest.vif.misr == 0
    guest.write(register, value)
    assert guest.vif.misr == cause


def test_maintenance_needs_the_interface_on(guest: Guest) -> None:
    guest.vif.program(arch.ICH_HCR_UIE, [])
    assert guest.vif.misr and not guest.vif.maintenance


# Access -----------------------------------------------------------------------------------------


def access(
    guest: Guest, name: str, write: bool, el: int = 1, imo: bool = True, fmo: bool = True
) -> IccAction:
    return guest.vif.icc_access(ICC_REGISTERS[name], write, 0, el, imo, fmo).action


@pytest.mark.parametrize("name", sorted(ICC_REGISTERS))
def test_everything_is_undefined_at_el0(guest: Guest, name: str) -> None:
    assert access(guest, name, False, el=0) is access(guest, name, True, el=0) is IccAction.UNDEF


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("ICC_IAR1_EL1", True),
        ("ICC_HPPIR0_EL1", True),
        ("ICC_RPR_EL1", True),
        ("ICC_EOIR1_EL1", False),
        ("ICC_DIR_EL1", False),
        ("ICC_SGI1R_EL1", False),
        ("ICC_SRE_EL2", False),
        ("ICC_AP1R1_EL1", False),
    ],
)
def test_wrong_directions_and_missing_registers_are_undefined(
    guest: Guest, name: str, write: bool
) -> None:
    assert access(guest, name, write) is IccAction.UNDEF


def test_unknown_encodings_are_undefined(guest: Guest) -> None:
    for encoding in (sysreg(3, 6, 12, 12, 4), ICH_REGISTERS["ICH_HCR_EL2"], sysreg(3, 0, 12, 9, 5)):
        assert guest.vif.icc_access(encoding, False, 0, 1, True, True).action is IccAction.UNDEF


@pytest.mark.parametrize("name", ["ICC_SGI0R_EL1", "ICC_SGI1R_EL1", "ICC_ASGI1R_EL1"])
def test_sgi_writes_always_trap(guest: Guest, name: str) -> None:
    assert access(guest, name, True) is IccAction.TRAP
    assert access(guest, name, True, imo=False) is IccAction.TRAP


@pytest.mark.parametrize(
    ("bit", "trapped", "free"),
    [
        (arch.ICH_HCR_TC, ["PMR", "RPR", "CTLR"], ["IAR0", "IAR1", "SRE"]),
        (arch.ICH_HCR_TALL0, ["IAR0", "HPPIR0", "BPR0", "AP0R0", "IGRPEN0"], ["IAR1", "PMR"]),
        (arch.ICH_HCR_TALL1, ["IAR1", "HPPIR1", "BPR1", "AP1R0", "IGRPEN1"], ["IAR0", "PMR"]),
    ],
)
def test_hypervisor_traps(guest: Guest, bit: int, trapped: list[str], free: list[str]) -> None:
    hcr(guest, bit)
    assert {access(guest, f"ICC_{name}_EL1", False) for name in trapped} == {IccAction.TRAP}
    assert {access(guest, f"ICC_{name}_EL1", False) for name in free} == {IccAction.DONE}


@pytest.mark.parametrize("bit", [arch.ICH_HCR_TC, arch.ICH_HCR_TDIR])
def test_dir_traps(guest: Guest, bit: int) -> None:
    hcr(guest, bit)
    assert access(guest, "ICC_DIR_EL1", True) is IccAction.TRAP


def test_routing_decides_which_group_is_virtual(guest: Guest) -> None:
    assert access(guest, "ICC_IAR1_EL1", False, fmo=False) is IccAction.DONE
    assert access(guest, "ICC_IAR0_EL1", False, fmo=False) is IccAction.UNDEF
    assert access(guest, "ICC_PMR_EL1", False, imo=False) is IccAction.DONE
    assert access(guest, "ICC_PMR_EL1", False, imo=False, fmo=False) is IccAction.UNDEF


def test_every_icc_register_of_el1_is_bound_once() -> None:
    names = [row.name for row in ICC_BINDINGS]
    assert sorted(names) == sorted(name for name in ICC_REGISTERS if name.endswith("_EL1"))


def test_control_registers_read_as_a_five_bit_interface(guest: Guest) -> None:
    assert guest.read("SRE") == 7 and guest.read("PMR") == 0xF8
    assert guest.read("CTLR") == arch.CTLR_RSS | arch.CTLR_A3V | 4 << arch.CTLR_PRIBITS_SHIFT
    guest.write("CTLR", 0xFFFF_FFFF)
    assert guest.read("CTLR") & 0xFF == 3
    guest.write("SRE", 0)
    assert guest.read("SRE") == 7


def test_ich_registers(guest: Guest) -> None:
    assert guest.vif.read_ich(ICH_REGISTERS["ICH_VTR_EL2"]) == 3 | 7 << 19 | 4 << 26 | 4 << 29
    vmcr = ICH_REGISTERS["ICH_VMCR_EL2"]
    guest.vif.write_ich(vmcr, 0)
    assert guest.vif.read_ich(vmcr) == arch.VMCR_VFIQEN | 3 << 18 | 2 << 21
    for name in ("ICH_LR4_EL2", "ICH_AP1R1_EL2"):
        with pytest.raises(KeyError):
            guest.vif.read_ich(ICH_REGISTERS[name])
    for name in ("ICH_VTR_EL2", "ICH_ELRSR_EL2", "ICH_MISR_EL2", "ICH_EISR_EL2", "ICH_LR15_EL2"):
        with pytest.raises(KeyError):
            guest.vif.write_ich(ICH_REGISTERS[name], 0)
    assert guest.vif.read_ich(ICH_REGISTERS["ICH_ELRSR_EL2"]) == 0xF


def test_the_shape_is_checked() -> None:
    with pytest.raises(ValueError, match="1 to 16 list registers"):
        VirtualCpuInterface(0, PhysicalGic(1), EventBus(), 17)


# Reports and state ------------------------------------------------------------------------------


def test_changes_of_outputs_are_reported_once(guest: Guest) -> None:
    seen: list[tuple[bool, bool]] = []
    guest.vif.on_change = lambda: seen.append((guest.vif.virq, guest.vif.maintenance))
    guest.pend(0, 40)
    guest.pend(1, 41)
    guest.read("IAR1")
    assert seen == [(True, False), (False, False)]


def test_events(guest: Guest) -> None:
    events: list[object] = []
    guest.write("CTLR", arch.CTLR_EOIMODE)
    guest.bus.subscribe(lambda stamp, event: events.append(event))
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.read("IAR1")
    guest.write("EOIR1", 40)
    guest.write("DIR", 40)
    assert events == [
        Acknowledge(40),
        Acknowledge(1023),
        EndOfInterrupt(40, "EOIR1"),
        EndOfInterrupt(40, "DIR"),
    ]


def test_state_round_trip(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.pend(2, 41, 0x40)
    guest.write("BPR1", 4)
    other = Guest()
    other.vif.load(json.loads(json.dumps(guest.vif.state())))
    assert (
        other.vif.state() == guest.vif.state()
        and other.vif.virq
        and other.vif.rows() == guest.vif.rows()
    )
    assert other.read("IAR1") == 41
    other.vif.reset()
    assert (
        other.vif.state() == VirtualCpuInterface(0, other.gic, other.bus).state()
        and not other.vif.virq
    )
    with pytest.raises(ValueError, match="another shape"):
        other.vif.load(Guest(list_registers=2).vif.state())


def test_control_registers_are_reported_when_written(guest: Guest) -> None:
    """Once each, as written; acknowledge and end of interrupt have their own events, and a read is
    none."""
    events: list[object] = []
    guest.write("PMR", 0x12)
    guest.bus.subscribe(lambda stamp, event: events.append(event))
    guest.write("PMR", 0xF1)
    guest.write("BPR1", 0)
    guest.read("PMR")
    assert events == [IccWrite("ICC_PMR_EL1", 0xF1), IccWrite("ICC_BPR1_EL1", 0)]
    guest.write("EOIR1", 40)
    assert events[2:] == [EndOfInterrupt(40, "EOIR1")]
