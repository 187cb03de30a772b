"""KVM_SET_GUEST_DEBUG: a VMM that debugs its guest (arch/arm64/kvm/debug.c)."""

from __future__ import annotations

from enum import IntFlag

from armvirt.arch import esr as syndrome
from armvirt.arch.esr import EC
from armvirt.errors import KvmError

#: The syndrome of a step that an instruction of EL1 or EL0 has made: ISV, EX clear, IFSC "debug
#: exception".
STEP_HSR = syndrome.build(EC.STEP_LOWER, 1 << 24 | 0x22)


class GuestDebug(IntFlag):
    """KVM_GUESTDBG_*: the control word."""

    NONE = 0
    ENABLE = 1 << 0
    SINGLESTEP = 1 << 1
    USE_SW_BP = 1 << 16
    USE_HW = 1 << 17

    @classmethod
    def checked(cls, control: int) -> GuestDebug:
        """The control word, NONE without ENABLE. KvmError EINVAL for an unknown bit, and for
        hardware breakpoints and watchpoints: `Cap.GUEST_DEBUG_HW_BPS` and `_WPS` are 0."""
        if control & ~int(cls.ENABLE | cls.SINGLESTEP | cls.USE_SW_BP):
            raise KvmError(
                "EINVAL", f"guest debug {control:#x}: there are ENABLE, SINGLESTEP and USE_SW_BP"
            )
        return cls(control) if control & cls.ENABLE else cls.NONE
