"""KVM_GET/SET_ONE_REG: registers by their ids (uapi/asm/kvm.h; arch/arm64/kvm/guest.c, sys_regs.c).

The fields of an id are architecture (0x60), size (2**n bytes), kind (core, system, firmware) and
number. The number of a core register is its offset in ``struct kvm_regs`` in 32-bit words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from armvirt.arch.named import (
    CCSIDR_EL1,
    CLIDR_CTYPE,
    CLIDR_CTYPE_BITS,
    CLIDR_EL1,
    CLIDR_LEVELS,
    CSSELR_EL1,
    CSSELR_IND,
    CSSELR_LEVEL_SHIFT,
    CTYPES_WITH_CODE,
    CTYPES_WITH_DATA,
    DCZID_EL0,
    ELR_EL1,
    MPIDR_EL1,
    OSDLR_EL1,
    SPSR_EL1,
)
from armvirt.arch.pstate import PSTATE_MODE, PSTATE_NRW, Mode
from armvirt.arch.sysregs import CONTEXT_REGISTERS, ID_REGISTERS, is_id_space
from armvirt.errors import KvmError
from armvirt.hyp.firmware.smccc_services import Bitmap
from armvirt.hyp.timer import registers as timer_registers
from armvirt.hyp.vcpu import idregs
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.hw.context import Context
    from armvirt.hyp.vcpu.protocols import VcpuCore

U32, U64, U128 = 0x6020_0000_0000_0000, 0x6030_0000_0000_0000, 0x6040_0000_0000_0000
CORE, SYSTEM, FIRMWARE = 0x0010_0000, 0x0013_0000, 0x0014_0000
FIRMWARE_BITMAP, DEMUX_CCSIDR = 0x0016_0000, 0x0011_0000
#: The values of KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_n by n. Each value is NOT_REQUIRED, because an
#: emulator does not speculate.
WORKAROUNDS = {1: 2, 2: 3, 3: 2}
PSCI_VERSION = U64 | FIRMWARE
WORD_SP, WORD_PC, WORD_PSTATE, WORD_SP_EL1, WORD_ELR_EL1, WORD_SPSR = (
    0x3E,
    0x40,
    0x42,
    0x44,
    0x46,
    0x48,
)
WORD_VREGS, WORD_FPSR, WORD_FPCR = 0x54, 0xD4, 0xD5
#: Registers of a guest that KVM_GET_REG_LIST does not list, because KVM has no value to save
#: (sys_reg_descs): OSDLR_EL1 is RAZ/WI, each cache of CCSIDR_EL1 has an id of the kind DEMUX, and
#: DCZID_EL0 has the CPU's value.
NOT_LISTED = frozenset({OSDLR_EL1, CCSIDR_EL1, DCZID_EL0})


class Access(NamedTuple):
    """The functions that read and write one register. If ``set`` is None, a write raises KvmError
    EPERM."""

    get: Callable[[VcpuCore], int]
    set: Callable[[VcpuCore, int], None] | None


def _core_register(get: Callable[[Context], int], set_: Callable[[Context, int], None]) -> Access:
    return Access(lambda vcpu: get(vcpu.context), lambda vcpu, value: set_(vcpu.context, value))


def _x(n: int) -> Access:
    return _core_register(lambda cpu: cpu.x(n), lambda cpu, value: cpu.set_x(n, value))


def _q(n: int) -> Access:
    return _core_register(lambda cpu: cpu.q(n), lambda cpu, value: cpu.set_q(n, value))


def _named(name: str) -> Access:
    """Return the `Access` of a core register. ``name`` is the attribute of `Context` that has the
    register."""
    return _core_register(
        lambda cpu: int(getattr(cpu, name)), lambda cpu, value: setattr(cpu, name, value)
    )


def _system(encoding: int) -> Access:
    return Access(
        lambda vcpu: vcpu.context.system(encoding),
        lambda vcpu, value: vcpu.context.set_system(encoding, value),
    )


def _timer(encoding: int) -> Access:
    return Access(
        lambda vcpu: timer_registers.get_one_reg(vcpu.timer, encoding),
        lambda vcpu, value: timer_registers.set_one_reg(vcpu.timer, encoding, value),
    )


def _id(encoding: int) -> Access:
    """Return the `Access` of an ID register. A read returns the value that the guest reads. A write
    of another value raises KvmError EINVAL."""

    def get(vcpu: VcpuCore) -> int:
        if encoding == MPIDR_EL1:
            return vcpu.mpidr
        native = (
            0
            if is_id_space(encoding) and encoding not in idregs.KNOWN
            else vcpu.context.system(encoding)
        )
        return idregs.visible(encoding, native, vcpu.vm.has_gicv3, vcpu.host.config.cpu_features)

    def set_(vcpu: VcpuCore, value: int) -> None:
        if value != get(vcpu):
            raise KvmError("EINVAL", "an ID register cannot be changed")

    return Access(get, set_)


#: PSTATE.M of a guest: EL0t, EL1t, EL1h. The guest has no EL2 and no AArch32 (M[4]).
GUEST_MODES = frozenset({int(Mode.EL0T), int(Mode.EL1T), int(Mode.EL1H)})


def _set_pstate(context: Context, value: int) -> None:
    """Write PSTATE; KvmError EINVAL for a mode that is not in `GUEST_MODES` (set_core_reg)."""
    if value & (PSTATE_NRW | PSTATE_MODE) not in GUEST_MODES:
        raise KvmError("EINVAL", f"PSTATE {value:#x}: the modes of a guest are EL0t, EL1t and EL1h")
    context.pstate = value


def _stack(el: int) -> Access:
    """Return the `Access` of SP_EL0 if ``el`` is 0, or of SP_EL1 if ``el`` is 1."""
    return _core_register(lambda cpu: cpu.stack(el), lambda cpu, value: cpu.set_stack(el, value))


def _spsr32(n: int) -> Access:
    """Return the `Access` of SPSR_abt, SPSR_und, SPSR_irq or SPSR_fiq (``n`` is 0 to 3). Only the
    VMM can access these registers, because the guest has no AArch32."""

    def set_(vcpu: VcpuCore, value: int) -> None:
        vcpu.registers.spsr32[n] = value

    return Access(lambda vcpu: vcpu.registers.spsr32[n], set_)


def _core() -> dict[int, Access]:
    table = {U64 | CORE | 2 * n: _x(n) for n in range(31)}
    table[U64 | CORE | WORD_SP] = _stack(0)
    table[U64 | CORE | WORD_PC] = _named("pc")
    table[U64 | CORE | WORD_PSTATE] = _core_register(lambda cpu: cpu.pstate, _set_pstate)
    table[U64 | CORE | WORD_SP_EL1] = _stack(1)
    table[U64 | CORE | WORD_ELR_EL1] = _system(ELR_EL1)
    table[U64 | CORE | WORD_SPSR] = _system(SPSR_EL1)
    table.update({U64 | CORE | WORD_SPSR + 2 * n: _spsr32(n - 1) for n in range(1, 5)})
    table.update({U128 | CORE | WORD_VREGS + 4 * n: _q(n) for n in range(32)})
    table[U32 | CORE | WORD_FPSR] = _named("fpsr")
    table[U32 | CORE | WORD_FPCR] = _named("fpcr")
    return table


def _set_psci_version(vcpu: VcpuCore, value: int) -> None:
    try:
        vcpu.vm.smccc.psci.set_version(value)
    except ValueError as error:
        raise KvmError("EINVAL", str(error)) from error


def _workaround(number: int) -> Access:
    """Return the `Access` of KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_n, where n is ``number``. The value
    is the level of protection. A write of the present level or a lower level has no effect. A write
    of a higher level raises KvmError EINVAL."""
    level = WORKAROUNDS[number]

    def set_(vcpu: VcpuCore, value: int) -> None:
        if value > level:
            raise KvmError(
                "EINVAL", f"WORKAROUND_{number}: {value:#x} is more than this CPU's {level}"
            )

    return Access(lambda vcpu: level, set_)


def _bitmap(bitmap: Bitmap) -> Access:
    return Access(
        lambda vcpu: vcpu.vm.smccc.services.get(bitmap),
        lambda vcpu, value: vcpu.vm.smccc.services.set(bitmap, value, vcpu.vm.has_run),
    )


def _cache(level: int) -> Access:
    """Return the `Access` of KVM_REG_ARM_DEMUX_ID_CCSIDR for one cache: the value of CCSIDR_EL1
    while CSSELR_EL1 is ``level``. A write of another value raises KvmError EINVAL."""

    def get(vcpu: VcpuCore) -> int:
        context = vcpu.context
        before = context.system(CSSELR_EL1)
        context.set_system(CSSELR_EL1, level)
        value = context.system(CCSIDR_EL1) & 0xFFFF_FFFF
        context.set_system(CSSELR_EL1, before)
        return value

    def set_(vcpu: VcpuCore, value: int) -> None:
        if value != get(vcpu):
            raise KvmError("EINVAL", "the geometry of a cache cannot be changed")

    return Access(get, set_)


def caches(clidr: int) -> list[int]:
    """Return the values of CSSELR_EL1 that select a cache, one value for each cache that CLIDR_EL1
    reports. ``clidr`` is the value of CLIDR_EL1."""
    found = []
    for level in range(CLIDR_LEVELS):
        kind = clidr >> CLIDR_CTYPE_BITS * level & CLIDR_CTYPE
        found += [level << CSSELR_LEVEL_SHIFT] if kind in CTYPES_WITH_DATA else []
        found += [level << CSSELR_LEVEL_SHIFT | CSSELR_IND] if kind in CTYPES_WITH_CODE else []
    return found


@lru_cache(maxsize=1)
def table() -> dict[int, Access]:
    """Return a dict from the id of a register to its `Access`. The dict has the registers that all
    vCPUs have, in the order of KVM_GET_REG_LIST: core, firmware, system."""
    rows = _core()
    rows[PSCI_VERSION] = Access(lambda vcpu: vcpu.vm.smccc.psci.version, _set_psci_version)
    rows.update({U64 | FIRMWARE | n: _workaround(n) for n in WORKAROUNDS})
    rows.update({U64 | FIRMWARE_BITMAP | bitmap: _bitmap(bitmap) for bitmap in Bitmap})
    elsewhere = {ELR_EL1, SPSR_EL1, *NOT_LISTED}
    ids = (row.encoding for row in ID_REGISTERS if row.encoding not in NOT_LISTED)
    rows.update({U64 | SYSTEM | encoding: _id(encoding) for encoding in ids})
    contexts = (row.encoding for row in CONTEXT_REGISTERS if row.encoding not in elsewhere)
    rows.update({U64 | SYSTEM | encoding: _system(encoding) for encoding in contexts})
    rows.update(
        {U64 | SYSTEM | encoding: _timer(encoding) for encoding in timer_registers.ONE_REGS}
    )
    return rows


def _demux(vcpu: VcpuCore) -> dict[int, Access]:
    return {
        U32 | DEMUX_CCSIDR | level: _cache(level)
        for level in caches(vcpu.context.system(CLIDR_EL1))
    }


def ids(vcpu: VcpuCore) -> list[int]:
    """The ids of all registers of a vCPU. As in KVM, the ids of the cache registers are last."""
    return [*table(), *_demux(vcpu)]


def _find(vcpu: VcpuCore, register: int) -> Access:
    access = table().get(register) or _demux(vcpu).get(register)
    if access is None:
        raise KvmError("ENOENT", f"there is no register {register:#x}")
    return access


def get(vcpu: VcpuCore, register: int) -> int:
    """Read a register. ``register`` is its id. KvmError ENOENT for an unknown id."""
    return _find(vcpu, register).get(vcpu)


def set(vcpu: VcpuCore, register: int, value: int) -> None:
    """Write a register. ``register`` is its id. KvmError ENOENT for an unknown id, EINVAL for a
    value that does not fit into the register's size, EPERM for a read-only register. The function
    that writes the register can raise other errors."""
    access = _find(vcpu, register)
    bits = 8 << (register >> 52 & 15)
    if not 0 <= value < 1 << bits:
        raise KvmError("EINVAL", f"register {register:#x} has {bits} bits")
    if access.set is None:
        raise KvmError("EPERM", f"register {register:#x} cannot be written")
    access.set(vcpu, value)
