"""The host: one clock, physical CPUs, and the loop that gives them to vCPUs.

Thin: one physical CPU. The loop runs in one thread and is deterministic: a stop at any time only splits it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from armvirt.arch.encoding import sysreg
from armvirt.arch.esr import describe
from armvirt.arch.timer import DEFAULT_FREQUENCY_HZ
from armvirt.events import EventBus, Stamp
from armvirt.hw.clock import Clock
from armvirt.hw.context import ShareableDomain
from armvirt.hw.engine import EngineFactory
from armvirt.hw.exit import ExitKind
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.pe import NEVER, Pe
from armvirt.hyp.host.sched import QUANTUM_NS, pick_next

if TYPE_CHECKING:
    from armvirt.hyp.vcpu import Vcpu

ESR_EL1 = sysreg(3, 0, 5, 2, 0)
DAIF_IF = 0xC0
HOST_PPIS = (25, 27, 30)


class Stop(Enum):
    """Why `Host.run` came back."""

    UNTIL = "until"  # the given time was reached
    HANDLER = "handler"  # an exit handler asked for it
    IDLE = "idle"  # no vCPU can run and nothing is due, ever


class Host:
    """What the host kernel is to KVM. ``frequency_hz`` is CNTFRQ_EL0; ``list_registers`` (1 to 16) and
    ``priority_bits`` (5 to 7) are what ICH_VTR_EL2 says. ValueError for an interface that cannot be.
    """

    def __init__(
        self, *, engine: str = "auto", cpu: str = "cortex-a72", frequency_hz: int = DEFAULT_FREQUENCY_HZ,
        bus: EventBus | None = None, list_registers: int = 4, priority_bits: int = 5,
    ) -> None:  # fmt: skip
        self.bus = bus if bus is not None else EventBus()
        self.clock = Clock()
        self.domain = ShareableDomain(EngineFactory(engine, cpu))
        self.gic = PhysicalGic(1)
        self.pe = Pe(
            0, self.clock, self.gic, self.bus, frequency_hz,
            list_registers=list_registers, priority_bits=priority_bits,
        )  # fmt: skip
        self.bus.stamp = self._stamp
        for intid in HOST_PPIS:
            self.gic.enable(0, intid, True)
        self.vcpus: list[Vcpu] = []
        self.current: Vcpu | None = None
        self.quantum_end = 0
        self.on_idle: Callable[[int, int | None], int | None] | None = None
        self._waiter: tuple[int, tuple[int, ...]] | None = None
        self._last = -1
        self._stop = False

    def _stamp(self) -> Stamp:
        return self.pe.stamp()

    def on_poll(self, function: Callable[[], bool]) -> None:
        """Called about every 20 ms of host time; a true answer stops the run where it is."""

        def poll() -> bool:
            self._stop = function() or self._stop
            return self._stop

        self.pe.on_poll = poll

    def reschedule(self) -> None:
        """A vCPU became runnable: the one that runs must leave the guest, for its turn has an end now."""
        self.pe.request_stop()

    def stop(self) -> None:
        """Make `run` come back after the present exit."""
        self._stop = True
        self.pe.request_stop()

    def stop_at(self, address: int) -> Callable[[], None]:
        """Make `run` come back before any vCPU executes the instruction at a virtual address; the function that is
        returned ends that."""
        from armvirt.hw.engine.pcstop import PcStop

        stops = [PcStop(vcpu.context.engine, address, self.stop) for vcpu in self.vcpus]

        def remove() -> None:
            for each in stops:
                each.remove()

        return remove

    # -- state --

    def unload(self) -> None:
        """Forget which vCPU is loaded: what is on the CPU is about to be replaced."""
        if self.current is not None and self.current.pe is not None:
            self.current.detach()
        self.current = None

    def state(self) -> dict[str, object]:
        """The clock, the physical CPU and the scheduler; who is loaded stays loaded."""
        current = self.current
        return {
            "version": 1, "clock": self.clock.state(), "gic": self.gic.state(), "pe": self.pe.state(),
            "quantum_end": self.quantum_end, "last": self._last,
            "waiter": None if self._waiter is None else [self._waiter[0], list(self._waiter[1])],
            "current": None if current is None else self.vcpus.index(current),
            "loaded": current is not None and current.pe is not None,
        }  # fmt: skip

    def load(self, state: dict[str, object]) -> None:
        """Take over `state`; the vCPUs' own state is there already."""
        self.clock.load(state["clock"])  # type: ignore[arg-type]
        self.gic.load(state["gic"])  # type: ignore[arg-type]
        self.pe.load(state["pe"])  # type: ignore[arg-type]
        self.quantum_end, self._last = int(state["quantum_end"]), int(state["last"])  # type: ignore[call-overload]
        waiter = state["waiter"]
        self._waiter = None if waiter is None else (waiter[0], tuple(waiter[1]))  # type: ignore[index]
        current = state["current"]
        if isinstance(current, int):
            self.current = self.vcpus[current]
            if state["loaded"]:
                self.current.attach(self.pe)

    # -- the loop --

    @property
    def insns(self) -> int:
        """Instructions that all vCPUs have retired."""
        return sum(v.context.insns for v in self.vcpus)

    def run(self, until: int = NEVER, insns: int = NEVER) -> Stop:
        """Drive all vCPUs to ``until`` ns of virtual time, to ``insns`` retired in all, a stop, or a dead end."""
        self._stop = False
        clock = self.clock
        while True:
            clock.run_due()
            if self._stop:
                return Stop.HANDLER
            if clock.now >= until or (insns != NEVER and self.insns >= insns):
                return Stop.UNTIL
            vcpu = self._schedule()
            if vcpu is None:
                due = clock.deadline()
                if self.on_idle is not None:
                    due = self.on_idle(clock.now, due if due is None else min(due, until))
                if due is None:
                    return Stop.IDLE
                clock.advance_to(min(due, until))
            else:
                self._round(vcpu, until if insns == NEVER else min(until, self._time_of(insns)))

    def _time_of(self, insns: int) -> int:
        """The ns at which so many instructions will have retired, if only the present vCPU runs."""
        return self.clock.now + (insns - self.insns) * self.pe.ns_per_insn

    def _schedule(self) -> Vcpu | None:
        """Keep the current vCPU until its quantum ends, then the next one's turn; switch if it is another."""
        runnable = [v for v in self.vcpus if v.runnable]
        current = self.current
        if current is not None and current in runnable and (len(runnable) == 1 or self.clock.now < self.quantum_end):
            if current.pe is None:
                self._switch(current)
            return current
        index = pick_next([self.vcpus.index(v) for v in runnable], self._last)
        if index is None:
            return None
        self._last = index
        self.quantum_end = self.clock.now + QUANTUM_NS
        if self.vcpus[index] is not current or self.vcpus[index].pe is None:
            self._switch(self.vcpus[index])
        return self.vcpus[index]

    def _switch(self, vcpu: Vcpu) -> None:
        if self.current is not None and self.current.pe is not None:
            self.current.put()
        vcpu.load(self.pe)
        self.current = vcpu

    def _round(self, vcpu: Vcpu, until: int) -> None:
        """Enter a vCPU once and act on how it came back."""
        others = any(v is not vcpu and v.runnable for v in self.vcpus)
        kind = vcpu.enter(min(until, self.quantum_end) if others else until)
        if vcpu.take_wait() and not self._stop:
            if not vcpu.runnable_interrupt():
                vcpu.block()
            return
        if vcpu.sleep_at is not None:
            when, vcpu.sleep_at = vcpu.sleep_at, None
            vcpu.block_for_event(when)
        elif not vcpu.runnable:
            if vcpu.pe is not None:
                vcpu.put()
        elif kind is ExitKind.WFE:
            self._wait_for_event(vcpu, others)
        elif kind is ExitKind.SPIN:
            self._spin(vcpu, others, until)
        elif kind is ExitKind.VECTOR_LOOP:
            self._stop = True
            fault = describe(vcpu.context.system(ESR_EL1))
            vcpu.stuck(f"faults in its exception vectors again and again ({fault})")

    def _wait_for_event(self, vcpu: Vcpu, others: bool) -> None:
        """WFE. It may always complete, so the first one does: an event may have been sent before.

        With others to run it gives them the CPU. Alone, when the guest comes back to the same WFE with the same
        registers, nothing has changed and nothing will before the SoC's next event: sleep until then, or say that
        there is none.
        """
        if others:
            self.quantum_end = self.clock.now
            self._waiter = None
            return
        waiter = (vcpu.id, vcpu.context.fingerprint())
        again, self._waiter = waiter == self._waiter, waiter
        if not again or vcpu.event_stream:
            return
        due = self.pe.next_event(NEVER)
        if due == NEVER:
            self._stop = True
            vcpu.stuck("waits for an event (WFE) that nothing will send")
        elif due > self.clock.now:
            self._waiter = None
            vcpu.block_for_event(due)

    def _spin(self, vcpu: Vcpu, others: bool, until: int) -> None:
        """A branch to itself: skip to what can interrupt it, or say that nothing can."""
        if others:
            self.pe.skip_to(min(until, self.quantum_end))
            return
        due = self.pe.next_event(NEVER)
        masked = vcpu.context.pstate & DAIF_IF == DAIF_IF
        if due == NEVER or (masked and not self._others_can_wake(vcpu)):
            self._stop = True
            vcpu.stuck("branches to itself " + ("with interrupts masked" if masked else "and no interrupt will come"))
        else:
            self.pe.skip_to(min(until, due))

    def _others_can_wake(self, vcpu: Vcpu) -> bool:
        return any(v is not vcpu and v.power.value == "blocked" for v in self.vcpus)
