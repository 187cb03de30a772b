"""A VM whose vCPUs never run. It logs what a firmware call asks of it."""

from __future__ import annotations

from armvirt.hyp.vcpu.idregs import mpidr_of


class FakeVm:
    """vCPUs that are on or off, and a log of what was asked."""

    def __init__(self, vcpus: int = 2) -> None:
        self.on = {vcpu: vcpu == 0 for vcpu in range(vcpus)}
        self.log: list[tuple[object, ...]] = []

    def vcpu_ids(self) -> list[int]:
        return list(self.on)

    def mpidr(self, vcpu_id: int) -> int:
        return mpidr_of(vcpu_id)

    def is_on(self, vcpu_id: int) -> bool:
        return self.on[vcpu_id]

    def cpu_on(self, vcpu_id: int, entry: int, context_id: int) -> None:
        self.on[vcpu_id] = True
        self.log.append(("on", vcpu_id, entry, context_id))

    def cpu_off(self, vcpu_id: int) -> None:
        self.on[vcpu_id] = False
        self.log.append(("off", vcpu_id))

    def cpu_suspend(self, vcpu_id: int) -> None:
        self.log.append(("suspend", vcpu_id))

    def polls_for_cpu(self, vcpu_id: int) -> None:
        self.log.append(("polls", vcpu_id))

    def system_event(self, kind: str, flags: int) -> None:
        self.log.append((kind, flags))

    def system_suspend(self, vcpu_id: int, entry: int, context_id: int) -> None:
        self.log.append(("system_suspend", vcpu_id, entry, context_id))
