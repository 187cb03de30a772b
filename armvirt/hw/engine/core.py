"""The CPU core that Unicorn emulates: creation, hooks, registers, memory, translations.

A core belongs to one vCPU. It executes EL0 and EL1 code under the EL2 registers that the PE
programs. `armvirt.hw.engine.base.Engine` runs the core. See docs/engine.md.
"""

from __future__ import annotations

import ctypes as C
import struct

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
from armvirt.hw.clock import NEVER
from armvirt.hw.engine import abi
from armvirt.hw.engine.calibrate import SCR_NS_HCE_RW, Calibration
from armvirt.hw.engine.state import EngineState

STATE_VERSION = 1

TRANSLATION = frozenset((SCTLR_EL1, TTBR0_EL1, TTBR1_EL1, TCR_EL1))
DORMANT_RANGES = ((1 << 44, (1 << 64) - 1), (0x10000, 0x3FFF_FFFF))
"""Address ranges of a Unicorn hook (MEM_READ_PROT) that makes the engine faster. The hook function
is never called. While the hook exists, Unicorn does not scan the TLBs for each new block.

Unicorn takes the ranges as virtual addresses. But stores to RAM become slow if the RAM has
*physical* addresses in one of the ranges. Therefore no board may have RAM at these physical
addresses. ``tests/board/test_boards.py`` checks each board.
"""

CODE_BUFFER = 64 << 20
"""The size in bytes of the buffer for the translated code of one engine. Unicorn's default is 1
GiB. When the buffer is full, Unicorn drops all translated code and translates again. A boot and
shutdown of Linux does not fill the buffer."""


class Core:
    """The registers, the physical memory and the translations of one vCPU.

    ``state`` is the `EngineState`, which the hooks of the engine use. Registers may be accessed
    between runs and in callbacks.
    """

    def __init__(self, lib: abi.Library, calibration: Calibration, model: str) -> None:
        self.lib, self.calibration = lib, calibration
        self.state = EngineState()
        self._keep: list[object] = []
        self._u64, self._u32 = C.c_uint64(), C.c_uint32()
        self._open(model)

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

    def hook(
        self,
        kind: int,
        function: object,
        begin: int = 1,
        end: int = 0,
        instruction: int | None = None,
    ) -> None:
        """Add a hook for the virtual addresses from ``begin`` to ``end``. If ``begin`` is greater
        than ``end``, the hook is for all addresses. Unicorn passes its engine handle to
        ``function`` as the first argument, and the address of ``state`` as the last argument."""
        self._keep.append(function)
        self.add_hook(kind, function, begin, end, instruction)

    def add_hook(
        self, kind: int, function: object, begin: int, end: int, instruction: int | None = None
    ) -> int:
        """Add a hook as `hook` does, but store no reference to ``function``: the caller must keep
        ``function`` alive. Returns the handle for `remove_hook`."""
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
        """Remove a hook, and drop all translated code. Call this only between runs."""
        self.lib.check(self.lib.uc_hook_del(self.uc, handle), "hook")
        self.invalidate_all_code()

    def _add_dormant_hooks(self) -> None:
        never = C.CFUNCTYPE(
            C.c_bool, C.c_void_p, C.c_int, C.c_uint64, C.c_int, C.c_int64, C.c_void_p
        )(lambda *_: False)
        for begin, end in DORMANT_RANGES:
            self.hook(abi.HOOK_MEM_READ_PROT, never, begin, end)

    # -- registers --

    def read(self, register: int) -> int:
        """Read a 64-bit register. ``register`` is Unicorn's identifier of the register."""
        self.lib.uc_reg_read(self.uc, register, C.byref(self._u64))
        return self._u64.value

    def write(self, register: int, value: int) -> None:
        self._u64.value = value
        self.lib.uc_reg_write(self.uc, register, C.byref(self._u64))

    def x(self, n: int) -> int:
        """The value of register X<n>; n = 31 is XZR, which reads as zero."""
        return 0 if n == 31 else self.read(abi.x_register(n))

    def set_x(self, n: int, value: int) -> None:
        if n != 31:
            self.write(abi.x_register(n), value & NEVER)

    @property
    def pc(self) -> int:
        return self.read(abi.R_PC)

    @pc.setter
    def pc(self, value: int) -> None:
        # Use a batch write. A single write in a hook makes Unicorn report a stale PC at the next
        # exit.
        identifier, box = C.c_int(abi.R_PC), C.c_uint64(value)
        pointer = C.c_void_p(C.addressof(box))
        self.lib.uc_reg_write_batch(self.uc, C.byref(identifier), C.byref(pointer), 1)

    @property
    def pstate(self) -> int:
        """PSTATE in the format of an SPSR (32 bits)."""
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
        """The banked SP_EL0. The value is stale while SP_EL0 is the stack pointer in use; then use
        `sp`."""
        return self.read(abi.R_SP_EL0)

    @sp_el0.setter
    def sp_el0(self, value: int) -> None:
        self.write(abi.R_SP_EL0, value)

    @property
    def sp_el1(self) -> int:
        """The banked SP_EL1. The value is stale while SP_EL1 is the stack pointer in use; then use
        `sp`."""
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
        """The value of register V<n>, 128 bits."""
        both = (C.c_uint64 * 2)()
        self.lib.uc_reg_read(self.uc, abi.R_Q0 + n, both)
        return both[0] | both[1] << 64

    def set_q(self, n: int, value: int) -> None:
        both = (C.c_uint64 * 2)(value & MASK64, value >> 64)
        self.lib.uc_reg_write(self.uc, abi.R_Q0 + n, both)

    def read_system(self, encoding: int) -> int:
        """Read a system register of Unicorn's core. ``encoding`` is the packed encoding of the
        register."""
        box = abi.CpReg.of(encoding)
        self.lib.check(
            self.lib.uc_reg_read(self.uc, abi.R_CP, C.byref(box)), f"read of {encoding:#x}"
        )
        return int(box.val)

    def write_system(self, encoding: int, value: int) -> None:
        """Write a system register of Unicorn's core. ``encoding`` is the packed encoding of the
        register. Unicorn's core uses a new PSTATE only after the next write of a system register
        (`rebuild_flags`)."""
        box = abi.CpReg.of(encoding, value)
        if encoding in TRANSLATION:
            self.state.epoch += 1
        self.lib.check(
            self.lib.uc_reg_write(self.uc, abi.R_CP, C.byref(box)), f"write of {encoding:#x}"
        )

    def rebuild_flags(self) -> None:
        """Make Unicorn's core use the PSTATE that was last written. The write of any system
        register has this effect, so this method writes an unused register."""
        self.write_system(TPIDR_EL2, 0)

    def set_hcr(self, value: int) -> None:
        """Set HCR_EL2 except its bits VI and VF. These two bits keep the present outputs of the
        virtual CPU interface."""
        self.state.hcr = value
        self.write_system(HCR_EL2, value | self.state.lines_in_engine)

    def set_mdcr(self, value: int) -> None:
        self.state.mdcr = value
        self.write_system(MDCR_EL2, value)

    # -- memory and translations --

    def map_memory(self, address: int, size: int, host: int) -> None:
        """Map memory of the armvirt process into the guest. ``address`` is the guest's physical
        address, ``size`` is in bytes, and ``host`` is the address of the memory in the process."""
        self.lib.check(
            self.lib.uc_mem_map_ptr(self.uc, address, size, abi.PROT_ALL, host), f"map {address:#x}"
        )

    def unmap_memory(self, address: int, size: int) -> None:
        self.lib.check(self.lib.uc_mem_unmap(self.uc, address, size), f"unmap {address:#x}")

    def translate(self, va: int, *, execute: bool = False) -> int | None:
        """Translate a guest VA to a physical address in the current translation regime, without
        side effects. Returns None if the translation faults. If ``execute`` is True, the VA must be
        executable; otherwise it must be readable or executable."""
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
        """The instruction word at ``va``; 0 if the fetch would fault."""
        pa = self.translate(va, execute=True)
        return 0 if pa is None else int.from_bytes(self.read_physical(pa, 4), "little")

    def invalidate_code(self, address: int, size: int) -> None:
        """Drop the code that Unicorn translated from a range of physical addresses. Call this only
        in INTR hooks and between runs.

        Unicorn's function takes a virtual address of the current translation regime. Therefore
        PSTATE is EL2h during the call: at EL2 stage 1 is off, and virtual addresses are physical
        addresses.
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

    # -- the exclusive monitor --

    @property
    def exclusive(self) -> tuple[int, int, int]:
        """The local exclusive monitor: (address, value, second 64-bit word of a load-exclusive
        pair). In the open state the address is all ones."""
        self.lib.uc_context_save(self.uc, self.raw_context)
        blob = C.string_at((self.raw_context.value or 0) + self.calibration.exclusive, 24)
        address, value, high = struct.unpack("<QQQ", blob)
        return address, value, high

    @exclusive.setter
    def exclusive(self, monitor: tuple[int, int, int]) -> None:
        """Set the exclusive monitor. All other values of Unicorn's CPU context stay unchanged, so
        the interrupt line and the TLB stay valid."""
        self.lib.uc_context_save(self.uc, self.raw_context)
        base = self.raw_context.value or 0
        C.memmove(base + self.calibration.exclusive, struct.pack("<QQQ", *monitor), 24)
        self.lib.check(self.lib.uc_context_restore(self.uc, self.raw_context), "context restore")

    def clear_exclusive(self) -> bool:
        """Set the exclusive monitor to the open state. Returns True if the monitor was in the
        exclusive state before."""
        armed = self.exclusive[0] != MASK64
        if armed:
            self.exclusive = (MASK64, 0, 0)
        return armed
