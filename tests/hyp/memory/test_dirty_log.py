"""Memory slots that change, and dirty logging: every case of the API, and a guest's stores against
a model."""

from __future__ import annotations

from collections.abc import Callable

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
    errno_of,
    power_off,
    program,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.arch.translation import S2AP_WRITE
from armvirt.hyp.kvm import (
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
    Cap,
    HostMemory,
    Kvm,
    ManualProtect,
    MmioExit,
    Start,
    Vcpu,
    Vm,
)
from armvirt.hyp.memory.dirty_log import DirtyBitmap, bitmap_size, pages_of

PAGE, PAGES = 4096, 130
SLOT, BASE = 1, 0x5000_0000
MANUAL, INITIALLY = ManualProtect.ENABLE, ManualProtect.ENABLE | ManualProtect.INITIALLY_SET


def dirty(vm: Vm, slot: int = SLOT) -> set[int]:
    return set(pages_of(vm.get_dirty_log(slot)))


def slots_of(vm: Vm) -> object:
    return [
        (s.slot, s.flags, s.ipa, s.size, None if s.dirty is None else s.dirty.bits())
        for s in vm.mmu.slots.values()
    ]


@pytest.fixture
def vm() -> Vm:
    made = Kvm().create_vm()
    made.set_user_memory_region(SLOT, BASE, HostMemory(PAGES * PAGE))
    return made


def memory_of(vm: Vm) -> HostMemory:
    return vm.mmu.slots[SLOT].memory


# -- slots that change --


@pytest.mark.parametrize(
    ("change", "errno"),
    [
        (
            lambda vm: vm.set_user_memory_region(SLOT, BASE, memory_of(vm), memory_size=PAGE),
            "EINVAL",
        ),
        (lambda vm: vm.set_user_memory_region(SLOT, BASE, HostMemory(PAGES * PAGE)), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(SLOT, BASE, memory_of(vm), MEM_READONLY), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(SLOT, BASE, memory_of(vm), 1 << 2), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(SLOT, BASE + 1, memory_of(vm)), "EINVAL"),
        (
            lambda vm: vm.set_user_memory_region(2, RAM, HostMemory(PAGE), memory_size=2 * PAGE),
            "EINVAL",
        ),
        (lambda vm: vm.set_user_memory_region(2, RAM, HostMemory(2 * PAGE), offset=8), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(2, BASE + 129 * PAGE, HostMemory(PAGE)), "EEXIST"),
        (lambda vm: vm.set_user_memory_region(32767, RAM, HostMemory(PAGE)), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(1 << 16, RAM, HostMemory(PAGE)), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(2, 0, None), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(SLOT, (1 << 40) - PAGE, memory_of(vm)), "EFAULT"),
    ],
)
def test_a_slot_that_is_refused_changes_nothing(
    vm: Vm, change: Callable[[Vm], None], errno: str
) -> None:
    before = slots_of(vm)
    assert errno_of(lambda: change(vm)) == errno
    assert slots_of(vm) == before


def test_a_slot_that_is_moved(vm: Vm) -> None:
    vm.write_memory(BASE, b"here")
    vm.set_user_memory_region(2, RAM, HostMemory(PAGE))
    assert errno_of(lambda: vm.set_user_memory_region(SLOT, RAM - PAGE, memory_of(vm))) == "EEXIST"
    vm.set_user_memory_region(SLOT, BASE + PAGE, memory_of(vm))
    assert not vm.has_memory(BASE, 1) and vm.read_memory(BASE + PAGE, 4) == b"here"


def test_size_zero_deletes(vm: Vm) -> None:
    vm.set_user_memory_region(SLOT, BASE, memory_of(vm), memory_size=0)
    assert not vm.has_memory(BASE, 1) and not vm.mmu.slots


def test_two_slots_of_one_memory(vm: Vm) -> None:
    """As two mappings of one file: userspace_addr decides."""
    memory = HostMemory(4 * PAGE)
    vm.set_user_memory_region(2, RAM, memory, memory_size=2 * PAGE, offset=PAGE)
    vm.set_user_memory_region(3, RAM + 8 * PAGE, memory, memory_size=PAGE, offset=2 * PAGE)
    vm.write_memory(RAM + PAGE, b"both")
    assert vm.read_memory(RAM + 8 * PAGE, 4) == b"both" == memory.map[2 * PAGE : 2 * PAGE + 4]


@both_engines
def test_a_guest_sees_its_memory_move(kind: str) -> None:
    def write(a: Asm) -> None:
        a.mov(1, BASE)
        a.mov(2, DEVICE)
        for _ in range(2):
            a.ldr(3, 1)
            a.str_(3, 2)

    rig = Rig(kind=kind)
    memory = HostMemory(PAGE)
    memory.map[0] = 7
    rig.vm.set_user_memory_region(SLOT, BASE, memory)
    rig.on_mmio = lambda vcpu, exit: setattr(exit, "data", exit.data or 9) or exit.is_write
    a = Asm(RAM)
    write(a)
    power_off(a)
    rig.start(a)
    rig.run()
    rig.vm.set_user_memory_region(SLOT, BASE + 16 * PAGE, memory)
    rig.run()
    assert [data for address, _, is_write, data in rig.mmio if is_write] == [7, 9]


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        (lambda vm: vm.set_user_memory_region(SLOT, BASE, None, 1 << 2), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(SLOT, BASE + 1, None), "EINVAL"),
        (
            lambda vm: vm.set_user_memory_region(SLOT, BASE, memory_of(vm), 1 << 5, memory_size=0),
            "EINVAL",
        ),
        (lambda vm: vm.set_user_memory_region(1 << 16 | SLOT, BASE, None), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(2, (1 << 64) - PAGE, HostMemory(2 * PAGE)), "EINVAL"),
        (lambda vm: vm.set_user_memory_region(2, -PAGE, HostMemory(PAGE)), "EINVAL"),
    ],
)
def test_a_deletion_is_checked_like_any_other_call(
    vm: Vm, call: Callable[[Vm], None], errno: str
) -> None:
    """Flags and alignment come before what the call would do; so does an end beyond 64 bits."""
    before = slots_of(vm)
    assert errno_of(lambda: call(vm)) == errno
    assert slots_of(vm) == before


@pytest.mark.parametrize("change", ["log off", "another slot deleted", "moved"])
def test_what_the_guest_wrote_is_found_although_its_mappings_are_gone(change: str) -> None:
    """`populated_pages` is how a VMM saves memory: stage 2 is emptied, the contents are not."""
    rig = Rig()
    memory = HostMemory(4 << 20)
    rig.vm.set_user_memory_region(SLOT, BASE, memory)
    rig.vm.set_user_memory_region(2, BASE + (8 << 20), HostMemory(PAGE))
    far = 3 << 20
    rig.start(program(lambda a: (a.mov(1, BASE + far), a.str_(1, 1))))
    rig.finish()
    base = BASE
    if change == "log off":
        for flags in (MEM_LOG_DIRTY_PAGES, 0):
            rig.vm.set_user_memory_region(SLOT, BASE, memory, flags)
    elif change == "moved":
        base += 16 << 20
        rig.vm.set_user_memory_region(SLOT, base, memory)
    else:
        rig.vm.set_user_memory_region(2, 0, None)
    assert dict(rig.vm.populated_pages())[base + far][:8] == (BASE + far).to_bytes(8, "little")


@both_engines
@pytest.mark.parametrize("change", ["delete", "move", "read-only", "log"])
def test_a_slot_that_changes_under_a_running_guest(kind: str, change: str) -> None:
    """From its own exit handler: the very next access follows, of this vCPU and of the other, who
    has it in its TLB."""
    rig = Rig(kind=kind, vcpus=2)
    memory = HostMemory(PAGE)
    rig.vm.set_user_memory_region(SLOT, BASE, memory)
    a = Asm(RAM)
    a.mov(1, BASE)
    a.mov(2, DEVICE)
    a.label("loop")
    a.ldr(3, 1)
    a.add_imm(3, 3, 1)
    a.str_(3, 1)
    a.str_(3, 2)
    a.sev()
    a.wfe()
    a.wfe()  # the second one waits for the other vCPU's SEV: its turn
    a.b("loop")
    seen: list[tuple[int, int, bool]] = []
    changed = []

    def answer(vcpu: Vcpu, exit: MmioExit) -> bool:
        if changed:
            seen.append((vcpu.id, exit.phys_addr, exit.is_write))
        elif len(rig.mmio) == 10:
            changed.append(vcpu.id)
            if change == "move":
                rig.vm.set_user_memory_region(SLOT, BASE + PAGE, memory)
            elif change == "log":
                rig.vm.set_user_memory_region(SLOT, BASE, memory, MEM_LOG_DIRTY_PAGES)
            else:
                rig.vm.set_user_memory_region(SLOT, 0, None)
                if change == "read-only":
                    rig.vm.set_user_memory_region(SLOT, BASE, memory, MEM_READONLY)
        return len(seen) >= 12

    rig.on_mmio = answer
    rig.start(a)
    rig.vcpus[1].start(Start(RAM, 0))
    rig.run()
    reads = [(vcpu, is_write) for vcpu, address, is_write in seen if address == BASE]
    expected = {"delete": {False, True}, "move": {False, True}, "read-only": {True}, "log": set()}[
        change
    ]
    for vcpu in (0, 1):
        assert {is_write for who, is_write in reads if who == vcpu} == expected
    if change == "log":
        assert dirty(rig.vm) == {0}


# -- the log: what is refused --


def test_a_slot_without_a_log(vm: Vm) -> None:
    for slot in (SLOT, 5):
        assert errno_of(lambda slot=slot: vm.get_dirty_log(slot)) == "ENOENT"
        assert errno_of(lambda slot=slot: vm.clear_dirty_log(slot, 0, 64, bytes(8))) == "ENOENT"
    for slot in (-1, 32767, 1 << 16):
        assert errno_of(lambda slot=slot: vm.get_dirty_log(slot)) == "EINVAL"


@pytest.mark.parametrize(
    ("first", "count"),
    [
        (1, 64),
        (63, 64),
        (0, 1),
        (0, 65),
        (64, 65),
        (128, 1),
        (128, 3),
        (192, 0),
        (0, 131),
        (0, 192),
    ],
)
def test_ranges_that_cannot_be_cleared(vm: Vm, first: int, count: int) -> None:
    """130 pages: the start is a multiple of 64, and so is the length unless it ends with the
    slot."""
    log(vm)
    vm.write_memory(BASE, bytes(PAGES * PAGE))
    before = slots_of(vm)
    assert errno_of(lambda: vm.clear_dirty_log(SLOT, first, count, b"\xff" * 24)) == "EINVAL"
    assert slots_of(vm) == before


@pytest.mark.parametrize(
    ("first", "count"), [(0, 130), (0, 64), (0, 128), (64, 66), (128, 2), (128, 0)]
)
def test_ranges_that_can(vm: Vm, first: int, count: int) -> None:
    vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, MANUAL)
    log(vm)
    vm.write_memory(BASE, bytes(PAGES * PAGE))
    vm.clear_dirty_log(SLOT, first, count, b"\xff" * 24)
    assert dirty(vm) == set(range(PAGES)) - set(range(first, first + count))


@pytest.mark.parametrize("flags", [2, 4, 7])
def test_manual_protection_that_is_refused(vm: Vm, flags: int) -> None:
    assert errno_of(lambda: vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, flags)) == "EINVAL"
    assert errno_of(lambda: vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, 1, flags)) == "EINVAL"
    assert vm.mmu.manual_protect == ManualProtect.NONE


def log(vm: Vm, on: bool = True) -> None:
    vm.set_user_memory_region(SLOT, BASE, memory_of(vm), MEM_LOG_DIRTY_PAGES if on else 0)


# -- the log: what it says --


def test_a_bitmap_is_whole_words() -> None:
    assert [bitmap_size(n) for n in (1, 64, 65, 130)] == [8, 8, 16, 24]
    assert set(pages_of(DirtyBitmap(130, full=True).bits())) == set(range(130))


def test_writes_of_the_hypervisor_are_logged(vm: Vm) -> None:
    vm.write_memory(BASE, b"before")
    log(vm)
    assert dirty(vm) == set()
    vm.write_memory(BASE + 3 * PAGE - 1, b"ab")
    vm.read_memory(BASE + 50 * PAGE, 8)
    vm.write_memory(BASE + 40 * PAGE, b"")
    assert dirty(vm) == {2, 3} and dirty(vm) == set()


def test_manual_protection(vm: Vm) -> None:
    """GET leaves the bits; CLEAR takes those that it names."""
    vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, MANUAL)
    log(vm)
    for page in (1, 70, 129):
        vm.write_memory(BASE + page * PAGE, b"x")
    assert dirty(vm) == dirty(vm) == {1, 70, 129}
    vm.clear_dirty_log(SLOT, 64, 66, (1 << 6 | 1 << 7).to_bytes(9, "little"))
    assert dirty(vm) == {1, 129}


def test_initially_set(vm: Vm) -> None:
    vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, INITIALLY)
    log(vm)
    assert dirty(vm) == set(range(PAGES))


def test_the_log_ends_with_the_flag_and_moves_with_the_slot(vm: Vm) -> None:
    log(vm)
    vm.write_memory(BASE, b"x")
    vm.set_user_memory_region(SLOT, BASE + PAGE, memory_of(vm), MEM_LOG_DIRTY_PAGES)
    assert dirty(vm) == {0}
    vm.set_user_memory_region(SLOT, BASE + PAGE, memory_of(vm))
    assert errno_of(lambda: vm.get_dirty_log(SLOT)) == "ENOENT"
    vm.set_user_memory_region(SLOT, BASE + PAGE, memory_of(vm), MEM_LOG_DIRTY_PAGES)
    assert dirty(vm) == set(), "a new log"


# -- a guest's own stores --


class Logged:
    """A guest that stores where it is told: the device gives it address and data, 0 ends it."""

    def __init__(self, kind: str = "auto", manual: int = 0, vcpus: int = 1) -> None:
        self.rig = Rig(kind=kind, vcpus=vcpus)
        self.vm = self.rig.vm
        self.memory = HostMemory(PAGES * PAGE)
        self.vm.set_user_memory_region(SLOT, BASE, self.memory)
        if manual:
            self.vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, manual)
        self.todo: list[int] = []
        self.rig.on_mmio = self._answer
        self.rig.start(self._program())
        self.go()

    def _program(self) -> Asm:
        a = Asm(RAM)
        a.mov(1, DEVICE)
        a.label("next")
        a.ldr(2, 1)  # what to do
        a.ldr(3, 1, 8)  # where
        a.cmp_imm(2, 1)
        a.b_cond(NE, "load")
        a.str_(1, 3)
        a.b("next")
        a.label("load")
        a.cmp_imm(2, 2)
        a.b_cond(NE, "exclusive")
        a.ldr(4, 3)
        a.b("next")
        a.label("exclusive")
        a.ldxr(4, 3)
        a.add_imm(4, 4, 1)
        a.stxr(5, 4, 3)
        a.cbnz(5, "exclusive")
        a.b("next")
        return a

    def _answer(self, vcpu: object, exit: MmioExit) -> bool:
        exit.data = self.todo.pop(0) if self.todo else 0
        if exit.phys_addr == DEVICE + 8:
            return False
        if exit.data:
            return False
        exit.data = 2  # a harmless load, while the VMM has the word
        self.todo.append(BASE)
        return True

    def go(self) -> None:
        self.rig.run()

    def _one(self, what: int, ipa: int) -> None:
        assert not self.todo or self.todo == [BASE]
        self.todo += [what, ipa]
        self.go()

    def store(self, ipa: int) -> None:
        self._one(1, ipa)

    def load(self, ipa: int) -> None:
        self._one(2, ipa)

    def add(self, ipa: int) -> None:
        self._one(3, ipa)


@both_engines
def test_a_store_is_logged_and_a_load_is_not(kind: str) -> None:
    guest = Logged(kind)
    guest.store(BASE + 5 * PAGE)
    log(guest.vm)
    guest.load(BASE + 6 * PAGE)
    assert dirty(guest.vm) == set()
    guest.store(BASE + 5 * PAGE)
    guest.store(BASE + 7 * PAGE + 8)
    assert dirty(guest.vm) == {5, 7} and dirty(guest.vm) == set()
    guest.store(BASE + 5 * PAGE)
    assert dirty(guest.vm) == {5}, "the page was protected again, and no TLB has the permission"


@both_engines
def test_an_exclusive_is_a_store(kind: str) -> None:
    guest = Logged(kind)
    log(guest.vm)
    guest.add(BASE + 9 * PAGE)
    guest.add(BASE + 9 * PAGE)
    assert dirty(guest.vm) == {9} and guest.rig.word(BASE + 9 * PAGE) == 2


@both_engines
def test_initially_set_protects_at_the_first_clear(kind: str) -> None:
    """The mappings of before stay writable, for they are dirty anyway."""
    guest = Logged(kind, INITIALLY)
    guest.store(BASE)
    log(guest.vm)
    assert guest.vm.mmu.stage2.entry(BASE) & S2AP_WRITE
    guest.vm.clear_dirty_log(SLOT, 0, PAGES, b"\xff" * 24)
    assert not guest.vm.mmu.stage2.entry(BASE) & S2AP_WRITE and dirty(guest.vm) == set()
    guest.store(BASE + 3 * PAGE)
    assert dirty(guest.vm) == {3}


@both_engines
def test_without_a_log_nothing_is_protected(kind: str) -> None:
    guest = Logged(kind)
    log(guest.vm)
    guest.load(BASE)
    log(guest.vm, False)
    guest.load(BASE)
    assert all(guest.vm.mmu.stage2.entry(BASE + n * PAGE) & S2AP_WRITE for n in range(PAGES))


@both_engines
def test_the_log_costs_the_guest_no_time(kind: str) -> None:
    """Faults that EL2 repairs count nothing: the same run, to the instruction."""
    ends = []
    for flags in (0, MEM_LOG_DIRTY_PAGES):
        rig = Rig(kind=kind)
        rig.vm.set_user_memory_region(SLOT, BASE, HostMemory(PAGES * PAGE), flags)
        a = Asm(RAM)
        a.mov(1, BASE)
        a.mov(2, PAGES // 2)
        a.label("loop")
        a.str_post(2, 1, 8)
        a.add_imm(1, 1, 4088)
        a.subs_imm(2, 2, 1)
        a.b_cond(NE, "loop")
        power_off(a)
        rig.start(a)
        rig.finish()
        ends.append((rig.vcpu.context.insns, rig.host.clock.now))
        if flags:
            assert dirty(rig.vm) == set(range(PAGES // 2))
    assert ends[0] == ends[1]


@both_engines
def test_a_log_that_is_taken_while_the_guest_runs(kind: str) -> None:
    """In the middle of a run, from an exit handler: the very next store is noticed."""
    rig = Rig(kind=kind)
    memory = HostMemory(PAGE)
    rig.vm.set_user_memory_region(SLOT, BASE, memory, MEM_LOG_DIRTY_PAGES)
    a = Asm(RAM)
    a.mov(1, BASE)
    a.mov(2, DEVICE)
    for _ in range(3):
        a.str_(1, 1)
        a.str_(1, 2)
    power_off(a)
    seen: list[set[int]] = []
    rig.on_mmio = lambda vcpu, exit: seen.append(dirty(rig.vm))
    rig.start(a)
    rig.finish()
    assert seen == [{0}, {0}, {0}]


@both_engines
def test_every_cpu_is_protected(kind: str) -> None:
    """A vCPU that holds a writable translation loses it, too."""
    rig = Rig(kind=kind, vcpus=2)
    rig.vm.set_user_memory_region(SLOT, BASE, HostMemory(PAGE), MEM_LOG_DIRTY_PAGES)
    a = Asm(RAM)
    a.mov(1, BASE)
    a.mov(2, DEVICE)
    a.label("loop")
    a.str_(1, 1)
    a.str_(1, 2)
    a.sev()
    a.wfe()
    a.wfe()  # the second one waits for the other vCPU's SEV: its turn
    a.b("loop")
    seen: list[tuple[int, set[int]]] = []
    rig.on_mmio = lambda vcpu, exit: seen.append((vcpu.id, dirty(rig.vm))) or len(seen) >= 20
    rig.start(a)
    rig.vcpus[1].start(Start(RAM, 0))
    rig.run()
    assert {vcpu for vcpu, _ in seen} == {0, 1}, "both had a turn"
    assert len(seen) == 20 and all(pages == {0} for _, pages in seen)


ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["store", "load", "add", "device"]), st.integers(0, PAGES * 512 - 1)),
    st.tuples(st.sampled_from(["get", "clear"]), st.integers(0, (1 << PAGES) - 1)),
)


@pytest.mark.parametrize("manual", [0, MANUAL, INITIALLY])
@settings(max_examples=25, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25))
def test_against_a_model(manual: int, actions: list[tuple[str, int]]) -> None:
    """Byte for byte: what a copy lacks that was brought up to date by the log is in the log."""
    guest = Logged(manual=manual)
    vm = guest.vm
    log(vm)
    copy = bytearray(guest.memory.map[:])
    expected = set(range(PAGES)) if manual == INITIALLY else set()
    for action, number in actions:
        if action in ("get", "clear"):
            found = dirty(vm)
            assert found == expected
            chosen = found
            if manual:
                chosen = (
                    {page for page in found if number >> page & 1} if action == "clear" else set()
                )
                vm.clear_dirty_log(
                    SLOT, 0, PAGES, sum(1 << page for page in chosen).to_bytes(24, "little")
                )
            for page in chosen:
                copy[page * PAGE : (page + 1) * PAGE] = guest.memory.map[
                    page * PAGE : (page + 1) * PAGE
                ]
            expected -= chosen
            continue
        ipa = BASE + number * 8
        if action == "device":
            vm.write_memory(ipa, number.to_bytes(8, "little"))
        else:
            getattr(guest, action)(ipa)
        if action != "load":
            expected.add(number // 512)
    here = guest.memory.map
    differs = {
        n
        for n in range(PAGES)
        if copy[n * PAGE : (n + 1) * PAGE] != here[n * PAGE : (n + 1) * PAGE]
    }
    assert differs <= expected
    assert dirty(vm) == expected


def test_code_that_runs_from_a_logged_slot() -> None:
    """Fetches open a page for execution and dirty nothing."""
    rig = Rig()
    rig.vm.set_user_memory_region(0, RAM, rig.ram, MEM_LOG_DIRTY_PAGES)
    a = Asm(RAM)
    a.mov(1, DATA)
    a.str_(1, 1)
    power_off(a)
    rig.start(a)
    assert dirty(rig.vm, 0) == {0}, "the program that the VMM wrote"
    rig.finish()
    assert dirty(rig.vm, 0) == {(DATA - RAM) // PAGE} and RAM_SIZE > DATA - RAM
