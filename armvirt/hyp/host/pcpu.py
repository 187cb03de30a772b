"""A physical CPU of the host: a PE, the vCPU on it, and the context switch (struct rq)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from armvirt.hw.pe import Pe
from armvirt.hyp.host.runnable import Runnable
from armvirt.state import State, Stateful, checked, load_states, states_of

STATE_VERSION = 2


class Pcpu:
    """One physical CPU of a host. ``vcpus`` has all vCPUs of the host. ``vcpu`` is the vCPU that is
    loaded on the PE, or that was loaded until it blocked; None if there is no such vCPU. ``last``
    is the index of the vCPU that the scheduler chose last for this PE; -1 before the first choice.

    A vCPU stays loaded during the time slices of other PEs, because time slices model PEs that run
    at the same time.
    """

    __slots__ = ("_vcpus", "last", "pe", "vcpu")

    def __init__(self, pe: Pe, vcpus: Sequence[Runnable]) -> None:
        self.pe, self._vcpus = pe, vcpus
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
        """Whether the registers of ``vcpu`` are on this PE."""
        return self.vcpu is not None and self.vcpu.pe is self.pe

    def switch(self, vcpu: Runnable, now: int) -> None:
        """Make a context switch: put the vCPU that is loaded, if there is one, and load
        ``vcpu``."""
        if self.vcpu is not None and self.loaded:
            self.vcpu.put()
        self.vcpu = vcpu
        vcpu.sched.arrive(now)
        vcpu.load(self.pe)

    def leave(self, vcpu: Runnable) -> None:
        """Record that ``vcpu`` now queues at another PE: if it is `Pcpu.vcpu`, set `Pcpu.vcpu` to
        None."""
        if self.vcpu is vcpu:
            self.vcpu = None

    def unload(self) -> None:
        """Detach the loaded vCPU. Its registers are not saved, because the caller restores another
        state next."""
        if self.vcpu is not None and self.loaded:
            self.vcpu.detach()
        self.vcpu = None

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """The objects of the physical CPU that have saved state, by name."""
        return {"pe": self.pe}

    def state(self) -> State:
        vcpu = self.vcpu
        return {
            "version": STATE_VERSION, "last": self.last, "loaded": self.loaded,
            "vcpu": None if vcpu is None else vcpu.index, "parts": states_of(self.parts),
        }  # fmt: skip

    def load(self, state: State) -> None:
        """Restore what `state` returned. Before this call, the caller restores the vCPUs."""
        checked(state, "Pcpu", STATE_VERSION)
        load_states(self.parts, state["parts"], "a physical CPU")
        self.last = state["last"]
        self.vcpu = None if state["vcpu"] is None else self._vcpus[state["vcpu"]]
        if self.vcpu is not None and state["loaded"]:
            self.vcpu.attach(self.pe)
