"""The GICv2m frame: which SPIs it owns, and what a message to it does."""

from __future__ import annotations

import json

import pytest

from armvirt.board.devices import gicv2m
from armvirt.board.devices.gicv2m import (
    BASE_INTID,
    COUNT,
    MSI_IIDR,
    MSI_SETSPI_NS,
    MSI_TYPER,
    GicV2m,
)


def frame() -> tuple[GicV2m, list[tuple[int, int]]]:
    driven: list[tuple[int, int]] = []
    return GicV2m(lambda intid, level: driven.append((intid, level))), driven


def test_identification_is_that_of_qemu() -> None:
    device, _ = frame()
    assert device.read(MSI_TYPER, 4) == 80 << 16 | 64 and device.read(MSI_IIDR, 4) == 0x0510_0000
    assert device.read(MSI_TYPER + 2, 2) == 80
    assert device.read(MSI_SETSPI_NS, 4) == device.read(0xFE8, 4) == 0


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("intid", [BASE_INTID, BASE_INTID + COUNT - 1])
def test_a_message_is_a_pulse(intid: int, size: int) -> None:
    device, driven = frame()
    device.write(MSI_SETSPI_NS, size, intid)
    assert driven == [(intid, 1), (intid, 0)]


@pytest.mark.parametrize(
    ("offset", "intid"),
    [
        (MSI_SETSPI_NS, BASE_INTID - 1),
        (MSI_SETSPI_NS, BASE_INTID + COUNT),
        (MSI_TYPER, BASE_INTID),
        (0x44, BASE_INTID),
    ],
)
def test_other_writes_do_nothing(offset: int, intid: int) -> None:
    device, driven = frame()
    device.write(offset, 4, intid)
    assert driven == []


def test_there_is_no_state() -> None:
    device, driven = frame()
    device.load(json.loads(json.dumps(device.state())))
    device.reset()
    assert driven == []


def test_node() -> None:
    node = gicv2m.fdt_node(0x802_0000, 0x1000, 7)
    assert node.name == "v2m@8020000" and node.properties["msi-controller"] == b""
    assert node.properties["reg"] == bytes.fromhex(
        "0000000008020000 0000000000001000".replace(" ", "")
    )
