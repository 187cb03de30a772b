"""Stop before the instruction at one address, in both engines.

The engine's own block hook does not check for breakpoints, because every block calls this hook and
would become slower. Instead a breakpoint adds a second block hook for one page. Unicorn calls the
second hook after the engine's own hook. If a block contains the address, the second hook cancels
the start of the block, and the engine executes single steps up to the address (the *tail*,
docs/engine.md). At the address a new block begins. Unicorn then calls the second hook for this
block, and the run stops.

Addresses are virtual, like the guest's PC. The guest cannot see this breakpoint. The breakpoint
registers of the architecture are not used, because the guest may use them for itself.
"""

from __future__ import annotations

import ctypes as C
from collections.abc import Callable

from armvirt.arch.translation import PAGE_SIZE
from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.state import NO_BLOCK, Leave

_BLOCK = C.CFUNCTYPE(None, C.c_void_p, C.c_uint64, C.c_uint32, C.c_void_p)


class PcStop:
    """A breakpoint of the hypervisor. Before the instruction at ``address``, `Engine.run` calls
    ``on_stop`` and leaves with STOP, even if the run starts at ``address``. Create and `remove` a
    `PcStop` only between runs."""

    def __init__(self, engine: Engine, address: int, on_stop: Callable[[], None]) -> None:
        self._address = address
        self._place(engine, address & -PAGE_SIZE, address, on_stop)

    def _place(self, engine: Engine, first: int, last: int, on_stop: Callable[[], None]) -> None:
        self._engine, self._on_stop = engine, on_stop
        self._function = _BLOCK(self._on_block)
        engine.invalidate_all_code()  # code that is already translated calls one hook only
        self._handle = engine.add_hook(abi.HOOK_BLOCK, self._function, first, last)

    def remove(self) -> None:
        self._engine.remove_hook(self._handle)

    def _on_block(self, _uc: int, pc: int, size: int, _user: int) -> None:
        state = self._engine.state
        if not pc <= self._address < pc + size or not state.open or state.block_pc != pc:
            return  # another address, or the engine leaves before this block anyway
        if pc != self._address and state.tail:
            return
        self._leave(here=pc == self._address)

    def _leave(self, here: bool) -> None:
        """Cancel the start of the block, which the engine's own block hook has recorded in the
        state. If ``here`` is True, call ``on_stop`` and stop the run. Otherwise execute single
        steps up to the address."""
        state = self._engine.state
        state.open = state.marks = 0
        state.block_pc = NO_BLOCK
        if here:
            self._on_stop()
        self._engine.leave(Leave.STOP if here else Leave.TAIL)


class RangeStop(PcStop):
    """A breakpoint for a range of whole pages. `Engine.run` leaves with STOP before the first
    instruction in the range, unless the run starts in the range. A translated block never crosses a
    page boundary, so the guest can enter the range only at the start of a block."""

    def __init__(self, engine: Engine, addresses: range, on_stop: Callable[[], None]) -> None:
        self._place(engine, addresses.start, addresses.stop - 1, on_stop)

    def _on_block(self, _uc: int, pc: int, size: int, _user: int) -> None:
        state = self._engine.state
        if state.open and state.block_pc == pc:
            self._leave(here=True)
