"""The ioctls KVM_{GET,SET}_VCPU_EVENTS (SErrors and external aborts) and KVM_SET_GUEST_DEBUG
(single steps and breakpoints). Also the state of a vCPU that a migration transfers in addition to
the registers (arch/arm64/kvm/guest.c, inject_fault.c, debug.c)."""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING

from armvirt.arch import esr as syndrome
from armvirt.arch.esr import DFSC, EC
from armvirt.arch.pstate import PSTATE_A, PSTATE_EL, Vector
from armvirt.errors import KvmError
from armvirt.hyp.vcpu.exit_types import MmioExit
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.hw.context import Context
    from armvirt.hyp.vcpu.protocols import VcpuCore

#: The syndrome of a virtual SError. The VMM cannot set another syndrome, because the CPU has no RAS
#: extension; the ISS is IMPLEMENTATION DEFINED.
SERROR_ESR = syndrome.build(EC.SERROR)


#: The syndrome of a single step of an instruction at EL1 or EL0: ISV set, EX clear, IFSC "debug
#: exception".
STEP_HSR = syndrome.build(EC.STEP_LOWER, syndrome.STEP_ISV | syndrome.IFSC_DEBUG)


class GuestDebug(IntFlag):
    """The bits of the control word of KVM_SET_GUEST_DEBUG (KVM_GUESTDBG_*)."""

    NONE = 0
    ENABLE = 1 << 0
    SINGLESTEP = 1 << 1
    USE_SW_BP = 1 << 16
    USE_HW = 1 << 17

    @classmethod
    def checked(cls, control: int) -> GuestDebug:
        """Check a control word and return it. Without the bit ENABLE, return NONE. Raise KvmError
        EINVAL for an unknown bit. USE_HW is also EINVAL, because armvirt has no hardware
        breakpoints and watchpoints for the VMM."""
        if control & ~int(cls.ENABLE | cls.SINGLESTEP | cls.USE_SW_BP):
            raise KvmError(
                "EINVAL", f"guest debug {control:#x}: there are ENABLE, SINGLESTEP and USE_SW_BP"
            )
        return cls(control) if control & cls.ENABLE else cls.NONE


class InFlight(NamedTuple):
    """The state of a vCPU that a migration needs, but that no ioctl of KVM saves. armvirt saves and
    restores this state. With KVM the state is lost: on the destination host, a WFI completes at
    once, and a store-exclusive fails. The architecture allows both results.

    ``asleep`` is true if the vCPU is in WFI or WFIT. ``wfit`` is the virtual count at which WFIT
    ends; None for WFI. With these two values, the vCPU wakes up after the migration at the same
    virtual time as without the migration. The MP state SUSPENDED cannot replace ``asleep``. A SUSPENDED vCPU wakes
    up only for an interrupt that can be delivered, but a timer ends WFI even if the timer's
    interrupt is masked. ``monitor`` is the local exclusive monitor, see `Context.exclusive`.

    ``event`` is the value of the event register. ``event_age`` is the virtual time in ns since a
    WFE last cleared the event register. ``waits`` is true if the vCPU is in WFE or WFET. ``wfet``
    is the virtual count at which WFET ends; None for WFE.
    """

    asleep: bool
    wfit: int | None
    monitor: tuple[int, int, int]
    event: bool = True
    event_age: int = 0
    waits: bool = False
    wfet: int | None = None


class VcpuEvents(NamedTuple):
    """The data of KVM_{GET,SET}_VCPU_EVENTS (struct kvm_vcpu_events): an SError and an external
    data abort. ``serror_has_esr`` and ``serror_esr`` are a syndrome of the SError. A syndrome needs
    the RAS extension, which this CPU does not have. KVM_GET_VCPU_EVENTS always returns False as
    ``ext_dabt_pending``."""

    serror_pending: bool = False
    serror_has_esr: bool = False
    ext_dabt_pending: bool = False
    serror_esr: int = 0


def set_events(vcpu: VcpuCore, events: VcpuEvents) -> None:
    """Do what ``events`` requests: make an SError pending, inject an external abort for the access
    of the last exit, or both. KvmError EINVAL in the cases that `Vcpu.set_vcpu_events` lists."""
    exit = vcpu.vmm.abortable
    if events.serror_pending and events.serror_has_esr:
        raise KvmError("EINVAL", "without the RAS extension an SError has no syndrome of the VMM's")
    if events.ext_dabt_pending and exit is None:
        raise KvmError("EINVAL", "an external abort answers an MMIO or NISV exit")
    if events.serror_pending:
        vcpu.traps.serror_pending = True
        vcpu.wake()
    if not events.ext_dabt_pending:
        return
    vcpu.vmm.abortable = None
    if isinstance(exit, MmioExit):
        exit.abort = True
    else:
        take_data_abort(vcpu.context, vcpu.fault_address)


def can_take_serror(context: Context) -> bool:
    """Whether PSTATE.A is 0, so that the guest takes a pending virtual SError. No other bit masks a
    virtual SError (DDI 0487 D1.3.5)."""
    return not context.pstate & PSTATE_A


def take_serror(context: Context) -> None:
    """Take the exception for a virtual SError."""
    context.take_exception(Vector.SERROR, SERROR_ESR)


def take_data_abort(context: Context, address: int) -> None:
    """Take the data abort exception of a synchronous external abort (kvm_inject_sea). ``address``
    is the value of FAR_EL1. WnR in the syndrome is 0, as in KVM."""
    same_el = context.pstate & PSTATE_EL != 0
    abort = syndrome.data_abort(DFSC.EXTERNAL, False, same_el)
    context.take_exception(Vector.SYNC, abort, address)
