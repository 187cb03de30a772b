"""The trace hash of a run: SHA-256 over its canonical architectural events and its final state.

Two runs have the same hash if and only if the guest observed the same events at the same times and
ended in the same state (apart from collisions of SHA-256). The hash does not depend on filters,
other sinks, the engine, or the real machine on which armvirt runs.

The hashed text is UTF-8. The first line is ``armvirt-trace 1``. Then follows one line per canonical
event::

    NS VCPU PC KIND FIELD FIELD ...

NS (the virtual time in ns) and VCPU (-1 if there is no vCPU) are decimal. PC is lower-case
hexadecimal without prefix. KIND is the kind of the event in `armvirt.events`. The fields of the
event follow in the order of their declaration. The last field is the kind again. An integer is
written in decimal (a boolean as 0 or 1), a string as a JSON string in ASCII, and a tuple as its
fields in brackets, separated by commas.

An event whose kind is not in `CANONICAL` is left out, so that new kinds of diagnostic events do not
change old hashes. For example, ``icc-write`` is left out, because events of other kinds show the
effects of the write.

The last line is ``state HEX``. HEX is the SHA-256 of the bytes that `HashSink.finish` gets. In a
run of `Machine` these bytes are a digest of the registers of all CPUs and of RAM.
"""

from __future__ import annotations

import hashlib
import json

from armvirt.events import Event, Stamp

HASH_FORMAT = 1  # version of the format of the hashed text
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
    """The canonical text of one field of an event."""
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return "[" + ",".join(map(encode, value)) + "]"
    raise TypeError(f"an event field is neither number, text nor tuple: {value!r}")


def line(stamp: Stamp, event: Event) -> str:
    """The canonical text of an event, with its line feed."""
    fields = " ".join(map(encode, event))
    return f"{stamp.ns} {stamp.vcpu} {stamp.pc:x} {event.kind} {fields}\n"


class HashSink:
    """The sink that computes the trace hash. `finish` returns the hash of all events until the
    call. The run may continue after the call."""

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
        """Return the hash, in hexadecimal, of all events until now and of ``final_state``.
        ``final_state`` are bytes that stand for the state of the machine. The sink can get more
        events after this call."""
        self._drain()
        whole = self._sha.copy()
        whole.update(f"state {hashlib.sha256(final_state).hexdigest()}\n".encode())
        return whole.hexdigest()

    def _drain(self) -> None:
        self._sha.update("".join(self._lines).encode())
        self._lines.clear()
