"""The results of a guest entry. `Outcome` says why the PE left the guest. The other classes are the
exits that EL2 passes to the VMM, one class for each exit reason (``struct kvm_run`` in
uapi/linux/kvm.h). `SemihostingExit` and `StuckExit` do not exist in KVM."""

from __future__ import annotations

from armvirt.hw.exit import ExitKind
from armvirt.hyp.host.runnable import Request
from armvirt.records import NamedTuple


class MmioExit:
    """KVM_EXIT_MMIO: a load or store of ``size`` bytes at the IPA ``phys_addr``. The IPA is in no
    memory slot, or the access is a store to a read-only slot. For a store, ``data`` is the value
    for the device. For a load, the VMM sets ``data`` to the value that the device returns.

    If no device has the address, the VMM sets ``abort`` to True. Then the guest takes a synchronous
    external abort. For a load, the VMM may set ``stable`` to True. This means that the load has no
    effect on the device, and that the same load returns the same value until the VMM or the
    hypervisor runs for another reason. Then the engine may repeat the load without an exit.
    (kvm_run has no such field.)
    """

    __slots__ = ("abort", "data", "is_write", "phys_addr", "size", "stable")

    def __init__(self, phys_addr: int, size: int, is_write: bool, data: int = 0) -> None:
        self.phys_addr, self.size, self.is_write, self.data = phys_addr, size, is_write, data
        self.abort = self.stable = False

    def take(self, answer: MmioExit) -> None:
        """Copy the VMM's answer from ``answer`` into this exit. Both are exits of the same access:
        ``answer`` is the exit of the first trap of the instruction, which the VMM has answered.
        This object is the exit of the second trap of the same instruction."""
        self.phys_addr, self.size, self.is_write = answer.phys_addr, answer.size, answer.is_write
        self.data, self.abort = answer.data, answer.abort

    def __repr__(self) -> str:
        kind = f"write of {self.data:#x}" if self.is_write else "read"
        return f"<MmioExit: {kind}, {self.size} bytes at {self.phys_addr:#x}>"


class SystemEventExit(NamedTuple):
    """KVM_EXIT_SYSTEM_EVENT: ``kind`` is shutdown, reset, suspend or wakeup. ``flags`` are the
    flags of the event in uapi/linux/kvm.h.

    For suspend, ``entry`` and ``context_id`` are x1 and x2 of SYSTEM_SUSPEND: the guest's entry
    point after the suspend, and the value for x0.
    """

    kind: str
    flags: int = 0
    entry: int = 0
    context_id: int = 0


class SemihostingExit:
    """A semihosting call: the guest has executed HLT #0xF000 in a VM with semihosting.
    ``operation`` is the value of W0, ``parameter`` is the value of X1. The VMM sets ``result``, the
    value that X0 gets. If the call needs input and there is no input yet, the VMM sets ``retry_at``
    instead, a virtual time in ns. Then the vCPU sleeps until ``retry_at`` and executes the HLT
    again."""

    __slots__ = ("operation", "parameter", "result", "retry_at")

    def __init__(self, operation: int, parameter: int) -> None:
        self.operation, self.parameter, self.result = operation, parameter, 0
        self.retry_at: int | None = None

    def take(self, answer: SemihostingExit) -> None:
        """Copy the VMM's answer from ``answer`` into this exit. Both are exits of the same call:
        ``answer`` is the exit of the first trap of the HLT, which the VMM has answered. This object
        is the exit of the second trap of the same HLT."""
        self.operation, self.parameter = answer.operation, answer.parameter
        self.result, self.retry_at = answer.result, answer.retry_at

    def __repr__(self) -> str:
        return f"<SemihostingExit: operation {self.operation:#x}, parameter {self.parameter:#x}>"


class StuckExit(NamedTuple):
    """The guest cannot make progress. ``cause`` is a text that says why. ``pc`` is the PC of the
    vCPU that delivers this exit. ``cpu`` is the number of the vCPU that ``cause`` is about. ``cpu``
    is None if the VM has only one vCPU, or if ``cause`` is about all vCPUs."""

    cause: str
    pc: int
    cpu: int | None = None


class IntrExit(NamedTuple):
    """KVM_EXIT_INTR in a VM without a vGIC: the level of a timer line has changed.
    `Vcpu.device_irq_level` has the new levels."""


class HypercallExit(NamedTuple):
    """KVM_EXIT_HYPERCALL: an SMCCC call that the SMCCC filter forwards to the VMM. ``function`` is
    the function id; the arguments are in x1 and up. The VMM writes the results to x0 to x3 before
    the vCPU runs again. ``flags`` is `HYPERCALL_SMC` for an SMC, 0 for an HVC. The PC is at the
    instruction after the HVC or SMC."""

    function: int
    flags: int = 0


class NisvExit(NamedTuple):
    """KVM_EXIT_ARM_NISV: an access to the IPA ``fault_ipa``, which is in no memory slot. The
    syndrome does not describe the access (ISV is 0). ``esr_iss`` is ESR_EL2.ISS.

    The PC is at the instruction. The VMM either emulates the access and advances the PC, or injects
    an abort by `Vcpu.set_vcpu_events`.
    """

    esr_iss: int
    fault_ipa: int


class DebugExit(NamedTuple):
    """KVM_EXIT_DEBUG: a breakpoint instruction or a single step. ``hsr`` is the syndrome. ``far``
    is always 0, because KVM sets ``far`` only for a watchpoint, and armvirt has no watchpoints for
    the VMM. After a breakpoint the PC is at the BRK; after a single step the PC is at the next
    instruction."""

    hsr: int
    far: int = 0


HYPERCALL_SMC = 1 << 0  # KVM_HYPERCALL_EXIT_SMC

Exit = (
    IntrExit | MmioExit | SystemEventExit | SemihostingExit | StuckExit | HypercallExit | NisvExit | DebugExit
)  # fmt: skip


class Outcome:
    """The outcome of the last guest entry of one vCPU. A vCPU has one `Outcome` object, and each
    guest entry overwrites its attributes.

    ``kind`` is either the reason why the PE left the guest, or a request of an exit handler to the
    host kernel. A request WAIT or SLEEP stays in ``kind`` until the host has handled the request.
    ``until`` is the virtual time in ns at which a SLEEP ends; None if only a wake-up ends the
    SLEEP. ``exit`` is the exit to the VMM; None if there is no exit. The run loop delivers ``exit``
    after the PE has left the guest. At that time the VMM can change any register.
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
        """Request that the vCPU sleeps until the virtual time ``until`` (ns). During the sleep the
        vCPU stays loaded on its PE."""
        self.kind, self.until = Request.SLEEP, until

    @property
    def waits(self) -> bool:
        return self.kind is Request.WAIT

    def cancel_wait(self) -> None:
        """Cancel a WAIT (the request that the host blocks the vCPU) that the host has not handled
        yet. `PowerState` calls this method when it sets a new power state of the vCPU. The old
        request must not change the new state."""
        if self.kind is Request.WAIT:
            self.kind = Request.NONE

    def restore(self, waits: bool) -> None:
        """Set ``kind`` from a saved state. If ``waits`` is true, ``kind`` becomes the request WAIT;
        otherwise it becomes NONE (no request). ``exit`` becomes None, because an exit to the VMM is
        not part of the saved state."""
        self.kind, self.exit = Request.WAIT if waits else Request.NONE, None
