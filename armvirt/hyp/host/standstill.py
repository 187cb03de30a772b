"""Detect vCPUs that run without progress, and guests that are stuck.

A vCPU makes no progress ("stands still") in a branch to itself, or while its exception vectors
fault again and again. An interrupt can end the branch loop. Another vCPU can repair the vectors.
The guest is stuck if two conditions are true. First, no runnable vCPU makes progress, or no vCPU is
runnable. Second, no event is due that can wake or interrupt a vCPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from armvirt.arch.esr import describe
from armvirt.arch.named import ESR_EL1
from armvirt.hw.clock import NEVER, Clock
from armvirt.hw.exit import ExitKind
from armvirt.hyp.host.pcpu import Pcpu
from armvirt.hyp.host.runnable import Request, Runnable
from armvirt.records import NamedTuple
from armvirt.state import State, checked

STATE_VERSION = 1

FOREVER_NS = 1 << 62
"""A wait of this length in ns of virtual time (146 years) or more counts as endless. A guest sets
the compare value of an unused timer to 2**63 ticks or more. The expiry of such a timer can exceed
ktime_t of a host kernel, which has 64 bits of ns."""

FAULTS = 128
"""A vCPU can be in a loop in which its exception vectors fault again and again. This is the maximum
number of instructions that the vCPU retires in the loop before the engine detects the loop."""

RESCUES = 64
"""The limit for the number of calls of `Standstill.rescue` that clear an exclusive monitor. The
count restarts at 0 after an event of the clock, and after a vCPU that runs until the end of its
time slice."""


class Still(NamedTuple):
    """Why a vCPU makes no progress. ``pc`` is its PC. ``cause`` is a text that says why. ``faults``
    is true if its exception vectors fault."""

    pc: int
    cause: str
    faults: bool


class Stuck(NamedTuple):
    """The guest is stuck. ``cause`` is a text that says why the vCPU ``vcpu`` cannot make progress.
    ``vcpu`` is None if ``cause`` is about all vCPUs: each vCPU is off, or waits."""

    cause: str
    vcpu: Runnable | None = None


class Loop(Protocol):
    """The attributes and methods of `armvirt.hyp.host.host.Host` that `Standstill` uses."""

    clock: Clock
    vcpus: list[Runnable]
    turn: Pcpu
    turn_end: int

    def idle_until(self, due: int | None) -> int | None: ...


class Standstill:
    """The vCPUs of a host that make no progress. ``still`` has these vCPUs: it maps the index of a
    vCPU to a `Still`, the reason. ``still`` is cleared when a vCPU makes progress or an event of
    the clock is due."""

    def __init__(self, host: Loop) -> None:
        self._host = host
        self.still: dict[int, Still] = {}
        self._rescues = 0

    # -- progress --

    def ran(self, vcpu: Runnable, kind: ExitKind | Request, insns: int) -> None:
        """Clear ``still`` if the vCPU made progress in its last guest entry, because other vCPUs
        may then make progress, too. ``kind`` says how the guest entry ended. ``insns`` is the
        number of instructions that the vCPU retired in it."""
        before = self.still.get(vcpu.index)
        stopped = kind is ExitKind.BUDGET and before is not None
        if kind is ExitKind.VECTOR_LOOP or (stopped and before is not None and before.faults):
            idle = insns <= FAULTS
        else:
            idle = (kind is ExitKind.SPIN or stopped) and insns <= 2
        if not idle:
            self.still.clear()

    def happened(self) -> None:
        """Clear ``still``, because an event of the clock was due and may let a vCPU make
        progress."""
        self.still.clear()
        self._rescues = 0

    def busy(self) -> None:
        """Set the number of successful calls of `rescue` to 0, because a vCPU was runnable until
        the end of its time slice. `RESCUES` is the limit for this number."""
        self._rescues = 0

    # -- no progress --

    def spin(self, vcpu: Runnable, others: bool, until: int) -> Stuck | None:
        """Handle a vCPU that executes a branch to itself. If the guest is stuck, return the cause.
        Otherwise advance the virtual time to the next event, and return None. The time advances at
        most to ``until`` (ns) and, if ``others`` is true, to the end of the time slice. ``others``
        is true if another vCPU can run."""
        why = "and no interrupt will come" if vcpu.hears else "with interrupts masked"
        stuck = self._dead_end(vcpu, f"branches to itself {why}", False)
        if stuck is None:
            self._skip(until, others)
        return stuck

    def vector_loop(self, vcpu: Runnable, others: bool, until: int) -> Stuck | None:
        """Handle a vCPU whose exception vectors fault again and again. If the guest is stuck,
        return the cause. Otherwise advance the virtual time and return None.

        If ``others`` is true (another vCPU can run), the time advances to the end of the time
        slice. Otherwise it advances to the next event of the clock. The time does not advance
        beyond ``until`` (ns). Then the vCPU executes the vectors again, because they may have been
        repaired.
        """
        host = self._host
        fault = describe(vcpu.context.system(ESR_EL1))
        cause = f"faults in its exception vectors again and again ({fault})"
        stuck = self._dead_end(vcpu, cause, True)
        if stuck is None:
            vcpu.sched.faults_until = host.turn_end if others else host.clock.deadline() or 0
            self.go_on_faulting(vcpu, others, until)
        return stuck

    def go_on_faulting(self, vcpu: Runnable, others: bool, until: int) -> None:
        """Advance the virtual time, without execution of the vCPU. The time advances to
        ``faults_until`` or to ``until`` (ns), whichever is first."""
        self._skip(min(until, vcpu.sched.faults_until), others)

    def _skip(self, until: int, others: bool) -> None:
        host = self._host
        turn_end = host.turn_end if others else NEVER
        host.turn.pe.skip_to(min(until, turn_end, host.turn.pe.next_event(NEVER)))

    # -- stuck guests --

    def _dead_end(self, vcpu: Runnable, cause: str, faults: bool) -> Stuck | None:
        """Record that a vCPU makes no progress, and why. If the guest is stuck, return the cause.
        The guest is not stuck if another runnable vCPU makes progress or an event is due; then
        return None."""
        self.still[vcpu.index] = Still(vcpu.context.pc, cause, faults)
        host = self._host
        runnable = [v for v in host.vcpus if v.runnable]
        if not self.still.keys() >= {v.index for v in runnable} or self._somebody_wakes(runnable):
            return None
        index, still = min(self.still.items(), key=lambda item: (not item[1].faults, item[0]))
        return Stuck(still.cause, host.vcpus[index])

    def _somebody_wakes(self, runnable: Iterable[Runnable]) -> bool:
        """Whether an event is due that can interrupt a vCPU of ``runnable`` or wake a blocked
        vCPU."""
        listening = [v for v in runnable if v.hears]
        sleeping = any(v.is_blocked for v in self._host.vcpus)
        if (sleeping or listening) and self.due() is not None:
            return True
        if any((rise := v.next_rise()) is not None and self._in_time(rise) for v in listening):
            return True
        return (sleeping and self.rescue()) or ((sleeping or bool(listening)) and self._typed())

    def _typed(self) -> bool:
        """Advance the virtual time to the arrival of the next console input, and return True. If no
        input will come, leave the time unchanged and return False."""
        host = self._host
        later = host.idle_until(None)
        if later is None:
            return False
        host.turn.pe.skip_to(later)
        return True

    def _in_time(self, ns: int) -> bool:
        return ns - self._host.clock.now < FOREVER_NS

    def due(self) -> int | None:
        """The virtual time in ns of the next event of the clock. None if no event is due, or if the
        next event is `FOREVER_NS` or more in the future."""
        due = self._host.clock.deadline()
        return due if due is not None and self._in_time(due) else None

    def rescue(self) -> bool:
        """Clear the exclusive monitor of each vCPU in WFE for which EL2 may have missed a store of
        another vCPU. (On hardware, such a store clears the monitor.) Return whether a monitor was
        cleared. The host calls this method when no vCPU can make progress."""
        lost = (
            [v.event_wait.take_for_lost() for v in self._host.vcpus]
            if self._rescues < RESCUES
            else []
        )
        self._rescues += any(lost)
        return any(lost)

    def nobody_wakes(self) -> Stuck:
        """Return why the guest is stuck when no vCPU can run and no event is due.

        The method looks for vCPUs that wait in WFE and have a VMM (`Runnable.has_vmm`). If it finds
        one, the cause is about this vCPU; if it finds several, about the first. If it finds none,
        the cause is about all vCPUs: they wait for ever.
        """
        waiting = [v for v in self._host.vcpus if v.event_wait.active and v.has_vmm]
        if waiting:
            return Stuck("waits for an event (WFE) that nothing will send", waiting[0])
        return Stuck("waits for ever")

    # -- state --

    def state(self) -> dict[str, object]:
        still = [[vcpu, *each] for vcpu, each in sorted(self.still.items())]
        return {"version": STATE_VERSION, "rescues": self._rescues, "still": still}

    def load(self, state: State) -> None:
        checked(state, "Standstill", STATE_VERSION)
        self._rescues = state["rescues"]
        self.still = {vcpu: Still(*each) for vcpu, *each in state["still"]}
