"""The configuration of a board: every setting with its default.

The command line, suite files and `Machine` read the defaults from this module, so it imports no
large module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.hw.config import HostConfig
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_HOST = HostConfig._field_defaults


class Region(NamedTuple):
    """A range of guest physical addresses (IPA): ``size`` bytes from ``base``."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address after the region."""
        return self.base + self.size

    @property
    def addresses(self) -> range:
        """All addresses of the region."""
        return range(self.base, self.end)


class BoardConfig(NamedTuple):
    """The configuration of a board. ``board`` is a name of `armvirt.board.boards.BOARDS`.
    ``memory`` is the size of RAM in bytes. ``cntfrq`` is the frequency of the counter in Hz.
    ``cntvoff`` is CNTVOFF_EL2 in ticks. If ``cntvoff`` is None, the guest's virtual count starts at
    0.

    ``gic`` is 2 or 3; a GICv3 has an ITS if ``its`` is True. The emulated host has ``pcpus``
    physical CPUs. Each physical CPU runs a vCPU for a time slice of ``quantum_ns``. If
    ``quantum_ns`` is None, the time slice is 1 ms with one physical CPU, and 100 us with several.
    ``rtc_base`` is the date at virtual time 0, in seconds since 1970; None is 2024-01-01.
    ``counter_start`` is the physical count of the emulated host at virtual time 0, in ticks; None
    is the default of the emulated host.

    ``seed`` determines all random numbers for a guest: those of the TRNG, /chosen/rng-seed and
    /chosen/kaslr-seed. If ``kaslr_seed`` is False, there is no /chosen/kaslr-seed. If ``skip`` is
    True, armvirt does not execute the loops in which a guest only polls, but counts their
    instructions (docs/engine.md).
    """

    image: str | Path | None
    bios: str | Path | None = None
    board: str = "virt"
    cpus: int = 1
    memory: int = 512 << 20
    cpu: str = _HOST["cpu"]
    cntfrq: int = _HOST["frequency_hz"]
    cntvoff: int | None = None
    append: str = ""
    initrd: str | Path | None = None
    dtb: str | Path | None = None
    load_addr: int | None = None
    semihosting: bool = False
    engine: str = _HOST["engine"]
    seed: int = 0
    kaslr_seed: bool = True
    gic: int = 3
    its: bool = True
    list_registers: int = _HOST["list_registers"]
    priority_bits: int = _HOST["priority_bits"]
    pcpus: int = _HOST["pcpus"]
    quantum_ns: int | None = _HOST["quantum_ns"]
    vhe: bool = _HOST["vhe"]
    cpu_features: tuple[str, ...] = _HOST["cpu_features"]
    rtc_base: int | None = None
    counter_start: int | None = None
    skip: bool = _HOST["skip"]
