"""Stop before the instruction at one address, in either engine.

The engine's own block hook is the hot path and stays as it is. A second block hook, which only the
blocks of one page call, comes after it and takes back what it did for a block that has the address
inside: the engine steps to the address (the *tail*, docs/engine.md), where the hook is called
again, with the address at the start of a block.

Addresses are virtual, as the guest's PC has them. A breakpoint of the architecture would be the
guest's to use and to see; this one it cannot see.
"""

from __future__ import annotations

import ctypes as C
from collections.abc import Callable

from armvirt.arch.stage2 import PAGE_SIZE
from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.state import NO_BLOCK, Leave

_BLOCK = C.CFUNCTYPE(None, C.c_void_p, C.c_uint64, C.c_uint32, C.c_void_p)


class PcStop:
    """While it is in place, `Engine.run` leaves with STOP before the instruction at ``address``
    executes, even if it starts there. ``on_stop`` is called then. Make and `remove` it between
    runs."""

    def __init__(self, engine: Engine, address: int, on_stop: Callable[[], None]) -> None:
        self._address = address
        self._place(engine, address & -PAGE_SIZE, address, on_stop)

    def _place(self, engine: Engine, first: int, last: int, on_stop: Callable[[], None]) -> None:
        self._engine, self._on_stop = engine, on_stop
        self._function = _BLOCK(self._on_block)
        engine.invalidate_all_code()  # what is translated calls one hook only
        self._handle = engine.add_hook(abi.HOOK_BLOCK, self._function, first, last)

    def remove(self) -> None:
        self._engine.remove_hook(self._handle)

    def _on_block(self, _uc: int, pc: int, size: int, _user: int) -> None:
        state = self._engine.state
        if not pc <= self._address < pc + size or not state.open or state.block_pc != pc:
            return  # not here, or the engine leaves before this block anyway
        if pc != self._address and state.tail:
            return
        self._leave(here=pc == self._address)

    def _leave(self, here: bool) -> None:
        """Take back the block, to stop here or to step to the address."""
        state = self._engine.state
        state.open = state.marks = 0
        state.block_pc = NO_BLOCK
        if here:
            self._on_stop()
        state.leave = Leave.STOP if here else Leave.TAIL
        self._engine.lib.uc_emu_stop(self._engine.uc)


class RangeStop(PcStop):
    """While it is in place, `Engine.run` leaves with STOP before the first instruction that
    executes in a range of whole pages, unless it starts there: a block does not cross into another
    page."""

    def __init__(self, engine: Engine, addresses: range, on_stop: Callable[[], None]) -> None:
        self._place(engine, addresses.start, addresses.stop - 1, on_stop)

    def _on_block(self, _uc: int, pc: int, size: int, _user: int) -> None:
        state = self._engine.state
        if state.open and state.block_pc == pc:
            self._leave(here=True)
