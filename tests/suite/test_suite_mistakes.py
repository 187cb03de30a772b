"""armvirt reports mistakes in a suite before it runs a guest, and a large suite starts fast."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from armvirt.bundled import FOLDER
from armvirt.errors import UserError
from armvirt.suite.collect import collect
from armvirt.suite.toml import MAX_FILE

HELLO = Path(FOLDER) / "hello.elf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good guest, and files that cannot be used."""
    (tmp_path / "good.elf").write_bytes(HELLO.read_bytes())
    (tmp_path / "x86.elf").write_bytes(HELLO.read_bytes()[:18] + b"\x3e" + HELLO.read_bytes()[19:])
    (tmp_path / "typing").write_text("type hello\n")
    (tmp_path / "big").write_bytes(b"x" * (2 << 20))
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('path = "none.elf"', "none.elf: there is no such file"),
        ('path = "x86.elf"', "it is for x86-64, not AArch64"),
        ('path = "fifo"', "it is a pipe, and the files of a suite are read more than once"),
        ('path = "empty"', "it is empty"),
        ('path = "a\\u0000b"', "null"),
        ('path = "good.elf"\nscript = "typing"', "typing:1: not a step"),
        ('path = "good.elf"\nscript = "none"', "none: there is no such file"),
        ('path = "good.elf"\nscript = "fifo"', "it is a pipe"),
        ('path = "good.elf"\ndtb = "good.elf"', "not a device tree blob"),
        ('path = "good.elf"\ninitrd = "big"\nmem = "1M"', "outside RAM|larger than RAM"),
        ('path = "good.elf"\ninitrd = "empty"', "it is empty"),
        ('path = "good.elf"\nbios = "good.elf"', "a boot ROM is raw"),
        ('path = "good.elf"\ngic = 2\ncpus = 9', "a GICv2 has at most 8 CPUs"),
        ('path = "good.elf"\nload-addr = "0x40000000"', "linked at fixed addresses"),
        ('path = "good.elf"\ntrace = "good.elf"', "is read by this run"),
        ('path = "good.elf"\ntrace = "t"\ndump-dtb = "t"', "it is written by .*trace, too"),
        ('path = "good.elf"\ntrace = "none/t"', "there is no directory"),
        ('path = "good.elf"\nappend = "a\\u0000b"', "NUL"),
        ('path = "good.elf"\ncpus = [1]', "must be a number or a text"),
        ('path = "good.elf"\ncpus = nan', "cpus: 'nan' is not a CPU count"),
        ('path = "good.elf"\ntimeout = inf', "timeout: 'inf' is not a time"),
        ('path = "good.elf"\ntimeout = "9999999999h"', "timeout: time .* is outside"),
        ('path = "good.elf"\ncpus = ' + "9" * 5000, "not TOML|too large"),
        ('path = "good.elf"\nexpect = {a = 1}', "must be a text"),
        ("path = 1979-05-27", "path must be a text"),
    ],
)
def test_what_a_row_says(folder: Path, row: str, says: str) -> None:
    suite = folder / "armvirt.toml"
    suite.write_text(f'[[guest]]\nname = "hello"\n[[guest]]\nname = "second"\n{row}\n')
    with pytest.raises(UserError, match=says) as caught:
        collect([str(suite)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = " + "{a=" * 100_000, "nested too deeply"),
        ("a." * 500_000 + "b = 1", "a key has more than 64 parts"),
        ("[" + "a." * 500_000 + "b]", "a key has more than 64 parts"),
        ('x = {"a" . ' + "'b' . " * 1000 + "c = 1}", "a key has more than 64 parts"),
        ("defaults = 3", "defaults is not a table"),
        ("guest = 3", "there is no .*guest.* table"),
        ("guest = [3]", "there is no .*guest.* table"),
        ("guest = {}", "there is no .*guest.* table"),
        ("[[guest]]\n" + "k" * 100_000 + " = 1", "unknown key"),
        ("#" * (MAX_FILE + 1), "more than 8 MiB"),
    ],
    ids=range(11),
)
def test_what_the_file_says(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "armvirt.toml").write_text(text)
    began = time.process_time()
    with pytest.raises(UserError, match=says):
        collect([str(tmp_path)])
    assert time.process_time() - began < 15  # by the square of its length, it would be hours


def test_dots_in_texts_are_no_key(folder: Path) -> None:
    (folder / "armvirt.toml").write_text(
        f'[[guest]]\npath = "good.elf"\nappend = "{"a." * 1000}"\n'
    )
    assert len(collect([str(folder)])) == 1


def test_twenty_thousand_guests_start_fast(folder: Path) -> None:
    rows = "".join(
        f'[[guest]]\nname = "guest {n}"\npath = "good.elf"\ncpus = 1\n' for n in range(20_000)
    )
    (folder / "armvirt.toml").write_text(rows)
    began = time.process_time()
    assert len(collect([str(folder)])) == 20_000
    assert (
        time.process_time() - began < 13
    )  # half of what comparing each name with all others takes


def test_a_guest_of_standard_input_is_refused() -> None:
    with pytest.raises(UserError, match="it is a pipe"):
        collect(["-"])
