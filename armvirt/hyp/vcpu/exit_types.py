"""The outcomes of an entry of the guest: the exits that EL2 does not finish, as typed objects
instead of ``struct kvm_run`` (uapi/linux/kvm.h), and `Outcome`."""

from __future__ import annotations

from typing import NamedTuple

from armvirt.hw.exit import ExitKind
from armvirt.hyp.host.runnable import Request


class MmioExit:
    """KVM_EXIT_MMIO. ``data`` is the value at the device, with ``size`` bytes; for a read the VMM
    sets ``data``.

    The VMM sets ``abort`` if no device has the address: the guest then takes a synchronous external
    abort.
    """

    __slots__ = ("abort", "data", "is_write", "phys_addr", "size")

    def __init__(self, phys_addr: int, size: int, is_write: bool, data: int = 0) -> None:
        self.phys_addr, self.size, self.is_write, self.data = phys_addr, size, is_write, data
        self.abort = False

    def take(self, answer: MmioExit) -> None:
        """Copy ``answer``, which the VMM gave to the same access before."""
        self.phys_addr, self.size, self.is_write = answer.phys_addr, answer.size, answer.is_write
        self.data, self.abort = answer.data, answer.abort

    def __repr__(self) -> str:
        kind = f"write of {self.data:#x}" if self.is_write else "read"
        return f"<MmioExit: {kind}, {self.size} bytes at {self.phys_addr:#x}>"


class SystemEventExit(NamedTuple):
    """KVM_EXIT_SYSTEM_EVENT: ``kind`` is shutdown, reset, suspend or wakeup; ``flags`` are those of
    uapi/linux/kvm.h.

    ``entry`` and ``context_id`` are x1 and x2 of SYSTEM_SUSPEND: the guest's entry point after the
    suspend, and the value for x0.
    """

    kind: str
    flags: int = 0
    entry: int = 0
    context_id: int = 0


class SemihostingExit:
    """HLT #0xF000 in a VM with semihosting: the operation is in x0, the parameter block in x1. The
    VMM sets ``result``; or, without input, ``retry_at`` (ns): the vCPU sleeps until ``retry_at``
    and executes the HLT again."""

    __slots__ = ("operation", "parameter", "result", "retry_at")

    def __init__(self, operation: int, parameter: int) -> None:
        self.operation, self.parameter, self.result = operation, parameter, 0
        self.retry_at: int | None = None

    def take(self, answer: SemihostingExit) -> None:
        """Copy ``answer``, which the VMM gave to the same call before."""
        self.operation, self.parameter = answer.operation, answer.parameter
        self.result, self.retry_at = answer.result, answer.retry_at

    def __repr__(self) -> str:
        return f"<SemihostingExit: operation {self.operation:#x}, parameter {self.parameter:#x}>"


class StuckExit(NamedTuple):
    """The guest cannot make progress. ``cause`` says what vCPU ``cpu`` does at ``pc``; ``cpu`` is
    None for the only vCPU, or for all vCPUs."""

    cause: str
    pc: int
    cpu: int | None = None


class IntrExit(NamedTuple):
    """KVM_EXIT_INTR: in a VM without a vGIC, the level of a timer's output has changed
    (`Vcpu.device_irq_level`)."""


class HypercallExit(NamedTuple):
    """KVM_EXIT_HYPERCALL: a call that the SMCCC filter forwards. The arguments are in x1 and up;
    the VMM writes the results to x0 to x3 before the vCPU runs again. ``flags``: `HYPERCALL_SMC`.
    The PC is after the HVC or SMC."""

    function: int
    flags: int = 0


class NisvExit(NamedTuple):
    """KVM_EXIT_ARM_NISV: an access outside of the memory slots with ISV = 0 in the syndrome.
    ``esr_iss`` is ESR_EL2.ISS.

    The PC is at the instruction: the VMM emulates the access and advances the PC, or injects an
    abort (`Vcpu.set_vcpu_events`).
    """

    esr_iss: int
    fault_ipa: int


class DebugExit(NamedTuple):
    """KVM_EXIT_DEBUG: a breakpoint instruction or a single step. ``hsr`` is the syndrome.
    ``far`` is always 0: KVM sets it for a watchpoint, which armvirt does not have. The PC is at the
    breakpoint, or at the instruction after the step."""

    hsr: int
    far: int = 0


HYPERCALL_SMC = 1 << 0  # KVM_HYPERCALL_EXIT_SMC

Exit = (
    IntrExit | MmioExit | SystemEventExit | SemihostingExit | StuckExit | HypercallExit | NisvExit | DebugExit
)  # fmt: skip


class Outcome:
    """The outcome of the last entry of one vCPU; the object is used again for every entry.

    ``kind`` says why the PE left the guest, or what an exit handler requests from the host;
    ``until`` is the ns at which a SLEEP ends. A WAIT or a SLEEP stays until the host has handled
    it. ``exit`` is delivered to the VMM after the PE has left the guest, because the VMM may then
    change any register.
    """

    __slots__ = ("exit", "kind", "until")

    def __init__(self) -> None:
        self.kind: ExitKind | Request = Request.NONE
        self.until = 0
        self.exit: Exit | None = None

    def __repr__(self) -> str:
        return f"<Outcome: {self.kind.value}, exit {self.exit!r}>"

    def wait(self) -> None:
        """Request that the host blocks the vCPU."""
        self.kind = Request.WAIT

    def sleep(self, until: int) -> None:
        """Request that the host lets the vCPU sleep, loaded, until ``until`` ns."""
        self.kind, self.until = Request.SLEEP, until

    @property
    def waits(self) -> bool:
        return self.kind is Request.WAIT

    def cancel_wait(self) -> None:
        """Cancel a WAIT, because the power state changes."""
        if self.kind is Request.WAIT:
            self.kind = Request.NONE

    def restore(self, waits: bool) -> None:
        """Restore the saved state: ``waits`` for a WAIT."""
        self.kind, self.exit = Request.WAIT if waits else Request.NONE, None
