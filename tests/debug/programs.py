"""Builds small guests with debug information, and an Image with its vmlinux, by the cross
compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import IN_CI

GCC = "aarch64-linux-gnu-gcc"
needs_gcc = pytest.mark.skipif(
    shutil.which(GCC) is None and not IN_CI, reason=f"{GCC} is not installed"
)

#: {file: text}. `put` and `helper` are inlined; `init` is a function of two files, one of them a
#: clone.
SOURCES = {
    "a.c": """\
#include "h.h"
static volatile unsigned *const uart = (unsigned *)0x09000000;
static inline __attribute__((always_inline)) void put(char c)
{
    *uart = c;
}
static __attribute__((noinline)) int init(int x)
{
    put('a');
    return helper(x);
}
int other(int);
void start_c(void)
{
    int i = init(3);
    for (int n = 0; n < 3; n++)
        put('0' + i + n);
    other(i);
    register long x0 __asm__("x0") = 0x84000008;
    __asm__ volatile("hvc #0" :: "r"(x0));
}
__asm__(".globl _start\\n_start: ldr x0, =0x40090000\\n mov sp, x0\\n bl start_c\\n b .");
""",
    "sub/b.c": """\
#include "../h.h"
static __attribute__((noinline)) int init(int x)
{
    return x * 5;
}
__attribute__((used, noinline)) int never(int x)
{
    return x - 1;
}
int kept(int x)
{
    return x ^ 0x55;
}
int other(int x)
{
    return init(x) + kept(helper(x));
}
""",
    "h.h": """\
static inline __attribute__((always_inline)) int helper(int x)
{
    __asm__ volatile("nop");
    return x + 1;
}
""",
}

#: An Image that turns its MMU on and goes on at its link address plus OFFSET, as a kernel with
#: KASLR does.
IMAGE = """\
        .globl _text
_text:  b       primary_entry
        nop
        .quad   0, _end - _text, 0xa, 0, 0, 0
        .ascii  "ARM\\x64"
        .long   0
primary_entry:
        adrp    x0, tables
        adrp    x1, tables + 4096
        ldr     x2, =0x40000705         // 1 GiB of RAM, where it is
        str     x2, [x0, #8]
        ldr     x3, =virtual_target
        ldr     x4, =OFFSET
        add     x3, x3, x4
        ubfx    x5, x3, #30, #9
        adrp    x6, tables + 8192
        orr     x7, x6, #3
        str     x7, [x1, x5, lsl #3]
        ubfx    x5, x3, #21, #9
        adr     x8, _text
        and     x8, x8, #~0x1fffff
        mov     x9, #0x705
        orr     x8, x8, x9
        str     x8, [x6, x5, lsl #3]    // 2 MiB of the image, at the new address
        msr     ttbr0_el1, x0
        msr     ttbr1_el1, x1
        ldr     x2, =(25 | (25 << 16) | (2 << 30))
        msr     tcr_el1, x2
        mov     x2, #0xff
        msr     mair_el1, x2
        dsb     sy
        isb
        mrs     x2, sctlr_el1
        orr     x2, x2, #1
        msr     sctlr_el1, x2
        isb
        br      x3
        .globl virtual_target
virtual_target:
        nop
        ldr     x0, =vectors
        add     x0, x0, x4
        msr     vbar_el1, x0
        .globl later
later:  nop
        nop
        .globl last
last:   mov     x0, #8
        movk    x0, #0x8400, lsl #16
        hvc     #0
        b       .
        .ltorg
        .balign 2048
        .globl vectors
vectors: .fill 512, 4, 0x14000000
        .balign 4096
tables: .fill 4096 * 3, 1, 0
_end:
"""
LINK = 0xFFFF_FFC0_0800_0000


def _gcc(folder: Path, *words: str) -> None:
    fixed = ["-nostdlib", "-static", "-Wl,--build-id=none"]
    subprocess.run([GCC, *fixed, *words], cwd=folder, check=True, capture_output=True)


def build(folder: Path, *options: str) -> Path:
    """The guest of `SOURCES`, compiled with these options."""
    for name, text in SOURCES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    _gcc(
        folder,
        "-O2",
        "-ffreestanding",
        "-Wl,-Ttext=0x40080000",
        *options,
        "-o",
        "t.elf",
        "a.c",
        "sub/b.c",
    )
    return folder / "t.elf"


def build_image(folder: Path, offset: int) -> tuple[Path, Path, Path]:
    """(Image, vmlinux, System.map) of `IMAGE`, which moves by ``offset``."""
    (folder / "image.S").write_text(IMAGE)
    _gcc(
        folder,
        f"-Wl,-Ttext={LINK:#x}",
        "-Wl,-e,_text",
        f"-DOFFSET={offset:#x}",
        "-o",
        "vmlinux",
        "image.S",
    )
    subprocess.run(
        ["aarch64-linux-gnu-objcopy", "-O", "binary", "vmlinux", "Image"], cwd=folder, check=True
    )
    symbols = subprocess.run(
        ["aarch64-linux-gnu-nm", "-n", "vmlinux"], cwd=folder, check=True, capture_output=True
    )
    (folder / "System.map").write_bytes(symbols.stdout)
    return folder / "Image", folder / "vmlinux", folder / "System.map"
