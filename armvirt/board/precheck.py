"""Checks of the inputs of a board, without building the board, and without reading more than the
headers of files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.board import boot
from armvirt.board.config import BoardConfig, check
from armvirt.board.tree import user_tree
from armvirt.board.virt.memmap import LIMITS, RAM_BASE, ROM
from armvirt.errors import ImageError
from armvirt.inputs import STDIN

if TYPE_CHECKING:
    from pathlib import Path


class Precheck:
    """Checks many configurations; a file that several configurations use is checked once."""

    def __init__(self) -> None:
        self._good: set[tuple[object, ...]] = set()

    def __call__(self, config: BoardConfig) -> None:
        """Check a configuration. UserError if no board can have this configuration, ImageError for
        a file that cannot be used."""
        check(config, LIMITS)
        if config.image is not None:
            self.file(config.image, boot.check, RAM_BASE, config.memory, config.load_addr)
        if config.bios is not None:
            self.file(config.bios, boot.check_bios, ROM)
        if config.initrd is not None:
            self.file(config.initrd, boot.check_initrd, config.memory)
        if config.dtb is not None:
            self.file(config.dtb, user_tree.load_user_tree)

    def file(self, path: str | Path, look: Callable[..., object], *more: object) -> None:
        """Call ``look(path, *more)``, unless the same call has succeeded before. ImageError for a
        file that cannot be used."""
        key = (look, path, *more)
        if key not in self._good:
            _refuse_pipe(path)
            look(path, *more)
            self._good.add(key)


def _refuse_pipe(path: str | Path) -> None:
    """Refuse a pipe, because it can be read only once: data read here would be missing in the
    run."""
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
