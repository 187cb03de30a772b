"""`make package`: which tag a library deserves, what a wheel must hold, where Pythons are."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import package
import pytest
from conftest import skip_or_fail

from armvirt.hw.engine.native import LIBRARY

PURE, PLATFORM = "py3-none-any", "py3-none-manylinux_2_17_x86_64"
PREFIX = "armvirt-0.1.0.data/data/share/doc/armvirt/"


@pytest.mark.parametrize(
    ("names", "glibc"),
    [
        ([], (2, 17)),
        (["GLIBC_2.2.5"], (2, 17)),
        (["GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.17"], (2, 34)),
        (["GLIBC_2.2.5", "GLIBC_PRIVATE"], None),
        (["GCC_3.0"], None),
    ],
)
def test_the_newest_symbol_says_which_glibc_is_needed(
    names: list[str], glibc: tuple[int, int] | None
) -> None:
    assert package.newest_glibc(names) == glibc


def test_the_library_needs_a_c_library_and_nothing_else() -> None:
    if not Path(LIBRARY).exists():
        skip_or_fail("the native engine is not built")
    glibc = package.needed_glibc(Path(LIBRARY))
    assert glibc is not None and glibc >= package.OLDEST_GLIBC


def wheel(
    folder: Path, tag: str, library: bool, pure: bool, leave_out: str = "", add: str = ""
) -> Path:
    path = folder / f"armvirt-0.1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("armvirt-0.1.0.dist-info/WHEEL", f"Root-Is-Purelib: {str(pure).lower()}\n")
        for name in [PREFIX + document for document in package.DOCUMENTS if document != leave_out]:
            archive.writestr(name, "")
        for name in [*([package.LIBRARY] if library else []), *([add] if add else [])]:
            archive.writestr(name, "")
    return path


def test_wheels_as_they_should_be(tmp_path: Path) -> None:
    package.check_wheel(wheel(tmp_path, PLATFORM, True, False), native=True)
    package.check_wheel(wheel(tmp_path, PURE, False, True), native=False)


@pytest.mark.parametrize(
    ("tag", "library", "pure", "native", "other"),
    [
        (PURE, True, True, True, {}),  # a library that other machines would get
        (PLATFORM, False, False, True, {}),  # a platform wheel without its library
        (
            "cp311-cp311-linux_x86_64",
            True,
            False,
            True,
            {},
        ),  # an ABI that the library does not have
        (PLATFORM, False, True, False, {}),  # nothing in it is of that platform
        (PURE, False, True, False, {"leave_out": "CHANGELOG.md"}),
        (PURE, False, True, False, {"add": "tests/conftest.py"}),
    ],
)
def test_a_wheel_that_is_not_what_its_tag_says(
    tmp_path: Path, tag: str, library: bool, pure: bool, native: bool, other: dict[str, str]
) -> None:
    with pytest.raises(package.PackageError):
        package.check_wheel(wheel(tmp_path, tag, library, pure, **other), native)


def test_pythons_of_pyenv_are_tried_newest_first(tmp_path: Path) -> None:
    made = [
        tmp_path / f".pyenv/versions/{version}/bin/python"
        for version in ("3.12.1", "3.12.10", "3.13.0")
    ]
    for path in made:
        path.parent.mkdir(parents=True)
        path.touch()
    found = package.candidates("3.12", {"HOME": str(tmp_path), "PATH": "/none"})
    assert found == [sys.executable, str(made[1]), str(made[0])]


def test_this_python_is_found() -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert package.find_python(version) == sys.executable
    assert package.find_python("2.1") is None
