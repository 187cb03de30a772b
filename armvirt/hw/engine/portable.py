"""The engine whose hooks run in Python through ctypes: slow, needs no compiler, same results as
native.c.

Read this file first: native.c implements the same in C. The order of the tests in each hook is part
of the contract.
"""

from __future__ import annotations

import ctypes as C
import time
import weakref
from collections.abc import Callable

from armvirt.arch.bits import MASK64
from armvirt.arch.decode import is_msr_mrs, tlbi_address, tlbi_asid
from armvirt.arch.encoding import CRM_MASK, CRM_SHIFT, CRN_MASK, CRN_SHIFT, OP0_SHIFT, sysreg
from armvirt.arch.esr import (
    ACCESS_FIELDS,
    EC,
    EC_WITH_FAR,
    ILLEGAL_STATE,
    ISV,
    PC_ALIGNMENT,
    SRT_SHIFT,
    STEP_ISV,
    UNDEFINED,
    decode_sysreg,
    exception_class,
    sysreg_trap,
)
from armvirt.arch.insn import (
    DC_CVAU,
    ERET,
    EXCEPTION_MASK,
    HLT,
    IC_IALLU,
    IC_IALLUIS,
    IC_IVAU,
    MRS_CNTPCTSS,
    MRS_CNTVCTSS,
    MSR_IMM,
    MSR_IMM_MASK,
    RT_MASK,
    SEV,
    SEVL,
    SYSTEM_ENCODING,
    SYSTEM_SHIFT,
    TLBI_ANY_ASID,
    TLBI_BY_VA,
    TLBI_CRM_IS,
    TLBI_CRN,
    WFE,
    WFXT,
    WFXT_MASK,
    WITHOUT_RT,
    WRITEBACK,
    WRITEBACK_MASK,
    XZR,
    YIELD,
    unmasks_interrupts,
)
from armvirt.arch.named import (
    HCR_EL2,
    HCR_VF,
    HCR_VI,
    HPFAR_EL2,
    MDCR_EL2,
    MDCR_TDA,
    MDCR_TDE,
    MDSCR_EL1,
    MDSCR_SS,
    SCTLR_E0E,
    SCTLR_EE,
    SCTLR_EL1,
    SPSR_EL1,
    TCR_EL1,
)
from armvirt.arch.pstate import (
    PSTATE_DAIF,
    PSTATE_EL,
    PSTATE_EL1_ENTRY,
    PSTATE_F,
    PSTATE_I,
    PSTATE_IL,
    PSTATE_MODE,
    PSTATE_NRW,
    PSTATE_SS,
    VECTOR_BYTES,
    VECTOR_END,
    VECTOR_LOWER_A32,
    Vector,
    exception_level,
    illegal_return,
)
from armvirt.arch.timer import (
    CNTHCTL_PCEN,
    CNTHCTL_PCTEN,
    CNTHCTL_TVCT,
    CNTHCTL_TVT,
    CNTKCTL_EL1,
    CNTPCT_EL0,
    CNTVCT_EL0,
    EL0_ENABLES,
    NS_PER_SECOND,
)
from armvirt.arch.translation import (
    ADDRESS_MASK,
    ENTRIES,
    LAST_LEVEL,
    MAX_TSZ,
    MIN_TSZ,
    TABLE,
    TCR_A1,
    TCR_T0SZ_SHIFT,
    TCR_T1SZ_SHIFT,
    TCR_TG0_SHIFT,
    TCR_TG1_SHIFT,
    TCR_TG_MASK,
    TCR_TSZ_MASK,
    TG0_4K,
    TG1_4K,
    TTBR_ASID_SHIFT,
    UPPER_RANGE_SHIFT,
    VALID,
    start_level,
)
from armvirt.arch.translation import (
    index as table_index,
)
from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.calibrate import Calibration
from armvirt.hw.engine.state import (
    EVENTS,
    INTNO_SVC,
    NO_BLOCK,
    POLL_INSNS,
    POLL_NS,
    VECTOR_FAULT_LIMIT,
    Action,
    Callback,
    Leave,
    Marks,
    Stat,
    Waits,
    What,
)
from armvirt.hw.exception import take_exception

LINE_IRQ, LINE_FIQ = HCR_VI, HCR_VF
assert (LINE_IRQ, LINE_FIQ) == (PSTATE_I, PSTATE_F)  # one test for both "signalled" and "masked"
LAST_WORDS = {WFE: Marks.WFE, YIELD: Marks.YIELD, ERET: Marks.ERET}
FETCH_FAULTS = (EC.IABT_LOWER, EC.IABT_CURRENT)
STEPS = (EC.STEP_LOWER, EC.STEP_CURRENT)
STAGE2_ABORTS = (EC.IABT_LOWER, EC.DABT_LOWER)
MARKED_ADDRESSES = 1 << 16  # maximum of remembered addresses of blocks with marks

_BLOCK = C.CFUNCTYPE(None, C.c_void_p, C.c_uint64, C.c_uint32, C.c_void_p)
_INTR = C.CFUNCTYPE(None, C.c_void_p, C.c_uint32, C.c_void_p)
_INSN = C.CFUNCTYPE(C.c_uint32, C.c_void_p, C.c_int, C.POINTER(abi.CpReg), C.c_void_p)


class _Tb(C.Structure):
    _fields_ = [("pc", C.c_uint64), ("icount", C.c_uint16), ("size", C.c_uint16)]


_EDGE = C.CFUNCTYPE(None, C.c_void_p, C.POINTER(_Tb), C.POINTER(_Tb), C.c_void_p)


class _Everywhere(set[int]):
    """Replaces the set of addresses of marked blocks when it has more than MARKED_ADDRESSES:
    contains every address, so every block is examined for marks."""

    def __contains__(self, pc: object) -> bool:
        return True

    def add(self, pc: int) -> None:
        pass


class PortableEngine(Engine):
    """The `Engine` with its hooks in Python."""

    kind = "portable"

    def __init__(self, lib: abi.Library, calibration: Calibration, model: str) -> None:
        self._marked: set[int] = set()  # addresses at which a block with marks was translated
        super().__init__(lib, calibration, model)

    def _add_hooks(self) -> None:
        self.hook(abi.HOOK_BLOCK, _BLOCK(self._guarded(self._on_block)))
        self.hook(abi.HOOK_INTR, _INTR(self._guarded(self._on_intr)))
        for function, instruction in (
            (self._on_mrs, abi.INSN_MRS),
            (self._on_msr, abi.INSN_MSR),
            (self._on_sys, abi.INSN_SYS),
        ):
            self.hook(abi.HOOK_INSN, _INSN(self._guarded(function, 0)), instruction=instruction)
        self._add_dormant_hooks()

    def _guarded(
        self, function: Callable[..., object], default: object = None
    ) -> Callable[..., object]:
        """Wrap a hook: keep its exception for `run` and stop, because ctypes prints and drops an
        exception."""

        method = weakref.WeakMethod(function)  # otherwise the hook would keep the engine alive

        def call(*arguments: object) -> object:
            bound = method()
            if bound is None:
                return default
            try:
                return bound(*arguments)
            except BaseException as error:
                engine: PortableEngine = bound.__self__  # type: ignore[attr-defined]
                engine.error = engine.error or error
                engine._leave(Leave.STOP)
                return default

        return call

    def watch_wfe(self) -> None:
        """See `Engine.watch_wfe`."""
        if not self.state.wfe_watch:
            self.state.wfe_watch = 1
            self.invalidate_all_code()  # code that is already translated was not examined for marks
            self.hook(abi.HOOK_EDGE, _EDGE(self._guarded(self._on_edge)))

    def _leave(self, why: Leave) -> None:
        self.state.leave = why
        self.lib.uc_emu_stop(self.uc)

    # -- time --

    def _counter_at(self, count: int) -> int:
        state = self.state
        ns = state.ns_base + (count - state.count_base) * state.ns_per_insn
        return state.counter_start + ns * state.frequency // NS_PER_SECOND

    def _record(self, what: What, esr: int, elr: int, target: int) -> None:
        state = self.state
        if not state.trace:
            return
        if state.events_n == EVENTS:
            self.flush_events()
        event = state.events[state.events_n]
        event.count, event.elr, event.target, event.what, event.esr = (
            state.count,
            elr,
            target,
            what,
            esr,
        )
        event.ns = state.ns_base + (state.count - state.count_base) * state.ns_per_insn
        state.events_n += 1

    # -- exception entry --

    def enter_el1(self, what: What, esr: int, far: int | None) -> None:
        """Take an exception to EL1 at the present PC; state.count increases by one."""
        state, pstate, pc = self.state, self.pstate, self.pc
        vbar, sync = self.read(abi.R_VBAR_EL1), what == What.SYNC
        target = take_exception(self, Vector(what * VECTOR_BYTES), esr if sync else None, far)
        self._record(what, esr, pc, target)
        state.count += 1
        in_vectors = exception_level(pstate) > 0 and 0 <= pc - vbar < VECTOR_END
        self._watch_vectors(sync and in_vectors, pc)

    def _watch_vectors(self, in_vectors: bool, pc: int) -> None:
        """Leave with VECTOR_LOOP if the exception vectors fault at the same address
        VECTOR_FAULT_LIMIT times."""
        state = self.state
        if in_vectors and pc == state.last_vector_elr:
            state.vector_faults += 1
            if state.vector_faults >= VECTOR_FAULT_LIMIT:
                state.vector_faults = 0
                self._leave(Leave.VECTOR_LOOP)
        else:
            state.vector_faults = 0
        state.last_vector_elr = pc

    def apply_lines(self) -> None:
        """Take a signalled, unmasked interrupt now. Pass a masked interrupt to the core, which
        takes it when the guest unmasks it."""
        state = self.state
        lines = (LINE_IRQ if state.virq else 0) | (LINE_FIQ if state.vfiq else 0)
        if lines:
            ps = self.pstate
            if state.vfiq and not ps & LINE_FIQ:
                state.stats[Stat.IRQ_MANUAL] += 1
                self.enter_el1(What.FIQ, 0, None)
            elif state.virq and not ps & LINE_IRQ:
                state.stats[Stat.IRQ_MANUAL] += 1
                self.enter_el1(What.IRQ, 0, None)
        if lines != state.lines_in_engine:
            state.lines_in_engine = lines
            self.write_system(HCR_EL2, state.hcr | lines)

    def _native_irq(self, pc: int) -> What | None:
        """The kind of the virtual interrupt that the core has just taken by itself, because the
        guest unmasked the interrupt; else None."""
        state, kind = self.state, pc >> 7 & 3
        if (
            kind not in (1, 2)
            or pc & VECTOR_BYTES - 1
            or not state.lines_in_engine & (LINE_IRQ if kind == 1 else LINE_FIQ)
        ):
            return None
        if (
            not state.open
            or self.pstate & (PSTATE_DAIF | PSTATE_NRW | PSTATE_MODE) != PSTATE_EL1_ENTRY
        ):
            return None
        offset = pc & VECTOR_END - 1
        if offset >= VECTOR_LOWER_A32 or self.read(abi.R_VBAR_EL1) != pc - offset:
            return None
        if self.read_system(SPSR_EL1) & (LINE_IRQ if kind == 1 else LINE_FIQ):
            return None  # the interrupt was masked: a jump to the vector
        return (
            What(kind)
            if unmasks_interrupts(self.fetch(state.block_pc + 4 * (state.open - 1)))
            else None
        )

    def _note_native_irq(self, pc: int) -> None:
        what = self._native_irq(pc)
        if what is None:
            return
        state = self.state
        state.stats[Stat.IRQ_NATIVE] += 1
        if state.marks:
            self._retire(state.open)
        state.count += state.open
        state.open, state.block_pc = 0, NO_BLOCK
        self._record(what, 0, self.read(abi.R_ELR_EL1), pc)
        state.count += 1
        state.unreported = state.wfe_watch

    # -- the tail: single steps to an exact count --

    def _tail_begin(self) -> None:
        state, ps = self.state, self.pstate
        state.stats[Stat.TAILS] += 1
        state.tail, state.tail_ss = 1, ps & PSTATE_SS
        state.tail_mdscr = self.read_system(MDSCR_EL1)
        self.write_system(MDCR_EL2, state.mdcr | MDCR_TDE)
        self.pstate = ps | PSTATE_SS
        self.write_system(MDSCR_EL1, state.tail_mdscr | MDSCR_SS)

    def _tail_end(self) -> None:
        state = self.state
        state.tail = 0
        self.pstate = self.pstate & ~PSTATE_SS | state.tail_ss
        self.write_system(MDCR_EL2, state.mdcr)
        self.write_system(MDSCR_EL1, state.tail_mdscr)

    def _tail_stepped(self) -> None:
        state = self.state
        state.stats[Stat.STEPS] += 1
        if state.count >= state.deadline or state.stop:
            self._tail_end()
            self._leave(Leave.STOP if state.stop else Leave.BUDGET)
            return
        self.pstate = self.pstate | PSTATE_SS
        self.write_system(MDSCR_EL1, state.tail_mdscr | MDSCR_SS)

    # -- hooks --

    def _on_edge(self, _uc: int, current: object, _previous: object, _user: int) -> None:
        tb = current.contents  # type: ignore[attr-defined]
        self._note_block(tb.pc, tb.size)

    def _note_block(self, pc: int, size: int) -> None:
        """Remember the address of a block with marks."""
        if size >= 4 and self._marks_of(pc, size)[0]:
            self._marked.add(pc)
            if len(self._marked) > MARKED_ADDRESSES:
                self._marked = _Everywhere()

    def _marks_of(self, pc: int, size: int) -> tuple[int, int, int]:
        """(marks, index of the first SEV, index of the first SEVL) of the code at ``pc``. A block
        is within one page."""
        pa = self.translate(pc, execute=True)
        if pa is None:
            return Marks.UNREAD, 0, 0
        words = memoryview(self.read_physical(pa, size)).cast("I").tolist()
        marks, sev, sevl = LAST_WORDS.get(words[-1], 0), size, size
        if SEV in words:
            marks, sev = marks | Marks.SEV, words.index(SEV)
        if SEVL in words:
            marks, sevl = marks | Marks.SEVL, words.index(SEVL)
        return marks, sev, sevl

    def _open_marked(self, pc: int, size: int) -> None:
        """Read the marks when the block begins: another address space may have another block at the
        same address."""
        state = self.state
        state.marks, state.block_sev, state.block_sevl = self._marks_of(pc, size)
        if state.marks & (
            Marks.WFE | Marks.YIELD
        ):  # after this block the core starts again, without a call of _on_edge
            state.unreported = state.wfe_watch

    def _retire(self, done: int, can_wait: bool = True) -> None:
        """Apply the marks of the open block when ``done`` of its instructions have retired (DDI
        0487 D1.6.1).

        SEVL and an exception return set the event register; SEV sets it on all CPUs. A WFE at the
        end of the block clears the event register and completes if the register is set, or if
        ``can_wait`` is False. Otherwise the run ends after the WFE.
        """
        state, end = self.state, self.state.count + done
        marks, state.marks = state.marks, 0
        if marks & Marks.UNREAD:
            marks, state.block_sev, state.block_sevl = self._marks_of(
                state.block_pc, 4 * state.open
            )
        if marks & Marks.SEVL and state.block_sevl < done:
            state.event_register = 1
        if marks & Marks.SEV and state.block_sev < done:
            state.event_register = 1
            state.value = state.count + state.block_sev + 1
            if state.broadcast:
                self.dispatch(Callback.SEV)
        if not done or done < state.open:
            return
        if marks & Marks.ERET:
            state.event_register = 1
        if marks & Marks.WFE:
            state.stats[Stat.WFE] += 1
            if state.event_register or not can_wait:
                state.event_register = 0
                state.event_cleared = state.ns_base + (end - state.count_base) * state.ns_per_insn
            else:
                state.wfe, state.stop = Waits.WFE, 1
        if marks & Marks.YIELD and end >= state.yield_at:
            state.wfe, state.stop = Waits.YIELD, 1

    def _on_block(self, _uc: int, pc: int, size: int, _user: int) -> None:
        state, n = self.state, size >> 2
        if state.lines_in_engine:
            self._note_native_irq(pc)
        if state.marks:
            self._retire(state.open)
        count = state.count + state.open
        if count >= state.poll_at:
            self._poll_host()
        deadline = state.deadline
        illegal = state.illegal_watch and self.pstate & PSTATE_IL
        if count + n > deadline or state.stop or pc & 3 or illegal:
            state.count, state.open, state.block_pc = count, 0, NO_BLOCK
            self._leave(
                Leave.STOP if state.stop else Leave.BUDGET if count >= deadline else Leave.ILLEGAL if illegal
                else Leave.MISALIGNED if pc & 3 else Leave.TAIL
            )  # fmt: skip
            return
        if n == 1 and pc == state.block_pc and state.open == 1 and not state.tail:
            # A branch to itself: only an interrupt ends it.
            state.count, state.open, state.spin = count, 0, 1
            self._leave(Leave.BUDGET)
            return
        state.count, state.open, state.block_pc = count, n, pc
        if state.unreported:  # translated, possibly, without a call of _on_edge
            state.unreported = 0
            self._note_block(pc, size)
        if pc in self._marked:
            self._open_marked(pc, size)

    def _poll_if_due(self) -> None:
        """Called after slow work with few instructions: if a poll is due, poll at the next
        block."""
        if time.monotonic_ns() - self.state.poll_ns >= POLL_NS:
            self.state.poll_at = self.state.count

    def _poll_host(self) -> None:
        state = self.state
        state.poll_at = state.count + POLL_INSNS
        now = time.monotonic_ns()
        if now - state.poll_ns >= POLL_NS:
            state.poll_ns = now
            if self.dispatch(Callback.POLL):
                state.stop = 1

    def _el0_denied(self, encoding: int) -> bool:
        """Whether CNTKCTL_EL1 denies the access at EL0; the core itself then takes the trap to
        EL1."""
        if self.pstate & PSTATE_EL:
            return False
        return not self.read_system(CNTKCTL_EL1) & EL0_ENABLES[encoding]

    def _trapped_to_el2(self, encoding: int) -> bool:
        """Whether CNTHCTL_EL2 (layout of E2H = 0) traps an access that EL1 makes or permits."""
        cnthctl, crm = self.state.cnthctl, encoding >> CRM_SHIFT & CRM_MASK
        if crm == 0:
            return (
                not cnthctl & CNTHCTL_PCTEN
                if encoding == CNTPCT_EL0
                else bool(cnthctl & CNTHCTL_TVCT)
            )
        return not cnthctl & CNTHCTL_PCEN if crm == 2 else bool(cnthctl & CNTHCTL_TVT)

    def _refuse(self) -> int:
        """Make the core trap the access itself, with a syndrome, as at EL0 with CNTKCTL_EL1 = 0.

        A hook cannot raise an exception, and this core has no trap of the virtual timer (FEAT_ECV).
        `_on_intr` restores PSTATE and CNTKCTL_EL1, and redirects the exception to EL2.
        """
        state = self.state
        state.denied, state.denied_pstate = 1, self.pstate
        state.denied_cntkctl = self.read_system(CNTKCTL_EL1)
        self.write_system(CNTKCTL_EL1, 0)
        self.pstate = state.denied_pstate & ~PSTATE_MODE
        return 0

    def _timer_access(self, rt: int, r: abi.CpReg, is_write: bool) -> int:
        if r.op1 != 3 or not (r.op2 in (1, 2) if r.crm == 0 else r.crm in (2, 3) and r.op2 < 3):
            return 0
        encoding = sysreg(r.op0, r.op1, r.crn, r.crm, r.op2)
        if (is_write and r.crm == 0) or self._el0_denied(encoding):
            return 0
        if self._trapped_to_el2(encoding):
            return self._refuse()
        state, pc = self.state, self.pc
        count = state.count + ((pc - state.block_pc) >> 2 if state.open else 0)
        if r.crm == 0:
            state.stats[Stat.COUNTER] += 1
            offset = state.cntvoff if encoding == CNTVCT_EL0 else state.cntpoff
            self.write(rt, (self._counter_at(count) - offset) & MASK64)
            return 1
        state.stats[Stat.TIMER] += 1
        opened, open_ = state.count, state.open
        state.count, state.open = count, 0
        state.timer_encoding, state.timer_write, state.value, state.pc = (
            encoding,
            int(is_write),
            r.val,
            pc,
        )
        self.dispatch(Callback.TIMER)
        state.count, state.open = opened, open_
        if not is_write:
            self.write(rt, state.value)
        return 1

    def _on_mrs(self, _uc: int, rt: int, register: object, _user: int) -> int:
        r: abi.CpReg = register.contents  # type: ignore[attr-defined]
        return self._timer_access(rt, r, False) if r.crn == 14 and r.op0 == 3 else 0

    def _on_msr(self, _uc: int, rt: int, register: object, _user: int) -> int:
        r: abi.CpReg = register.contents  # type: ignore[attr-defined]
        if r.op0 != 3:
            return 0
        if r.crn == 14:
            beyond = r.val & ~self.state.cntkctl_bits
            if r.crm == 1 and r.op1 == r.op2 == 0 and beyond:
                self.write_system(
                    CNTKCTL_EL1, r.val ^ beyond
                )  # RES0 here, but the core stores them
                return 1
            return self._timer_access(rt, r, True)
        if r.crn == 4 and r.crm == r.op1 == r.op2 == 0:
            self.state.illegal_watch = int(illegal_return(r.val))
            if r.val & PSTATE_NRW:  # the engine would run AArch32: make the return illegal
                self.write_system(SPSR_EL1, r.val & ~(PSTATE_NRW | PSTATE_MODE) | PSTATE_MODE)
                return 1
        if r.crn == 12 and r.crm == r.op1 == r.op2 == 0 and r.val & VECTOR_END - 1:
            self.write(abi.R_VBAR_EL1, r.val & -VECTOR_END)  # RES0 here, but the core stores them
            return 1
        return 0

    def _page_mapped(self, va: int, asid: int | None) -> bool:
        """Whether the tables still map ``va`` by a leaf table.

        If so, every TLB entry of ``va`` is an entry for a page, and the core's flush of one page is
        sufficient. Otherwise the core may have cached a block as many pages. (Break-before-make,
        DDI 0487 D8.16, requires that the block's descriptor is invalid or still a block at this
        moment.) For the 4 KiB granule only; the stage-2 map is the identity.
        """
        tcr, high = self.read_system(TCR_EL1), va >> UPPER_RANGE_SHIFT & 1
        ttbr = self.read(abi.R_TTBR1_EL1 if high else abi.R_TTBR0_EL1)
        tsz = tcr >> (TCR_T1SZ_SHIFT if high else TCR_T0SZ_SHIFT) & TCR_TSZ_MASK
        granule = tcr >> (TCR_TG1_SHIFT if high else TCR_TG0_SHIFT) & TCR_TG_MASK
        if granule != (TG1_4K if high else TG0_4K) or not MIN_TSZ <= tsz <= MAX_TSZ:
            return False
        if not high and asid is not None:
            current = self.read(abi.R_TTBR1_EL1) if tcr & TCR_A1 else ttbr
            if current >> TTBR_ASID_SHIFT != asid:
                return False
        bits, table = 64 - tsz, ttbr & ADDRESS_MASK
        index = va & (1 << bits) - 1
        for level in range(start_level(bits), LAST_LEVEL):
            entry = table + (table_index(index, level) & ENTRIES - 1) * 8
            word = (C.c_uint64 * 1)()
            if self.lib.uc_mem_read(self.uc, entry, word, 8) or ~word[0] & (VALID | TABLE):
                return False
            table = word[0] & ADDRESS_MASK
        return True

    def _on_sys(self, _uc: int, _rt: int, register: object, _user: int) -> int:
        r: abi.CpReg = register.contents  # type: ignore[attr-defined]
        if r.crn != TLBI_CRN or r.op0 != 1:
            return 0
        value, state = r.val, self.state
        state.stats[Stat.TLBI] += 1
        self._poll_if_due()
        if r.op2 & TLBI_BY_VA:
            va = tlbi_address(value)
            if not self._page_mapped(va, None if r.op2 & TLBI_ANY_ASID else tlbi_asid(value)):
                state.stats[Stat.TLB_FLUSH] += 1
                self.flush_tlb()
        if state.broadcast and r.crm == TLBI_CRM_IS:
            self._broadcast_maintenance(sysreg(r.op0, r.op1, r.crn, r.crm, r.op2), value)
        return 0

    def _broadcast_maintenance(self, encoding: int, value: int) -> None:
        self.state.timer_encoding, self.state.value = encoding, value
        self.dispatch(Callback.BROADCAST)

    def _act(self, action: int, pc: int) -> None:
        state = self.state
        if action & Action.WRITE_RT:
            self.set_x(state.rt, state.rt_value)
        if action & Action.ADVANCE:
            self.pc = pc + 4
            state.count += 1
        if action & Action.ENTER:
            self.enter_el1(
                What.SYNC, state.enter_esr, state.enter_far if state.enter_has_far else None
            )
        self.apply_lines()
        if action & Action.STOP or state.stop:
            state.stop = 0
            self._leave(Leave.STOP)

    def _maintenance(self, esr: int, pc: int) -> bool:
        """Complete cache maintenance that trapped only because this model sets HCR_EL2.TPU: not an
        exit to EL2."""
        state, (encoding, _, rt) = self.state, decode_sysreg(esr)
        if not state.native_maintenance or encoding >> OP0_SHIFT != 1:
            return False
        if encoding == DC_CVAU:  # nothing to clean
            state.stats[Stat.DC] += 1
        elif encoding == IC_IVAU:
            state.stats[Stat.IC] += 1
            pa = self.translate(self.x(rt) & ~63)
            if pa is not None:
                self.invalidate_code(pa & ~63, 64)
                if state.broadcast:
                    self._broadcast_maintenance(IC_IVAU, pa & ~63)
        elif encoding in (IC_IALLU, IC_IALLUIS):
            state.stats[Stat.IC] += 1
            self.invalidate_all_code()
            if state.broadcast and encoding == IC_IALLUIS:
                self._broadcast_maintenance(IC_IALLUIS, 0)
        else:
            return False
        self.pc = pc + 4
        state.count += 1
        return True

    def _tail_debug_register(self, esr: int, pc: int) -> bool:
        """A debug register access during single steps would reach the engine's own step bits:
        complete it with the guest's value."""
        encoding, is_read, rt = decode_sysreg(esr)
        if encoding >> OP0_SHIFT != 2 or self.state.mdcr & MDCR_TDA:
            return False
        if is_read:
            self.set_x(rt, self.read_system(encoding))
        else:
            self.write_system(encoding, self.x(rt))
        self.pc = pc + 4
        self.state.count += 1
        return True

    def _syndrome(self) -> tuple[int, int, int]:
        """(ESR, FAR, target EL) of the exception that is being taken."""
        self.lib.uc_context_save(self.uc, self.raw_context)
        at = (self.raw_context.value or 0) + self.calibration.syndrome
        word, address = C.c_uint32.from_address, C.c_uint64.from_address(at + 8)
        return word(at).value, address.value, word(at + 16).value

    def _repair_syndrome(self, esr: int, target: int, pc: int) -> int:
        """Correct the core's syndrome where it differs from the architecture (DDI 0487, ISS
        encodings)."""
        if exception_class(esr) == EC.DABT_LOWER and target == 2 and esr & ISV:
            # ISV is 0 for loads and stores with writeback; the core sets 1.
            writeback = self.fetch(pc) & WRITEBACK_MASK == WRITEBACK
            return esr & ~ACCESS_FIELDS if writeback else esr
        if esr == 0 and target == 1:
            # MSR DAIFSet/DAIFClr at EL0 under SCTLR_EL1.UMA = 0 is EC 0x18; anything else is
            # UNDEFINED with IL.
            insn = self.fetch(pc)
            if insn & MSR_IMM_MASK == MSR_IMM:
                return sysreg_trap(insn >> SYSTEM_SHIFT & SYSTEM_ENCODING, False, XZR)
            return UNDEFINED
        if exception_class(esr) == EC.SYSREG and target == 1 and self.pstate & PSTATE_EL:
            # EL1 accesses do not trap to EL1. But the core traps CNTPS_*_EL1, which are
            # UNDEFINED at Non-secure EL1 (DDI 0487, CNTPS_CTL_EL1).
            return UNDEFINED
        return esr

    def _close_block(self, pc: int, number: int, esr: int, target: int) -> bool:
        """Count the executed instructions of the open block; False if the exit is not within the
        block."""
        state, ec = self.state, exception_class(esr)
        if state.open:
            # A fetch fault is taken after the block; ISV of a guest step means that the instruction
            # was executed.
            complete = ec in FETCH_FAULTS or (ec in STEPS and esr & STEP_ISV)
            done = state.open if complete else (pc - state.block_pc) >> 2
            if not 0 <= done <= state.open:
                state.fault, state.fault_error = 1, number
                self._leave(Leave.FAULT)
                return False
            if state.marks:
                self._retire(
                    done, ec not in STEPS or target == 2
                )  # the guest's step completes a WFE
            state.count += done
            state.open = 0
        state.block_pc, state.marks, state.unreported = NO_BLOCK, 0, state.wfe_watch
        return True

    def _on_intr(self, _uc: int, number: int, _user: int) -> None:
        state, pc = self.state, self.pc
        esr, far, target = self._syndrome()
        if state.denied:
            state.denied, target = 0, 2
            self.pstate = state.denied_pstate
            self.write_system(CNTKCTL_EL1, state.denied_cntkctl)
        esr = self._repair_syndrome(esr, target, pc)
        ec = exception_class(esr)
        state.stats[Stat.INTR] += 1
        self._poll_if_due()
        if ec in FETCH_FAULTS and state.lines_in_engine:
            self._note_native_irq(pc)  # taken, and the fetch of the vector faults
        if not self._close_block(pc, number, esr, target):
            return
        if ec in FETCH_FAULTS and state.wfe:  # WFE, and the next fetch faults: not yet
            self._leave(Leave.STOP)
            return
        if state.tail:
            if ec in STEPS and target == 2:
                self._tail_stepped()
                return
            self._tail_end()
            if ec == EC.SYSREG and target == 2 and self._tail_debug_register(esr, pc):
                self.apply_lines()
                return
        state.esr, state.intno, state.pc, state.far = esr, number, pc, far
        if target == 2:
            self._exit_el2(ec, esr, pc)
        elif ec == 0 and self._emulated(pc):
            state.stats[Stat.UNDEF] += 1
            self._act(self.dispatch(Callback.UNDEF), pc)
        else:
            state.stats[Stat.EL1_SYNC] += 1
            if number == INTNO_SVC:  # the SVC itself was counted, as the PC is after it
                state.count -= 1
            self.enter_el1(What.SYNC, esr, far if ec in EC_WITH_FAR else None)
            self.apply_lines()

    def _exit_el2(self, ec: int, esr: int, pc: int) -> None:
        state = self.state
        state.stats[Stat.EL2] += 1
        if ec == EC.SYSREG:
            if self._maintenance(esr, pc):
                return
            state.rt = decode_sysreg(esr).rt
        else:
            state.rt = esr >> SRT_SHIFT & RT_MASK if ec == EC.DABT_LOWER else XZR
        state.rt_value = self.x(state.rt)
        state.hpfar = self.read_system(HPFAR_EL2) if ec in STAGE2_ABORTS else 0
        if ec == EC.DABT_LOWER:
            endian = SCTLR_EE if self.pstate & PSTATE_EL else SCTLR_E0E
            state.big_endian = int(bool(self.read_system(SCTLR_EL1) & endian))
        self._act(self.dispatch(Callback.EL2), pc)

    def _emulated(self, pc: int) -> bool:
        """Whether the PE emulates this UNDEFINED instruction: MRS/MSR with op0 = 3 and CRn = 4
        or 12, HLT, and of FEAT_ECV and FEAT_WFxT MRS of CNTPCTSS_EL0 or CNTVCTSS_EL0, WFET and
        WFIT."""
        state, insn = self.state, self.fetch(pc)
        access = is_msr_mrs(insn)
        icc = (
            access is not None
            and access.encoding >> OP0_SHIFT == 3
            and access.encoding >> CRN_SHIFT & CRN_MASK in (4, 12)
        )
        if not (
            icc
            or insn & EXCEPTION_MASK == HLT
            or insn & WFXT_MASK == WFXT
            or insn & WITHOUT_RT in (MRS_CNTPCTSS, MRS_CNTVCTSS)
        ):
            return False
        state.insn, state.rt = insn, insn & RT_MASK
        state.rt_value, state.el = self.x(state.rt), exception_level(self.pstate)
        return True

    # -- run --

    def _start(self) -> Leave:
        state = self.state
        state.spin = state.open = state.marks = 0
        state.block_pc, state.leave = NO_BLOCK, Leave.NONE
        state.poll_at = state.count + POLL_INSNS
        state.illegal_watch = int(illegal_return(self.read_system(SPSR_EL1)))
        self.apply_lines()
        return Leave(state.leave)

    def _run(self) -> Leave:
        state = self.state
        if (why := self._start()) != Leave.NONE:
            return why
        while True:
            if state.stop:
                state.stop = 0
                return Leave.STOP
            if state.count >= state.deadline:
                return Leave.BUDGET
            state.leave, state.unreported = Leave.NONE, state.wfe_watch
            state.stats[Stat.RUN] += 1
            error = self.lib.uc_emu_start(self.uc, self.pc, 0, 0, 0)
            if state.tail:
                self._tail_end()
            if error:
                state.fault, state.fault_error = 2, error
                return Leave.FAULT
            why = Leave(state.leave)
            if why == Leave.TAIL:
                self._tail_begin()
            elif why == Leave.MISALIGNED:  # DDI 0487 D1.10.5: PC alignment fault, EC 0x22
                self.enter_el1(What.SYNC, PC_ALIGNMENT, self.pc)
                if state.leave == Leave.VECTOR_LOOP:
                    return Leave.VECTOR_LOOP
            elif why == Leave.ILLEGAL:  # DDI 0487 D1.10.6: illegal execution state, EC 0x0E
                self.enter_el1(What.SYNC, ILLEGAL_STATE, None)
            elif why == Leave.NONE:
                state.fault = 3
                return Leave.FAULT
            else:
                if why == Leave.STOP:
                    state.stop = 0
                return why
