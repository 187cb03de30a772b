"""Builds the packages, checks them, and installs them into every supported Python on this host.

    python tools/package.py                  everything; the packages are in dist/
    python tools/package.py --build-only     no installation

The packages are the source package and two wheels that are built from it: one with the native
engine, and one for any machine (py3-none-any). The wheel with the native engine gets the tag
manylinux_X_Y if its library only needs a C library of that version (PEP 600), else it keeps the tag
of this platform. Each wheel is installed into a new environment of each supported Python on the
PATH or under pyenv. There it must boot a guest with the usual trace hash, be found by pytest, and
pass the tests that need no other tool. If the compiler fails, ``armvirt doctor`` must show the
reason. Supported Pythons that are not on this host are named. Exit status: 0 without errors, else
1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
LIBRARY = "armvirt/hw/engine/_native.so"
C_LIBRARY = "libc.so.6"
OLDEST_GLIBC = (2, 17)
"""What Unicorn's own wheel asks for: an older C library is of no use."""
DOCUMENTS = (
    "README.md",
    "CHANGELOG.md",
    "architecture.md",
    "cli.md",
    "engine.md",
    "gic.md",
    "kvm-api.md",
    "where.md",
)
TESTS = (
    "tests/arch",
    "tests/board",
    "tests/trace",
    "tests/test_units.py",
    "tests/test_script.py",
)
TEST_NEEDS = ("pytest", "hypothesis")
GUEST = "vtimer-tick"
PLUGIN_TEST = """
def test_a_guest(machine):
    assert machine("hello").run().verdict == "pass"
"""


class PackageError(Exception):
    """An error in a package; the text describes it."""


def run(
    words: Sequence[str | Path], cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> str:
    """The standard output of a program. PackageError with its complete output if it fails."""
    settings = {
        key: value for key, value in os.environ.items() if key not in ("CC", "CFLAGS", "PYTHONPATH")
    }
    settings.update(environment or {})
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=settings, text=True, capture_output=True
    )
    if done.returncode:
        raise PackageError(
            f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


# -- building --


class Packages(NamedTuple):
    """The files that were built."""

    source: Path
    native: Path
    portable: Path


def build(folder: Path) -> Packages:
    """Build the three packages in ``folder``, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "build", "--sdist", "--outdir", folder, "."])
    (source,) = folder.glob("*.tar.gz")
    native = wheel_of(source, folder, ARMVIRT_NATIVE="1")
    portable = wheel_of(source, folder, ARMVIRT_NATIVE="0")
    return Packages(source, with_widest_tag(native), portable)


def wheel_of(source: Path, folder: Path, **environment: str) -> Path:
    """A wheel that is built only from the source package, and moved into ``folder``."""
    with tempfile.TemporaryDirectory() as scratch:
        run(
            [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", scratch, source],
            environment=environment,
        )
        (wheel,) = Path(scratch).glob("*.whl")
        return Path(shutil.move(wheel, folder / wheel.name))


def needed_glibc(library: Path) -> tuple[int, int] | None:
    """The newest version of glibc whose symbols a shared library uses; None if the library needs
    another library than glibc."""
    with library.open("rb") as file:
        elf = ELFFile(file)
        dynamic, versions = (
            elf.get_section_by_name(".dynamic"),
            elf.get_section_by_name(".gnu.version_r"),
        )
        assert isinstance(dynamic, DynamicSection) and isinstance(versions, GNUVerNeedSection)
        if {getattr(tag, "needed", "") for tag in dynamic.iter_tags("DT_NEEDED")} != {C_LIBRARY}:
            return None
        return newest_glibc(
            [symbol.name for _, symbols in versions.iter_versions() for symbol in symbols]
        )


def newest_glibc(names: Sequence[str]) -> tuple[int, int] | None:
    """(2, 17) for ["GLIBC_2.2.5", "GLIBC_2.17"]; None if one of the symbols has no public
    version."""
    versions = [re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", name) for name in names]
    if not all(versions):
        return None
    return max([OLDEST_GLIBC, *((int(found[1]), int(found[2])) for found in versions if found)])


def with_widest_tag(wheel: Path) -> Path:
    """The wheel, renamed to manylinux_X_Y if its library allows it."""
    with tempfile.TemporaryDirectory() as scratch:
        glibc = needed_glibc(Path(zipfile.ZipFile(wheel).extract(LIBRARY, scratch)))
    platform = wheel.stem.rpartition("-")[2]
    if glibc is None or not platform.startswith("linux_"):
        return wheel
    tag = f"manylinux_{glibc[0]}_{glibc[1]}_{platform.removeprefix('linux_')}"
    run([sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, wheel])
    return wheel.with_name(wheel.name.replace(platform, tag))


# -- what is inside --


def check_wheel(wheel: Path, native: bool) -> None:
    """PackageError if tag, library and documents of the wheel do not fit together."""
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    (metadata,) = (name for name in names if name.endswith(".dist-info/WHEEL"))
    says = archive.read(metadata).decode()
    if native != (LIBRARY in names) or native == ("Root-Is-Purelib: true" in says):
        raise PackageError(f"{wheel.name}: library {LIBRARY in names}, but\n{says}")
    if not wheel.name.split("-", 2)[2].startswith("py3-none-") or native == wheel.name.endswith(
        "-any.whl"
    ):
        raise PackageError(f"{wheel.name}: the tag is not that of what it holds")
    documents = {name.rpartition("/")[2] for name in names if "/share/doc/armvirt/" in name}
    if missing := set(DOCUMENTS) - documents:
        raise PackageError(f"{wheel.name}: no {', '.join(sorted(missing))}")
    if stray := [
        name
        for name in names
        if name.startswith(("tests/", "tools/")) or name.endswith((".pyc", ".o"))
    ]:
        raise PackageError(f"{wheel.name}: {', '.join(stray[:5])} should not be in it")


# -- Pythons --


def candidates(version: str, environment: Mapping[str, str]) -> list[str]:
    """The paths at which a Python of this version could be: the running one, the PATH, pyenv's
    versions from the newest on."""
    roots = [environment.get("PYENV_ROOT", ""), str(Path(environment.get("HOME", "/")) / ".pyenv")]
    found = [
        path
        for root in roots
        if root
        for path in Path(root).glob(f"versions/{version}.*/bin/python")
    ]
    on_path = shutil.which(f"python{version}", path=environment.get("PATH"))
    by_patch = sorted(
        map(str, found), key=lambda path: [int(n) for n in re.findall(r"\d+", path)], reverse=True
    )
    return [sys.executable, *([on_path] if on_path else []), *by_patch]


def find_python(version: str) -> str | None:
    """A Python of this version that can create environments. (A pyenv shim can exist and refuse to
    run.)"""
    says = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
    for path in candidates(version, os.environ):
        done = subprocess.run([path, "-c", says], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return path
    return None


# -- installing --


class Installed(NamedTuple):
    """An environment with armvirt, in a folder outside every source tree."""

    folder: Path

    def tool(self, name: str, *words: str | Path) -> str:
        """Run one of the environment's programs in a folder without a source tree."""
        return run([self.folder / "bin" / name, *words], cwd=self.folder)

    def pip(self, *words: str | Path) -> None:
        self.tool("python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *words)


def check_installed(here: Installed, kind: str) -> str:
    """The trace hash of a guest; PackageError if the installation has an error."""
    doctor = here.tool("armvirt", "doctor")
    if not re.search(rf"^ok +engine +{kind}\b", doctor, re.MULTILINE):
        raise PackageError(f"not the {kind} engine:\n{doctor}")
    if not re.search(r"^ok +documents .*share/doc/armvirt$", doctor, re.MULTILINE):
        raise PackageError(f"no documents:\n{doctor}")
    if kind == "portable" and "not built: left out by ARMVIRT_NATIVE=0" not in doctor:
        raise PackageError(f"doctor does not say why there is no native engine:\n{doctor}")
    (here.folder / "test_plugin.py").write_text(PLUGIN_TEST)
    here.tool("python", "-m", "pytest", "-q", "test_plugin.py")
    return here.tool("armvirt", "run", GUEST, "--trace-hash").splitlines()[-1]


def install(version: str, python: str, packages: Packages, scratch: Path) -> set[str]:
    """Install both wheels, one after the other, in an environment of this Python; returns the trace
    hashes."""
    here = Installed(scratch / version)
    run([python, "-m", "venv", here.folder])
    here.pip(packages.native, *TEST_NEEDS)
    hashes = {check_installed(here, "native")}
    here.tool("pytest", "-q", "-m", "not long", *(ROOT / name for name in TESTS))
    here.pip("--force-reinstall", "--no-deps", packages.portable)
    hashes.add(check_installed(here, "portable"))
    print(f"python {version}: both wheels work ({python})", flush=True)
    return hashes


def check_failing_compiler(source: Path, scratch: Path) -> None:
    """Build with a compiler that fails: the wheel must be for any machine, and the installation
    must show the output of the compiler."""
    compiler = scratch / "broken-cc"
    compiler.write_text(
        "#!/bin/sh\necho 'native.c:1: fatal error: stdint.h: No such file' >&2\nexit 1\n"
    )
    compiler.chmod(0o755)
    wheel = wheel_of(source, scratch, CC=str(compiler))
    check_wheel(wheel, native=False)
    here = Installed(scratch / "broken")
    run([sys.executable, "-m", "venv", here.folder])
    here.pip(wheel)
    doctor = here.tool("armvirt", "doctor")
    if (
        f"not built: {compiler} failed: native.c:1: fatal error: stdint.h: No such file"
        not in doctor
    ):
        raise PackageError(f"doctor does not say what the compiler said:\n{doctor}")
    print("a compiler that fails: armvirt doctor says why", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, check, install; returns 0 without errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist", help="folder for the packages (default: dist/)"
    )
    parser.add_argument("--build-only", action="store_true", help="do not install the packages")
    options = parser.parse_args(arguments)
    try:
        packages = build(options.out.resolve())
        for path in packages:
            print(f"{path.stat().st_size:>10,}  {path.name}", flush=True)
        check_wheel(packages.native, native=True)
        check_wheel(packages.portable, native=False)
        if not options.build_only:
            _install_all(packages)
    except PackageError as error:
        print(f"package: {error}", file=sys.stderr)
        return 1
    return 0


def _install_all(packages: Packages) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        check_failing_compiler(packages.source, scratch)
        pythons = {version: find_python(version) for version in SUPPORTED}
        hashes = [
            install(version, python, packages, scratch)
            for version, python in pythons.items()
            if python
        ]
    if len(set().union(*hashes)) != 1:
        raise PackageError(f"the trace hash of {GUEST} is not the same everywhere: {hashes}")
    if missing := [version for version, python in pythons.items() if python is None]:
        print(f"not here, so not tried: Python {', '.join(missing)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
