"""A physical CPU of the host: the vCPU on it, and the state of its round robin (struct rq)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from armvirt.hw.pe import Pe

if TYPE_CHECKING:
    from armvirt.hyp.host.runnable import Runnable


class Pcpu:
    """One physical CPU. ``vcpu`` is loaded on the PE, or was until it blocked; ``last`` is the
    index of the vCPU that was chosen last.

    A vCPU stays loaded while other PEs have their turns: turns stand for PEs that run at the same
    time.
    """

    __slots__ = ("last", "pe", "vcpu")

    def __init__(self, pe: Pe) -> None:
        self.pe = pe
        self.vcpu: Runnable | None = None
        self.last = -1

    def __repr__(self) -> str:
        loaded = "idle" if self.vcpu is None else f"loaded with {self.vcpu!r}"
        return f"<Pcpu {self.pe.index}: {loaded}>"

    @property
    def index(self) -> int:
        return self.pe.index

    @property
    def loaded(self) -> bool:
        """Whether a vCPU's registers are on this PE."""
        return self.vcpu is not None and self.vcpu.pe is self.pe

    def switch(self, vcpu: Runnable, now: int) -> None:
        """Put what is loaded, load ``vcpu`` (context switch)."""
        if self.vcpu is not None and self.loaded:
            self.vcpu.put()
        self.vcpu = vcpu
        vcpu.delay.arrive(now)
        vcpu.load(self.pe)

    def leave(self, vcpu: Runnable) -> None:
        """``vcpu`` queues at another PE from now on."""
        if self.vcpu is vcpu:
            self.vcpu = None

    def unload(self) -> None:
        """Detach the loaded vCPU without saving it: a restore follows."""
        if self.vcpu is not None and self.loaded:
            self.vcpu.detach()
        self.vcpu = None

    def state(self) -> dict[str, object]:
        vcpu = self.vcpu
        return {
            "version": 1, "pe": self.pe.state(), "last": self.last, "loaded": self.loaded,
            "vcpu": None if vcpu is None else vcpu.index,
        }  # fmt: skip

    def load(self, state: dict[str, Any], vcpus: Sequence[Runnable]) -> None:
        """Take over `state`; the vCPUs' own state is there already."""
        self.pe.load(state["pe"])
        self.last = state["last"]
        self.vcpu = None if state["vcpu"] is None else vcpus[state["vcpu"]]
        if self.vcpu is not None and state["loaded"]:
            self.vcpu.attach(self.pe)


class RunDelay:
    """The time in ns for which a vCPU was runnable while another vCPU had its PE
    (sched_info.run_delay).

    The guest sees this as stolen time. A wait for the turn of the PE itself does not count: turns
    stand for PEs that run at the same time.
    """

    __slots__ = ("since", "total")

    def __init__(self) -> None:
        self.total = 0
        self.since: int | None = None

    def queue(self, now: int) -> None:
        """The vCPU is runnable, and another vCPU has the PE."""
        if self.since is None:
            self.since = now

    def arrive(self, now: int) -> None:
        """The vCPU gets the PE."""
        if self.since is not None:
            self.total += now - self.since
            self.since = None

    def leave(self) -> None:
        """The vCPU is not runnable any more."""
        self.since = None

    def state(self) -> dict[str, object]:
        return {"version": 1, "total": self.total, "since": self.since}

    def load(self, state: dict[str, Any]) -> None:
        self.total, self.since = state["total"], state["since"]
