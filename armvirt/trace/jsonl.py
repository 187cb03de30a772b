"""A trace as JSON lines: one object per event.

Every line has ``ns`` (virtual time), ``insns`` (instructions retired by the vCPU), ``vcpu``, ``pc``
and ``kind``. Then follow the fields of the event (`armvirt.events`). Addresses, register values and
encodings are strings in hexadecimal, because a JSON reader that uses floating point would lose the
low bits of a large number. The first line, of kind ``header``, describes the file. The last line,
of kind ``end``, says that the file is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from armvirt.events import Event, Stamp

FORMAT = 1
HEX_FIELDS = frozenset({"pc", "esr", "elr", "value", "address", "offset", "function"})


def record(stamp: Stamp, event: Event) -> dict[str, Any]:
    """One event as a dictionary for JSON. The fields of ``stamp`` (virtual time, instruction count,
    vCPU and PC) come first."""
    where = {"ns": stamp.ns, "insns": stamp.insns, "vcpu": stamp.vcpu, "pc": hex(stamp.pc)}
    return {**where, "kind": event.kind, **fields(event)}


def fields(event: Event) -> dict[str, Any]:
    """The fields of an event, without its kind, as a dictionary for JSON."""
    plain: dict[str, Any] = {}
    # The target of an exception is an address; the target of other events is a vCPU.
    address_target = event.kind == "exception"
    for name, value in event._asdict().items():
        if name == "kind":
            continue
        as_hex = name in HEX_FIELDS or (address_target and name == "target")
        plain[name] = hex(int(value)) if as_hex and isinstance(value, int) else _plain(value)
    return plain


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [hex(item) if isinstance(item, int) else item for item in value]
    return int(value) if isinstance(value, int) else value


class JsonLines:
    """A sink that writes each event to ``file`` as a line of JSON. While it has no file, the sink
    drops events. So the sink can be made before the file is opened."""

    def __init__(self, file: SupportsWrite[str] | None = None) -> None:
        self._file: SupportsWrite[str] | None = None
        self.count = self._last_ns = 0
        if file is not None:
            self.attach(file)

    def __repr__(self) -> str:
        return f"<JsonLines of {self.count:,} events>"

    def attach(self, file: SupportsWrite[str], **about: object) -> None:
        """Start to write events to ``file``. The first line has ``about``, facts about the run such
        as the name of the guest."""
        self._file = file
        self._write({"kind": "header", "format": FORMAT, **about})

    @contextmanager
    def writing(self, file: SupportsWrite[str], **about: object) -> Iterator[None]:
        """A context in which events go to ``file``. The last line is written at the end of the
        context, also after an exception."""
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
        """Write the last line, which says that the file is complete. ``about`` has further facts,
        which are written in this line, too. Events after this call are dropped. If an earlier write
        failed, events are missing in the file, so the last line is not written."""
        if self._file is not None:
            self._write({"ns": self._last_ns, "kind": "end", "events": self.count, **about})
            self._file = None

    def _write(self, data: dict[str, Any]) -> None:
        file, self._file = self._file, None
        assert file is not None
        file.write(json.dumps(data, separators=(",", ":")) + "\n")
        self._file = file
