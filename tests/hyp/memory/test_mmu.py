"""Memory slots and stage 2. The test has a table walker of its own."""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest
from hyp_tools import (
    DATA,
    DEVICE,
    NE,
    RAM,
    RAM_SIZE,
    Asm,
    Rig,
    both_engines,
    power_off,
    program,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.arch import translation as s2
from armvirt.errors import KvmError, UserError
from armvirt.hyp.kvm import MEM_READONLY, HostMemory, Kvm, MmioExit, Start, Vm
from armvirt.hyp.memory.mmu import TABLE_BASE, MemorySlot, Stage2

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30


class Leaf(NamedTuple):
    output: int
    readable: bool
    writable: bool
    execute_never: bool
    descriptor: int


def walk(tables: bytes, vtcr: int, vttbr: int, ipa: int) -> Leaf | None:
    """A stage-2 walk of 4 KiB granule by the book (DDI 0487 D8.2, D8.3): from VTCR_EL2 and
    VTTBR_EL2 alone."""
    size, start_level = 64 - (vtcr & 63), 2 - (vtcr >> 6 & 3)
    assert vtcr >> 14 & 3 == 0, "the granule is 4 KiB"
    if ipa >> size:
        return None
    base = vttbr & 0x0000_FFFF_FFFF_FFFE
    assert base == TABLE_BASE
    for level in range(start_level, 4):
        shift = 12 + 9 * (3 - level)
        index = ipa >> shift & 511
        if level == start_level:
            index = ipa >> shift  # concatenated tables are one larger table
            assert index < 16 * 512
        (descriptor,) = struct.unpack_from("<Q", tables, base - TABLE_BASE + 8 * index)
        if not descriptor & 1:
            return None
        assert descriptor & 2, "the editor makes no blocks"
        base = descriptor & 0x0000_FFFF_FFFF_F000
    readable, writable = bool(descriptor & 1 << 6), bool(descriptor & 1 << 7)
    return Leaf(base, readable, writable, bool(descriptor >> 53 & 3), descriptor)


def walk_vm(vm: Vm, ipa: int) -> Leaf | None:
    """The leaf as the tables of a VM have it."""
    return walk_stage2(vm.mmu.stage2, ipa)


def walk_stage2(stage2: Stage2, ipa: int) -> Leaf | None:
    return walk(stage2._memory.map, s2.vtcr(stage2.shape), stage2.vttbr, ipa)  # type: ignore[arg-type]


# -- slots --


@pytest.fixture
def vm() -> Vm:
    return Kvm().create_vm()


def refused(vm: Vm, *arguments: object) -> str:
    with pytest.raises(KvmError) as caught:
        vm.set_user_memory_region(*arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(caught.value.errno + ": ")
    return caught.value.errno


@pytest.mark.parametrize("ipa", [1, RAM + 0x800])
def test_a_slot_starts_at_a_page(vm: Vm, ipa: int) -> None:
    assert refused(vm, 0, ipa, HostMemory(PAGE)) == "EINVAL"


def test_a_slot_is_whole_pages(vm: Vm) -> None:
    assert refused(vm, 0, RAM, HostMemory(PAGE + 512)) == "EINVAL"


def test_an_ipa_has_40_bits(vm: Vm) -> None:
    """kvm_arch_prepare_memory_region."""
    assert refused(vm, 0, (1 << 40) - PAGE, HostMemory(2 * PAGE)) == "EFAULT"
    vm.set_user_memory_region(0, (1 << 40) - PAGE, HostMemory(PAGE))


@pytest.mark.parametrize("ipa", [RAM - PAGE, RAM, RAM + PAGE, RAM + 3 * PAGE])
def test_slots_do_not_overlap(vm: Vm, ipa: int) -> None:
    vm.set_user_memory_region(0, RAM, HostMemory(4 * PAGE))
    assert refused(vm, 1, ipa, HostMemory(2 * PAGE)) == "EEXIST"
    vm.set_user_memory_region(1, RAM + 4 * PAGE, HostMemory(PAGE))
    vm.set_user_memory_region(2, RAM - PAGE, HostMemory(PAGE))


def test_a_number_is_taken_once(vm: Vm) -> None:
    vm.set_user_memory_region(3, RAM, HostMemory(PAGE))
    assert refused(vm, 3, RAM + GIB, HostMemory(PAGE)) == "EINVAL"
    vm.set_user_memory_region(3, 0, None)
    vm.set_user_memory_region(3, RAM + GIB, HostMemory(PAGE))
    assert vm.has_memory(RAM + GIB, PAGE) and not vm.has_memory(RAM, 1)


def test_only_slots_that_exist_are_deleted(vm: Vm) -> None:
    assert refused(vm, 0, 0, None) == "EINVAL"


def test_high_memory_comes_before_the_vcpus(vm: Vm) -> None:
    """The start level of the tables is fixed with the first vCPU."""
    vm.set_user_memory_region(0, RAM, HostMemory(PAGE))
    vm.create_vcpu(0)
    vm.set_user_memory_region(1, 15 * GIB, HostMemory(PAGE))
    assert refused(vm, 2, 20 * GIB, HostMemory(PAGE)) == "EINVAL"


def test_more_memory_than_there_is() -> None:
    with pytest.raises(UserError, match="use a smaller"):
        HostMemory(1 << 60)


# -- access by the VMM --


def test_reading_and_writing_over_slots(vm: Vm) -> None:
    vm.set_user_memory_region(0, RAM, HostMemory(PAGE))
    vm.set_user_memory_region(1, RAM + PAGE, HostMemory(PAGE), MEM_READONLY)
    vm.write_memory(RAM + PAGE - 3, b"abcdef")
    assert vm.read_memory(RAM + PAGE - 4, 8) == b"\0abcdef\0"
    assert vm.has_memory(RAM, PAGE) and not vm.has_memory(RAM, PAGE + 1) and not vm.has_memory(0, 1)


@pytest.mark.parametrize(
    ("ipa", "size"), [(0, 1), (RAM - 1, 2), (RAM + PAGE - 1, 2), (RAM + PAGE, 1)]
)
def test_access_outside_the_slots(vm: Vm, ipa: int, size: int) -> None:
    vm.set_user_memory_region(0, RAM, HostMemory(PAGE))
    for access in (lambda: vm.read_memory(ipa, size), lambda: vm.write_memory(ipa, bytes(size))):
        with pytest.raises(KvmError, match="EFAULT"):
            access()


def test_nothing_is_written_by_a_write_that_fails(vm: Vm) -> None:
    vm.set_user_memory_region(0, RAM, HostMemory(PAGE))
    with pytest.raises(KvmError, match="EFAULT"):
        vm.write_memory(RAM + PAGE - 4, b"12345678")
    assert vm.read_memory(RAM + PAGE - 4, 4) == bytes(4)


def test_populated_pages(vm: Vm) -> None:
    """By IPA, those with contents, wherever they were written."""
    vm.set_user_memory_region(1, RAM + GIB, HostMemory(4 * MIB))
    vm.set_user_memory_region(0, RAM, HostMemory(8 * MIB))
    for ipa in (RAM + GIB + 3 * MIB, RAM + 5 * MIB + 7, RAM):
        vm.write_memory(ipa, b"x")
    vm.write_memory(RAM + 6 * MIB, bytes(PAGE))
    pages = dict(vm.populated_pages())
    assert list(pages) == [RAM, RAM + 5 * MIB, RAM + GIB + 3 * MIB]
    assert pages[RAM + 5 * MIB] == b"\0" * 7 + b"x" + bytes(PAGE - 8)


# -- the tables --

SHAPES = {"16 GiB": s2.SMALL, "1 TiB": s2.LARGE}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_mapped_page_is_itself(shape: s2.Geometry, data: st.DataObject) -> None:
    """Wherever a slot lies: after a fault, its pages in the same 2 MiB are mapped one to one, and
    no others."""
    stage2 = Stage2(shape)
    last = (1 << shape.ipa_bits) // PAGE - 1
    first = data.draw(st.integers(0, last))
    pages = data.draw(st.integers(1, min(2048, last - first + 1)))
    readonly = data.draw(st.booleans())
    slot = MemorySlot(0, MEM_READONLY if readonly else 0, first * PAGE, HostMemory(pages * PAGE))
    fault = data.draw(st.integers(slot.ipa, slot.end - 1))
    stage2.map_around(fault, slot)
    assert stage2.entry(fault)
    near = data.draw(
        st.lists(
            st.integers(max(0, fault - 4 * MIB), min(fault + 4 * MIB, (1 << 40) - 1)), max_size=20
        )
    )
    for ipa in [fault, slot.ipa, slot.end - 1, max(0, slot.ipa - 1), slot.end, *near]:
        leaf = walk_stage2(stage2, ipa)
        if slot.ipa <= ipa < slot.end and ipa // (2 * MIB) == fault // (2 * MIB):
            assert (
                leaf is not None
                and leaf.output == ipa & -PAGE
                and leaf.descriptor == stage2.entry(ipa)
            )
            assert (leaf.readable, leaf.writable, leaf.execute_never) == (True, not readonly, True)
            assert leaf.descriptor & 1 << 10, "the access flag"
            assert leaf.descriptor >> 2 & 15 == 15, "normal memory, write-back"
            assert leaf.descriptor >> 8 & 3 == 3, "inner shareable"
        else:
            assert leaf is None


@pytest.mark.parametrize(
    ("top", "bits"), [(1, 34), (16 * GIB, 34), (16 * GIB + 1, 40), (1 << 40, 40)]
)
def test_the_shortest_walk(top: int, bits: int) -> None:
    assert s2.geometry(top).ipa_bits == bits


def test_more_than_40_bits() -> None:
    with pytest.raises(ValueError, match="40 bits"):
        s2.geometry((1 << 40) + 1)


def test_clear() -> None:
    stage2, slot = Stage2(s2.SMALL), MemorySlot(0, 0, RAM, HostMemory(4 * MIB))
    for _ in range(2):
        stage2.map_around(RAM, slot)
        stage2.map_around(RAM + 3 * MIB, slot)
        assert walk_stage2(stage2, RAM) and walk_stage2(stage2, RAM + 2 * MIB)
        stage2.clear()
        assert (
            not walk_stage2(stage2, RAM)
            and not walk_stage2(stage2, RAM + 2 * MIB)
            and not stage2.entry(RAM)
        )


def test_a_page_that_is_open_stays_so() -> None:
    """A later fault in the same 2 MiB leaves it as it is."""
    stage2 = Stage2(s2.SMALL)
    stage2.map_around(RAM, MemorySlot(0, 0, RAM, HostMemory(MIB)))
    stage2.set_entry(RAM, stage2.entry(RAM) & ~s2.XN)
    stage2.map_around(RAM + MIB, MemorySlot(1, 0, RAM + MIB, HostMemory(MIB)))
    assert walk_stage2(stage2, RAM).execute_never is False  # type: ignore[union-attr]
    assert walk_stage2(stage2, RAM + MIB).execute_never is True  # type: ignore[union-attr]


# -- what a guest does to them --


@both_engines
def test_execution_opens_a_page(kind: str) -> None:
    """Pages are execute-never until the first fetch, and then both writable and executable."""

    def write(a: Asm) -> None:
        a.mov(1, DATA)
        a.mov(2, 0xD65F_03C0)  # ret
        a.str_w(2, 1)
        a.blr(1)

    rig = run(write, kind)
    for page, execute_never in (
        (RAM, False),
        (DATA, False),
        (RAM + PAGE, True),
        (DATA + PAGE, True),
    ):
        leaf = walk_vm(rig.vm, page)
        assert leaf is not None and leaf.writable and leaf.execute_never is execute_never
    assert walk_vm(rig.vm, RAM + RAM_SIZE) is None
    assert walk_vm(rig.vm, RAM + 2 * MIB) is None, "nothing was touched there"


@both_engines
def test_a_read_only_slot(kind: str) -> None:
    """Loads and fetches are memory's; a store comes to the VMM and changes nothing by itself."""
    rom = 0x1000_0000

    def write(a: Asm) -> None:
        a.mov(1, rom)
        a.ldr_w(3, 1)
        a.str_w(3, 1, 4)
        a.blr(1)

    rig = Rig(kind=kind)
    rig.vm.set_user_memory_region(1, rom, HostMemory(PAGE), MEM_READONLY)
    rig.vm.write_memory(rom, struct.pack("<2I", 0xD65F_03C0, 5))
    rig.on_mmio = lambda vcpu, exit: False
    rig.start(program(write))
    rig.finish()
    assert rig.x(3) == 0xD65F_03C0
    assert rig.mmio == [(rom + 4, 4, True, 0xD65F_03C0)]
    assert rig.word(rom + 4, 4) == 5
    leaf = walk_vm(rig.vm, rom)
    assert leaf is not None and not leaf.writable and not leaf.execute_never


@both_engines
def test_a_store_to_a_rom_that_refuses_it(kind: str) -> None:
    rig = Rig(kind=kind)
    rig.vm.set_user_memory_region(1, 0, HostMemory(PAGE), MEM_READONLY)
    rig.vm.write_memory(0x200, program(lambda a: a.mrs(5, "ESR_EL1")).code())  # VBAR_EL1 is 0
    rig.start(program(lambda a: a.str_(0, 31, 8)))  # SP is 0
    rig.finish()  # the VMM of the rig refuses what is not its device
    assert rig.x(5) == 0x25 << 26 | 1 << 25 | 1 << 6 | 0x10


@both_engines
def test_code_that_the_vmm_writes(kind: str) -> None:
    """A loop is changed under a guest that has run it: the next round is the new code."""

    def write(a: Asm) -> None:
        a.mov(5, DEVICE)
        a.mov(1, 3)
        a.label("loop")
        a.movz(2, 1)
        a.str_(2, 5)
        a.subs_imm(1, 1, 1)
        a.b_cond(NE, "loop")

    code = program(write)

    def patch(vcpu: object, exit: MmioExit) -> None:
        rig.vm.write_memory(
            code["loop"], struct.pack("<I", 0xD280_0002 | exit.data + 1 << 5)
        )  # movz x2, #...

    rig = Rig(code, kind=kind)
    rig.on_mmio = patch
    rig.finish()
    assert [data for _, _, _, data in rig.mmio] == [1, 2, 3]


@both_engines
def test_memory_that_goes_away(kind: str) -> None:
    """After its slot is deleted the same address is a device's; made anew, it is memory again."""

    def write(a: Asm) -> None:
        a.mov(1, 0x5000_0000)
        a.mov(2, DEVICE)
        for _ in range(3):
            a.ldr(3, 1)
            a.str_(3, 2)

    def between(vcpu: object, exit: MmioExit) -> bool:
        if exit.phys_addr == 0x5000_0000:
            exit.data = 2
        return exit.phys_addr == DEVICE

    rig = Rig(kind=kind)
    memory = HostMemory(2 * MIB)
    memory.map[0] = 1
    rig.vm.set_user_memory_region(1, 0x5000_0000, memory)
    rig.on_mmio = between
    rig.start(program(write))
    rig.run()
    rig.vm.set_user_memory_region(1, 0, None)
    rig.run()
    memory.map[0] = 3
    rig.vm.set_user_memory_region(1, 0x5000_0000, memory)
    rig.run()
    assert [data for address, _, _, data in rig.mmio if address == DEVICE] == [1, 2, 3]


@both_engines
def test_large_geometry(kind: str) -> None:
    """A guest whose memory begins above 16 GiB: the walk starts a level higher."""
    high = 64 * GIB
    kvm = Kvm(engine=kind)
    vm = kvm.create_vm()
    vm.set_user_memory_region(0, high, HostMemory(MIB))
    vcpu = vm.create_vcpu(0)
    vcpu.exit_handler = lambda vcpu, exit: True
    a = Asm(high)
    a.adr(1, "data")
    a.movz(2, 77)
    a.str_(2, 1)
    power_off(a)
    a.align(8)
    a.label("data")
    vm.write_memory(high, a.code())
    vcpu.start(Start(high, 0))
    kvm.host.run()
    assert vm.mmu.stage2.shape == s2.LARGE
    assert vm.read_memory(a["data"], 8) == struct.pack("<Q", 77)
    leaf = walk_vm(vm, high)
    assert leaf is not None and leaf.output == high


def test_all_contexts_get_all_slots() -> None:
    """Whatever the order in which slots and vCPUs are made."""
    rig = Rig(vcpus=2)
    rig.vm.set_user_memory_region(1, 0x5000_0000, HostMemory(PAGE))
    rig.vm.write_memory(0x5000_0000, b"seen")
    for vcpu in rig.vcpus:
        assert vcpu.context.engine.read_physical(0x5000_0000, 4) == b"seen"
