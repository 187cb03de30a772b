"""Builds the bundled guests.

    python tools/build_firmware.py                 build into armvirt/guests/
    python tools/build_firmware.py --out DIR       build elsewhere
    python tools/build_firmware.py --check         build elsewhere and compare byte for byte

The compiler is ``CROSS_COMPILE``gcc (default prefix ``aarch64-linux-gnu-``), or ``clang`` if there
is no such gcc. The same version of the compiler gives the same bytes on every machine: no time
stamps, no build id, no paths.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
FIRMWARE = ROOT / "firmware"
BUNDLED = ROOT / "armvirt" / "guests"
MANIFEST = FIRMWARE / "guests.toml"
GUEST_DIRECTORIES = ("guests", "broken", "bench")

CFLAGS = (
    "-std=gnu11 -O2 -march=armv8-a -ffreestanding -fno-builtin -nostdlib -static -fno-pic -fno-pie "
    "-mgeneral-regs-only -mno-outline-atomics -mstrict-align -fno-common -fno-stack-protector "
    "-fno-asynchronous-unwind-tables -fno-unwind-tables -fno-ident -ffunction-sections -fdata-sections "
    "-Wall -Wextra -Werror -Wmissing-prototypes"
).split()
LDFLAGS = (
    "-nostdlib -static -no-pie -Wl,--build-id=none -Wl,--gc-sections -Wl,-z,max-page-size=4096 "
    "-Wl,-z,noexecstack -Wl,--no-warn-rwx-segments"
).split()
BARE_LDFLAGS = "-nostdlib -static -no-pie -Wl,--build-id=none -Wl,-N -Wl,-Ttext=0x40200000".split()


class BuildError(Exception):
    """The build failed; the text is the reason."""


@dataclass(frozen=True)
class Compiler:
    """A cross compiler: the words of its command, and the versions of compiler and linker as
    text."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Guest:
    """A guest to build: its name, the file name of its ELF, and its sources relative to
    ``firmware/``."""

    name: str
    file: str
    sources: tuple[str, ...]


def find_compiler() -> Compiler | None:
    """The compiler to use; None if there is none."""
    gcc = os.environ.get("CROSS_COMPILE", "aarch64-linux-gnu-") + "gcc"
    if shutil.which(gcc):
        return Compiler(
            (gcc,), f"{_first_line(gcc, '--version')}, {_first_line(gcc, '-Wl,--version')}"
        )
    if shutil.which("clang"):
        return Compiler(
            ("clang", "--target=aarch64-linux-gnu", "-fuse-ld=lld"),
            _first_line("clang", "--version"),
        )
    return None


def _first_line(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.partition("\n")[0].strip()


def read_manifest(path: Path = MANIFEST) -> dict[str, Any]:
    """The manifest as plain data."""
    manifest: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return manifest


def recorded_compiler() -> str:
    """Name and version of the compiler that made the bundled ELFs."""
    return str(read_manifest()["build"]["compiler"])


def guests_to_build() -> list[Guest]:
    """Every guest of the manifest, with its sources."""
    manifest = read_manifest()
    extra: dict[str, list[str]] = manifest["build"]["sources"]
    return [Guest(g["name"], g["file"], _sources(g["name"], extra)) for g in manifest["guest"]]


def _sources(name: str, extra: dict[str, list[str]]) -> tuple[str, ...]:
    if name in extra:
        return tuple(extra[name])
    for directory in GUEST_DIRECTORIES:
        if (FIRMWARE / directory / f"{name}.c").exists():
            return (f"{directory}/{name}.c",)
    raise BuildError(f"{MANIFEST.name}: guest {name!r} has no source file")


def build(compiler: Compiler, out: Path) -> list[Path]:
    """Compile every guest into ``out`` and copy the manifest there. Returns the files written."""
    files = build_guests(compiler, guests_to_build(), out)
    shutil.copyfile(MANIFEST, out / MANIFEST.name)
    return [*files, out / MANIFEST.name]


def build_guests(compiler: Compiler, guests: Sequence[Guest], out: Path) -> list[Path]:
    """Compile ``guests`` with the runtime into ``out``. Returns the ELFs written."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        names = {s for guest in guests for s in guest.sources} | set(_library())
        objects = dict(
            pool.map(lambda name: _compile(compiler, name, Path(scratch)), sorted(names))
        )
        library = [objects[name] for name in _library()]
        return list(pool.map(lambda g: _link(compiler, g, objects, library, out), guests))


def build_bare(compiler: Compiler, guest: Guest, defines: Sequence[str], out: Path) -> Path:
    """Assemble a guest without the runtime: its entry is ``_start``, at the start of its text
    section."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        objects = [_compile(compiler, name, Path(scratch), defines)[1] for name in guest.sources]
        target = out / guest.file
        _run([*compiler.command, *BARE_LDFLAGS, *map(str, objects), "-o", str(target)])
    target.chmod(0o644)
    return target


def _library() -> list[str]:
    """The sources of the runtime; the entry code is first."""
    names = sorted(
        f"lib/{path.name}" for path in (FIRMWARE / "lib").iterdir() if path.suffix in {".c", ".S"}
    )
    return sorted(names, key=lambda name: name != "lib/start.S")


def _compile(
    compiler: Compiler, name: str, scratch: Path, defines: Sequence[str] = ()
) -> tuple[str, Path]:
    target = scratch / (name.replace("/", "_") + ".o")
    flags = [
        *CFLAGS,
        f"-ffile-prefix-map={FIRMWARE}=firmware",
        "-Ilib",
        *(f"-D{word}" for word in defines),
    ]
    _run([*compiler.command, *flags, "-c", name, "-o", str(target)])
    return name, target


def _link(
    compiler: Compiler, guest: Guest, objects: dict[str, Path], library: list[Path], out: Path
) -> Path:
    target = out / guest.file
    inputs = [str(path) for path in [*library, *(objects[name] for name in guest.sources)]]
    _run([*compiler.command, *LDFLAGS, "-T", "lib/guest.ld", *inputs, "-o", str(target)])
    target.chmod(0o644)
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=FIRMWARE, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")


def differences(built: list[Path], against: Path) -> list[str]:
    """One line for each file of ``built`` that is missing in ``against`` or differs there, and for
    each additional file in ``against``."""
    lines = []
    for path in built:
        other = against / path.name
        if not other.exists():
            lines.append(f"{path.name}: missing in {against.name}/")
        elif other.read_bytes() != path.read_bytes():
            lines.append(f"{path.name}: differs")
    known = {path.name for path in built}
    strays = sorted(path.name for path in against.glob("*.elf") if path.name not in known)
    return lines + [f"{name}: not in the manifest" for name in strays]


def _check(compiler: Compiler) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        lines = differences(build(compiler, Path(scratch)), BUNDLED)
    for line in lines:
        print(line)
    if lines and compiler.version != recorded_compiler():
        print(
            f"note: this is {compiler.version}, the bundled guests were built by {recorded_compiler()}"
        )
    print(
        "bundled guests differ from their sources"
        if lines
        else "bundled guests match their sources"
    )
    return 1 if lines else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the bundled guests.")
    parser.add_argument(
        "--out", type=Path, default=BUNDLED, help="directory for the ELFs (default: armvirt/guests)"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with armvirt/guests instead of writing there"
    )
    options = parser.parse_args(argv)
    compiler = find_compiler()
    if compiler is None:
        print(
            "no AArch64 compiler: install gcc-aarch64-linux-gnu, or set CROSS_COMPILE",
            file=sys.stderr,
        )
        return 2
    try:
        if options.check:
            return _check(compiler)
        files = build(compiler, options.out)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(files) - 1} guests built by {compiler.version} into {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
