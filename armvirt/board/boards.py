"""The table of the boards. A board is a package beside this module with a `BoardModel`.

Settings and options read their limits here, so this module imports no large module.
"""

from __future__ import annotations

from armvirt.board.model import BoardModel
from armvirt.board.virt import VIRT

BOARDS: dict[str, BoardModel] = {model.name: model for model in (VIRT,)}
