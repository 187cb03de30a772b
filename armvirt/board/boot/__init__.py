"""Boot protocols: the file formats of guests, and the addresses of the guest, the device tree and
the initrd."""

from armvirt.board.boot.bios import check_bios, load_bios
from armvirt.board.boot.loader import check, check_initrd, load, load_initrd
from armvirt.board.boot.model import Loaded, Segment, SymbolSource
from armvirt.board.boot.place import Placement, place

__all__ = [
    "Loaded",
    "Placement",
    "Segment",
    "SymbolSource",
    "check",
    "check_bios",
    "check_initrd",
    "load",
    "load_bios",
    "load_initrd",
    "place",
]
