"""What dirties a logged page: each kind of guest store, EL2's own structures and devices; and what
does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hyp_tools import DATA, RAM, Asm, Rig, both_engines, power_off, program

from armvirt.board.virt import memmap
from armvirt.hyp.kvm import (
    MEM_LOG_DIRTY_PAGES,
    PVTIME_IPA,
    HostMemory,
    Start,
    VcpuGroup,
    VgicGroup,
    Vm,
)
from armvirt.hyp.memory.dirty_log import pages_of
from armvirt.machine import Machine, vgic_save

PAGE, PAGES, SLOT, BASE = 4096, 8, 1, 0x5000_0000
HERE = BASE + 2 * PAGE

#: X1 is the address, X2 and X3 data. Instructions by their words (DDI 0487 C4.1).
STORES: dict[str, tuple[int, tuple[int, ...], set[int]]] = {
    "strb": (0, (0x39000022,), {2}),
    "stp": (0, (0xA9000C22,), {2}),
    "stp over the border": (PAGE - 8, (0xA9000C22,), {2, 3}),
    "str over the border": (PAGE - 4, (0xF9000022,), {2, 3}),
    "str q0": (16, (0x3D800020,), {2}),
    "str q0 over the border": (PAGE - 8, (0x3D800020,), {2, 3}),
    "st1 of four registers": (PAGE - 32, (0x4C002020,), {2, 3}),
    "dc zva": (64, (0xD50B7421,), {2}),
    "stlr": (0, (0xC89FFC22,), {2}),
    "ldxr, stxr": (0, (0xC85F7C24, 0xC8057C22), {2}),
    "ldxr alone": (0, (0xC85F7C24,), set()),
    "stxr that fails": (0, (0xD503305F | 0xF00, 0xC8057C22), set()),
    "ldr over the border": (PAGE - 4, (0xF9400024,), set()),
    "prfm pstl1keep": (0, (0xF9800030,), set()),
    "dc cvac": (0, (0xD50B7A21,), set()),
    "dc civac": (0, (0xD50B7E21,), set()),
    "at s1e1w": (0, (0xD5087821,), set()),
}


def dirty(vm: Vm, slot: int = SLOT) -> set[int]:
    return set(pages_of(vm.get_dirty_log(slot)))


@both_engines
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", STORES)
def test_every_kind_of_store(kind: str, name: str, fresh: bool) -> None:
    """On pages that were never mapped, and on ones that were mapped writable before the log was
    taken."""
    offset, words, expected = STORES[name]
    rig = Rig(kind=kind)
    memory = HostMemory(PAGES * PAGE)
    rig.vm.set_user_memory_region(SLOT, BASE, memory, MEM_LOG_DIRTY_PAGES)

    def write(a: Asm) -> None:
        a.mrs(4, "CPACR_EL1")
        a.mov(5, 3 << 20)
        a.msr("CPACR_EL1", 5)
        a.isb()
        a.mov(1, HERE)
        if not fresh:
            a.str_(1, 1)
            a.mov(1, HERE + PAGE)
            a.str_(1, 1)
        a.mov(1, HERE + offset)
        a.mov(6, 0x0A00_0000)
        a.str_(1, 6)  # the VMM takes the log here
        a.word(*words)

    seen: list[set[int]] = []
    rig.on_mmio = lambda vcpu, exit: seen.append(dirty(rig.vm))
    rig.start(program(write))
    rig.finish()
    assert seen == [set() if fresh else {2, 3}]
    assert dirty(rig.vm) == expected


def test_the_stolen_time() -> None:
    """It is written at a load of the vCPU, when that has waited; and by the guest's own
    PV_TIME_ST."""
    rig = Rig(vcpus=2, quantum_ns=2_000)
    rig.vm.set_user_memory_region(SLOT, BASE, HostMemory(PAGES * PAGE), MEM_LOG_DIRTY_PAGES)
    rig.vcpus[1].set_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA, HERE)
    a = Asm(RAM)
    a.label("loop")
    a.b("loop")
    rig.vm.write_memory(RAM, a.code())
    rig.vcpus[0].start(Start(RAM, 0))
    rig.run(10_000)
    assert dirty(rig.vm) == set()
    rig.vcpus[1].start(Start(RAM, 0))
    rig.run(30_000)
    assert rig.vcpus[1].run_delay_ns and dirty(rig.vm) == {2}
    other = Rig(program(lambda a: (a.mov(0, 0xC500_0021), a.hvc(0))))
    other.vm.set_user_memory_region(SLOT, BASE, HostMemory(PAGES * PAGE), MEM_LOG_DIRTY_PAGES)
    other.vcpu.set_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA, HERE + PAGE)
    other.finish()
    assert dirty(other.vm) == {3}


def logged(machine: Machine) -> Callable[[], set[int]]:
    """Log the RAM of a machine from now on; the function gives the pages' addresses, and starts
    anew."""
    vm = machine.board.vm
    slot = next(s for s in vm.mmu.slots.values() if s.ipa == memmap.RAM_BASE)
    vm.set_user_memory_region(
        slot.slot, slot.ipa, slot.memory, MEM_LOG_DIRTY_PAGES, memory_size=slot.size
    )
    vm.get_dirty_log(slot.slot)
    return lambda: {slot.ipa + PAGE * n for n in pages_of(vm.get_dirty_log(slot.slot))}


def changed(before: dict[int, bytes], after: dict[int, bytes]) -> set[int]:
    return {
        at for at in {*before, *after} if before.get(at, bytes(PAGE)) != after.get(at, bytes(PAGE))
    }


def test_the_tables_of_an_its() -> None:
    """KVM_DEV_ARM_ITS_SAVE_TABLES and SAVE_PENDING_TABLES write guest memory."""
    with Machine("gic-lpi", memory="64M") as machine:
        machine.run_until(ns=5_000_000)
        take = logged(machine)
        before = dict(machine.board.vm.populated_pages())
        board = machine.board
        assert board.its is not None
        vgic_save.save_its(board.gic, board.its)
        pages = take()
        assert pages and pages >= changed(before, dict(board.vm.populated_pages()))
        bases = [
            board.its.get_attr(VgicGroup.ITS_REGS, 0x100 + 8 * n) & 0xFFFF_FFFF_F000
            for n in range(2)
        ]
        assert set(bases) <= pages, "the device table and the collection table"
        low, high = (board.gic.get_attr(VgicGroup.REDIST_REGS, at) for at in (0x78, 0x7C))
        pending = (high << 32 | low) & 0xF_FFFF_FFFF_0000
        assert pending <= max(pages)


@pytest.mark.parametrize(
    ("guest", "gic"), [("hello", 3), ("gic-lpi", 3), ("mmu-el0", 3), ("psci", 2)]
)
def test_nothing_is_missed_by_real_guests(guest: str, gic: int) -> None:
    """Whatever writes: what differs between two moments of a run is in the log between them."""
    with Machine(guest, gic=gic, memory="64M") as machine:
        take = logged(machine)
        for at in range(5_000, 60_000, 10_000):
            before = dict(machine.board.vm.populated_pages())
            if machine.run_until(ns=at) is not None:
                break
            assert take() >= changed(before, dict(machine.board.vm.populated_pages()))


def read_only(vm: Vm) -> Iterable[object]:
    yield vm.read_memory(HERE, PAGE)
    yield vm.has_memory(HERE, 8)
    yield list(vm.populated_pages())
    yield vm.own_state()
    yield vm.vcpu(0).translate(HERE)


def test_looking_dirties_nothing() -> None:
    rig = Rig(program(lambda a: (a.mov(1, DATA), power_off(a))))
    rig.vm.set_user_memory_region(SLOT, BASE, HostMemory(PAGES * PAGE), MEM_LOG_DIRTY_PAGES)
    assert list(read_only(rig.vm)) and dirty(rig.vm) == set()
