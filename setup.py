"""Builds the native engine, a plain shared library loaded by ctypes, where a C compiler works.

Everything else is in pyproject.toml. Without a compiler, or with one that fails, the installation
goes on with the portable engine, which gives the same results more slowly. What the compiler said
is then kept beside the engines, in `LOG`, where ``armvirt doctor`` finds it.

ARMVIRT_NATIVE=0 leaves the native engine out: the wheel is py3-none-any, for every machine.
ARMVIRT_NATIVE=1 makes a compiler that fails an error. A wheel with the library is
py3-none-PLATFORM, since the library has no CPython ABI.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NAME = "armvirt.hw.engine._native"
SOURCE = "armvirt/hw/engine/native.c"
HEADERS = ["armvirt/hw/engine/layout.h", "armvirt/hw/engine/shadow.h",
           "armvirt/hw/engine/rounds.h", "armvirt/hw/engine/waits.h"]  # fmt: skip
LOG = "armvirt/hw/engine/native-build.log"
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared")
FALLBACK = "armvirt: the native engine was not built ({}); the portable engine will be used: same results, slower"
LEFT_OUT = "left out by ARMVIRT_NATIVE=0"
NO_COMPILER = "no C compiler: $CC is not set, and there is no cc, gcc or clang"


def compiler() -> list[str]:
    """$CC, or the first of the usual names found; empty if there is none."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), [])


def compile_library(output: Path) -> str:
    """Compile native.c into ``output``; returns what went wrong: in the first line in short, then
    all of it."""
    if os.environ.get("ARMVIRT_NATIVE") == "0":
        return LEFT_OUT
    command = compiler()
    if not command:
        return NO_COMPILER
    output.parent.mkdir(parents=True, exist_ok=True)
    extra = shlex.split(os.environ.get("CFLAGS", ""))
    words = [*command, *FLAGS, *extra, SOURCE, "-o", str(output)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    except OSError as error:
        return f"{command[0]}: {error.strerror}\n$ {shlex.join(words)}"
    if done.returncode or not output.exists():
        said = done.stderr.strip() or "no message"
        first = next((line for line in said.splitlines() if "error" in line), said.splitlines()[0])
        return f"{command[0]} failed: {first}\n$ {shlex.join(words)}\n{said}\nexit status {done.returncode}"
    return ""


class BuildNative(build_ext):
    """build_ext for one library that is no Python extension module, and that the installation can
    do without."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"  # not tied to a Python version

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return list(ext.export_symbols)  # no PyInit function

    def run(self) -> None:
        """As build_ext, without setting up a compiler for Python extensions (which may not
        exist)."""
        self.build_extensions()
        if self.inplace:
            self.copy_extensions_to_source()

    def build_extensions(self) -> None:
        for extension in self.extensions:
            self.build_extension(extension)

    def build_extension(self, ext: Extension) -> None:
        output = self._place(self.get_ext_filename(ext.name))
        # A library of an earlier build must not be taken for this one, nor the reason why there was
        # none.
        for stale in (output, Path(self.get_ext_filename(ext.name)), self._place(LOG), Path(LOG)):
            stale.unlink(missing_ok=True)
        problem = compile_library(output)
        if not problem:
            return
        output.unlink(missing_ok=True)
        if os.environ.get("ARMVIRT_NATIVE") == "1":
            raise CompileError(f"ARMVIRT_NATIVE=1, but the native engine was not built: {problem}")
        self._keep(problem)

    def _place(self, name: str) -> Path:
        return Path(self.build_lib) / name

    def _keep(self, problem: str) -> None:
        """The installation says later why it has no native engine; an editable one is the source
        tree itself."""
        for log in {self._place(LOG), *([Path(LOG)] if self.inplace else [])}:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(problem + "\n", encoding="utf-8")
        print(FALLBACK.format(problem.splitlines()[0]))

    def get_outputs(self) -> list[str]:
        """The library, or the reason why there is none."""
        return [
            name for name in (*super().get_outputs(), str(self._place(LOG))) if Path(name).exists()
        ]


class Wheel(bdist_wheel):
    """The tag is that of what was built: for every machine without the library, else for this
    platform."""

    def run(self) -> None:
        if not self.skip_build:
            self.run_command("build")
            self.skip_build = True
        if not any(
            name.endswith(".so") for name in self.get_finalized_command("build_ext").get_outputs()
        ):
            self.distribution.ext_modules = []
            self.root_is_pure = True
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        return "py3", "none", platform


setup(
    ext_modules=[Extension(NAME, [SOURCE], depends=HEADERS, optional=True)],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
