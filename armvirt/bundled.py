"""The guests that come with armvirt, and how the word GUEST becomes a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from armvirt.errors import UserError

if TYPE_CHECKING:
    from armvirt.script import Script

FOLDER = Path(__file__).with_name("guests")


class Guest(NamedTuple):
    """One guest: a bundled one with what its manifest says, or the user's file with nothing said.

    ``expect`` is how a run should end (pass, fail, stuck, limit); ``script`` what to type on the console.
    """

    name: str
    path: Path
    cpus: int = 1
    summary: str = ""
    expect: str = "pass"
    qemu: bool = False
    script: Script | None = None


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as plain data; ValueError (a TOMLDecodeError) says where it is malformed."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    document: dict[str, Any] = tomllib.loads(text)
    return document


def guests(folder: Path = FOLDER) -> dict[str, Guest]:
    """The bundled guests by name, in the manifest's order."""
    manifest = folder / "guests.toml"
    if not manifest.exists():
        return {}
    rows = parse_toml(manifest.read_text(encoding="utf-8")).get("guest", [])
    return {row["name"]: _guest(folder, row) for row in rows}


def _guest(folder: Path, row: dict[str, Any]) -> Guest:
    return Guest(
        row["name"],
        folder / row["file"],
        row.get("cpus", 1),
        row.get("summary", ""),
        row.get("expect", "pass"),
        row.get("qemu", False),
        _script(row),
    )


def _script(row: dict[str, Any]) -> Script | None:
    if not row.get("script"):
        return None
    from armvirt.script import Script

    return Script.from_pairs(row["script"])


def resolve(image: str | Path) -> Path:
    """The file that ``image`` means, see `find`. A `Path` object is always a path."""
    return image if isinstance(image, Path) else find(image).path


def find(text: str) -> Guest:
    """The guest that ``text`` means: a path if there is such a file or it looks like one, else a bundled name."""
    path = Path(text)
    looks_like_path = "/" in text or bool(path.suffix)
    if looks_like_path or path.exists():
        # A name with a slash or suffix is a path even when missing: the loader says so in its own words.
        return Guest(path.stem or text, path)
    known = guests()
    if text in known:
        return known[text]
    raise UserError(
        f"{text}: there is no such file and no bundled guest of that name; {_suggestion(text, list(known))}"
    )


def _suggestion(text: str, names: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "armvirt list shows the bundled ones"
