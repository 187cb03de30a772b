"""Accesses to the registers of a vCPU's timers: the accesses of the guest that trap, and the
accesses of user space by KVM_GET_ONE_REG, KVM_SET_ONE_REG and KVM_ARM_VCPU_TIMER_CTRL
(arch/arm64/kvm/arch_timer.c).

Counts, CVALs and TVALs are ticks; counts and CVALs are modulo 2**64.
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

#: The timer register for each encoding in the register id of KVM_GET_ONE_REG. KVM's id of the
#: virtual CVAL has the encoding of CNTVCT_EL0, and KVM's id of the virtual CNT has the encoding of
#: CNTV_CVAL_EL0. These ids are ABI (Documentation/virt/kvm/api.rst). The ids of the physical timer
#: have the correct encodings.
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
    """Return the value that KVM returns for a read of CTL: ``ctl`` with ISTATUS. ISTATUS is 1 while
    the timer condition is met, even if ENABLE is 0. (In the architecture, ISTATUS is UNKNOWN while
    ENABLE is 0.)"""
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
    """Handle a trapped access of the guest to a timer register (kvm_arm_timer_{read,write}_sysreg).
    Return the value of a read, or 0 for a write.

    KeyError if the access is UNDEFINED for the guest: the encoding is not a timer register, or the
    guest writes a counter.
    """
    timer_id, register = TRAPPED[encoding]
    context = timer.context(timer_id)
    if not is_write:
        found = _read(timer, context, register)
        disabled = register is TimerRegister.CTL and not found & CTL_ENABLE
        # ISTATUS is UNKNOWN while ENABLE is 0 (DDI 0487, CNTP_CTL_EL0). Here ISTATUS is 0, as in a
        # PE's timer that does not trap, so the guest reads the same value on VHE and nVHE hosts.
        # (KVM returns the timer condition, and so does `get_one_reg`.)
        return found & ~CTL_ISTATUS if disabled else found
    if register is TimerRegister.CNT:
        raise KeyError(encoding)
    if timer.bus.active:
        timer.bus.emit(TimerWrite(context.name, register.name.lower(), value & MASK64))
    _write(timer, context, register, value & MASK64)
    return 0


# User space -------------------------------------------------------------------------------------


def get_one_reg(timer: ArchTimer, encoding: int) -> int:
    """Read a timer register for KVM_GET_ONE_REG. ``encoding`` is the encoding in the register id;
    KeyError if the encoding is not in `ONE_REGS`."""
    timer_id, register = ONE_REGS[encoding]
    return _read(timer, timer.context(timer_id), register)


def set_one_reg(timer: ArchTimer, encoding: int, value: int) -> None:
    """Write a timer register for KVM_SET_ONE_REG. A write of CNT sets the counter of all vCPUs of
    the VM. ``encoding`` is the encoding in the register id; KeyError if the encoding is not in
    `ONE_REGS`."""
    timer_id, register = ONE_REGS[encoding]
    if register is TimerRegister.CNT:
        timer.vm_data.set_count(timer_id, value & MASK64)
    else:
        _write(timer, timer.context(timer_id), register, value & MASK64)


def set_attr(timer: ArchTimer, attr: int, value: int | None, in_kernel: bool) -> None:
    """Set the PPI of a timer for all vCPUs (KVM_ARM_VCPU_TIMER_CTRL). ``in_kernel`` is True if the
    VM has a vGIC. ``value`` is None if the address that user space passed cannot be read.

    KvmError in this order (kvm_arm_timer_set_attr): EINVAL without a vGIC, EFAULT if ``value`` is
    None, EINVAL for an INTID that is not a PPI, EBUSY after the first run, ENXIO for an unknown
    attribute.
    """
    if not in_kernel:
        raise KvmError("EINVAL", "the VM has no interrupt controller")
    if value is None:
        raise KvmError("EFAULT", "no value")
    timer.vm_data.check_ppi(value)
    timer.vm_data.check_changeable()
    timer.vm_data.set_ppi(_timer_of(attr), value)


def get_attr(timer: ArchTimer, attr: int) -> int:
    """The PPI of a timer (KVM_ARM_VCPU_TIMER_CTRL). KvmError ENXIO for an unknown attribute."""
    return timer.vm_data.ppi[_timer_of(attr)]


def has_attr(attr: int) -> None:
    """Check that an attribute exists (KVM_HAS_DEVICE_ATTR). ``attr`` is the attribute number.
    KvmError ENXIO for an unknown attribute."""
    _timer_of(attr)


def _timer_of(attr: int) -> TimerId:
    if attr not in TIMER_ATTRIBUTES:
        raise KvmError("ENXIO", f"no timer attribute {attr}")
    return TIMER_ATTRIBUTES[attr]
