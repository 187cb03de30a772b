"""Flattened device trees: build, write and read them (Devicetree Specification 0.4, chapter 5; blob
version 17)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from armvirt.errors import ArmvirtError
from armvirt.records import NamedTuple

MAGIC = 0xD00DFEED
MAX_SIZE = 2 << 20
"""The maximum size in bytes of a device tree, because the arm64 boot protocol maps only 2 MiB."""

_BEGIN_NODE, _END_NODE, _PROP, _NOP, _END = 1, 2, 3, 4, 9
_HEADER = struct.Struct(">10I")
_VERSION, _COMPATIBLE = 17, 16
_MAX_DEPTH = 64
_MAX_NAME = 255  # bytes; the specification has 31, some bindings exceed it
_MAX_NODES = 1 << 15
_MAX_PROPERTIES = 1 << 17


class FdtError(ArmvirtError):
    """Raised if a blob is not a well-formed device tree."""


class Node:
    """A node of a device tree: its name with the unit address, its properties as raw big-endian
    bytes, and its children. The properties and the children are in the order of the blob."""

    __slots__ = ("children", "name", "properties")

    def __init__(
        self,
        name: str,
        properties: dict[str, bytes] | None = None,
        children: list[Node] | None = None,
    ) -> None:
        self.name = name
        self.properties = {} if properties is None else properties
        self.children = [] if children is None else children

    def _all(self) -> tuple[str, dict[str, bytes], list[Node]]:
        return self.name, self.properties, self.children

    def __eq__(self, other: object) -> bool:
        return self._all() == other._all() if isinstance(other, Node) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Node({self.name!r}, {self.properties!r}, {self.children!r})"

    def cells(self, name: str, *values: int) -> None:
        """Set a property to 32-bit cells."""
        self.properties[name] = struct.pack(f">{len(values)}I", *values)

    def u64(self, name: str, *values: int) -> None:
        """Set a property to 64-bit numbers. Each number has two cells."""
        self.properties[name] = struct.pack(f">{len(values)}Q", *values)

    def text(self, name: str, *strings: str) -> None:
        """Set a property to a string or a list of strings. A string may be the result of
        os.fsdecode. Then bytes that were not valid UTF-8 get into the property unchanged."""
        self.properties[name] = b"".join(
            string.encode("utf-8", "surrogateescape") + b"\0" for string in strings
        )

    def flag(self, name: str) -> None:
        """Set a property without a value. The presence of the property means true."""
        self.properties[name] = b""

    def add(self, child: Node) -> Node:
        """Append a child and return it."""
        self.children.append(child)
        return child

    def child(self, name: str) -> Node | None:
        """The child with this name, which includes the unit address. None if there is no such
        child."""
        return next((child for child in self.children if child.name == name), None)

    def get_cell(self, name: str, default: int) -> int:
        """The value of a property that has one cell. ``default`` if the property is missing or has
        another length."""
        raw = self.properties.get(name, b"")
        return int.from_bytes(raw, "big") if len(raw) == 4 else default

    def walk(self) -> Iterator[Node]:
        """This node and all nodes below it. A node comes before its children."""
        yield self
        for child in self.children:
            yield from child.walk()


class Tree(NamedTuple):
    """A whole device tree: the root node, the memory reservations as (address, size), and the
    ``reg`` of the boot CPU."""

    root: Node
    reservations: Sequence[tuple[int, int]] = ()
    boot_cpu: int = 0


# --- writing ---


class _Strings:
    """The strings block of a blob. Each property name is in the block only once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._offsets: dict[str, int] = {}

    def offset(self, name: str) -> int:
        if name not in self._offsets:
            self._offsets[name] = len(self.data)
            self.data += name.encode() + b"\0"
        return self._offsets[name]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _property(name: str, value: bytes, strings: _Strings) -> bytes:
    return struct.pack(">3I", _PROP, len(value), strings.offset(name)) + _padded(value)


def _node(node: Node, strings: _Strings) -> bytes:
    parts = [struct.pack(">I", _BEGIN_NODE), _padded(node.name.encode() + b"\0")]
    parts += [_property(name, value, strings) for name, value in node.properties.items()]
    parts += [_node(child, strings) for child in node.children]
    return b"".join([*parts, struct.pack(">I", _END_NODE)])


def write(tree: Tree) -> bytes:
    """Return the blob of a tree."""
    strings = _Strings()
    structure = _node(tree.root, strings) + struct.pack(">I", _END)
    reserved = b"".join(struct.pack(">2Q", *entry) for entry in [*tree.reservations, (0, 0)])
    at_structure = _HEADER.size + len(reserved)
    at_strings = at_structure + len(structure)
    header = _HEADER.pack(MAGIC, at_strings + len(strings.data), at_structure, at_strings, _HEADER.size,
                          _VERSION, _COMPATIBLE, tree.boot_cpu, len(strings.data), len(structure))  # fmt: skip
    return header + reserved + structure + bytes(strings.data)


# --- reading ---


class _Reader:
    """Reads one blob. Every access is checked against the bounds of the block that is read."""

    def __init__(self, blob: bytes) -> None:
        if len(blob) < _HEADER.size:
            raise FdtError("it is too short to be a device tree")
        (
            magic,
            total,
            structure,
            strings,
            reserved,
            version,
            compatible,
            boot_cpu,
            strings_size,
            structure_size,
        ) = _HEADER.unpack_from(blob)
        if magic != MAGIC:
            raise FdtError("it is not a device tree blob (no 0xd00dfeed at its start)")
        if not _HEADER.size <= total <= len(blob):
            raise FdtError(f"it is truncated: its header says {total} bytes, there are {len(blob)}")
        if version < _COMPATIBLE or compatible > _VERSION:
            raise FdtError(f"its format version {version} is not supported (16 and 17 are)")
        self.blob = blob[:total]
        self.boot_cpu, self._reserved = boot_cpu, reserved
        self._strings = self._block("strings", strings, strings_size)
        # Version 16 has no size of the structure block: the block ends at the strings.
        size = structure_size if version >= _VERSION else max(strings - structure, 0)
        self._structure, self._at = self._block("structure", structure, size), 0
        self._nodes = self._properties = 0
        if structure % 4:
            raise FdtError("its structure block is not aligned")

    def _block(self, name: str, offset: int, size: int) -> bytes:
        if offset < _HEADER.size or offset + size > len(self.blob):
            raise FdtError(f"its {name} block lies outside the blob")
        return self.blob[offset : offset + size]

    def _u32(self) -> int:
        raw = self._take(4)
        return int.from_bytes(raw, "big")

    def _take(self, size: int) -> bytes:
        start, end = self._at, self._at + size
        if end > len(self._structure):
            raise FdtError("its structure block ends early")
        self._at = end + -end % 4
        return self._structure[start:end]

    def _name(self) -> str:
        end = self._structure.find(b"\0", self._at, self._at + _MAX_NAME + 1)
        if end < 0:
            raise FdtError(f"a node name does not end within {_MAX_NAME} characters")
        return _ascii(self._take(end + 1 - self._at)[:-1])

    def _string(self, offset: int) -> str:
        # The length is limited because names may overlap: the names of n properties could be the n
        # tails of one long string, so their total length could grow with n squared.
        end = self._strings.find(b"\0", offset, offset + _MAX_NAME + 1)
        if end < 0:
            raise FdtError(
                f"a property name lies outside the strings block, or has more than {_MAX_NAME} characters"
            )
        return _ascii(self._strings[offset:end])

    def _token(self) -> int:
        while (token := self._u32()) == _NOP:
            pass
        return token

    def reservations(self) -> list[tuple[int, int]]:
        entries: list[tuple[int, int]] = []
        at = self._reserved
        while at % 8 == 0 and _HEADER.size <= at <= len(self.blob) - 16:
            entry = struct.unpack_from(">2Q", self.blob, at)
            if entry == (0, 0):
                return entries
            entries.append(entry)
            at += 16
        raise FdtError("its list of memory reservations is malformed")

    def tree(self) -> Tree:
        if self._token() != _BEGIN_NODE:
            raise FdtError("it has no root node")
        root = self._node(0)
        if self._token() != _END:
            raise FdtError("something follows its root node")
        return Tree(root, self.reservations(), self.boot_cpu)

    def _node(self, depth: int) -> Node:
        if depth > _MAX_DEPTH:
            raise FdtError(f"its nodes are nested deeper than {_MAX_DEPTH}")
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise FdtError(f"it has more than {_MAX_NODES} nodes")
        node = Node(self._name())
        while (token := self._token()) != _END_NODE:
            if token == _PROP:
                size, name = self._u32(), self._string(self._u32())
                self._properties += 1
                if self._properties > _MAX_PROPERTIES:
                    raise FdtError(f"it has more than {_MAX_PROPERTIES} properties")
                node.properties[name] = self._take(size)
            elif token == _BEGIN_NODE:
                node.add(self._node(depth + 1))
            else:
                raise FdtError(f"its structure block holds an unknown token {token:#x}")
        return node


def _ascii(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise FdtError("a name is not ASCII") from None


def parse(blob: bytes) -> Tree:
    """Return the tree in a blob. For a malformed blob, this function raises FdtError and no other
    exception."""
    return _Reader(blob).tree()
