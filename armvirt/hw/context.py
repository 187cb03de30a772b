"""The context of a vCPU: one engine (CPU emulator), and a queue of the TLB and cache maintenance
that other CPUs have broadcast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from armvirt.arch.bits import MASK64
from armvirt.arch.insn import AT_S1E1R, IC_IALLUIS, IC_IVAU
from armvirt.arch.named import HCR_EL2, MDCR_EL2, PAR_EL1, PAR_F, PAR_PA
from armvirt.arch.pstate import PSTATE_SP, Vector
from armvirt.arch.translation import PAGE_SIZE
from armvirt.hw.engine import CLOSED, OTHER_THREAD, Action, Engine, EngineFactory
from armvirt.hw.exception import take_exception
from armvirt.state import State, checked

#: The software above imports the factory and the two texts from here, not from `armvirt.hw.engine`.
__all__ = ["CLOSED", "OTHER_THREAD", "Context", "EngineFactory", "ShareableDomain"]

STATE_VERSION = 2

#: What `Engine.save` returns beside registers: counts, and the time of the last WFE.
NO_REGISTERS = ("count", "last_vector_elr", "vector_faults", "event_cleared")

MANY_LINES = 4096
NO_MONITOR = MASK64  # the address of an exclusive monitor in the open state
GRANULE = 64
"""The exclusives reservation granule in bytes: CTR_EL0.ERG of the supported cores."""


class Context:
    """The registers and translations of one vCPU.

    The context queues the TLB and cache maintenance that other CPUs broadcast. It does the queued
    maintenance before its next instruction. Only one context runs at a time, so a guest cannot
    detect the delay.
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
        """The value of register X<n>; n = 31 is XZR, which reads as zero."""
        return self.engine.x(n)

    def set_x(self, n: int, value: int) -> None:
        self.engine.set_x(n, value)

    def q(self, n: int) -> int:
        """The value of register V<n>, 128 bits."""
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

    def fetch(self, va: int) -> int:
        """The instruction word at ``va``; 0 if the fetch would fault."""
        return self.engine.fetch(va)

    def stack(self, el: int) -> int:
        """The current value of SP_EL<el>, even if SP_EL<el> is the stack pointer in use."""
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
        """Set PSTATE. SP_EL0 and SP_EL1 keep their values, even if the new PSTATE selects the other
        stack pointer."""
        engine, stacks = self.engine, (self.stack(0), self.stack(1))
        engine.pstate = value
        engine.rebuild_flags()
        engine.sp_el0, engine.sp_el1 = stacks
        engine.sp = stacks[self._selected]

    def system(self, encoding: int) -> int:
        """Return the stored value of an EL1 system register. ``encoding`` is its packed
        encoding."""
        return self.engine.read_system(encoding)

    def set_system(self, encoding: int, value: int) -> None:
        self.engine.write_system(encoding, value)

    def reset(self, pc: int, x0: int, pstate: int, system: Mapping[str, int]) -> None:
        """Reset the vCPU's registers. PC, X0 and PSTATE get the values of ``pc``, ``x0`` and
        ``pstate``. ``system`` has the value of each system register by name. All other registers
        become 0, and the exclusive monitor is then in the open state. The instruction count and the
        event register keep their values."""
        saved = self.engine.save()
        saved.update(
            x=[x0] + [0] * 30, q=[0] * 32, sp=0, sp_el0=0, sp_el1=0, pc=pc, pstate=pstate,
            fpcr=0, fpsr=0, system=dict(system), exclusive=[NO_MONITOR, 0, 0], vector_faults=0, last_vector_elr=0,
        )  # fmt: skip
        self.engine.load(saved)

    def take_exception(self, kind: Vector, esr: int, far: int | None = None) -> None:
        """Take an exception to EL1 at the present PC. Call this only between runs or at an exit. At
        an exit the guest takes the exception instead of completing the trapped instruction."""
        take_exception(self.engine, kind, esr, far)

    def answer(self, value: int, keep: bool = False) -> int:
        """Complete the trapped instruction: write ``value`` to the destination register that the
        syndrome names, and advance the PC. Returns the `Action` bits that the handler of the exit
        must return to the engine. If ``keep`` is True, the instruction is a load from a device, and
        the engine may complete each equal load with ``value`` until its next callback."""
        self.engine.state.rt_value = value
        if keep:
            return Action.WRITE_RT | Action.ADVANCE | Action.KEEP
        return Action.WRITE_RT | Action.ADVANCE

    def call_arguments(self) -> list[int]:
        """Return the values of X0 to X3 at the HVC or SMC of the present exit."""
        values: list[int] = self.engine.state.arguments[:]
        return values

    def answer_call(self, results: Sequence[int]) -> int:
        """Complete an HVC or SMC: write the four values of ``results`` to X0 to X3. Returns the
        `Action` bits that the handler of the exit must return to the engine."""
        self.engine.state.arguments[:] = results
        return Action.WRITE_RESULTS

    def translate(self, va: int) -> int | None:
        """Return the IPA of ``va`` in the current translation regime, or None if stage 1 does not
        map ``va``.

        EL2 fills the stage-2 tables on demand, so a translation by both stages can fail although
        stage 1 maps ``va``. In this case AT S1E1R translates by stage 1 alone. The guest's PAR_EL1
        keeps its value.
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
        """Make the guest take a synchronous exception to EL1 instead of completing the trapped
        instruction. ``far`` is None if the exception does not write FAR_EL1. Returns the `Action`
        bits that the handler of the exit must return to the engine."""
        state = self.engine.state
        state.enter_esr, state.enter_has_far, state.enter_far = esr, int(far is not None), far or 0
        return Action.ENTER

    # -- the event register and the exclusive monitor --

    @property
    def event_register(self) -> bool:
        return bool(self.engine.state.event_register)

    @event_register.setter
    def event_register(self, value: bool) -> None:
        """Write the event register without a call of ``on_event``. To send an event, call
        `set_event`."""
        self.engine.state.event_register = int(value)

    def watch_wfe(self) -> None:
        """Emulate the event register from now on. A WFE then ends the run if the event register is
        clear. Before the first call of this method, a WFE acts as a NOP."""
        self.engine.watch_wfe()

    @property
    def exclusive(self) -> tuple[int, int, int]:
        """The local exclusive monitor as (address, value, second 64-bit word of a load-exclusive
        pair). In the open state the address is all ones."""
        return self.engine.exclusive

    @exclusive.setter
    def exclusive(self, monitor: tuple[int, int, int]) -> None:
        self.engine.exclusive = monitor

    def set_event(self, ns: int | None = None) -> None:
        """Send an event to this PE: set the event register and call ``on_event``. ``ns`` is the
        virtual time of the event; None means now."""
        self.engine.state.event_register = 1
        self.on_event(ns)

    def take_event(self, ns: int) -> None:
        """Complete a WFE at ``ns`` of virtual time: clear the event register."""
        self.engine.state.event_register, self.engine.state.event_cleared = 0, ns

    @property
    def event_cleared(self) -> int:
        """The virtual time in ns at which a WFE last cleared the event register."""
        return self.engine.state.event_cleared

    def clear_exclusive(self) -> None:
        """Set the exclusive monitor to the open state. EL2 calls this method, for example, when the
        PE switches to another vCPU. If the monitor was in the exclusive state, this method sets the
        event register (DDI 0487 B2.17.2, D1.6.1)."""
        if self.engine.clear_exclusive():
            self.engine.state.event_register = 1

    def watch_line(self) -> bool:
        """Save the content of the reservation granule that the exclusive monitor marks. Unicorn's
        monitor does not detect stores by other CPUs. `line_changed` detects such a store, because
        it compares the granule with the saved content.

        Returns False if the monitor is in the open state or the address is not mapped.
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
        """Whether the PE is in WFE and a store to the reservation granule of its exclusive monitor
        would wake it."""
        return self._line is not None

    def line_changed(self) -> bool:
        """Return whether the content of the reservation granule differs from the content that
        `watch_line` saved. False if no content is saved."""
        return (
            self._line is not None
            and self.engine.read_physical(self._line[0], GRANULE) != self._line[1]
        )

    def line_written(self, address: int, size: int) -> bool:
        """Return whether the physical range [address, address + size) overlaps the reservation
        granule that `watch_line` saved."""
        return (
            self._line is not None
            and address < self._line[0] + GRANULE
            and self._line[0] < address + size
        )

    @property
    def insns(self) -> int:
        """The number of retired instructions."""
        return self.engine.state.count

    @property
    def skipped(self) -> int:
        """The number of instructions of polled waits that were skipped. A polled wait is a loop
        that only polls a counter, a timer or RAM. `insns` includes the skipped instructions."""
        return self.engine.state.skipped

    def program(self, encoding: int, value: int) -> None:
        """Write a register of EL2 or EL3. If the register already has this value, no write is
        done."""
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
        """Map memory of the armvirt process into the guest. ``address`` is the guest's physical
        address, ``size`` is in bytes, and ``host`` is the address of the memory in the process."""
        self.engine.map_memory(address, size, host)

    def unmap_memory(self, address: int, size: int) -> None:
        self.engine.unmap_memory(address, size)

    def request_stop(self) -> None:
        """Make the engine leave the guest at the next instruction. If the guest is not running, its
        next run ends before the first instruction."""
        self.engine.state.stop = 1

    def stop_at(self, address: int, on_stop: Callable[[], None]) -> Callable[[], None]:
        """Add a breakpoint at ``address``, which is a virtual address. Before the guest executes
        the instruction at this address, ``on_stop`` is called and the run ends. Returns a function
        that removes the breakpoint."""
        from armvirt.hw.engine.breakpoint import PcStop

        return PcStop(self.engine, address, on_stop).remove

    def stop_in(self, addresses: range, on_stop: Callable[[], None]) -> Callable[[], None]:
        """Add a breakpoint for a range of whole pages. When the guest enters the range from
        outside, ``on_stop`` is called and the run ends. Returns a function that removes the
        breakpoint."""
        from armvirt.hw.engine.breakpoint import RangeStop

        return RangeStop(self.engine, addresses, on_stop).remove

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    # -- maintenance --

    def queue_code(self, address: int, size: int) -> None:
        """Queue the invalidation of translated code. ``address`` is a physical address, and
        ``size`` is in bytes."""
        self.request_stop()  # `do_maintenance` is called before the next instruction
        if len(self._lines) < MANY_LINES:
            self._lines.append((address, size))
        else:
            self._all_code = True

    def queue_all_code(self) -> None:
        self.request_stop()
        self._all_code = True

    def queue_tlb(self) -> None:
        self._tlb = True

    def do_maintenance(self) -> None:
        """Do the queued maintenance. Call this only between runs or at an exit."""
        if self._all_code:
            self.engine.invalidate_all_code()
        else:
            for address, size in self._lines:
                self.engine.invalidate_code(address, size)
        if self._tlb:
            self.engine.flush_tlb()
        self._lines.clear()
        self._all_code = self._tlb = False

    def registers(self) -> dict[str, object]:
        """Return the registers by name as plain data, for a digest. The result does not contain the
        elements of the engine's state that `NO_REGISTERS` names."""
        saved = self.engine.save()
        return {name: value for name, value in saved.items() if name not in NO_REGISTERS}

    def state(self) -> dict[str, object]:
        """Return the registers and the saved content of the reservation granule (`watch_line`).
        Queued maintenance is not saved, because a new engine has no translated code and no TLB
        entries."""
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
    """The Inner Shareable domain of a VM: the contexts that receive broadcast maintenance and SEV.

    Each VM has its own domain. A TLBI at EL1 applies to the current VMID only, and each engine has
    the memory of only one VM. Therefore other VMs need no invalidation.

    A local TLBI (not broadcast) applies to one context only, because vCPUs that share a PE have
    separate TLBs in armvirt. Therefore two measures of KVM are not needed: HCR_EL2.FB, and the TLB
    flush when a PE changes its vCPU.
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
        """Queue a maintenance operation on all contexts except ``source``, the context that
        executed it. ``encoding`` is the packed encoding of an Inner Shareable TLBI, of IC IVAU or
        of IC IALLUIS. ``value`` is the operand of a TLBI, or the physical address of an IC IVAU."""
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
        """Invalidate the translated code of a physical range that a device, the hypervisor or a
        debugger has written. The engine itself invalidates the code that a guest overwrites."""
        for context in self.contexts:
            context.queue_code(address, size)

    def memory_written(self, address: int, size: int) -> None:
        """Handle a write by a device, the hypervisor or a debugger. ``address`` is the physical
        address of the first written byte, and ``size`` is the number of bytes. If the written range
        overlaps the reservation granule that a PE in WFE has marked, send an event to this PE."""
        for context in self.contexts:
            if context.line_written(address, size):
                context.set_event()

    def send_event(self, source: Context, ns: int) -> None:
        """Send the event of a SEV at ``ns`` of virtual time to all contexts except ``source``,
        which has already set its own event register."""
        for context in self.contexts:
            if context is not source:
                context.set_event(ns)
