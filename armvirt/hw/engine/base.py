"""The base class of both engines: creation, running, callbacks, saved state.

An engine has the registers and translations of one vCPU, and executes EL0 and EL1 code under the
EL2 registers that the PE programs. An engine calls a `PeCallbacks` for everything that needs the
rest of the SoC. See docs/engine.md.
"""

from __future__ import annotations

import ctypes as C
import weakref
from _thread import get_ident  # threading has this function, but is slow to import
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from armvirt.arch.sysregs import CONTEXT_REGISTERS
from armvirt.arch.timer import CNTHCTL_PCEN, CNTHCTL_PCTEN, KCTL_BITS
from armvirt.errors import EngineError, KvmError
from armvirt.hw.clock import NEVER
from armvirt.hw.engine import abi
from armvirt.hw.engine.calibrate import Calibration
from armvirt.hw.engine.core import Core
from armvirt.hw.engine.state import FIRST_ASK, NEVER_ASKED, Action, EventRecord, Leave, Stat
from armvirt.state import State, checked

if TYPE_CHECKING:
    from armvirt.hw.engine.callbacks import PeCallbacks
    from armvirt.hw.engine.waits import PolledWaits

STATE_VERSION = 1


def _free(lib: abi.Library, uc: C.c_void_p, context: C.c_void_p) -> None:
    lib.uc_context_free(context)
    lib.uc_close(uc)


class Engine(Core, ABC):
    """The engine of one vCPU. Only ``run`` executes guest code. Registers may be accessed between
    runs and in callbacks."""

    kind = ""
    has_shadow: ClassVar[bool] = False
    """Whether the engine uses state.shadow, the shadow registers of `armvirt.hw.shadow`."""

    def __init__(self, lib: abi.Library, calibration: Calibration, model: str) -> None:
        super().__init__(lib, calibration, model)
        self.callbacks: PeCallbacks | None = None
        self.error: BaseException | None = None
        self._waits: PolledWaits | None = None
        self._finalizer = weakref.finalize(self, _free, lib, self.uc, self.raw_context)
        self._finalizer.atexit = (
            False  # a thread of the user may still run the engine when the interpreter ends
        )
        self._running = False
        self._guard: tuple[int, abi.Library] | None = None
        self._bind_state()
        self._add_hooks()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.state.count:,} instructions>"

    # -- creation --

    def _bind_state(self) -> None:
        state = self.state
        state.uc, state.context = self.uc.value or 0, self.raw_context.value or 0
        for name in ("emu_start", "emu_stop", "reg_read", "reg_write", "reg_write_batch", "ctl", "context_save",
                     "vmem_translate", "mem_read", "mem_write"):  # fmt: skip
            setattr(state, name, self.lib.address("uc_" + name))
        state.syndrome_offset = self.calibration.syndrome
        state.exclusive_offset = self.calibration.exclusive
        state.deadline = state.yield_at = NEVER
        state.ns_per_insn = 1
        state.native_maintenance = 1
        state.cnthctl, state.cntkctl_bits = CNTHCTL_PCTEN | CNTHCTL_PCEN, KCTL_BITS
        state.watch_period = state.watch_wait = 1
        state.first_ask = NEVER_ASKED

    @abstractmethod
    def watch_wfe(self) -> None:
        """Emulate the event register from now on. If the event register is clear, a WFE then stops
        the run and sets state.wfe. Before the first call of this method, a WFE acts as a NOP."""

    @abstractmethod
    def _add_hooks(self) -> None:
        """Install the block, INTR, MRS, MSR and SYS hooks."""

    def close(self) -> None:
        """Free the engine. Every later use of the engine raises KvmError EBADF. `close` raises
        KvmError EBUSY while the engine runs. The garbage collector frees an engine that was not
        closed."""
        if self._running:
            raise KvmError("EBUSY", "the engine runs: it can be freed when it has come to a stop")
        self.lib = cast("abi.Library", abi.ClosedLibrary())
        self._finalizer()
        self._keep.clear()

    # -- running --

    def run(self, deadline: int) -> Leave:
        """Execute until ``state.count`` reaches the instruction count ``deadline``, or until
        something else stops the run. Returns the reason for which the run ended. An interrupt entry
        can make ``state.count`` greater than ``deadline`` by one.

        If a callback raises an exception, the engine stops and `run` raises this exception.
        """
        self.state.deadline = deadline
        library = self.lib
        self.lib, self._running = self._guarded_library(library), True
        try:
            why = self._run()
            self.flush_events()
        finally:
            self.lib, self._running = library, False
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if why == Leave.FAULT:
            raise EngineError(self._fault_text())
        return why

    def _guarded_library(self, library: abi.Library) -> abi.Library:
        """Return an object through which only the calling thread can use ``library``. In every
        other thread an access to the library's functions raises KvmError EBUSY."""
        if self._guard is None or self._guard[0] != get_ident():
            self._guard = (
                get_ident(),
                cast("abi.Library", abi.ThreadLibrary(library, get_ident())),
            )
        return self._guard[1]

    @abstractmethod
    def _run(self) -> Leave: ...

    def _fault_text(self) -> str:
        state = self.state
        reason = {1: "an exit does not lie in its block", 2: self.lib.uc_strerror(state.fault_error).decode(),
                  3: "left without a reason"}.get(state.fault, "unknown")  # fmt: skip
        return (
            f"the CPU engine failed at pc {self.pc:#x} after {state.count} instructions: {reason}"
        )

    def leave(self, why: Leave) -> None:
        """End `run` before the next block. ``why`` is the reason (a `Leave`), which `run` returns.
        Call this only in a hook."""
        self.state.leave = why
        self.lib.uc_emu_stop(self.uc)

    def dispatch(self, what: int) -> int:
        """Call a callback, and return its result. ``what`` is the number of the callback (a
        `Callback`). If the callback raises an exception, the engine stops and `run` raises this
        exception."""
        try:
            if self.state.events_n:
                self.flush_events()
            return self._table[what](self)
        except BaseException as error:
            return self.keep(error)

    def keep(self, error: BaseException) -> int:
        """Store the exception that a callback raised, and stop the engine. `run` then raises the
        exception."""
        self.error = self.error or error
        self.state.stop = 1
        return Action.STOP

    def flush_events(self) -> None:
        """Pass the recorded exception entries to `PeCallbacks.entries`."""
        count = self.state.events_n
        if count and self.callbacks is not None:
            records = [EventRecord.from_buffer_copy(self.state.events[i]) for i in range(count)]
            self.state.events_n = 0
            self.callbacks.entries(records)

    def _timer(self) -> int:
        assert self.callbacks is not None
        self.callbacks.timer_access()
        return 0

    def _broadcast(self) -> int:
        assert self.callbacks is not None
        self.callbacks.broadcast(self.state.timer_encoding, self.state.value)
        return 0

    def _polled_wait(self) -> int:
        if self._waits is None:
            from armvirt.hw.engine.waits import PolledWaits  # many guests poll nothing

            self._waits = PolledWaits(self.has_shadow)
        assert self.callbacks is not None
        self.state.first_ask = FIRST_ASK
        self.state.stats[Stat.WAIT_ASK] += 1
        refused = self._waits.ask(self, self.callbacks)
        if self.state.paced and self.state.value:
            self._skipped()
        return refused

    def _skipped(self) -> int:
        assert self.callbacks is not None
        if self.callbacks.on_skip is not None:
            self.callbacks.on_skip(self.state.value * self.state.ns_per_insn)
        return 0

    def _send_event(self) -> int:
        assert self.callbacks is not None
        self.callbacks.send_event(self.state.value)
        return 0

    def _el2_exit(self) -> int:
        assert self.callbacks is not None
        return self.callbacks.el2_exit()

    def _undefined(self) -> int:
        assert self.callbacks is not None
        return self.callbacks.undefined()

    def _poll(self) -> int:
        assert self.callbacks is not None
        return int(self.callbacks.poll())

    _table: tuple[Callable[[Engine], int], ...] = (
        _el2_exit,
        _undefined,
        _timer,
        _poll,
        lambda self: 0,
        _broadcast,
        _send_event,
        _polled_wait,
        _skipped,
    )

    # -- saved state --

    def save(self) -> dict[str, object]:
        """Return the architectural state by register name, as plain data that both engines can
        load."""
        return {
            "version": STATE_VERSION,
            "x": [self.x(n) for n in range(31)],
            "sp": self.read(abi.R_SP), "sp_el0": self.read(abi.R_SP_EL0), "sp_el1": self.read(abi.R_SP_EL1),
            "pc": self.pc, "pstate": self.pstate, "q": [self.q(n) for n in range(32)],
            "fpcr": self.read(abi.R_FPCR) & 0xFFFFFFFF, "fpsr": self.read(abi.R_FPSR) & 0xFFFFFFFF,
            "system": {row.name: self.read_system(row.encoding) for row in CONTEXT_REGISTERS},
            "exclusive": list(self.exclusive), "count": self.state.count,
            "event_register": self.state.event_register, "event_cleared": self.state.event_cleared,
            "vector_faults": self.state.vector_faults, "last_vector_elr": self.state.last_vector_elr,
        }  # fmt: skip

    def load(self, saved: State) -> None:
        """Restore the registers from a dict that `save` of this engine or of another engine
        returned."""
        checked(saved, "Engine", STATE_VERSION)
        get = saved.__getitem__
        self.exclusive = tuple(get("exclusive"))
        system = get("system")
        assert isinstance(system, dict)
        for row in CONTEXT_REGISTERS:
            self.write_system(row.encoding, system[row.name])
        for n, value in enumerate(get("x")):
            self.set_x(n, value)
        for n, value in enumerate(get("q")):
            self.set_q(n, value)
        self.pstate = int(get("pstate"))
        for name, register in (("sp_el0", abi.R_SP_EL0), ("sp_el1", abi.R_SP_EL1), ("sp", abi.R_SP),
                               ("fpcr", abi.R_FPCR), ("fpsr", abi.R_FPSR)):  # fmt: skip
            self.write(register, int(get(name)))
        self.pc = int(get("pc"))
        self.state.count = int(get("count"))
        self.state.event_register = int(get("event_register"))
        self.state.event_cleared = int(get("event_cleared"))
        self.state.vector_faults = int(get("vector_faults"))
        self.state.last_vector_elr = int(get("last_vector_elr"))
        self.flush_tlb()
        self.set_hcr(self.state.hcr)
