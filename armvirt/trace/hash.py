"""A run as one number: SHA-256 over its canonical architectural events and its final state.

Two runs have the same hash if and only if (up to SHA-256) the guest saw the same things at the same
times. The hash does not depend on filters, other sinks, the engine, or the machine.

The hashed text, in UTF-8, is this. First the line ``armvirt-trace 1``. Then one line per canonical event::

    NS VCPU PC KIND FIELD FIELD ...

NS, VCPU in decimal, PC in lower-case hexadecimal without prefix, KIND as in `armvirt.events`, and each field of the
event in the order of its declaration (its kind, too, is a field, the last one): an integer (booleans count as 0 and
1) in decimal, a string as a JSON string in ASCII, a tuple as its fields in brackets separated by
   commas. Events whose kind is not in `CANONICAL` are left out, so that new kinds of diagnostic
   events (``icc-write``, whose effects are in the other kinds) do not change old hashes. Last the
   line ``state HEX``: the SHA-256 of the final state (general and system registers, RAM) as
   `Machine` lays it out, of nothing if there is none.
"""

from __future__ import annotations

import hashlib
import json

from armvirt.events import Event, Stamp

VERSION = 1
CANONICAL = frozenset(
    {
        "exception",
        "timer-write",
        "timer-line",
        "vgic-inject",
        "lr",
        "ack",
        "eoi",
        "gic-mmio",
        "its",
        "mmio",
        "hypercall",
        "console",
        "sched",
    }
)
_CHUNK = 512  # lines hashed at once


def encode(value: object) -> str:
    """One field in the canonical text."""
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return "[" + ",".join(map(encode, value)) + "]"
    raise TypeError(f"an event field is neither number, text nor tuple: {value!r}")


def line(stamp: Stamp, event: Event) -> str:
    """One event in the canonical text, with its line feed."""
    fields = " ".join(map(encode, event))
    return f"{stamp.ns} {stamp.vcpu} {stamp.pc:x} {event.kind} {fields}\n"


class HashSink:
    """The sink. ``finish`` gives the hash of what was seen so far; the run may go on after it."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._lines = [f"armvirt-trace {VERSION}\n"]
        self.count = 0

    def __repr__(self) -> str:
        return f"<HashSink of {self.count:,} events>"

    def __call__(self, stamp: Stamp, event: Event) -> None:
        if event.kind not in CANONICAL:
            return
        self._lines.append(line(stamp, event))
        self.count += 1
        if len(self._lines) >= _CHUNK:
            self._drain()

    def finish(self, final_state: bytes = b"") -> str:
        """The hash in hexadecimal, if the run ended here with this state."""
        self._drain()
        whole = self._sha.copy()
        whole.update(f"state {hashlib.sha256(final_state).hexdigest()}\n".encode())
        return whole.hexdigest()

    def _drain(self) -> None:
        self._sha.update("".join(self._lines).encode())
        self._lines.clear()
