"""The virt board on the KVM API: memory map, loading, MMIO exits, reset, saved state."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from elf_builder import TEXT, Load, elf

from armvirt.board.board import Board
from armvirt.board.config import BoardConfig
from armvirt.board.console import Console
from armvirt.board.virt import memmap
from armvirt.bundled import guests
from armvirt.errors import UserError
from armvirt.events import EventBus
from armvirt.hyp.kvm import MmioExit, Stop, SystemEventExit

MIB = 1 << 20
NEVER = (1 << 64) - 1
HELLO = guests()["hello"].path
WORDS = b"".join(
    word.to_bytes(4, "little") for word in (0xD503201F, 0xD503201F, 0x17FFFFFF)
)  # nop; nop; b .-4


def build(image: Path | None = HELLO, **options: object) -> Board:
    options.setdefault("memory", 32 * MIB)
    bus = EventBus()
    return Board(BoardConfig(image=image, **options), bus, Console())  # type: ignore[arg-type]


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    path = tmp_path / "words.bin"
    path.write_bytes(WORDS)
    return path


def mmio(board: Board, address: int, size: int = 4, write: int | None = None) -> MmioExit:
    """An access as a vCPU's exit brings it."""
    exit = MmioExit(address, size, write is not None, write or 0)
    assert not board.vcpus[0].exit_handler(board.vcpus[0], exit)  # type: ignore[misc]
    return exit


# -- what is where --


def test_an_elf_guest() -> None:
    board = build()
    loaded = board.loaded[0]
    assert board.entered is loaded and board.vcpus[0].context.pc == loaded.entry
    for segment in loaded.segments:
        assert board.vm.read_memory(segment.address, len(segment.data)) == segment.data
    at, blob, initrd = board.tree
    assert at == board.vcpus[0].context.x(0) == memmap.RAM_BASE, (
        "a test guest looks for its tree there"
    )
    assert board.vm.read_memory(at, len(blob)) == blob == board.dump_dtb() and initrd is None


def test_a_flat_guest(flat: Path) -> None:
    board = build(flat)
    entry = memmap.RAM_BASE + 0x80000
    assert board.vcpus[0].context.pc == entry and board.vm.read_memory(entry, len(WORDS)) == WORDS
    assert build(flat, load_addr=memmap.RAM_BASE + MIB).vcpus[0].context.pc == memmap.RAM_BASE + MIB


def test_an_initrd(tmp_path: Path) -> None:
    """In memory, page-aligned, and in the tree by start and end."""
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(range(256)) * 20)
    board = build(initrd=initrd)
    start = board.tree[2]
    assert start is not None and start % 4096 == 0
    assert board.vm.read_memory(start, 5120) == initrd.read_bytes()
    blob = board.dump_dtb()
    assert b"linux,initrd-start" in blob
    assert start.to_bytes(8, "big") in blob and (start + 5120).to_bytes(8, "big") in blob


def test_a_rom(flat: Path) -> None:
    """It is entered, at 0; the guest cannot write it, and the flash banks do not answer as
    flash."""
    board = build(None, bios=flat)
    assert board.vcpus[0].context.pc == 0 and board.vm.read_memory(0, len(WORDS)) == WORDS
    assert board.vm.mmu.find(0).readonly  # type: ignore[union-attr]
    assert not mmio(board, memmap.ROM.end, write=0x98).abort
    both = build(HELLO, bios=flat)
    assert both.vcpus[0].context.pc == 0 and both.entered.kind == "bios"
    segment = both.loaded[0].segments[0]
    assert both.vm.read_memory(segment.address, 16) == segment.data[:16]


def test_the_other_cpus_are_off() -> None:
    board = build(cpus=4)
    assert [vcpu.runnable for vcpu in board.vcpus] == [True, False, False, False]
    assert board.dump_dtb().count(b"cpu@") == 4
    assert [vcpu.mpidr & 0xFFFFFF for vcpu in board.vcpus] == [0, 1, 2, 3]


def test_arguments_reach_the_tree() -> None:
    board = build(append="console=ttyAMA0 quiet", cpu="cortex-a53")
    assert b"console=ttyAMA0 quiet\0" in board.dump_dtb()
    assert board.command_line == f"{HELLO} console=ttyAMA0 quiet"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"image": None}, "no guest"),
        ({"cpus": 0}, "1 to 123 CPUs"),
        ({"cpus": 124}, "1 to 123 CPUs"),
        ({"memory": memmap.RAM_MIN // 2}, "--mem"),
        ({"memory": memmap.RAM_MAX + MIB}, "--mem"),
    ],
)
def test_boards_that_cannot_be(options: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        build(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("cntvoff", [None, 0, 1, 0x1000_0000, (1 << 64) - 1])
def test_the_offset_of_the_virtual_count(cntvoff: int | None) -> None:
    board = build(cntvoff=cntvoff)
    start = board.kvm.host.pe.timer.counter.start
    assert board.vm.timer_data.voffset == (start if cntvoff is None else cntvoff)


# -- exits --


def test_device_exits() -> None:
    board = build()
    assert mmio(board, memmap.UART.base + 0xFE0).data == 0x11, "PeriphID0 of a PL011"
    assert mmio(board, memmap.RTC.base + 0xFE0).data == 0x31
    mmio(board, memmap.UART.base, 1, ord("!"))
    assert board.console.output == b"!"


@pytest.mark.parametrize(
    "address", [0x0B00_0000, memmap.UART.end + 0x10_0000, memmap.RAM_BASE + 64 * MIB]
)
@pytest.mark.parametrize("write", [None, 1])
def test_nobody_answers(address: int, write: int | None) -> None:
    assert mmio(build(), address, 4, write).abort


def test_an_end_stops_the_run() -> None:
    board = build()
    assert board.run(NEVER, NEVER) is Stop.HANDLER
    assert board.event == SystemEventExit("shutdown", 0)
    assert b"VERDICT: PASS" in board.console.output


def test_a_gicv2() -> None:
    """Its frames, its CPUs' numbers, and a message that becomes an SPI."""
    board = build(gic=2, cpus=8)
    vgic, memory = (
        board.vm.vgic,
        {name: getattr(memmap, name).base for name in ("GICD", "GICC", "GICV2M")},
    )
    assert vgic is not None and vgic.model == 2
    assert [frame.base for frame in vgic.mmio_frames()] == [memory["GICD"], memory["GICC"]]
    assert mmio(board, memory["GICV2M"] + 8).data == 80 << 16 | 64
    mmio(board, memory["GICV2M"] + 0x40, write=143)
    assert vgic.dist.irq(None, 143).pending and not vgic.dist.irq(None, 143).line_level
    assert b"arm,cortex-a15-gic" in board.dump_dtb() and b"arm,gic-v2m-frame" in board.dump_dtb()


def test_a_gicv3_has_no_message_frame() -> None:
    assert mmio(build(), memmap.GICV2M.base + 8).abort


def test_lines_reach_the_gic() -> None:
    board = build()
    board.devices["uart"]._irq(1)
    assert board.vm.vgic is not None
    rows = {row["intid"]: row for row in board.vm.vgic.rows()}
    assert memmap.INTIDS["uart"] in rows
    board.devices["uart"]._irq(0)


# -- reset --


def test_reset(flat: Path) -> None:
    """Images are there again, RAM beside them stays, devices and vCPUs are as at the start, time
    goes on."""
    board = build(flat, cpus=2)
    entry = board.entered.entry
    board.run(10, NEVER)
    board.vm.write_memory(entry, bytes(4))
    board.vm.write_memory(entry + 0x1000, b"kept")
    mmio(board, memmap.UART.base + 0x38, 4, 0x10)
    board.reset()
    assert board.vm.read_memory(entry, len(WORDS)) == WORDS
    assert board.vm.read_memory(entry + 0x1000, 4) == b"kept"
    assert mmio(board, memmap.UART.base + 0x38).data == 0
    assert [vcpu.runnable for vcpu in board.vcpus] == [True, False]
    assert board.vcpus[0].context.pc == entry and board.vm.timers.now == 10
    assert board.run(12, NEVER) is Stop.UNTIL and board.vcpus[0].context.pc == entry + 8


def test_the_zeros_of_an_image_come_back() -> None:
    """.bss of an ELF guest is zero after a reset too."""
    board = build()
    bss = next(s for s in board.loaded[0].segments if s.size > len(s.data))
    at = bss.address + len(bss.data)
    board.vm.write_memory(at, b"dirty")
    board.reset()
    assert board.vm.read_memory(at, 5) == bytes(5)


def test_zeros_as_large_as_ram_take_no_memory(tmp_path: Path) -> None:
    """Only what is there is cleared, to the byte; what lies between two segments stays."""
    path, size = tmp_path / "guest.elf", 300 << 20
    first, second = Load(TEXT, WORDS, memsz=0x1800), Load(TEXT + 0x1900, WORDS, memsz=size)
    path.write_bytes(elf([first, second]))
    board = build(path, memory=512 * MIB)
    dirty = [
        TEXT + len(WORDS),
        TEXT + 0x17FC,
        TEXT + 0x1880,
        TEXT + 0x1900 + len(WORDS),
        TEXT + 0x1900 + size - 4,
    ]
    for at in (*dirty, TEXT + 0x1900 + size):
        board.vm.write_memory(at, b"full")
    tracemalloc.start()
    board.reset()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kept = [board.vm.read_memory(at, 4) == b"full" for at in (*dirty, TEXT + 0x1900 + size)]
    assert kept == [False, False, True, False, False, True]
    assert board.vm.read_memory(TEXT + 0x1900, len(WORDS)) == WORDS
    assert peak < 16 << 20


def test_a_guest_runs_the_same_after_a_reset() -> None:
    board = build()
    board.run(NEVER, NEVER)
    first, length = bytes(board.console.output), board.vm.timers.now
    board.reset()
    board.run(NEVER, NEVER)
    assert board.console.output[len(first) :].split(b"VERDICT")[1:] == first.split(b"VERDICT")[1:]
    assert abs(board.vm.timers.now - 2 * length) < length // 10


# -- state and digest --


def test_state() -> None:
    board, other = build(cpus=2), build(cpus=2)
    board.run(5000, NEVER)
    state = json.loads(json.dumps(board.state()))
    other.load(state)
    assert other.state() == state == board.state()
    assert other.insns == board.insns == 5000


def test_the_digest_knows_registers_and_memory() -> None:
    board = build()
    digests = [board.final_state()]
    board.vcpus[0].context.set_x(5, 1)
    digests.append(board.final_state())
    board.vm.write_memory(memmap.RAM_BASE + 20 * MIB, b"x")
    digests.append(board.final_state())
    assert len(set(digests)) == 3 and digests[2] == board.final_state()


def test_the_digest_does_not_know_how_zeros_came_about() -> None:
    board = build()
    before = board.final_state()
    board.vm.write_memory(memmap.RAM_BASE + 20 * MIB, bytes(4096))
    assert board.final_state() == before


# -- the ITS --


def test_a_gicv3_has_an_its() -> None:
    board = build()
    assert [its.base for its in board.vm.vgic_of().its] == [memmap.ITS.base]
    assert b"its@8080000" in board.dump_dtb()
    for without in (build(its=False), build(gic=2)):
        assert without.vm.vgic_of().its == []
        assert b"its@" not in without.dump_dtb()


def test_a_reset_board_has_a_reset_its() -> None:
    board = build()
    before = board.vm.vgic_of().state()
    its = board.vm.vgic_of().its[0]
    its.map_device(3, 0x4000_0000, 5)
    its.cbaser, its.enabled = 1 << 63, True
    board.vm.vgic_of().dist.propbaser = 0x4000_000F
    board.reset()
    assert board.vm.vgic_of().state() == before
