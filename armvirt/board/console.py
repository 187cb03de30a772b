"""The console: the output of the guest, the input of the guest, and console scripts.

A console script sends its input at the instruction at which the guest has printed the expected
text. So scripted input does not depend on the speed of the real machine. Terminal input arrives
through `feed`, which any thread may call. The device reads the input when its FIFO has free space.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from armvirt.errors import UserError
from armvirt.hyp.kvm import ConsoleEvent, EventBus
from armvirt.records import NamedTuple
from armvirt.state import State, checked

if TYPE_CHECKING:
    import threading

    from armvirt.board.devices.device import Timers

OWNER = "console"
STATE_VERSION = 1
KEPT = 8 << 20
"""The number of bytes of output that are always kept. When there are twice as many bytes, the older
half is dropped."""


class Step(NamedTuple):
    """One step of a console script. If ``kind`` is "expect", the script waits for ``text`` from the
    guest, at most ``timeout_ns`` ns of guest time (None: no limit). If ``kind`` is "send", the
    script sends ``text`` to the guest."""

    kind: str
    text: bytes
    timeout_ns: int | None = None


def _bytes(text: str | bytes) -> bytes:
    if not isinstance(text, (str, bytes, bytearray)):
        raise UserError(f"{text!r:.60} is no text; write a str or bytes")
    return text.encode() if isinstance(text, str) else bytes(text)


class Console:
    """The console of a guest, for output and input. ``output`` has the output of the guest. If the
    guest prints very much, the first ``dropped`` bytes of its output are no longer in ``output``
    (`KEPT`).

    Each function of ``listeners`` is called with every byte that the guest prints. Each function of
    ``receivers`` is called when a script has sent a text to the guest.
    """

    def __init__(self) -> None:
        self.bus = EventBus()  # without sinks, until `attach`
        self.output = bytearray()
        self.dropped = 0
        self.listeners: list[Callable[[bytes], None]] = []
        self.receivers: list[Callable[[], None]] = []
        self.interactive = False  # a person may type at any time
        self._input: deque[int] = deque()
        self._fed: deque[int] = deque()  # another thread appends, the run's thread pops
        self._steps: deque[Step] = deque()
        self._seen = 0
        self._timers: Timers | None = None
        self._armed = False
        self.expired = False  # a script's expectation was not met in time
        self._stop: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Console: {self.printed} bytes printed, {len(self._input) + len(self._fed)} to be read>"

    # -- scripts --

    def attach(self, bus: EventBus, timers: Timers, stop: Callable[[], None]) -> None:
        """Connect the console to an emulated host. ``bus`` gets the trace events of the console.
        ``timers`` has the clock (virtual time) for the time limits of `expect` steps. ``stop`` is
        called when such a time limit passes."""
        self.bus, self._timers, self._stop = bus, timers, stop
        timers.register(OWNER, self._expire)
        self._advance()

    def expect(self, text: str | bytes, timeout_ns: int | None = None) -> Console:
        """Add a step to the script: wait until the guest prints ``text`` after the text of the
        previous `expect` step. Then the script continues with the next step.

        With ``timeout_ns``, the run fails if the step takes more than this number of ns of guest
        time.
        """
        if timeout_ns is not None and (
            isinstance(timeout_ns, bool) or not isinstance(timeout_ns, int)
        ):
            raise UserError(f"timeout_ns={timeout_ns!r:.60}: write a number of ns")
        self._steps.append(Step("expect", _bytes(text), timeout_ns))
        self._advance()
        return self

    def send(self, text: str | bytes) -> Console:
        """Add a step to the script: send ``text`` to the guest when the previous steps are done."""
        self._steps.append(Step("send", _bytes(text)))
        self._advance()
        return self

    @property
    def waiting_for(self) -> bytes | None:
        """The text for which the script waits now; None if the script is finished."""
        return self._steps[0].text if self._steps else None

    def _advance(self) -> None:
        while self._steps:
            kind, text, timeout_ns = self._steps[0]
            if kind == "expect":
                at = self.output.find(text, self._seen)
                if at < 0:
                    self._arm(timeout_ns)
                    return
                self._disarm()
                self._seen = at + len(text)
            else:
                self._input.extend(text)
                for tell in self.receivers:
                    tell()
            self._steps.popleft()

    def _arm(self, timeout_ns: int | None) -> None:
        if timeout_ns is not None and self._timers is not None and not self._armed:
            self._armed = True
            self._timers.arm(self._timers.now + timeout_ns, OWNER)

    def _disarm(self) -> None:
        if self._armed and self._timers is not None:
            self._armed = False
            self._timers.cancel(OWNER)

    def _expire(self, _kind: str) -> None:
        self._armed, self.expired = False, True
        self._stop()

    # -- the device's side --

    def transmit(self, byte: int) -> None:
        """Add one byte to the output of the guest."""
        self.output.append(byte)
        if len(self.output) >= 2 * KEPT:
            self._drop()
        if self.bus.active:
            self.bus.emit(ConsoleEvent("tx", byte))
        for listen in self.listeners:
            try:
                listen(bytes((byte,)))
            except BaseException as error:
                self.bus.late.keep(error)
        if self._steps and self.output.endswith(self._steps[0].text):
            self._advance()

    def _drop(self) -> None:
        count = len(self.output) - KEPT
        del self.output[:count]
        self.dropped += count
        self._seen = max(0, self._seen - count)

    @property
    def printed(self) -> int:
        """The number of bytes that the guest has printed."""
        return self.dropped + len(self.output)

    @property
    def text(self) -> str:
        """The output of the guest as text. If bytes were dropped, the text starts with a line that
        has the number of dropped bytes."""
        kept = bytes(self.output).decode("utf-8", "replace")
        return (
            f"[armvirt: the first {self.dropped} bytes are not kept]\n{kept}"
            if self.dropped
            else kept
        )

    def receive(self) -> int | None:
        """Return the next byte of input for the guest, and remove the byte from the input. Return
        None if there is no input now."""
        queue = self._input or self._fed
        if not queue:
            return None
        byte = queue.popleft()
        if self.bus.active:
            self.bus.emit(ConsoleEvent("rx", byte))
        return byte

    def feed(self, data: str | bytes) -> None:
        """Add terminal input. Any thread may call this method. While the machine runs, it checks
        for terminal input every 20 ms of host time."""
        self._fed.extend(_bytes(data))
        self.arrived.set()

    @cached_property
    def arrived(self) -> threading.Event:
        """A `threading.Event`, which `feed` sets. A thread that waits for input waits for this
        event."""
        import threading  # only for an interactive console

        return threading.Event()

    @property
    def closed(self) -> bool:
        """True if no more input can come: the guest has read all input, the script is finished, and
        the console is not interactive, so no user can type."""
        return not (self.interactive or self._input or self._fed or self._steps)

    @property
    def fed(self) -> bool:
        """True if there is terminal input that the guest has not read."""
        return bool(self._fed)

    def state(self) -> State:
        """Return the output, the scripted input that the guest has not read, and the steps of the
        script that are not done."""
        return {
            "version": STATE_VERSION, "output": bytes(self.output).hex(),
            "dropped": self.dropped, "input": list(self._input), "seen": self._seen,
            "steps": [[kind, text.hex(), timeout_ns] for kind, text, timeout_ns in self._steps],
            "armed": self._armed, "expired": self.expired,
        }  # fmt: skip

    def load(self, state: State) -> None:
        """Restore the state that `state` returned."""
        checked(state, "the console", STATE_VERSION)
        self.output[:] = bytes.fromhex(state["output"])
        self.dropped, self._seen = state["dropped"], state["seen"]
        self._input = deque(state["input"])
        self._steps = deque(Step(k, bytes.fromhex(text), t) for k, text, t in state["steps"])
        self._armed, self.expired = state["armed"], state["expired"]
