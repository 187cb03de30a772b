"""What Unicorn executes: no stale code, no CPU model with random numbers, every exit of a register
that it does not know.

Each test names a fault of Unicorn that breaks guests silently, and the cure. It fails if the engine
loses the cure.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asm import NE, XZR, Asm

from armvirt.arch.decode import SYS_BY_NAME
from armvirt.arch.encoding import sysreg
from armvirt.arch.gic import ICC_REGISTERS
from armvirt.errors import UserError
from armvirt.hw.engine import Action, EngineFactory, Leave, abi
from engine.bench import (
    DATA,
    EL1H,
    IAR1,
    RAM,
    STOP,
    UNDEF_ESR,
    XN,
    Bench,
    Stage1,
    stop_vectors,
    vector_that_stopped,
)

MakeBench = Callable[..., Bench]


# -- Stale code --


ALIAS, RUN, CODE = 0x5000_0000, 0x5100_0000, RAM + 0x1_0000
"""Virtual: where the code is written and where it runs. Physical: where it lies, which as a VA is
another page."""
RET, MOVZ_X0 = 0xD65F03C0, 0xD2800000


@pytest.mark.parametrize(
    "sync",
    [("IC IVAU", RUN), ("IC IVAU", ALIAS), ("IC IALLU", 0), ("IC IALLUIS", 0)],
    ids=["ivau-run", "ivau-alias", "iallu", "ialluis"],
)
def test_code_written_through_an_alias(bench: MakeBench, sync: tuple[str, int]) -> None:
    """Stores through a mapping that is not executable do not invalidate translated code after the
    first one. Cache maintenance is trapped and invalidates by physical address, whatever VA names
    the line."""
    operation, line = sync
    rounds = 10
    program = Asm()
    program.mov(10, ALIAS)
    program.mov(11, RUN)
    program.mov(12, MOVZ_X0)
    program.mov(13, RET)
    program.mov(15, line)
    program.str_w(13, 10, 4)
    program.label("round")
    program.add_imm(12, 12, 1 << 5)
    program.str_w(12, 10, 0)
    program.sys("DC CVAU", 10)
    program.dsb()
    program.sys(operation, 15 if line else XZR)
    program.dsb()
    program.isb()
    program.blr(11)
    program.add(14, 14, 0)
    program.add_imm(16, 16, 1)
    program.cmp_imm(16, rounds)
    program.b_cond(NE, "round")
    program.hvc(STOP)
    guest = bench(program)
    tables = Stage1(guest)
    tables.identity()
    tables.map(ALIAS, CODE, XN)
    tables.map(RUN, CODE)
    tables.map(CODE, DATA)
    tables.enable()
    assert guest.run(10_000) == Leave.STOP
    assert guest.x(0) == rounds and guest.x(14) == rounds * (rounds + 1) // 2


@pytest.mark.parametrize("when", ["between runs", "in an exit"])
def test_code_written_by_the_hypervisor(bench: MakeBench, when: str) -> None:
    """A write by a device or a debugger never invalidates; whoever writes says so, with the
    physical address. The guest runs that code at another VA, with its MMU on: the address must not
    be taken for a virtual one."""
    program = Asm()
    program.mov(11, RUN)
    program.label("round")
    program.hvc(1 if when == "in an exit" else STOP)
    program.blr(11)
    program.add(14, 14, 0)
    program.b("round")
    guest = bench(program)
    tables = Stage1(guest)
    tables.identity()
    tables.map(RUN, CODE)
    tables.map(CODE, DATA)
    tables.enable()
    values = iter(range(1, 8))

    def rewrite() -> int:
        value = next(values, 0)
        guest.write(CODE, (MOVZ_X0 | value << 5).to_bytes(4, "little") + RET.to_bytes(4, "little"))
        guest.engine.invalidate_code(CODE, 8)
        return Action.RETRY if value else Action.STOP

    guest.callbacks.on_hvc[1] = rewrite
    assert guest.run(10_000) == Leave.STOP
    if when == "between runs":
        while rewrite() == Action.RETRY:
            assert guest.run(10_000) == Leave.STOP
    assert guest.x(14) == sum(range(1, 8))
    assert guest.engine.pstate & 0xF == EL1H, "the look from EL2 is over"


def test_other_cpus_are_told_the_physical_address(bench: MakeBench) -> None:
    """IC IVAU reaches every CPU: the message has the physical address, for each has its own view of
    VAs."""
    program = Asm()
    program.mov(1, ALIAS + 0x48)
    program.sys("IC IVAU", 1)
    program.sys("IC IALLUIS")
    program.sys("IC IALLU")
    program.sys("TLBI VMALLE1IS")
    program.sys("TLBI VMALLE1")
    program.hvc(STOP)
    guest = bench(program)
    tables = Stage1(guest)
    tables.identity()
    tables.map(ALIAS, CODE)
    tables.enable()
    guest.engine.state.broadcast = 1
    guest.run()
    assert guest.callbacks.of("broadcast") == [
        (SYS_BY_NAME["IC IVAU"].encoding, CODE + 0x40),
        (SYS_BY_NAME["IC IALLUIS"].encoding, 0),
        (SYS_BY_NAME["TLBI VMALLE1IS"].encoding, 0),
    ]


def test_maintenance_that_el2_wants(bench: MakeBench) -> None:
    """With HCR_EL2.TPU set by the hypervisor itself, the same trap is an exit, and nothing is done
    for it."""
    program = Asm()
    program.sys("IC IVAU", 1)
    program.sys("DC CVAU", 1)
    program.hvc(STOP)
    guest = bench(program)
    guest.engine.state.native_maintenance = 0
    guest.run()
    assert [line[0] >> 26 for line in guest.callbacks.of("el2")] == [0x18, 0x18, 0x16]  # type: ignore[operator]


# -- Random numbers --


def test_the_max_model_is_not_offered() -> None:
    """The core's ``max`` model has RNDR, which is the host's randomness. Only deterministic models
    may be chosen."""
    with pytest.raises(UserError, match="cortex-a53, cortex-a57, cortex-a72"):
        EngineFactory("portable", "max")
    assert sorted(abi.CPU_MODELS) == ["cortex-a53", "cortex-a57", "cortex-a72"]


@pytest.mark.parametrize("model", sorted(abi.CPU_MODELS))
def test_no_model_has_random_numbers(model: str) -> None:
    """RNDR and RNDRRS are UNDEFINED on every model that is offered, and the ID register does not
    promise them."""
    program = Asm()
    program.mrs(0, "ID_AA64ISAR0_EL1")
    program.mrs(1, sysreg(3, 3, 2, 4, 0))
    program.hvc(STOP)
    stop_vectors(program)
    guest = Bench(EngineFactory("portable", model), program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.run()
    assert vector_that_stopped(guest) == 0x200 and guest.system("ESR_EL1") == UNDEF_ESR
    assert guest.x(0) >> 60 == 0 and guest.system("ELR_EL1") == RAM + 4
    guest.close()


# -- Registers that Unicorn does not know --


def test_gic_registers_are_undefined_exits_only(bench: MakeBench) -> None:
    """Answering an MRS or MSR that the core does not know in its hook repeats the block's beginning
    and loses its end. Such accesses are completed in the UNDEF exit: what stands around them in a
    block runs exactly once."""
    program = Asm()
    program.mov(2, DATA)
    for register in ("ICC_PMR_EL1", "ICC_IGRPEN1_EL1", "ICC_BPR1_EL1", "ICC_EOIR1_EL1"):
        program.movz(1, len(program.words))
        program.str_post(1, 2, 8)
        program.msr(ICC_REGISTERS[register], 1)
        program.str_post(1, 2, 8)
        program.mrs(3, IAR1)
        program.str_post(3, 2, 8)
    program.hvc(STOP)
    guest = bench(program)
    guest.engine.state.virq = 1
    guest.run()
    lines = guest.callbacks.of("undefined")
    assert len(lines) == 8 and guest.x(2) == DATA + 8 * 12
    writes = [line[2] for line in lines if not line[0] & 1 << 21]  # type: ignore[operator]
    words = [guest.read64(DATA + 8 * i) for i in range(12)]
    assert words[0::3] == words[1::3] == writes and words[2::3] == [27, 0, 0, 0]
    assert guest.count == len(program.words)
