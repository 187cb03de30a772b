"""A trace as JSON lines: one object per event.

Every line has ``ns`` (virtual time), ``insns`` (instructions retired by the vCPU), ``vcpu``, ``pc``
and ``kind``, followed by the event's own fields (`armvirt.events`). Addresses, register values and
encodings are strings in hexadecimal: JSON readers that use floating point would lose their low
bits. The first line, of kind ``header``, describes the file; the last one, of kind ``end``, says
that it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from armvirt.events import Event, Stamp
from armvirt.trace.files import SupportsWrite

FORMAT = 1
HEX_FIELDS = frozenset({"pc", "esr", "elr", "value", "address", "offset", "function"})


def record(stamp: Stamp, event: Event) -> dict[str, Any]:
    """One event as JSON-able data."""
    fields = event._asdict()
    plain = {
        "ns": stamp.ns,
        "insns": stamp.insns,
        "vcpu": stamp.vcpu,
        "pc": hex(stamp.pc),
        "kind": event.kind,
    }
    # An exception's target is an address; other events call a vCPU their target.
    address_target = event.kind == "exception"
    for name, value in fields.items():
        as_hex = name in HEX_FIELDS or (address_target and name == "target")
        plain[name] = hex(int(value)) if as_hex and isinstance(value, int) else _plain(value)
    return plain


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [hex(item) if isinstance(item, int) else item for item in value]
    return int(value) if isinstance(value, int) else value


class JsonLines:
    """A sink that writes to ``file``. Until one is attached, events are dropped: files open after
    input is checked."""

    def __init__(self, file: SupportsWrite | None = None) -> None:
        self._file: SupportsWrite | None = None
        self.count = self._last_ns = 0
        if file is not None:
            self.attach(file)

    def __repr__(self) -> str:
        return f"<JsonLines of {self.count:,} events>"

    def attach(self, file: SupportsWrite, **about: object) -> None:
        """Start writing; ``about`` goes into the first line."""
        self._file = file
        self._write({"kind": "header", "format": FORMAT, **about})

    @contextmanager
    def writing(self, file: SupportsWrite, **about: object) -> Iterator[None]:
        """Within this events go to ``file``; at its end, whatever ends it, comes the last line."""
        self.attach(file, **about)
        try:
            yield
        finally:
            self.end()

    def __call__(self, stamp: Stamp, event: Event) -> None:
        if self._file is not None:
            self._write(record(stamp, event))
            self._last_ns = stamp.ns
            self.count += 1

    def end(self, **about: object) -> None:
        """The last line, which says that nothing is missing; ``about`` goes into it. What comes
        later is dropped, and so is this after an error in writing, for something is missing
        then."""
        if self._file is not None:
            self._write({"ns": self._last_ns, "kind": "end", "events": self.count, **about})
            self._file = None

    def _write(self, data: dict[str, Any]) -> None:
        file, self._file = self._file, None
        assert file is not None
        file.write(json.dumps(data, separators=(",", ":")) + "\n")
        self._file = file
