"""KVM_GET/SET_ONE_REG: registers by their ids (uapi/asm/kvm.h; arch/arm64/kvm/guest.c, sys_regs.c).

An id is architecture (0x60), size (2**n bytes), kind (core, system, firmware) and number. Core numbers count 32-bit
words in ``struct kvm_regs``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from armvirt.arch.encoding import sysreg
from armvirt.arch.sysregs import CONTEXT_REGISTERS, ID_REGISTERS, is_id_space
from armvirt.errors import KvmError
from armvirt.hyp import idregs
from armvirt.hyp.arch_timer import ONE_REGS

if TYPE_CHECKING:
    from armvirt.hw.engine import Engine
    from armvirt.hyp.vcpu import Vcpu

U32, U64, U128 = 0x6020_0000_0000_0000, 0x6030_0000_0000_0000, 0x6040_0000_0000_0000
CORE, SYSTEM, FIRMWARE = 0x0010_0000, 0x0013_0000, 0x0014_0000
PSCI_VERSION = U64 | FIRMWARE
MPIDR_EL1, SPSR_EL1 = sysreg(3, 0, 0, 0, 5), sysreg(3, 0, 4, 0, 0)
WORD_SP, WORD_PC, WORD_PSTATE, WORD_SP_EL1, WORD_ELR_EL1, WORD_SPSR = 0x3E, 0x40, 0x42, 0x44, 0x46, 0x48
WORD_VREGS, WORD_FPSR, WORD_FPCR = 0x54, 0xD4, 0xD5
ELR_EL1 = sysreg(3, 0, 4, 0, 1)


class Access(NamedTuple):
    """How to read and write one register; writing None is EPERM."""

    get: Callable[[Vcpu], int]
    set: Callable[[Vcpu, int], None] | None


def _engine(get: Callable[[Engine], int], set_: Callable[[Engine, int], None]) -> Access:
    return Access(lambda vcpu: get(vcpu.context.engine), lambda vcpu, value: set_(vcpu.context.engine, value))


def _x(n: int) -> Access:
    return _engine(lambda engine: engine.x(n), lambda engine, value: engine.set_x(n, value))


def _q(n: int) -> Access:
    return _engine(lambda engine: engine.q(n), lambda engine, value: engine.set_q(n, value))


def _system(encoding: int) -> Access:
    return Access(
        lambda vcpu: vcpu.context.system(encoding), lambda vcpu, value: vcpu.context.set_system(encoding, value)
    )


def _timer(encoding: int) -> Access:
    return Access(
        lambda vcpu: vcpu.timer.get_one_reg(encoding), lambda vcpu, value: vcpu.timer.set_one_reg(encoding, value)
    )


def _id(encoding: int) -> Access:
    """What the guest reads; a write must not change it (EINVAL)."""

    def get(vcpu: Vcpu) -> int:
        if encoding == MPIDR_EL1:
            return vcpu.mpidr
        native = 0 if is_id_space(encoding) and encoding not in idregs.KNOWN else vcpu.context.system(encoding)
        return idregs.visible(encoding, native, vcpu.vm.has_gicv3, vcpu.host.cpu_features)

    def set_(vcpu: Vcpu, value: int) -> None:
        if value != get(vcpu):
            raise KvmError("EINVAL", "an ID register cannot be changed")

    return Access(get, set_)


def _set_pstate(engine: Engine, value: int) -> None:
    engine.pstate = value
    engine.rebuild_flags()


def _sp(name: str) -> Access:
    """SP_EL0 and SP_EL1: the one in use lives in SP."""
    in_use = 0 if name == "sp_el0" else 1

    def get(engine: Engine) -> int:
        return engine.sp if _selected(engine) == in_use else getattr(engine, name)

    def set_(engine: Engine, value: int) -> None:
        if _selected(engine) == in_use:
            engine.sp = value
        else:
            setattr(engine, name, value)

    return _engine(get, set_)


def _selected(engine: Engine) -> int:
    mode = engine.pstate & 0xF
    return 1 if mode & 1 else 0


def _core() -> dict[int, Access]:
    table = {U64 | CORE | 2 * n: _x(n) for n in range(31)}
    table[U64 | CORE | WORD_SP] = _sp("sp_el0")
    table[U64 | CORE | WORD_PC] = _engine(lambda e: e.pc, lambda e, v: setattr(e, "pc", v))
    table[U64 | CORE | WORD_PSTATE] = _engine(lambda e: e.pstate, _set_pstate)
    table[U64 | CORE | WORD_SP_EL1] = _sp("sp_el1")
    table[U64 | CORE | WORD_ELR_EL1] = _system(ELR_EL1)
    table[U64 | CORE | WORD_SPSR] = _system(SPSR_EL1)
    table.update({U128 | CORE | WORD_VREGS + 4 * n: _q(n) for n in range(32)})
    table[U32 | CORE | WORD_FPSR] = _engine(lambda e: e.fpsr, lambda e, v: setattr(e, "fpsr", v))
    table[U32 | CORE | WORD_FPCR] = _engine(lambda e: e.fpcr, lambda e, v: setattr(e, "fpcr", v))
    return table


def _set_psci_version(vcpu: Vcpu, value: int) -> None:
    try:
        vcpu.vm.smccc.psci.set_version(value)
    except ValueError as error:
        raise KvmError("EINVAL", str(error)) from error


@lru_cache(maxsize=1)
def table() -> dict[int, Access]:
    """Every id, in KVM_GET_REG_LIST's order: core, firmware, system registers."""
    rows = _core()
    rows[PSCI_VERSION] = Access(lambda vcpu: vcpu.vm.smccc.psci.version, _set_psci_version)
    elsewhere = {ELR_EL1, SPSR_EL1}
    rows.update({U64 | SYSTEM | row.encoding: _id(row.encoding) for row in ID_REGISTERS})
    contexts = (row.encoding for row in CONTEXT_REGISTERS if row.encoding not in elsewhere)
    rows.update({U64 | SYSTEM | encoding: _system(encoding) for encoding in contexts})
    rows.update({U64 | SYSTEM | encoding: _timer(encoding) for encoding in ONE_REGS})
    return rows


def ids() -> list[int]:
    return list(table())


def _find(register: int) -> Access:
    access = table().get(register)
    if access is None:
        raise KvmError("ENOENT", f"there is no register {register:#x}")
    return access


def get(vcpu: Vcpu, register: int) -> int:
    """The value of a register by id."""
    return _find(register).get(vcpu)


def set(vcpu: Vcpu, register: int, value: int) -> None:
    """Write a register by id; ``value`` must fit its size."""
    access = _find(register)
    bits = 8 << (register >> 52 & 15)
    if not 0 <= value < 1 << bits:
        raise KvmError("EINVAL", f"register {register:#x} has {bits} bits")
    if access.set is None:
        raise KvmError("EPERM", f"register {register:#x} cannot be written")
    access.set(vcpu, value)
