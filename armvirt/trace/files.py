"""Sinks that write a trace to a file: one row for each format, found by the suffix of the file.

A new format is a module of `armvirt.trace` with a sink and a row here: ``armvirt run --trace``,
``armvirt trace --trace`` and the key ``trace`` of a suite know the format then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol, runtime_checkable

from armvirt.events import Event, Sink, Stamp


class SupportsWrite(Protocol):
    """Where lines go: a text file, or anything with its ``write``."""

    def write(self, text: str, /) -> object:
        """Take the text, which is one line or several."""


@runtime_checkable
class FileSink(Protocol):
    """A sink that writes every event to a file while one is attached, and drops it otherwise."""

    def __call__(self, stamp: Stamp, event: Event) -> None: ...

    def writing(self, file: SupportsWrite, **about: object) -> AbstractContextManager[None]:
        """Within this, events go to ``file``. ``about`` describes the run."""


class Format(NamedTuple):
    """A format of a trace: the suffixes of its files, and how its sink is made."""

    name: str
    suffixes: tuple[str, ...]
    make: Callable[[], FileSink]


def _json_lines() -> FileSink:
    from armvirt.trace.jsonl import JsonLines

    return JsonLines()


FORMATS = (Format("JSON lines", (".jsonl", ".json"), _json_lines),)
DEFAULT = FORMATS[0]
"""The format of a file with another suffix, and of standard output."""

Open = Callable[[str], AbstractContextManager[SupportsWrite]]


def format_of(path: str) -> Format:
    """The format of a file of this name."""
    return next((each for each in FORMATS if path.lower().endswith(each.suffixes)), DEFAULT)


class TraceFile:
    """The trace of a run in a file (``path`` None: there is none). ``sinks`` are for the machine,
    or are those of a machine that was made with them.

    The sink is made before the machine, and the file is opened when all inputs are checked.
    """

    def __init__(self, path: str | None, sinks: Sequence[Sink] | None = None) -> None:
        self.path = path
        self.sinks: list[FileSink] = []
        if path is not None:
            found = [format_of(path).make()] if sinks is None else sinks
            self.sinks = [sink for sink in found if isinstance(sink, FileSink)]

    def __repr__(self) -> str:
        return f"<TraceFile {self.path}>"

    @contextmanager
    def writing(self, open_text: Open, **about: object) -> Iterator[None]:
        """Within this, events go to the file, which ``open_text`` opens."""
        if self.path is None:
            yield
            return
        with open_text(self.path) as file:
            for sink in self.sinks:
                with sink.writing(file, **about):
                    yield
