"""The guests that are installed with armvirt, and the search for the file of a GUEST argument."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from armvirt.errors import UserError
from armvirt.inputs import STDIN
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from armvirt.script import Script

# pathlib and tomllib are imported only where they are used: the import of either takes nearly as
# long as `armvirt run` of a small guest.
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guests")
MANIFEST = "guests.toml"


class Setup(NamedTuple):
    """A machine configuration for the test of a guest: the version of the GIC, and the number of
    CPUs."""

    gic: int
    cpus: int

    def __str__(self) -> str:
        return f"gic{self.gic}-cpus{self.cpus}"


class Guest(NamedTuple):
    """One guest. For a bundled guest, the fields are from the manifest (``guests.toml``). For a
    file of the user, all fields except the name and the path have their default values.

    ``file`` is the path of the guest. ``cpus`` is the default number of CPUs. ``expect`` is how a
    run is expected to end (pass, fail, stuck, limit). ``script`` is the console script. ``gics``
    are the GIC versions with which the guest is tested. ``cpu_counts`` are the numbers of CPUs with
    which the guest is tested; if ``cpu_counts`` is empty, the guest is tested with ``cpus`` CPUs.
    ``its`` is True if the guest needs an ITS.
    """

    name: str
    file: str
    cpus: int = 1
    summary: str = ""
    expect: str = "pass"
    qemu: bool = False
    script: Script | None = None
    gics: tuple[int, ...] = (3,)
    cpu_counts: tuple[int, ...] = ()
    its: bool = False

    @property
    def setups(self) -> list[Setup]:
        """All machine configurations with which the guest is tested."""
        return [Setup(gic, cpus) for gic in self.gics for cpus in self.cpu_counts or (self.cpus,)]

    def cpus_or(self, asked: int | None) -> int:
        """The number of CPUs for the guest: ``asked``, or the default of the guest if ``asked`` is
        None. UserError if ``asked`` is greater than the greatest number in ``cpu_counts``, because
        the guest's per-CPU arrays have this number of elements.

        A guest without ``cpu_counts`` accepts any number of CPUs. Such a guest leaves the CPUs that
        it does not need powered off.
        """
        most = max(self.cpu_counts, default=None)
        if asked is not None and most is not None and asked > most:
            raise UserError(
                f"{self.name} was made for 1 to {most} CPUs, not for {asked}; give it fewer"
            )
        return self.cpus if asked is None else asked

    @property
    def path(self) -> Path:
        """``file`` as a Path."""
        from pathlib import Path

        return Path(self.file)


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML into plain data. ValueError (a TOMLDecodeError) for text that is not TOML; the
    message has the position."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    document: dict[str, Any] = tomllib.loads(text)
    return document


def guests(folder: str | Path = FOLDER) -> dict[str, Guest]:
    """The bundled guests by name, in the order of the manifest (``guests.toml`` in ``folder``)."""
    rows = parse_toml(_manifest(folder)).get("guest", [])
    return {row["name"]: _guest(folder, row) for row in rows}


def _manifest(folder: str | Path) -> str:
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _bundled(name: str) -> Guest | None:
    """The bundled guest of this name; None for an unknown name. If `plain_row` can read the data of
    the guest, the TOML parser is not imported, because this import takes time."""
    row = plain_row(_manifest(FOLDER), name)
    return guests().get(name) if row is None else _guest(FOLDER, row)


def plain_row(manifest: str, name: str) -> dict[str, Any] | None:
    """Read the table [[guest]] of one guest without a TOML parser. ``name`` is the name of the
    guest. ``manifest`` is the text of the manifest. None if there is no such table, or if a value
    in the table is not a plain string, number or boolean."""
    for block in manifest.split("[[guest]]\n")[1:]:
        pairs = [line.partition(" = ") for line in block.splitlines() if line]
        row = {key: _plain_value(text) for key, _, text in pairs}
        if row.get("name") == name:
            return None if None in row.values() else row
    return None


def _plain_value(text: str) -> str | int | None:
    """Parse a TOML value that is a boolean, a decimal number without sign, or a string in double
    quotes without escapes. None for any other value."""
    if text in ("true", "false"):
        return text == "true"
    if text.isdecimal():
        return int(text)
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if quoted and '"' not in text[1:-1] and "\\" not in text else None


def _guest(folder: str | Path, row: dict[str, Any]) -> Guest:
    return Guest(
        row["name"],
        os.path.join(folder, row["file"]),
        row.get("cpus", 1),
        row.get("summary", ""),
        row.get("expect", "pass"),
        row.get("qemu", False),
        _script(row),
        tuple(int(gic) for gic in row.get("gics", ["3"])),
        tuple(row.get("cpu_counts", [])),
        row.get("its", False),
    )


def _script(row: dict[str, Any]) -> Script | None:
    if not row.get("script"):
        return None
    from armvirt.script import Script

    return Script.from_pairs(row["script"])


def resolve(image: str | Path) -> Path:
    """Return the path of a guest's file. If ``image`` is a `Path`, the result is this path.
    Otherwise ``image`` is a text: a path or the name of a bundled guest (see `find`)."""
    return find(image).path if isinstance(image, str) else image


def find(text: str) -> Guest:
    """Find the guest that ``text`` names. ``text`` is a path if there is a file with this path, or
    if ``text`` is "-" or has a slash or a file suffix. Any other text is the name of a bundled
    guest. UserError for an unknown name."""
    stem, suffix = os.path.splitext(os.path.basename(text))
    if text == STDIN or "/" in text or suffix or os.path.exists(text):
        # A name with a slash or suffix is a path even if the file is missing: the loader reports
        # the error.
        return Guest(stem or text, text)
    if guest := _bundled(text):
        return guest
    raise UserError(
        f"{text}: there is no such file and no bundled guest of that name; {_suggestion(text, list(guests()))}"
    )


def _suggestion(text: str, names: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "armvirt list shows the bundled ones"
