"""Writes a Linux initramfs as a cpio archive in the newc format. The same files give the same
bytes.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst (magic 070701, thirteen
8-digit hexadecimal fields, names and data padded to four bytes, a trailer entry).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TRAILER = "TRAILER!!!"


class Entry(NamedTuple):
    """One member of the archive: ``name`` without a leading slash, ``mode`` with its file type,
    ``data`` (or the target of a link)."""

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


def members(archive: bytes) -> dict[str, bytes]:
    """The data of each member of a newc archive by name; ValueError for any other file."""
    found: dict[str, bytes] = {}
    at = 0
    while archive[at : at + 6] == b"070701":
        size, name_size = (int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in (6, 11))
        name = archive[at + 110 : at + 109 + name_size].decode()
        if name == TRAILER:
            return found
        data = at + 110 + name_size + 3 & ~3
        found[name] = archive[data : data + size]
        at = data + size + 3 & ~3
    raise ValueError("no cpio archive in the newc format, or one without its end")


def renew(archive: bytes) -> bytes:
    """An archive of `initramfs` with its busybox and modules, and with the present scripts."""
    found = members(archive)
    modules = {
        name.removeprefix("modules/"): data
        for name, data in found.items()
        if name.startswith("modules/")
    }
    return initramfs(found["bin/busybox"], modules)


def initramfs(busybox: bytes, modules: dict[str, bytes]) -> bytes:
    """The test initramfs: a static ``busybox``, /init, the self-tests and kernel ``modules`` (file
    name to bytes)."""
    scripts = HERE / "initramfs"
    entries = [
        directory("bin"),
        directory("dev"),
        directory("modules"),
        character_device(
            "dev/console", 5, 1
        ),  # the kernel opens /dev/console for /init before devtmpfs is mounted
        regular("bin/busybox", busybox),
        regular("init", (scripts / "init").read_bytes()),
    ]
    entries += [
        regular(path.name, path.read_bytes(), 0o644) for path in sorted(scripts.glob("*.sh"))
    ]
    entries += [regular(f"modules/{name}", data, 0o644) for name, data in modules.items()]
    return newc(entries)


def main(argv: Sequence[str] | None = None) -> int:
    """Write an archive with the present scripts, from an archive that `make guests` has built."""
    import argparse

    parser = argparse.ArgumentParser(
        description="Write an initramfs of make guests with the present scripts of tools/initramfs."
    )
    parser.add_argument("archive", type=Path, help="for example .cache/guests/initramfs.cpio")
    parser.add_argument("output", type=Path, help="path of the new archive")
    options = parser.parse_args(argv)
    options.output.write_bytes(renew(options.archive.read_bytes()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
