"""The exit table: what EL2 does for each exception class, and by default."""

from __future__ import annotations

import pytest
from hyp_tools import DATA, RAM, Asm, Rig, both_engines, faulting, program, run

from armvirt.arch.esr import EC
from armvirt.hyp.kvm import Exit, SemihostingExit, Stop, SystemEventExit, Vcpu
from armvirt.hyp.run.exits import HANDLERS, unknown

UNDEFINED = 1 << 25  # EC 0, IL
NOT_SUPPORTED = (1 << 64) - 1
VERSION, FEATURES = 0x8400_0000, 0x8400_000A


def test_the_table_names_classes_of_the_architecture() -> None:
    assert set(HANDLERS) <= set(EC)


@both_engines
@pytest.mark.parametrize(
    "write",
    [
        lambda a: a.smc(0),
        lambda a: a.hvc(1),
        lambda a: a.hlt(0xF000),
        lambda a: a.hlt(1),
        lambda a: a.udf(),
    ],
    ids=["smc", "hvc-1", "hlt-f000", "hlt-1", "udf"],
)
def test_undefined(kind: str, write: object) -> None:
    """No EL3 behind the hypervisor, one HVC, and HLT means nothing where semihosting is off."""
    rig = faulting(write, kind)  # type: ignore[arg-type]
    assert (rig.x(19), rig.x(20)) == (1, UNDEFINED)


def test_a_class_without_a_row() -> None:
    """SVE, for example: kvm_handle_unknown_ec."""
    assert EC(0x19) not in HANDLERS
    rig = faulting(lambda a: a.word(0x0420E3E0))  # cntb x0
    assert rig.x(20) == UNDEFINED
    assert callable(unknown)


def test_hypercalls() -> None:
    def write(a: Asm) -> None:
        a.mov(0, VERSION)
        a.hvc(0)
        a.movr(19, 0)
        a.mov(0, FEATURES)
        a.mov(1, VERSION)
        a.hvc(0)
        a.movr(20, 0)
        a.mov(0, 0xC600_FFFF)
        a.hvc(0)
        a.movr(21, 0)

    rig = run(write)
    assert (rig.x(19), rig.x(20), rig.x(21)) == (1 << 16 | 3, 0, NOT_SUPPORTED)


# -- semihosting --


@both_engines
def test_a_semihosting_call(kind: str) -> None:
    """Operation and parameter go to the VMM, its result to X0; W0 counts only."""

    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        rig.log.append(exit)
        if isinstance(exit, SemihostingExit):
            exit.result = 0x55
        return isinstance(exit, SystemEventExit)

    rig = Rig(
        program(
            lambda a: (a.mov(0, 0xDEAD_0000_0031), a.mov(1, DATA), a.hlt(0xF000), a.movr(5, 0))
        ),
        kind=kind,
    )
    rig.vm.semihosting = True
    rig.vcpu.exit_handler = handle
    rig.finish()
    call = rig.log[0]
    assert isinstance(call, SemihostingExit) and (call.operation, call.parameter) == (0x31, DATA)
    assert rig.x(5) == 0x55


def test_a_call_that_ends_the_run() -> None:
    """A true answer: the run is over, the HLT is done."""
    rig = Rig(program(lambda a: (a.mov(0, 0x18), a.hlt(0xF000), a.movz(5, 1))))
    rig.vm.semihosting = True
    assert rig.run() is Stop.HANDLER and isinstance(rig.end, SemihostingExit)
    assert rig.x(5) == 0 and rig.vcpu.context.pc == RAM + 8


@both_engines
def test_a_call_that_is_tried_again(kind: str) -> None:
    """The VMM has no input yet: the vCPU sleeps and the HLT traps again; time passes, no
    instruction does."""
    tries: list[tuple[int, int]] = []

    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        if isinstance(exit, SemihostingExit):
            tries.append((rig.host.clock.now, rig.host.insns))
            if len(tries) < 3:
                exit.retry_at = rig.host.clock.now + 10_000
            else:
                exit.result = 0x41
        return isinstance(exit, SystemEventExit)

    rig = Rig(program(lambda a: (a.movz(0, 7), a.hlt(0xF000), a.movr(5, 0))), kind=kind)
    rig.vm.semihosting = True
    rig.vcpu.exit_handler = handle
    rig.finish()
    assert tries == [(1, 1), (10_001, 1), (20_001, 1)]
    assert rig.x(5) == 0x41 and rig.host.insns == 1 + 1 + 1 + 3


def test_other_vcpus_run_while_one_waits_for_input() -> None:
    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        if isinstance(exit, SemihostingExit):
            exit.retry_at = rig.host.clock.now + 10_000
        return isinstance(exit, SystemEventExit)

    rig = Rig(program(lambda a: (a.movz(0, 7), a.hlt(0xF000))), vcpus=2)
    other = Asm(RAM + 0x1000)
    other.label("loop")
    other.add_imm(1, 1, 1)
    other.nop()
    other.b("loop")
    rig.start(other, 1)
    rig.vm.semihosting = True
    for vcpu in rig.vcpus:
        vcpu.exit_handler = handle
    assert rig.run(1_000_000) is Stop.UNTIL
    assert rig.vcpus[0].context.insns == 1
    assert rig.vcpus[1].context.insns == 1_000_000 - 1
