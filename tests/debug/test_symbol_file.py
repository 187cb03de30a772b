"""``--symbols`` gives an Image the names of its vmlinux or System.map, at whatever address the
kernel executes."""

from __future__ import annotations

from pathlib import Path

import pytest
from debug.programs import LINK, build_image, needs_gcc

from armvirt.cli.main import main
from armvirt.debug.symbol_file import ImageSymbols, MapTable, read
from armvirt.errors import ImageError, UserError
from armvirt.machine import Machine

RAM_IMAGE = 0x4020_0000  # where an Image with text_offset 0 goes


@pytest.fixture(scope="module", params=[0, 0x1240_0000], ids=["at its link address", "moved"])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path, int]:
    return *build_image(tmp_path_factory.mktemp("image"), request.param), request.param


@needs_gcc
@pytest.mark.parametrize("kind", ["vmlinux", "System.map"])
@pytest.mark.parametrize("engine", ["native", "portable"])
def test_symbols_before_and_after_the_mmu(
    built: tuple[Path, Path, Path, int], kind: str, engine: str
) -> None:
    """The first instruction after the move is found, too, and nothing of the run changes."""
    image, vmlinux, system_map, offset = built
    symbols = vmlinux if kind == "vmlinux" else system_map
    straight = Machine(image, engine=engine).run()
    with Machine(image, symbols=symbols, engine=engine) as machine:
        for name, virtual in (("_text", False), ("primary_entry", False), ("virtual_target", True), ("later", True),
                              ("later+4", True), ("last", True)):  # fmt: skip
            assert machine.run_until(pc=name) is None, name
            pc = machine.board.vcpus[0].context.pc
            assert machine.symbols is not None
            assert machine.symbols.lookup(pc) == name.replace("+4", "+0x4")
            assert pc >= LINK + offset if virtual else RAM_IMAGE <= pc < RAM_IMAGE + 0x1000
        result = machine.run()
        assert (result.ns, result.insns, result.trace_hash) == (
            straight.ns,
            straight.insns,
            straight.trace_hash,
        )


@needs_gcc
def test_names_without_a_stop(built: tuple[Path, Path, Path, int]) -> None:
    """The offset comes from VBAR_EL1, so a timeline and a diagnosis have names without ``--at``."""
    image, vmlinux, _, offset = built
    with Machine(image, symbols=vmlinux) as machine:
        machine.run_until(ns=36)
        pc = machine.board.vcpus[0].context.pc
        assert machine.symbols is not None and machine.symbols.lookup(pc) == "later+0x4"
        assert isinstance(machine.symbols, ImageSymbols) and machine.symbols.bias == offset


@needs_gcc
def test_the_command_line(
    built: tuple[Path, Path, Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    image, _, system_map, _ = built
    assert (
        main(
            [
                "explain",
                str(image),
                "--symbols",
                str(system_map),
                "--intid",
                "vtimer",
                "--at",
                "later",
            ]
        )
        == 0
    )
    assert " (later)\n" in capsys.readouterr().out
    assert main(["explain", str(image), "--intid", "vtimer", "--at", "later"]) == 2
    said = "the guest has no symbols; give a time or an address, or --symbols with its ELF (vmlinux) or System.map"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "ffffffffffffffff B The real System.map is in the -dbg package\n",
            "its symbols are not in it",
        ),
        ("hello world\n", "neither an ELF nor a System.map"),
        ("0000000000000000 T _text\n0000000000000000 t a\n", "all its addresses are 0"),
        ("0000000040000000 A absolute\n", "no symbols of code or data"),
    ],
)
def test_files_that_are_no_map(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "System.map"
    path.write_text(text)
    with pytest.raises(ImageError, match=says):
        read(path)


def test_a_map() -> None:
    """Types that are no place are left out; names are printable; a symbol reaches to the next."""
    table = MapTable("m", b"ffff000000000010 T b\nffff000000000000 t a\x1b[0m\nffff000000000010 A abs\n"
                          b"ffff000000000020 t c [module]\nffff000000000018 t a\x1b[0m\n0000 r $d\n")  # fmt: skip
    assert list(table.names()) == ["a\\x1b[0m", "b", "a\\x1b[0m", "c"]
    assert table.lookup(0xFFFF_0000_0000_0004) == "a\\x1b[0m+0x4"
    assert (
        table.lookup(0xFFFF_0000_0000_0020) == "c" and table.lookup(0xFFFF_0000_0000_0024) is None
    )
    assert table.lookup(0xFFFE_0000_0000_0000) is None
    assert table.addresses_of("a\x1b[0m") == [0xFFFF_0000_0000_0000, 0xFFFF_0000_0000_0018]
    assert table.address_of("none") is None


def test_other_guests_have_names_from_a_file_too(tmp_path: Path) -> None:
    """A flat binary executes where it was linked."""
    from armvirt.bundled import find

    elf = find("hello").file
    with Machine("hello", symbols=elf) as machine:
        assert machine.run_until(pc="main") is None
    with pytest.raises(UserError, match="there is no such file"):
        Machine("hello", symbols=tmp_path / "none")


@needs_gcc
def test_the_image_is_found_by_its_entry_too(
    built: tuple[Path, Path, Path, int], tmp_path: Path
) -> None:
    """/proc/kallsyms has no symbol at the first byte of the Image; the header branches to
    `primary_entry`."""
    image, _, system_map, offset = built
    some = tmp_path / "kallsyms"
    lines = [line for line in system_map.read_text().splitlines() if not line.endswith(" _text")]
    some.write_text("\n".join(lines) + "\n")
    with Machine(image, symbols=some) as machine:
        assert isinstance(machine.symbols, ImageSymbols) and machine.symbols.start == LINK
        assert machine.run_until(pc="primary_entry") is None
        assert machine.run_until(pc="last") is None
        assert machine.symbols.bias == offset
