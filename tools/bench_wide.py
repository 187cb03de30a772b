"""armvirt with one more board: ``wide`` is ``virt`` with 988 SPIs, as many as a GIC can have.

    python tools/bench_wide.py run GUEST --board wide

The arguments are those of the command armvirt. The curve `pending` of `make bench` needs the board.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from armvirt.board.boards import BOARDS
from armvirt.board.virt import VIRT

if TYPE_CHECKING:
    from armvirt.board.memmap import MemoryMap

NAME = "wide"
NR_IRQS = 1024
"""INTIDs 1020 to 1023 are special; the SPIs are 32 to 1019."""


def add_board() -> None:
    """Add the board to `BOARDS`. This function must run before the import of the settings, which
    read the names of the boards."""
    memmap = SimpleNamespace(**{**vars(VIRT.memmap), "NR_IRQS": NR_IRQS})
    BOARDS[NAME] = VIRT._replace(name=NAME, memmap=cast("MemoryMap", memmap))


def main() -> int:
    add_board()
    from armvirt.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
