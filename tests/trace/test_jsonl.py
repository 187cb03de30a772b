"""Traces as JSON lines."""

from __future__ import annotations

import io
import json

from armvirt.events import Console, ExceptionEntry, Hypercall, ListRegisterWrite, Stamp
from armvirt.trace.jsonl import JsonLines, record

STAMP = Stamp(1000, 900, 1, 0xFFFF_8000_1234_5678)


def test_registers_and_addresses_keep_all_their_bits() -> None:
    data = record(STAMP, ListRegisterWrite(1, 0, 27, 0x70A0_001B_0000_001B))
    assert data == {
        "ns": 1000,
        "insns": 900,
        "vcpu": 1,
        "pc": "0xffff800012345678",
        "kind": "lr",
        "target": 1,
        "lr": 0,
        "intid": 27,
        "value": "0x70a0001b0000001b",
    }


def test_the_target_of_an_exception_is_an_address() -> None:
    data = record(STAMP, ExceptionEntry("irq", 0, 0x10, 0x4020_0A80))
    assert (data["target"], data["elr"], data["esr"]) == ("0x40200a80", "0x10", "0x0")


def test_arguments_of_a_hypercall() -> None:
    data = record(STAMP, Hypercall(0xC400_0003, (1, 1 << 63), -2))
    assert (data["function"], data["args"], data["result"]) == (
        "0xc4000003",
        ["0x1", "0x8000000000000000"],
        -2,
    )


def test_a_file() -> None:
    file = io.StringIO()
    sink = JsonLines()
    sink(STAMP, Console("tx", 65))  # not attached yet: dropped
    sink.attach(file, guest="hello")
    sink(STAMP, Console("tx", 66))
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert lines[0] == {"kind": "header", "format": 1, "guest": "hello"}
    assert [line.get("byte") for line in lines[1:]] == [66]
    assert sink.count == 1
