"""Driver bugs planted in a guest: the first line of the explanation names the cause of each.

The guest is ``driver-bugs``: one source, in which ``--append NAME`` plants a bug and ``--append
right:NAME`` runs the same path without it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
from conftest import ROOT

from armvirt.cli.main import main
from armvirt.machine import Machine, Result
from armvirt.views.explain import Explanation, LastWriters

GUEST = "driver-bugs"
INSNS, SMP_INSNS = 130_000, 400_000  # enough for a storm to be one, and for CPUs to have had turns
VTIMER, PTIMER, UART, LOW_SPI, SGI, REPLY, LPI = 27, 30, 33, 50, 1, 2, 8193


class Bug(NamedTuple):
    """``first`` is a pattern of the first line, ``cause`` the name of the rule (None: a station
    says it). ``gics`` are the versions on which it exists; ``vcpu`` is whom to ask; ``ns`` when, 0
    for the guest's end."""

    intid: int
    first: str
    cause: str | None = None
    gics: tuple[int, ...] = (2, 3)
    vcpu: int | None = None
    ns: int = 0


V2, V3 = (2,), (3,)
BUGS = {
    # the CPU interface
    "pmr-closed": Bug(VTIMER, r"is not below (ICC_PMR_EL1|GICC_PMR) 0x00 \(never written\)"),
    "pmr-low": Bug(
        VTIMER,
        r"vCPU 0: (ICC_PMR_EL1|GICC_PMR) 0x80 \(last written by .*interface_init.* masks",
        "mask",
    ),
    "priority-lowest": Bug(
        VTIMER,
        r"priority 0xf8 in GIC[RD]_IPRIORITYR6 byte 3 \(last .*enable_interrupt.* too low",
        "priority",
    ),
    "igrpen": Bug(VTIMER, r"(ICC_IGRPEN1_EL1.Enable|GICC_CTLR.EnableGrp0) is 0 \(never written\)"),
    "waker": Bug(VTIMER, r"vCPU 0 polls GICR_WAKER, read \S+ times", "polls", V3),
    "sre": Bug(
        VTIMER, r"MSR ICC_SRE_EL1: a GICv2 has its CPU interface in the frame GICC", "faults", V2
    ),
    "gicc": Bug(
        VTIMER, r"address 0x8010004: a GICv3 has no frame GICC, but ICC_\*_EL1", "faults", V3
    ),
    # the interrupt's configuration
    "igroupr": Bug(
        VTIMER,
        r"in group [01] by GIC[RD]_IGROUPR0 bit 27 \(last written by .*enable_interrupt",
        "group",
    ),
    "isenabler": Bug(VTIMER, r"GIC[RD]_ISENABLER0 bit 27 is 0 \(never written\)\. "),
    "masked-again": Bug(
        VTIMER, r"ISENABLER0 bit 27 is 0 \(last written by .*tick\+.*GIC[RD]_ICENABLER0 = 0x8000000"
    ),
    "gicd-ctlr": Bug(VTIMER, r"GICD_CTLR.EnableGrp[01] is 0 \(last written by .*distributor_init"),
    "gicd-for-ppi": Bug(
        VTIMER, r"GICD_ISENABLER0 bit 27 was written, which is RES0", "enabled-elsewhere", V3
    ),
    "rd-base": Bug(
        VTIMER,
        r"GICR\+0x100 was written, which is in RD_base, not in SGI_base",
        "enabled-elsewhere",
        V3,
    ),
    "wrong-cpu": Bug(VTIMER, r"it was enabled on vCPU 1 instead", "enabled-elsewhere", V3),
    "wrong-intid": Bug(VTIMER, r"INTID 30\S* .*was enabled instead", "enabled-elsewhere"),
    "isactiver": Bug(
        VTIMER, r"active by a write of GIC[RD]_ISACTIVER0, not by an acknowledge", "active-by-hand"
    ),
    "route-off": Bug(
        UART,
        r"routed to vCPU 1 by GICD_(IROUTER33|ITARGETSR8) \(last .*vCPU 1 is powered off",
        "route",
    ),
    "route-nobody": Bug(
        UART, r"routed to nobody by GICD_(IROUTER33|ITARGETSR8) \(last written by", "route"
    ),
    "spi-number": Bug(
        UART, r"INTID 1 was enabled instead: device trees count", "enabled-elsewhere"
    ),
    "pend-cleared": Bug(
        UART, r"GICD_ICPENDR1 at .* took that back before the guest took it", "latch-lost"
    ),
    "bpr": Bug(
        VTIMER,
        r"not preempt INTID 50 .*binary point \d in (ICC_BPR1_EL1|GICC_BPR) \(last",
        "binary-point",
    ),
    "no-preemption": Bug(
        VTIMER, r"behind INTID 50: its priority 0xa0 does not preempt 0xa0", "not-ended"
    ),
    # the CPU
    "daif": Bug(VTIMER, r"PSTATE.I is 1: EL1 masks it"),
    "vbar-unset": Bug(
        VTIMER, r"lost in the vectors of vCPU 0: VBAR_EL1 is 0, it was not set", "vectors"
    ),
    "vector-misaligned": Bug(
        VTIMER, r"bits 10 to 0 are RES0, and misaligned_vectors at .* not aligned", "vectors"
    ),
    # timers
    "timer-off": Bug(
        VTIMER, r"CNTV_CTL_EL0.ENABLE is 0 \(never written\), though CNTV_CVAL_EL0 was", "timer-off"
    ),
    "timer-imask": Bug(VTIMER, r"CNTV_CTL_EL0.IMASK is 1"),
    "timer-physical": Bug(
        VTIMER, r"other timer, CNTP_CTL_EL0, whose interrupt is INTID 30", "other-timer"
    ),
    "cval-not-moved": Bug(
        VTIMER, r"taken \S+ times and ended \S+ times, .*CNTV_CVAL_EL0 was not", "storm"
    ),
    "cval-interval": Bug(
        VTIMER,
        r"CNTV_CVAL_EL0 was moved, but to the past: an interval is no compare value",
        "storm",
    ),
    "cval-physical": Bug(
        VTIMER, r"computed from CNTPCT_EL0, but the timer compares", "cval-far", ns=1_000_000
    ),
    "tval-wide": Bug(VTIMER, r"CNTV_TVAL_EL0 = 0x80000271 is negative", "cval-far", ns=1_000_000),
    "timer-stopped": Bug(
        VTIMER, r"line rose at \S+ ns and fell at \S+ ns by CNTV_CTL_EL0 = 0x0", "line-fell"
    ),
    # acknowledge and end
    "iar-missing": Bug(
        VTIMER, r"took \S+ IRQ exceptions .* did not read (ICC_IAR1_EL1|GICC_IAR)", "no-acknowledge"
    ),
    "handler-spins": Bug(
        VTIMER, r"took the IRQ exception at .*and read no IAR; it is at .*dispatch", "handler-stuck"
    ),
    "iar-group": Bug(
        VTIMER, r"in group [01] by GIC[RD]_IGROUPR0 .* an IAR that does not give group", "wrong-iar"
    ),
    "eoi-missing": Bug(
        VTIMER,
        r"taken once.*, and not ended since: no write of (ICC_EOIR1_EL1|GICC_EOIR)",
        "no-end",
    ),
    "eoi-wrong-intid": Bug(
        VTIMER,
        r"by a wrong INTID: (ICC_EOIR1_EL1|GICC_EOIR) was written with 30, not 27, at",
        "end-wrong-intid",
    ),
    "eoi-behind": Bug(
        VTIMER, r"waits behind INTID 50: .*taken once, .*not ended since: no write of", "not-ended"
    ),
    "lpi-eoi-missing": Bug(
        LPI,
        r"waits behind its own last time, taken at .* not ended since: no write of ICC_EOIR1",
        "not-ended",
        V3,
    ),
    "eoi-twice": Bug(
        LOW_SPI,
        r"INTID 27 .*was ended twice, and the second write of ICC_EOIR1_EL1",
        "end-twice",
        V3,
    ),
    "eoi-order": Bug(
        LOW_SPI,
        r"ended in the wrong order: ICC_EOIR1_EL1 was written with 27, not 50",
        "end-order",
        V3,
    ),
    "dir-missing": Bug(
        VTIMER,
        r"EOImode is 1, so EOIR .* (ICC_DIR_EL1|GICC_DIR) was never written",
        "no-deactivation",
    ),
    "eoi-other-cpu": Bug(
        UART,
        r"ended on vCPU 1, by (ICC_EOIR1_EL1|GICC_EOIR) at .*write_eoir",
        "end-other-cpu",
        vcpu=0,
    ),
    "sgi-eoi-cpu": Bug(
        REPLY, r"GICC_IAR gave 0x402, .* GICC_EOIR was written with 0x2", "end-wrong-cpuid", V2, 0
    ),
    # a device
    "uart-imsc": Bug(UART, r"was never raised: the UART .*UARTIMSC 0x0", "never-raised"),
    "uart-not-cleared": Bug(
        UART, r"storms .*the UART \(PL011\) was not served, .*UARTMIS 0x20", "storm"
    ),
    "uart-edge": Bug(
        UART, r"its line is high .*GICD_ICFGR2 bit 3 is 1, edge-triggered", "edge-not-level"
    ),
    # SGIs
    "sgi-nobody": Bug(SGI, r"was sent to nobody, .*target list 0x0", "sgi-to-nobody", vcpu=1),
    "sgi-self": Bug(
        SGI, r"was sent to vCPU 0, not to vCPU 1, .*target list 0x\d*1\b", "sgi-to-another", vcpu=1
    ),
    "sgi-affinity": Bug(
        SGI, r"was sent to nobody, .*Aff3.Aff2.Aff1 0.0.1", "sgi-to-nobody", V3, vcpu=1
    ),
    "sgi-group": Bug(
        SGI,
        r"ICC_SGI0R_EL1 does not generate an SGI that is in group 1",
        "sgi-to-nobody",
        V3,
        vcpu=1,
    ),
    "cpu-off": Bug(SGI, r"vCPU 1 is powered off", vcpu=1),
    "cpu-interface": Bug(
        SGI, r"vCPU 1: (ICC_IGRPEN1_EL1.Enable|GICC_CTLR.EnableGrp0) is 0 \(never written\)", vcpu=1
    ),
    # LPIs
    "enable-lpis": Bug(LPI, r"GICR_CTLR.EnableLPIs of vCPU 0 is 0 \(never written\)", gics=V3),
    "propbaser": Bug(LPI, r"GICR_PROPBASER.IDbits is 0, .*\(never written\)", "propbaser", V3),
    "lpi-disabled": Bug(LPI, r"bit 0 of its configuration byte is 0", gics=V3),
    "lpi-priority": Bug(LPI, r"priority 0xf8 in its configuration byte is too low", "priority", V3),
    "inv-missing": Bug(LPI, r"though bit 0 is 1 now: no INV or INVALL since", gics=V3),
    "mapd-missing": Bug(
        LPI, r"MAPTI at .* was skipped, .*no MAPD has mapped its device", "mapping-skipped", V3
    ),
    "mapti-missing": Bug(
        LPI, r"no ITS translates an event to it: messages are lost \(never mapped\)", gics=V3
    ),
    "mapc-missing": Bug(LPI, r"its collection 0 is mapped to no CPU", "collection", V3),
    "int-event": Bug(
        LPI,
        r"translated from device 2, event 1, and INT at .* device 2, event 2,",
        "message-lost",
        V3,
    ),
    "its-off": Bug(
        LPI, r"GITS_CTLR.Enabled is 0: messages are ignored, and 6 commands wait", gics=V3
    ),
}
ON_TWO_CPUS = {name for name, bug in BUGS.items() if bug.vcpu is not None}
CASES = [
    pytest.param(name, gic, id=f"{name}-v{gic}") for name, bug in BUGS.items() for gic in bug.gics
]
BY_CASE = pytest.mark.parametrize(("name", "gic"), CASES)


def run(append: str, gic: int, ns: int = 0) -> tuple[Machine, Result]:
    machine = Machine(GUEST, gic=gic, append=append, sinks=[LastWriters()], trace_hash=False)
    smp = name_of(append) in ON_TWO_CPUS
    return machine, machine.run(max_insns=SMP_INSNS if smp else INSNS, max_time_ns=ns or None)


def name_of(append: str) -> str:
    return append.removeprefix("right:")


def explained(name: str, gic: int) -> Explanation:
    bug = BUGS[name]
    machine, result = run(name, gic, bug.ns)
    with machine:
        assert result.verdict != "pass", "the bug shows"
        return machine.explain(bug.intid, bug.vcpu)


@BY_CASE
def test_the_first_line_names_the_cause(name: str, gic: int) -> None:
    found = explained(name, gic)
    first = str(found).splitlines()[0]
    assert first.startswith(f"INTID {BUGS[name].intid} ") and re.search(BUGS[name].first, first), (
        first
    )
    assert (found.cause.name if found.cause is not None else None) == BUGS[name].cause


@BY_CASE
def test_its_right_twin_passes(name: str, gic: int) -> None:
    machine, result = run(f"right:{name}", gic)
    with machine:
        assert result.verdict == "pass", result.console + result.diagnosis


def test_every_bug_of_the_guest_is_here() -> None:
    source = (ROOT / "firmware" / "broken" / "driver-bugs.c").read_text()
    rows = dict(re.findall(r'\{"([a-z-]+)", \w+, (\d)\}', source))
    assert rows.keys() == BUGS.keys()
    for name, bug in BUGS.items():
        assert bug.gics == ((int(rows[name]),) if rows[name] != "0" else (2, 3)), name


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        GUEST,
        "--append",
        "cval-not-moved",
        "--intid",
        str(VTIMER),
        "--max-insns",
        "100k",
        "--plain",
    ]
    assert main(["explain", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("INTID 27 (vtimer) storms on vCPU 0: taken ") and "\n\nINTID 27 (" in out
