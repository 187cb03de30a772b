"""Finds the points at which a guest is stopped for inspection. The user names such a point by a
time, a function, a source line or an address.

A text can mean several addresses: the copies of a function that the compiler has inlined, the
instructions at which the code of a line begins, or the virtual and the physical address of a
kernel's code. The guest stops at the first of these addresses that a CPU reaches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from armvirt import units
from armvirt.errors import UserError
from armvirt.hyp.vcpu.power import Power
from armvirt.printable import printable
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.board.boot import SymbolSource
    from armvirt.debug.dwarf import DebugInfo, Site
    from armvirt.subject import Subject

NEAR = 3
MOST_NAMES = 200_000  # maximum number of symbols among which similar names are searched
MOST_NEAR = 20_000  # maximum number of names that are compared letter by letter
MOST_MARKS = 256
MOST_SHOWN = 8
ZERO = re.compile("0+[a-z]*")
_LINE = re.compile(r"(?P<file>[^:]*[^:\d][^:]*):(?P<line>\d+)", re.ASCII)
_FILE_FUNCTION = re.compile(r"(?P<file>[^:]+\.[a-zA-Z]+):(?P<name>[^:]+)")
#: The suffixes of gcc and clang for clones that begin where the function begins. Clones with
#: ``.part`` and ``.cold`` begin elsewhere.
_CLONE = re.compile(r"\.(constprop|isra|lto_priv|llvm)\.\d+")


class Place(NamedTuple):
    """A point at which a guest is stopped: ``ns`` is a guest time in ns, and ``pc`` is the text of
    an address or a name. One of these two fields is None."""

    ns: int | None = None
    pc: str | None = None


class Arrival(NamedTuple):
    """A report: a vCPU is at an address at which the guest stops. ``moved`` is False if the address
    is in `Marks.addresses`, and True if the address is in `Marks.moves_to`. ``text`` describes the
    stop."""

    text: str
    moved: bool = False


class Marks(NamedTuple):
    """The addresses at which the guest stops. A kernel that has enabled its MMU may execute at an
    unknown offset from its link-time addresses (KASLR). As long as the offset is unknown,
    ``moves_to`` is the range of all virtual addresses at which the kernel may execute. When a vCPU
    has reached this range, `learn` can find the offset. If the offset is known, or if the guest has
    no such offset, ``moves_to`` is None."""

    addresses: tuple[int, ...]
    moves_to: range | None = None

    def reached(self, subject: Subject) -> Arrival | None:
        """Return an `Arrival` if a vCPU that is not powered off is at one of the ``addresses``, or
        in the range ``moves_to``. Otherwise return None. ``subject`` is the machine."""
        if not self.addresses:
            return None
        at = [vcpu.context.pc for vcpu in subject.board.vcpus if vcpu.power is not Power.OFF]
        for pc in at:
            if pc in self.addresses:
                return Arrival(f"pc {pc:#x} was reached")
        if self.moves_to is not None and any(pc in self.moves_to for pc in at):
            return Arrival("the guest executes at other addresses now", moved=True)
        return None

    def learn(self, subject: Subject) -> None:
        """Compute the guest's offset from its link-time addresses, and set the offset in the
        symbols of the machine. The offset follows from the virtual and the physical address at
        which a vCPU executes."""
        from armvirt.debug.symbol_file import ImageSymbols

        symbols = subject.symbols
        assert isinstance(symbols, ImageSymbols) and self.moves_to is not None
        for vcpu in subject.board.vcpus:
            pc = vcpu.context.pc
            physical = vcpu.translate(pc) if pc in self.moves_to else None
            if physical is not None and symbols.settle(pc, physical):
                return
        symbols.bias = 0  # the guest executes code outside the image: use the link addresses


def parse(text: str, subject: Subject) -> Place:
    """Return the point that a text names. UserError if the text is neither a time nor an address, a
    symbol or a line of the guest."""
    if ZERO.fullmatch(text):
        return Place(ns=0)  # before the first instruction
    if text[:1].isdigit() and text[:2].lower() != "0x" and ":" not in text:
        return Place(ns=units.parse_time(text))
    marks(text, subject)
    return Place(pc=text)


def marks(text: str, subject: Subject) -> Marks:
    """Return the addresses that a text names: ``0x40080000``, ``main``, ``main+0x10``,
    ``timer.c:42`` or ``timer.c:init``. UserError if the guest does not have the name. The message
    lists similar names."""
    if text[:2].lower() == "0x":
        return Marks((units.parse_count(text, what="address"),))
    name, offset = _split(text)
    found = sorted(set(_Finder(subject).addresses(name, offset)))
    if len(found) > MOST_MARKS:
        raise UserError(
            f"{printable(name)} is at {len(found)} addresses, too many to stop at; give one of them"
        )
    from armvirt.debug.symbol_file import UPPER, ImageSymbols

    moves = isinstance(subject.symbols, ImageSymbols) and subject.symbols.moves
    return Marks(tuple(found), range(UPPER, 1 << 64) if moves else None)


def _split(text: str) -> tuple[str, int]:
    name, plus, offset = text.rpartition("+")
    return (name, units.parse_count(offset, what="offset")) if plus else (text, 0)


def elsewhere(text: str, subject: Subject) -> str:
    """Return a hint for the user if the guest did not reach the function that ``text`` names. The
    hint lists the functions into which the compiler has inlined this function. "" if the function
    is not inlined, or if there is no debug information."""
    name, _ = _split(text)
    return (
        _Finder(subject).inlined_too(name) if text[:2].lower() != "0x" and ":" not in name else ""
    )


class _Finder:
    """Finds a name in the guest's symbols, or else in its debug information. ``linked`` has the
    symbols at their link-time addresses. ``_moved`` is a function that converts the link-time
    address of an instruction to the addresses at which the guest executes the instruction."""

    def __init__(self, subject: Subject) -> None:
        from armvirt.board.boot.symbols import SymbolTable
        from armvirt.debug.symbol_file import ImageSymbols

        symbols = subject.symbols
        self._moved: Callable[[int], list[int]] = lambda address: [address]
        if isinstance(symbols, ImageSymbols):
            self._moved, symbols = symbols.moved, symbols.linked
        self.linked: SymbolSource | None = symbols
        self._file = symbols.origin if isinstance(symbols, SymbolTable) else None

    @cached_property
    def _debug(self) -> DebugInfo | None:
        """The debug information of the file that has the symbols; None if there is no debug
        information."""
        if self._file is None:
            return None
        from armvirt.debug.dwarf import DebugInfo

        debug = DebugInfo(*self._file)
        return debug if debug.present else None

    def addresses(self, name: str, offset: int) -> list[int]:
        """The addresses at which the guest executes one instruction. ``name`` is a symbol,
        FILE:LINE or FILE:FUNCTION. ``offset`` is the number of bytes from there to the instruction.
        UserError for an unknown name."""
        if match := _LINE.fullmatch(name):
            found = self._lines(match["file"], int(match["line"]))
        elif match := _FILE_FUNCTION.fullmatch(name):
            found = self._of_file(match["file"], match["name"])
        else:
            found = self._named(name) or self._inlined(name, offset) or self._unknown(name)
        return [at for address in found for at in self._moved(address + offset)]

    def _named(self, name: str) -> list[int]:
        """The addresses of a name in the symbol table. UserError if several functions have this
        name."""
        if self.linked is None:
            return []
        whole = self.linked.addresses_of(name)
        found = sorted({*whole, *self._clones(name)})
        if len(found) < 2:
            return found
        files = self._files_of(name)
        # A function and its clones count as one function; functions of several files do not.
        if len(whole) > 1 or len({files[address] for address in found if address in files}) > 1:
            shown = [
                f"{address:#x}" + (f" ({files[address]})" if address in files else "")
                for address in found
            ]
            candidates = ", ".join(shown[:MOST_SHOWN]) + (
                ", ..." if len(shown) > MOST_SHOWN else ""
            )
            way = "give the address, or FILE:FUNCTION" if files else "give the address"
            raise UserError(f"{printable(name)} is ambiguous: {candidates}; {way}")
        return found

    def _files_of(self, name: str) -> dict[int, str]:
        """The source file of each function with this name, by address. Empty if there is no debug
        information, or if the search would take too long."""
        from armvirt.debug.dwarf import TooManyError

        try:
            sites = [] if self._debug is None else self._debug.functions(name)
        except TooManyError:
            return {}
        return {site.address: site.file for site in sites}

    def _clones(self, name: str) -> list[int]:
        """The addresses of the copies that the compiler made from a function under another name,
        such as ``name.constprop.0``."""
        assert self.linked is not None
        size = len(name)
        clones = {
            full
            for full in self.linked.names()
            if full.startswith(name) and _CLONE.fullmatch(full, size)
        }
        return [address for full in clones for address in self.linked.addresses_of(full)]

    def inlined_too(self, name: str) -> str:
        """Return a text for a function that has a symbol and is also inlined into other functions:
        "it is inlined, too (a+0x10, b+0x20)". "" for any other function."""
        if self.linked is None or self.linked.address_of(name) is None or self._debug is None:
            return ""
        from armvirt.debug.dwarf import TooManyError

        try:
            sites = self._debug.inlined(name)
        except TooManyError:
            return ""
        return f"it is inlined, too ({self._where(sites)})" if sites else ""

    def _inlined(self, name: str, offset: int) -> list[int]:
        sites = [] if self._debug is None else self._debug.inlined(name)
        if offset and sites:
            raise UserError(
                f"{printable(name)} is inlined ({self._where(sites)}): an offset has no meaning there"
            )
        return [site.address for site in sites]

    def _where(self, sites: Sequence[Site]) -> str:
        assert self.linked is not None
        places = [
            self.linked.lookup(site.address) or f"{site.address:#x}" for site in sites[:MOST_SHOWN]
        ]
        return ", ".join(places) + (", ..." if len(sites) > MOST_SHOWN else "")

    def _lines(self, file: str, line: int) -> list[int]:
        return self._with_debug(f"{file}:{line}").line(file, line)

    def _of_file(self, file: str, name: str) -> list[int]:
        debug = self._with_debug(f"{file}:{name}")
        found = {
            site.address for site in (*debug.functions(name, file), *debug.inlined(name, file))
        }
        if not found:
            files = ", ".join(sorted(set(self._files_of(name).values()))[:MOST_SHOWN])
            hint = f"it is in {files}" if files else "no function has that name"
            raise UserError(f"{printable(file)}:{printable(name)}: no such function; {hint}")
        return sorted(found)

    def _with_debug(self, what: str) -> DebugInfo:
        if self._debug is None:
            raise UserError(
                f"{printable(what)}: the guest has no debug information; build it with -g"
            )
        return self._debug

    def _unknown(self, name: str) -> list[int]:
        names = [] if self.linked is None else list(islice(self.linked.names(), MOST_NAMES))
        if not names:
            raise UserError(f"{printable(name)}: the guest has no symbols; {_NO_SYMBOLS}")
        if self._debug is not None:
            names += self._debug.names()
        near = _near(name, names)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else "give a function of the guest, an address or a time"
        )
        if self._debug is None:
            hint += " (inlined functions and lines are known only with debug information: build it with -g)"
        raise UserError(f"{printable(name)}: the guest has no such symbol; {hint}")


_NO_SYMBOLS = "give a time or an address, or --symbols with its ELF (vmlinux) or System.map"


def _near(name: str, names: Iterable[str]) -> list[str]:
    """At most `NEAR` names that are similar to ``name``: first the names that differ in a few
    letters, then the names that contain ``name``."""
    distinct = list(dict.fromkeys(names))
    within = (
        sorted((each for each in distinct if name.lower() in each.lower()), key=len)
        if len(name) > 2
        else []
    )
    some = distinct
    if len(distinct) > MOST_NEAR:
        some = [
            each for each in distinct if each[:1] == name[:1] and abs(len(each) - len(name)) <= 3
        ][:MOST_NEAR]
    close = get_close_matches(name, some, NEAR)
    return list(dict.fromkeys([*close, *within]))[:NEAR]
