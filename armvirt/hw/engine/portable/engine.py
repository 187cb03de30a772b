"""The engine whose hooks are Python functions. Unicorn calls these functions through ctypes. The
engine needs no compiler, gives the same results as native.c, and is slower.

Read this file first: native.c implements the same hooks in C. In both engines a hook must check its
conditions in the same order.
"""

from __future__ import annotations

import ctypes as C
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.arch.decode import is_msr_mrs
from armvirt.arch.encoding import CRN_MASK, CRN_SHIFT, OP0_SHIFT
from armvirt.arch.esr import (
    EC,
    EC_WITH_FAR,
    ILLEGAL_STATE,
    PC_ALIGNMENT,
    SRT_SHIFT,
    STEP_ISV,
    decode_sysreg,
    exception_class,
)
from armvirt.arch.insn import (
    EXCEPTION_MASK,
    HLT,
    MRS_CNTPCTSS,
    MRS_CNTVCTSS,
    RT_MASK,
    TLBI_CRN,
    WFXT,
    WFXT_MASK,
    WITHOUT_RT,
    XZR,
)
from armvirt.arch.named import (
    HPFAR_EL2,
    HPFAR_FIPA,
    SCTLR_E0E,
    SCTLR_EE,
    SCTLR_EL1,
    SPSR_EL1,
)
from armvirt.arch.pstate import (
    PSTATE_EL,
    PSTATE_IL,
    PSTATE_MODE,
    PSTATE_NRW,
    VECTOR_END,
    exception_level,
    illegal_return,
)
from armvirt.arch.timer import (
    CNTKCTL_EL1,
)
from armvirt.arch.translation import PAGE_SIZE
from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.calibrate import Calibration
from armvirt.hw.engine.portable import entry, maintenance, marks, steps, suspects, syndrome, timers
from armvirt.hw.engine.state import (
    ARGUMENTS,
    INTNO_SVC,
    NO_BLOCK,
    POLL_INSNS,
    POLL_NS,
    RESULTS,
    Action,
    Callback,
    Leave,
    Stat,
    What,
)

if TYPE_CHECKING:
    from ctypes import _Pointer

FETCH_FAULTS = (EC.IABT_LOWER, EC.IABT_CURRENT)
STEPS = (EC.STEP_LOWER, EC.STEP_CURRENT)
STAGE2_ABORTS = (EC.IABT_LOWER, EC.DABT_LOWER)
CALLS = (EC.HVC64, EC.SMC64)

_BLOCK = C.CFUNCTYPE(None, C.c_void_p, C.c_uint64, C.c_uint32, C.c_void_p)
_INTR = C.CFUNCTYPE(None, C.c_void_p, C.c_uint32, C.c_void_p)
_INSN = C.CFUNCTYPE(C.c_uint32, C.c_void_p, C.c_int, C.POINTER(abi.CpReg), C.c_void_p)


class _Tb(C.Structure):
    _fields_ = [("pc", C.c_uint64), ("icount", C.c_uint16), ("size", C.c_uint16)]


_EDGE = C.CFUNCTYPE(None, C.c_void_p, C.POINTER(_Tb), C.POINTER(_Tb), C.c_void_p)


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
        """Wrap a hook. If the hook raises an exception, the engine stops and `run` raises this
        exception. Without the wrapper ctypes would only print the exception. ``default`` is the
        result of the hook after an exception."""

        # Otherwise the hook would keep the engine alive.
        method, owner = weakref.WeakMethod(function), weakref.ref(self)

        def call(*arguments: object) -> object:
            bound, engine = method(), owner()
            if bound is None or engine is None:
                return default
            try:
                return bound(*arguments)
            except BaseException as error:
                engine.error = engine.error or error
                engine.leave(Leave.STOP)
                return default

        return call

    def watch_wfe(self) -> None:
        """See `Engine.watch_wfe`."""
        if not self.state.wfe_watch:
            self.state.wfe_watch = 1
            self.invalidate_all_code()  # translated code has not been examined for marks
            self.hook(abi.HOOK_EDGE, _EDGE(self._guarded(self._on_edge)))

    def _on_edge(self, _uc: int, current: _Pointer[_Tb], _previous: object, _user: int) -> None:
        tb = current.contents
        self._note_block(tb.pc, tb.size)

    def _note_block(self, pc: int, size: int) -> None:
        """Remember the address of a translated block if the block has special instructions
        (`marks.marks_of`)."""
        if size >= 4 and marks.marks_of(self, pc, size)[0]:
            self._marked.add(pc)
            if len(self._marked) > marks.MARKED_ADDRESSES:
                self._marked = marks.Everywhere()

    def _on_block(self, _uc: int, pc: int, size: int, _user: int) -> None:
        state, n = self.state, size >> 2
        if state.lines_in_engine:
            entry.note_native_irq(self, pc)
        if state.marks:
            marks.retire(self, state.open)
        count = state.count + state.open
        if count >= state.poll_at:
            count = self._poll_host(pc, count)
        deadline = state.deadline
        illegal = state.illegal_watch and self.pstate & PSTATE_IL
        if count + n > deadline or state.stop or pc & 3 or illegal:
            state.count, state.open, state.block_pc = count, 0, NO_BLOCK
            self.leave(
                Leave.STOP if state.stop else Leave.BUDGET if count >= deadline else Leave.ILLEGAL if illegal
                else Leave.MISALIGNED if pc & 3 else Leave.TAIL
            )  # fmt: skip
            return
        if n == 1 and pc == state.block_pc and state.open == 1 and not state.tail:
            # The block is a branch to itself; only an interrupt ends this loop.
            state.count, state.open, state.spin = count, 0, 1
            self.leave(Leave.BUDGET)
            return
        state.count, state.open, state.block_pc = count, n, pc
        if state.unreported:  # _on_edge may not have been called for this block
            state.unreported = 0
            self._note_block(pc, size)
        if pc in self._marked:
            marks.open_marked(self, pc, size)

    def _poll_if_due(self) -> None:
        """Make the engine call `PeCallbacks.poll` before the next block, if the last call was
        `POLL_NS` or more ns of wall-clock time ago. This method is called after operations that
        take much wall-clock time but few instructions."""
        if time.monotonic_ns() - self.state.poll_ns >= POLL_NS:
            self.state.poll_at = self.state.count

    def _poll_host(self, pc: int, count: int) -> int:
        """Do the periodic checks before the block at ``pc``. ``count`` is the instruction count at
        the start of this block. The block hook calls this method every POLL_INSNS instructions, and
        before each block while a watch (`suspects.block`) is active.

        If the block is in a loop that only polls a counter, a timer or RAM, iterations of the loop
        may be skipped. `PeCallbacks.poll` is called if its last call was `POLL_NS` or more ns of
        wall-clock time ago. Returns the instruction count including the skipped instructions.
        """
        state = self.state
        if state.skip and not state.tail:
            count += suspects.block(self, pc, count)
            if state.watch_left:
                return count  # poll_at stays, so the next block comes here, too
        state.poll_at = count + POLL_INSNS
        now = time.monotonic_ns()
        if now - state.poll_ns >= POLL_NS:
            state.poll_ns = now
            if self.dispatch(Callback.POLL):
                state.stop = 1
        return count

    def _on_mrs(self, _uc: int, rt: int, register: _Pointer[abi.CpReg], _user: int) -> int:
        r = register.contents
        return timers.access(self, rt, r, False) if r.crn == 14 and r.op0 == 3 else 0

    def _on_msr(self, _uc: int, rt: int, register: _Pointer[abi.CpReg], _user: int) -> int:
        r = register.contents
        if r.op0 != 3:
            return 0
        if r.crn == 14:
            beyond = r.val & ~self.state.cntkctl_bits
            if r.crm == 1 and r.op1 == r.op2 == 0 and beyond:
                self.write_system(
                    CNTKCTL_EL1, r.val ^ beyond
                )  # RES0, but the core would store these bits
                return 1
            return timers.access(self, rt, r, True)
        if r.crn == 4 and r.crm == r.op1 == r.op2 == 0:
            self.state.illegal_watch = int(illegal_return(r.val))
            if r.val & PSTATE_NRW:  # the core would return to AArch32, so make the return illegal
                self.write_system(SPSR_EL1, r.val & ~(PSTATE_NRW | PSTATE_MODE) | PSTATE_MODE)
                return 1
        if r.crn == 12 and r.crm == r.op1 == r.op2 == 0 and r.val & VECTOR_END - 1:
            self.write(abi.R_VBAR_EL1, r.val & -VECTOR_END)  # RES0, but the core would store them
            return 1
        return 0

    def _on_sys(self, _uc: int, _rt: int, register: _Pointer[abi.CpReg], _user: int) -> int:
        r = register.contents
        if r.crn == TLBI_CRN and r.op0 == 1:
            self._poll_if_due()
            maintenance.tlbi(self, r)
        return 0

    def _act(self, action: int, pc: int) -> None:
        state = self.state
        if action & Action.WRITE_RT:
            self.set_x(state.rt, state.rt_value)
        if action & Action.WRITE_RESULTS:
            for n in range(RESULTS):
                self.set_x(n, state.arguments[n])
        if action & Action.ADVANCE:
            self.pc = pc + 4
            state.count += 1
        if action & Action.ENTER:
            entry.enter_el1(
                self, What.SYNC, state.enter_esr, state.enter_far if state.enter_has_far else None
            )
        entry.apply_lines(self)
        if action & Action.STOP or state.stop:
            state.stop = 0
            self.leave(Leave.STOP)

    def _close_block(self, pc: int, number: int, esr: int, target: int) -> bool:
        """Add the executed instructions of the open block (the translated block that is executing)
        to ``state.count``. ``number`` is the exception number that the core reports. Returns False
        if ``pc`` is not in the block; then the engine leaves with FAULT."""
        state, ec = self.state, exception_class(esr)
        if state.open:
            # A fetch fault is taken after the last instruction of the block. ISV of a software step
            # by the guest means that the instruction was executed.
            complete = ec in FETCH_FAULTS or (ec in STEPS and esr & STEP_ISV)
            done = state.open if complete else (pc - state.block_pc) >> 2
            if not 0 <= done <= state.open:
                state.fault, state.fault_error = 1, number
                self.leave(Leave.FAULT)
                return False
            if state.marks:
                marks.retire(
                    self, done, ec not in STEPS or target == 2
                )  # a software step by the guest completes a WFE
            state.count += done
            state.open = 0
        state.block_pc, state.marks, state.unreported = NO_BLOCK, 0, state.wfe_watch
        return True

    def _on_intr(self, _uc: int, number: int, _user: int) -> None:
        state, pc = self.state, self.pc
        esr, far, target = syndrome.read(self)
        if state.denied:
            state.denied, target = 0, 2
            self.pstate = state.denied_pstate
            self.write_system(CNTKCTL_EL1, state.denied_cntkctl)
        esr = syndrome.repair(self, esr, target, pc)
        ec = exception_class(esr)
        state.stats[Stat.INTR] += 1
        self._poll_if_due()
        if ec in FETCH_FAULTS and state.lines_in_engine:
            entry.note_native_irq(self, pc)  # the fetch of the vector faults
        if not self._close_block(pc, number, esr, target):
            return
        if ec in FETCH_FAULTS and state.wfe:  # the guest waits in WFE, before the fetch that faults
            self.leave(Leave.STOP)
            return
        if state.tail:
            if ec in STEPS and target == 2:
                steps.stepped(self)
                return
            steps.end(self)
            if ec == EC.SYSREG and target == 2 and steps.debug_register(self, esr, pc):
                entry.apply_lines(self)
                return
        state.esr, state.intno, state.pc, state.far = esr, number, pc, far
        if target == 2:
            self._exit_el2(ec, esr, pc)
        elif ec == 0 and self._emulated(pc):
            state.stats[Stat.UNDEF] += 1
            self._act(self.dispatch(Callback.UNDEF), pc)
        else:
            state.stats[Stat.EL1_SYNC] += 1
            if number == INTNO_SVC:  # the PC is after the SVC, so the SVC was counted
                state.count -= 1
            entry.enter_el1(self, What.SYNC, esr, far if ec in EC_WITH_FAR else None)
            entry.apply_lines(self)

    def _exit_el2(self, ec: int, esr: int, pc: int) -> None:
        state = self.state
        state.stats[Stat.EL2] += 1
        if ec == EC.SYSREG:
            if maintenance.cache(self, esr, pc):
                return
            state.rt = decode_sysreg(esr).rt
        else:
            state.rt = esr >> SRT_SHIFT & RT_MASK if ec == EC.DABT_LOWER else XZR
        state.rt_value = self.x(state.rt)
        state.insn = state.big_endian = state.ipa = 0
        if ec in STAGE2_ABORTS:
            page = (self.read_system(HPFAR_EL2) & HPFAR_FIPA) << 8
            state.ipa = page | state.far & PAGE_SIZE - 1
        if ec in CALLS:
            state.arguments[:] = [self.x(n) for n in range(ARGUMENTS)]
        if ec == EC.DABT_LOWER:
            endian = SCTLR_EE if self.pstate & PSTATE_EL else SCTLR_E0E
            state.big_endian = int(bool(self.read_system(SCTLR_EL1) & endian))
        self._act(self.dispatch(Callback.EL2), pc)

    def _emulated(self, pc: int) -> bool:
        """Return whether the PE emulates the UNDEFINED instruction at ``pc``. If the result is
        True, the instruction and the value of its register Rt have been copied to the state.

        The PE emulates MRS and MSR with op0 = 3 and CRn = 4 or 12 (GIC CPU interface), HLT, MRS of
        CNTPCTSS_EL0 and CNTVCTSS_EL0 (FEAT_ECV), WFET and WFIT (FEAT_WFxT).
        """
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

    def _start(self) -> Leave:
        state = self.state
        state.spin = state.open = state.marks = 0
        state.block_pc, state.leave, state.watch_left = NO_BLOCK, Leave.NONE, 0
        state.poll_at = state.count + POLL_INSNS
        state.illegal_watch = int(illegal_return(self.read_system(SPSR_EL1)))
        entry.apply_lines(self)
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
                steps.end(self)
            if error:
                state.fault, state.fault_error = 2, error
                return Leave.FAULT
            why = Leave(state.leave)
            if why == Leave.TAIL:
                steps.begin(self)
            elif why == Leave.MISALIGNED:  # DDI 0487 D1.10.5: PC alignment fault, EC 0x22
                entry.enter_el1(self, What.SYNC, PC_ALIGNMENT, self.pc)
                if state.leave == Leave.VECTOR_LOOP:
                    return Leave.VECTOR_LOOP
            elif why == Leave.ILLEGAL:  # DDI 0487 D1.10.6: illegal execution state, EC 0x0E
                entry.enter_el1(self, What.SYNC, ILLEGAL_STATE, None)
            elif why == Leave.NONE:
                state.fault = 3
                return Leave.FAULT
            else:
                if why == Leave.STOP:
                    state.stop = 0
                return why
