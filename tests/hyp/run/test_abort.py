"""Stage-2 aborts outside memory: every form of device access, and what the guest gets where no
device answers."""

from __future__ import annotations

import pytest
from hyp_tools import (
    DATA,
    DEVICE,
    NOWHERE,
    RAM,
    Asm,
    Rig,
    both_engines,
    enable_stage1,
    faulting,
    program,
    run,
)

from armvirt.arch.esr import DFSC, EC
from armvirt.hyp.kvm import MmioExit, Vcpu

VALUE = 0x8877_6655_8483_8281
MASK64 = (1 << 64) - 1

# Rt is X1, Rn is X2; DDI 0487 C4.1.94.
STORES = {
    "strb": (0x39000041, 1),
    "strh": (0x79000041, 2),
    "str w": (0xB9000041, 4),
    "str x": (0xF9000041, 8),
    "stlr x": (0xC89FFC41, 8),
    "stur w": (0xB8000041, 4),
}
LOADS = {
    "ldrb": (0x39400041, 1, 0x81),
    "ldrh": (0x79400041, 2, 0x8281),
    "ldr w": (0xB9400041, 4, 0x8483_8281),
    "ldr x": (0xF9400041, 8, VALUE),
    "ldrsb x": (0x39800041, 1, 0xFFFF_FFFF_FFFF_FF81),
    "ldrsb w": (0x39C00041, 1, 0xFFFF_FF81),
    "ldrsh x": (0x79800041, 2, 0xFFFF_FFFF_FFFF_8281),
    "ldrsh w": (0x79C00041, 2, 0xFFFF_8281),
    "ldrsw": (0xB9800041, 4, 0xFFFF_FFFF_8483_8281),
    "ldar w": (0x88DFFC41, 4, 0x8483_8281),
}


def access(a: Asm, *words: int, value: int = VALUE, address: int = DEVICE + 0x10) -> None:
    """X1 = ``value``, X2 = ``address``, then the instructions."""
    a.mov(1, value)
    a.mov(2, address)
    a.word(*words)


def loading(word: int, kind: str = "auto", **devices: int) -> Rig:
    rig = Rig(program(lambda a: access(a, word, value=0)), kind=kind)
    rig.devices = {DEVICE + int(offset[1:], 16): value for offset, value in devices.items()}
    return rig.finish()


@both_engines
@pytest.mark.parametrize(("word", "size"), STORES.values(), ids=STORES)
def test_stores_by_syndrome(kind: str, word: int, size: int) -> None:
    rig = run(lambda a: access(a, word), kind)
    assert rig.mmio == [(DEVICE + 0x10, size, True, VALUE & (1 << 8 * size) - 1)]


@both_engines
@pytest.mark.parametrize(("word", "size", "expected"), LOADS.values(), ids=LOADS)
def test_loads_by_syndrome(kind: str, word: int, size: int, expected: int) -> None:
    """The device answers with more bits than were asked for: they do not count."""
    rig = loading(word, kind, x10=VALUE)
    assert rig.x(1) == expected
    assert rig.mmio == [(DEVICE + 0x10, size, False, VALUE)]


def test_the_zero_register() -> None:
    rig = run(lambda a: access(a, STORES["str x"][0] | 31, LOADS["ldr x"][0] | 31))
    assert rig.mmio == [(DEVICE + 0x10, 8, True, 0), (DEVICE + 0x10, 8, False, 0)]


@both_engines
def test_pairs(kind: str) -> None:
    """STP, LDP and LDPSW have no syndrome: two transfers, at ascending addresses."""
    rig = Rig(
        program(lambda a: (a.mov(3, 5), access(a, 0xA9000C41, 0x29000C41, 0xA9401444, 0x69401C46))),
        kind=kind,
    )
    rig.devices = {DEVICE + 0x10: 0xF000_0000, DEVICE + 0x14: 0x8000_0001, DEVICE + 0x18: 7}
    rig.finish()
    low = VALUE & 0xFFFF_FFFF
    assert rig.mmio[:4] == [
        (DEVICE + 0x10, 8, True, VALUE),
        (DEVICE + 0x18, 8, True, 5),
        (DEVICE + 0x10, 4, True, low),
        (DEVICE + 0x14, 4, True, 5),
    ]
    assert (rig.x(4), rig.x(5)) == (0xF000_0000, 7)
    assert (rig.x(6), rig.x(7)) == (0xFFFF_FFFF_F000_0000, 0xFFFF_FFFF_8000_0001)


@both_engines
def test_writeback(kind: str) -> None:
    """LDR X1, [X2], #-8; STR X1, [X2, #16]!: the base moves once the access is done."""
    rig = Rig(program(lambda a: access(a, 0xF85F8441, 0xF8010C41)), kind=kind)
    rig.devices = {DEVICE + 0x10: 42}
    rig.finish()
    assert rig.mmio == [(DEVICE + 0x10, 8, False, 42), (DEVICE + 0x18, 8, True, 42)]
    assert (rig.x(1), rig.x(2)) == (42, DEVICE + 0x18)


@both_engines
def test_vector_registers(kind: str) -> None:
    """STR Q takes two transfers; LDR D clears the upper half; LD1 with post-index."""

    def write(a: Asm) -> None:
        a.mov(9, 3 << 20)
        a.msr("CPACR_EL1", 9)
        a.isb()
        access(
            a, 0x9E670020, 0x4E181C20, 0x3D800040, 0xFD400041, 0x4CDF7042
        )  # v0 = X1:X1; str q0; ldr d1; ld1 {v2}

    rig = Rig(program(write), kind=kind)
    rig.devices = {DEVICE + 0x10: 0x11, DEVICE + 0x18: 0x22}
    rig.finish()
    assert rig.mmio[:2] == [(DEVICE + 0x10, 8, True, VALUE), (DEVICE + 0x18, 8, True, VALUE)]
    engine = rig.vcpu.context.engine
    assert engine.q(1) == 0x11
    assert engine.q(2) == 0x22 << 64 | 0x11
    assert rig.x(2) == DEVICE + 0x20


@both_engines
def test_big_endian(kind: str) -> None:
    """SCTLR_EL1.EE: the device sees the bytes in memory order, the register gets them back the
    other way."""

    def write(a: Asm) -> None:
        a.mrs(3, "SCTLR_EL1")
        a.mov(4, 1 << 25)
        a.orr(3, 3, 4)
        a.msr("SCTLR_EL1", 3)
        a.isb()
        access(a, STORES["str w"][0], LOADS["ldrh"][0], value=0x0102_0304)

    rig = Rig(program(write), kind=kind)
    rig.devices = {DEVICE + 0x10: 0xAABB}
    rig.finish()
    assert rig.mmio[0] == (DEVICE + 0x10, 4, True, 0x0403_0201)
    assert rig.x(1) == 0xBBAA


# -- what ends in an exception --


def abort_of(rig: Rig) -> tuple[int, int, int]:
    """(EC, fault status, WnR) of the exception that ended the program."""
    assert rig.x(19) == 1, "no exception"
    esr = rig.x(20)
    return esr >> 26, esr & 0x3F, esr >> 6 & 1


@both_engines
@pytest.mark.parametrize("write", [True, False], ids=["store", "load"])
def test_nobody_answers(kind: str, write: bool) -> None:
    """A synchronous external abort with FAR, at the instruction; the register is untouched."""
    word = STORES["str x"][0] if write else LOADS["ldr x"][0]
    rig = faulting(lambda a: access(a, word, address=NOWHERE + 8), kind)
    assert abort_of(rig) == (EC.DABT_CURRENT, DFSC.EXTERNAL, int(write))
    assert rig.x(21) == NOWHERE + 8
    assert rig.word(rig.x(22), 4) == word
    assert rig.x(1) == VALUE


@pytest.mark.parametrize(
    ("word", "code"),
    [
        (0xC85F7C41, DFSC.EXCLUSIVE),  # ldxr x1, [x2]
        (0x085FFC41, DFSC.EXCLUSIVE),  # ldaxrb w1, [x2]
        (0xD50B7422, DFSC.ALIGNMENT),  # dc zva, x2
    ],
    ids=["ldxr", "ldaxrb", "dc-zva"],
)
@both_engines
def test_not_for_devices(kind: str, word: int, code: int) -> None:
    rig = faulting(lambda a: access(a, word), kind)
    assert abort_of(rig)[:2] == (EC.DABT_CURRENT, code)
    assert not rig.mmio


def test_a_pair_of_which_one_half_is_refused() -> None:
    """No register and no base changes: the instruction has not happened, as far as the guest can
    tell."""

    def handle(vcpu: Vcpu, exit: MmioExit) -> None:
        exit.data, exit.abort = 9, exit.phys_addr != DEVICE + 0x10

    rig = Rig(program(lambda a: access(a, 0xA8C10C41)))  # ldp x1, x3, [x2], #16, and no vectors
    rig.on_mmio = handle
    rig.host.run(insns=7)
    assert [(e[0], e[1]) for e in rig.mmio] == [(DEVICE + 0x10, 8), (DEVICE + 0x18, 8)]
    assert (rig.x(1), rig.x(2), rig.x(3)) == (VALUE, DEVICE + 0x10, 0)
    assert rig.vcpu.context.pc == 0x200


@both_engines
def test_across_a_page_of_the_device(kind: str) -> None:
    """Device memory is never unaligned: STP over the end of a page is an alignment fault."""
    rig = faulting(lambda a: access(a, 0xA9000C41, address=DEVICE + 0xFF8), kind)
    assert abort_of(rig)[:2] == (EC.DABT_CURRENT, DFSC.ALIGNMENT)


@both_engines
def test_a_jump_to_nowhere(kind: str) -> None:
    rig = faulting(lambda a: (a.mov(2, NOWHERE), a.br(2)), kind)
    assert rig.x(20) >> 26 == EC.IABT_CURRENT and rig.x(20) & 0x3F == DFSC.EXTERNAL
    assert (rig.x(21), rig.x(22)) == (NOWHERE, NOWHERE)


def test_execution_from_a_device() -> None:
    rig = faulting(lambda a: (a.mov(2, DEVICE), a.br(2)))
    assert rig.x(20) >> 26 == EC.IABT_CURRENT
    assert not rig.mmio


def test_stage_1_tables_where_there_is_no_memory() -> None:
    """The walk itself aborts; KVM injects an external abort for the fetch, without saying that it
    was a walk."""

    def write(a: Asm) -> None:
        enable_stage1(a, NOWHERE)

    rig = Rig(program(write))
    assert rig.run().value == "handler"
    assert "vectors" in str(rig.end)  # the vectors lie in the same tables
    esr = rig.vcpu.context.engine.save()["system"]["ESR_EL1"]
    assert esr >> 26 == EC.IABT_CURRENT and esr & 0x30 == DFSC.EXTERNAL


def test_an_answer_that_stops_the_run() -> None:
    """A true answer of the handler: the run comes back after that instruction, with it done."""
    rig = Rig(program(lambda a: access(a, LOADS["ldr w"][0], STORES["str w"][0])))
    rig.on_mmio = lambda vcpu, exit: not exit.is_write
    rig.devices = {}
    before = rig.run()
    assert before.value == "handler" and len(rig.mmio) == 1
    assert rig.word(rig.vcpu.context.pc, 4) == STORES["str w"][0]
    assert rig.finish().mmio[1] == (DEVICE + 0x10, 4, True, 0)


def test_in_two_slots() -> None:
    """Ordinary memory beside the device: nothing of it comes to the VMM."""
    rig = run(lambda a: access(a, STORES["str x"][0], address=DATA))
    assert rig.word(DATA) == VALUE and not rig.mmio
    assert rig.vm.read_memory(RAM, 4) != bytes(4)
