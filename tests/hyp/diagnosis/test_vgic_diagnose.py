"""The diagnosis names the first check that holds an interrupt back, what would change it, and
changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vgic_rig import QuietVm, Rig

from armvirt.arch.gic import VMCR_VFIQEN
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK
from armvirt.errors import KvmError
from armvirt.events import EventBus
from armvirt.hyp.diagnosis.finding import Check, CpuView, Finding, Register, TimerView, Write, span
from armvirt.hyp.diagnosis.trace import blocker, compare, first_held, trace
from armvirt.hyp.vcpu.power import Power
from armvirt.hyp.vgic import Vgic

EDGE, OTHER = 40, 41
UNMASKED, I_MASKED, EL1H = 0x5, 0x85, 5


def ready(vcpus: int = 2, list_registers: int = 4) -> Rig:
    rig = Rig(vcpus=vcpus, list_registers=list_registers)
    prepare(rig, EDGE, 0x80)
    rig.pulse(EDGE)
    return rig


def prepare(rig: Rig, intid: int, priority: int) -> None:
    rig.configure(intid, level=False)
    rig.enable(intid)
    rig.set_priority(intid, priority)


def active(rig: Rig) -> None:
    rig.ack()
    rig.pulse(EDGE)


def behind(rig: Rig) -> None:
    prepare(rig, OTHER, 0x40)
    rig.pulse(OTHER)
    rig.ack()


def pending_beside(rig: Rig) -> None:
    prepare(rig, OTHER, 0x40)
    rig.pulse(OTHER)


def overflow(rig: Rig) -> None:
    for intid in range(50, 54):
        prepare(rig, intid, 0x40)
        rig.pulse(intid)


def any_vcpu(rig: Rig) -> None:
    for vcpu in range(2):
        rig.icc(vcpu, "IGRPEN1", 0)
    rig.route(EDGE, 1 << 31)


def group0(rig: Rig) -> None:
    rig.dist.write(0, 0x84, 4, ~(1 << 8) & 0xFFFF_FFFF)
    rig.settle()


def low_priority(rig: Rig) -> None:
    rig.set_priority(EDGE, 0xF8)


def same_group_priority(rig: Rig) -> None:
    """0x90 and 0x80 are one group priority with binary point 5."""
    rig.icc(0, "BPR1", 5)
    prepare(rig, OTHER, 0x80)
    rig.set_priority(EDGE, 0x88)
    rig.pulse(OTHER)
    assert rig.ack() == OTHER


class Breakage(NamedTuple):
    """A way to hold EDGE back: the check that has to be named, a part of its text and its
    remedy."""

    do: Callable[[Rig], object]
    station: str
    text: str
    remedy: str
    view: CpuView = CpuView(pstate=UNMASKED)


BREAKAGES = {
    "served": Breakage(
        lambda rig: rig.serve(), "pending", "not pending", "write 1 to bit 8 of GICD_ISPENDR1 (GICD+0x204)"
    ),
    "handled": Breakage(lambda rig: rig.ack(), "pending", "active, and not pending again", "40 to ICC_EOIR1_EL1"),
    "disabled": Breakage(
        lambda rig: rig.disable(EDGE), "enable", "GICD_ISENABLER1 bit 8 is 0",
        "write 1 to bit 8 of GICD_ISENABLER1 (GICD+0x104)",
    ),
    "distributor": Breakage(
        lambda rig: rig.dist.write(0, 0, 4, 1), "distributor", "EnableGrp1 is 0",
        "set EnableGrp1 (bit 1) of GICD_CTLR (GICD+0x0)",
    ),
    "elsewhere": Breakage(lambda rig: rig.route(EDGE, 1), "route", "routed to vCPU 1", "write 0 to GICD_IROUTER40"),
    "nowhere": Breakage(lambda rig: rig.route(EDGE, 9), "route", "no such vCPU", "write 0 to GICD_IROUTER40"),
    "nobody": Breakage(any_vcpu, "route", "none has group 1 enabled", "write 1 to ICC_IGRPEN1_EL1"),
    "off": Breakage(
        lambda rig: None, "vCPU", "powered off", "PSCI CPU_ON (MPIDR_EL1 0x0)", CpuView(Power.OFF, UNMASKED)
    ),
    "active": Breakage(active, "active", "active and pending again", "a write of 40 to ICC_EOIR1_EL1"),
    "group": Breakage(
        lambda rig: rig.icc(0, "IGRPEN1", 0), "group enable", "ICC_IGRPEN1_EL1.Enable is 0",
        "write 1 to ICC_IGRPEN1_EL1",
    ),
    "group 0": Breakage(group0, "group enable", "ICC_IGRPEN0_EL1.Enable is 0", "put INTID 40 into group 1"),
    "mask": Breakage(
        lambda rig: rig.icc(0, "PMR", 0x80), "mask", "0x80 is not below ICC_PMR_EL1 0x80",
        "write more than 0x80 to ICC_PMR_EL1",
    ),
    "lowest": Breakage(low_priority, "mask", "0xf8 is not below", "write 0xa0 to byte 0 of GICD_IPRIORITYR10"),
    "behind": Breakage(
        behind, "running", "INTID 41 (priority 0x40) is being handled, running priority 0x40: priority 0x80",
        "end INTID 41",
    ),
    "binary point": Breakage(
        same_group_priority, "running", "priority 0x88 does not preempt it with binary point 5", "end INTID 41"
    ),
    "put": Breakage(lambda rig: rig.put(0), "loaded", "waits for its turn on the CPU",
        "nothing is missing in the guest"),
    "asleep": Breakage(
        lambda rig: rig.put(0), "loaded", "this interrupt would wake vCPU 0", "nothing is missing",
        CpuView(Power.BLOCKED, UNMASKED),
    ),
    "overflow": Breakage(
        overflow, "list register",
        "all 4 list registers hold more urgent interrupts: INTID 50 (priority 0x40), INTID 51",
        "let INTID 53 be taken and ended, or write 0x38 to byte 0 of GICD_IPRIORITYR10 (GICD+0x428)",
    ),
    "second": Breakage(
        pending_beside, "highest", "INTID 41 (priority 0x40) comes first: more urgent than priority 0x80",
        "let INTID 41 be taken and ended, or write 0x38 to byte 0 of GICD_IPRIORITYR10 (GICD+0x428)",
    ),
    "off at EL2": Breakage(
        lambda rig: rig.vif(0).program(0, rig.vif(0).lr), "hypervisor", "ICH_HCR_EL2.En is 0", "let the vCPU run"
    ),
    "masked": Breakage(
        lambda rig: None, "PSTATE", "PSTATE.I is 1", "clear PSTATE.I: MSR DAIFClr, #2", CpuView(pstate=I_MASKED)
    ),
}  # fmt: skip
BY_NAME = pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=list(BREAKAGES))


@BY_NAME
def test_the_blocker_is_named(breakage: Breakage) -> None:
    rig = ready()
    breakage.do(rig)
    finding = blocker(rig.vgic, 0, EDGE, breakage.view)
    assert finding is not None and finding.station == breakage.station
    assert breakage.text in finding.text and breakage.remedy in finding.remedy


def test_a_check_is_shown_by_its_value() -> None:
    finding = Finding(Check.GROUP_ENABLE, True, "on")
    assert f"{finding.station}" == str(finding.station) == "group enable"
    assert type(finding.row()["station"]) is str
    assert json.loads(json.dumps(finding._asdict()))["station"] == "group enable"


def order(findings: list[Finding], held: Finding | None) -> int:
    """How far the interrupt gets; one that is taken gets furthest."""
    return len(findings) + 1 if held is None else findings.index(held)


def apply(rig: Rig, fix: Write) -> None:
    """What a guest on vCPU 0 does to follow the advice."""
    register = fix.register
    if register.frame == "GICD":
        rig.dist.write(0, register.offset, register.size, fix.value)
    elif register.frame == "GICR":
        rig.redist.write(0, register.offset, register.size, fix.value)
    else:
        rig.icc(0, register.name.removeprefix("ICC_").removesuffix("_EL1"), fix.value)
    rig.settle()


@BY_NAME
def test_following_the_advice_gets_the_interrupt_further(breakage: Breakage) -> None:
    rig = ready()
    breakage.do(rig)
    before = trace(rig.vgic, 0, EDGE, breakage.view)
    held = first_held(before)
    assert held is not None and held.remedy
    if held.fix is None:
        pytest.skip("nothing that a guest could write")
    apply(rig, held.fix)
    after = trace(rig.vgic, 0, EDGE, breakage.view)
    if held.text.startswith(
        "active, and not"
    ):  # ending what is handled leaves it idle, as it should be
        assert not first_held(after) or "not pending" in first_held(after).text  # type: ignore[union-attr]
    else:
        assert order(after, first_held(after)) > order(before, held)


@BY_NAME
def test_looking_changes_nothing(breakage: Breakage) -> None:
    """Loaded or not, list registers stay as they are, down to the dirty flag."""
    rig = ready()
    breakage.do(rig)
    rig.vgic.inject(None, OTHER, True)

    def everything() -> str:
        return json.dumps([rig.vgic.state(), rig.gic.state(), [vif.state() for vif in rig.vifs]])

    before = everything()
    for vcpu in range(2):
        for intid in (0, 27, EDGE, OTHER):
            trace(rig.vgic, vcpu, intid, breakage.view)
            compare(rig.vgic, vcpu, EDGE, intid)
    assert everything() == before


def test_what_waits_for_an_entry() -> None:
    rig = ready()
    rig.serve()
    rig.vgic.inject(None, EDGE, True)
    view = CpuView(pstate=UNMASKED)
    assert blocker(rig.vgic, 0, EDGE, view) is None
    assert "before the next instruction" in trace(rig.vgic, 0, EDGE, view)[-2].text
    prepare(rig, OTHER, 0x40)
    rig.vgic.inject(None, OTHER, True)
    finding = blocker(rig.vgic, 0, EDGE, view)
    assert finding is not None and finding.text.startswith("INTID 41 (priority 0x40) comes first")
    assert blocker(rig.vgic, 0, OTHER, view) is None


def test_a_vcpu_that_wakes_up_takes_it() -> None:
    """It is on no physical CPU yet, and nobody else wants that."""
    rig = ready()
    rig.put(0)
    assert blocker(rig.vgic, 0, EDGE, CpuView(pstate=UNMASKED, waking=True)) is None
    finding = blocker(rig.vgic, 0, EDGE, CpuView(pstate=I_MASKED, waking=True))
    assert finding is not None and finding.station == "PSTATE"


def test_a_signalled_interrupt_has_no_blocker() -> None:
    rig = ready()
    view = CpuView(pstate=UNMASKED, vbar=0x4000_0000)
    assert blocker(rig.vgic, 0, EDGE, view) is None
    text = "\n".join(finding.text for finding in trace(rig.vgic, 0, EDGE, view))
    assert "LR0: INTID 40 pending" in text and "to 0x40000280 (VBAR_EL1+0x280)" in text


@pytest.mark.parametrize(("pstate", "offset"), [(EL1H, 0x280), (4, 0x080), (0, 0x480)])
def test_the_vector_by_exception_level(pstate: int, offset: int) -> None:
    finding = trace(ready().vgic, 0, EDGE, CpuView(pstate=pstate, vbar=0))[-1]
    assert f"VBAR_EL1+{offset:#x}" in finding.text


def test_an_intid_that_does_not_exist() -> None:
    with pytest.raises(KvmError, match="INTID 500 does not exist"):
        trace(ready().vgic, 0, 500)


def test_private_registers_are_in_the_redistributor_of_the_vcpu() -> None:
    rig = Rig(vcpus=2)
    rig.inject(27, True, vcpu=1)
    finding = blocker(rig.vgic, 1, 27)
    assert finding is not None and finding.station == "enable"
    assert str(finding.register) == "GICR_ISENABLER0 (GICR+0x30100) bit 27"
    assert finding.value == 0xFFFF


def test_eoimode_1_ends_with_dir() -> None:
    rig = ready()
    rig.icc(0, "CTLR", 2)
    rig.ack()
    rig.icc(0, "EOIR1", EDGE)
    finding = blocker(rig.vgic, 0, EDGE)
    assert finding is not None and "a write of 40 to ICC_DIR_EL1" in finding.remedy


def test_an_active_interrupt_does_not_migrate() -> None:
    rig = ready()
    rig.ack()
    rig.pulse(EDGE)
    rig.route(EDGE, 1)
    finding = blocker(rig.vgic, 1, EDGE)
    assert finding is not None and "active on vCPU 0" in finding.text


# -- GICv2: other registers, the same checks --


def gicv2() -> Vgic:
    """Two vCPUs on a GICv2, on no PE."""
    vgic = Vgic(EventBus(), QuietVm(), model=2)
    for n in range(2):
        vgic.add_vcpu(n, 1 << 31 | n)
    vgic.init()
    return vgic


def test_registers_of_a_gicv2() -> None:
    vgic = gicv2()
    private, shared = ({f.station: f for f in trace(vgic, 1, intid)} for intid in (27, EDGE))
    assert private["enable"].register == Register(
        "GICD_ISENABLER0", "bit 27", "GICD", 0x100, bit=27, cpu=1
    )
    assert str(shared["route"].register) == "GICD_ITARGETSR10 (GICD+0x828) byte 0"
    assert shared["route"].remedy == "write 2 to byte 0 of GICD_ITARGETSR10 (GICD+0x828)"
    assert str(shared["group enable"].register) == "GICC_CTLR (GICC+0x0) EnableGrp0"
    assert str(shared["mask"].register) == "GICC_PMR (GICC+0x4)"
    assert "GICD_SGIR" in {f.station: f for f in trace(vgic, 1, 3)}["pending"].remedy


def test_group_0_of_a_gicv2_is_an_irq_unless_fiqen_is_set() -> None:
    vgic = gicv2()
    for vmcr, signal in ((1, "IRQ"), (1 | VMCR_VFIQEN, "FIQ")):
        vgic.dist.cpu(0).vmcr = vmcr
        assert {f.station: f for f in trace(vgic, 0, EDGE)}[
            "group"
        ].text == f"group 0: signalled as {signal}"


def test_one_that_moves_to_another_vcpu() -> None:
    rig = ready()
    rig.dist.write(0, 0x6000 + 8 * EDGE, 8, 1)
    finding = blocker(rig.vgic, 1, EDGE)
    assert finding is not None and "still in a list register of vCPU 0" in finding.text
    rig.settle()
    assert blocker(rig.vgic, 1, EDGE) is None


# -- timers --


def timer(ctl: int, cval: int, now: int, fires: int | None) -> CpuView:
    return CpuView(pstate=UNMASKED, timer=TimerView("CNTV", ctl, cval, now, fires))


@pytest.mark.parametrize(
    ("view", "text", "remedy"),
    [
        (timer(0, 5, 9, None), "CNTV_CTL_EL0.ENABLE is 0", "write 1 to CNTV_CTL_EL0"),
        (
            timer(CTL_ENABLE | CTL_IMASK, 5, 9, None),
            "masked; its condition is met",
            "write 1 to CNTV_CTL_EL0",
        ),
        (
            timer(CTL_ENABLE, 50, 9, 312_400),
            "fires in 312.4 us",
            "wait 312.4 us, or write a lower value to CNTV_CVAL",
        ),
    ],
)
def test_a_timer_that_has_not_fired(view: CpuView, text: str, remedy: str) -> None:
    finding = blocker(Rig().vgic, 0, 27, view)
    assert (
        finding is not None
        and finding.station == "timer"
        and text in finding.text
        and remedy in finding.remedy
    )


def test_times_for_people() -> None:
    assert [span(ns) for ns in (7, 312_400, 999_940, 999_960, 2 * 10**9, 10**14, 3 * 10**20)] == [
        "7 ns", "312.4 us", "999.9 us", "1 ms", "2 s", "1 days", "9,512 years",
    ]  # fmt: skip


def test_a_timer_that_has_fired() -> None:
    rig = Rig()
    rig.inject(27, True, vcpu=0)
    first, *_ = findings = trace(rig.vgic, 0, 27, timer(CTL_ENABLE, 5, 9, 0))
    held = first_held(findings)
    assert first.passed and first.value == 5 and held is not None and held.station == "enable"


# -- comparing two --


def both(first: int, second: int) -> Rig:
    rig = Rig(vcpus=2)
    for intid, priority in ((EDGE, first), (OTHER, second)):
        prepare(rig, intid, priority)
        rig.pulse(intid)
    return rig


def test_the_lower_priority_value_wins() -> None:
    rig = both(0x40, 0x80)
    assert compare(rig.vgic, 0, EDGE, OTHER).rule == "priority" == compare_after_ack(rig)
    assert "INTID 40 (0x40) is more urgent" in compare(both(0x40, 0x80).vgic, 0, EDGE, OTHER).text
    assert compare(both(0x40, 0x80).vgic, 0, OTHER, EDGE).rule == "nothing"


def compare_after_ack(rig: Rig) -> str:
    assert rig.ack() == EDGE
    rule = compare(rig.vgic, 0, EDGE, OTHER).rule
    return "priority" if rule == "preemption" else rule


def test_equal_priorities() -> None:
    rig = both(0x80, 0x80)
    assert compare(rig.vgic, 0, EDGE, OTHER).rule == "list register order"
    assert compare(rig.vgic, 0, OTHER, EDGE).rule == "nothing"
    assert rig.ack() == EDGE


def test_no_preemption_within_a_group_priority() -> None:
    rig = Rig()
    rig.icc(0, "BPR1", 5)
    prepare(rig, EDGE, 0x88)
    prepare(rig, OTHER, 0x80)
    rig.pulse(EDGE)
    assert rig.ack() == EDGE
    rig.pulse(OTHER)
    found = compare(rig.vgic, 0, EDGE, OTHER)
    assert found.rule == "preemption" and "binary point 5" in found.text


def test_two_that_wait_for_a_third() -> None:
    rig = both(0x80, 0xA0)
    prepare(rig, 50, 0x20)
    rig.pulse(50)
    assert rig.ack() == 50
    assert compare(rig.vgic, 0, EDGE, OTHER).rule == "priority"


def test_one_that_is_held_by_itself() -> None:
    rig = both(0x80, 0x40)
    rig.disable(OTHER)
    assert compare(rig.vgic, 0, EDGE, OTHER).rule == "enable"
    rig = both(0x80, 0x40)
    rig.serve()
    assert compare(rig.vgic, 0, EDGE, OTHER).rule == "pending"


# -- the law --


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    enabled=st.booleans(), pending=st.booleans(), priority=st.sampled_from([0, 0x80, 0xF8]),
    grp1=st.booleans(), igrpen=st.integers(0, 3), ctlr=st.integers(0, 3), pmr=st.sampled_from([0, 0x80, 0xF8]),
    other=st.sampled_from([None, 0x40, 0x80, 0xC0]), acked=st.booleans(), settled=st.booleans(),
)  # fmt: skip
def test_no_blocker_if_and_only_if_the_guest_gets_it(
    enabled: bool, pending: bool, priority: int, grp1: bool, igrpen: int, ctlr: int, pmr: int, other: int | None,
    acked: bool, settled: bool,
) -> None:  # fmt: skip
    """What the diagnosis says is what an acknowledge finds, whether list registers are up to date
    or not."""
    rig = Rig()
    if other is not None:
        prepare(rig, OTHER, other)
        rig.pulse(OTHER)
        if acked:
            assert rig.ack() == OTHER
    prepare(rig, EDGE, priority)
    if not grp1:
        group0(rig)
    if not enabled:
        rig.disable(EDGE)
    if pending:
        rig.pulse(EDGE)
    for n in range(2):
        rig.icc(0, f"IGRPEN{n}", igrpen >> n & 1)
    rig.icc(0, "PMR", pmr)
    rig.dist.write(0, 0, 4, ctlr)
    if settled:
        rig.settle()
    taken = blocker(rig.vgic, 0, EDGE, CpuView(pstate=UNMASKED)) is None
    rig.settle()
    assert (rig.icc(0, f"IAR{int(grp1)}") == EDGE) == taken
