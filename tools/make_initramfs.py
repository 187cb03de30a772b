"""Writes a Linux initramfs as a cpio archive in the newc format, byte for byte the same for the same files.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst (magic 070701, thirteen 8-digit
hexadecimal fields, names and data padded to four bytes, a trailer entry).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TRAILER = "TRAILER!!!"


class Entry(NamedTuple):
    """One archive member: ``name`` without a leading slash, ``mode`` with its file type, ``data`` (or link target)."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    return Entry(name, stat.S_IFDIR | 0o755)


def regular(name: str, data: bytes, mode: int = 0o755) -> Entry:
    return Entry(name, stat.S_IFREG | mode, data)


def character_device(name: str, major: int, minor: int) -> Entry:
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _member(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _pad(header + name) + _pad(entry.data)


def newc(entries: Iterable[Entry]) -> bytes:
    """The archive as bytes: entries sorted by name, all owned by root, dated 1970."""
    ordered = sorted(entries, key=lambda entry: entry.name)
    members = [_member(number, entry) for number, entry in enumerate(ordered, start=1)]
    return b"".join(members) + _member(0, Entry(TRAILER, 0))


def initramfs(busybox: bytes, modules: dict[str, bytes]) -> bytes:
    """The test initramfs: a static ``busybox``, /init, the self-test and kernel ``modules`` (file name to bytes)."""
    scripts = HERE / "initramfs"
    entries = [
        directory("bin"),
        directory("dev"),
        directory("modules"),
        character_device("dev/console", 5, 1),  # the kernel opens it for /init before devtmpfs is mounted
        regular("bin/busybox", busybox),
        regular("init", (scripts / "init").read_bytes()),
        regular("autorun.sh", (scripts / "autorun.sh").read_bytes(), 0o644),
    ]
    entries += [regular(f"modules/{name}", data, 0o644) for name, data in modules.items()]
    return newc(entries)
