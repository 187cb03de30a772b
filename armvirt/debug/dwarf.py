"""Finds source lines and inlined functions in the DWARF information of an ELF file (``gcc -g``).
The file is read at the first look-up.

pyelftools parses the DWARF entries (DIEs). The DWARF of a kernel has hundreds of megabytes, too
much to be parsed completely. So only those compilation units are parsed that contain the wanted
string, or its 32-bit offset in a section of strings. Limits such as `MAX_READ` bound the time and
the memory for any file.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from typing import Any

from armvirt.errors import UserError
from armvirt.printable import printable
from armvirt.records import NamedTuple

MAX_SECTION = 1 << 30
SMALL = 1 << 18
"""A .debug_info of at most this many bytes is parsed completely, in about a second."""
MAX_READ = 1 << 21
"""The maximum number of bytes of .debug_info that are parsed for one look-up."""
MAX_UNITS = 1 << 16
MAX_NAMES = 100_000
MAX_STRINGS = 64
MAX_OCCURRENCES = 100_000
_SECTIONS = (".debug_info", ".debug_abbrev", ".debug_str", ".debug_line", ".debug_line_str")


class Site(NamedTuple):
    """The address at which a function, or an inlined copy of a function, begins. ``file`` is the
    path of its source file, as given to the compiler."""

    address: int
    file: str


class LineError(UserError):
    """The debug information has no such source file, or no code for this source line."""


class TooManyError(UserError):
    """Several compilation units mention a name, and together they have more than `MAX_READ` bytes,
    which is too much to be parsed for one look-up."""


class DebugInfo:
    """The DWARF information of one ELF file. ``bias`` is added to each address that is read from
    the file. ``present`` is False if the file has no DWARF information that can be read."""

    def __init__(self, path: str, bias: int = 0) -> None:
        self._path, self._bias = path, bias

    def __repr__(self) -> str:
        return f"<DebugInfo of {printable(self._path)}>"

    @property
    def present(self) -> bool:
        return self._dwarf is not None

    @cached_property
    def _dwarf(self) -> Any:
        from elftools.elf.elffile import ELFFile

        if not os.path.isfile(self._path):
            return None  # a pipe: its data has been read as the guest, and a new open would block
        try:
            with open(self._path, "rb") as file:
                elf = ELFFile(file)
                sizes = [
                    section.data_size
                    for section in elf.iter_sections()
                    if section.name in _SECTIONS
                ]
                if not sizes or max(sizes) > MAX_SECTION or not elf.has_dwarf_info(strict=True):
                    return None
                return elf.get_dwarf_info(
                    relocate_dwarf_sections=False
                )  # this call reads the sections, so the file can be closed
        except Exception:  # for a damaged file, pyelftools can raise any exception
            return None

    # -- functions --

    def inlined(self, name: str, file: str = "") -> list[Site]:
        """The inlined copies of a function, sorted by address. If ``file`` is not "", the result
        has only copies in the compilation unit of this source file. Raises TooManyError if the
        compilation units that mention the name have more than `MAX_READ` bytes in total."""
        return self._found(name, file, self._inlined_in)

    def functions(self, name: str, file: str = "") -> list[Site]:
        """The addresses at which the functions of this name begin. The arguments and the errors are
        those of `inlined`."""
        return self._found(name, file, self._functions_in)

    def names(self) -> list[str]:
        """The names of all functions, also of inlined functions. The list is empty if .debug_info
        has more than `SMALL` bytes."""
        found: dict[str, None] = {}
        if len(self._raw("debug_info_sec")) <= SMALL:
            for unit in self._units:
                for entry in _entries(unit):
                    if entry.tag == "DW_TAG_subprogram" and (name := _name(entry)):
                        found[name] = None
        return list(found)[:MAX_NAMES]

    def _found(self, name: str, file: str, search: Any) -> list[Site]:
        sites: set[Site] = set()
        for unit in self._read_for(name, file):
            try:
                sites.update(search(unit, name))
            except Exception:  # a damaged unit: keep the sites found before the damage
                continue
            finally:
                _forget(unit)
        return sorted(sites)

    def _read_for(self, name: str, file: str) -> list[Any]:
        """The compilation units that may contain a function. ``name`` is the name of the function.
        If ``file`` is not "", the result has only the units of this source file. Raises
        TooManyError if these units are too large."""
        chosen = self._units_with(name.encode())
        if file and chosen:
            chosen &= self._units_with(file.rpartition("/")[2].encode(), suffix=True)
        units = [self._units[index] for index in sorted(chosen)]
        if file:  # the same four bytes may be another number, not the offset of the string
            units = [unit for unit in units if self._is_of(unit, file)]
        if len(units) > 1 and sum(unit["unit_length"] for unit in units) > max(MAX_READ, SMALL):
            raise TooManyError(
                f"{printable(name)}: {len(units)} files of the debug information mention this name, too many to "
                "search; write FILE:FUNCTION, FILE:LINE or an address"
            )
        return units

    def _inlined_in(self, unit: Any, name: str) -> Iterator[Site]:
        wanted: dict[int, str] = {}
        for entry in _entries(unit):
            if entry.tag == "DW_TAG_subprogram" and _name(entry) == name:
                wanted[entry.offset] = self._source(unit)
        for entry in _entries(unit) if wanted else ():
            if entry.tag == "DW_TAG_inlined_subroutine" and (origin := _origin(entry)) in wanted:
                address = self._begin(unit, entry)
                if address is not None:
                    yield Site(address, wanted[origin])

    def _functions_in(self, unit: Any, name: str) -> Iterator[Site]:
        abstract = set()
        for entry in _entries(unit):
            if entry.tag != "DW_TAG_subprogram":
                continue
            if _name(entry) == name:
                abstract.add(entry.offset)
            elif _origin(entry) not in abstract:
                continue
            address = self._begin(unit, entry)
            if address is not None:
                yield Site(address, self._source(unit))

    def _begin(self, unit: Any, entry: Any) -> int | None:
        """The first address of a DWARF entry (DIE), from DW_AT_entry_pc, DW_AT_low_pc or the first
        range of DW_AT_ranges (DWARF 5, 2.17 and 2.18). None if the entry has no address."""
        attributes = entry.attributes
        low = attributes.get("DW_AT_low_pc")
        first = attributes.get("DW_AT_entry_pc")
        if first is not None and (first.form in _ADDRESSES or low is None):
            return self._bias + first.value if first.form in _ADDRESSES else None
        if low is not None:
            return int(low.value) + self._bias + (first.value if first is not None else 0)
        ranges = attributes.get("DW_AT_ranges")
        return None if ranges is None else self._first_of_ranges(unit, ranges)

    def _first_of_ranges(self, unit: Any, ranges: Any) -> int | None:
        lists = self._dwarf.range_lists()
        base = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
        start = 0 if base is None else base.value
        for each in lists.get_range_list_at_offset(ranges.value, cu=unit):
            if hasattr(each, "base_address"):
                start = each.base_address
            elif each.begin_offset != each.end_offset:
                absolute = getattr(each, "is_absolute", False)
                return int(each.begin_offset) + (0 if absolute else start) + self._bias
        return None

    def _is_of(self, unit: Any, file: str) -> bool:
        """True if the source file of a compilation unit is ``file``, or ends in ``/file``. False
        for a damaged unit."""
        try:
            return f"/{self._source(unit)}".endswith(f"/{file}")
        except Exception:
            return False

    def _source(self, unit: Any) -> str:
        name = unit.get_top_DIE().attributes.get("DW_AT_name")
        return "" if name is None else printable(_text(name.value))

    # -- lines --

    def line(self, file: str, line: int) -> list[int]:
        """The addresses at which the code of a source line begins. Raises LineError if the file is
        unknown or ambiguous, or if the line has no code. The message lists similar files or the
        nearest lines with code."""
        tables = list(self._line_tables(file))
        paths = sorted({path for _, indices in tables for path in indices.values()})
        if not paths:
            like = get_close_matches(file, self.files(), 3)
            hint = (
                f"did you mean {', '.join(map(printable, like))}?"
                if like
                else "give the name that the compiler got"
            )
            raise LineError(
                f"{printable(file)}:{line}: the debug information has no such file; {hint}"
            )
        if len(paths) > 1:
            shown = ", ".join(map(printable, paths[:8]))
            raise LineError(
                f"{printable(file)}:{line} is ambiguous: {shown}; write more of its path"
            )
        rows = [row for table, indices in tables for row in _begins(table, indices)]
        found = sorted({address + self._bias for number, address in rows if number == line})
        if not found:
            lines = sorted({number for number, _ in rows})
            at = bisect_right(lines, line)
            near = ", ".join(map(str, lines[max(at - 2, 0) : at + 2])) or "none"
            raise LineError(
                f"{printable(file)}:{line} has no code; lines with code near it: {near}"
            )
        return found

    def files(self) -> list[str]:
        """The names of all source files, without folders. The list is empty if .debug_line has more
        than `MAX_READ` / 4 bytes."""
        found: dict[str, None] = {}
        if len(self._raw("debug_line_sec")) <= MAX_READ >> 2:
            for unit in self._units:
                try:
                    table = self._dwarf.line_program_for_CU(unit)
                    names = (
                        []
                        if table is None
                        else [_text(entry["name"]) for entry in table.header["file_entry"]]
                    )
                except Exception:
                    continue
                found.update((name.rpartition("/")[2], None) for name in names)
        return list(found)[:MAX_NAMES]

    def _line_tables(self, file: str) -> Iterator[tuple[Any, dict[int, str]]]:
        """Yield (line table, {index: path}) for each compilation unit that has a file whose path
        ends with ``file``. The dictionary has the files with such a path, by their index in the
        line table."""
        wanted = [part for part in file.split("/") if part not in ("", ".")]
        for index in sorted(self._units_with(wanted[-1].encode() if wanted else b"", suffix=True)):
            unit = self._units[index]
            try:
                table = self._dwarf.line_program_for_CU(unit)
                indices = {} if table is None else _files(table, unit, wanted)
            except Exception:
                continue
            if indices:
                yield table, indices

    # -- units --

    @cached_property
    def _units(self) -> list[Any]:
        """The compilation units. In a damaged section, only the units before the damage."""
        found: list[Any] = []
        try:
            for unit in self._dwarf.iter_CUs() if self._dwarf is not None else ():
                found.append(unit)
                if len(found) >= MAX_UNITS:
                    break
        except Exception:
            pass
        return found

    def _raw(self, section: str) -> bytes:
        found = getattr(self._dwarf, section, None)
        return b"" if found is None else found.stream.getvalue()

    def _units_with(self, text: bytes, *, suffix: bool = False) -> set[int]:
        """The indices of the compilation units that may contain a string. ``text`` is the string.
        If ``suffix`` is True, units that contain a path with the end ``text`` are included, too.

        If .debug_info has at most `SMALL` bytes, the result is all units. Otherwise the result is
        the units that contain the string itself, or the offset of the string in a section of
        strings.
        """
        units = self._units
        info = self._raw("debug_info_sec")
        if len(info) <= SMALL or not text:
            return set(range(len(units))) if text else set()
        starts = [(unit.cu_offset, index) for index, unit in enumerate(units)]
        found = _owners(starts, self._mentions(info, text, suffix))
        if suffix:  # header files are named only in the line tables
            found |= _owners(
                self._line_starts, self._mentions(self._raw("debug_line_sec"), text, suffix)
            )
        return found

    def _mentions(self, section: bytes, text: bytes, suffix: bool) -> Iterator[int]:
        """Yield the offsets in ``section`` at which the string ``text`` is mentioned. There are two
        kinds of mentions: the string itself, and a number that may be its offset in a section of
        strings. If ``suffix`` is True, offsets of paths that end with ``text`` count, too."""
        yield from _occurrences(section, text + b"\0")
        for strings in ("debug_str_sec", "debug_line_str_sec"):
            for offset in islice(_strings(self._raw(strings), text, suffix), MAX_STRINGS):
                yield from _occurrences(section, offset.to_bytes(4, "little"))

    @cached_property
    def _line_starts(self) -> list[tuple[int, int]]:
        """A pair (offset of the line table, index of the unit) for each compilation unit, sorted by
        offset."""
        found = []
        for index, unit in enumerate(self._units):
            try:
                table = unit.get_top_DIE().attributes.get("DW_AT_stmt_list")
            except Exception:
                continue
            if table is not None:
                found.append((int(table.value), index))
        return sorted(found)


_ADDRESSES = (
    "DW_FORM_addr",
    "DW_FORM_addrx",
    "DW_FORM_addrx1",
    "DW_FORM_addrx2",
    "DW_FORM_addrx3",
    "DW_FORM_addrx4",
)


_WITHIN_UNIT = ("DW_FORM_ref1", "DW_FORM_ref2", "DW_FORM_ref4", "DW_FORM_ref8", "DW_FORM_ref_udata")


def _owners(starts: list[tuple[int, int]], places: Iterator[int]) -> set[int]:
    """The indices of the compilation units that contain ``places``, which are offsets in a section.
    ``starts`` has a pair (first offset, index) for each unit, sorted by offset."""
    found = (bisect_right(starts, (place, MAX_UNITS)) - 1 for place in places)
    return {starts[at][1] for at in found if at >= 0}


def _entries(unit: Any) -> Iterator[Any]:
    """The DWARF entries (DIEs) of a compilation unit. In a damaged unit, only the entries before
    the damage."""
    try:
        yield from unit.iter_DIEs()
    except Exception:
        return


def _forget(unit: Any) -> None:
    """Free the DWARF entries (DIEs) of a compilation unit. pyelftools keeps every entry that it has
    parsed, about 80 bytes of memory for each byte of the file."""
    for cache in ("_dielist", "_diemap"):
        if isinstance(kept := getattr(unit, cache, None), list):
            kept.clear()


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _name(entry: Any) -> str:
    attribute = entry.attributes.get("DW_AT_name")
    return "" if attribute is None else _text(attribute.value)


def _origin(entry: Any) -> int:
    """The offset of the DWARF entry (DIE) to which DW_AT_abstract_origin or DW_AT_specification of
    ``entry`` refers. The result is -1 if ``entry`` has neither attribute."""
    for name in ("DW_AT_abstract_origin", "DW_AT_specification"):
        attribute = entry.attributes.get(name)
        if attribute is not None:
            return int(attribute.value) + (
                entry.cu.cu_offset if attribute.form in _WITHIN_UNIT else 0
            )
    return -1


def _files(table: Any, unit: Any, wanted: list[str]) -> dict[int, str]:
    """The files of a line table whose path ends with some components, as {index: path}. ``wanted``
    are these components, for example ["kernel", "fork.c"]."""
    header = table.header
    new = header["version"] >= 5
    folders = [_text(folder) for folder in header["include_directory"]]
    top = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
    base = "" if top is None else _text(top.value)
    if not new:
        folders.insert(0, base)
    found = {}
    for index, entry in enumerate(header["file_entry"], start=0 if new else 1):
        folder = folders[entry["dir_index"]] if entry["dir_index"] < len(folders) else ""
        path = _joined(base, folder, _text(entry["name"]))
        if path.split("/")[-len(wanted) :] == wanted:
            found[index] = path
    return found


def _joined(*parts: str) -> str:
    import posixpath

    return posixpath.normpath(posixpath.join(*parts))


def _begins(table: Any, indices: dict[int, str]) -> Iterator[tuple[int, int]]:
    """Yield (line, address) of each instruction at which the code of a source line begins (DWARF 5,
    6.2.2). Only lines of the files with the indices ``indices`` are included."""
    before = None
    try:
        for entry in table.get_entries():
            state = entry.state
            if state is None:
                continue
            here = None if state.end_sequence else (state.file, state.line)
            if (
                here is not None
                and here != before
                and state.file in indices
                and state.is_stmt
                and state.line
            ):
                yield state.line, state.address
            before = here
    except Exception:
        return


def _occurrences(data: bytes, wanted: bytes) -> Iterator[int]:
    """Yield the offsets of ``wanted`` in ``data``, at most `MAX_OCCURRENCES` of them."""
    at = data.find(wanted)
    for _ in range(MAX_OCCURRENCES):
        if at < 0:
            return
        yield at
        at = data.find(wanted, at + 1)


def _strings(data: bytes, text: bytes, suffix: bool) -> Iterator[int]:
    """Yield the offsets of the string ``text`` in a section of strings. If ``suffix`` is True, also
    yield the offsets of the paths that end with ``text``."""
    yield from (at + 1 for at in _occurrences(data, b"\0" + text + b"\0"))
    if data.startswith(text + b"\0"):
        yield 0
    if suffix:
        yield from (data.rfind(b"\0", 0, at) + 1 for at in _occurrences(data, b"/" + text + b"\0"))
    else:  # the linker merges strings with a common end: a name may begin inside a longer string
        yield from (at for at in _occurrences(data, text + b"\0") if data[at - 1] and at)
