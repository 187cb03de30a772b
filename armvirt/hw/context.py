"""A vCPU's context: one engine, and the maintenance that other CPUs have broadcast to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from armvirt.arch.el1 import PAR_EL1, PAR_F, PAR_PA
from armvirt.arch.el2 import HCR_EL2, MDCR_EL2
from armvirt.arch.insn import AT_S1E1R, IC_IALLUIS, IC_IVAU
from armvirt.arch.pstate import PSTATE_SP, Vector
from armvirt.arch.stage2 import PAGE_SIZE
from armvirt.arch.words import MASK64
from armvirt.hw.engine import Action, Engine, EngineFactory
from armvirt.hw.exception import take_exception
from armvirt.state import State, checked

STATE_VERSION = 2

MANY_LINES = 4096
NO_MONITOR = MASK64  # the address of an exclusive monitor in the open state
GRANULE = 64
"""The exclusives reservation granule in bytes, CTR_EL0.ERG of the cores that there are."""


class Context:
    """Registers and translations of one vCPU.

    Maintenance of others is queued here and honoured before the next instruction, which nobody can
    tell from doing it at once: only one context runs at a time.
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

    # -- registers, as hyp needs them --

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
        """SP_EL0 or SP_EL1, also while it is the stack pointer in use."""
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
        """Both stack pointers keep their values, whichever is in use before and after."""
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
        """Start at ``pc`` with ``x0`` and the system registers by name; every other register is zero
        and the exclusive monitor open. The counts and the event register stay."""
        saved = self.engine.save()
        saved.update(
            x=[x0] + [0] * 30, q=[0] * 32, sp=0, sp_el0=0, sp_el1=0, pc=pc, pstate=pstate,
            fpcr=0, fpsr=0, system=dict(system), exclusive=[NO_MONITOR, 0, 0], vector_faults=0, last_vector_elr=0,
        )  # fmt: skip
        self.engine.load(saved)

    def take_exception(self, kind: Vector, esr: int, far: int | None = None) -> None:
        """Take an exception to EL1 now, between runs or in place of the instruction of the present
        exit."""
        take_exception(self.engine, kind, esr, far)

    def answer(self, value: int) -> int:
        """Finish the trapped instruction, whose destination the syndrome named, with ``value``."""
        self.engine.state.rt_value = value
        return Action.WRITE_RT | Action.ADVANCE

    def translate(self, va: int) -> int | None:
        """The IPA of ``va`` in the present regime, None if stage 1 does not map it.

        Stage 2 is filled on demand, so where the two stages together say no, stage 1 is asked alone
        (AT S1E1R), with the guest's PAR_EL1 kept.
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
        """Take a synchronous exception to EL1 at the present PC instead of finishing the
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
        """Only the register; `set_event` tells whoever waits, too."""
        self.engine.state.event_register = int(value)

    def watch_wfe(self) -> None:
        """Keep the event register from now on, and leave at each WFE that finds it clear."""
        self.engine.watch_wfe()

    @property
    def exclusive(self) -> tuple[int, int, int]:
        """The local exclusive monitor: address, value, second word of a pair; open: address all
        ones."""
        return self.engine.exclusive

    @exclusive.setter
    def exclusive(self, monitor: tuple[int, int, int]) -> None:
        self.engine.exclusive = monitor

    def set_event(self, ns: int | None = None) -> None:
        """An event for this PE, at ``ns`` of virtual time (None: now): the register is set, and
        ``on_event`` called."""
        self.engine.state.event_register = 1
        self.on_event(ns)

    def take_event(self, ns: int) -> None:
        """A WFE completes: it clears the event register."""
        self.engine.state.event_register, self.engine.state.event_cleared = 0, ns

    @property
    def event_cleared(self) -> int:
        """The ns at which a WFE cleared the event register last."""
        return self.engine.state.event_cleared

    def clear_exclusive(self) -> None:
        """Open the exclusive monitor, as at every load of a vCPU. A PE that loses its monitor gets
        an event (DDI 0487 B2.17.2, D1.6.1)."""
        if self.engine.clear_exclusive():
            self.engine.state.event_register = 1

    def watch_line(self) -> bool:
        """Remember what the monitored granule holds; whether the monitor is in the exclusive state.

        The core's monitor compares values, and knows of no store of another CPU.
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
        """Whether the PE waits for a store to the granule that its monitor marks."""
        return self._line is not None

    def line_changed(self) -> bool:
        """Whether the granule that is watched holds anything else by now."""
        return (
            self._line is not None
            and self.engine.read_physical(self._line[0], GRANULE) != self._line[1]
        )

    def line_written(self, address: int, size: int) -> bool:
        """Whether a write of [address, address + size) is one of the granule that is watched."""
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
        """Write a register that only EL2 and EL3 can reach; nothing happens where it has the value
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
        """Give ``size`` bytes at host address ``host`` to the core as physical memory."""
        self.engine.map_memory(address, size, host)

    def unmap_memory(self, address: int, size: int) -> None:
        self.engine.unmap_memory(address, size)

    def request_stop(self) -> None:
        """Leave the guest at the next instruction, if it runs."""
        self.engine.state.stop = 1

    def stop_at(self, address: int, on_stop: Callable[[], None]) -> Callable[[], None]:
        """Leave before the instruction at a virtual address and call ``on_stop``; the function that
        is returned ends that."""
        from armvirt.hw.engine.breakpoint import PcStop

        return PcStop(self.engine, address, on_stop).remove

    def stop_in(self, addresses: range, on_stop: Callable[[], None]) -> Callable[[], None]:
        """The same for a range of whole pages that the guest enters from outside."""
        from armvirt.hw.engine.breakpoint import RangeStop

        return RangeStop(self.engine, addresses, on_stop).remove

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    # -- maintenance --

    def queue_code(self, address: int, size: int) -> None:
        """Translated code of [address, address + size) is stale (physical addresses)."""
        self.request_stop()  # `honour` comes before the next instruction
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
        """Do what was queued. Only between runs or at an exit."""
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
        """Architectural state only: a fresh engine has no stale code or translations to
        remember."""
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

    There is one for each VM. TLBI from EL1 is for its VMID only, and the engine's physical memory
    is the VM's: no other VM has translations of it. A local TLBI is for this context alone; vCPUs
    that take turns on a PE share no TLB here, so that what KVM has to flush when a PE changes its
    vCPU, and what HCR_EL2.FB is for, cannot go stale.
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
        """TLBI ...IS by encoding, IC IVAU by physical address, IC IALLUIS: to all but the
        source."""
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
        """Memory was written other than by a guest's stores (device, hypervisor, debugger)."""
        for context in self.contexts:
            context.queue_code(address, size)

    def memory_written(self, address: int, size: int) -> None:
        """The same, for those who wait for a store to what their monitors mark."""
        for context in self.contexts:
            if context.line_written(address, size):
                context.set_event()

    def send_event(self, source: Context, ns: int) -> None:
        """SEV at ``ns``: an event for all but the source, which has set its own register."""
        for context in self.contexts:
            if context is not source:
                context.set_event(ns)
