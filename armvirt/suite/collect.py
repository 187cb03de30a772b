"""Finds the cases of ``armvirt test`` and of the pytest plugin in folders, guests and files
armvirt.toml. A case is one guest with its settings and its expected result (`armvirt.suite.case`).

A suite is a folder of guests, one guest, or a file armvirt.toml (`armvirt.suite.toml`). In a folder
without armvirt.toml each ELF or Image is expected to pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from armvirt import outputs
from armvirt import script as scripts
from armvirt.bundled import Guest, find, guests
from armvirt.errors import UserError
from armvirt.suite.case import Case
from armvirt.suite.toml import FILE, toml_cases

GUEST_SUFFIXES = (".elf", ".img", ".bin")
GUEST_NAMES = ("Image", "Image.gz")


def collect(paths: Iterable[str]) -> list[Case]:
    """The cases of all suites, in the order of the suites. ``paths`` are the paths of the suites.
    Raises UserError if a path is not a suite. Also raises UserError if a case has an error that can
    be found before its run: a missing or unusable file, an impossible board, or an output that
    would overwrite an input."""
    paths = list(paths)
    known = guests()
    cases = [case for path in paths for case in _collect_one(path, known)]
    _check_all(cases)
    written = {
        f"{case.name}: {kind}": path for case in cases for kind, path in case.outputs().items()
    }
    outputs.check(written, inputs(paths, cases))
    return cases


def _check_all(cases: Iterable[Case]) -> None:
    from armvirt.board.checks import Precheck

    precheck = Precheck()
    for case in cases:
        try:
            precheck(case.config())
            if case.script:
                precheck.file(case.script, scripts.load)
        except UserError as error:
            raise UserError(f"{case.name}: {error}") from None


def inputs(paths: Iterable[str], cases: Iterable[Case]) -> Iterator[str]:
    """The paths of all input files of some suites. ``paths`` are the paths of the suites. ``cases``
    are the cases of these suites."""
    for text in paths:
        yield os.path.join(text, FILE) if os.path.isdir(text) else text
    for case in cases:
        if case.image is not None:
            yield find(case.image).file
        named = (case.script, *(case.settings.get(name) for name in ("initrd", "dtb", "bios")))
        yield from (path for path in named if path)


def _collect_one(text: str, known: dict[str, Guest]) -> list[Case]:
    if os.path.isdir(text):
        return folder_cases(Path(text))
    if text.endswith(".toml"):
        return toml_cases(Path(text))
    guest = find(text)
    return [Case(guest.name, text, known[text].expect if guest.summary else "pass")]


def folder_cases(folder: Path) -> list[Case]:
    """The cases of a folder: the guests in its armvirt.toml. If there is no armvirt.toml, every
    guest in the folder is a case."""
    if os.path.exists(folder / FILE):
        return toml_cases(folder / FILE)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; check its permissions") from None
    found = [name for name in names if name.endswith(GUEST_SUFFIXES) or name in GUEST_NAMES]
    if not found:
        raise UserError(
            f"{folder}: there is no guest and no {FILE} in it; guests end in {', '.join(GUEST_SUFFIXES)}"
        )
    return [Case(os.path.splitext(name)[0], str(folder / name)) for name in found]
