"""Builds the native engine, a plain shared library loaded by ctypes, where a C compiler works.

Everything else is in pyproject.toml. Without a compiler, or with one that fails, the installation goes on with
the portable engine, which gives the same results more slowly; ``armvirt doctor`` says which one is in use.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NAME = "armvirt.hw.engine._native"
SOURCE, HEADER = "armvirt/hw/engine/native.c", "armvirt/hw/engine/silicon.h"
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared")
FALLBACK = "armvirt: the native engine was not built ({}); the portable engine will be used: same results, slower"


def compiler() -> list[str]:
    """$CC, or the first of the usual names found; empty if there is none."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), [])


def compile_library(output: Path) -> str:
    """Compile native.c into ``output``; returns what went wrong, or nothing."""
    command = compiler()
    if not command:
        return "no C compiler"
    output.parent.mkdir(parents=True, exist_ok=True)
    extra = shlex.split(os.environ.get("CFLAGS", ""))
    try:
        done = subprocess.run([*command, *FLAGS, *extra, SOURCE, "-o", str(output)], capture_output=True, text=True)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode or not output.exists():
        return f"{command[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[0]}"
    return ""


class BuildNative(build_ext):
    """build_ext for one library that is no Python extension module, and that the installation can do without."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"  # not tied to a Python version

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return list(ext.export_symbols)  # no PyInit function

    def run(self) -> None:
        """As build_ext, without setting up a compiler for Python extensions (which may not exist)."""
        self.build_extensions()
        if self.inplace:
            self.copy_extensions_to_source()

    def build_extensions(self) -> None:
        for extension in self.extensions:
            self.build_extension(extension)

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.build_lib) / self.get_ext_filename(ext.name)
        output.unlink(missing_ok=True)
        problem = compile_library(output)
        if problem:
            output.unlink(missing_ok=True)
            # A library of an earlier build must not be taken for this one.
            Path(self.get_ext_filename(ext.name)).unlink(missing_ok=True)
            print(FALLBACK.format(problem))

    def get_outputs(self) -> list[str]:
        return [name for name in super().get_outputs() if Path(name).exists()]


setup(ext_modules=[Extension(NAME, [SOURCE], depends=[HEADER], optional=True)], cmdclass={"build_ext": BuildNative})
