"""What an exit costs in Python calls of EL2.

Time depends on the computer, the number of calls does not. Nobody watches: there is no sink, and no
trace hash.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from conftest import require_native

from armvirt.board.devices.pl011 import Pl011
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.pe import Pe
from armvirt.hyp.run.loop import RunLoop
from armvirt.machine import Machine

TIMER_CALLS = 78
"""At most, from the host's interrupt handler to the next `Pe.run`, for an interrupt of the virtual
timer."""
MMIO_CALLS = 19
"""At most, in `Pe.el2_exit`, for a read of UARTFR."""


class Calls:
    """Counts the calls of Python functions between two events.

    A count is kept if ``marker`` is among the functions that were called.
    """

    def __init__(self, marker: Callable[..., object]) -> None:
        self._marker = code_of(marker)
        self._now: Counter[CodeType] | None = None
        self.kept: list[Counter[CodeType]] = []

    def begin(self) -> None:
        self._now = Counter()

    def end(self) -> None:
        if self._now is not None and self._marker in self._now:
            self.kept.append(self._now)
        self._now = None

    def called(self, code: CodeType) -> None:
        if self._now is not None:
            self._now[code] += 1

    @property
    def usual(self) -> int:
        """The number of calls that occurs most often."""
        return Counter(sum(each.values()) for each in self.kept).most_common(1)[0][0]

    def __str__(self) -> str:
        """The functions of the cheapest count, for the message of a test that fails."""
        least = min(self.kept, key=lambda each: sum(each.values()))
        return "\n".join(
            f"{count:4} {code.co_filename}:{code.co_name}" for code, count in least.most_common()
        )


def code_of(function: Callable[..., object]) -> CodeType:
    code: CodeType = function.__code__  # type: ignore[attr-defined]
    return code


@contextmanager
def profile(function: Callable[[CodeType, str], None]) -> Iterator[None]:
    def of_frame(frame: FrameType, event: str, _argument: object) -> None:
        function(frame.f_code, event)

    sys.setprofile(of_frame)
    try:
        yield
    finally:
        sys.setprofile(None)


def run(guest: str, function: Callable[[CodeType, str], None]) -> None:
    require_native()
    with Machine(guest, engine="native", trace_hash=False) as machine:
        machine.host._look_at = math.inf  # a look at the host's clock belongs to no exit
        with profile(function):
            machine.run()


def test_an_interrupt_of_the_virtual_timer() -> None:
    calls = Calls(PhysicalGic.acknowledge)
    first, last = code_of(RunLoop.host_interrupts), code_of(Pe.run)

    def watch(code: CodeType, event: str) -> None:
        if event == "call":
            if code is first:
                calls.begin()
            calls.called(code)
            if code is last:
                calls.end()

    run("oneshot", watch)
    assert calls.usual <= TIMER_CALLS, f"{calls.usual} calls:\n{calls}"


def test_a_read_of_uartfr() -> None:
    calls, exit = Calls(Pl011.read_word), code_of(Pe.el2_exit)

    def watch(code: CodeType, event: str) -> None:
        if event == "call":
            if code is exit:
                calls.begin()
            calls.called(code)
        elif event == "return" and code is exit:
            calls.end()

    run("hello", watch)
    assert calls.usual <= MMIO_CALLS, f"{calls.usual} calls:\n{calls}"
