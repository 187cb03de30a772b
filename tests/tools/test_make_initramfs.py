"""The initramfs that `make guests` builds: the newc format, and the same bytes each time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import make_initramfs
import pytest
from conftest import ROOT


def members(archive: bytes) -> list[tuple[str, int, bytes]]:
    """(name, mode, data) of each member, by a reader that shares nothing with the writer."""
    found, at = [], 0
    while True:
        header = archive[at : at + 110]
        assert header[:6] == b"070701"
        fields = [int(header[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], archive[start : start + size]))
        at = (start + size + 3) & ~3


def test_the_archive_holds_what_the_kernel_needs() -> None:
    archive = make_initramfs.initramfs(b"busybox!!", {"b.ko": b"bb", "a.ko": b"a"})
    found = {name: (mode, data) for name, mode, data in members(archive)}
    assert list(found) == sorted(found)
    assert found["bin/busybox"] == (0o100755, b"busybox!!")
    assert found["dev/console"][0] == 0o020600
    assert found["modules/a.ko"] == (0o100644, b"a")
    assert found["init"][0] == 0o100755
    assert found["init"][1].startswith(b"#!/bin/busybox sh\n")
    assert len(archive) % 4 == 0


def test_the_same_files_give_the_same_bytes() -> None:
    one = make_initramfs.initramfs(b"x", {"a.ko": b"1", "b.ko": b"2"})
    assert one == make_initramfs.initramfs(b"x", {"b.ko": b"2", "a.ko": b"1"})


def test_the_scripts_are_shell() -> None:
    scripts = ROOT / "tools" / "initramfs"
    for name in ("init", *(path.name for path in scripts.glob("*.sh"))):
        subprocess.run(["sh", "-n", str(scripts / name)], check=True)


def test_renewing_keeps_everything_but_the_scripts(tmp_path: Path) -> None:
    archive = make_initramfs.initramfs(b"busybox!!", {"a.ko": b"abc", "b.ko": b""})
    assert make_initramfs.renew(archive) == archive
    script = (ROOT / "tools" / "initramfs" / "autorun.sh").read_bytes()
    old = archive.replace(script, b"#" * len(script))
    assert old != archive and make_initramfs.renew(old) == archive
    (tmp_path / "old").write_bytes(old)
    assert make_initramfs.main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert (tmp_path / "new").read_bytes() == archive


def test_renewing_what_is_no_archive() -> None:
    with pytest.raises(ValueError, match="no cpio archive"):
        make_initramfs.renew(b"no archive")
