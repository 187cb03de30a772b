"""The interface of a machine that is inspected. It is the part of `armvirt.machine.machine.Machine`
that `armvirt.views` and `armvirt.places` use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from armvirt.board.board import Board
    from armvirt.board.boot import SymbolSource
    from armvirt.events import Sink


class Subject(Protocol):
    """A machine that can be inspected, because it does not run at the moment."""

    @property
    def board(self) -> Board:
        """The board, with the VM and its vCPUs."""

    @property
    def symbols(self) -> SymbolSource | None:
        """The guest's symbols; None if there are no symbols."""

    @property
    def sinks(self) -> Sequence[Sink]:
        """The sinks that received the events of the run."""

    @property
    def ended(self) -> str | None:
        """The verdict of the run; None while the guest has not ended."""

    @property
    def ns(self) -> int:
        """The current virtual time, in ns."""
