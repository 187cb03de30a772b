"""The exit handlers, in a table by the value of ESR_EL2.EC. A value that is not in the table has
the default handler `unknown` (arch/arm64/kvm/handle_exit.c).

A handler gets the vCPU and the exit, and returns the `Action` that the PE takes next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.arch.esr import EC, WfxKind, decode_wfx, immediate, undefined
from armvirt.hw.exit import Action, SyncExit
from armvirt.hyp.run import abort
from armvirt.hyp.run import trapped_sysregs as sysregs
from armvirt.hyp.vcpu.exit_types import HYPERCALL_SMC, DebugExit, HypercallExit, SemihostingExit

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.vcpu import Vcpu

Handler = Callable[["Vcpu", SyncExit], int]


def unknown(vcpu: Vcpu, exit: SyncExit) -> int:
    """Inject an UNDEFINED exception for an exception class that is not in `HANDLERS`
    (kvm_handle_unknown_ec)."""
    return vcpu.context.inject(undefined())


def halt(vcpu: Vcpu, exit: SyncExit) -> int:
    """Handle the exception class 0 (unknown reason). HLT #0xF000 is a semihosting call if the VM
    has semihosting; every other instruction is UNDEFINED."""
    if not (exit.insn and vcpu.vm.semihosting):
        if exit.insn and vcpu.pe is not None:
            vcpu.pe.lacking.setdefault("semihosting", exit.pc)
        return unknown(vcpu, exit)
    context = vcpu.context
    call = SemihostingExit(context.x(0) & 0xFFFFFFFF, context.x(1))
    stop = vcpu.vmm.tell(call)
    if call.retry_at is not None:
        vcpu.outcome.sleep(call.retry_at)
        return Action.STOP
    context.set_x(0, call.result)
    return Action.ADVANCE | stop


def wfx(vcpu: Vcpu, exit: SyncExit) -> int:
    """Handle WFI, WFIT and WFET (kvm_handle_wfx). This function is not called for WFE, which the
    engine handles.

    WFI blocks the vCPU until an interrupt can be delivered. WFIT and WFET also end when the virtual
    count reaches the value of their register operand.
    """
    trap = decode_wfx(exit.esr)
    until = vcpu.context.x(trap.register) if trap.register >= 0 else None
    if until is not None and vcpu.timer.virtual_count() >= until:
        return Action.ADVANCE
    if trap.kind in (WfxKind.WFI, WfxKind.WFIT) and not vcpu.runnable_interrupt():
        vcpu.wait(until)
        return Action.ADVANCE | Action.STOP
    return vcpu.wait_for_event(until) if trap.kind is WfxKind.WFET else Action.ADVANCE


def hypercall(vcpu: Vcpu, exit: SyncExit) -> int:
    """Handle HVC. HVC #0 is an SMCCC call, and HVC with another immediate is UNDEFINED. The PC is
    at the instruction after the HVC."""
    if immediate(exit.esr):
        return vcpu.context.inject(undefined())
    smccc, context = vcpu.vm.smccc, vcpu.context
    function, x1, x2, x3 = context.call_arguments()
    if smccc.forwards(function):
        vcpu.outcome.exit = HypercallExit(function & 0xFFFF_FFFF)
        return Action.STOP
    result = smccc.call(vcpu.id, function, (x1, x2, x3))
    return Action.RETRY if result is None else context.answer_call(result)


def secure_call(vcpu: Vcpu, exit: SyncExit) -> int:
    """Handle SMC. If the SMCCC filter forwards the call, exit to the VMM. Otherwise SMC is
    UNDEFINED, because the guest has no EL3 and uses HVC for SMCCC.

    The PC of a trapped SMC is at the SMC. Therefore the handler advances the PC.
    """
    function = vcpu.context.call_arguments()[0]
    if immediate(exit.esr) or not vcpu.vm.smccc.forwards(function):
        return unknown(vcpu, exit)
    vcpu.outcome.exit = HypercallExit(function & 0xFFFF_FFFF, HYPERCALL_SMC)
    return Action.ADVANCE | Action.STOP


def breakpoint_instruction(vcpu: Vcpu, exit: SyncExit) -> int:
    """Handle BRK, which traps while the VMM debugs the guest: exit to the VMM
    (kvm_handle_guest_debug). The PC stays at the BRK."""
    vcpu.outcome.exit = DebugExit(exit.esr)
    return Action.STOP


#: The handlers by ESR_EL2.EC; `unknown` handles every other class.
HANDLERS: dict[int, Handler] = {
    EC.UNKNOWN: halt,
    EC.WFX: wfx,
    EC.HVC64: hypercall,
    EC.SMC64: secure_call,
    EC.SYSREG: sysregs.handle,
    EC.IABT_LOWER: abort.instruction,
    EC.DABT_LOWER: abort.data,
    EC.BRK64: breakpoint_instruction,
}
