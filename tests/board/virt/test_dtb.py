"""The virt board's device tree, and device trees of the user."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from conftest import require_tool

from armvirt.board.config import BoardConfig, Region
from armvirt.board.tree import fdt, user_tree
from armvirt.board.tree.fdt import Node, Tree
from armvirt.board.tree.nodes import MSI_PHANDLE, BoardTree, memory
from armvirt.board.virt import memmap
from armvirt.board.virt import tree as dtb
from armvirt.board.virt.devices import SLOTS
from armvirt.board.virt.memmap import RAM_BASE
from armvirt.errors import ImageError

MIB = 1 << 20


def board(cpus: int = 2, **other: object) -> BoardTree:
    mpidrs = tuple(1 << 31 | (n & 15) | (n >> 4) << 8 for n in range(cpus))
    config = BoardConfig(None, gic=int(str(other.get("gic", 3))))
    in_gic: dict[bool, list[Node]] = {True: [], False: []}
    for slot in SLOTS:
        if slot.present(config) and slot.node is not None:
            in_gic[slot.in_gic].append(slot.node(slot))
    return BoardTree(
        memmap,
        mpidrs,
        memory=512 * MIB,
        cpu=config.cpu,
        devices=in_gic[False],
        gic_devices=in_gic[True],
        **other,  # type: ignore[arg-type]
    )


def node(blob: bytes, path: str) -> Node:
    found: Node | None = fdt.parse(blob).root
    for name in filter(None, path.split("/")):
        assert found is not None
        found = found.child(name)
    assert found is not None, path
    return found


def cells(raw: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(raw) // 4}I", raw)


def test_devices_are_where_guests_expect_them() -> None:
    blob = dtb.build(board())
    root = fdt.parse(blob).root
    assert [child.name for child in root.children] == [
        "chosen", "memory@40000000", "cpus", "psci", "timer", "intc@8000000", "apb-pclk", "pl011@9000000",
        "pl031@9010000"]  # fmt: skip
    assert root.properties["compatible"] == b"linux,dummy-virt\0"
    assert cells(node(blob, "/pl011@9000000").properties["interrupts"]) == (0, 1, 4)
    assert cells(node(blob, "/pl031@9010000").properties["interrupts"]) == (0, 2, 4)
    assert cells(node(blob, "/timer").properties["interrupts"]) == (
        1,
        13,
        4,
        1,
        14,
        4,
        1,
        11,
        4,
        1,
        10,
        4,
    )
    assert cells(node(blob, "/memory@40000000").properties["reg"]) == (0, 0x40000000, 0, 512 * MIB)
    assert node(blob, "/psci").properties["method"] == b"hvc\0"


def test_gic_versions() -> None:
    three, two = dtb.build(board()), dtb.build(board(gic=2))
    assert cells(node(three, "/intc@8000000").properties["reg"]) == (
        0,
        0x8000000,
        0,
        0x10000,
        0,
        0x80A0000,
        0,
        0xF60000,
    )
    assert cells(node(two, "/intc@8000000").properties["reg"]) == (
        0,
        0x8000000,
        0,
        0x10000,
        0,
        0x8010000,
        0,
        0x10000,
    )
    assert cells(node(two, "/timer").properties["interrupts"])[2] == 0x304
    assert node(two, "/intc@8000000").properties["compatible"] == b"arm,cortex-a15-gic\0"
    assert cells(node(two, "/intc@8000000/v2m@8020000").properties["reg"]) == (
        0,
        0x8020000,
        0,
        0x1000,
    )
    assert not node(three, "/intc@8000000").children


def test_its_is_a_child_of_the_gic() -> None:
    """Node and properties as QEMU's ``virt,gic-version=3,its=on`` has them, but for the phandle."""
    its = node(dtb.build(board(its=True)), "/intc@8000000/its@8080000")
    assert its.properties == {
        "phandle": MSI_PHANDLE.to_bytes(4, "big"),
        "compatible": b"arm,gic-v3-its\0",
        "msi-controller": b"",
        "#msi-cells": b"\0\0\0\1",
        "reg": struct.pack(">4I", 0, 0x808_0000, 0, 0x2_0000),
    }
    two = node(dtb.build(board(gic=2, its=True)), "/intc@8000000").children
    assert [child.name for child in two] == ["v2m@8020000"]


def test_cpus_have_the_affinity_of_mpidr() -> None:
    blob = dtb.build(board(cpus=18))
    names = [child.name for child in node(blob, "/cpus").children]
    assert names[0] == "cpu@0"
    assert names[-1] == "cpu@101"
    assert cells(node(blob, "/cpus/cpu@101").properties["reg"]) == (0x101,)
    assert node(blob, "/cpus/cpu@1").properties["enable-method"] == b"psci\0"
    alone = dtb.build(board(cpus=1))
    assert "enable-method" not in node(alone, "/cpus/cpu@0").properties
    aff3 = dtb.build(BoardTree(memmap, (1 << 32 | 1 << 31,), memory=MIB, cpu="cortex-a72"))
    assert cells(node(aff3, "/cpus/cpu@100000000").properties["reg"]) == (1, 0)


def test_chosen() -> None:
    blob = dtb.build(board(bootargs="console=ttyAMA0", initrd=(0x48000000, 0x48001234)))
    chosen = node(blob, "/chosen").properties
    assert chosen["bootargs"] == b"console=ttyAMA0\0"
    assert chosen["stdout-path"] == b"/pl011@9000000\0"
    assert cells(chosen["linux,initrd-start"] + chosen["linux,initrd-end"]) == (
        0,
        0x48000000,
        0,
        0x48001234,
    )
    assert any(chosen["kaslr-seed"]), "Linux takes 0 for none"
    assert "bootargs" not in node(dtb.build(board()), "/chosen").properties


def test_without_a_kaslr_seed_all_else_is_the_same() -> None:
    full, less = (fdt.parse(dtb.build(board(kaslr_seed=given))).root for given in (True, False))
    chosen = full.child("chosen")
    assert chosen is not None
    del chosen.properties["kaslr-seed"]
    assert full == less


def test_seeds_follow_the_seed_only() -> None:
    one, again, other = (dtb.build(board(seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    seeds = node(one, "/chosen").properties
    assert (len(seeds["rng-seed"]), len(seeds["kaslr-seed"])) == (32, 8)


def test_length_does_not_depend_on_where_the_initrd_is() -> None:
    sizes = {len(dtb.build(board(initrd=range_))) for range_ in ((1, 2), (1 << 33, 1 << 34))}
    assert len(sizes) == 1


@pytest.mark.parametrize("gic", [2, 3])
def test_dtc_has_nothing_to_complain_about(gic: int) -> None:
    dtc = require_tool("dtc")
    blob = dtb.build(board(cpus=4, gic=gic, bootargs="x", initrd=(0x48000000, 0x48001000)))
    result = subprocess.run(
        [dtc, "-I", "dtb", "-O", "dts", "-"], input=blob, capture_output=True, check=True
    )
    assert result.stderr == b""
    back = subprocess.run([dtc, "-q", "-I", "dts", "-O", "dtb", "-"], input=result.stdout, capture_output=True,
                          check=True)  # fmt: skip
    # Text loses the boot CPU of the header, nothing else.
    assert fdt.parse(back.stdout).root == fdt.parse(blob).root


@pytest.mark.parametrize("gic", [2, 3])
def test_nodes_are_those_of_qemu(gic: int, tmp_path: Path) -> None:
    """Every property that we give has the value that QEMU's tree has, apart from phandles and
    seeds."""
    qemu = require_tool("qemu-system-aarch64")
    machine = f"virt,gic-version={gic},dumpdtb={tmp_path / 'q.dtb'}"
    command = [qemu, "-M", machine, "-cpu", "cortex-a72", "-smp", "2", "-m", "512"]
    subprocess.run(command, check=True, capture_output=True)
    theirs = {item.name: item for item in fdt.parse((tmp_path / "q.dtb").read_bytes()).root.walk()}
    allowed = {"phandle", "interrupt-parent", "clocks", "rng-seed", "kaslr-seed"}
    for ours in fdt.parse(dtb.build(board(gic=gic, its=True))).root.walk():
        expected = theirs[ours.name].properties
        for name, value in ours.properties.items():
            assert name in expected, f"{ours.name} has no {name} in QEMU"
            assert name in allowed or value == expected[name], f"{ours.name}/{name}"


def save(path: Path, root: Node) -> Path:
    path.write_bytes(fdt.write(Tree(root)))
    return path


def test_a_users_tree_is_patched(tmp_path: Path) -> None:
    root = Node("", {"#address-cells": b"\0\0\0\1", "#size-cells": b"\0\0\0\1", "model": b"mine\0"})
    chosen = root.add(Node("chosen"))
    chosen.text("bootargs", "old")
    chosen.u64("linux,initrd-start", 1)
    tree = user_tree.load_user_tree(save(tmp_path / "u.dtb", root))
    blob = user_tree.patch(tree, "new", None, Region(RAM_BASE, 64 * MIB))
    assert node(blob, "/chosen").properties == {"bootargs": b"new\0"}
    assert cells(node(blob, "/memory@40000000").properties["reg"]) == (0x40000000, 64 * MIB)
    assert node(blob, "/").properties["model"] == b"mine\0"


def test_patching_keeps_what_is_there_and_fixes_cells(tmp_path: Path) -> None:
    root = Node("")
    root.add(memory(0x50000000, MIB))
    again = fdt.parse(
        user_tree.patch(Tree(root), "", (0x41000000, 0x41000010), Region(RAM_BASE, 64 * MIB))
    ).root
    assert again.child("memory@40000000") is None
    assert again.child("chosen") is not None
    bare = user_tree.patch(Tree(Node("")), "", None, Region(RAM_BASE, 8 << 30))
    assert cells(node(bare, "/memory@40000000").properties["reg"]) == (0, 0x40000000, 2, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x7fELF" + bytes(100), "not a device tree blob"), (b"\xd0\x0d", "too short"), (b"", "it is empty"),
     (bytes(fdt.MAX_SIZE + 1), "larger than the 2 MiB")],
)  # fmt: skip
def test_bad_dtb_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.dtb"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        user_tree.load_user_tree(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
