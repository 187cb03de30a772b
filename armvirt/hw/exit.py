"""Exits from a PE to EL2."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial

from armvirt.arch.esr import EC_SHIFT, ISS_MASK
from armvirt.arch.named import HPFAR_FIPA
from armvirt.hw.engine.state import Action
from armvirt.records import NamedTuple

__all__ = ["Action", "ExitKind", "SyncExit", "new_exit"]


class ExitKind(Enum):
    """The reason for which `Pe.run` returned.

    IRQ: a physical interrupt is signalled to EL2. BUDGET: the deadline was reached. WFE: the guest
    executed WFE with the event register clear. YIELD: the guest executed YIELD at or after
    ``yield_at`` of `Pe.run`. STOPPED: a stop was requested. SPIN: the guest executes a branch to
    itself. VECTOR_LOOP: the exception vectors of the guest fault again and again.
    """

    IRQ = "irq"
    BUDGET = "budget"
    WFE = "wfe"
    YIELD = "yield"
    STOPPED = "stopped"
    SPIN = "spin"
    VECTOR_LOOP = "vector-loop"


class SyncExit(NamedTuple):
    """A synchronous exception to EL2, as the EL2 registers show it (DDI 0487 D17.2.37 ESR_ELx).

    ``pc`` is ELR_EL2. ``rt`` is the register that the syndrome names (31: none or XZR), and
    ``rt_value`` is its 64-bit value. ``insn`` is the instruction word; 0 means that the engine has
    not read the instruction.
    """

    esr: int
    far: int
    hpfar: int
    pc: int
    rt: int
    rt_value: int
    insn: int = 0

    @property
    def ec(self) -> int:
        return self.esr >> EC_SHIFT

    @property
    def iss(self) -> int:
        return self.esr & ISS_MASK

    @property
    def ipa(self) -> int:
        """The faulting IPA: HPFAR_EL2.FIPA and the page offset of FAR_EL2."""
        return (self.hpfar & HPFAR_FIPA) << 8 | self.far & 0xFFF


new_exit: Callable[[tuple[int, int, int, int, int, int, int]], SyncExit] = partial(
    tuple.__new__, SyncExit
)
"""Make a `SyncExit` from all its fields; faster than the Python constructor of a NamedTuple."""
