"""Lines and inlined functions, from the DWARF of an ELF file (``gcc -g``), read when first asked
for.

pyelftools reads the entries. A kernel has hundreds of megabytes of them, so only the compilation
units that can have the answer are read: those in which the 32-bit offset of the wanted string
occurs. What a file can cost is bounded.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from armvirt.errors import UserError
from armvirt.printable import printable

MAX_SECTION = 1 << 30
SMALL = 1 << 18
"""Bytes of .debug_info up to which all of it is read entry by entry, which takes about a second."""
MAX_READ = 1 << 21
"""Bytes of .debug_info that are read entry by entry for one question."""
MAX_UNITS = 1 << 16
MAX_NAMES = 100_000
MAX_STRINGS = 64
MAX_OCCURRENCES = 100_000
_SECTIONS = (".debug_info", ".debug_abbrev", ".debug_str", ".debug_line", ".debug_line_str")


class Site(NamedTuple):
    """Where a function, or its inlined copy, begins; ``file`` is its source file as the compiler
    was given it."""

    address: int
    file: str


class LineError(UserError):
    """There is no code of such a line."""


class TooManyError(UserError):
    """More of the debug information mentions a name than is read for one question."""


class DebugInfo:
    """The DWARF of one ELF file; ``bias`` is added to its addresses. ``present`` is False where
    there is none, or none that can be read."""

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
            return (
                None  # a pipe was read for the guest, and to open it again would wait for a writer
            )
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
                )  # it reads the sections at once
        except Exception:  # pyelftools raises what it happens to meet in a damaged file
            return None

    # -- functions --

    def inlined(self, name: str, file: str = "") -> list[Site]:
        """Where the compiler has put copies of a function into others, by address; of a source
        ``file`` alone, if one is named. TooManyError if too many files mention the name."""
        return self._found(name, file, self._inlined_in)

    def functions(self, name: str, file: str = "") -> list[Site]:
        """Where functions of this name begin, as `inlined`."""
        return self._found(name, file, self._functions_in)

    def names(self) -> list[str]:
        """Names of functions, the inlined ones among them; not those of a large file."""
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
            except Exception:  # of a damaged unit what was found before
                continue
            finally:
                _forget(unit)
        return sorted(sites)

    def _read_for(self, name: str, file: str) -> list[Any]:
        """The units that can name a function; with ``file`` those of this source file alone."""
        chosen = self._units_with(name.encode())
        if file and chosen:
            chosen &= self._units_with(file.rpartition("/")[2].encode(), suffix=True)
        units = [self._units[index] for index in sorted(chosen)]
        if file:  # what looks like the offset of a string may be another number
            units = [unit for unit in units if self._is_of(unit, file)]
        if len(units) > 1 and sum(unit["unit_length"] for unit in units) > max(MAX_READ, SMALL):
            raise TooManyError(
                f"{printable(name)}: {len(units)} files of the debug information mention it, more than are read; "
                "write FILE:FUNCTION, FILE:LINE or an address"
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
        """DW_AT_entry_pc, DW_AT_low_pc or the first of DW_AT_ranges (DWARF 5, 2.17 and 2.18)."""
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
        """Whether the source file of a unit is ``file``, or ends in ``/file``; False for a damaged
        unit."""
        try:
            return f"/{self._source(unit)}".endswith(f"/{file}")
        except Exception:
            return False

    def _source(self, unit: Any) -> str:
        name = unit.get_top_DIE().attributes.get("DW_AT_name")
        return "" if name is None else printable(_text(name.value))

    # -- lines --

    def line(self, file: str, line: int) -> list[int]:
        """The addresses at which code of a line begins. LineError says which files or lines there
        are."""
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
        """Names of source files, without their folders; not those of a large file's debug
        information."""
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
        """The line table of each unit that names a file of this path's end, with the indices of
        that file in it."""
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
        """The compilation units; of a damaged section those before the damage."""
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
        """The indices of the units that can name ``text`` (or, as a ``suffix``, a path that ends
        so): all of a small file, of a large one those with the string or its offset in them."""
        units = self._units
        info = self._raw("debug_info_sec")
        if len(info) <= SMALL or not text:
            return set(range(len(units))) if text else set()
        starts = [(unit.cu_offset, index) for index, unit in enumerate(units)]
        found = _owners(starts, self._mentions(info, text, suffix))
        if suffix:  # headers are named in the line tables alone
            found |= _owners(
                self._line_starts, self._mentions(self._raw("debug_line_sec"), text, suffix)
            )
        return found

    def _mentions(self, section: bytes, text: bytes, suffix: bool) -> Iterator[int]:
        """Where a section has a string, or what may be its offset in a section of strings."""
        yield from _occurrences(section, text + b"\0")
        for strings in ("debug_str_sec", "debug_line_str_sec"):
            for offset in islice(_strings(self._raw(strings), text, suffix), MAX_STRINGS):
                yield from _occurrences(section, offset.to_bytes(4, "little"))

    @cached_property
    def _line_starts(self) -> list[tuple[int, int]]:
        """(offset of its line table, index) of each unit, by offset."""
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
    """The indices of the parts of a section in which the places are."""
    found = (bisect_right(starts, (place, MAX_UNITS)) - 1 for place in places)
    return {starts[at][1] for at in found if at >= 0}


def _entries(unit: Any) -> Iterator[Any]:
    """The entries of a unit; of a damaged one those before the damage."""
    try:
        yield from unit.iter_DIEs()
    except Exception:
        return


def _forget(unit: Any) -> None:
    """pyelftools keeps every entry that it has read: about 80 bytes of memory for each byte of the
    file."""
    for cache in ("_dielist", "_diemap"):
        if isinstance(kept := getattr(unit, cache, None), list):
            kept.clear()


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _name(entry: Any) -> str:
    attribute = entry.attributes.get("DW_AT_name")
    return "" if attribute is None else _text(attribute.value)


def _origin(entry: Any) -> int:
    """The offset of the entry that this one is a copy, or the definition, of; -1 if there is
    none."""
    for name in ("DW_AT_abstract_origin", "DW_AT_specification"):
        attribute = entry.attributes.get(name)
        if attribute is not None:
            return int(attribute.value) + (
                entry.cu.cu_offset if attribute.form in _WITHIN_UNIT else 0
            )
    return -1


def _files(table: Any, unit: Any, wanted: list[str]) -> dict[int, str]:
    """{index: path} of the files in a line table whose paths end with the parts ``wanted``."""
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
    """(line, address) of each instruction at which code of another line of these files begins
    (DWARF 5, 6.2.2)."""
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
    """Where ``wanted`` is, as often as it may be looked for."""
    at = data.find(wanted)
    for _ in range(MAX_OCCURRENCES):
        if at < 0:
            return
        yield at
        at = data.find(wanted, at + 1)


def _strings(data: bytes, text: bytes, suffix: bool) -> Iterator[int]:
    """The offsets in a section of strings at which ``text`` (with ``suffix``: a path that ends with
    it) is."""
    yield from (at + 1 for at in _occurrences(data, b"\0" + text + b"\0"))
    if data.startswith(text + b"\0"):
        yield 0
    if suffix:
        yield from (data.rfind(b"\0", 0, at) + 1 for at in _occurrences(data, b"/" + text + b"\0"))
    else:  # the linker merges strings with the same end: a name may begin inside a longer one
        yield from (at for at in _occurrences(data, text + b"\0") if data[at - 1] and at)
