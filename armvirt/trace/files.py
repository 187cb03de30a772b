"""Sinks that write a trace to a file. The suffix of the file selects a row of `FORMATS`.

A new format is a module of `armvirt.trace` with a sink, and a row of `FORMATS`. ``armvirt run
--trace``, ``armvirt trace --trace`` and the key ``trace`` of a suite then support the format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from armvirt.events import Event, Sink, Stamp


@runtime_checkable
class FileSink(Protocol):
    """A sink that writes each event to a file. While no file is attached, the sink drops events."""

    def __call__(self, stamp: Stamp, event: Event) -> None: ...

    def writing(self, file: SupportsWrite[str], **about: object) -> AbstractContextManager[None]:
        """A context in which the sink writes each event to ``file`` as lines of text. The sink also
        writes ``about``, which has facts about the run such as the name of the guest."""


class Format(NamedTuple):
    """A trace format: its name, the suffixes of its files, and the function that makes its sink."""

    name: str
    suffixes: tuple[str, ...]
    make: Callable[[], FileSink]


def _json_lines() -> FileSink:
    from armvirt.trace.jsonl import JsonLines

    return JsonLines()


FORMATS = (Format("JSON lines", (".jsonl", ".json"), _json_lines),)
DEFAULT = FORMATS[0]
"""The format for files with an unknown suffix, and for standard output."""

Open = Callable[[str], "AbstractContextManager[SupportsWrite[str]]"]


def format_of(path: str) -> Format:
    """The format for a file with this name."""
    return next((each for each in FORMATS if path.lower().endswith(each.suffixes)), DEFAULT)


class TraceFile:
    """Writes the trace of a run to a file. ``path`` is the path of the file. If ``path`` is None,
    no trace is written.

    If ``sinks`` is None, this class makes the sink, and the caller gives it to a machine that is
    made later. Otherwise ``sinks`` are the sinks of a machine that exists already, and the file
    sinks among them write the file. The file is opened in `writing`, after all inputs have been
    checked.
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
        """A context in which the events are written to the file. The function ``open_text`` opens
        the file. ``about`` has facts about the run, such as the name of the guest. These facts are
        written to the file, too."""
        if self.path is None:
            yield
            return
        with open_text(self.path) as file:
            for sink in self.sinks:
                with sink.writing(file, **about):
                    yield
