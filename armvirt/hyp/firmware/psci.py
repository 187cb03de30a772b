"""PSCI 0.2 to 1.3 as KVM implements it (Arm DEN 0022; arch/arm64/kvm/psci.c), one row per function
id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from armvirt.arch import psci as arch
from armvirt.arch.gic import MPIDR_AFFINITY
from armvirt.arch.psci import AffinityState, PsciFunction, PsciResult, SmcccFunction
from armvirt.errors import KvmError
from armvirt.state import State, checked

STATE_VERSION = 1

VERSIONS = (arch.PSCI_0_2, arch.PSCI_1_0, arch.PSCI_1_1, arch.PSCI_1_2, arch.PSCI_1_3)
LATEST = VERSIONS[-1]  # what a new VM has (KVM_ARM_PSCI_LATEST)

Args = tuple[int, ...]


class SmcccHost(Protocol):
    """What the calls need of the VM."""

    def vcpu_ids(self) -> Iterable[int]:
        """All vCPUs, powered on or not."""
        ...

    def mpidr(self, vcpu_id: int) -> int:
        """The vCPU's MPIDR_EL1."""
        ...

    def is_on(self, vcpu_id: int) -> bool:
        """Whether it is powered on; true from the moment of `cpu_on`, before it runs."""
        ...

    def cpu_on(self, vcpu_id: int, entry: int, context_id: int) -> None:
        """Reset a vCPU to start at ``entry`` with ``context_id`` in x0, then power it on, in this
        order."""
        ...

    def cpu_off(self, vcpu_id: int) -> None:
        """Power a vCPU off."""
        ...

    def cpu_suspend(self, vcpu_id: int) -> None:
        """Block a vCPU as WFI does; its registers are kept."""
        ...

    def polls_for_cpu(self, vcpu_id: int) -> None:
        """A vCPU was told that another is on, and will ask again until that is off, or up."""
        ...

    def system_event(self, kind: str, flags: int) -> None:
        """All vCPUs off, then KVM_EXIT_SYSTEM_EVENT: ``kind`` is shutdown or reset.

        KVM puts INTERNAL_FAILURE into the caller's x0, which a VMM that runs it again will let it
        see.
        """
        ...

    def system_suspend(self, vcpu_id: int, entry: int, context_id: int) -> None:
        """KVM_EXIT_SYSTEM_EVENT suspend. The VMM decides: it starts the vCPU at ``entry`` when it
        wakes, or denies by writing x0, which it finds as the caller left it."""
        ...


class PsciCall(NamedTuple):
    """A function: its handler (None: no return to the caller), and the first PSCI version that has
    it."""

    handler: Callable[[Psci, int, Args], int | None]
    since: int = arch.PSCI_0_2


class Psci:
    """The PSCI of one VM.

    `call` returns x0 as a signed number, or None when the caller does not get control back.
    ``suspend_enabled`` is KVM_CAP_ARM_SYSTEM_SUSPEND: without it there is no SYSTEM_SUSPEND.
    """

    def __init__(self, host: SmcccHost, version: int = LATEST) -> None:
        self.host, self.version = host, LATEST
        self.suspend_enabled = False
        self.set_version(version)

    def set_version(self, version: int) -> None:
        """KVM_REG_ARM_PSCI_VERSION: EINVAL for a version that is not `VERSIONS`."""
        if version not in VERSIONS:
            raise KvmError("EINVAL", f"PSCI version {version:#x} is not supported")
        self.version = version

    def implements(self, function: int) -> bool:
        """Whether the VM's PSCI version has this function, and the VMM allows it."""
        row = CALLS.get(function)
        if function in _SUSPEND and not self.suspend_enabled:
            return False
        return row is not None and row.since <= self.version

    def call(self, vcpu_id: int, function: int, args: Args) -> int | None:
        """Run one function. ``args`` are x1 to x3 at least, already cut to 32 bits for a 32-bit
        id."""
        if not self.implements(function):
            return PsciResult.NOT_SUPPORTED
        return CALLS[function].handler(self, vcpu_id, args)

    def get_version(self, vcpu_id: int, args: Args) -> int:
        return self.version

    def features(self, vcpu_id: int, args: Args) -> int:
        """PSCI_FEATURES: the feature flags of what is there, SMCCC_VERSION included; 0 for all but
        SYSTEM_OFF2."""
        function = args[0] & 0xFFFF_FFFF
        if not (function == SmcccFunction.VERSION or self.implements(function)):
            return PsciResult.NOT_SUPPORTED
        return arch.OFF2_HIBERNATE if function in _OFF2 else PsciResult.SUCCESS

    def cpu_suspend(self, vcpu_id: int, args: Args) -> int:
        """CPU_SUSPEND: every power state is a standby state, so this is WFI and the entry point is
        not used."""
        self.host.cpu_suspend(vcpu_id)
        return PsciResult.SUCCESS

    def cpu_off(self, vcpu_id: int, args: Args) -> None:
        self.host.cpu_off(vcpu_id)

    def cpu_on(self, vcpu_id: int, args: Args) -> int:
        """CPU_ON: INVALID_PARAMETERS for an affinity that nobody has, ALREADY_ON for a vCPU that is
        on."""
        affinity, entry, context_id = args[:3]
        target = self._find(affinity)
        if target is None:
            return PsciResult.INVALID_PARAMETERS
        if self.host.is_on(target):
            return PsciResult.ALREADY_ON
        self.host.cpu_on(target, entry, context_id)
        return PsciResult.SUCCESS

    def _find(self, affinity: int) -> int | None:
        """The vCPU with this affinity; None also for bits outside the affinity fields."""
        host = self.host
        return next(
            (v for v in host.vcpu_ids() if host.mpidr(v) & MPIDR_AFFINITY == affinity), None
        )

    def affinity_info(self, vcpu_id: int, args: Args) -> int:
        """AFFINITY_INFO: ON if any vCPU of the affinity instance is on; fields below ``level`` do
        not count."""
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
        """SYSTEM_RESET2: the architectural warm reset and vendor resets are the same event,
        flagged."""
        if args[0] != arch.RESET2_WARM and not args[0] & arch.RESET2_VENDOR:
            return PsciResult.INVALID_PARAMETERS
        self.host.system_event("reset", arch.SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2)
        return None

    def system_off2(self, vcpu_id: int, args: Args) -> int | None:
        """SYSTEM_OFF2: HIBERNATE_OFF, by its number or by 0; the cookie must be 0."""
        if args[0] not in (0, arch.OFF2_HIBERNATE) or args[1]:
            return PsciResult.INVALID_PARAMETERS
        self.host.system_event("shutdown", arch.SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2)
        return None

    def system_suspend(self, vcpu_id: int, args: Args) -> None:
        """SYSTEM_SUSPEND: KVM checks nothing; that the other CPUs are off, and the address, are the
        VMM's to check."""
        self.host.system_suspend(vcpu_id, args[0], args[1])

    def reset(self) -> None:
        """The version and what the VMM has enabled stay with the VM."""

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

#: Every function that is implemented. Ids without a row are NOT_SUPPORTED: MIGRATE, STAT_* and so
#: on.
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
