"""The registers of a vCPU's timers for guest and user space: trapped accesses, KVM_GET_ONE_REG and
KVM_SET_ONE_REG, and the attributes KVM_ARM_VCPU_TIMER_CTRL (arch/arm64/kvm/arch_timer.c).

Counts, CVALs and TVALs are ticks; CVALs and counts are modulo 2**64.
"""

from __future__ import annotations

from enum import IntEnum

from armvirt.arch import timer as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.timer import CTL_ENABLE, CTL_ISTATUS, CTL_WRITABLE
from armvirt.errors import KvmError
from armvirt.events import TimerWrite
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.timer.context import ArchTimerContext, TimerId


class TimerRegister(IntEnum):
    """KVM's selectors for the registers of one timer."""

    CNT = 0
    CVAL = 1
    TVAL = 2
    CTL = 3


#: Guest accesses that can trap (kvm/sys_regs.c): the timer and the timer register of each encoding.
TRAPPED: dict[int, tuple[TimerId, TimerRegister]] = {
    arch.CNTPCT_EL0: (TimerId.PTIMER, TimerRegister.CNT),
    arch.CNTPCTSS_EL0: (TimerId.PTIMER, TimerRegister.CNT),
    arch.CNTVCTSS_EL0: (TimerId.VTIMER, TimerRegister.CNT),
    arch.CNTP_TVAL_EL0: (TimerId.PTIMER, TimerRegister.TVAL),
    arch.CNTP_CTL_EL0: (TimerId.PTIMER, TimerRegister.CTL),
    arch.CNTP_CVAL_EL0: (TimerId.PTIMER, TimerRegister.CVAL),
    arch.CNTVCT_EL0: (TimerId.VTIMER, TimerRegister.CNT),
    arch.CNTV_TVAL_EL0: (TimerId.VTIMER, TimerRegister.TVAL),
    arch.CNTV_CTL_EL0: (TimerId.VTIMER, TimerRegister.CTL),
    arch.CNTV_CVAL_EL0: (TimerId.VTIMER, TimerRegister.CVAL),
}

#: ONE_REG registers by the encoding in their id. KVM's ids of the virtual timer's CVAL and CNT are
#: swapped against the architecture and frozen as ABI (Documentation/virt/kvm/api.rst); the ids of
#: the physical timer are not swapped.
ONE_REGS: dict[int, tuple[TimerId, TimerRegister]] = {
    arch.CNTV_CTL_EL0: (TimerId.VTIMER, TimerRegister.CTL),
    arch.CNTVCT_EL0: (TimerId.VTIMER, TimerRegister.CVAL),
    arch.CNTV_CVAL_EL0: (TimerId.VTIMER, TimerRegister.CNT),
    arch.CNTP_CTL_EL0: (TimerId.PTIMER, TimerRegister.CTL),
    arch.CNTP_CVAL_EL0: (TimerId.PTIMER, TimerRegister.CVAL),
    arch.CNTPCT_EL0: (TimerId.PTIMER, TimerRegister.CNT),
}

#: The attributes of KVM_ARM_VCPU_TIMER_CTRL, and the timer whose PPI each attribute sets
#: (uapi/asm/kvm.h).
TIMER_ATTRIBUTES = {0: TimerId.VTIMER, 1: TimerId.PTIMER, 2: TimerId.HVTIMER, 3: TimerId.HPTIMER}


# Registers of one timer -------------------------------------------------------------------------


def ctl_with_status(ctl: int, cval: int, now: int) -> int:
    """CTL as KVM computes it for a read: ISTATUS follows the timer condition also while ENABLE is 0
    (where the architecture says UNKNOWN)."""
    return ctl | (CTL_ISTATUS if cval <= now else 0)


def _read(timer: ArchTimer, context: ArchTimerContext, register: TimerRegister) -> int:
    ctl, cval = timer.ctl_cval(context)
    now = timer.now(context)
    if register is TimerRegister.CNT:
        return now
    if register is TimerRegister.CVAL:
        return cval
    return (
        arch.tval_of(cval, now)
        if register is TimerRegister.TVAL
        else ctl_with_status(ctl, cval, now)
    )


def _write(
    timer: ArchTimer, context: ArchTimerContext, register: TimerRegister, value: int
) -> None:
    ctl, cval = timer.ctl_cval(context)
    if register is TimerRegister.CTL:
        ctl = value & CTL_WRITABLE
    elif register is TimerRegister.CVAL:
        cval = value
    else:
        cval = arch.cval_from_tval(value, timer.now(context))
    timer.set_ctl_cval(context, ctl, cval)


# Guest ------------------------------------------------------------------------------------------


def trap(timer: ArchTimer, encoding: int, is_write: bool, value: int = 0) -> int:
    """A trapped guest access (kvm_arm_timer_{read,write}_sysreg); returns the value of a read, 0
    for a write.

    KeyError if the guest must get UNDEF: the encoding is not a timer register, or the access is a
    write of a counter.
    """
    timer_id, register = TRAPPED[encoding]
    context = timer.context(timer_id)
    if not is_write:
        found = _read(timer, context, register)
        disabled = register is TimerRegister.CTL and not found & CTL_ENABLE
        # ISTATUS is UNKNOWN while ENABLE is 0 (DDI 0487, CNTP_CTL_EL0): the guest reads the same
        # value as from a PE's timer that does not trap, so VHE and nVHE hosts do not differ. (KVM
        # returns the timer condition; `get_one_reg` does too.)
        return found & ~CTL_ISTATUS if disabled else found
    if register is TimerRegister.CNT:
        raise KeyError(encoding)
    if timer.bus.active:
        timer.bus.emit(TimerWrite(context.name, register.name.lower(), value & MASK64))
    _write(timer, context, register, value & MASK64)
    return 0


# User space -------------------------------------------------------------------------------------


def get_one_reg(timer: ArchTimer, encoding: int) -> int:
    """KVM_GET_ONE_REG of a timer register, by the encoding in the id (`ONE_REGS`). KeyError for an
    unknown encoding."""
    timer_id, register = ONE_REGS[encoding]
    return _read(timer, timer.context(timer_id), register)


def set_one_reg(timer: ArchTimer, encoding: int, value: int) -> None:
    """KVM_SET_ONE_REG of a timer register; CNT sets the counter for the whole VM. KeyError for an
    unknown encoding."""
    timer_id, register = ONE_REGS[encoding]
    if register is TimerRegister.CNT:
        timer.vm_data.set_count(timer_id, value & MASK64)
    else:
        _write(timer, timer.context(timer_id), register, value & MASK64)


def set_attr(timer: ArchTimer, attr: int, value: int | None, in_kernel: bool) -> None:
    """KVM_ARM_VCPU_TIMER_CTRL: set the PPI of a timer for all vCPUs. ``in_kernel``: the VM has a
    vGIC.

    EINVAL without a vGIC, EFAULT for None (no memory behind the pointer), EINVAL for an INTID that
    is not a PPI, EBUSY after the first run, ENXIO for an unknown attribute: checked in this order
    (kvm_arm_timer_set_attr).
    """
    if not in_kernel:
        raise KvmError("EINVAL", "the VM has no interrupt controller")
    if value is None:
        raise KvmError("EFAULT", "no value")
    timer.vm_data.check_ppi(value)
    timer.vm_data.check_changeable()
    timer.vm_data.set_ppi(_timer_of(attr), value)


def get_attr(timer: ArchTimer, attr: int) -> int:
    """The PPI of a timer. ENXIO for an unknown attribute."""
    return timer.vm_data.ppi[_timer_of(attr)]


def has_attr(attr: int) -> None:
    """KVM_HAS_DEVICE_ATTR: ENXIO for an unknown attribute."""
    _timer_of(attr)


def _timer_of(attr: int) -> TimerId:
    if attr not in TIMER_ATTRIBUTES:
        raise KvmError("ENXIO", f"no timer attribute {attr}")
    return TIMER_ATTRIBUTES[attr]
