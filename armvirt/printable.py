"""The one place where foreign text becomes fit to be printed.

Foreign is what armvirt did not write itself: symbols, names in device trees and suites, file names,
arguments, what a guest prints. Such text can hold terminal escapes, line feeds and overrides of the
writing direction (CVE-2021-42574), which would change what a person or a script reads in the lines
around it. The console of ``armvirt run`` is the exception: its bytes are passed on as they are, as
QEMU's ``-serial stdio`` does.
"""

from __future__ import annotations

MOST = 240
"""Characters of a name that are shown; longer ones lose their middle."""

_SIMPLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SURROGATES = range(0xDC80, 0xDD00)  # bytes that were no UTF-8, see os.fsdecode


def printable(text: str, most: int = MOST) -> str:
    """``text`` as one line of printable characters, at most ``most`` of them.

    Control characters, line and paragraph separators, direction overrides and bytes that are no
    UTF-8 are shown as the escapes ``\\n``, ``\\x1b``, ``\\u202e``. Of a text that is too long the
    beginning and the end are kept.
    """
    # The whole of a huge text is not looked at: what is left out needs no escapes.
    if len(text) <= most and text.isprintable():
        return text
    if len(text) <= most:
        shown = escaped(text)
        if len(shown) <= most:
            return shown
    tail = most // 3
    return escaped(text[: 2 * most])[: most - tail - 3] + "..." + escaped(text[-most:])[-tail:]


def escaped(text: str) -> str:
    """All of ``text``, with escapes for what is not printable. ASCII space is the only blank that
    stays."""
    return (
        text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)
    )


def _escape(character: str) -> str:
    code = ord(character)
    if code in _SURROGATES:
        return f"\\x{code - 0xDC00:02x}"
    if character in _SIMPLE:
        return _SIMPLE[character]
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def printable_lines(text: str, most: int = MOST) -> list[str]:
    """The lines of a text such as a guest's console, each `printable`; carriage returns are
    dropped, tabs expanded."""
    return [printable(line.expandtabs(), most) for line in text.replace("\r", "").split("\n")]


def folded(text: str, width: int, indent: int = 4) -> list[str]:
    """A line as lines of at most ``width`` characters, broken only where a blank is; those after
    the first are indented by ``indent``, or less where a word would not fit. A word that is longer
    than ``width`` stays whole."""
    if len(text) <= width:
        return [text]
    import textwrap

    longest = max(map(len, text.split()), default=0)
    hanging = " " * max(min(indent, width - longest), 0)
    wrapped = textwrap.wrap(
        text,
        width,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
    )
    return wrapped or [text]
