"""Stage-2 aborts: map a page, or emulate an MMIO access (arch/arm64/kvm/mmu.c, mmio.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch import esr as syndrome
from armvirt.arch.bits import MASK64
from armvirt.arch.esr import DFSC, ISV, SAS_MASK, SAS_SHIFT, SF, SSE, WNR
from armvirt.arch.pstate import exception_level
from armvirt.events import Mmio
from armvirt.hw.exit import Action, SyncExit
from armvirt.hyp.memory.mmu import FaultOutcome
from armvirt.hyp.vcpu.exit_types import MmioExit, NisvExit

if TYPE_CHECKING:
    from armvirt.arch.load_store import Access, Element
    from armvirt.hyp.vcpu.vcpu import Vcpu


def inject_data_abort(vcpu: Vcpu, exit: SyncExit, dfsc: int) -> int:
    same_el = exception_level(vcpu.context.pstate) == 1
    return vcpu.context.inject(syndrome.data_abort(dfsc, bool(exit.esr & WNR), same_el), exit.far)


def instruction(vcpu: Vcpu, exit: SyncExit) -> int:
    """Handle an instruction abort: map the page, or inject an external abort if the IPA is outside
    of the memory slots."""
    outcome = vcpu.vm.mmu.abort(exit.esr, exit.ipa, True)
    if outcome is FaultOutcome.MAPPED:
        return Action.RETRY
    same_el = exception_level(vcpu.context.pstate) == 1
    return vcpu.context.inject(syndrome.instruction_abort(DFSC.EXTERNAL, same_el), exit.far)


def data(vcpu: Vcpu, exit: SyncExit) -> int:
    """Handle a data abort of a load, a store, cache maintenance or a stage-1 walk."""
    esr, ipa = exit.esr, exit.ipa
    outcome = vcpu.vm.mmu.abort(esr, ipa, False)
    if outcome is FaultOutcome.MMIO:
        if esr & ISV:
            return by_syndrome(vcpu, exit, ipa)
        if vcpu.vm.returns_nisv:
            vcpu.fault_address = exit.far
            vcpu.outcome.exit = NisvExit(exit.iss, ipa)
            return Action.STOP
        return by_instruction(vcpu, exit)
    if outcome is FaultOutcome.MAPPED:
        return Action.RETRY
    if outcome is FaultOutcome.SKIP:
        return Action.ADVANCE
    return inject_data_abort(vcpu, exit, DFSC.EXTERNAL_ON_WALK)


def access(vcpu: Vcpu, mmio: MmioExit) -> MmioExit:
    """Complete one device access. If the address is in a GIC frame, the vGIC completes the access.
    Otherwise, if an ioeventfd matches a store, the ioeventfd is signalled. Otherwise the VMM
    completes the access, and sets ``abort`` in the result if no device has the address."""
    devices = vcpu.vm.devices
    placed = devices.frame_at(mmio.phys_addr)
    if placed is not None:
        frame, offset = placed.frame, mmio.phys_addr - placed.base
        if mmio.is_write:
            frame.write(vcpu.id, offset, mmio.size, mmio.data)
        else:
            mmio.data = frame.read(vcpu.id, offset, mmio.size)
            mmio.stable = frame.stable(offset, mmio.size)
        return mmio
    if not (mmio.is_write and devices.signal(mmio)):
        vmm = vcpu.vmm
        vmm.abortable = mmio
        if vmm.tell(mmio):
            vcpu.request_stop()
        vmm.abortable = None
    bus = vcpu.host.bus
    if bus.active and not mmio.abort:
        bus.emit(Mmio(mmio.phys_addr, mmio.size, mmio.data, int(mmio.is_write)))
    return mmio


def swap(value: int, size: int) -> int:
    """The value with its ``size`` bytes in reverse order, for a big-endian access."""
    return int.from_bytes(value.to_bytes(size, "big"), "little")


def _in_memory_order(exit: SyncExit, value: int, size: int) -> int:
    return swap(value, size) if exit.big_endian else value


def by_syndrome(vcpu: Vcpu, exit: SyncExit, ipa: int) -> int:
    """Emulate a load or store that the syndrome describes (ISV is 1). Such an instruction accesses
    one general-purpose register and has no writeback. ``ipa`` is the address of the access."""
    esr, context = exit.esr, vcpu.context
    size = 1 << (esr >> SAS_SHIFT & SAS_MASK)
    mask = (1 << size * 8) - 1
    if esr & WNR:
        value = exit.rt_value & mask
        if exit.big_endian:
            value = swap(value, size)
        mmio = access(vcpu, MmioExit(ipa, size, True, value))
        return inject_data_abort(vcpu, exit, DFSC.EXTERNAL) if mmio.abort else Action.ADVANCE
    mmio = access(vcpu, MmioExit(ipa, size, False))
    if mmio.abort:
        return inject_data_abort(vcpu, exit, DFSC.EXTERNAL)
    if exit.rt == 31:
        return Action.ADVANCE
    value = mmio.data & mask
    if exit.big_endian:
        value = swap(value, size)
    if esr & SSE:
        value = extend(value, size, True, bool(esr & SF))
    return context.answer(value, mmio.stable)


def extend(value: int, size: int, signed: bool, wide: bool) -> int:
    """Return the value for the destination register of a load of ``size`` bytes
    (kvm_handle_mmio_return). If ``signed``, sign-extend the value. If not ``wide``, truncate the
    value to 32 bits, for a W register."""
    if signed and size < 8 and value >> (size * 8 - 1) & 1:
        value |= MASK64 << size * 8 & MASK64
    return value if wide else value & 0xFFFFFFFF


def by_instruction(vcpu: Vcpu, exit: SyncExit) -> int:
    """Decode the instruction and emulate its access, because the syndrome does not describe the
    access (ISV is 0). KVM returns an error for this access, unless the VMM has enabled
    KVM_CAP_ARM_NISV_TO_USER.

    If the instruction cannot access a device, the guest takes a data abort. The fault status code
    depends on the instruction. For exclusives and atomics it is "unsupported exclusive access" (DDI
    0487, DFSC 0x35). For DC ZVA and for an access across a page boundary it is an alignment fault.
    For an instruction that cannot be decoded it is an external abort, as if the bus rejected the
    access.
    """
    from armvirt.arch.load_store import Form, decode_access

    decoded = decode_access(vcpu.context.fetch(exit.pc))
    if decoded.form is not Form.PLAIN:
        code = {Form.EXCLUSIVE: DFSC.EXCLUSIVE, Form.ZVA: DFSC.ALIGNMENT}.get(
            decoded.form, DFSC.EXTERNAL
        )
        return inject_data_abort(vcpu, exit, code)
    if (exit.ipa & 0xFFF) + sum(e.size for e in decoded.elements) > 0x1000:
        return inject_data_abort(
            vcpu, exit, DFSC.ALIGNMENT
        )  # a device access across a page boundary is never aligned
    done = MmioExit(exit.ipa, 0, decoded.is_write)
    loaded: list[tuple[Element, int]] = []
    for element in decoded.elements:
        for part in _parts(element):
            done = _transfer(vcpu, exit, decoded, part, loaded)
            if done.abort:
                return inject_data_abort(vcpu, exit, DFSC.EXTERNAL)
    _write_registers(vcpu, decoded, loaded)
    return Action.ADVANCE


def _parts(element: Element) -> tuple[Element, ...]:
    """Split the access of one register into bus transfers. A transfer has at most 8 bytes, so a Q
    register needs two transfers."""
    if element.size <= 8:
        return (element,)
    low = element._replace(size=8)
    return (low, low._replace(offset=element.offset + 8, register=element.register | 1 << 8))


def _transfer(
    vcpu: Vcpu, exit: SyncExit, decoded: Access, part: Element, loaded: list[tuple[Element, int]]
) -> MmioExit:
    mmio = MmioExit(exit.ipa + part.offset, part.size, decoded.is_write)
    if decoded.is_write:
        mmio.data = _in_memory_order(
            exit, _register(vcpu, part) & (1 << part.size * 8) - 1, part.size
        )
    mmio = access(vcpu, mmio)
    if not decoded.is_write:
        loaded.append(
            (part, _in_memory_order(exit, mmio.data & (1 << part.size * 8) - 1, part.size))
        )
    return mmio


def _register(vcpu: Vcpu, part: Element) -> int:
    if not part.simd:
        return vcpu.context.x(part.register)
    value = vcpu.context.q(part.register & 31)
    return value >> 64 if part.register >> 8 else value


def _write_registers(vcpu: Vcpu, decoded: Access, loaded: list[tuple[Element, int]]) -> None:
    """Write the destination and base registers, after all transfers have succeeded."""
    context = vcpu.context
    for part, value in loaded:
        if not part.simd:
            context.set_x(part.register, extend(value, part.size, part.signed, part.wide))
        elif part.register >> 8:
            context.set_q(part.register & 31, context.q(part.register & 31) & MASK64 | value << 64)
        else:
            context.set_q(part.register & 31, value)
    if decoded.writeback is not None:
        register, offset = decoded.writeback
        if register == 31:
            context.sp = context.sp + offset & MASK64
        else:
            context.set_x(register, context.x(register) + offset & MASK64)
