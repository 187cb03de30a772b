"""The bundled guests: the manifest is complete, the sources give the committed ELFs, QEMU agrees
with the verdicts."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import build_firmware
import differential
import pytest
from conftest import ROOT, require_recorded_compiler, require_tool, skip_or_fail

from armvirt.bundled import Guest, Setup, guests
from armvirt.script import Expect, Send

GUESTS = guests()
#: Each guest on its own machine in make test; the others, and what takes QEMU seconds, in a long
#: run.
LONG_IN_QEMU = ("bench-tick", "bench-smp8")
RUN_BY_QEMU = [
    pytest.param(
        guest,
        setup,
        id=differential.label(guest, setup),
        marks=[pytest.mark.long]
        if setup != (max(guest.gics), guest.cpus) or guest.name in LONG_IN_QEMU
        else [],
    )
    for guest in GUESTS.values()
    if guest.qemu
    for setup in guest.setups
]
LINK_BASE = 0x4020_0000
PT_LOAD = 1


def program_headers(image: bytes) -> list[tuple[int, int, int, int, int]]:
    """(type, offset, physical address, file size, memory size) of each segment of an ELF64."""
    (offset,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    rows = [struct.unpack_from("<IIQQQQQQ", image, offset + n * size) for n in range(count)]
    return [(row[0], row[2], row[4], row[5], row[6]) for row in rows]


def test_manifest_names_every_file_and_no_other() -> None:
    files = {path.name for path in build_firmware.BUNDLED.glob("*.elf")}
    assert files == {guest.path.name for guest in GUESTS.values()}


def test_bundled_manifest_is_the_sources() -> None:
    assert (
        build_firmware.BUNDLED / "guests.toml"
    ).read_bytes() == build_firmware.MANIFEST.read_bytes()


@pytest.mark.parametrize("guest", GUESTS.values(), ids=list(GUESTS))
def test_manifest_row_is_sensible(guest: Guest) -> None:
    assert guest.expect in {"pass", "fail", "stuck", "limit"}
    assert 1 <= guest.cpus <= 8
    assert guest.setups and all(
        setup.gic in {2, 3} and 1 <= setup.cpus <= 8 for setup in guest.setups
    )
    assert guest.cpus in {setup.cpus for setup in guest.setups}
    assert not guest.its or guest.gics == (3,)
    assert guest.summary and len(guest.summary) <= 110
    assert not guest.qemu or guest.expect in {"pass", "fail"}


@pytest.mark.parametrize("guest", GUESTS.values(), ids=list(GUESTS))
def test_elf_leaves_room_for_the_device_tree(guest: Guest) -> None:
    image = guest.path.read_bytes()
    kind, machine, _, entry = struct.unpack_from("<HHIQ", image, 16)
    loads = [row for row in program_headers(image) if row[0] == PT_LOAD]
    assert (image[:6], kind, machine) == (b"\x7fELF\x02\x01", 2, 183)
    assert entry == LINK_BASE == min(address for _, _, address, _, _ in loads)
    assert (
        max(address + memsz for _, _, address, _, memsz in loads) < 0x4200_0000
    )  # guests use the RAM from there


@pytest.mark.parametrize("guest", GUESTS.values(), ids=list(GUESTS))
def test_elf_has_symbols_and_no_paths_of_the_builder(guest: Guest) -> None:
    image = guest.path.read_bytes()
    assert b"exception_entry\0" in image
    for path in (tempfile.gettempdir(), str(ROOT), str(Path.home())):
        assert path.encode() not in image


def test_rebuild_gives_the_same_bytes(tmp_path: Path) -> None:
    compiler = require_recorded_compiler()
    built = build_firmware.build(compiler, tmp_path)
    assert build_firmware.differences(built, build_firmware.BUNDLED) == []


def test_differences_names_what_is_missing_changed_and_stray(tmp_path: Path) -> None:
    built, bundled = tmp_path / "built", tmp_path / "bundled"
    built.mkdir()
    bundled.mkdir()
    for folder, name, data in (
        (built, "a.elf", b"1"),
        (built, "b.elf", b"2"),
        (bundled, "b.elf", b"3"),
        (bundled, "c.elf", b"4"),
    ):
        (folder / name).write_bytes(data)
    lines = build_firmware.differences([built / "a.elf", built / "b.elf"], bundled)
    assert lines == ["a.elf: missing in bundled/", "b.elf: differs", "c.elf: not in the manifest"]


def test_a_guest_is_run_on_every_machine_of_its_row() -> None:
    selected = differential._select(["gic-sgi", "hello"], [], [])
    labels = [differential.label(*run) for run in selected]
    machines = [f"gic{gic}-cpus{cpus}" for gic in (2, 3) for cpus in (1, 2, 4, 8)]
    assert labels == ["hello", *(f"gic-sgi[{machine}]" for machine in machines)]
    assert differential._select(["gic-sgi"], [2], [4]) == [(GUESTS["gic-sgi"], Setup(2, 4))]


def test_a_guest_without_source_is_an_error() -> None:
    with pytest.raises(build_firmware.BuildError, match="guest 'nothing' has no source file"):
        build_firmware._sources("nothing", {})


@pytest.mark.parametrize(("guest", "setup"), RUN_BY_QEMU)
def test_qemu_gives_the_expected_verdict(guest: Guest, setup: Setup) -> None:
    require_tool(differential.QEMU)
    run = differential.run_qemu(guest, setup, timeout=60)
    if run.verdict == "no verdict" and not run.output:
        skip_or_fail("this QEMU does not start the virt board")
    assert differential.as_expected(guest, run), run.output


def run_with(output: str) -> differential.Run:
    return differential.Run(output, 0.0, False)


def test_only_the_judgement_is_compared() -> None:
    qemu = run_with("ok - a\n  worst latency 64 ns\nVERDICT: PASS (1 checks)\n")
    ours = run_with("note\nok - a\n  worst latency 80 ns\nVERDICT: PASS (1 checks)\n")
    assert differential.differences(qemu, ours) == []


def test_a_difference_is_shown_with_the_last_lines_of_a_run_without_verdict() -> None:
    lines = differential.differences(
        run_with("ok - a\nVERDICT: PASS (1 checks)\n"), run_with("FAIL - a\nstuck here\n")
    )
    assert "-ok - a" in lines and "+FAIL - a" in lines
    assert lines[-1] == "  armvirt's last lines: stuck here"


def test_a_known_difference_names_a_guest_and_a_reason() -> None:
    assert all(
        name in GUESTS and reason for name, reason in differential.known_differences().items()
    )


@pytest.mark.parametrize(
    ("different", "known", "word"),
    [
        (False, False, "same"),
        (True, False, "DIFFERENT"),
        (True, True, "known difference"),
        (False, True, "SAME, the manifest says it differs"),
    ],
)
def test_outcome(different: bool, known: bool, word: str) -> None:
    assert differential._outcome(different, known) == word


def test_two_silent_machines_are_not_the_same() -> None:
    assert differential.differences(run_with(""), run_with("")) == [
        "neither machine printed a judgement"
    ]


def test_a_script_file_reads_back() -> None:
    from armvirt import script

    steps = script.Script((Expect(b'say "x"\\'), Send(b"a\n\xff")))
    assert script.parse(differential.script_text(steps)) == steps
