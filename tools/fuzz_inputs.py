"""The inputs of the fuzz targets: well-formed inputs of each kind, and functions that damage them.

The same numbers give the same mutants.
"""

from __future__ import annotations

import gzip
import struct
import sys
import zlib
from collections.abc import Callable
from random import Random
from typing import Literal, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_CPUS = 123
RAM, TEXT = 0x4000_0000, 0x4020_0000
BRANCH = b"\x00\x00\x00\x14"  # b .
EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
         (1 << 63) - 1, 1 << 63, (1 << 64) - 1, RAM, TEXT, RAM + (64 << 20))  # fmt: skip


class Mutant(NamedTuple):
    """A mutant: the words of a command; the file for ``{}`` in these words; and two numbers for the
    limits: the size of the file in bytes (if it is compressed, of its content), and the largest
    number of CPUs of a guest that runs."""

    words: list[str]
    content: bytes | None
    size: int
    cpus: int = 0


# --- ELF ---


def elf(segments: int, symbols: int, names: bytes, step: int, sections: int = 3) -> bytes:
    """A static ELF with a loop, ``segments`` segments of 16 bytes, and symbols whose names begin
    every ``step`` bytes."""
    headers = b"".join(
        struct.pack("<IIQQQQQQ", 1, 7, 64 + 56 * segments, TEXT + 16 * n, TEXT + 16 * n, 16, 16, 16)
        for n in range(segments)
    )
    at = 64 + len(headers) + 16
    table_at = at + 64 * sections
    rows = (struct.pack("<IBBHQQ", 1 + n * step, 18, 0, 1, TEXT + 4 * n, 4) for n in range(symbols))
    table = bytes(24) + b"".join(rows)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack(
        "<HHIQQQIHHHHHH", 2, 183, 1, TEXT, 64, at, 0, 64, 56, segments, 64, sections, 2
    )
    parts = [bytes(64), struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, table_at, len(table), 2, 0, 8, 24)]
    parts += [
        struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, table_at + len(table), len(names) + 2, 0, 0, 1, 0)
    ]
    parts += [bytes(64)] * (sections - 3)
    return b"".join([head, headers, BRANCH * 4, *parts, table, b"\0", names, b"\0"])


def elf_mutant(random: Random) -> Mutant:
    many = random.choice((1, 2, 3, 50, 2000)) if random.random() < 0.9 else 60_000
    symbols = random.choice((0, 3, 100, 3000)) if random.random() < 0.95 else 100_000
    names = random.choice((b"main", b"a\nVERDICT: PASS\x1b[2J", b"\xff\xfe", b"x" * 100_000))
    raw = bytearray(elf(many, symbols, names, random.choice((0, 1)), random.choice((3, 3, 60_000))))
    if random.random() < 0.3:  # every header after the first is another kind of segment
        kind = random.choice((2, 3, 6, 7))
        for n in range(1, many):
            struct.pack_into("<I", raw, 64 + 56 * n, kind)
    headers = 64 + 56 * min(many, 4)
    overwrite(
        random, raw, random.choice((headers, headers, len(raw))), random.choice((0, 1, 1, 2, 4))
    )
    return run_file(cut(random, raw))


# --- Image ---


def image_mutant(random: Random) -> Mutant:
    size = random.choice((64, 100, 4096, 1 << 20, 8 << 20))
    usual = random.random() < 0.5
    offset, memory, flags = (
        (0, random.choice((0, size, 1 << 20)), 0xA) if usual else random.choices(EDGES, k=3)
    )
    header = struct.pack(
        "<IIQQQQQQ4sI", 0x14000010, 0, offset, memory, flags, 0, 0, 0, b"ARM\x64", 0
    )
    raw = bytearray(header.ljust(size, b"\0"))
    raw[64:68] = BRANCH
    overwrite(random, raw, random.choice((64, len(raw))), random.choice((0, 0, 1, 3)))
    shape = random.random()
    if shape < 0.5:
        return run_file(cut(random, raw))
    packed = bytearray(gzip.compress(bytes(raw), 1))
    if shape < 0.6:  # a decompression bomb: a few KiB that decompress to much more than RAM
        packed = bytearray(
            gzip.compress(bytes(raw[:4096]).ljust(random.choice((1, 80)) << 20, b"\0"), 1)
        )
    if shape > 0.85:
        head = (
            b"MZ\0\0zimg"
            + struct.pack("<II", random.choice((64, 60, *EDGES)) & 0xFFFF_FFFF, len(packed))
            + bytes(8)
        )
        packed = bytearray(
            (head + random.choice((b"gzip", b"zstd", b"\x1b[2J\n"))).ljust(64, b"\0") + packed
        )
    overwrite(random, packed, random.choice((20, len(packed))), random.choice((0, 0, 1, 3)))
    return run_file(cut(random, packed))


def unpacked(content: bytes, most: int) -> int:
    """The number of bytes of the content of a compressed file, as far as it can be decompressed, at
    most ``most``."""
    start = content.find(b"\x1f\x8b")
    if start < 0:
        return 0
    try:
        return len(zlib.decompressobj(wbits=31).decompress(content[start:], most))
    except zlib.error:
        return most  # at most this much was decompressed before the damage


# --- device tree ---


def dtb_mutant(random: Random) -> Mutant:
    begin, end, fin = struct.pack(">I", 1), struct.pack(">I", 2), struct.pack(">I", 9)
    strings = random.choice(
        (b"reg\0status\0compatible\0", b"a" * 100_000 + b"\0", b"\xff\0\x1b[2J\0" * 10)
    )
    inside = b""
    for _ in range(random.choice((1, 5, 20))):
        size = random.choice((0, 1, 4, 100, random.choice(EDGES) & 0xFFFF_FFFF))
        prop = struct.pack(">3I", 3, size, random.randrange(len(strings))) + bytes(
            -(-min(size, 200) // 4) * 4
        )
        inside += random.choice(
            (prop, begin + b"cpu@0\0\0\0" + prop + end, begin + b"memory\0\0" + end, prop * 2000)
        )
    deep = random.choice((1, 1, 1, 60, 70, 5000))
    if random.random() < 0.05:
        inside += (begin + b"n\0\0\0" + end) * random.choice((1000, 40_000, 150_000))
    structure = begin + bytes(4) + (begin + b"d\0\0\0") * deep + inside + end * deep + end + fin
    header = [0xD00DFEED, 56 + len(structure) + len(strings), 56, 56 + len(structure), 40, 17, 16, 0, len(strings),
              len(structure)]  # fmt: skip
    raw = bytearray(struct.pack(">10I", *header) + bytes(16) + structure + strings)
    overwrite(random, raw, random.choice((40, len(raw))), random.choice((0, 0, 1, 2, 5)))
    return with_file(["run", "hello", "--max-insns", "1000", "--dtb", "{}"], cut(random, raw))


# --- texts ---

TOML_TOKENS = (
    "[[guest]]\n", "[defaults]\n", "name", "path", "cpus", "mem", "expect", "timeout", "script", "gic", "append", " = ",
    '"hello"', '"{}"', '"none.elf"', '"a\\nVERDICT: PASS"', '"\\u001b[2J"', '"\\u0000"', "1", "2", "-1", "1e400", "inf",
    "nan", "9" * 5000, "0x" + "f" * 400, "true", "1979-05-27T07:32:00Z", "[", "]", "{", "}", ",", ".", "\n", "#", '"',
    "'", '"""', "\\", "\t", "\ufeff", "\U0010ffff", "\u202e", "[" * 2000, "{a=" * 2000, "a." * 3000, "x" * 20_000,
    "\ncpus = 2\n", '\nmem = "64M"\n', "\ngic = 2\n", '\nappend = "\\u001b[2J"\n', "\nsemihosting = true\n",
    '\n[[guest]]\nname = "a\\nVERDICT: PASS"\npath = "none.elf"\n', "\npcpus = 2\n", "\nno-its = true\n",
    "\n# \u202e\n", 'timeout = "9999999h"\n', 'mem = "255G"\n', "exit-raw = 3\n", 'trace = "/dev/full"\n',
    "no-its = 0\n",
)  # fmt: skip
TOML_VALUES = (
    "1", "2", "3", "0", "-1", "true", "false", '"64M"', '"1"', '"pass"', '"limit"', '"/dev/null"', '"24MHz"',
    "24000000", '"\\u001b[2J\\n"', '"\\u0000"', "inf", "nan", "1.5", "9" * 5000, "[1]", "{a = 1}", '"1us"',
    '"9999999h"', '"1e9"', "0x10", "1979-05-27", '"x"', '""', "1e400",
)  # fmt: skip
SCRIPT_TOKENS = (
    "expect ", "send ", "timeout ", '"ok"', '"VERDICT"', '"\\n"', '"\\x', '"', "\\", "#", "\n", "\r", "\0", " " * 5000,
    "a" * 5000, "5s", "9" * 400, "9999999999h", "-1s", "1ns", '"\U0010ffff"', '"\U0010f0ff"', "\u2028", "\x85",
    "\x1b[2J", '\nsend "a"\n', '\nexpect "V"\n', "\ntimeout 1us\n", '\nsend "\U0010ffff"\n', "\n# \u202e\n",
    '\nexpect "\\x00\\xff"\n', '"' + "\\n" * 5000 + '"', '"' + "x" * 5000,
)  # fmt: skip


def toml_mutant(random: Random) -> Mutant:
    text = '[defaults]\ntimeout = "5s"\n\n[[guest]]\nname = "hello"\nmax-insns = 1000\nexpect = "limit"\n'
    keys = (
        "cpus",
        "mem",
        "gic",
        "expect",
        "append",
        "cntfrq",
        "load-addr",
        "max-time",
        "seed",
        "vhe",
        "script",
    )
    for _ in range(random.choice((0, 1, 2, 5))):
        text += f"{random.choice(keys)} = {random.choice(TOML_VALUES)}\n"
    content = damaged_text(random, text, TOML_TOKENS) if random.random() < 0.5 else text.encode()
    mutant = with_file(["test", "--plain", "{}"], content, ".toml")
    return mutant._replace(cpus=most_cpus(content))


def most_cpus(suite: bytes) -> int:
    """The largest number of CPUs in a table of a suite, at most the largest possible number; 0 if
    the suite cannot be read or has no such number."""
    try:
        tables = tomllib.loads(suite.decode())
    except (ValueError, RecursionError):
        return 0
    guests = tables.get("guest", [])
    rows = [tables.get("defaults"), *(guests if isinstance(guests, list) else [])]
    asked = [row.get("cpus") for row in rows if isinstance(row, dict)]
    return max((n for n in asked if type(n) is int and 0 < n <= MAX_CPUS), default=0)


def script_mutant(random: Random) -> Mutant:
    text = 'timeout 1ms\nexpect "Hello"\nsend "root\\n"  # a comment\n'
    words = ["run", "hello", "--max-insns", "3000", "--script", "{}"]
    return with_file(words, damaged_text(random, text, SCRIPT_TOKENS))


def damaged_text(random: Random, text: str, tokens: tuple[str, ...]) -> bytes:
    """A text with tokens inserted, added or replaced and lines repeated; perhaps with some bytes
    overwritten, or without its end."""
    for _ in range(random.choice((1, 1, 1, 2, 4, 30))):
        at = random.randrange(len(text) + 1)
        if random.random() < 0.5:
            at = (
                text.rfind("\n", 0, at) + 1
            )  # at the start of a line, where a token is more likely to be valid
        over = random.choice((0, 0, 0, 1, 5, 20))
        text = text[:at] + random.choice(tokens) + text[at + over :]
    if random.random() < 0.05:
        text *= random.choice((2, 50, 500))
    raw = bytearray(text.encode())
    overwrite(random, raw, len(raw), random.choice((0, 0, 0, 0, 0, 0, 1, 3)))
    return bytes(cut(random, raw))


# --- words ---

WORDS = (
    "run", "trace", "explain", "gic", "list", "doctor", "migrate-test", "--", "-", "--help", "--version", "hello",
    "spin", "none", "", "/", "/dev/null", "/dev/zero", ".", "\udcff", "\x1b[2J", "a\nVERDICT: PASS", "y" * 5000,
    "\U0010ffff", "--json", "--plain", "--all", "--no-its", "--semihosting", "--trace-hash", "--no-reboot", "--vhe",
    "--exit-raw", "-kernel", "-smp", "-m", "-nographic", "-S", "--debugg", "-j", "-1",
)  # fmt: skip
OPTIONS = (
    "--mem", "--cpus", "--gic", "--cpu", "--cntfrq", "--cntvoff", "--list-registers", "--priority-bits", "--pcpus",
    "--quantum", "--rtc-base", "--append", "--initrd", "--dtb", "--bios", "--load-addr", "--script", "--engine",
    "--timeout", "--max-insns", "--max-time", "--cpu-features", "--seed", "--intid", "--vcpu", "--at", "--versus",
    "--rows", "--counter-start", "--tolerance", "--trace", "--dump-dtb",
)  # fmt: skip
VALUES = (
    "--", "", "0", "1", "2", "3", "8", "-1", "16", "123", "124", "1.5", "1e9", "9" * 100, "9" * 5000, "0x" + "f" * 30,
    "inf", "nan", "1M", "64M", "255G", "256G", "1ns", "1ms", "9999999999h", "62.5MHz", "\udcff", "\x1b[2J", "\u202e",
    "\u0663", "\uff11",
    "2024-02-30", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "main", "main+0x10", "+", "0x", "ecv,wfxt",
    ",", "vtimer", "spi1", "/dev/full", "/dev/zero", "/", "/none/x", "-", "\U0010ffff", "y" * 5000,
)  # fmt: skip


#: Options and values that fit together, so that many mutants reach a run.
GOOD = (
    ["--mem", "64M"], ["--cpus", "2"], ["--gic", "2"], ["--cntfrq=24MHz"], ["--cntvoff", "-5"], ["--pcpus", "2"],
    ["--list-registers=1"], ["--quantum", "5us"], ["--append", "\udcff\x1b[2J\n"], ["--semihosting"], ["--vhe"],
    ["--max-time", "1us"], ["--timeout", "9999999h"], ["--engine", "portable"], ["--priority-bits", "7"], ["--no-its"],
    ["--cpu-features", "ecv,wfxt"], ["--rtc-base", "2024-02-29"], ["--seed", "7"],
)  # fmt: skip


def options_mutant(random: Random) -> Mutant:
    words = [random.choice(("run", "run", "trace", "gic", "explain")), "hello"]
    for _ in range(random.choice((1, 1, 2, 3))):
        words += random.choice(GOOD)
    if words[0] == "explain":
        words += ["--intid", random.choice(("27", "vtimer", "spi1", "1", "8192"))]
    for _ in range(random.choice((0, 0, 1, 2))):
        option, value = random.choice(OPTIONS), random.choice(VALUES)
        words += random.choice(
            ([option, value], [f"{option}={value}"], [option], [random.choice(WORDS)])
        )
    if random.random() < 0.1:
        random.shuffle(words)
    # No mutant may run for long: the last occurrence of an option counts.
    runs = words[0] in ("run", "trace", "gic", "explain")
    most = str(MAX_CPUS)
    cpus = MAX_CPUS if most in words or any(word.endswith(f"={most}") for word in words) else 0
    return Mutant([*words, *(["--max-insns", "1000"] if runs else [])], None, 0, cpus)


# --- damage ---


def overwrite(random: Random, raw: bytearray, within: int, times: int) -> None:
    """Overwrite some of the first ``within`` bytes with the limits of integers, or with random
    bytes."""
    for _ in range(times if len(raw) > 8 else 0):
        width = random.choice((1, 2, 4, 8))
        at = random.randrange(max(1, min(within, len(raw)) - width))
        value = random.choice(EDGES) if random.random() < 0.6 else random.getrandbits(64)
        order: Literal["little", "big"] = "little" if random.random() < 0.7 else "big"
        raw[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, order)


def cut(random: Random, raw: bytearray | bytes) -> bytes:
    return bytes(raw[: random.randrange(len(raw) + 1)] if random.random() < 0.1 else raw)


def run_file(content: bytes) -> Mutant:
    return with_file(["run", "{}", "--max-insns", "1000", "--mem", "64M"], content)


def with_file(words: list[str], content: bytes, suffix: str = "") -> Mutant:
    words = [word.replace("{}", "{}" + suffix) for word in words]
    return Mutant(words, content, max(len(content), unpacked(content, 64 << 20)))


TARGETS: dict[str, Callable[[Random], Mutant]] = {
    "elf": elf_mutant,
    "image": image_mutant,
    "dtb": dtb_mutant,
    "toml": toml_mutant,
    "script": script_mutant,
    "options": options_mutant,
}
