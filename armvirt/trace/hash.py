"""A run as one number: SHA-256 over its canonical architectural events and its final state.

Two runs have the same hash if and only if (up to SHA-256) the guest observed the same events at the
same times. The hash does not depend on filters, other sinks, the engine, or the machine.

The hashed text is UTF-8. The first line is ``armvirt-trace 1``. Then follows one line per canonical
event::

    NS VCPU PC KIND FIELD FIELD ...

NS and VCPU are decimal, PC is lower-case hexadecimal without prefix, KIND is as in
`armvirt.events`. Then follows each field of the event in the order of declaration, the last one
being its kind again: an integer (booleans count as 0 and 1) in decimal, a string as a JSON string
in ASCII, a tuple as its fields in brackets separated by commas. Events whose kind is not in
`CANONICAL` are left out, so that new kinds of diagnostic events (``icc-write``, whose effects are
in the other kinds) do not change old hashes. The last line is ``state HEX``: the SHA-256 of the
final state (general and system registers, RAM) in the layout of `Machine`; of no bytes if there is
no final state.
"""

from __future__ import annotations

import hashlib
import json

from armvirt.events import Event, Stamp

HASH_FORMAT = 1  # of the hashed text
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
    """A field of an event in the canonical text."""
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return "[" + ",".join(map(encode, value)) + "]"
    raise TypeError(f"an event field is neither number, text nor tuple: {value!r}")


def line(stamp: Stamp, event: Event) -> str:
    """An event in the canonical text, with its line feed."""
    fields = " ".join(map(encode, event))
    return f"{stamp.ns} {stamp.vcpu} {stamp.pc:x} {event.kind} {fields}\n"


class HashSink:
    """The sink. ``finish`` returns the hash of the events so far; the run may continue after the
    call."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._lines = [f"armvirt-trace {HASH_FORMAT}\n"]
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
        """The hash in hexadecimal, as if the run ended now with this state."""
        self._drain()
        whole = self._sha.copy()
        whole.update(f"state {hashlib.sha256(final_state).hexdigest()}\n".encode())
        return whole.hexdigest()

    def _drain(self) -> None:
        self._sha.update("".join(self._lines).encode())
        self._lines.clear()
