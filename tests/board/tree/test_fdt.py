"""The writer and reader of flattened device trees, beside dtc."""

from __future__ import annotations

import struct
import subprocess

import pytest
from conftest import require_tool
from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.board.tree import fdt
from armvirt.board.tree.fdt import FdtError, Node, Tree

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789,._+-", min_size=1, max_size=20)
PROPERTIES = st.dictionaries(NAMES, st.binary(max_size=40), max_size=5)
NODES = st.recursive(
    st.builds(Node, NAMES, PROPERTIES),
    lambda children: st.builds(Node, NAMES, PROPERTIES, st.lists(children, max_size=4)),
    max_leaves=12,
)
ROOTS = st.builds(Node, st.just(""), PROPERTIES, st.lists(NODES, max_size=4))
U64 = st.integers(0, (1 << 64) - 1)
RESERVED = st.lists(st.tuples(U64, st.integers(1, (1 << 64) - 1)), max_size=3)


@given(ROOTS, RESERVED, st.integers(0, 0xFFFF_FFFF))
def test_what_is_written_is_read(
    root: Node, reservations: list[tuple[int, int]], boot_cpu: int
) -> None:
    tree = Tree(root, reservations, boot_cpu)
    assert fdt.parse(fdt.write(tree)) == tree


def test_typed_properties_are_big_endian() -> None:
    node = Node("n")
    node.cells("cells", 1, 0x80000000)
    node.u64("wide", 1 << 40)
    node.text("list", "a", "bc")
    node.flag("flag")
    assert node.properties == {"cells": bytes.fromhex("0000000180000000"), "wide": bytes.fromhex("0000010000000000"),
                               "list": b"a\0bc\0", "flag": b""}  # fmt: skip
    assert (node.get_cell("cells", 7), node.get_cell("none", 7)) == (7, 7)


def test_walk_and_child() -> None:
    root = Node("")
    inner = root.add(Node("a")).add(Node("b"))
    assert [node.name for node in root.walk()] == ["", "a", "b"]
    assert root.child("a") is root.children[0]
    assert root.child("b") is None
    assert inner.children == []


def small() -> bytes:
    root = Node("", {"model": b"mod\0"}, [Node("child", {"x": b"1234"})])
    return fdt.write(Tree(root, [(0x1000, 0x2000)]))


def with_header(blob: bytes, word: int, value: int) -> bytes:
    return blob[: 4 * word] + struct.pack(">I", value) + blob[4 * word + 4 :]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "too short"),
        (b"\xd0\x0d\xfe\xed", "too short"),
        (b"\x7fELF" + bytes(60), "not a device tree blob"),
        (small()[:-1], "truncated"),
        (with_header(small(), 2, 1 << 20), "structure block lies outside"),
        (with_header(small(), 3, 1 << 31), "strings block lies outside"),
        (with_header(small(), 4, 7), "reservations is malformed"),
        (with_header(small(), 5, 3), "version 3 is not supported"),
        (with_header(small(), 6, 99), "not supported"),
        (with_header(small(), 9, 20), "ends early"),
        (with_header(small(), 8, 1), "outside the strings block"),
    ],
)
def test_damage_is_named(blob: bytes, message: str) -> None:
    with pytest.raises(FdtError, match=message):
        fdt.parse(blob)


def test_unknown_token_and_depth() -> None:
    blob = bytearray(small())
    at = struct.unpack_from(">I", blob, 8)[0]
    blob[at + 8 : at + 12] = struct.pack(">I", 0x77)
    with pytest.raises(FdtError, match="unknown token 0x77"):
        fdt.parse(bytes(blob))
    root = deep = Node("")
    for _ in range(100):
        deep = deep.add(Node("n"))
    with pytest.raises(FdtError, match="deeper"):
        fdt.parse(fdt.write(Tree(root)))


def test_nops_and_version_16_are_understood() -> None:
    blob = bytearray(small())
    at, size = struct.unpack_from(">I", blob, 8)[0], struct.unpack_from(">I", blob, 36)[0]
    structure = bytes(blob[at : at + size]).replace(struct.pack(">I", 2), struct.pack(">II", 4, 2))
    longer = len(structure) - size
    blob[at : at + size] = structure
    for word, value in (
        (1, len(blob)),
        (3, struct.unpack_from(">I", blob, 12)[0] + longer),
        (5, 16),
        (9, 0),
    ):
        struct.pack_into(">I", blob, 4 * word, value)
    assert fdt.parse(bytes(blob)) == fdt.parse(small())


@settings(max_examples=300)
@given(st.data())
def test_corruption_gives_a_tree_or_fdt_error(data: st.DataObject) -> None:
    blob = bytearray(small())
    for _ in range(data.draw(st.integers(1, 6))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        fdt.parse(bytes(blob[: data.draw(st.integers(0, len(blob)))]))
        fdt.parse(bytes(blob))
    except FdtError:
        pass


@settings(max_examples=25, deadline=None)
@given(ROOTS)
def test_dtc_reads_the_same(root: Node) -> None:
    """dtc takes the blob and writes one that reads as the same tree (it wants unique names)."""
    dtc = require_tool("dtc")
    for node in root.walk():
        node.children = list({child.name: child for child in node.children}.values())
    result = subprocess.run([dtc, "-q", "-f", "-I", "dtb", "-O", "dtb", "-"], input=fdt.write(Tree(root)),
                            capture_output=True, check=True)  # fmt: skip
    again = fdt.parse(result.stdout).root
    assert _sorted(again) == _sorted(root)


def _sorted(node: Node) -> tuple[object, ...]:
    return node.name, sorted(node.properties.items()), sorted(map(_sorted, node.children))
