"""KVM_RUN between two exits: the vCPU completes the VMM's answer first, and once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hyp_tools import DATA, DEVICE, RAM, XZR, Asm, Rig, both_engines, errno_of, power_off, program

from armvirt.events import Event, ExceptionEntry, Stamp
from armvirt.hyp.kvm import (
    IRQ_TYPE_CPU,
    Cap,
    DebugExit,
    Exit,
    GuestDebug,
    HostMemory,
    MmioExit,
    MpState,
    NisvExit,
    Start,
    Stop,
    SystemEventExit,
    Vcpu,
    VcpuEvents,
    irq_line_word,
)

PC = 0x6030_0000_0010_0040
LDP = 0xA940_1023  # ldp x3, x4, [x1]
IRQ_LINE = irq_line_word(IRQ_TYPE_CPU, 0)


def alone(write: Callable[[Asm], None] | Asm, kind: str = "auto", **options: int) -> Rig:
    """A rig whose vCPU 0 is driven by `Vcpu.run`."""
    rig = Rig(write if isinstance(write, Asm) else program(write), kind=kind, **options)  # type: ignore[arg-type]
    rig.vcpu.exit_handler = None
    return rig


def next_mmio(rig: Rig) -> MmioExit:
    exit = rig.vcpu.run()
    assert isinstance(exit, MmioExit), exit
    return exit


def with_irq_handler(a: Asm, kind: str = "auto", **options: int) -> Rig:
    """The handler of its IRQ reads the device at 0x80, and lowers the line by a store to 0x88."""
    power_off(a)

    def handler(a: Asm, offset: int) -> None:
        a.mov(20, DEVICE + 0x80)
        a.ldr(21, 20)
        a.str_(XZR, 20, 8)
        a.eret()

    a.vectors(handler)
    return alone(a, kind, **options)


def unmasked(a: Asm) -> None:
    a.set_vectors()
    a.mov(1, DEVICE)
    a.daifclr(2)


# -- what comes between an exit and its completion --


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2])
def test_an_interrupt_waits_for_the_access(kind: str, pcpus: int) -> None:
    """The VMM raises its line before it runs the vCPU again: the read has its answer, and the
    handler's read its own. It is the same where the vCPU moves meanwhile."""
    a = Asm(RAM)
    unmasked(a)
    a.ldr(2, 1)
    a.mrs(3, "DAIF")
    rig = with_irq_handler(a, kind, pcpus=pcpus)
    exit = next_mmio(rig)
    assert exit.phys_addr == DEVICE
    exit.data = 5
    rig.vm.irq_line_raw(IRQ_LINE, True)
    rig.vcpu.pin(pcpus - 1)
    exit = next_mmio(rig)
    assert (exit.phys_addr, rig.x(2)) == (DEVICE + 0x80, 5)
    exit.data = 6
    exit = next_mmio(rig)
    assert exit.phys_addr == DEVICE + 0x88 and rig.x(21) == 6
    rig.vm.irq_line_raw(IRQ_LINE, False)
    assert rig.vcpu.run() == SystemEventExit("shutdown")
    assert rig.x(2) == 5


@both_engines
@pytest.mark.parametrize("change", ["slot", "log", "tlb"])
def test_the_device_sees_a_store_once(kind: str, change: str) -> None:
    """Also if the translations of everything are gone when the vCPU goes on: its fetch faults
    first."""
    rig = alone(
        lambda a: (a.mov(1, DEVICE), a.mov(2, 1), a.str_(2, 1), a.add_imm(2, 2, 1), a.str_(2, 1)),
        kind,
    )
    memory = HostMemory(4096)
    seen = []
    for _ in range(2):
        seen.append(next_mmio(rig).data)
        if change == "slot":
            rig.vm.set_user_memory_region(1, 0x5000_0000 + len(seen) * 4096, memory)
            rig.vm.set_user_memory_region(1, 0, None)
        elif change == "log":
            for flags in (1, 0):
                rig.vm.set_user_memory_region(0, RAM, rig.ram, flags)
        else:
            rig.vcpu.context.queue_tlb()
    assert rig.vcpu.run() == SystemEventExit("shutdown") and seen == [1, 2]


@both_engines
def test_an_serror_waits_too(kind: str) -> None:
    a = Asm(RAM)
    unmasked(a)
    a.daifclr(4)
    a.ldr(2, 1)
    a.nop()
    power_off(a)
    a.vectors(lambda a, offset: (a.mov(20, offset), a.mrs(22, "ELR_EL1"), power_off(a)))
    rig = alone(a, kind)
    next_mmio(rig).data = 9
    at = rig.vcpu.get_one_reg(PC)
    rig.vcpu.set_vcpu_events(VcpuEvents(serror_pending=True))
    assert rig.vcpu.run() == SystemEventExit("shutdown")
    assert (rig.x(2), rig.x(20), rig.x(22)) == (9, 0x380, at + 4)


@both_engines
def test_a_step_over_an_access(kind: str) -> None:
    rig = alone(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1), a.nop()), kind)
    exit = next_mmio(rig)
    exit.data = 3
    rig.vcpu.set_guest_debug(GuestDebug.ENABLE | GuestDebug.SINGLESTEP)
    at = rig.vcpu.get_one_reg(PC)
    for n in (1, 2):
        assert isinstance(rig.vcpu.run(), DebugExit)
        assert (rig.x(2), rig.vcpu.get_one_reg(PC)) == (3, at + 4 * n)


# -- what makes an answer void --


def test_a_vmm_that_moves_the_pc_wants_no_completion() -> None:
    rig = alone(lambda a: (a.mov(1, DEVICE), a.mov(2, 7), a.ldr(2, 1), a.ldr(3, 1, 8), a.nop()))
    next_mmio(rig).data = 5
    rig.vcpu.set_one_reg(PC, rig.vcpu.get_one_reg(PC) + 4)
    exit = next_mmio(rig)
    assert exit.phys_addr == DEVICE + 8 and rig.x(2) == 7
    exit.data = 8
    assert rig.vcpu.run() == SystemEventExit("shutdown") and rig.x(3) == 8


def test_a_reset_forgets_the_access() -> None:
    rig = alone(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1), a.ldr(2, 1, 8)))
    next_mmio(rig).data = 5
    at = rig.vcpu.get_one_reg(PC)
    rig.vcpu.start(Start(RAM, 0))
    assert errno_of(lambda: rig.vcpu.set_vcpu_events(VcpuEvents(ext_dabt_pending=True))) == "EINVAL"
    assert next_mmio(rig).phys_addr == DEVICE and rig.vcpu.get_one_reg(PC) == at and rig.x(2) == 0


def test_restored_state_has_no_answer() -> None:
    """As KVM: the state of a vCPU with an access that is not completed is that of before the
    access."""
    rig = alone(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1), a.ldr(3, 1, 8)))
    first = next_mmio(rig)
    state = rig.kvm.state()
    first.data = 5
    next_mmio(rig)
    rig.kvm.load(state)
    exit = next_mmio(rig)
    assert exit.phys_addr == DEVICE
    exit.data = 6
    assert next_mmio(rig).phys_addr == DEVICE + 8 and rig.x(2) == 6


# -- immediate_exit --


@both_engines
def test_immediate_exit_in_the_middle_of_a_pair(kind: str) -> None:
    """The second half is an exit of its own, and nothing is lost."""
    rig = alone(lambda a: (a.mov(1, DEVICE), a.word(LDP)), kind)
    next_mmio(rig).data = 5
    rig.vcpu.immediate_exit = True
    exit = next_mmio(rig)
    assert exit.phys_addr == DEVICE + 8
    exit.data = 6
    assert errno_of(rig.vcpu.run) == "EINTR"
    assert (rig.x(3), rig.x(4)) == (5, 6)


@both_engines
def test_immediate_exit_while_others_run(kind: str) -> None:
    """The access is completed when this vCPU's turn comes, and no instruction more."""
    rig = alone(
        lambda a: (a.mov(1, DEVICE), a.ldr(2, 1), a.nop(), a.nop()),
        kind,
        vcpus=2,
        pcpus=3,
        quantum_ns=1_000,
    )
    rig.start(endless(RAM + 0x1000), vcpu=1)
    next_mmio(rig).data = 5
    at, before = rig.vcpu.get_one_reg(PC), rig.vcpu.context.insns
    rig.vcpu.pin(2)
    rig.vcpus[1].pin(1)
    rig.vcpu.immediate_exit = True
    others = rig.vcpus[1].context.insns
    assert errno_of(rig.vcpu.run) == "EINTR"
    assert (rig.x(2), rig.vcpu.get_one_reg(PC), rig.vcpu.context.insns) == (5, at + 4, before + 1)
    assert rig.vcpus[1].context.insns > others


def endless(base: int) -> Asm:
    a = Asm(base)
    a.label("loop")
    a.add_imm(5, 5, 1)
    a.b("loop")
    return a


@both_engines
@pytest.mark.parametrize("handler", [False, True])
def test_another_ones_run_completes_the_access_too(kind: str, handler: bool) -> None:
    """It drives all vCPUs: the device is not asked again."""
    a = Asm(RAM)
    a.mov(1, DEVICE)
    a.ldr(2, 1)
    a.label("end")
    a.b("end")
    rig = alone(a, kind, vcpus=2)
    next_mmio(rig).data = 5
    if handler:
        rig.vcpu.exit_handler = rig.handle
    rig.start(endless(RAM + 0x1000), vcpu=1)
    rig.vcpus[1].run(rig.host.clock.now + 5_000)
    assert rig.x(2) == 5 and not rig.log


# -- runs within runs --


def test_a_run_within_a_run_is_refused() -> None:
    rig = Rig(program(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1))), vcpus=2)
    rig.vcpus[1].init(power_off=True)
    errnos: list[str] = []

    def answer(vcpu: Vcpu, exit: Exit) -> None:
        errnos.extend(errno_of(call) for call in (rig.run, vcpu.run, rig.vcpus[1].run))

    rig.on_mmio = answer
    rig.finish()
    assert errnos == ["EBUSY"] * 3


# -- MP state while it runs --


@both_engines
def test_a_vcpu_suspended_in_its_own_exit(kind: str) -> None:
    """The access is completed; then it sleeps until it could take an interrupt."""
    rig = Rig(program(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1), a.mov(3, 4))), kind=kind)
    rig.on_mmio = lambda vcpu, exit: (
        setattr(exit, "data", 6),
        vcpu.set_mp_state(MpState.SUSPENDED),
    )[1]
    assert rig.run() is Stop.IDLE
    assert (rig.x(2), rig.x(3)) == (6, 0) and rig.vcpu.get_mp_state() is MpState.SUSPENDED
    rig.vm.irq_line_raw(IRQ_LINE, True)
    assert rig.run() is Stop.HANDLER and rig.end == SystemEventExit("wakeup")
    rig.vcpu.set_mp_state(MpState.RUNNABLE)
    rig.finish()
    assert rig.x(3) == 4


def test_one_that_wakes_in_vain_sleeps_again() -> None:
    """KVM_SYSTEM_EVENT_WAKEUP is for an interrupt that could be delivered; the line may have fallen
    meanwhile."""
    rig = alone(lambda a: a.nop())
    rig.vcpu.set_mp_state(MpState.SUSPENDED)
    rig.vm.irq_line_raw(IRQ_LINE, True)
    assert rig.vcpu.run() == SystemEventExit("wakeup")
    rig.vm.irq_line_raw(IRQ_LINE, False)
    assert rig.vcpu.run(rig.host.clock.now + 1000) != SystemEventExit("wakeup")
    rig.vcpu.wake()
    assert rig.vcpu.run(rig.host.clock.now + 1000) != SystemEventExit("wakeup")
    rig.vm.irq_line_raw(IRQ_LINE, True)
    assert rig.vcpu.run() == SystemEventExit("wakeup")


# -- NISV and SErrors --


@both_engines
def test_an_abort_that_answers_nisv_has_the_virtual_address(kind: str) -> None:
    """FAR_EL1 is where the guest accessed, not where that is in its physical memory."""
    table, va = DATA, (2 << 30) + DEVICE + 0x120
    a = Asm(RAM)
    a.set_vectors()
    a.msr_const("MAIR_EL1", 0x00FF)
    a.msr_const("TCR_EL1", 25 | 1 << 23 | 2 << 32)  # 39 bits, TTBR0 alone
    a.msr_const("TTBR0_EL1", table)
    a.msr_const("SCTLR_EL1", 0x30D0_0801)
    a.isb()
    a.mov(1, va)
    a.word(LDP)
    power_off(a)
    a.vectors(lambda a, offset: (a.mov(20, offset), a.mrs(23, "FAR_EL1"), power_off(a)))
    rig = alone(a, kind)
    # Blocks of 1 GiB: the program where it is, and the devices' one at 2 GiB.
    for n, descriptor in ((1, 0x4000_0000 | 0x701), (2, 0x405)):
        rig.vm.write_memory(table + 8 * n, descriptor.to_bytes(8, "little"))
    rig.vm.enable_cap(Cap.ARM_NISV_TO_USER)
    exit = rig.vcpu.run()
    assert isinstance(exit, NisvExit) and exit.fault_ipa == DEVICE + 0x120
    rig.vcpu.set_vcpu_events(VcpuEvents(ext_dabt_pending=True))
    assert (
        errno_of(lambda: rig.vcpu.set_vcpu_events(VcpuEvents(ext_dabt_pending=True))) == "EINVAL"
    ), "once"
    assert rig.vcpu.run() == SystemEventExit("shutdown")
    assert (rig.x(20), rig.x(23)) == (0x200, va)


def test_an_serror_is_an_entry_and_counts_as_one() -> None:
    a = Asm(RAM)
    unmasked(a)
    a.daifclr(4)
    a.nop()
    power_off(a)
    a.vectors(lambda a, offset: power_off(a))
    rig = alone(a)
    events: list[tuple[Stamp, Event]] = []
    rig.host.bus.subscribe(lambda stamp, event: events.append((stamp, event)))
    rig.vcpu.run(until=8)
    at, now, count = rig.vcpu.get_one_reg(PC), rig.host.clock.now, rig.vcpu.context.insns
    rig.vcpu.set_vcpu_events(VcpuEvents(serror_pending=True))
    rig.vcpu.set_vcpu_events(VcpuEvents())
    assert rig.vcpu.get_vcpu_events().serror_pending, "it cannot be taken back"
    rig.vcpu.run()
    (stamp, entry), *_ = [(s, e) for s, e in events if isinstance(e, ExceptionEntry)]
    assert (entry.what, entry.elr, stamp.ns, stamp.pc) == ("serror", at, now, at)
    assert rig.vcpu.context.insns - count == rig.host.clock.now - now == 1 + 3, (
        "the entry, and SYSTEM_OFF"
    )
