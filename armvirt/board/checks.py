"""Checks of a configuration and of its files, before the board is built. Guests, firmware and
initrds are not read completely; a device tree is read completely."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.arch.gic import (
    MAX_CPUS_GICV2,
    MAX_LIST_REGISTERS,
    MAX_PRIORITY_BITS,
    MIN_PRIORITY_BITS,
)
from armvirt.board import boot
from armvirt.board.boards import BOARDS
from armvirt.board.config import BoardConfig
from armvirt.board.tree import user_tree
from armvirt.errors import ImageError, UserError
from armvirt.inputs import STDIN

if TYPE_CHECKING:
    from pathlib import Path

    from armvirt.board.model import BoardModel


def check(config: BoardConfig, model: BoardModel) -> None:
    """Check the values of a configuration. UserError if the board cannot have this configuration.
    The files of the configuration are not checked."""
    if config.image is None and config.bios is None:
        raise UserError("no guest: give an image, or a ROM with --bios")
    if config.gic not in (2, 3):
        raise UserError(f"--gic {config.gic}: there is GICv2 and GICv3")
    _check_ranges(config, model)
    if config.gic == 2:
        _check_gicv2(config)
    least, most = model.memmap.RAM_MIN, model.memmap.RAM_MAX
    if not least <= config.memory <= most:
        raise UserError(f"--mem {config.memory}: the board takes {least} to {most} bytes of RAM")


def _check_gicv2(config: BoardConfig) -> None:
    if config.cpus > MAX_CPUS_GICV2:
        raise UserError(
            f"--cpus {config.cpus}: a GICv2 has at most {MAX_CPUS_GICV2} CPUs; use --gic 3"
        )


def _check_ranges(config: BoardConfig, model: BoardModel) -> None:
    ranges = (
        ("cpus", 1, model.memmap.MAX_CPUS, "the board has {least} to {most} CPUs"),
        ("list_registers", 1, MAX_LIST_REGISTERS, "there can be {least} to {most}"),
        ("priority_bits", MIN_PRIORITY_BITS, MAX_PRIORITY_BITS, "there can be {least} to {most}"),
        ("pcpus", 1, model.memmap.MAX_CPUS, "the host has {least} to {most} physical CPUs"),
    )
    for name, least, most, text in ranges:
        value = getattr(config, name)
        if not least <= value <= most:
            raise UserError(
                f"--{name.replace('_', '-')} {value}: {text.format(least=least, most=most)}"
            )
    if config.quantum_ns is not None:
        from armvirt.hyp.kvm import MIN_QUANTUM_NS

        if config.quantum_ns < MIN_QUANTUM_NS:
            raise UserError(
                f"--quantum {config.quantum_ns}ns: a turn takes {MIN_QUANTUM_NS} ns at least"
            )


class Precheck:
    """Checks the configurations of many runs. A file that several configurations use is checked
    only once."""

    def __init__(self) -> None:
        self._good: set[tuple[object, ...]] = set()

    def __call__(self, config: BoardConfig) -> None:
        """Check a configuration and its files. UserError if the board cannot have this
        configuration, ImageError for a file that cannot be used."""
        model = BOARDS[config.board]
        check(config, model)
        if config.image is not None:
            self.file(
                config.image, boot.check, model.memmap.RAM_BASE, config.memory, config.load_addr
            )
        if config.bios is not None:
            self.file(config.bios, boot.check_bios, model.memmap.ROM)
        if config.initrd is not None:
            self.file(config.initrd, boot.check_initrd, config.memory)
        if config.dtb is not None:
            self.file(config.dtb, user_tree.load_user_tree)

    def file(self, path: str | Path, look: Callable[..., object], *more: object) -> None:
        """Check a file by the call ``look(path, *more)``. ``look`` is a function that raises
        ImageError for a file that cannot be used. If a call has succeeded, it is not made again
        with the same arguments."""
        key = (look, path, *more)
        if key not in self._good:
            _refuse_pipe(path)
            look(path, *more)
            self._good.add(key)


def _refuse_pipe(path: str | Path) -> None:
    """Raise ImageError for a pipe, because a pipe can be read only once. If this check read the
    pipe, the data would be missing in the run."""
    try:
        pipe = str(path) == STDIN or stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return  # opening the file reports the error
    if pipe:
        raise ImageError(
            path,
            "it is a pipe, and the files of a suite are read more than once",
            "copy it to a file",
        )
