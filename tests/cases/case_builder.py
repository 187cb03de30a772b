"""The cases: what each is built from, and how. ``make cases`` builds the ELFs anew.

The ELFs are committed beside their sources, so that they run where there is no cross compiler. The
compiler that made them is that of the bundled guests (``firmware/guests.toml``).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import build_firmware

HERE = Path(__file__).resolve().parent


class Case(NamedTuple):
    """``source`` in C is linked with the guests' runtime; one in assembly stands alone, with
    ``defines``."""

    source: str
    defines: tuple[str, ...] = ()


CASES = {
    "line-fell": Case("line-fell.c"),
    "latch-while-active": Case("latch-while-active.c"),
    "secondary-faults": Case("secondary-faults.c"),
    "sevl-wfe": Case("sevl-wfe.S"),
    "sevl-wfe-by-sev": Case("sevl-wfe.S", ("BY_SEV",)),
    "sevl-wfe-by-eret": Case("sevl-wfe.S", ("BY_ERET",)),
    "storm": Case("storm.S"),
    "storm-ptimer": Case("storm.S", ("PTIMER",)),
    "storm-v2": Case("storm.S", ("GICV2",)),
    "storm-v2-ptimer": Case("storm.S", ("GICV2", "PTIMER")),
    "park": Case("park.S"),
    "park-ptimer": Case("park.S", ("PTIMER",)),
    "park-2-63": Case("park.S", ("CVAL=0x8000000000000000",)),
}


def elf_of(name: str) -> Path:
    return HERE / f"{name}.elf"


def build(compiler: build_firmware.Compiler, out: Path) -> list[Path]:
    """Build every case into ``out``. Returns the ELFs."""
    guests = {name: build_firmware.Guest(name, f"{name}.elf", (f"../tests/cases/{case.source}",))
              for name, case in CASES.items()}  # fmt: skip
    with_runtime = [guest for name, guest in guests.items() if CASES[name].source.endswith(".c")]
    bare = [
        build_firmware.build_bare(compiler, guest, CASES[name].defines, out)
        for name, guest in guests.items()
        if CASES[name].source.endswith(".S")
    ]
    return [*build_firmware.build_guests(compiler, with_runtime, out), *bare]


if __name__ == "__main__":
    found = build_firmware.find_compiler()
    if found is None:
        sys.exit("no AArch64 compiler: install gcc-aarch64-linux-gnu, or set CROSS_COMPILE")
    print(f"{len(build(found, HERE))} cases built by {found.version}")
