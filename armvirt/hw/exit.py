"""Exits from a PE to EL2."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from struct import Struct

from armvirt.arch.esr import EC_SHIFT, ISS_MASK
from armvirt.hw.engine.state import Action, EngineState
from armvirt.records import NamedTuple

__all__ = ["EXIT_OFFSET", "Action", "ExitKind", "SyncExit", "exit_fields", "new_exit"]


class ExitKind(Enum):
    """The reason for which `Pe.run` returned.

    * IRQ: a physical interrupt is signalled to EL2.
    * BUDGET: the deadline was reached.
    * WFE: the guest executed WFE while the event register was clear.
    * YIELD: the guest executed YIELD at the virtual time ``yield_at`` of `Pe.run` or later.
    * STOPPED: a stop was requested.
    * SPIN: the guest executes a branch to itself.
    * VECTOR_LOOP: the exception vectors of the guest fault again and again.
    """

    IRQ = "irq"
    BUDGET = "budget"
    WFE = "wfe"
    YIELD = "yield"
    STOPPED = "stopped"
    SPIN = "spin"
    VECTOR_LOOP = "vector-loop"


class SyncExit(NamedTuple):
    """A synchronous exception to EL2, with the values of the EL2 registers (DDI 0487 D17.2.37,
    ESR_ELx).

    ``ipa`` is the faulting IPA of a stage-2 abort, from HPFAR_EL2.FIPA and the page offset in
    FAR_EL2. ``pc`` is ELR_EL2. ``rt`` is the number of the general register that the syndrome
    names; 31 means XZR, or that the syndrome names no register. ``rt_value`` is the 64-bit value of
    this register. ``insn`` is the instruction word; 0 means that the engine has not read the
    instruction. ``big_endian`` is 1 if the exit is a data abort of a big-endian access.
    """

    esr: int
    far: int
    ipa: int
    pc: int
    rt: int
    rt_value: int
    insn: int = 0
    big_endian: int = 0

    @property
    def ec(self) -> int:
        return self.esr >> EC_SHIFT

    @property
    def iss(self) -> int:
        return self.esr & ISS_MASK


new_exit: Callable[[tuple[int, ...]], SyncExit] = partial(tuple.__new__, SyncExit)
"""Make a `SyncExit` from a tuple of all its fields. This is faster than the constructor of the
NamedTuple, which is Python code."""

exit_fields: Callable[[EngineState, int], tuple[int, ...]]
exit_fields = Struct(f"<{len(SyncExit._fields)}Q").unpack_from
"""Read the values of all fields of a `SyncExit` from the state of an engine. The first argument is
the `EngineState`. The second argument is the offset of the first field in it, which is always
`EXIT_OFFSET`."""

EXIT_OFFSET = int(vars(EngineState)["esr"].offset)
