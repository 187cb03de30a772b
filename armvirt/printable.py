"""Makes text of other origin printable.

This is text that armvirt did not write: symbols, names in device trees and suites, file names,
arguments, the output of a guest. Such text can contain terminal escapes, line feeds and overrides
of the writing direction (CVE-2021-42574). If these characters were printed unchanged, they could
change how other lines of the output look.

There is one exception: the console of ``armvirt run`` prints the bytes of the guest unchanged, like
QEMU's ``-serial stdio``.
"""

from __future__ import annotations

MOST = 240
"""The maximum number of characters of a displayed name. If a name is longer, its middle is left
out."""

_SIMPLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SURROGATES = range(0xDC80, 0xDD00)  # bytes that were not UTF-8, see os.fsdecode


def printable(text: str, most: int = MOST) -> str:
    """Convert ``text`` to one line of at most ``most`` printable characters.

    Control characters, line and paragraph separators, direction overrides and bytes that are not
    UTF-8 become escapes such as ``\\n``, ``\\x1b``, ``\\u202e``. If the text is too long, its
    middle is left out.
    """
    # Only the shown parts of a huge text are escaped.
    if len(text) <= most and text.isprintable():
        return text
    if len(text) <= most:
        shown = escaped(text)
        if len(shown) <= most:
            return shown
    tail = most // 3
    return escaped(text[: 2 * most])[: most - tail - 3] + "..." + escaped(text[-most:])[-tail:]


def escaped(text: str) -> str:
    """Convert ``text`` to one line of any length. Characters that are not printable become escapes.
    All blanks except the ASCII space become escapes, too."""
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
    """Split a text such as a guest's console into lines, and make each line `printable`. Carriage
    returns are removed, and tabs are replaced by spaces."""
    return [printable(line.expandtabs(), most) for line in text.replace("\r", "").split("\n")]


def folded(text: str, width: int, indent: int = 4) -> list[str]:
    """Fold a line into lines of at most ``width`` characters. A line is folded only at blanks, so a
    word longer than ``width`` is not broken. Each line after the first is indented by ``indent``
    characters, or by less if a word would not fit."""
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
