"""`make demo` prints one screen, and every line of it is true."""

from __future__ import annotations

import re

import demo

from armvirt import Machine

STAGES = ["program", "program", "fire", "list", "deliver", "ack", "program", "lower", "eoi"]
COMMAND = re.compile(r"^\$ armvirt (\w+) (\S+)")


def test_one_screen_tells_the_story() -> None:
    lines = demo.story()
    assert len(lines) <= 22 and max(map(len, lines)) <= 80
    rows = [line.split()[2] for line in lines if re.match(r" +[\d,]+ +\+", line)]
    assert rows == STAGES
    assert [found.groups() for line in lines if (found := COMMAND.match(line))] == [
        ("trace", demo.TICKING), ("explain", demo.STUCK), ("run", demo.TICKING)
    ]  # fmt: skip
    assert "GICR_ISENABLER0 bit 27" in " ".join(lines)
    assert Machine(demo.TICKING).run().trace_hash in lines[-3]


def test_every_line_fits_whatever_the_symbols_are() -> None:
    row = demo.Row(1_009_457, 1, 0, "deliver", "IRQ to 0x40200a80 from", 0x4020_0000)
    assert demo.line(row, lambda _: "main+0xc0").endswith("from main+0xc0")
    assert demo.line(row, lambda _: "a_name_that_is_long_" * 4).endswith("from")
