"""The configuration of a board: every setting with its default, and the limits of a board.

Only this file has the defaults. The command line, suite files and `Machine` read the defaults here,
so this module imports no large module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from armvirt.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


class Region(NamedTuple):
    """A range of guest physical addresses (IPA): ``size`` bytes from ``base``."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address after the region."""
        return self.base + self.size


class Limits(NamedTuple):
    """The limits of a board: the number of CPUs, and the bytes of RAM."""

    cpus: int
    ram_min: int
    ram_max: int


class BoardConfig(NamedTuple):
    """The configuration of the board: ``memory`` in bytes, ``cntfrq`` in Hz, ``cntvoff`` in ticks
    (None: the guest's virtual count starts at 0).

    ``gic`` is 2 or 3; a GICv3 has an ITS if ``its`` is True. The host has ``pcpus`` physical CPUs,
    and time slices of ``quantum_ns`` (None: 1 ms on one physical CPU, 100 us on several).
    ``rtc_base`` is the date at virtual time 0, in seconds since 1970 (None: 2024-01-01);
    ``counter_start`` the host's physical count at virtual time 0, in ticks (None: the default of
    the host). All random numbers for a guest are functions of ``seed``: those of the TRNG,
    /chosen/rng-seed and, unless ``kaslr_seed`` is False, /chosen/kaslr-seed.
    """

    image: str | Path | None
    bios: str | Path | None = None
    cpus: int = 1
    memory: int = 512 << 20
    cpu: str = "cortex-a72"
    cntfrq: int = 62_500_000
    cntvoff: int | None = None
    append: str = ""
    initrd: str | Path | None = None
    dtb: str | Path | None = None
    load_addr: int | None = None
    semihosting: bool = False
    engine: str = "auto"
    seed: int = 0
    kaslr_seed: bool = True
    gic: int = 3
    its: bool = True
    list_registers: int = 4
    priority_bits: int = 5
    pcpus: int = 1
    quantum_ns: int | None = None
    vhe: bool = False
    cpu_features: tuple[str, ...] = ()
    rtc_base: int | None = None
    counter_start: int | None = None


def check(config: BoardConfig, limits: Limits) -> None:
    """Check a configuration; UserError if no board with these limits can have this
    configuration."""
    if config.image is None and config.bios is None:
        raise UserError("no guest: give an image, or a ROM with --bios")
    if config.gic not in (2, 3):
        raise UserError(f"--gic {config.gic}: there is GICv2 and GICv3")
    _check_ranges(config, limits)
    if config.gic == 2:
        _check_gicv2(config)
    if not limits.ram_min <= config.memory <= limits.ram_max:
        raise UserError(
            f"--mem {config.memory}: the board takes {limits.ram_min} to {limits.ram_max} bytes of RAM"
        )


def _check_gicv2(config: BoardConfig) -> None:
    from armvirt.arch.gic import MAX_CPUS_GICV2

    if config.cpus > MAX_CPUS_GICV2:
        raise UserError(
            f"--cpus {config.cpus}: a GICv2 has at most {MAX_CPUS_GICV2} CPUs; use --gic 3"
        )


def _check_ranges(config: BoardConfig, limits: Limits) -> None:
    ranges = (
        ("cpus", 1, limits.cpus, "the board has 1 to {most} CPUs"),
        ("list_registers", 1, 16, "there can be 1 to {most}"),
        ("priority_bits", 5, 7, "there can be 5 to {most}"),
        ("pcpus", 1, limits.cpus, "the host has 1 to {most} physical CPUs"),
    )
    for name, least, most, text in ranges:
        value = getattr(config, name)
        if not least <= value <= most:
            raise UserError(f"--{name.replace('_', '-')} {value}: {text.format(most=most)}")
    if config.quantum_ns is not None:
        from armvirt.hyp.kvm import MIN_QUANTUM_NS

        if config.quantum_ns < MIN_QUANTUM_NS:
            raise UserError(
                f"--quantum {config.quantum_ns}ns: a turn takes {MIN_QUANTUM_NS} ns at least"
            )
