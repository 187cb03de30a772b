"""PSCI 0.2 to 1.3, with the functions that KVM implements (Arm DEN 0022; arch/arm64/kvm/psci.c).
`CALLS` is the table of the functions by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from armvirt.arch import psci as arch
from armvirt.arch.gic import MPIDR_AFFINITY
from armvirt.arch.psci import AffinityState, PsciFunction, PsciResult, SmcccFunction
from armvirt.errors import KvmError
from armvirt.records import NamedTuple
from armvirt.state import State, checked

STATE_VERSION = 1

#: The PSCI versions that the VMM can choose.
VERSIONS = (arch.PSCI_0_2, arch.PSCI_1_0, arch.PSCI_1_1, arch.PSCI_1_2, arch.PSCI_1_3)
LATEST = VERSIONS[-1]  # the version of a new VM (KVM_ARM_PSCI_LATEST)

Args = tuple[int, ...]


class SmcccHost(Protocol):
    """The interface to the VM. The handlers of SMCCC calls use this interface."""

    def vcpu_ids(self) -> Iterable[int]:
        """The ids of all vCPUs, whether they are powered on or off."""
        ...

    def mpidr(self, vcpu_id: int) -> int:
        """The MPIDR_EL1 of a vCPU."""
        ...

    def is_on(self, vcpu_id: int) -> bool:
        """Whether a vCPU is powered on. The result is True as soon as `cpu_on` has been called,
        even if the vCPU has not run yet."""
        ...

    def cpu_on(self, vcpu_id: int, entry: int, context_id: int) -> None:
        """First reset a vCPU, with PC = ``entry`` and x0 = ``context_id``. Then power the vCPU
        on."""
        ...

    def cpu_off(self, vcpu_id: int) -> None:
        """Power a vCPU off."""
        ...

    def cpu_suspend(self, vcpu_id: int) -> None:
        """Block a vCPU until an interrupt wakes the vCPU, as with WFI. The vCPU keeps its
        registers."""
        ...

    def polls_for_cpu(self, vcpu_id: int) -> None:
        """Let another vCPU run. The guest has called AFFINITY_INFO, and the result was ON.
        ``vcpu_id`` is the id of the vCPU that made the call. This vCPU probably waits until another
        vCPU is off, and will call AFFINITY_INFO again."""
        ...

    def system_event(self, kind: str, flags: int) -> None:
        """Power off all vCPUs, then exit to the VMM with KVM_EXIT_SYSTEM_EVENT. ``kind`` is
        "shutdown" or "reset".

        As in KVM, x0 of the vCPU that made the call becomes INTERNAL_FAILURE. The guest can read
        this value only if the VMM runs the vCPU again.
        """
        ...

    def system_suspend(self, vcpu_id: int, entry: int, context_id: int) -> None:
        """Exit to the VMM with the KVM_EXIT_SYSTEM_EVENT "suspend". At the exit, x0 of the calling
        vCPU is unchanged. At the wake-up, the VMM starts the vCPU at ``entry`` with ``context_id``
        in x0. The VMM can instead deny the suspend: the VMM then writes an error code to x0."""
        ...


class PsciCall(NamedTuple):
    """A PSCI function. ``handler`` returns the result in x0, or None if the call does not return to
    the caller. ``since`` is the first PSCI version that has the function."""

    handler: Callable[[Psci, int, Args], int | None]
    since: int = arch.PSCI_0_2


class Psci:
    """The PSCI of one VM.

    `call` returns x0 as a signed number, or None if the call does not return to the caller.
    ``suspend_enabled`` is True if the VMM has enabled SYSTEM_SUSPEND (KVM_CAP_ARM_SYSTEM_SUSPEND).
    """

    def __init__(self, host: SmcccHost, version: int = LATEST) -> None:
        self.host, self.version = host, LATEST
        self.suspend_enabled = False
        self.set_version(version)

    def set_version(self, version: int) -> None:
        """Set the PSCI version (KVM_REG_ARM_PSCI_VERSION). KvmError EINVAL if the version is not in
        `VERSIONS`."""
        if version not in VERSIONS:
            raise KvmError("EINVAL", f"PSCI version {version:#x} is not supported")
        self.version = version

    def implements(self, function: int) -> bool:
        """Whether the VM's PSCI version has the function. SYSTEM_SUSPEND also requires that the VMM
        has enabled this function."""
        row = CALLS.get(function)
        if function in _SUSPEND and not self.suspend_enabled:
            return False
        return row is not None and row.since <= self.version

    def call(self, vcpu_id: int, function: int, args: Args) -> int | None:
        """Call a PSCI function. ``vcpu_id`` is the id of the vCPU that makes the call. ``function``
        is the function id. ``args`` has at least x1 to x3. If ``function`` is a 32-bit function id,
        the caller has truncated the values in ``args`` to 32 bits. The result is NOT_SUPPORTED if
        the function is not implemented."""
        if not self.implements(function):
            return PsciResult.NOT_SUPPORTED
        return CALLS[function].handler(self, vcpu_id, args)

    def get_version(self, vcpu_id: int, args: Args) -> int:
        return self.version

    def features(self, vcpu_id: int, args: Args) -> int:
        """PSCI_FEATURES for the function id in x1. If the function is implemented, or is
        SMCCC_VERSION, the result is the feature flags of the function. Otherwise the result is
        NOT_SUPPORTED. The flags are 0 for all functions except SYSTEM_OFF2."""
        function = args[0] & 0xFFFF_FFFF
        if not (function == SmcccFunction.VERSION or self.implements(function)):
            return PsciResult.NOT_SUPPORTED
        return arch.OFF2_HIBERNATE if function in _OFF2 else PsciResult.SUCCESS

    def cpu_suspend(self, vcpu_id: int, args: Args) -> int:
        """CPU_SUSPEND: block the vCPU until an interrupt wakes the vCPU, as with WFI. Every power
        state is a standby state, so the entry point is not used."""
        self.host.cpu_suspend(vcpu_id)
        return PsciResult.SUCCESS

    def cpu_off(self, vcpu_id: int, args: Args) -> None:
        self.host.cpu_off(vcpu_id)

    def cpu_on(self, vcpu_id: int, args: Args) -> int:
        """CPU_ON: start the vCPU that has the affinity in x1. The result is INVALID_PARAMETERS if
        no vCPU has this affinity, and ALREADY_ON if the vCPU is on."""
        affinity, entry, context_id = args[:3]
        target = self._find(affinity)
        if target is None:
            return PsciResult.INVALID_PARAMETERS
        if self.host.is_on(target):
            return PsciResult.ALREADY_ON
        self.host.cpu_on(target, entry, context_id)
        return PsciResult.SUCCESS

    def _find(self, affinity: int) -> int | None:
        """The id of the vCPU that has ``affinity``. None if no vCPU has this affinity, or if a bit
        outside the affinity fields is set."""
        host = self.host
        return next(
            (v for v in host.vcpu_ids() if host.mpidr(v) & MPIDR_AFFINITY == affinity), None
        )

    def affinity_info(self, vcpu_id: int, args: Args) -> int:
        """AFFINITY_INFO. The result is ON if at least one vCPU of the affinity instance in x1 is
        on, and OFF if all are off. The affinity fields below the level in x2 are ignored. The
        result is INVALID_PARAMETERS if the affinity instance has no vCPU, if x1 has a bit outside
        the affinity fields, or if the level is above 3."""
        affinity, level = args[:2]
        if level > 3 or affinity & ~MPIDR_AFFINITY:
            return PsciResult.INVALID_PARAMETERS
        mask = MPIDR_AFFINITY & ~((1 << 8 * level) - 1)
        members = [v for v in self.host.vcpu_ids() if (self.host.mpidr(v) ^ affinity) & mask == 0]
        if not members:
            return PsciResult.INVALID_PARAMETERS
        if not any(map(self.host.is_on, members)):
            return AffinityState.OFF
        self.host.polls_for_cpu(vcpu_id)
        return AffinityState.ON

    def migrate_info_type(self, vcpu_id: int, args: Args) -> int:
        return arch.MIGRATE_INFO_NOT_REQUIRED

    def system_off(self, vcpu_id: int, args: Args) -> None:
        self.host.system_event("shutdown", 0)

    def system_reset(self, vcpu_id: int, args: Args) -> None:
        self.host.system_event("reset", 0)

    def system_reset2(self, vcpu_id: int, args: Args) -> int | None:
        """SYSTEM_RESET2: exit to the VMM with the system event "reset" and the flag PSCI_RESET2.
        The reset type in x1 must be the architectural warm reset or a vendor reset. The result is
        INVALID_PARAMETERS for another reset type."""
        if args[0] != arch.RESET2_WARM and not args[0] & arch.RESET2_VENDOR:
            return PsciResult.INVALID_PARAMETERS
        self.host.system_event("reset", arch.SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2)
        return None

    def system_off2(self, vcpu_id: int, args: Args) -> int | None:
        """SYSTEM_OFF2: exit to the VMM with the system event "shutdown" and the flag PSCI_OFF2. The
        type in x1 must be HIBERNATE_OFF (1), or 0, which has the same effect. The result is
        INVALID_PARAMETERS if x1 has another type, or if the cookie in x2 is not 0."""
        if args[0] not in (0, arch.OFF2_HIBERNATE) or args[1]:
            return PsciResult.INVALID_PARAMETERS
        self.host.system_event("shutdown", arch.SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2)
        return None

    def system_suspend(self, vcpu_id: int, args: Args) -> None:
        """SYSTEM_SUSPEND: exit to the VMM. As in KVM, the hypervisor makes no checks. The VMM has
        to check the entry address, and that the other CPUs are off."""
        self.host.system_suspend(vcpu_id, args[0], args[1])

    def reset(self) -> None:
        """Do nothing. A reset of the VM changes neither the PSCI version nor the set of functions
        that the VMM has enabled."""

    def state(self) -> dict[str, object]:
        return {
            "version": STATE_VERSION,
            "psci_version": self.version,
            "suspend_enabled": self.suspend_enabled,
        }

    def load(self, state: State) -> None:
        checked(state, "Psci", STATE_VERSION)
        version = state["psci_version"]
        assert isinstance(version, int)
        self.set_version(version)
        self.suspend_enabled = bool(state["suspend_enabled"])


_SUSPEND = (PsciFunction.SYSTEM_SUSPEND, PsciFunction.SYSTEM_SUSPEND_64)
_OFF2 = (PsciFunction.SYSTEM_OFF2, PsciFunction.SYSTEM_OFF2_64)

#: All implemented functions. Ids without a row, such as MIGRATE and STAT_*, are NOT_SUPPORTED.
CALLS: dict[int, PsciCall] = {
    PsciFunction.VERSION: PsciCall(Psci.get_version),
    PsciFunction.CPU_SUSPEND: PsciCall(Psci.cpu_suspend),
    PsciFunction.CPU_SUSPEND_64: PsciCall(Psci.cpu_suspend),
    PsciFunction.CPU_OFF: PsciCall(Psci.cpu_off),
    PsciFunction.CPU_ON: PsciCall(Psci.cpu_on),
    PsciFunction.CPU_ON_64: PsciCall(Psci.cpu_on),
    PsciFunction.AFFINITY_INFO: PsciCall(Psci.affinity_info),
    PsciFunction.AFFINITY_INFO_64: PsciCall(Psci.affinity_info),
    PsciFunction.MIGRATE_INFO_TYPE: PsciCall(Psci.migrate_info_type),
    PsciFunction.SYSTEM_OFF: PsciCall(Psci.system_off),
    PsciFunction.SYSTEM_RESET: PsciCall(Psci.system_reset),
    PsciFunction.FEATURES: PsciCall(Psci.features, arch.PSCI_1_0),
    PsciFunction.SYSTEM_RESET2: PsciCall(Psci.system_reset2, arch.PSCI_1_1),
    PsciFunction.SYSTEM_RESET2_64: PsciCall(Psci.system_reset2, arch.PSCI_1_1),
    PsciFunction.SYSTEM_SUSPEND: PsciCall(Psci.system_suspend, arch.PSCI_1_0),
    PsciFunction.SYSTEM_SUSPEND_64: PsciCall(Psci.system_suspend, arch.PSCI_1_0),
    PsciFunction.SYSTEM_OFF2: PsciCall(Psci.system_off2, arch.PSCI_1_3),
    PsciFunction.SYSTEM_OFF2_64: PsciCall(Psci.system_off2, arch.PSCI_1_3),
}
