"""Rules for CPUs that never reach a handler, because vectors are missing, faults do not end, or the
CPU polls a register that does not change."""

from __future__ import annotations

from armvirt.arch import esr as syndrome
from armvirt.arch.decode import is_msr_mrs
from armvirt.arch.esr import EC
from armvirt.arch.named import FAR_EL1, VBAR_EL1
from armvirt.arch.pstate import VECTOR_END
from armvirt.arch.sysregs import name_of
from armvirt.board.boot import SymbolSource
from armvirt.hyp.diagnosis.finding import Check
from armvirt.trace.history import Faults, Poll
from armvirt.trace.writers import register_name
from armvirt.views.causes.evidence import Cause, Evidence, times

FAULTS = 3
LONG = 10_000  # instructions within which a handler is expected to read IAR
POLLS = 1000


def lost_in_vectors(evidence: Evidence) -> Cause | None:
    """Detect a vCPU that took an IRQ or FIQ exception, and after that only synchronous exceptions.
    The vCPU has acknowledged no interrupt since. The likely reason is that VBAR_EL1 is not the
    address of a vector table."""
    cpu = evidence.cpu
    entry, faults = cpu.entry, cpu.faults
    if entry is None or faults is None or not cpu.entries or faults.times < FAULTS:
        return None
    vbar = evidence.machine.board.vcpus[evidence.vcpu].context.system(VBAR_EL1)
    offset = entry.event.target - vbar
    where = (
        f"{entry.event.target:#x} (VBAR_EL1 {vbar:#x} + {offset:#x})"
        if 0 <= offset < VECTOR_END
        else "there"
    )
    text = (
        f"is lost in the vectors of vCPU {evidence.vcpu}: {_vbar(evidence, vbar)}, the {entry.event.what.upper()} of "
        f"{entry.stamp.ns:,} ns was taken to {where}, and synchronous exceptions followed from there "
        f"({syndrome.describe(faults.event.esr)} at {faults.event.elr:#x})"
    )
    return Cause(
        "vectors",
        text,
        "write to VBAR_EL1 the address of a vector table that is aligned to 2048 bytes",
    )


def not_acknowledged(evidence: Evidence) -> Cause | None:
    """Detect a handler that has not read IAR. The vCPU took the IRQ or FIQ exception, and since
    then has executed at least `LONG` instructions without an acknowledge. If the guest is stuck,
    the number of instructions does not matter."""
    entry, vcpu = evidence.cpu.entry, evidence.machine.board.vcpus[evidence.vcpu]
    stuck = evidence.machine.ended == "stuck"
    if entry is None or not evidence.cpu.entries or not evidence.holds(Check.PSTATE):
        return None
    insns = vcpu.context.insns - entry.stamp.insns
    if insns < LONG and not stuck:
        return None
    text = (
        f"is not acknowledged: vCPU {evidence.vcpu} took the {entry.event.what.upper()} exception at "
        f"{entry.stamp.ns:,} ns, to {entry.event.target:#x}, has executed {insns:,} instructions since and read no "
        f"IAR; it is at {evidence.place(vcpu.context.pc)}"
    )
    return Cause("handler-stuck", text, "let the handler read IAR first", on_its_way=False)


def _vbar(evidence: Evidence, vbar: int) -> str:
    if not vbar:
        return "VBAR_EL1 is 0, it was not set"
    symbols = evidence.machine.symbols
    if symbols is not None and _symbol_at(symbols, vbar) is None:
        found = (
            (address, _symbol_at(symbols, address))
            for address in range(vbar + 4, vbar + VECTOR_END, 4)
        )
        inside = next(((address, name) for address, name in found if name is not None), None)
        if inside is not None:
            table = f"{inside[1]} at {inside[0]:#x} is not aligned to 2048 bytes"
            return f"VBAR_EL1 {vbar:#x} is no table's start: bits 10 to 0 are RES0, and {table}"
    return f"VBAR_EL1 is {evidence.place(vbar)}"


def _symbol_at(symbols: SymbolSource, address: int) -> str | None:
    """The name of the symbol that begins at ``address``. None if no symbol begins there. (For an
    address inside a symbol, `SymbolSource.lookup` returns a name with an offset. No symbol has such
    a name.)"""
    name = symbols.lookup(address)
    return None if name is None or symbols.address_of(name) is None else name


def faults_for_ever(evidence: Evidence) -> Cause | None:
    """Detect a vCPU that faults again and again within its vectors. Also detect a fault after which
    the guest failed. In both cases the vCPU has used neither the GIC nor a timer since the
    fault."""
    faults, ended = evidence.cpu.faults, evidence.machine.ended
    if faults is None or evidence.held is None:
        return None
    in_vectors = 0 <= faults.event.elr - (faults.event.target & -VECTOR_END) < VECTOR_END
    if not (in_vectors and faults.times >= FAULTS) and ended != "fail":
        return None  # a handler may continue: page faults and system calls are frequent
    often = f"{times(faults.times)}, last " if faults.times > 1 else ""
    where = f"{faults.stamp.ns:,} ns from {evidence.place(faults.event.elr)}"
    text = (
        f"is not taken by vCPU {evidence.vcpu}, which took a synchronous exception {often}at {where} and has not used "
        f"the GIC since: {_fault(evidence, faults)}"
    )
    return Cause("faults", text, "mend what faults first")


def _fault(evidence: Evidence, faults: Faults) -> str:
    esr, model = faults.event.esr, evidence.dist.model
    described = syndrome.describe(esr)
    if syndrome.exception_class(esr) == EC.UNKNOWN and (
        register := _system_register(evidence, faults.event.elr)
    ):
        old = model == 2 and "ICC_" in register
        return f"{described}, {register}" + (
            ": a GICv2 has its CPU interface in the frame GICC" if old else ""
        )
    if syndrome.exception_class(esr) in (EC.DABT_CURRENT, EC.DABT_LOWER):
        far = evidence.machine.board.vcpus[evidence.vcpu].context.system(FAR_EL1)
        new = model != 2 and far in evidence.machine.board.memmap.GICC.addresses
        return f"{described}, address {far:#x}" + (
            ": a GICv3 has no frame GICC, but ICC_*_EL1" if new else ""
        )
    return described


def _system_register(evidence: Evidence, pc: int) -> str | None:
    """The system register access at ``pc`` as text (``MRS`` or ``MSR`` and the register). None if
    the instruction is not MRS or MSR."""
    word = evidence.code(pc)
    access = None if word is None else is_msr_mrs(word)
    return access and f"{'MRS' if access.is_read else 'MSR'} {name_of(access.encoding)}"


def polls(evidence: Evidence) -> Cause | None:
    """Detect a vCPU that polls a register of the GIC for a value that does not come. While the vCPU
    polls, the guest does not reach the code that would unblock the interrupt."""
    held = evidence.held
    if (
        held is None
        or held.station is Check.ITS
        or not (evidence.written(held).never or held.station is Check.VCPU)
    ):
        return None
    others = [cpu.vcpu_id for cpu in evidence.dist.cpus() if cpu.vcpu_id != evidence.vcpu]
    for vcpu in (evidence.vcpu, *others):
        poll = evidence.history.cpu(vcpu).poll
        if poll is not None and poll.times >= POLLS:
            return _polls(evidence, vcpu, poll)
    return None


def _polls(evidence: Evidence, vcpu: int, poll: Poll) -> Cause:
    name = register_name(poll.frame, poll.offset)
    text = (
        f"is not taken by vCPU {evidence.vcpu}: vCPU {vcpu} polls {name}, read {times(poll.times)} since "
        f"{evidence.when(poll.since)}, always {poll.value:#x}"
    )
    note = (
        " (ProcessorSleep and ChildrenAsleep are 0 here, as in KVM)" if name == "GICR_WAKER" else ""
    )
    return Cause("polls", text + note, f"wait for what {name} can become, and bound the wait")
