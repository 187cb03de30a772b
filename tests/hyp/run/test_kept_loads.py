"""A load that the VMM declares stable is completed by the native engine until other code runs.

The device returns how often it has been read, so a repeated load shows in the sum of the values:
`MmioExit.stable`, `Action.KEEP`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hyp_tools import DEVICE, GICD, GICR, NE, Asm, Rig, both_engines, program

from armvirt.arch.named import SCTLR_EE
from armvirt.events import Event, Stamp
from armvirt.hyp.kvm import MmioExit, Stop, Vcpu

LOADS = 20
OTHER_REGISTER = DEVICE + 8


def loads(a: Asm, between: Callable[[Asm], None] = lambda a: None) -> None:
    """``LOADS`` loads; X21 is the sum of the values."""
    a.mov(20, LOADS)
    a.mov(28, DEVICE)
    a.label("loop")
    a.ldr_w(0, 28)
    a.add(21, 21, 0)
    between(a)
    a.subs_imm(20, 20, 1)
    a.b_cond(NE, "loop")


def counted(a: Callable[[Asm], None], kind: str = "native", stable: bool = True) -> Rig:
    """Run a program; each load of the device returns 1 more than the one before."""
    rig = Rig(program(a), kind=kind)
    reads = 0

    def on_mmio(vcpu: Vcpu, exit: MmioExit) -> bool:
        nonlocal reads
        if not exit.is_write:
            reads += 1
            exit.data, exit.stable = reads, stable
        return False

    rig.on_mmio = on_mmio
    return rig


def exits(rig: Rig) -> int:
    return sum(not is_write for _, _, is_write, _ in rig.mmio)


def test_equal_loads_exit_once() -> None:
    rig = counted(loads).finish()
    assert (exits(rig), rig.x(21)) == (1, LOADS)


def test_without_the_declaration_each_load_exits() -> None:
    rig = counted(loads, stable=False).finish()
    assert (exits(rig), rig.x(21)) == (LOADS, LOADS * (LOADS + 1) // 2)


def test_the_count_is_the_same() -> None:
    kept, plain = counted(loads).finish(), counted(loads, stable=False).finish()
    assert kept.vcpu.context.insns == plain.vcpu.context.insns
    assert kept.host.clock.now == plain.host.clock.now


@pytest.mark.parametrize(
    "between",
    [
        lambda a: a.str_w(0, 28, 8),
        lambda a: (a.mov(0, 0x8400_0000), a.hvc(0)),
        lambda a: (a.mov(27, 0x2FF0_0000), a.ldr_w(1, 28, 4)),
    ],
    ids=["a store", "a hypercall", "a load that is not stable"],
)
def test_another_exit_ends_it(between: Callable[[Asm], None]) -> None:
    rig = Rig(program(lambda a: loads(a, between)), kind="native")

    def on_mmio(vcpu: Vcpu, exit: MmioExit) -> bool:
        exit.stable = exit.phys_addr == DEVICE
        return False

    rig.on_mmio = on_mmio
    rig.finish()
    assert sum(each[0] == DEVICE for each in rig.mmio) == LOADS


def test_each_form_of_load_has_its_own_value() -> None:
    """Width and sign are in the syndrome."""

    def forms(a: Asm) -> None:
        a.mov(28, DEVICE)
        for _ in range(2):
            a.ldr_w(5, 28)
            a.ldr(1, 28)
            a.word(0x39400000 | 28 << 5 | 2)  # LDRB W2, [X28]
            a.word(0x39C00000 | 28 << 5 | 3)  # LDRSB W3, [X28]
            a.ldr_w(4, 28, 8)

    rig = Rig(program(forms), kind="native")
    rig.devices = {DEVICE: 0x1234_5687, OTHER_REGISTER: 7}

    def stable(vcpu: Vcpu, exit: MmioExit) -> bool:
        exit.data, exit.stable = rig.devices[exit.phys_addr], True
        return False

    rig.on_mmio = stable
    rig.finish()
    assert [rig.x(n) for n in range(1, 6)] == [0x1234_5687, 0x87, 0xFFFF_FF87, 7, 0x1234_5687]
    assert exits(rig) == 10  # four values are kept, so each of five forms has lost its own


def test_a_stop_ends_it() -> None:
    rig = counted(loads)
    stops = 0
    for until in range(40, 200, 10):
        if rig.run(until) is Stop.HANDLER:
            break
        stops += 1
    assert exits(rig) > stops > 4


def test_a_watched_load_always_exits() -> None:
    events: list[tuple[Stamp, Event]] = []
    rig = counted(loads)
    rig.host.bus.subscribe(lambda stamp, event: events.append((stamp, event)))
    rig.finish()
    assert exits(rig) == LOADS == sum(event.kind == "mmio" for _, event in events)


def switch(a: Asm) -> None:
    """Change SCTLR_EL1.EE."""
    a.mrs(0, "SCTLR_EL1")
    a.mov(1, SCTLR_EE)
    a.word(0xCA010000)  # EOR X0, X0, X1
    a.msr("SCTLR_EL1", 0)
    a.isb()


def test_a_big_endian_load_always_exits() -> None:
    def big_endian(a: Asm) -> None:
        switch(a)
        loads(a)
        switch(a)

    assert exits(counted(big_endian).finish()) == LOADS


def test_a_load_after_a_big_endian_load() -> None:
    """MSR SCTLR_EL1 does not exit."""

    def both(a: Asm) -> None:
        a.mov(28, DEVICE)
        switch(a)
        a.ldr_w(2, 28)
        switch(a)
        a.ldr_w(3, 28)

    rig = counted(both).finish()
    assert (exits(rig), rig.x(3)) == (2, 2)


def test_an_event_for_another_cpu_ends_it() -> None:
    """SEV calls Python."""
    rig = Rig(program(lambda a: loads(a, lambda a: a.word(0xD503_209F))), kind="native", vcpus=2)

    def on_mmio(vcpu: Vcpu, exit: MmioExit) -> bool:
        exit.stable = True
        return False

    rig.on_mmio = on_mmio
    rig.finish()
    assert exits(rig) == LOADS


@both_engines
def test_a_distributor_register_that_changes(kind: str) -> None:
    """Each read of GICD_ISENABLER1 and GICR_ISPENDR0 follows a change."""

    def guest(a: Asm) -> None:
        a.mov(27, GICD)
        a.mov(26, GICR + 0x1_0000)
        a.mov(20, 1)
        for n in range(4):
            a.ldr_w(0, 27, 0x104)
            a.ldr_w(0, 27, 0x104)
            a.str_w(20, 27, 0x104)
            a.ldr_w(1, 27, 0x104)
            a.add(21, 21, 1)
            a.str_w(20, 26, 0x200)
            a.ldr_w(2, 26, 0x200)
            a.str_w(20, 26, 0x280)
            a.ldr_w(3, 26, 0x200)
            a.add(22, 22, 2)
            a.add(23, 23, 3)
            a.mov(20, 3 << n)

    rig = Rig(program(guest), kind=kind, gic=True).finish()
    assert (rig.x(21), rig.x(22), rig.x(23)) == (1 + 3 + 7 + 15, 1 + 3 + 6 + 12, 0)
