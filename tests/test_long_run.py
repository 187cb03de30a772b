"""Long runs take bounded memory: a guest whose code always changes, and one that prints without
end."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from asm import Asm
from conftest import with_path

from armvirt.board import console as board_console
from armvirt.hw.engine import core
from armvirt.hw.engine.portable import marks
from armvirt.machine import Machine, Result

MIB = 1 << 20
CODE, BLOCK_WORDS = 0x4080_0000, 32
POWER_OFF = 0x8400_0008
KINDS = ("native", "portable")
PRINTS = 3 * MIB


def ever_new_code(folder: Path, kind: str, mib: float, *last: int) -> Machine:
    """A guest that executes so much code once, in blocks of 32 words: additions and ``last`` (by
    default B to the next block)."""
    a = Asm(0x4020_0000)
    a.set_vectors()
    a.mov(1, CODE)
    a.br(1)
    a.vectors(lambda a, offset: a.eret())
    guest = folder / "new.bin"
    guest.write_bytes(a.code())
    machine = Machine(guest, load_addr=a.base, memory="128M", engine=kind, trace_hash=False)
    last = last or (0x1400_0001,)
    block = struct.pack(f"<{BLOCK_WORDS}I", *[0x9100_0400] * (BLOCK_WORDS - len(last)), *last)
    end = Asm(CODE + int(mib * MIB))
    end.mov(0, POWER_OFF)
    end.hvc(0)
    machine.board.vm.write_memory(CODE, block * (int(mib * MIB) // len(block)) + end.code())
    return machine


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_code_buffer_changes_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that is translated is dropped on the way, in the midst of a run; nothing is executed
    twice or left out."""
    ends: list[tuple[Result, bytes]] = []
    for size in (core.CODE_BUFFER, MIB):
        monkeypatch.setattr(core, "CODE_BUFFER", size)
        with ever_new_code(tmp_path, kind, 0.5) as machine:
            result = machine.run()
            ends.append((result, machine.board.final_state()))
    assert ends[0] == ends[1] and ends[0][0].verdict == "off"
    assert ends[0][0].insns > MIB // 8


def test_a_full_code_buffer_while_a_wfe_is_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The native engine translates an ISB in its place. The guest reads each WFE as data, behind
    it, and adds them; its sum and its memory are those of the portable engine, which translates the
    WFE itself."""
    sevl, wfe, adr_of_wfe, load, add = (
        0xD503_20BF,
        0xD503_205F,
        0x10FF_FFE2,
        0xB940_0043,
        0x8B03_00A5,
    )
    ends: list[tuple[Result, bytes]] = []
    for kind, size in (
        ("portable", core.CODE_BUFFER),
        ("native", core.CODE_BUFFER),
        ("native", MIB),
    ):
        monkeypatch.setattr(core, "CODE_BUFFER", size)
        with ever_new_code(
            tmp_path, kind, 0.25, sevl, wfe, adr_of_wfe, load, add, 0x1400_0001
        ) as machine:
            result = machine.run()
            ends.append((result, machine.board.final_state()))
    assert ends[0] == ends[1] == ends[2] and ends[0][0].verdict == "off"


@pytest.mark.parametrize("kind", KINDS)
def test_a_guest_is_the_same_in_a_small_code_buffer(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for size in (core.CODE_BUFFER, MIB):
        monkeypatch.setattr(core, "CODE_BUFFER", size)
        with Machine("mmu-el0", engine=kind) as machine:
            results.append(machine.run())
    assert results[0] == results[1]


def test_marks_of_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the portable engine has seen too many blocks that end in YIELD, it looks at every
    block."""
    ends = []
    for limit in (marks.MARKED_ADDRESSES, 16):
        monkeypatch.setattr(marks, "MARKED_ADDRESSES", limit)
        with ever_new_code(tmp_path, "portable", 0.01, 0xD503_203F) as machine:
            ends.append((machine.run(), machine.board.final_state()))
            marked = machine.board.vcpus[0].context.engine._marked  # type: ignore[attr-defined]
            assert (type(marked) is set) == (limit > 16) and len(marked) < 100
    assert ends[0] == ends[1]


PROGRAM = """
from pathlib import Path
import test_long_run as t
from armvirt.hw.engine import core
from armvirt.board import console
core.CODE_BUFFER, console.KEPT = {buffer}, {kept}
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
{what}
print(after - before)
"""
NEW_CODE = """
machine = t.ever_new_code(Path({folder!r}), {kind!r}, 8)
machine.run_until(insns=machine.insns + 250_000)
before = rss()
assert machine.run().verdict == "off"
after = rss()
"""
PRINTING = """
machine = t.printing(Path({folder!r}), t.PRINTS)
machine.run_until(insns=200_000)
before = rss()
assert machine.run().verdict == "off"
after = rss()
assert machine.console.printed == t.PRINTS
"""


def growth(
    what: str, folder: Path, kind: str = "native", buffer: int = 4 * MIB, kept: int = 64 << 10
) -> int:
    """By how many bytes the process grows in a run, after its start."""
    what = what.format(folder=str(folder), kind=kind)
    program = PROGRAM.format(buffer=buffer, kept=kept, what=what)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=with_path(),
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def printing(folder: Path, count: int) -> Machine:
    """A guest that prints so many bytes, lines of 64."""
    a = Asm(0x4020_0000)
    a.mov(1, 0x0900_0000)
    a.mov(3, count // 64)
    a.label("again")
    a.mov(2, ord("x"))
    for _ in range(63):
        a.str_w(2, 1)
    a.mov(2, ord("\n"))
    a.str_w(2, 1)
    a.subs_imm(3, 3, 1)
    a.cbnz(3, "again")
    a.mov(0, POWER_OFF)
    a.hvc(0)
    guest = folder / "printing.bin"
    guest.write_bytes(a.code())
    return Machine(guest, load_addr=a.base, memory="64M", trace_hash=False)


@pytest.mark.parametrize("kind", KINDS)
def test_ever_new_code_takes_no_more_than_the_buffer(kind: str, tmp_path: Path) -> None:
    """Two million instructions are 25 MiB of translated code; there are 4 MiB for it."""
    assert growth(NEW_CODE, tmp_path, kind) < 12 * MIB


def test_without_the_bound_it_would(tmp_path: Path) -> None:
    assert growth(NEW_CODE, tmp_path, buffer=64 * MIB) > 16 * MIB


@pytest.mark.long
def test_ever_more_output_takes_no_memory(tmp_path: Path) -> None:
    assert growth(PRINTING, tmp_path) < 2 * MIB


def test_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of what the guest has printed; the result says what is missing. A script that waits
    for what comes after the drop finds it, and its place is saved."""
    monkeypatch.setattr(board_console, "KEPT", 1000)
    with printing(tmp_path, 6400) as machine:
        result = machine.run()
        dropped = machine.console.dropped
        assert dropped + len(machine.console.output) == machine.console.printed == 6400
        assert 1000 <= len(machine.console.output) < 2000
        head, kept = result.console.split("\n", 1)
        assert head == f"[armvirt: the first {dropped} bytes are not kept]"
        assert kept.encode() == bytes(machine.console.output)
    with printing(tmp_path, 6400) as machine:
        machine.console.expect("x\n" + "x" * 63 + "\n").expect("x\n")
        assert machine.run_until(console="xx\n") is None
        first = machine.console.printed
        for _ in range(90):
            assert machine.run_until(console="xx\n") is None
        assert machine.console.printed == first + 90 * 64 and machine.console.dropped
        state = machine.console.state()
        machine.console.load(state)
        assert machine.console.state() == state and machine.console.waiting_for is None
