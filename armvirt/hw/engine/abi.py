"""The raw API of the installed libunicorn.

This module finds libunicorn without an import of the ``unicorn`` package, because the import takes
60-120 ms. The identifiers are the identifiers of Unicorn 2.1; a test compares them with the
constants of the package.
"""

from __future__ import annotations

import ctypes as C
import importlib.util
import mmap
import os
import sys
from _thread import _local, get_ident  # threading has these, but is slow to import

from armvirt.arch.encoding import unpack
from armvirt.errors import EngineError, KvmError, UserError

ARCH_ARM64, MODE_ARM = 2, 0
HOOK_INTR, HOOK_INSN, HOOK_BLOCK, HOOK_MEM_READ_PROT, HOOK_EDGE = 1, 2, 8, 128, 32768
INSN_MRS, INSN_MSR, INSN_SYS = 1, 2, 3
CTL_PAGE_SIZE, CTL_USE_EXITS, CTL_CPU_MODEL = 1, 4, 7
CTL_TB_REQUEST, CTL_TB_REMOVE, CTL_TB_FLUSH, CTL_TLB_FLUSH = 8, 9, 10, 11
CTL_TCG_BUFFER_SIZE = 13
PROT_READ, PROT_WRITE, PROT_EXEC, PROT_ALL = 1, 2, 4, 7
R_X0, R_X29, R_X30, R_SP, R_XZR = 199, 1, 2, 4, 7
R_Q0, R_PC, R_PSTATE, R_CP, R_FPCR, R_FPSR = 104, 260, 265, 290, 291, 292
R_ELR_EL1, R_SP_EL0, R_SP_EL1, R_ESR_EL1, R_FAR_EL1, R_VBAR_EL1 = 267, 270, 271, 277, 281, 287
R_TTBR0_EL1, R_TTBR1_EL1 = 274, 275

CPU_MODELS = {"cortex-a57": 0, "cortex-a53": 1, "cortex-a72": 2}
"""The CPU models that are deterministic in Unicorn, and Unicorn's numbers of the models. The model
``max`` is not deterministic (it has RNDR), and armvirt does not support it."""

SUPPORTED_VERSION = (2, 1)
DEFAULT_CODE_BUFFER = (1024 if os.uname().machine == "x86_64" else 128) << 20
"""The size in bytes of the address space that Unicorn reserves by default for the translated code
of an engine (translate-all.c of Unicorn)."""
CODE_BUFFER_MARGIN = 64 << 20  # for Unicorn's other allocations before the first run

FUNCTIONS = (
    "uc_open", "uc_close", "uc_version", "uc_emu_start", "uc_emu_stop", "uc_reg_read", "uc_reg_write",
    "uc_reg_read_batch", "uc_reg_write_batch", "uc_ctl", "uc_context_save", "uc_context_restore", "uc_context_alloc",
    "uc_context_size", "uc_context_free", "uc_mem_map_ptr", "uc_mem_map", "uc_mem_unmap", "uc_mem_read", "uc_mem_write",
    "uc_hook_add", "uc_hook_del", "uc_vmem_translate", "uc_strerror",
)  # fmt: skip


def x_register(n: int) -> int:
    """Return Unicorn's identifier of register X<n>; n = 31 is XZR."""
    return R_X0 + n if n < 29 else (R_X29, R_X30, R_XZR)[n - 29]


class CpReg(C.Structure):
    """The structure ``uc_arm64_cp_reg`` of Unicorn: the encoding and the value of one system
    register."""

    _fields_ = [(name, C.c_uint32) for name in ("crn", "crm", "op0", "op1", "op2")] + [
        ("val", C.c_uint64)
    ]

    @classmethod
    def of(cls, encoding: int, value: int = 0) -> CpReg:
        op0, op1, crn, crm, op2 = unpack(encoding)
        return cls(crn, crm, op0, op1, op2, value)


def library_path() -> str:
    """Return the path of libunicorn in the installed package ``unicorn``."""
    spec = importlib.util.find_spec("unicorn")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("the unicorn package is not installed; run: pip install unicorn==2.1.4")
    names = ("libunicorn.so.2", "libunicorn.2.dylib", "unicorn.dll")
    for place in spec.submodule_search_locations:
        for name in names:
            path = os.path.join(place, "lib", name)
            if os.path.exists(path):
                return path
    raise EngineError("the unicorn package carries no shared library that armvirt knows")


class Library:
    """The loaded libunicorn, with the C types of its functions."""

    def __init__(self) -> None:
        self.path = library_path()
        try:
            self.lib = C.CDLL(self.path)
        except OSError as error:  # "failed to map segment": too little address space
            raise UserError(f"{error}; raise ulimit -v, or install unicorn==2.1.4 again") from None
        p, u64, u32, i = C.c_void_p, C.c_uint64, C.c_uint32, C.c_int
        prototypes: dict[str, tuple[object, list[object]]] = {
            "uc_open": (i, [i, i, C.POINTER(p)]), "uc_close": (i, [p]), "uc_version": (u32, [p, p]),
            "uc_emu_start": (i, [p, u64, u64, u64, C.c_size_t]), "uc_emu_stop": (i, [p]),
            "uc_reg_read": (i, [p, i, p]), "uc_reg_write": (i, [p, i, p]),
            "uc_reg_write_batch": (i, [p, p, p, i]), "uc_reg_read_batch": (i, [p, p, p, i]),
            "uc_context_save": (i, [p, p]), "uc_context_restore": (i, [p, p]),
            "uc_context_alloc": (i, [p, C.POINTER(p)]), "uc_context_size": (C.c_size_t, [p]),
            "uc_context_free": (i, [p]), "uc_mem_map_ptr": (i, [p, u64, u64, u32, p]),
            "uc_mem_map": (i, [p, u64, u64, u32]), "uc_mem_unmap": (i, [p, u64, u64]),
            "uc_mem_read": (i, [p, u64, p, u64]), "uc_mem_write": (i, [p, u64, p, u64]),
            "uc_vmem_translate": (i, [p, u64, u32, p]), "uc_strerror": (C.c_char_p, [i]),
            "uc_hook_del": (i, [p, C.c_size_t]),
        }  # fmt: skip
        for name in FUNCTIONS:
            function = getattr(self.lib, name, None)
            if function is None:
                raise EngineError(
                    f"{os.path.basename(self.path)} has no {name}; armvirt needs unicorn==2.1.4"
                )
            if name in prototypes:
                function.restype, function.argtypes = prototypes[name]
            setattr(self, name, function)
        packed = self.uc_version(None, None)
        self.version = (packed >> 24 & 255, packed >> 16 & 255, packed >> 8 & 255)
        if self.version[:2] != SUPPORTED_VERSION:
            found = ".".join(map(str, self.version))
            raise EngineError(
                f"unicorn {found} is not the calibrated one; run: pip install unicorn==2.1.4"
            )

    def __getattr__(self, name: str) -> C._NamedFuncPointer:  # the functions of FUNCTIONS
        raise AttributeError(name)

    def open(self, buffer: int = DEFAULT_CODE_BUFFER) -> C.c_void_p:
        """Open a new engine. Raises UserError if the process does not have enough address space for
        ``buffer`` bytes of translated code.

        Unicorn allocates this buffer later. If the allocation fails, Unicorn ends the process by
        exit(1). A guest that fails causes the same exit status, and a user could not distinguish
        the two. Therefore `open` checks the address space first.
        """
        try:
            mmap.mmap(
                -1, buffer + CODE_BUFFER_MARGIN, prot=mmap.PROT_READ | mmap.PROT_WRITE
            ).close()
        except (OSError, MemoryError):
            raise UserError(
                f"the process gets too little address space: an engine takes {buffer >> 20} MiB for translated "
                "code; raise ulimit -v, or use fewer --cpus"
            ) from None
        handle = C.c_void_p()
        self.check(self.uc_open(ARCH_ARM64, MODE_ARM, C.byref(handle)), "open")
        return handle

    def address(self, name: str) -> int:
        return C.cast(getattr(self, name), C.c_void_p).value or 0

    def check(self, code: int, what: str) -> None:
        if code:
            raise EngineError(f"unicorn: {what}: {self.uc_strerror(code).decode()}")


CLOSED = "the machine is closed"
OTHER_THREAD = "the machine runs in another thread: wait until that has come to a stop"


class ClosedLibrary:
    """Replaces the library of a closed engine. Each access raises KvmError EBADF."""

    def __getattr__(self, name: str) -> object:
        raise KvmError("EBADF", CLOSED)


class ThreadLibrary(_local):
    """Replaces the library while the engine runs. Only the thread that runs the engine can call the
    functions of the library. A call in another thread would crash the process, so in another thread
    each access raises KvmError EBUSY."""

    def __init__(self, library: Library, thread: int) -> None:
        if get_ident() == thread:
            vars(self).update(vars(library), check=library.check, address=library.address)

    def __getattr__(self, name: str) -> object:
        raise KvmError("EBUSY", OTHER_THREAD)


if sys.maxsize < 2**32:  # pragma: no cover
    raise EngineError("armvirt needs a 64-bit Python")
