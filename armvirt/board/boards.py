"""The table of the boards. Each board is a package beside this module, and has a `BoardModel`.

The settings and the command line read the limits of a board from this table, so this module imports
no large module.
"""

from __future__ import annotations

from armvirt.board.model import BoardModel
from armvirt.board.virt import VIRT

BOARDS: dict[str, BoardModel] = {model.name: model for model in (VIRT,)}
