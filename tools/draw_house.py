"""Draws docs/house.svg, the floors and rooms of armvirt, from docs/house.txt.

A line of the text without indentation is a floor, ``name: description``; an indented line is a room
of the floor above, ``path: content``. Paths are relative to armvirt/. Without an argument the
picture is written. ``--check`` tells whether the picture is up to date and every room exists.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
TEXT, PICTURE = ROOT / "docs" / "house.txt", ROOT / "docs" / "house.svg"
WIDTH, MARGIN, GAP = 960, 12, 8
COLUMNS, ROOM_HEIGHT, TITLE_HEIGHT = 4, 46, 30
TEXT_COLUMNS = 33  # characters of the second line of a room
FILL = {
    "floor": "#f4f1ea",
    "room": "#ffffff",
    "line": "#8a8272",
    "text": "#22201c",
    "dim": "#5d574c",
}


class Room(NamedTuple):
    """A package or module of armvirt: its path and its content."""

    path: str
    holds: str


class Floor(NamedTuple):
    """A floor: its name, its description and its rooms."""

    name: str
    holds: str
    rooms: list[Room]

    @property
    def height(self) -> int:
        rows = -(-len(self.rooms) // COLUMNS)
        return TITLE_HEIGHT + rows * (ROOM_HEIGHT + GAP) + GAP


def read(text: str) -> list[Floor]:
    """The floors that ``text`` describes, top floor first."""
    floors: list[Floor] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        name, _, holds = line.partition(":")
        if line[0].isspace():
            floors[-1].rooms.append(Room(name.strip(), holds.strip()))
        else:
            floors.append(Floor(name.strip(), holds.strip(), []))
    return floors


def draw(floors: list[Floor]) -> str:
    """The picture, as SVG."""
    height = MARGIN + sum(floor.height + GAP for floor in floors)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        "<title>Floors and rooms of armvirt: imports go down only</title>",
    ]
    top = MARGIN
    for floor in floors:
        parts += _floor(floor, top)
        top += floor.height + GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


def _floor(floor: Floor, top: int) -> list[str]:
    parts = [
        _box(MARGIN, top, WIDTH - 2 * MARGIN, floor.height, "floor"),
        _words(MARGIN + GAP, top + 20, floor.name, 15, "text", bold=True),
        _words(MARGIN + 90, top + 20, floor.holds, 13, "dim"),
    ]
    width = (WIDTH - 2 * MARGIN - GAP) // COLUMNS - GAP
    for n, room in enumerate(floor.rooms):
        row, column = divmod(n, COLUMNS)
        left = MARGIN + GAP + column * (width + GAP)
        upper = top + TITLE_HEIGHT + row * (ROOM_HEIGHT + GAP)
        parts += [
            _box(left, upper, width, ROOM_HEIGHT, "room"),
            _words(left + 8, upper + 18, room.path, 13, "text", bold=True),
            _words(left + 8, upper + 36, room.holds, 11, "dim"),
        ]
    return parts


def _box(x: int, y: int, width: int, height: int, kind: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" '
        f'fill="{FILL[kind]}" stroke="{FILL["line"]}"/>'
    )


def _words(x: int, y: int, text: str, size: int, colour: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{FILL[colour]}"{weight}>'
        f"{escape(text)}</text>"
    )


def problems(floors: list[Floor], picture: str, root: Path) -> list[str]:
    """The errors in the text and the picture, compared with the tree below ``root``."""
    found = [] if picture == draw(floors) else [f"{PICTURE.name} is not current: run this tool"]
    drawn = {room.path for floor in floors for room in floor.rooms}
    for path in sorted(drawn):
        if not (root / path).exists():
            found.append(f"{path} is drawn and does not exist")
    for floor in floors:
        for room in floor.rooms:
            if len(room.holds) > TEXT_COLUMNS:
                found.append(f"{room.path}: more than {TEXT_COLUMNS} characters")
    for package in sorted(root.rglob("__init__.py")):
        path = package.parent.relative_to(root).as_posix()
        parents = {path, *(parent.as_posix() for parent in Path(path).parents)}
        if path != "." and not parents & {each.rstrip("/") for each in drawn}:
            if not any(each.startswith(f"{path}/") for each in drawn):
                found.append(f"{path} exists and is not drawn")
    return found


def main() -> int:
    floors = read(TEXT.read_text())
    if "--check" in sys.argv[1:]:
        found = problems(floors, PICTURE.read_text(), ROOT / "armvirt")
        print("\n".join(found) or "the picture is current")
        return int(bool(found))
    PICTURE.write_text(draw(floors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
