"""What both engines share: creation, registers, memory, translations, save and load.

An engine has the registers and translations of one vCPU. It executes EL0 and EL1 code under the EL2
registers that the PE programs, and calls a `Silicon` for everything that needs the rest of the SoC.
See docs/engine.md.
"""

from __future__ import annotations

import ctypes as C
import struct
import weakref
from _thread import _local, get_ident  # same as in threading, which is slow to import
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol, cast

from armvirt.arch.bits import MASK64
from armvirt.arch.named import (
    HCR_EL2,
    MDCR_EL2,
    SCR_EL3,
    SCTLR_EL1,
    TCR_EL1,
    TPIDR_EL2,
    TTBR0_EL1,
    TTBR1_EL1,
)
from armvirt.arch.pstate import PSTATE_EL2_ENTRY
from armvirt.arch.sysregs import CONTEXT_REGISTERS
from armvirt.arch.timer import KCTL_BITS
from armvirt.errors import EngineError, KvmError
from armvirt.hw.clock import NEVER
from armvirt.hw.engine import abi
from armvirt.hw.engine.calibrate import SCR_NS_HCE_RW, Calibration
from armvirt.hw.engine.state import Action, EngineState, EventRecord, Leave
from armvirt.state import State, checked

STATE_VERSION = 1

TRANSLATION = frozenset((SCTLR_EL1, TTBR0_EL1, TTBR1_EL1, TCR_EL1))
DORMANT_RANGES = ((1 << 44, (1 << 64) - 1), (0x10000, 0x3FFF_FFFF))
"""Virtual addresses with a read-protection hook that is never called: the hook saves a scan of the
TLBs per new block. Guest RAM must not be at these *physical addresses*, or stores become slow."""

CODE_BUFFER = 64 << 20
"""Bytes for the translated code of one engine; Unicorn's default is 1 GiB. When this buffer is
full, all code is dropped and translated again. A boot and shutdown of Linux does not fill the
buffer."""


class Silicon(Protocol):
    """The callbacks from the engine to the PE model. Each returned int is an `Action`; details are
    in ``engine.state``."""

    def el2_exit(self) -> int:
        """A synchronous exception to EL2. Input: state.esr, far, hpfar, pc, rt, rt_value."""

    def undefined(self) -> int:
        """An UNDEFINED MRS, MSR or HLT at state.pc. Input: state.insn, rt, rt_value, el."""

    def timer_access(self) -> None:
        """An access to CNTV_* or CNTP_* (state.timer_encoding). state.value is input or output.

        Only registers may change; to stop the run, set state.stop.
        """

    def poll(self) -> bool:
        """Called about every 20 ms of host time; True stops the run."""

    def entries(self, records: list[EventRecord]) -> None:
        """The exception entries since the last call, oldest first (only while state.trace is
        set)."""

    def broadcast(self, encoding: int, value: int) -> None:
        """Maintenance for all CPUs: TLBI by its encoding, IC IVAU with a physical address, or IC
        IALLUIS."""

    def send_event(self, count: int) -> None:
        """SEV, for the other CPUs; called only while state.broadcast is set. ``count`` is the
        instruction count at which SEV retired; the engine may be up to one translated block
        further."""


def _free(lib: abi.Library, uc: C.c_void_p, context: C.c_void_p) -> None:
    lib.uc_context_free(context)
    lib.uc_close(uc)


CLOSED = "the machine is closed"
OTHER_THREAD = "the machine runs in another thread: wait until that has come to a stop"


class _Closed:
    """Replaces the library of a closed engine: each access is KvmError EBADF."""

    def __getattr__(self, name: str) -> object:
        raise KvmError("EBADF", CLOSED)


class _OneThread(_local):
    """Replaces the library while the engine runs. It has the library's functions only in the thread
    that runs the engine; in another thread, where a call would end the process, KvmError EBUSY."""

    def __init__(self, library: abi.Library, thread: int) -> None:
        if get_ident() == thread:
            vars(self).update(vars(library), check=library.check, address=library.address)

    def __getattr__(self, name: str) -> object:
        raise KvmError("EBUSY", OTHER_THREAD)


class Engine(ABC):
    """One vCPU's engine. Only ``run`` executes code; registers may be accessed between runs and in
    callbacks."""

    kind = ""
    has_shadow: ClassVar[bool] = False
    """Whether the engine uses state.shadow, the shadow registers of `armvirt.hw.shadow`."""

    def __init__(self, lib: abi.Library, calibration: Calibration, model: str) -> None:
        self.lib, self.calibration = lib, calibration
        self.state = EngineState()
        self.silicon: Silicon | None = None
        self.error: BaseException | None = None
        self._keep: list[object] = []
        self._u64, self._u32 = C.c_uint64(), C.c_uint32()
        self._open(model)
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

    def _open(self, model: str) -> None:
        self.uc = self.lib.open(CODE_BUFFER)
        self._ctl(abi.CTL_PAGE_SIZE, C.c_int(4096))
        self._ctl(abi.CTL_CPU_MODEL, C.c_int(abi.CPU_MODELS[model]))
        self._ctl(abi.CTL_USE_EXITS, C.c_int(1))
        self._ctl(abi.CTL_TCG_BUFFER_SIZE, C.c_uint32(CODE_BUFFER))
        self.write_system(SCR_EL3, SCR_NS_HCE_RW)
        self._context = C.create_string_buffer(self.calibration.context_size)
        self.raw_context = C.c_void_p()
        self.lib.check(self.lib.uc_context_alloc(self.uc, C.byref(self.raw_context)), "context")

    def _ctl(self, kind: int, *arguments: object) -> None:
        control = C.c_uint32(kind | len(arguments) << 26 | 1 << 30)
        self.lib.check(self.lib.uc_ctl(self.uc, control, *arguments), f"control {kind}")

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
        state.cnthctl, state.cntkctl_bits = 3, KCTL_BITS

    def hook(
        self,
        kind: int,
        function: object,
        begin: int = 1,
        end: int = 0,
        instruction: int | None = None,
    ) -> None:
        """Add a hook. The first argument of the function is the engine, the last the address of
        ``state``."""
        self._keep.append(function)
        self.add_hook(kind, function, begin, end, instruction)

    def add_hook(
        self, kind: int, function: object, begin: int, end: int, instruction: int | None = None
    ) -> int:
        """Add a hook whose function the caller keeps alive; returns the handle for
        `remove_hook`."""
        handle = C.c_void_p()
        extra = () if instruction is None else (C.c_int(instruction),)
        code = self.lib.uc_hook_add(
            self.uc,
            C.byref(handle),
            C.c_int(kind),
            function,
            C.byref(self.state),
            C.c_uint64(begin),
            C.c_uint64(end),
            *extra,
        )
        self.lib.check(code, "hook")
        return handle.value or 0

    def remove_hook(self, handle: int) -> None:
        """Remove a hook, and all code that was translated with it. Only between runs."""
        self.lib.check(self.lib.uc_hook_del(self.uc, handle), "hook")
        self.invalidate_all_code()

    @abstractmethod
    def watch_wfe(self) -> None:
        """From now on keep the event register, and stop after each WFE that finds it clear, with
        state.wfe set."""

    @abstractmethod
    def _add_hooks(self) -> None:
        """Install the block, INTR, MRS, MSR and SYS hooks."""

    def _add_dormant_hooks(self) -> None:
        never = C.CFUNCTYPE(
            C.c_bool, C.c_void_p, C.c_int, C.c_uint64, C.c_int, C.c_int64, C.c_void_p
        )(lambda *_: False)
        for begin, end in DORMANT_RANGES:
            self.hook(abi.HOOK_MEM_READ_PROT, never, begin, end)

    def close(self) -> None:
        """Free the engine: from now on every use is KvmError EBADF. The garbage collector frees an
        engine that was not closed. KvmError EBUSY while the engine runs."""
        if self._running:
            raise KvmError("EBUSY", "the engine runs: it can be freed when it has come to a stop")
        self.lib = cast("abi.Library", _Closed())
        self._finalizer()
        self._keep.clear()

    # -- running --

    def run(self, deadline: int) -> Leave:
        """Execute until ``state.count`` reaches ``deadline`` (with an interrupt entry possibly one
        more) or a stop.

        An exception raised in a callback stops the run and is raised by `run`.
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
        """The library for the calling thread: in every other thread its functions are KvmError
        EBUSY."""
        if self._guard is None or self._guard[0] != get_ident():
            self._guard = (get_ident(), cast("abi.Library", _OneThread(library, get_ident())))
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

    def dispatch(self, what: int) -> int:
        """Call the callback ``what`` of `Silicon`. An exception stops the engine, and is kept for
        `run` to raise."""
        try:
            if self.state.events_n:
                self.flush_events()
            return self._table[what](self)
        except BaseException as error:
            return self.keep(error)

    def keep(self, error: BaseException) -> int:
        """Keep an exception of a callback for `run` to raise; the engine stops."""
        self.error = self.error or error
        self.state.stop = 1
        return Action.STOP

    def flush_events(self) -> None:
        """Pass the recorded exception entries to `Silicon.entries`."""
        count = self.state.events_n
        if count and self.silicon is not None:
            records = [EventRecord.from_buffer_copy(self.state.events[i]) for i in range(count)]
            self.state.events_n = 0
            self.silicon.entries(records)

    def _timer(self) -> int:
        assert self.silicon is not None
        self.silicon.timer_access()
        return 0

    def _broadcast(self) -> int:
        assert self.silicon is not None
        self.silicon.broadcast(self.state.timer_encoding, self.state.value)
        return 0

    def _send_event(self) -> int:
        assert self.silicon is not None
        self.silicon.send_event(self.state.value)
        return 0

    _table: tuple[Callable[[Engine], int], ...] = (
        lambda self: self.silicon.el2_exit(),  # type: ignore[union-attr]
        lambda self: self.silicon.undefined(),  # type: ignore[union-attr]
        _timer,
        lambda self: int(self.silicon.poll()),  # type: ignore[union-attr]
        lambda self: 0,
        _broadcast,
        _send_event,
    )

    # -- registers --

    def read(self, register: int) -> int:
        """A 64-bit register by Unicorn's identifier."""
        self.lib.uc_reg_read(self.uc, register, C.byref(self._u64))
        return self._u64.value

    def write(self, register: int, value: int) -> None:
        self._u64.value = value
        self.lib.uc_reg_write(self.uc, register, C.byref(self._u64))

    def x(self, n: int) -> int:
        """X<n>; 31 reads as zero."""
        return 0 if n == 31 else self.read(abi.x_register(n))

    def set_x(self, n: int, value: int) -> None:
        if n != 31:
            self.write(abi.x_register(n), value & NEVER)

    @property
    def pc(self) -> int:
        return self.read(abi.R_PC)

    @pc.setter
    def pc(self, value: int) -> None:
        # A batch: a single write in a hook sets a flag, and the next exit then reports a stale PC.
        identifier, box = C.c_int(abi.R_PC), C.c_uint64(value)
        pointer = C.c_void_p(C.addressof(box))
        self.lib.uc_reg_write_batch(self.uc, C.byref(identifier), C.byref(pointer), 1)

    @property
    def pstate(self) -> int:
        """PSTATE as an SPSR (32 bits)."""
        self._u32.value = 0
        self.lib.uc_reg_read(self.uc, abi.R_PSTATE, C.byref(self._u32))
        return self._u32.value

    @pstate.setter
    def pstate(self, value: int) -> None:
        self._u64.value = value
        self.lib.uc_reg_write(self.uc, abi.R_PSTATE, C.byref(self._u64))

    @property
    def sp(self) -> int:
        """The stack pointer in use."""
        return self.read(abi.R_SP)

    @sp.setter
    def sp(self, value: int) -> None:
        self.write(abi.R_SP, value)

    @property
    def sp_el0(self) -> int:
        """The banked SP_EL0; stale while SP_EL0 is the stack pointer in use."""
        return self.read(abi.R_SP_EL0)

    @sp_el0.setter
    def sp_el0(self, value: int) -> None:
        self.write(abi.R_SP_EL0, value)

    @property
    def sp_el1(self) -> int:
        """The banked SP_EL1; stale while SP_EL1 is the stack pointer in use."""
        return self.read(abi.R_SP_EL1)

    @sp_el1.setter
    def sp_el1(self, value: int) -> None:
        self.write(abi.R_SP_EL1, value)

    @property
    def fpsr(self) -> int:
        return self.read(abi.R_FPSR) & 0xFFFFFFFF

    @fpsr.setter
    def fpsr(self, value: int) -> None:
        self.write(abi.R_FPSR, value)

    @property
    def fpcr(self) -> int:
        return self.read(abi.R_FPCR) & 0xFFFFFFFF

    @fpcr.setter
    def fpcr(self, value: int) -> None:
        self.write(abi.R_FPCR, value)

    def q(self, n: int) -> int:
        """V<n> as 128 bits."""
        both = (C.c_uint64 * 2)()
        self.lib.uc_reg_read(self.uc, abi.R_Q0 + n, both)
        return both[0] | both[1] << 64

    def set_q(self, n: int, value: int) -> None:
        both = (C.c_uint64 * 2)(value & MASK64, value >> 64)
        self.lib.uc_reg_write(self.uc, abi.R_Q0 + n, both)

    def read_system(self, encoding: int) -> int:
        """A system register (packed encoding) of the engine's core."""
        box = abi.CpReg.of(encoding)
        self.lib.check(
            self.lib.uc_reg_read(self.uc, abi.R_CP, C.byref(box)), f"read of {encoding:#x}"
        )
        return int(box.val)

    def write_system(self, encoding: int, value: int) -> None:
        """Write a system register. Each write also rebuilds the translation flags after a change of
        PSTATE."""
        box = abi.CpReg.of(encoding, value)
        if encoding in TRANSLATION:
            self.state.epoch += 1
        self.lib.check(
            self.lib.uc_reg_write(self.uc, abi.R_CP, C.byref(box)), f"write of {encoding:#x}"
        )

    def rebuild_flags(self) -> None:
        """Make the engine use a changed PSTATE."""
        self.write_system(TPIDR_EL2, 0)

    def set_hcr(self, value: int) -> None:
        """Set HCR_EL2, except VI and VF, which follow the virtual CPU interface."""
        self.state.hcr = value
        self.write_system(HCR_EL2, value | self.state.lines_in_engine)

    def set_mdcr(self, value: int) -> None:
        self.state.mdcr = value
        self.write_system(MDCR_EL2, value)

    # -- memory and translations --

    def map_memory(self, address: int, size: int, host: int) -> None:
        """Map ``size`` bytes at host address ``host`` as physical memory of the engine."""
        self.lib.check(
            self.lib.uc_mem_map_ptr(self.uc, address, size, abi.PROT_ALL, host), f"map {address:#x}"
        )

    def unmap_memory(self, address: int, size: int) -> None:
        self.lib.check(self.lib.uc_mem_unmap(self.uc, address, size), f"unmap {address:#x}")

    def translate(self, va: int, *, execute: bool = False) -> int | None:
        """Translate a guest VA to a physical address in the current regime, without side effects;
        None on a fault."""
        kinds = (abi.PROT_EXEC,) if execute else (abi.PROT_READ, abi.PROT_EXEC)
        for kind in kinds:
            if self.lib.uc_vmem_translate(self.uc, va, kind, C.byref(self._u64)) == 0:
                return self._u64.value
        return None

    def read_physical(self, address: int, size: int) -> bytes:
        buffer = C.create_string_buffer(size)
        self.lib.check(self.lib.uc_mem_read(self.uc, address, buffer, size), f"read {address:#x}")
        return buffer.raw

    def fetch(self, va: int) -> int:
        """The instruction word at ``va``; 0 where the fetch would fault."""
        pa = self.translate(va, execute=True)
        return 0 if pa is None else int.from_bytes(self.read_physical(pa, 4), "little")

    def invalidate_code(self, address: int, size: int) -> None:
        """Drop translated code by physical address. Only in INTR callbacks and between runs.

        Unicorn takes a virtual address of the current regime, so the call is made at EL2 (stage 1
        off).
        """
        before = self.pstate
        self.state.epoch += 1
        self.pstate = PSTATE_EL2_ENTRY
        self.rebuild_flags()
        self._ctl(abi.CTL_TB_REMOVE, C.c_uint64(address), C.c_uint64(address + size))
        self.pstate = before
        self.rebuild_flags()

    def invalidate_all_code(self) -> None:
        self.state.epoch += 1
        self._ctl(abi.CTL_TB_FLUSH)

    def flush_tlb(self) -> None:
        self.state.epoch += 1
        self._ctl(abi.CTL_TLB_FLUSH)

    # -- named state --

    def save(self) -> dict[str, object]:
        """The architectural state by name: plain data, independent of the engine's own layout."""
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
        """Load what `save` returned, from this or another engine."""
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

    @property
    def exclusive(self) -> tuple[int, int, int]:
        """The local exclusive monitor: (address, value, second word of a pair). Open state: address
        all ones."""
        self.lib.uc_context_save(self.uc, self.raw_context)
        blob = C.string_at((self.raw_context.value or 0) + self.calibration.exclusive, 24)
        address, value, high = struct.unpack("<QQQ", blob)
        return address, value, high

    @exclusive.setter
    def exclusive(self, monitor: tuple[int, int, int]) -> None:
        """Set the exclusive monitor. The rest of the context keeps its values, so the interrupt
        line and the TLB stay valid."""
        self.lib.uc_context_save(self.uc, self.raw_context)
        base = self.raw_context.value or 0
        C.memmove(base + self.calibration.exclusive, struct.pack("<QQQ", *monitor), 24)
        self.lib.check(self.lib.uc_context_restore(self.uc, self.raw_context), "context restore")

    def clear_exclusive(self) -> bool:
        """Set the exclusive monitor to the open state; returns whether it was in the exclusive
        state."""
        armed = self.exclusive[0] != MASK64
        if armed:
            self.exclusive = (MASK64, 0, 0)
        return armed
