"""Exception entry to EL1 (DDI 0487 D1.10, AArch64.TakeException).

EL2 calls `take_exception` for a vCPU that is not running. The portable engine calls it for the vCPU
that is running. native.c implements the same in C (`enter_el1`); a test compares the two.
"""

from __future__ import annotations

from typing import Protocol

from armvirt.arch.bits import MASK64
from armvirt.arch.named import ELR_EL1, ESR_EL1, FAR_EL1, SPSR_EL1, VBAR_EL1
from armvirt.arch.pstate import PSTATE_PAN, PSTATE_SP, Vector, entry_pstate, vector_offset


class Registers(Protocol):
    """The registers that an exception entry reads and writes. ``sp`` is the stack pointer in use.
    The banked copy (``sp_el0`` or ``sp_el1``) of the stack pointer in use is stale."""

    pc: int
    pstate: int
    sp: int
    sp_el0: int

    @property
    def sp_el1(self) -> int: ...

    def read_system(self, encoding: int) -> int: ...

    def write_system(self, encoding: int, value: int) -> None: ...

    def rebuild_flags(self) -> None: ...


def take_exception(
    registers: Registers, kind: Vector, esr: int | None = None, far: int | None = None
) -> int:
    """Take an exception to EL1 at the present PC. Returns the address of the exception vector.

    ``esr`` is None for an exception without a syndrome (IRQ, FIQ). ``far`` is None for an exception
    that does not write FAR_EL1.
    """
    pstate = registers.pstate
    entered = entry_pstate(pstate) & ~PSTATE_PAN  # no CPU model has FEAT_PAN: the bit is RES0
    target = registers.read_system(VBAR_EL1) + vector_offset(pstate, kind) & MASK64
    registers.write_system(SPSR_EL1, pstate)
    registers.write_system(ELR_EL1, registers.pc)
    if esr is not None:
        registers.write_system(ESR_EL1, esr)
    if far is not None:
        registers.write_system(FAR_EL1, far)
    if pstate & PSTATE_SP:
        registers.pstate = entered
    else:  # EL0 or EL1t: the stack pointer in use is SP_EL0
        registers.sp_el0, stack = registers.sp, registers.sp_el1
        registers.pstate = entered
        registers.sp = stack
    registers.pc = target
    registers.rebuild_flags()
    return target
