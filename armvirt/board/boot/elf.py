"""ELF guests: static executables at their physical addresses, and position-independent executables.

Segments are loaded at p_paddr. A virtual entry address is translated by the p_vaddr and p_paddr of
the segment that contains the address, as in QEMU. A position-independent executable that is not
linked inside RAM is loaded at RAM base + 2 MiB (or ``--load-addr``). The guest's start-up code does
the relocations, as on hardware. This module parses the headers without a library, to keep the
start-up time short. The formats are those of the System V gABI.
"""

from __future__ import annotations

import struct

from armvirt.board.boot.model import Loaded, Ram, Segment
from armvirt.board.boot.symbols import SymbolTable
from armvirt.errors import ImageError
from armvirt.inputs import Input
from armvirt.records import NamedTuple

MAGIC = b"\x7fELF"
PIE_OFFSET = 2 << 20
_BUILD = "build it for bare-metal AArch64, little-endian"
_MACHINES = {3: "32-bit x86", 8: "MIPS", 20: "PowerPC", 21: "64-bit PowerPC", 22: "s390", 40: "32-bit Arm",
             62: "x86-64", 243: "RISC-V", 258: "LoongArch"}  # fmt: skip
_AARCH64 = 183
_ET_EXEC, _ET_DYN = 2, 3
_TYPES = {0: ("it has no ELF type", "link it"), 1: ("it is an object file (ET_REL)", "link it into an executable"),
          4: ("it is a core dump", "give the executable")}  # fmt: skip
_PT_LOAD, _PT_DYNAMIC, _DT_NEEDED = 1, 2, 1
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_MAX_DYNAMIC = 1 << 16
_MAX_SHARED = 1 << 20  # bytes of the file that several segments may share


class Header(NamedTuple):
    """The fields of the ELF header that a loader needs."""

    type: int
    entry: int
    phoff: int
    phnum: int


class ProgramHeader(NamedTuple):
    """One program header (gABI chapter 5)."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class Plan(NamedTuple):
    """The addresses of an ELF file in the guest: the loadable segments, the entry point, and
    ``bias``. ``bias`` is the number of bytes that the loader adds to the addresses in the file."""

    placed: list[ProgramHeader]
    entry: int
    bias: int


def plan(source: Input, ram: Ram, load_addr: int | None = None) -> Plan:
    """Compute the addresses of an ELF file from its headers, without reading the segments.
    ImageError if the file cannot run."""
    header = read_header(source)
    programs = _program_headers(source, header)
    _refuse_dynamic(source, programs)
    loadable = [program for program in programs if program.type == _PT_LOAD and program.memsz]
    if not loadable:
        raise ImageError(
            source.path, "it has no loadable segments", "link it with a PT_LOAD segment"
        )
    bias = _bias(source.path, header, loadable, ram, load_addr)
    placed = [_placed(program, header.type, bias) for program in loadable]
    _check_segments(source, placed, ram)
    _refuse_sharing(source, placed)
    return Plan(placed, _entry(source.path, header.entry + bias, placed), bias)


def load(source: Input, ram: Ram, load_addr: int | None = None) -> Loaded:
    """Load an ELF file. ImageError if the file cannot run."""
    placed, entry, bias = plan(source, ram, load_addr)
    segments = tuple(Segment(p.paddr, source.read_at(p.offset, p.filesz), p.memsz) for p in placed)
    symbols = SymbolTable(source.path, bias, [(p.paddr, p.vaddr, p.memsz) for p in placed], source)
    return Loaded(source.path, "elf", segments, entry, max(s.end for s in segments), symbols)


def read_header(source: Input) -> Header:
    """Read the ELF header. ImageError if the file is not an AArch64 executable."""
    raw = source.head(_EHDR.size)
    if len(raw) < 20:
        raise ImageError(
            source.path, "it is truncated within the ELF header", "build or copy it again"
        )
    _check_ident(source.path, raw)
    if len(raw) < _EHDR.size:
        raise ImageError(
            source.path, "it is truncated within the ELF header", "build or copy it again"
        )
    _, kind, _, _, entry, phoff, _, _, _, phentsize, phnum, *_ = _EHDR.unpack(raw)
    if kind not in (_ET_EXEC, _ET_DYN):
        raise ImageError(
            source.path,
            *_TYPES.get(kind, (f"its ELF type {kind:#x} is unknown", "give an executable")),
        )
    if phnum and phentsize != _PHDR.size:
        raise ImageError(
            source.path,
            f"its program headers have {phentsize} bytes each, not 56",
            "build it again",
        )
    return Header(kind, entry, phoff, phnum)


def _check_ident(path: str, raw: bytes) -> None:
    """Check the ELF identification (e_ident) and e_machine. e_machine is checked first: for a
    32-bit x86 file, the error message "x86" helps the user more than the error message "32-bit"."""
    big = raw[5] == 2
    machine = int.from_bytes(raw[18:20], "big" if big else "little")
    if machine != _AARCH64:
        raise ImageError(
            path, f"it is for {_MACHINES.get(machine, f'machine {machine}')}, not AArch64", _BUILD
        )
    if raw[4] != 2:
        raise ImageError(path, "it is a 32-bit ELF (ILP32)", _BUILD)
    if big:
        raise ImageError(path, "it is big-endian", _BUILD)
    if raw[5] != 1 or raw[6] != 1:
        raise ImageError(path, "its ELF identification is corrupt", "build or copy it again")


def _program_headers(source: Input, header: Header) -> list[ProgramHeader]:
    size = header.phnum * _PHDR.size
    if header.phoff + size > source.size:
        raise ImageError(
            source.path, "it is truncated: its program headers lie beyond its end", "copy it again"
        )
    return [
        ProgramHeader(*fields) for fields in _PHDR.iter_unpack(source.read_at(header.phoff, size))
    ]


def _refuse_dynamic(source: Input, programs: list[ProgramHeader]) -> None:
    """Raise ImageError for a program that needs shared libraries, because only an operating system
    can load shared libraries."""
    dynamic = [program for program in programs if program.type == _PT_DYNAMIC]
    if len(dynamic) > 1:  # the gABI has one _DYNAMIC; reading thousands takes long
        raise ImageError(source.path, f"it has {len(dynamic)} dynamic segments", "build it again")
    for program in dynamic:
        if program.filesz <= _MAX_DYNAMIC and not program.filesz % 16:
            entries = struct.iter_unpack("<qQ", source.read_at(program.offset, program.filesz))
            if any(tag == _DT_NEEDED for tag, _ in entries):
                raise ImageError(
                    source.path, "it needs shared libraries", "give a static, bare-metal executable"
                )


def _refuse_sharing(source: Input, programs: list[ProgramHeader]) -> None:
    """Raise ImageError if the file sizes of all segments together exceed the size of the file by
    more than `_MAX_SHARED` bytes. Several segments can use the same bytes of the file, so without
    this limit a small file could fill a large RAM."""
    total = sum(program.filesz for program in programs)
    if total > source.size + _MAX_SHARED:
        raise ImageError(
            source.path,
            f"its segments take {total} bytes from a file of {source.size}",
            "build it again",
        )


def _bias(
    path: str, header: Header, loadable: list[ProgramHeader], ram: Ram, load_addr: int | None
) -> int:
    """Compute the number of bytes that the loader adds to the addresses in the file. ImageError if
    the file cannot be loaded at ``load_addr``."""
    lowest = min(program.vaddr for program in loadable)
    if header.type == _ET_EXEC:
        if load_addr is not None:
            raise ImageError(
                path, "it is linked at fixed addresses", "leave out --load-addr, or link it as PIE"
            )
        return 0
    if load_addr is None and ram.base <= lowest < ram.end:
        return 0
    base = ram.base + PIE_OFFSET if load_addr is None else load_addr
    if base % 4096:
        raise ImageError(
            path, f"load address {base:#x} is not a multiple of 4 KiB", "choose another --load-addr"
        )
    # The address is rounded down to 64 KiB, the largest page size, so that the bias does not change
    # the offset of an address in its page. ADRP and the linker rely on this offset.
    return base - (lowest & ~0xFFFF)


def _placed(program: ProgramHeader, kind: int, bias: int) -> ProgramHeader:
    if kind == _ET_EXEC:
        return program
    return program._replace(vaddr=program.vaddr + bias, paddr=program.vaddr + bias)


def _check_segments(source: Input, programs: list[ProgramHeader], ram: Ram) -> None:
    previous_end = 0
    for program in sorted(programs, key=lambda program: program.paddr):
        where = f"segment {program.paddr:#x}..{program.paddr + program.memsz:#x}"
        if program.filesz > program.memsz:
            raise ImageError(
                source.path, f"{where} has more bytes in the file than in memory", "build it again"
            )
        if program.offset + program.filesz > source.size:
            raise ImageError(
                source.path, f"it is truncated: {where} lies beyond the file's end", "copy it again"
            )
        if not ram.holds(program.paddr, program.paddr + program.memsz):
            raise ImageError(
                source.path,
                f"{where} is outside {ram}",
                "link it inside RAM, or give more with --mem",
            )
        if program.paddr < previous_end:
            raise ImageError(
                source.path, f"{where} overlaps another segment", "fix the linker script"
            )
        previous_end = program.paddr + program.memsz


def _entry(path: str, entry: int, programs: list[ProgramHeader]) -> int:
    """Return the physical address of the entry point. ``entry`` is the address of the entry point
    in the file, which may be a virtual or a physical address. ImageError if the entry point is in
    no segment."""
    for program in programs:
        if program.vaddr <= entry < program.vaddr + program.memsz:
            return _aligned(path, entry - program.vaddr + program.paddr)
    if any(program.paddr <= entry < program.paddr + program.memsz for program in programs):
        return _aligned(path, entry)
    raise ImageError(
        path, f"its entry point {entry:#x} is in none of its segments", "check ENTRY() of the link"
    )


def _aligned(path: str, entry: int) -> int:
    if entry % 4:
        raise ImageError(
            path, f"its entry point {entry:#x} is not a multiple of 4", "check ENTRY() of the link"
        )
    return entry
