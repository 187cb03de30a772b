"""The picture of the floors and rooms agrees with the code."""

from __future__ import annotations

from draw_house import PICTURE, ROOT, TEXT, Floor, Room, draw, problems, read

ARMVIRT = ROOT / "armvirt"


def test_the_picture_shows_the_rooms_that_there_are() -> None:
    assert problems(read(TEXT.read_text()), PICTURE.read_text(), ARMVIRT) == []


def test_a_room_too_many_a_room_too_few_and_an_old_picture() -> None:
    floors = [floor for floor in read(TEXT.read_text()) if floor.name != "board"]
    floors.append(Floor("roof", "", [Room("attic", "nothing")]))
    found = problems(floors, PICTURE.read_text(), ARMVIRT)
    assert "house.svg is not current: run this tool" in found
    assert "attic is drawn and does not exist" in found
    assert "board/virt exists and is not drawn" in found


def test_text_of_the_house_cannot_become_markup() -> None:
    assert "<b>" not in draw([Floor("<b>", "a & b", [Room("<b>", "<b>")])])
