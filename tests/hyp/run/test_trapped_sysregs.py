"""Trapped system registers: which EL2 emulates, which it forwards, which are UNDEFINED."""

from __future__ import annotations

import pytest
from hyp_tools import DATA, EQ, RAM, Asm, Rig, both_engines, faulting, power_off, program, run

from armvirt.arch import timer as t
from armvirt.arch.encoding import sysreg
from armvirt.arch.sysregs import encoding_of, is_id_space, name_of
from armvirt.hyp.run import trapped_sysregs as sysregs

SYSTEM_REGISTERS = [sysreg(3, op1, crn, crm, op2)
                    for op1 in range(8) for crn in range(16) for crm in range(16) for op2 in range(8)]  # fmt: skip
DEBUG_REGISTERS = [sysreg(2, op1, crn, crm, op2) for op1 in (0, 3, 4) for crn in range(16) for crm in range(16)
                   for op2 in range(8)]  # fmt: skip
CHUNK = 8192
SVC_END = 0x5600_0077
#: What EL1 can keep from EL0 with a syndrome: SCTLR_EL1.UCT and UMA, CNTKCTL_EL1 (DDI 0487,
#: ESR_ELx, EC 0x18).
TRAPPED_BY_EL1 = {
    "CTR_EL0", "DAIF", "CNTFRQ_EL0", "CNTPCT_EL0", "CNTVCT_EL0", "CNTP_TVAL_EL0", "CNTP_CTL_EL0", "CNTP_CVAL_EL0",
    "CNTV_TVAL_EL0", "CNTV_CTL_EL0", "CNTV_CVAL_EL0",
}  # fmt: skip

UNDEFINED = 1 << 25
ID_SPACE = [sysreg(3, 0, 0, crm, op2) for crm in range(1, 8) for op2 in range(8)]
NOT_THERE = {
    "PMCR_EL0": sysreg(3, 3, 9, 12, 0),
    "PMCCNTR_EL0": sysreg(3, 3, 9, 13, 0),
    "an implementation's own": sysreg(3, 0, 15, 0, 0),
    "ICC_SRE_EL2": sysreg(3, 4, 12, 9, 5),
    "CNTHCTL_EL2": sysreg(3, 4, 14, 1, 0),
}


def test_the_table_has_no_id_registers() -> None:
    assert not [encoding for encoding in sysregs.TABLE if is_id_space(encoding)]


@both_engines
def test_every_id_register_can_be_read(kind: str) -> None:
    """All of the trapped space: a guest scans it. AArch32 and what is not virtualized reads as
    zero."""

    def write(a: Asm) -> None:
        a.mov(1, 0x4010_0000)
        for encoding in ID_SPACE:
            a.mrs(2, encoding)
            a.str_post(2, 1, 8)

    rig = run(write, kind, gic=True)
    values = {encoding: rig.word(0x4010_0000 + 8 * n) for n, encoding in enumerate(ID_SPACE)}
    pfr0 = values[encoding_of("ID_AA64PFR0_EL1")]
    assert pfr0 & 0xFF == 0x11, "EL0 and EL1 in AArch64"
    assert pfr0 >> 8 & 0xFF == 0, "no EL2, no EL3"
    assert pfr0 >> 24 & 15 == 1, "the GIC's system registers"
    assert values[encoding_of("ID_AA64DFR0_EL1")] >> 8 & 15 == 0, "no PMU"
    assert all(values[sysreg(3, 0, 0, crm, op2)] == 0 for crm in (1, 2, 3) for op2 in range(8))


def test_without_a_gic_there_are_no_gic_registers() -> None:
    rig = run(lambda a: a.mrs(2, "ID_AA64PFR0_EL1"))
    assert rig.x(2) >> 24 & 15 == 0


@both_engines
@pytest.mark.parametrize("encoding", [encoding_of("ID_AA64PFR0_EL1"), *NOT_THERE.values()])
def test_writes_that_are_undefined(kind: str, encoding: int) -> None:
    rig = faulting(lambda a: a.msr(encoding, 3), kind, gic=True)
    assert (rig.x(19), rig.x(20)) == (1, UNDEFINED)


@both_engines
@pytest.mark.parametrize("encoding", NOT_THERE.values(), ids=NOT_THERE)
def test_reads_that_are_undefined(kind: str, encoding: int) -> None:
    rig = faulting(lambda a: (a.movz(3, 7), a.mrs(3, encoding)), kind, gic=True)
    assert (rig.x(19), rig.x(20), rig.x(3)) == (1, UNDEFINED, 7)


def test_what_the_guest_is() -> None:
    """MIDR_EL1 and MPIDR_EL1 by VPIDR and VMPIDR."""
    rig = run(lambda a: (a.mrs(2, "MIDR_EL1"), a.mrs(3, "MPIDR_EL1")))
    assert rig.x(2) == 0x410F_D083 and rig.x(3) == 1 << 31


@both_engines
def test_the_physical_timer_is_emulated(kind: str) -> None:
    """CNTPCT differs from CNTVCT by the offset; CVAL and CTL read as written; TVAL is CVAL less the
    count."""

    def write(a: Asm) -> None:
        a.mrs(10, t.CNTPCT_EL0)
        a.mrs(11, t.CNTVCT_EL0)
        a.mov(2, 0x123_4567_89AB)
        a.msr(t.CNTP_CVAL_EL0, 2)
        a.movz(2, 3)
        a.msr(t.CNTP_CTL_EL0, 2)
        a.mrs(12, t.CNTP_CVAL_EL0)
        a.mrs(13, t.CNTP_CTL_EL0)
        a.mrs(14, t.CNTP_TVAL_EL0)
        a.mrs(15, t.CNTPCT_EL0)
        a.mrs(16, t.CNTFRQ_EL0)

    rig = run(write, kind, gic=True)
    offset = rig.vm.timer_data.voffset
    assert offset and rig.x(10) - rig.x(11) in (offset, offset - 1)
    assert (rig.x(12), rig.x(13)) == (0x123_4567_89AB, 3)
    assert rig.x(14) in {
        0x123_4567_89AB - rig.x(15) + slack & 0xFFFF_FFFF | _high(rig.x(14)) for slack in (0, 1)
    }
    assert rig.x(16) == 62_500_000


def _high(value: int) -> int:
    """TVAL is a signed 32-bit value."""
    return value & 0xFFFF_FFFF_0000_0000


@both_engines
def test_an_sgi_to_oneself(kind: str) -> None:
    """ICC_SGI1R_EL1 traps; the SGI is pending in the redistributor."""

    def write(a: Asm) -> None:
        a.mov(2, 0x0800_0000)
        a.movz(3, 0x12)
        a.str_w(3, 2)
        a.mov(2, 0x080B_0000)
        a.mov(3, 0xFFFF)
        a.str_w(3, 2, 0x80)
        a.str_w(3, 2, 0x100)
        a.mov(3, 5 << 24 | 1)
        a.msr(sysregs.ICC_SGI1R_EL1, 3)
        a.ldr_w(4, 2, 0x200)

    assert run(write, kind, gic=True).x(4) == 1 << 5


def test_sgi_registers_cannot_be_read() -> None:
    rig = faulting(lambda a: a.mrs(3, sysregs.ICC_SGI1R_EL1), gic=True)
    assert rig.x(20) == UNDEFINED


def test_at_el0() -> None:
    """What EL0 may not read traps to EL1, not to EL2."""
    a = Asm()
    a.set_vectors()
    a.drop_to("user", 0)
    a.label("user")
    a.mrs(3, "ID_AA64PFR0_EL1")
    a.vectors(
        lambda a, offset: (
            a.movz(19, offset),
            a.mrs(20, "ESR_EL1"),
            a.mov(0, 0x8400_0008),
            a.hvc(0),
        )
    )
    rig = Rig(a).finish()
    assert rig.x(19) == 0x400, "synchronous, from EL0 in AArch64"
    assert rig.x(20) >> 26 in (0, 0x18)


def test_it_counts_once() -> None:
    """A trapped access retires one instruction, as any other."""
    plain = run(lambda a: [a.nop() for _ in range(10)])
    trapped = Rig(program(lambda a: [a.mrs(2, "ID_AA64ISAR0_EL1") for _ in range(10)])).finish()
    assert plain.host.insns == trapped.host.insns


# Every encoding that there is -------------------------------------------------------------------


def _survey(el: int, kind: str, encodings: list[int]) -> dict[int, tuple[int, int]]:
    """The ESR_EL1 that MRS and then MSR (of what was read) give at ``el``, 0 where the access is
    completed."""
    found = {}
    for first in range(0, len(encodings), CHUNK):
        chunk = encodings[first : first + CHUNK]
        a = Asm(RAM)
        a.set_vectors()
        a.mov(1, DATA + 0x10_0000)
        if el == 0:
            a.drop_to("start", 0)
        a.label("start")
        for encoding in chunk:
            for access in (a.mrs, a.msr):
                a.movz(4, 0)
                access(*((3, encoding) if access == a.mrs else (encoding, 3)))
                a.str_post(4, 1, 8)
        a.svc(0x77)
        a.vectors(lambda a, offset: a.b("handler"))
        _skip_faults(a)
        rig = Rig(a, kind=kind, gic=True).finish()
        words = rig.vm.read_memory(DATA + 0x10_0000, 16 * len(chunk))
        esr = [int.from_bytes(words[at : at + 8], "little") for at in range(0, len(words), 8)]
        found.update({encoding: (esr[2 * n], esr[2 * n + 1]) for n, encoding in enumerate(chunk)})
        rig.close()
    return found


def _skip_faults(a: Asm) -> None:
    """X4 is the syndrome; go on behind the instruction that faulted, or end after SVC #0x77."""
    a.label("handler")
    a.mrs(4, "ESR_EL1")
    a.mrs(6, "ELR_EL1")
    a.mov(7, SVC_END)
    a.subs(8, 4, 7)
    a.b_cond(EQ, "end")
    a.add_imm(6, 6, 4)
    a.msr("ELR_EL1", 6)
    a.eret()
    a.label("end")
    power_off(a)


@both_engines
def test_what_el1_cannot_name_is_undefined(kind: str) -> None:
    """The registers of EL2, EL3 and the Secure state have op1 4 to 7: UNDEFINED at EL1, whoever
    answers. And EL1 traps nothing to itself with EC 0x18 (DDI 0487 D1.3, ESR_EL1)."""
    found = _survey(1, kind, SYSTEM_REGISTERS + DEBUG_REGISTERS)
    above = {each for each in found if each >> 11 & 7 >= 4}
    assert {each: found[each] for each in above if found[each] != (UNDEFINED, UNDEFINED)} == {}
    assert {each: esr for each, esr in found.items() if not {*esr} <= {0, UNDEFINED}} == {}
    assert len([each for each in found if 0 in found[each]]) > 100


@both_engines
def test_what_el0_is_told(kind: str) -> None:
    """Only what EL1 can trap has a syndrome. There is no PMU (ID_AA64DFR0_EL1), so PMCCNTR_EL0 and
    its kin are UNDEFINED at EL0 as they are at EL1."""
    found = _survey(0, kind, [each for each in SYSTEM_REGISTERS if each >> 11 & 7 >= 3])
    told = {each for each, esr in found.items() if not {*esr} <= {0, UNDEFINED}}
    assert {name_of(each) for each in told} == TRAPPED_BY_EL1
    assert {esr >> 26 for each in told for esr in found[each]} <= {0, 0x18}
