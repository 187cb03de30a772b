"""What is on a physical CPU: the vCPU that has it, and where its round robin stands (the kernel's
struct rq)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from armvirt.hw.pe import Pe

if TYPE_CHECKING:
    from armvirt.hyp.host.runnable import Runnable


class Pcpu:
    """One physical CPU. ``vcpu`` is on it, or was until it blocked; ``last`` is the index of its
    last choice.

    A vCPU that is loaded stays loaded while other PEs have their turns: on a machine they would run
    at the same time.
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
        """``vcpu`` has another home now."""
        if self.vcpu is vcpu:
            self.vcpu = None

    def unload(self) -> None:
        """Forget what is loaded, without saving it: it is about to be replaced."""
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
    """How long a vCPU has been runnable while another had its PE, in ns (the kernel's
    sched_info.run_delay).

    That is what the guest sees as stolen time. Waiting for the turn of one's own PE is none: turns
    stand for PEs that run at the same time.
    """

    __slots__ = ("since", "total")

    def __init__(self) -> None:
        self.total = 0
        self.since: int | None = None

    def queue(self, now: int) -> None:
        """It is runnable, and the PE is another's."""
        if self.since is None:
            self.since = now

    def arrive(self, now: int) -> None:
        """It gets the PE."""
        if self.since is not None:
            self.total += now - self.since
            self.since = None

    def leave(self) -> None:
        """It waits no more, for it cannot run."""
        self.since = None

    def state(self) -> dict[str, object]:
        return {"version": 1, "total": self.total, "since": self.since}

    def load(self, state: dict[str, Any]) -> None:
        self.total, self.since = state["total"], state["since"]
