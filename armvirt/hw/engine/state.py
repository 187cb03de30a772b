"""The state of an engine. This is the only definition of its layout: layout.h is generated from it.

`armvirt.hw.engine.layout` generates the C text from the annotations of the structures here, from
the classes of constants, and from `armvirt.arch`. A time is an instruction count, unless the name
of the field contains ns. The open block is the translated block that is executing; ``count`` does
not include the instructions of this block.
"""

from __future__ import annotations

import ctypes as C
from enum import IntEnum
from typing import Any, Final, TypeVar

ABI_VERSION = 13
"""The version of the layout. Increment it when the meaning of a field changes. A change of the
layout needs no new version, because the engine also compares the size of the structure."""

EVENTS = 256
MARKED = 1024  # a power of 2
CHECKED = 256
FILTER = 4096
LIST_REGISTERS, ACTIVE_PRIORITIES, TIMERS = 16, 4, 2
VECTOR_FAULT_LIMIT = 16
POLL_INSNS = 1 << 12  # executed within microseconds, or milliseconds if translated first
POLL_NS = 20_000_000
SITES = 16  # a power of 2
FIRST_ASK = 3  # `PollSite.returns` at which the engine first tries to prove a polled wait
NEVER_ASKED = 2560  # the same for the first proof of an engine, which must import the modules
WATCH_WORTH = 256  # before the first proof, a watch counts like this number of returns
PATIENCE = 8  # more returns until Python tries the proof for a loop that has a `WaitPlan`
MOST_REFUSALS = 18  # each failed proof doubles FIRST_ASK for the loop, at most this many times
WATCHED_BLOCKS = 64  # a watch ends if its block does not execute again within these blocks
LONGEST_WATCH_PERIOD = 128  # the maximum number of polls from one watch to the next
PLANS = 8  # a power of 2
KEPT_LOADS = 4
ARGUMENTS, RESULTS = (
    4,
    4,
)  # numbers of registers from X0 on: arguments and results of an SMCCC call
PLAN_LENGTH = 64  # the maximum number of instructions in the path of a `WaitPlan`
WAIT_RECORD = 3  # `EventRecord.what` of a skipped wait; the others are `What`
INTNO_SVC = 2  # the number with which the core reports an SVC
NO_BLOCK = 1  # no block starts at an odd address


class Action:
    """The actions of the engine after a callback. Each action is a bit, and the engine executes the
    actions whose bits are set. The bits are plain integers, because every exit uses them and an
    enum operation is slow."""

    RETRY: Final = 0
    WRITE_RT: Final = 2  # write state.rt_value to X<state.rt>
    ADVANCE: Final = 1  # add 4 to the PC, and count the instruction
    ENTER: Final = 4  # take the synchronous exception to EL1 that state.enter_* describes
    STOP: Final = 8  # leave run()
    WRITE_RESULTS: Final = 16  # write the first RESULTS values of state.arguments to X0 and up
    KEEP: Final = 32  # until the next callback, state.rt_value is the result of each equal load


class Repeatable:
    """Values of ``Shadow.repeat``: the interrupt that the engine may deliver again without an entry
    to EL2. The values are plain integers for speed, like `Action`."""

    NOTHING: Final = 0
    TICK: Final = 1  # deliver the interrupt of the virtual timer
    SGI: Final = 2  # deliver the SGI that a vCPU sends to itself


class Callback(IntEnum):
    """The numbers of the callbacks from an engine to the PE model (`PeCallbacks` in
    `armvirt.hw.engine.callbacks`). DRAIN has no method of its own. It passes the recorded exception
    entries to `PeCallbacks.entries`."""

    EL2, UNDEF, TIMER, POLL, DRAIN, BROADCAST, SEV = range(7)
    WAIT = 7  # to the engine itself: `armvirt.hw.engine.waits`
    SKIPPED = 8  # state.value instructions of a polled wait were skipped, and state.paced is set


class Leave(IntEnum):
    """The reason for which the engine left the guest. `Engine.run` returns only BUDGET, STOP and
    VECTOR_LOOP. For FAULT it raises EngineError. The other reasons are internal to the engine."""

    NONE, BUDGET, STOP, TAIL, MISALIGNED, FAULT, VECTOR_LOOP, ILLEGAL = range(8)


class Waits:
    """Values of state.wfe. WFE: the run ended after a WFE. YIELD: the run ended after a YIELD at
    the instruction count state.yield_at or later. The values are plain integers for speed, like
    `Action`."""

    WFE: Final = 1
    YIELD: Final = 2


class Marks:
    """Bits of state.marks: the special instructions in the open block, which is the translated
    block that is executing. The bits are plain integers for speed, like `Action`."""

    WFE: Final = 1  # the last instruction of the block
    YIELD: Final = 2
    ERET: Final = 4
    SEV: Final = 8  # anywhere in the block; state.block_sev is the index of the first SEV
    SEVL: Final = 16
    UNREAD: Final = 32  # the code is not readable when the block begins; retire reads the code


class What(IntEnum):
    """The kind of an exception entry. The offset of the exception vector in its group of vectors is
    this number times the size of a vector."""

    SYNC, IRQ, FIQ = range(3)


class Shadowed:
    """Bits of shadow.accesses: the kinds of register accesses that the engine completes itself,
    without a callback. The bits are plain integers for speed, like `Action`."""

    ICC: Final = 1
    TIMERS: Final = 2


class Stat(IntEnum):
    """Indices of state.stats. Each element of state.stats counts how often an event has
    happened."""

    TAILS = 0  # starts of single steps to an exact count
    STEPS = 1
    INTR = 2  # exceptions that the core reported
    EL2 = 3
    UNDEF = 4
    EL1_SYNC = 5
    IC = 6
    DC = 7
    TLBI = 8
    TLB_FLUSH = 9  # a TLBI by address that flushed the whole TLB
    TIMER = 10
    COUNTER = 11
    IRQ_NATIVE = 12  # virtual interrupts that the core took by itself
    IRQ_MANUAL = 13
    RUN = 14
    WFE = 15
    ICC = 16  # accesses to the CPU interface that the engine completed by itself
    REPEAT = 17  # timer wake-ups that the engine repeated by itself
    EXCHANGE = 18  # WFEs that were replaced by an ISB
    WAIT = 19  # polled waits of which rounds were skipped
    KEPT = 21  # loads from devices that the engine completed with a kept value
    WAIT_ASK = 20  # attempts to prove that a loop is a polled wait


CALLBACK = C.CFUNCTYPE(C.c_int, C.c_int)

# The types of fields, for type checkers. TYPES has the types for ctypes and C.
u16 = int
u32 = int
i32 = int
u64 = int
Pointer = int
Function = Any
u8s = Any  # an array
u32s = Any
u64s = Any
EventRecords = Any
MarkedBlocks = Any
PollSites = Any
KeptLoads = Any
WaitPlans = Any

#: For each annotation of a field: the ctypes class and the C type.
TYPES: dict[str, tuple[Any, str]] = {
    "u8": (C.c_uint8, "uint8_t"),
    "u16": (C.c_uint16, "uint16_t"),
    "u32": (C.c_uint32, "uint32_t"),
    "i32": (C.c_int32, "int32_t"),
    "u64": (C.c_uint64, "uint64_t"),
    "Pointer": (C.c_void_p, "void *"),
    "Function": (CALLBACK, "callback_fn"),
}

#: The dimensions of the fields that are arrays, by structure.
SHAPES: dict[type[C.Structure], dict[str, tuple[int, ...]]] = {}

Struct = TypeVar("Struct", bound="type[C.Structure]")


def _structure(**shapes: tuple[int, ...]) -> Any:
    """Return a class decorator that makes ``_fields_`` from the annotated fields, in their order.
    ``shapes`` has the dimensions of the fields that are arrays."""

    def make(cls: Struct) -> Struct:
        fields = []
        for name, text in cls.__annotations__.items():
            shape = shapes.get(name, ())
            kind = TYPES[text[:-1] if shape else text][0]
            for length in reversed(shape):
                kind = kind * length
            fields.append((name, kind))
        cls._fields_ = fields
        SHAPES[cls] = shapes
        return cls

    return make


@_structure()
class EventRecord(C.Structure):
    """An exception entry, for the trace. ``what`` is a `What` or WAIT_RECORD. ``count`` is the
    instruction count of the entry, and ``ns`` is its virtual time. ``elr`` is the preferred return
    address, and ``target`` is the address of the vector.

    If ``what`` is WAIT_RECORD, the record describes iterations of a polling loop that were skipped.
    In this case ``elr`` is the PC of the loop, ``esr`` is the number of instructions in an
    iteration, and ``target`` is the number of skipped iterations.
    """

    count: u64
    ns: u64
    elr: u64
    target: u64
    what: u32
    esr: u32


TYPES["EventRecord"] = (EventRecord, "event")


@_structure()
class MarkedBlock(C.Structure):
    """A translated block that ends in WFE, YIELD or ERET, or that contains SEV or SEVL.

    ``marks`` has `Marks` bits. ``sev`` is the index of the first SEV in the block, and ``sevl`` is
    the index of the first SEVL. ``epoch`` is the value of state.epoch when the engine examined the
    block. When code may have changed, state.epoch increases; a `MarkedBlock` with another ``epoch``
    is not valid. If the block ends in WFE, ``edges`` is the number of its translations, at most
    65535.
    """

    pc: u64
    size: u32
    epoch: u32
    marks: u16
    sev: u16
    sevl: u16
    edges: u16


TYPES["MarkedBlock"] = (MarkedBlock, "marked")


@_structure()
class KeptLoad(C.Structure):
    """The value that a load from a device returns until the next callback (`Action.KEEP`).

    A load from ``ipa`` with the same syndrome (without SRT, the register) returns ``value``.
    """

    ipa: u64
    esr: u64
    value: u64


TYPES["KeptLoad"] = (KeptLoad, "kept_load")


@_structure()
class PollSite(C.Structure):
    """An MRS of a counter or of a timer's control register that may be in a polling loop.

    ``pc`` is the address of the MRS. ``count`` is the instruction count at its last execution.
    ``distance`` is the number of instructions between its last two executions. ``returns`` is the
    number of times that this distance has repeated. ``run`` is the number of the run of Unicorn's
    core in which the MRS last executed; another run resets ``returns``. When ``returns`` is
    state.first_ask << ``refusals``, the engine tries to prove that the loop can be skipped.
    ``refusals`` is the number of consecutive failed proofs, at most MOST_REFUSALS.
    """

    pc: u64
    count: u64
    distance: u64
    run: u64
    returns: u32
    refusals: u32


TYPES["PollSite"] = (PollSite, "poll_site")


@_structure(
    start=(32,), address=(PLAN_LENGTH,), physical=(PLAN_LENGTH,), word=(PLAN_LENGTH,)
)  # fmt: skip
class WaitPlan(C.Structure):
    """The path of an iteration of a polling loop (`armvirt.hw.polling.loop.Path`), stored after
    Python has skipped a wait on this path. The native engine uses the path to prove that a later
    wait on the same path can be skipped (rounds.h)."""

    pc: u64
    carried: u64  # bit n: X<n>; bit 32: SP
    length: u32  # instructions of an iteration; 0 if there is no path
    keeps_flags: u32
    counts: u32
    yields: u32
    start: u64s  # X0 to X30 and SP at the start of the first iteration of the proof
    start_nzcv: u64
    address: u64s
    physical: u64s
    word: u32s


TYPES["WaitPlan"] = (WaitPlan, "wait_plan")


@_structure(
    lr=(LIST_REGISTERS,), cval=(TIMERS,), ap=(2, ACTIVE_PRIORITIES), mask=(2,), ctl=(TIMERS,),
    line=(TIMERS,),
)  # fmt: skip
class Shadow(C.Structure):
    """Shadow copies of PE registers during a run; see `armvirt.hw.shadow`.

    In the fields of the timers, index 0 is the virtual timer and index 1 is the physical timer. In
    ``ap`` and ``mask`` the index is the interrupt group.
    """

    lr: u64s
    cval: u64s
    ap: u32s  # ICH_AP0R<n>_EL2 and ICH_AP1R<n>_EL2
    hcr: u32
    vmcr: u32
    lrs: u32  # the number of list registers
    prebits: u32
    mask: u32s  # the bits of a priority that form the group priority
    candidate: i32  # list register of the highest-priority pending interrupt; -1 if none is pending
    signalled: u32
    maintenance: u32
    virq: u32
    vfiq: u32
    own_virq: u32  # HCR_EL2.VI
    own_vfiq: u32  # HCR_EL2.VF
    ctl: u32s
    line: u32s
    ppi_line: u32  # bit n: INTID n
    ppi_latch: u32
    ppi_active: u32
    ppi_enabled: u32
    accesses: u32  # `Shadowed`
    repeat: u32  # `Repeatable`: what EL2 permits the engine to repeat
    repeat_lr: u64  # list register 0 at the first time
    repeat_value: u64  # of a write of ICC_SGI1R_EL1: the value
    event_ns: u64  # the ns of the next event other than the rise of a timer line
    repeats: u32  # the number of wake-ups or writes that the engine has repeated
    repeat_hcr: u32  # ICH_HCR_EL2 at the first time
    retaken: u32  # the engine has delivered the interrupt of a line that stayed high
    waiting: u32  # physical interrupts that EL2 has for the guest without a list register


TYPES["Shadow"] = (Shadow, "shadow")


@_structure(
    events=(EVENTS,), stats=(len(Stat),), marked=(MARKED,), checked=(CHECKED,), filter=(FILTER,),
    sites=(SITES,), watch_x=(33,), plans=(PLANS,), arguments=(ARGUMENTS,),
    kept=(KEPT_LOADS,),
)  # fmt: skip
class EngineState(C.Structure):
    """The state of one engine. The fields that the engine reads at every translated block come
    first, so that they are in two cache lines."""

    count: u64
    deadline: u64
    poll_at: u64
    block_pc: u64
    open: u32
    tail: u32
    lines_in_engine: u32  # the present VI and VF bits in HCR_EL2 of Unicorn's core
    stop: u32
    marks: u32
    illegal_watch: u32
    wfe_watch: u32
    spin: u32
    unreported: u32  # the next block may have been translated without a call of on_edge
    el: u32  # the exception level of the UNDEFINED instruction at Callback.UNDEF
    # The loaded libunicorn
    uc: Pointer
    context: Pointer
    emu_start: Pointer
    emu_stop: Pointer
    reg_read: Pointer
    reg_write: Pointer
    reg_write_batch: Pointer
    ctl: Pointer
    context_save: Pointer
    vmem_translate: Pointer
    mem_read: Pointer
    mem_write: Pointer
    callback: Function
    # Time
    count_base: u64
    ns_base: u64
    frequency: u64
    counter_start: u64
    cntvoff: u64
    ns_per_insn: u64
    cnthctl: u64
    cntpoff: u64
    denied_cntkctl: u64
    cntkctl_bits: u64
    # Single steps to an exact count, and an access that the core refuses
    tail_ss: u32
    leave: u32
    denied: u32
    denied_pstate: u32
    tail_mdscr: u64
    # Lines of the virtual CPU interface; controls of EL2
    virq: u32
    vfiq: u32
    hcr: u64
    mdcr: u64
    # The exit, which Python handles, and the answer
    esr: u64  # from here to big_endian: the fields of `armvirt.hw.exit.SyncExit`, in this order
    far: u64
    ipa: u64
    pc: u64
    rt: u64
    rt_value: u64
    insn: u64
    big_endian: u64
    arguments: u64s  # X0 and up at an HVC or SMC
    kept: KeptLoads
    kept_n: u32
    intno: u32
    timer_encoding: u32
    timer_write: u32
    value: u64
    enter_esr: u32
    enter_has_far: u32
    enter_far: u64
    # Offsets in the saved context, found by calibration
    syndrome_offset: u32
    exclusive_offset: u32
    dirty: u32  # the engine has changed shadow registers
    yield_at: u64  # a YIELD at this count or later ends the run, like WFE
    repeat_ns: u64  # ns that passed in repeated timer wake-ups
    shadow: Shadow
    # Endless loops
    last_vector_elr: u64
    vector_faults: u32
    wfe: u32  # `Waits`
    poll_ns: u64
    # Trace
    trace: u32
    events_n: u32
    events: EventRecords
    broadcast: u32
    native_maintenance: u32
    fault: u32
    fault_error: u32
    stats: u64s
    event_register: u32
    epoch: u32  # increases when the code at an address may have changed
    event_cleared: u64  # the ns at which a WFE last cleared the event register
    block_sev: u32  # the index of the first SEV in the open block, if the block has marks
    block_sevl: u32
    # Blocks with marks: the entries, a filter, and blocks that were checked without a call of
    # on_edge
    marked_n: u32
    marked_overflow: u32
    marked: MarkedBlocks
    checked: MarkedBlocks
    filter: u8s
    exchanged_pa: u64  # the physical address of a WFE while an ISB replaces this WFE in memory
    exchanged: u32
    # Polled waits
    paced: u32  # the PE is told of each skip, which is LONGEST_PACED_SKIP_NS long at most
    skip: u32  # whether polled waits are skipped
    skipped: u64  # instructions that were skipped in polled waits
    first_ask: u32  # starts at NEVER_ASKED; FIRST_ASK after the first proof of the engine
    sites: PollSites  # by bits of the PC
    watch_pc: u64  # the block that a watch waits for, to detect a loop that polls memory
    watch_count: u64
    watch_distance: u64  # instructions to the first return; 0 if the block has not returned
    watch_left: u32  # blocks until the watch ends; 0 if no watch is active
    watch_wait: u32  # polls until the next watch
    watch_period: u32
    watch_x: u64s  # X0 to X30, SP, PSTATE at the last return
    plans: WaitPlans  # by bits of the PC


#: C prototypes of libunicorn's functions in `EngineState`.
PROTOTYPES = {
    "emu_start": "int (*{})(void *, uint64_t, uint64_t, uint64_t, size_t)",
    "emu_stop": "int (*{})(void *)",
    "reg_read": "int (*{})(void *, int, void *)",
    "reg_write": "int (*{})(void *, int, const void *)",
    "reg_write_batch": "int (*{})(void *, const int *, void *const *, int)",
    "ctl": "int (*{})(void *, uint32_t, ...)",
    "context_save": "int (*{})(void *, void *)",
    "vmem_translate": "int (*{})(void *, uint64_t, uint32_t, uint64_t *)",
    "mem_read": "int (*{})(void *, uint64_t, void *, uint64_t)",
    "mem_write": "int (*{})(void *, uint64_t, const void *, uint64_t)",
}
