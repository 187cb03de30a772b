"""Find the offsets of two records in the CPU state that Unicorn saves (``uc_context_save``): the
exception record and the exclusive monitor. The API of libunicorn gives access to neither of the
two.

A scratch engine executes HVCs with known immediates, a load with a known stage-2 fault, and an LDXP
of known values. `calibrate` searches for the known values in the saved bytes. Each record must be
found at exactly one offset. Otherwise armvirt does not support this version of libunicorn, and
`calibrate` raises EngineError.
"""

from __future__ import annotations

import ctypes as C
import struct
from collections.abc import Callable

from armvirt.arch import translation
from armvirt.arch.esr import EC, build, exception_class
from armvirt.arch.insn import hvc
from armvirt.arch.named import (
    HCR_EL2,
    HCR_RW,
    HCR_VM,
    SCR_EL3,
    SCR_HCE,
    SCR_NS,
    SCR_RW,
    VTCR_EL2,
    VTTBR_EL2,
)
from armvirt.errors import EngineError
from armvirt.hw.engine import abi
from armvirt.records import NamedTuple

SCR_NS_HCE_RW = SCR_NS | SCR_HCE | SCR_RW
_CODE, _TABLE, _DATA, _FAULT = 0x1000, 0x20000, 0x1800, 0x00123456
_MAGIC, _MAGIC_HIGH = 0x5EED0FC0DE51234D, 0x0DDBA11F00DFACE5
_HVC = (0x1A5A, 0x25A5)
_PROGRAM = (
    hvc(_HVC[0]),
    hvc(_HVC[1]),
    0xC87F1805,  # ldxp x5, x6, [x0]
    hvc(0),
    0xF9400062,  # ldr x2, [x3]: a stage-2 fault
)


class Calibration(NamedTuple):
    """Byte offsets in the context that ``uc_context_save`` stores, and the size of the context.

    ``syndrome`` is the offset of the exception record {u32 syndrome; u32 fsr; u64 vaddress; u32
    target_el}. ``exclusive`` is the offset of the exclusive monitor {u64 address; u64 value; u64
    high}, where high is the second 64-bit word of a load-exclusive pair. ``context_size`` is in
    bytes.
    """

    syndrome: int
    exclusive: int
    context_size: int


class _Scratch:
    """An engine that is used only for the calibration. It has one page of code, a stage 2 that maps
    only this page, and an INTR hook that saves the context."""

    def __init__(self, lib: abi.Library, model: int) -> None:
        self.lib, self.uc = lib, lib.open()
        self.contexts: list[bytes] = []
        lib.uc_ctl(self.uc, C.c_uint32(abi.CTL_PAGE_SIZE | 1 << 26 | 1 << 30), C.c_int(4096))
        lib.uc_ctl(self.uc, C.c_uint32(abi.CTL_CPU_MODEL | 1 << 26 | 1 << 30), C.c_int(model))
        lib.check(lib.uc_mem_map(self.uc, 0, 0x40000, abi.PROT_ALL), "map")
        self.context = C.c_void_p()
        lib.check(lib.uc_context_alloc(self.uc, C.byref(self.context)), "context")
        self.size = lib.uc_context_size(self.uc)
        self._hook = C.CFUNCTYPE(None, C.c_void_p, C.c_uint32, C.c_void_p)(self._on_intr)
        handle = C.c_void_p()
        hook_add: Callable[..., int] = lib.uc_hook_add
        lib.check(
            hook_add(
                self.uc,
                C.byref(handle),
                abi.HOOK_INTR,
                self._hook,
                None,
                C.c_uint64(1),
                C.c_uint64(0),
            ),
            "hook",
        )

    def _on_intr(self, _uc: int, _number: int, _user: int) -> None:
        self.contexts.append(self.saved())
        self.lib.uc_emu_stop(self.uc)

    def saved(self) -> bytes:
        self.lib.uc_context_save(self.uc, self.context)
        return C.string_at(self.context, self.size)

    def write(self, address: int, data: bytes) -> None:
        self.lib.check(self.lib.uc_mem_write(self.uc, address, data, len(data)), "write")

    def system(self, encoding: int, value: int) -> None:
        self.lib.check(
            self.lib.uc_reg_write(self.uc, abi.R_CP, C.byref(abi.CpReg.of(encoding, value))),
            "system register",
        )

    def x(self, n: int, value: int) -> None:
        self.lib.uc_reg_write(self.uc, abi.x_register(n), C.byref(C.c_uint64(value)))

    def run(self, pc: int) -> bytes:
        """Run from ``pc`` to the next exception. Returns the context that Unicorn saves at the
        exception."""
        self.contexts.clear()
        self.lib.uc_emu_start(self.uc, pc, 0xFFFF_FFFF_F000, 0, 0)
        if len(self.contexts) != 1:
            raise EngineError(
                "calibration: the engine did not come back with the expected exception"
            )
        return self.contexts[0]

    def close(self) -> None:
        self.lib.uc_context_free(self.context)
        self.lib.uc_close(self.uc)


def _set_up(scratch: _Scratch) -> None:
    scratch.write(_CODE, struct.pack("<5I", *_PROGRAM))
    scratch.write(_DATA, struct.pack("<QQ", _MAGIC, _MAGIC_HIGH))
    leaf = translation.NORMAL_PAGE | translation.S2AP_WRITE
    scratch.write(
        _TABLE, struct.pack("<Q", _TABLE + 0x10000 | translation.VALID | translation.TABLE)
    )  # level 2 -> level 3
    scratch.write(_TABLE + 0x10000 + (_CODE >> 12) * 8, struct.pack("<Q", _CODE | leaf))
    scratch.system(SCR_EL3, SCR_NS_HCE_RW)
    scratch.system(VTCR_EL2, translation.vtcr(translation.SMALL))
    scratch.system(VTTBR_EL2, _TABLE | 1 << translation.VTTBR_VMID_SHIFT)
    scratch.system(HCR_EL2, HCR_RW | HCR_VM)
    scratch.x(0, _DATA)
    scratch.x(3, _FAULT)


def _places(blob: bytes, pattern: bytes, step: int) -> set[int]:
    """Return the offsets of ``pattern`` in ``blob`` that are multiples of ``step``."""
    places, at = set(), blob.find(pattern)
    while at >= 0:
        if at % step == 0:
            places.add(at)
        at = blob.find(pattern, at + 1)
    return places


def calibrate(lib: abi.Library, model: int) -> Calibration:
    """Find the byte offsets of the exception record and of the exclusive monitor in the CPU state
    that ``uc_context_save`` of ``lib`` stores. ``model`` is Unicorn's number of the CPU model, a
    value of `abi.CPU_MODELS`. Raises EngineError if an offset is not found or is not unique."""
    scratch = _Scratch(lib, model)
    try:
        _set_up(scratch)
        first = scratch.run(_CODE)
        second = scratch.run(_CODE + 4)
        exclusive = scratch.run(_CODE + 8)
        fault = scratch.run(_CODE + 16)
        size = scratch.size
    finally:
        scratch.close()
    places = _places(first, struct.pack("<I", build(EC.HVC64, _HVC[0])), 4)
    places &= _places(second, struct.pack("<I", build(EC.HVC64, _HVC[1])), 4)
    places = {p for p in places if _is_fault_record(fault, p)}
    monitors = _places(exclusive, struct.pack("<QQQ", _DATA, _MAGIC, _MAGIC_HIGH), 8)
    if len(places) != 1 or len(monitors) != 1:
        raise EngineError(
            f"this libunicorn does not fit: {len(places)} places for the exception record and {len(monitors)} for the "
            "exclusive monitor, where one each was expected; install unicorn==2.1.4"
        )
    return Calibration(places.pop(), monitors.pop(), size)


def _is_fault_record(blob: bytes, at: int) -> bool:
    syndrome, _fsr, address, target = struct.unpack_from("<IIQI", blob, at)
    return bool(exception_class(syndrome) == EC.DABT_LOWER and address == _FAULT and target == 2)
