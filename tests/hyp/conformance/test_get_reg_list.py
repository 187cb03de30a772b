"""KVM's selftest get-reg-list: the registers of a vCPU, their ids, and what a write of each does
(row for row)."""

from __future__ import annotations

import pytest
from gic_vm import RAM, make_gic, make_vm, run_vcpu
from hyp_tools import errno_of

from armvirt.arch.encoding import sysreg
from armvirt.hyp.kvm import MpState, Vcpu, Vm

U32, U64, U128 = 0x6020_0000_0000_0000, 0x6030_0000_0000_0000, 0x6040_0000_0000_0000
CORE, DEMUX, SYSTEM, FIRMWARE, BITMAP = (n << 16 for n in (0x10, 0x11, 0x13, 0x14, 0x16))
#: Offsets in struct kvm_regs, in 32-bit words.
CORE_IDS = {
    **{f"x{n}": U64 | CORE | 2 * n for n in range(31)},
    "sp": U64 | CORE | 62, "pc": U64 | CORE | 64, "pstate": U64 | CORE | 66, "sp_el1": U64 | CORE | 68,
    "elr_el1": U64 | CORE | 70,
    **{f"spsr[{n}]": U64 | CORE | 72 + 2 * n for n in range(5)},
    **{f"vregs[{n}]": U128 | CORE | 84 + 4 * n for n in range(32)},
    "fpsr": U32 | CORE | 212, "fpcr": U32 | CORE | 213,
}  # fmt: skip
FIRMWARE_IDS = [U64 | FIRMWARE | n for n in range(4)]
BITMAP_IDS = [U64 | BITMAP | n for n in range(4)]
#: The selftest's base_regs but for the debug registers beyond this CPU's, and those that only
#: AArch32 or RAS bring.
SYSTEM_IDS = {
    "MIDR_EL1": (3, 0, 0, 0, 0), "REVIDR_EL1": (3, 0, 0, 0, 6), "MPIDR_EL1": (3, 0, 0, 0, 5),
    "CLIDR_EL1": (3, 1, 0, 0, 1), "AIDR_EL1": (3, 1, 0, 0, 7), "CTR_EL0": (3, 3, 0, 0, 1),
    "SCTLR_EL1": (3, 0, 1, 0, 0), "CPACR_EL1": (3, 0, 1, 0, 2), "TTBR0_EL1": (3, 0, 2, 0, 0),
    "TTBR1_EL1": (3, 0, 2, 0, 1), "TCR_EL1": (3, 0, 2, 0, 2), "AFSR0_EL1": (3, 0, 5, 1, 0),
    "AFSR1_EL1": (3, 0, 5, 1, 1), "ESR_EL1": (3, 0, 5, 2, 0), "FAR_EL1": (3, 0, 6, 0, 0), "PAR_EL1": (3, 0, 7, 4, 0),
    "MAIR_EL1": (3, 0, 10, 2, 0), "AMAIR_EL1": (3, 0, 10, 3, 0), "VBAR_EL1": (3, 0, 12, 0, 0),
    "CONTEXTIDR_EL1": (3, 0, 13, 0, 1), "TPIDR_EL1": (3, 0, 13, 0, 4), "CNTKCTL_EL1": (3, 0, 14, 1, 0),
    "CSSELR_EL1": (3, 2, 0, 0, 0), "TPIDR_EL0": (3, 3, 13, 0, 2), "TPIDRRO_EL0": (3, 3, 13, 0, 3),
    "MDSCR_EL1": (2, 0, 0, 2, 2), "DBGBVR0_EL1": (2, 0, 0, 0, 4), "DBGWCR0_EL1": (2, 0, 0, 0, 7),
    "ID_AA64PFR0_EL1": (3, 0, 0, 4, 0), "ID_AA64MMFR2_EL1": (3, 0, 0, 7, 2),
}  # fmt: skip
#: KVM's ids, frozen: TIMER_CVAL is the encoding of CNTVCT_EL0, TIMER_CNT that of CNTV_CVAL_EL0.
TIMER_CTL, TIMER_CNT, TIMER_CVAL = (
    U64 | SYSTEM | sysreg(*e) for e in ((3, 3, 14, 3, 1), (3, 3, 14, 3, 2), (3, 3, 14, 0, 2))
)
PTIMER_CTL, PTIMER_CVAL, PTIMER_CNT = (
    U64 | SYSTEM | sysreg(*e) for e in ((3, 3, 14, 2, 1), (3, 3, 14, 2, 2), (3, 3, 14, 0, 1))
)


@pytest.fixture
def vm() -> Vm:
    made = make_vm()
    make_gic(made)
    made.vcpu(0).init()
    return made


@pytest.fixture
def vcpu(vm: Vm) -> Vcpu:
    return vm.vcpu(0)


def test_the_list_has_every_register_once(vcpu: Vcpu) -> None:
    ids = vcpu.get_reg_list()
    assert len(ids) == len(set(ids))
    expected = {*CORE_IDS.values(), *FIRMWARE_IDS, *BITMAP_IDS, TIMER_CTL, TIMER_CNT, TIMER_CVAL, PTIMER_CTL,
                PTIMER_CVAL, PTIMER_CNT, *(U64 | SYSTEM | sysreg(*e) for e in SYSTEM_IDS.values())}  # fmt: skip
    assert not expected - set(ids)


#: All system registers that KVM lists for a vCPU with no optional feature.
ID_SPACE = {(3, 0, 0, crm, op2) for crm in range(1, 8) for op2 in range(8)}
DEBUG = {(2, 0, 0, n, op2) for n in range(16) for op2 in (4, 5, 6, 7)}
KVM_SYSTEM = {
    *SYSTEM_IDS.values(), *ID_SPACE, *DEBUG, (3, 0, 1, 0, 1), (2, 0, 0, 2, 0), (2, 0, 1, 1, 4), (2, 4, 0, 7, 0),
    (3, 0, 12, 1, 1), (3, 4, 3, 0, 0), (3, 4, 5, 0, 1), (3, 4, 5, 3, 0),
}  # fmt: skip
#: Of these, what this CPU has not, and why.
ABSENT = {
    "breakpoints of 16 beyond its 6, watchpoints beyond its 4":
        {(2, 0, 0, n, op2) for n in range(16) for op2 in (4, 5) if n >= 6}
        | {(2, 0, 0, n, op2) for n in range(16) for op2 in (6, 7) if n >= 4},
    "AArch32 state: DACR32_EL2, IFSR32_EL2, FPEXC32_EL2, DBGVCR32_EL2":
        {(3, 4, 3, 0, 0), (3, 4, 5, 0, 1), (3, 4, 5, 3, 0), (2, 4, 0, 7, 0)},
    "DISR_EL1: the RAS extension": {(3, 0, 12, 1, 1)},
    "MDCCINT_EL1: the debug communications channel": {(2, 0, 0, 2, 0)},
}  # fmt: skip


def test_the_system_registers_are_kvms_and_no_others(vcpu: Vcpu) -> None:
    """No unexpected one, and none missing but what this CPU lacks."""
    absent = set().union(*ABSENT.values())
    timers = {TIMER_CTL, TIMER_CNT, TIMER_CVAL, PTIMER_CTL, PTIMER_CVAL, PTIMER_CNT}
    expected = {U64 | SYSTEM | sysreg(*each) for each in KVM_SYSTEM - absent} | timers
    assert absent <= KVM_SYSTEM
    assert {i for i in vcpu.get_reg_list() if i & 0xFFF_0000 == SYSTEM} == expected
    for each in absent:
        assert errno_of(lambda e=each: vcpu.get_one_reg(U64 | SYSTEM | sysreg(*e))) == "ENOENT"


def test_no_register_rejects_what_it_says(vcpu: Vcpu) -> None:
    """The selftest's rejects_set is for SVE's vector lengths alone, which are not there: nothing is
    EPERM."""
    for register in vcpu.get_reg_list():
        vcpu.set_one_reg(register, vcpu.get_one_reg(register))
    assert errno_of(lambda: vcpu.get_one_reg(0x6060_0000_0015_FFFF)) == "ENOENT", (
        "KVM_REG_ARM64_SVE_VLS"
    )


def test_nothing_else_of_the_fixed_kinds(vcpu: Vcpu) -> None:
    """Core and firmware registers are a closed set; the rest are system registers and caches."""
    kinds = {
        kind: [i for i in vcpu.get_reg_list() if i & 0xFFF_0000 == kind]
        for kind in (CORE, FIRMWARE, BITMAP)
    }
    assert set(kinds[CORE]) == set(CORE_IDS.values())
    assert kinds[FIRMWARE] == FIRMWARE_IDS and kinds[BITMAP] == BITMAP_IDS
    assert {i & 0xFFF_0000 for i in vcpu.get_reg_list()} == {CORE, DEMUX, SYSTEM, FIRMWARE, BITMAP}


def test_what_is_listed_can_be_read_and_written_back(vcpu: Vcpu) -> None:
    for register in vcpu.get_reg_list():
        value = vcpu.get_one_reg(register)
        assert 0 <= value < 1 << (8 << (register >> 52 & 15))
        vcpu.set_one_reg(register, value)
        assert register in (TIMER_CTL, PTIMER_CTL) or vcpu.get_one_reg(register) == value


@pytest.mark.parametrize("name", CORE_IDS)
def test_core_registers_keep_what_is_written(vcpu: Vcpu, name: str) -> None:
    value = {"pstate": 0x8000_0004, "fpsr": 0x1F, "fpcr": 0x0300_0000}.get(
        name, 0x1234_5678_9ABC_DEF0
    )
    if "vregs" in name:
        value |= 0xFEDC << 112
    vcpu.set_one_reg(CORE_IDS[name], value)
    assert vcpu.get_one_reg(CORE_IDS[name]) == value


def test_stack_pointers_keep_their_values_when_pstate_selects_another(vcpu: Vcpu) -> None:
    """The order of restoring must not matter."""
    vcpu.set_one_reg(CORE_IDS["sp"], 0x1000)
    vcpu.set_one_reg(CORE_IDS["sp_el1"], 0x2000)
    for pstate in (0x3C4, 0x3C0, 0x3C5, 0x3C4):
        vcpu.set_one_reg(CORE_IDS["pstate"], pstate)
        assert (vcpu.get_one_reg(CORE_IDS["sp"]), vcpu.get_one_reg(CORE_IDS["sp_el1"])) == (
            0x1000,
            0x2000,
        )


def test_registers_that_there_are_not(vcpu: Vcpu) -> None:
    for register in (0, U32 | CORE, U64 | CORE | 1, U64 | FIRMWARE | 9, U64 | BITMAP | 4, U32 | DEMUX | 13,
                     U64 | SYSTEM | sysreg(3, 7, 15, 15, 7)):  # fmt: skip
        assert errno_of(lambda r=register: vcpu.get_one_reg(r)) == "ENOENT"
        assert errno_of(lambda r=register: vcpu.set_one_reg(r, 0)) == "ENOENT"


def test_timer_ids_are_swapped(vcpu: Vcpu) -> None:
    vcpu.set_one_reg(TIMER_CVAL, 0xABCD)
    vcpu.set_one_reg(TIMER_CNT, 1 << 40)
    assert vcpu.timer.cpu.vtimer.cval == 0xABCD and vcpu.get_one_reg(TIMER_CNT) == 1 << 40
    vcpu.set_one_reg(PTIMER_CVAL, 0x1234)
    assert vcpu.timer.cpu.ptimer.cval == 0x1234


def test_id_registers_cannot_be_changed(vcpu: Vcpu) -> None:
    for name in ("MIDR_EL1", "MPIDR_EL1", "ID_AA64PFR0_EL1", "CTR_EL0", "CLIDR_EL1"):
        register = U64 | SYSTEM | sysreg(*SYSTEM_IDS[name])
        value = vcpu.get_one_reg(register)
        assert errno_of(lambda r=register, v=value: vcpu.set_one_reg(r, v ^ 1)) == "EINVAL"
        assert vcpu.get_one_reg(register) == value


def test_caches(vcpu: Vcpu) -> None:
    caches = [i for i in vcpu.get_reg_list() if i & 0xFFF_0000 == DEMUX]
    assert [i & 0xFFFF for i in caches] == [0, 1, 2], "L1 data and instruction, L2"
    for register in caches:
        value = vcpu.get_one_reg(register)
        assert (
            value and errno_of(lambda r=register, v=value: vcpu.set_one_reg(r, v ^ 8)) == "EINVAL"
        )
    assert vcpu.get_one_reg(U64 | SYSTEM | sysreg(*SYSTEM_IDS["CSSELR_EL1"])) == 0, (
        "looking selects nothing"
    )


def test_workarounds(vcpu: Vcpu) -> None:
    for n, level in ((1, 2), (2, 3), (3, 2)):
        register = U64 | FIRMWARE | n
        assert vcpu.get_one_reg(register) == level
        vcpu.set_one_reg(register, 0)
        assert errno_of(lambda r=register, v=level + 1: vcpu.set_one_reg(r, v)) == "EINVAL"
        assert vcpu.get_one_reg(register) == level


def test_bitmaps(vm: Vm, vcpu: Vcpu) -> None:
    """Services can be taken away before the first run, and only those that there are."""
    for register in BITMAP_IDS:
        value = vcpu.get_one_reg(register)
        assert errno_of(lambda r=register, v=value: vcpu.set_one_reg(r, v | 1 << 40)) == "EINVAL"
        vcpu.set_one_reg(register, 0)
        assert vcpu.get_one_reg(register) == 0
    assert vm.smccc.call(0, 0x8400_0050, (0, 0, 0)) == ((1 << 64) - 1, 0, 0, 0), "no TRNG any more"
    run_vcpu(vm, 0)
    vcpu.set_one_reg(BITMAP_IDS[0], 0)
    assert errno_of(lambda: vcpu.set_one_reg(BITMAP_IDS[0], 1)) == "EBUSY"
    assert vcpu.get_one_reg(BITMAP_IDS[0]) == 0 and vcpu.get_mp_state() is MpState.STOPPED and RAM
