"""GNU as for AArch64, the oracle of encodings: it shares nothing with armvirt."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from conftest import require_tool

PREFIX = "aarch64-linux-gnu-"


def words_of(lines: Sequence[str], folder: Path) -> list[int]:
    """The instruction words of these lines of assembly. ``folder`` takes the intermediate files.

    Without GNU as the test is skipped; in CI it fails.
    """
    source, elf, binary = folder / "a.s", folder / "a.o", folder / "a.bin"
    source.write_text("\n".join([*lines, ""]))
    subprocess.run([require_tool(PREFIX + "as"), "-o", elf, source], check=True)
    objcopy = require_tool(PREFIX + "objcopy")
    subprocess.run([objcopy, "-O", "binary", "-j", ".text", elf, binary], check=True)
    data = binary.read_bytes()
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
