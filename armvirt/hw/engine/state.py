"""The state that both engines keep, in one C layout: native.c's ``engine`` mirrored field by field.

Times are instruction counts unless a name says ns. ``count`` excludes the open block.
"""

from __future__ import annotations

import ctypes as C
from enum import IntEnum
from typing import Any, ClassVar, Final

EVENTS = 256
STATS = (
    "tails", "steps", "intr", "el2", "undef", "el1_sync", "ic", "dc", "tlbi", "tlb_flush", "timer", "counter",
    "irq_native", "irq_manual", "run", "wfe", "icc", "nap", "exchange",
)  # fmt: skip


class Action:
    """What the engine does after a callback: bits, acted on in this order. Plain integers: this is
    a hot path."""

    RETRY: Final = 0
    WRITE_RT: Final = 2  # state.rt_value into X<state.rt>
    ADVANCE: Final = 1  # PC + 4; the instruction counts as executed
    ENTER: Final = 4  # synchronous exception to EL1: state.enter_*
    STOP: Final = 8  # leave run()


class Callback(IntEnum):
    EL2, UNDEF, TIMER, POLL, DRAIN, BROADCAST, SEV = range(7)


class Leave(IntEnum):
    """Why run() came back (TAIL, MISALIGNED, ILLEGAL never leave the engine)."""

    NONE, BUDGET, STOP, TAIL, MISALIGNED, FAULT, VECTOR_LOOP, ILLEGAL = range(8)


class Waits:
    """state.wfe: the run ended behind a WFE, or behind a YIELD after state.yield_at. Plain
    integers, as `Action`."""

    WFE: Final = 1
    YIELD: Final = 2


class Marks:
    """state.marks: what there is to know of the open block. Plain integers, as `Action`."""

    WFE: Final = 1  # its last instruction
    YIELD: Final = 2
    ERET: Final = 4
    SEV: Final = 8  # anywhere in it; state.block_sev is the index of the first one
    SEVL: Final = 16
    UNREAD: Final = 32  # its code could not be read before it ran


class What(IntEnum):
    """Kind of exception entry; 0x80 times it is the vector's offset."""

    SYNC, IRQ, FIQ = range(3)


class EventRecord(C.Structure):
    _fields_ = [("count", C.c_uint64), ("ns", C.c_uint64), ("elr", C.c_uint64), ("target", C.c_uint64),
                ("what", C.c_uint32), ("esr", C.c_uint32)]  # fmt: skip


class Marked(C.Structure):
    """A block with something to know in it, as native.c remembers it."""

    _fields_ = [("pc", C.c_uint64), ("size", C.c_uint32), ("epoch", C.c_uint32), ("marks", C.c_uint16),
                ("sev", C.c_uint16), ("sevl", C.c_uint16), ("edges", C.c_uint16)]  # fmt: skip


CALLBACK = C.CFUNCTYPE(C.c_int, C.c_int)


class Silicon(C.Structure):
    """silicon.h's ``silicon``, field by field: registers of the PE, for the time of a run. See
    `armvirt.hw.shadow`."""

    _fields_: ClassVar[Any] = (
        [
            ("lr", C.c_uint64 * 16),
            ("cval", C.c_uint64 * 2),
            ("ap0r", C.c_uint32 * 4),
            ("ap1r", C.c_uint32 * 4),
        ]
        + [(n, C.c_uint32) for n in ("hcr", "vmcr", "lrs", "prebits", "mask0", "mask1")]
        + [("candidate", C.c_int32)]
        + [
            (n, C.c_uint32)
            for n in ("signalled", "maintenance", "virq", "vfiq", "own_virq", "own_vfiq")
        ]
        + [("ctl", C.c_uint32 * 2), ("line", C.c_uint32 * 2)]
        + [
            (n, C.c_uint32)
            for n in ("ppi_line", "ppi_latch", "ppi_active", "ppi_enabled", "lent", "nap")
        ]
        + [(n, C.c_uint64) for n in ("nap_lr", "soft_ns")]
        + [("naps", C.c_uint32), ("nap_hcr", C.c_uint32), ("waiting", C.c_uint32)]
    )

    # for type checkers: what ctypes makes of the fields
    lr: Any
    cval: Any
    ap0r: Any
    ap1r: Any
    hcr: int
    vmcr: int
    lrs: int
    prebits: int
    mask0: int
    mask1: int
    candidate: int
    signalled: int
    maintenance: int
    virq: int
    vfiq: int
    own_virq: int
    own_vfiq: int
    ctl: Any
    line: Any
    ppi_line: int
    ppi_latch: int
    ppi_active: int
    ppi_enabled: int
    lent: int
    nap: int
    nap_lr: int
    soft_ns: int
    naps: int
    nap_hcr: int
    waiting: int


_POINTERS = ("uc", "context", "emu_start", "emu_stop", "reg_read", "reg_write", "reg_write_batch", "ctl",
             "context_save", "vmem_translate", "mem_read", "mem_write")  # fmt: skip


class EngineState(C.Structure):
    """See the module; fields are documented in native.c where they are used."""

    _fields_: ClassVar[Any] = (
        [(n, C.c_uint64) for n in ("count", "deadline", "poll_at", "block_pc")]
        + [(n, C.c_uint32) for n in ("open", "tail", "lines_in_engine", "stop", "marks", "illegal_watch",
                                     "wfe_watch", "spin", "unheard", "el")]
        + [(name, C.c_void_p) for name in _POINTERS]
        + [("callback", CALLBACK)]
        + [(n, C.c_uint64) for n in ("count_base", "ns_base", "frequency", "counter_start", "cntvoff", "ns_per_insn",
                                     "cnthctl", "cntpoff", "denied_cntkctl", "cntkctl_bits")]
        + [(n, C.c_uint32) for n in ("tail_ss", "leave", "denied", "denied_pstate")]
        + [("tail_mdscr", C.c_uint64)]
        + [("virq", C.c_uint32), ("vfiq", C.c_uint32), ("hcr", C.c_uint64), ("mdcr", C.c_uint64)]
        + [(n, C.c_uint32) for n in ("esr", "insn", "intno", "rt")]
        + [(n, C.c_uint64) for n in ("far", "hpfar", "pc", "rt_value")]
        + [("timer_encoding", C.c_uint32), ("timer_write", C.c_uint32), ("value", C.c_uint64)]
        + [("enter_esr", C.c_uint32), ("enter_has_far", C.c_uint32), ("enter_far", C.c_uint64)]
        + [("syndrome_offset", C.c_uint32), ("big_endian", C.c_uint32)]
        + [("exclusive_offset", C.c_uint32), ("dirty", C.c_uint32)]
        + [("yield_at", C.c_uint64), ("slept", C.c_uint64), ("silicon", Silicon)]
        + [("last_vector_elr", C.c_uint64), ("vector_faults", C.c_uint32), ("wfe", C.c_uint32)]
        + [("poll_ns", C.c_uint64)]
        + [("trace", C.c_uint32), ("events_n", C.c_uint32), ("events", EventRecord * EVENTS)]
        + [(n, C.c_uint32) for n in ("broadcast", "native_maintenance", "fault", "fault_error")]
        + [("stats", C.c_uint64 * len(STATS))]
        + [("event_register", C.c_uint32), ("epoch", C.c_uint32), ("event_cleared", C.c_uint64)]
        + [(n, C.c_uint32) for n in ("block_sev", "block_sevl", "marked_n", "marked_overflow")]
        + [("marked", Marked * 1024), ("heard", Marked * 256), ("filter", C.c_uint8 * 4096)]
        + [("exchanged_pa", C.c_uint64), ("exchanged", C.c_uint32), ("padding", C.c_uint32)]
    )  # fmt: skip

    # for type checkers: what ctypes makes of the fields
    count: int
    deadline: int
    block_pc: int
    count_base: int
    ns_base: int
    frequency: int
    counter_start: int
    cntvoff: int
    ns_per_insn: int
    cnthctl: int
    cntpoff: int
    cntkctl_bits: int
    denied: int
    denied_pstate: int
    denied_cntkctl: int
    open: int
    tail: int
    tail_ss: int
    leave: int
    tail_mdscr: int
    virq: int
    vfiq: int
    lines_in_engine: int
    stop: int
    hcr: int
    mdcr: int
    esr: int
    insn: int
    intno: int
    rt: int
    far: int
    hpfar: int
    pc: int
    rt_value: int
    timer_encoding: int
    timer_write: int
    value: int
    enter_esr: int
    enter_has_far: int
    enter_far: int
    syndrome_offset: int
    exclusive_offset: int
    dirty: int
    yield_at: int
    slept: int
    silicon: Silicon
    big_endian: int
    last_vector_elr: int
    vector_faults: int
    spin: int
    unheard: int
    el: int
    poll_at: int
    poll_ns: int
    trace: int
    events_n: int
    wfe_watch: int
    marks: int
    wfe: int
    event_register: int
    event_cleared: int
    epoch: int
    block_sev: int
    block_sevl: int
    illegal_watch: int
    broadcast: int
    native_maintenance: int
    fault: int
    fault_error: int
