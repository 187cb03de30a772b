"""Debian's Linux with KASLR stops at its functions. A run without KASLR tells their addresses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import require_guest

from armvirt.debug.symbol_file import read
from armvirt.machine import Machine
from armvirt.script import Expect, Script, Send

pytestmark = pytest.mark.linux


@pytest.mark.long
def test_a_kernel_with_kaslr_is_stopped_by_its_symbols(tmp_path: Path) -> None:
    """A run without KASLR says where three functions are linked; with it, they are met where they
    have gone."""
    image, initrd = require_guest("Image"), require_guest("initramfs.cpio")
    ask = "mount -t proc proc /proc; grep -E ' (primary_entry|start_kernel|kernel_init|vectors)$' /proc/kallsyms"
    script = Script((Expect(b"guest# "), Send(f"{ask}; echo DO''NE\n".encode()), Expect(b"DONE")))
    settings = {"initrd": initrd, "append": "console=ttyAMA0 quiet"}
    with Machine(image, **settings, kaslr_seed=False, script=script) as machine:  # type: ignore[arg-type]
        machine.run_until(console="DONE")
        text = machine.console.output.decode()
    symbols = tmp_path / "kallsyms"
    symbols.write_text(
        "".join(f"{row}\n" for row in re.findall(r"[0-9a-f]{16} [a-zA-Z] \w+(?=\r)", text))
    )
    linked = read(symbols)
    with Machine(image, **settings, symbols=symbols) as machine:  # type: ignore[arg-type]
        for name in ("primary_entry", "start_kernel", "kernel_init"):
            assert machine.run_until(pc=name) is None, name
            pc = machine.board.vcpus[0].context.pc
            assert pc != linked.address_of(name)
            assert machine.symbols is not None and machine.symbols.lookup(pc) == name
