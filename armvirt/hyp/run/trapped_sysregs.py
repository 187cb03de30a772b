"""The handlers of the trapped system registers (ESR_EL2.EC 0x18), in a table whose key is the
encoding of the register (arch/arm64/kvm/sys_regs.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.arch.esr import decode_sysreg, undefined
from armvirt.arch.gic import ICC_ASGI1R_EL1, ICC_DIR_EL1, ICC_SGI0R_EL1, ICC_SGI1R_EL1
from armvirt.arch.sysregs import is_id_space
from armvirt.hw.exit import Action, SyncExit
from armvirt.hyp.timer import registers as timer_registers
from armvirt.hyp.vcpu import idregs
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.vcpu import Vcpu
    from armvirt.hyp.vgic.vgic import Vgic


class Trap(NamedTuple):
    """A trapped access: the encoding of the register, the direction, and the value of a write."""

    encoding: int
    is_write: bool
    value: int


Handler = Callable[["Vcpu", Trap], int | None]
"""A function that handles a trapped access. The function returns the value of a read, 0 for a
write, or None if the access is UNDEFINED."""


def _timer(vcpu: Vcpu, trap: Trap) -> int | None:
    try:
        return timer_registers.trap(vcpu.timer, trap.encoding, trap.is_write, trap.value)
    except KeyError:
        return None


def _sgi(vcpu: Vcpu, trap: Trap) -> int | None:
    if not trap.is_write:
        return None
    vgic, value = vcpu.vm.vgic_of(), trap.value
    vgic.sgi(vcpu.id, trap.encoding, value)
    if trap.encoding == ICC_SGI1R_EL1:
        vgic.refresh(vcpu.id)
        if vcpu.pe is not None and vgic.offers_only_own_sgi(vcpu.id, value):
            vcpu.pe.repeat_sgi(value, lambda times: _sgi_again(vgic, vcpu.id, value))
    return 0


def _sgi_again(vgic: Vgic, vcpu_id: int, value: int) -> None:
    """Update the state of the vGIC after the engine has delivered SGIs without an entry to EL2
    (`armvirt.hw.pe.Pe.repeat_sgi`). Each of these SGIs is from a vCPU to itself. ``value`` is the
    value that the vCPU wrote to ICC_SGI1R_EL1."""
    vgic.sync(vcpu_id)
    vgic.sgi(vcpu_id, ICC_SGI1R_EL1, value)
    vgic.flush(vcpu_id)


def _deactivate(vcpu: Vcpu, trap: Trap) -> int | None:
    """Handle a write of ICC_DIR_EL1, which ICH_HCR_EL2.TDIR traps: deactivate an interrupt that is
    in no list register of this vCPU."""
    if not trap.is_write:
        return None
    vcpu.vm.vgic_of().dir(vcpu.id, trap.value)
    return 0


TABLE: dict[int, Handler] = {
    **dict.fromkeys(timer_registers.TRAPPED, _timer),
    ICC_DIR_EL1: _deactivate,
    **dict.fromkeys((ICC_SGI1R_EL1, ICC_ASGI1R_EL1, ICC_SGI0R_EL1), _sgi),
}


def _id_register(vcpu: Vcpu, trap: Trap) -> int | None:
    if trap.is_write:
        return None
    native = vcpu.context.system(trap.encoding) if trap.encoding in idregs.KNOWN else 0
    return idregs.visible(trap.encoding, native, vcpu.vm.has_gicv3, vcpu.host.config.cpu_features)


def handle(vcpu: Vcpu, exit: SyncExit) -> int:
    """Handle an access to a trapped system register (kvm_handle_sys_reg). A register without a
    handler is UNDEFINED. Examples are the registers of the PMU, and the registers of other features
    that the ID registers report as absent."""
    fields = decode_sysreg(exit.esr)
    trap = Trap(fields.encoding, not fields.is_read, exit.rt_value)
    handler = TABLE.get(trap.encoding) or (_id_register if is_id_space(trap.encoding) else None)
    value = handler(vcpu, trap) if handler is not None else None
    if value is None:
        return vcpu.context.inject(undefined())
    return Action.ADVANCE if trap.is_write else vcpu.context.answer(value)
