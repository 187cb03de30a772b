"""A vCPU's context: one engine, and the TLB and cache maintenance that other CPUs broadcast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from armvirt.arch.bits import MASK64
from armvirt.arch.insn import AT_S1E1R, IC_IALLUIS, IC_IVAU
from armvirt.arch.named import HCR_EL2, MDCR_EL2, PAR_EL1, PAR_F, PAR_PA
from armvirt.arch.pstate import PSTATE_SP, Vector
from armvirt.arch.translation import PAGE_SIZE
from armvirt.hw.engine import Action, Engine, EngineFactory
from armvirt.hw.exception import take_exception
from armvirt.state import State, checked

STATE_VERSION = 2

MANY_LINES = 4096
NO_MONITOR = MASK64  # the address of an exclusive monitor in the open state
GRANULE = 64
"""The exclusives reservation granule in bytes: CTR_EL0.ERG of the supported cores."""


class Context:
    """Registers and translations of one vCPU.

    Maintenance by other CPUs is queued here and done before the next instruction of this context.
    As only one context runs at a time, a guest cannot see the delay.
    """

    def __init__(self, engine: Engine, domain: ShareableDomain) -> None:
        self.engine, self.domain = engine, domain
        self._lines: list[tuple[int, int]] = []
        self._all_code = self._tlb = False
        self._line: tuple[int, bytes] | None = None
        self.on_event: Callable[[int | None], None] = lambda ns: None
        self._programmed: dict[int, int] = {}
        domain.contexts.append(self)

    def __repr__(self) -> str:
        return f"<Context on {self.engine!r}>"

    # -- registers, for `armvirt.hyp` --

    def x(self, n: int) -> int:
        """X<n>; 31 reads as zero."""
        return self.engine.x(n)

    def set_x(self, n: int, value: int) -> None:
        self.engine.set_x(n, value)

    def q(self, n: int) -> int:
        """V<n> as 128 bits."""
        return self.engine.q(n)

    def set_q(self, n: int, value: int) -> None:
        self.engine.set_q(n, value)

    @property
    def fpsr(self) -> int:
        return self.engine.fpsr

    @fpsr.setter
    def fpsr(self, value: int) -> None:
        self.engine.fpsr = value

    @property
    def fpcr(self) -> int:
        return self.engine.fpcr

    @fpcr.setter
    def fpcr(self, value: int) -> None:
        self.engine.fpcr = value

    @property
    def sp(self) -> int:
        """The stack pointer in use."""
        return self.engine.sp

    @sp.setter
    def sp(self, value: int) -> None:
        self.engine.sp = value

    @property
    def big_endian(self) -> bool:
        """Whether the data accesses of the present exit are big-endian."""
        return bool(self.engine.state.big_endian)

    def fetch(self, va: int) -> int:
        """The instruction word at ``va``; 0 where the fetch would fault."""
        return self.engine.fetch(va)

    def stack(self, el: int) -> int:
        """SP_EL0 or SP_EL1, also if it is the stack pointer in use."""
        engine = self.engine
        if self._selected == el:
            return engine.sp
        return engine.sp_el1 if el else engine.sp_el0

    def set_stack(self, el: int, value: int) -> None:
        engine = self.engine
        if self._selected == el:
            engine.sp = value
        elif el:
            engine.sp_el1 = value
        else:
            engine.sp_el0 = value

    @property
    def _selected(self) -> int:
        """The exception level whose stack pointer is in use: 0 for EL0 and EL1t, 1 for EL1h."""
        return self.engine.pstate & PSTATE_SP

    @property
    def pc(self) -> int:
        return self.engine.pc

    @pc.setter
    def pc(self, value: int) -> None:
        self.engine.pc = value

    @property
    def exit_pc(self) -> int:
        """The PC of the present exit: ELR_EL2."""
        return self.engine.state.pc

    @property
    def pstate(self) -> int:
        return self.engine.pstate

    @pstate.setter
    def pstate(self, value: int) -> None:
        """Set PSTATE. SP_EL0 and SP_EL1 keep their values, whichever of them is in use before and
        after."""
        engine, stacks = self.engine, (self.stack(0), self.stack(1))
        engine.pstate = value
        engine.rebuild_flags()
        engine.sp_el0, engine.sp_el1 = stacks
        engine.sp = stacks[self._selected]

    def system(self, encoding: int) -> int:
        """An EL1 system register as the core stores it."""
        return self.engine.read_system(encoding)

    def set_system(self, encoding: int, value: int) -> None:
        self.engine.write_system(encoding, value)

    def reset(self, pc: int, x0: int, pstate: int, system: Mapping[str, int]) -> None:
        """Start at ``pc`` with ``x0`` and the system registers by name; all other registers are
        zero and the exclusive monitor is in the open state. The counts and the event register keep
        their values."""
        saved = self.engine.save()
        saved.update(
            x=[x0] + [0] * 30, q=[0] * 32, sp=0, sp_el0=0, sp_el1=0, pc=pc, pstate=pstate,
            fpcr=0, fpsr=0, system=dict(system), exclusive=[NO_MONITOR, 0, 0], vector_faults=0, last_vector_elr=0,
        )  # fmt: skip
        self.engine.load(saved)

    def take_exception(self, kind: Vector, esr: int, far: int | None = None) -> None:
        """Take an exception to EL1 now: between runs, or instead of the instruction of the present
        exit."""
        take_exception(self.engine, kind, esr, far)

    def answer(self, value: int) -> int:
        """Finish the trapped instruction: write ``value`` to the destination register that the
        syndrome names."""
        self.engine.state.rt_value = value
        return Action.WRITE_RT | Action.ADVANCE

    def translate(self, va: int) -> int | None:
        """The IPA of ``va`` in the present regime, None if stage 1 does not map it.

        Stage 2 is filled on demand. So if the translation by both stages fails, AT S1E1R translates
        by stage 1 alone; the guest's PAR_EL1 keeps its value.
        """
        pa = self.engine.translate(va)
        if pa is not None:
            return pa
        before = self.system(PAR_EL1)
        self.set_system(AT_S1E1R, va)
        par = self.system(PAR_EL1)
        self.set_system(PAR_EL1, before)
        return None if par & PAR_F else par & PAR_PA | va & PAGE_SIZE - 1

    def inject(self, esr: int, far: int | None = None) -> int:
        """Take a synchronous exception to EL1 at the present PC, instead of finishing the
        instruction."""
        state = self.engine.state
        state.enter_esr, state.enter_has_far, state.enter_far = esr, int(far is not None), far or 0
        return Action.ENTER

    # -- the event register and the exclusive monitor --

    @property
    def event_register(self) -> bool:
        return bool(self.engine.state.event_register)

    @event_register.setter
    def event_register(self, value: bool) -> None:
        """Write the event register only. `set_event` also calls ``on_event``."""
        self.engine.state.event_register = int(value)

    def watch_wfe(self) -> None:
        """From now on keep the event register, and leave the guest at each WFE that finds it
        clear."""
        self.engine.watch_wfe()

    @property
    def exclusive(self) -> tuple[int, int, int]:
        """The local exclusive monitor: address, value, second word of a pair. Open state: address
        all ones."""
        return self.engine.exclusive

    @exclusive.setter
    def exclusive(self, monitor: tuple[int, int, int]) -> None:
        self.engine.exclusive = monitor

    def set_event(self, ns: int | None = None) -> None:
        """Send an event to this PE, at ``ns`` of virtual time (None: now): set the event register
        and call ``on_event``."""
        self.engine.state.event_register = 1
        self.on_event(ns)

    def take_event(self, ns: int) -> None:
        """Complete a WFE at ``ns``: clear the event register."""
        self.engine.state.event_register, self.engine.state.event_cleared = 0, ns

    @property
    def event_cleared(self) -> int:
        """The ns at which a WFE last cleared the event register."""
        return self.engine.state.event_cleared

    def clear_exclusive(self) -> None:
        """Set the exclusive monitor to the open state, as at every load of a vCPU. A PE whose
        monitor leaves the exclusive state gets an event (DDI 0487 B2.17.2, D1.6.1)."""
        if self.engine.clear_exclusive():
            self.engine.state.event_register = 1

    def watch_line(self) -> bool:
        """Save the content of the granule that the exclusive monitor marks; False if the monitor is
        open.

        The core's monitor compares values only, and does not see the stores of other CPUs.
        """
        address = self.engine.exclusive[0]
        pa = None if address == NO_MONITOR else self.engine.translate(address)
        line = None if pa is None else pa & -GRANULE
        self._line = None if line is None else (line, self.engine.read_physical(line, GRANULE))
        return self._line is not None

    def forget_line(self) -> None:
        self._line = None

    @property
    def watches(self) -> bool:
        """Whether the PE waits for a store to the granule that its exclusive monitor marks."""
        return self._line is not None

    def line_changed(self) -> bool:
        """Whether the content of the watched granule has changed since `watch_line`."""
        return (
            self._line is not None
            and self.engine.read_physical(self._line[0], GRANULE) != self._line[1]
        )

    def line_written(self, address: int, size: int) -> bool:
        """Whether a write of [address, address + size) is a write to the watched granule."""
        return (
            self._line is not None
            and address < self._line[0] + GRANULE
            and self._line[0] < address + size
        )

    @property
    def insns(self) -> int:
        """Instructions retired."""
        return self.engine.state.count

    def program(self, encoding: int, value: int) -> None:
        """Write a register that only EL2 and EL3 can access; no effect if it has this value
        already."""
        if self._programmed.get(encoding) == value:
            return
        self._programmed[encoding] = value
        if encoding == HCR_EL2:
            self.engine.set_hcr(value)
        elif encoding == MDCR_EL2:
            self.engine.set_mdcr(value)
        else:
            self.engine.write_system(encoding, value)

    # -- memory and control --

    def map_memory(self, address: int, size: int, host: int) -> None:
        """Map ``size`` bytes at host address ``host`` as physical memory of the core."""
        self.engine.map_memory(address, size, host)

    def unmap_memory(self, address: int, size: int) -> None:
        self.engine.unmap_memory(address, size)

    def request_stop(self) -> None:
        """Leave the guest at the next instruction, if the guest runs."""
        self.engine.state.stop = 1

    def stop_at(self, address: int, on_stop: Callable[[], None]) -> Callable[[], None]:
        """Stop before the instruction at a virtual address and call ``on_stop``. The returned
        function removes the stop."""
        from armvirt.hw.engine.breakpoint import PcStop

        return PcStop(self.engine, address, on_stop).remove

    def stop_in(self, addresses: range, on_stop: Callable[[], None]) -> Callable[[], None]:
        """Like `stop_at`, for a range of whole pages: stop when the guest enters it from
        outside."""
        from armvirt.hw.engine.breakpoint import RangeStop

        return RangeStop(self.engine, addresses, on_stop).remove

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    # -- maintenance --

    def queue_code(self, address: int, size: int) -> None:
        """Queue the invalidation of the code translated from [address, address + size) (physical
        addresses)."""
        self.request_stop()  # `honour` is called before the next instruction
        if len(self._lines) < MANY_LINES:
            self._lines.append((address, size))
        else:
            self._all_code = True

    def queue_all_code(self) -> None:
        self.request_stop()
        self._all_code = True

    def queue_tlb(self) -> None:
        self._tlb = True

    def honour(self) -> None:
        """Do the queued maintenance. Only between runs or at an exit."""
        if self._all_code:
            self.engine.invalidate_all_code()
        else:
            for address, size in self._lines:
                self.engine.invalidate_code(address, size)
        if self._tlb:
            self.engine.flush_tlb()
        self._lines.clear()
        self._all_code = self._tlb = False

    def state(self) -> dict[str, object]:
        """Architectural state only: a new engine has no stale code and no stale translations."""
        line = None if self._line is None else [self._line[0], self._line[1].hex()]
        return {"version": STATE_VERSION, "engine": self.engine.save(), "line": line}

    def load(self, state: State) -> None:
        checked(state, "Context", STATE_VERSION)
        saved = state["engine"]
        assert isinstance(saved, dict)
        self.engine.load(saved)
        self.engine.invalidate_all_code()
        line: Any = state["line"]
        self._line = None if line is None else (line[0], bytes.fromhex(line[1]))


class ShareableDomain:
    """The inner shareable domain: where broadcast maintenance and SEV go.

    There is one for each VM. A TLBI at EL1 applies to its VMID only, and the physical memory of an
    engine belongs to one VM, so other VMs have no translations of it. A local TLBI applies to this
    context alone. vCPUs that share a PE have separate TLBs here. So the TLB flush of KVM when a PE
    changes its vCPU, and HCR_EL2.FB, are not needed.
    """

    def __init__(self, factory: EngineFactory) -> None:
        self.factory = factory
        self.contexts: list[Context] = []

    def __repr__(self) -> str:
        return f"<ShareableDomain of {len(self.contexts)} contexts>"

    def create(self) -> Context:
        context = Context(self.factory.create(), self)
        many = len(self.contexts) > 1
        for each in self.contexts:
            each.engine.state.broadcast = int(many)
        return context

    def broadcast(self, source: Context, encoding: int, value: int) -> None:
        """Queue TLBI ...IS (by encoding), IC IVAU (by physical address) or IC IALLUIS on all
        contexts but ``source``."""
        for context in self.contexts:
            if context is source:
                continue
            if encoding == IC_IVAU:
                context.queue_code(value, 64)
            elif encoding == IC_IALLUIS:
                context.queue_all_code()
            else:
                context.queue_tlb()

    def code_written(self, address: int, size: int) -> None:
        """Memory was written, but not by a guest's store (by a device, the hypervisor or a
        debugger): invalidate the code."""
        for context in self.contexts:
            context.queue_code(address, size)

    def memory_written(self, address: int, size: int) -> None:
        """Memory was written, but not by a guest's store: wake the PEs that wait for a store to the
        granule of their monitor."""
        for context in self.contexts:
            if context.line_written(address, size):
                context.set_event()

    def send_event(self, source: Context, ns: int) -> None:
        """SEV at ``ns``: send an event to all contexts but ``source``, which has set its own event
        register."""
        for context in self.contexts:
            if context is not source:
                context.set_event(ns)
