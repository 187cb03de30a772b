"""vCPUs that can run and yet do nothing, and dead ends.

A vCPU stands still in a branch to itself, and where its vectors fault again and again. Only an
interrupt ends the former; another vCPU may repair the vectors. Where all that can run stand still,
or none can run, and nothing is due that could wake one, the guest is stuck.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from armvirt.arch.el1 import ESR_EL1
from armvirt.arch.esr import describe
from armvirt.hw.clock import NEVER
from armvirt.hw.exit import ExitKind
from armvirt.hyp.host.runnable import Request, Runnable

if TYPE_CHECKING:
    from armvirt.hyp.host.host import Host

FOREVER_NS = 1 << 62
"""146 years: whoever waits longer waits for ever. A timer that is not wanted is set to 2**63 ticks
or more, and the time of a host is 64 bits of ns."""

FAULTS = 128
"""How many instructions the engine retires, at most, to find that vectors fault again and again."""

RESCUES = 64
"""How often in a row monitors are taken for lost (`armvirt.hyp.vcpu.event_wait`) where nothing else
can go on."""


class Still(NamedTuple):
    """What one vCPU does: where, in words, and whether its vectors fault."""

    pc: int
    cause: str
    faults: bool


class Standstill:
    """Who has been found standing still since any other vCPU of the host ran, or anything
    happened."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._still: dict[int, Still] = {}
        self._rescues = 0

    # -- what ends it --

    def ran(self, vcpu: Runnable, kind: ExitKind | Request, insns: int) -> None:
        """A vCPU retired ``insns`` instructions. They may have changed something, unless it only
        stood still."""
        before = self._still.get(vcpu.index)
        stopped = kind is ExitKind.BUDGET and before is not None
        if kind is ExitKind.VECTOR_LOOP or (stopped and before is not None and before.faults):
            idle = insns <= FAULTS
        else:
            idle = (kind is ExitKind.SPIN or stopped) and insns <= 2
        if not idle:
            self._still.clear()

    def happened(self) -> None:
        """Something happened that a vCPU which stands still might see."""
        self._still.clear()
        self._rescues = 0

    def busy(self) -> None:
        """A vCPU was at work for a whole turn."""
        self._rescues = 0

    # -- a vCPU that stands still --

    def spin(self, vcpu: Runnable, others: bool, until: int) -> None:
        """A branch to itself: skip to what can interrupt it, or say that nothing can."""
        why = "and no interrupt will come" if vcpu.hears else "with interrupts masked"
        if not self._dead_end(vcpu, f"branches to itself {why}", False):
            self._skip(until, others)

    def vector_loop(self, vcpu: Runnable, others: bool, until: int) -> None:
        """The vectors fault again and again. That is this vCPU's matter: it does so for the rest of
        its turn, and finds out in its next one whether another has repaired them."""
        host = self._host
        fault = describe(vcpu.context.system(ESR_EL1))
        if not self._dead_end(
            vcpu, f"faults in its exception vectors again and again ({fault})", True
        ):
            vcpu.faults_until = host.turn_end if others else host.clock.deadline() or 0
            self.go_on_faulting(vcpu, others, until)

    def go_on_faulting(self, vcpu: Runnable, others: bool, until: int) -> None:
        """Skip to where it looks again, at most."""
        self._skip(min(until, vcpu.faults_until), others)

    def _skip(self, until: int, others: bool) -> None:
        host = self._host
        turn_end = host.turn_end if others else NEVER
        host.turn.pe.skip_to(min(until, turn_end, host.turn.pe.next_event(NEVER)))

    # -- dead ends --

    def _dead_end(self, vcpu: Runnable, cause: str, faults: bool) -> bool:
        """A vCPU can do nothing but what it does. Where that is true of all that can run, and
        nothing will change it, the guest is stuck: whether it is."""
        self._still[vcpu.index] = Still(vcpu.context.pc, cause, faults)
        host = self._host
        runnable = [v for v in host.vcpus if v.runnable]
        if not self._still.keys() >= {v.index for v in runnable} or self._somebody_wakes(runnable):
            return False
        index, still = min(self._still.items(), key=lambda item: (not item[1].faults, item[0]))
        host.stop()
        host.vcpus[index].stuck(still.cause)
        return True

    def _somebody_wakes(self, runnable: Iterable[Runnable]) -> bool:
        """Whether one of those that stand still, or that sleep, will go on by itself."""
        listening = [v for v in runnable if v.hears]
        sleeping = any(v.is_blocked for v in self._host.vcpus)
        if (sleeping or listening) and self.due() is not None:
            return True
        if any((rise := v.next_rise()) is not None and self._in_time(rise) for v in listening):
            return True
        return (sleeping and self.rescue()) or ((sleeping or bool(listening)) and self._typed())

    def _typed(self) -> bool:
        """Whether somebody has typed, who could wake a vCPU that sleeps, or interrupt one that
        stands still."""
        host = self._host
        if host.on_idle is None or (later := host.on_idle(host.clock.now, None)) is None:
            return False
        host.turn.pe.skip_to(later)
        return True

    def _in_time(self, ns: int) -> bool:
        return ns - self._host.clock.now < FOREVER_NS

    def due(self) -> int | None:
        """The ns of the clock's next entry; None where there is none, and for one that is as good
        as none."""
        due = self._host.clock.deadline()
        return due if due is not None and self._in_time(due) else None

    def rescue(self) -> bool:
        """Nothing can go on. Whether a vCPU waits whose monitor may be lost without anybody having
        seen it."""
        lost = (
            [v.event_wait.take_for_lost() for v in self._host.vcpus]
            if self._rescues < RESCUES
            else []
        )
        self._rescues += any(lost)
        return any(lost)

    def stuck_in_wfe(self) -> bool:
        """No vCPU can run, and nothing is due. Whether one waits for an event: that is told its
        VMM."""
        waiting = [v for v in self._host.vcpus if v.event_wait.active and v.has_vmm]
        if waiting:
            waiting[0].stuck("waits for an event (WFE) that nothing will send")
        return bool(waiting)

    # -- state --

    def state(self) -> dict[str, object]:
        still = [[vcpu, *each] for vcpu, each in sorted(self._still.items())]
        return {"version": 1, "rescues": self._rescues, "still": still}

    def load(self, state: dict[str, Any]) -> None:
        self._rescues = state["rescues"]
        self._still = {vcpu: Still(*each) for vcpu, *each in state["still"]}
