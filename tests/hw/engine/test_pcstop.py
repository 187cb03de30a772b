"""A stop before the instruction at one address: at the exact instruction, in both engines, without
a change of the run."""

from __future__ import annotations

import pytest

from armvirt.hw.engine import EngineFactory, Leave
from armvirt.hw.engine.breakpoint import PcStop, RangeStop
from engine.bench import Bench, same
from engine.programs import compose, run_on, set_up
from engine.test_exactness import RICH

END = 20_000


@pytest.fixture(scope="module")
def first_visits(factory: EngineFactory) -> dict[int, int]:
    """The count at which each PC of the rich program is first about to execute, by stopping at
    every count."""
    guest = ready(factory)
    visits: dict[int, int] = {}
    for count in range(END):
        # an entry by the engine itself may be one past; a misaligned PC has no instruction
        if guest.count == count and not guest.engine.pc % 4:
            visits.setdefault(guest.engine.pc, count)
        if run_on(guest, count + 1) == Leave.STOP:
            break
    guest.close()
    return visits


def ready(factory: EngineFactory) -> Bench:
    guest = set_up(factory, compose(RICH))
    guest.engine.watch_wfe()
    return guest


def test_every_address_of_a_rich_program(
    factory: EngineFactory, first_visits: dict[int, int]
) -> None:
    """Blocks, exits, exceptions, EL0, the guest's own stepping: each address is met at its first
    count, and the run ends as if nobody had looked. The portable engine does a fifth of them."""
    reference = ready(factory)
    run_on(reference, END)
    pcs = sorted(first_visits)
    assert len(pcs) > 150
    for pc in pcs[:: 1 if factory.kind == "native" else 5]:
        guest = ready(factory)
        hits: list[int] = []
        stop = PcStop(guest.engine, pc, lambda guest=guest, hits=hits: hits.append(guest.count))  # type: ignore[misc]
        assert run_on(guest, END) == Leave.STOP and guest.engine.pc == pc, hex(pc)
        assert hits == [guest.count] == [first_visits[pc]], hex(pc)
        assert guest.run(END) == Leave.STOP and guest.engine.pc == pc, (
            "it holds while it is in place"
        )
        stop.remove()
        run_on(guest, END)
        same([reference.result(), guest.result()])
        guest.close()
    reference.close()


def test_an_address_that_is_not_reached(factory: EngineFactory) -> None:
    reference, guest = ready(factory), ready(factory)
    stop = PcStop(guest.engine, 0x4000_0FFC, lambda: pytest.fail("reached"))
    for each in (reference, guest):
        run_on(each, END)
    same([reference.result(), guest.result()])
    stop.remove()
    for each in (reference, guest):
        each.close()


def test_a_deadline_before_the_address(
    factory: EngineFactory, first_visits: dict[int, int]
) -> None:
    pc, count = max(first_visits.items(), key=lambda pair: pair[1])
    guest = ready(factory)
    PcStop(guest.engine, pc, lambda: None)
    for deadline in range(count - 5, count):
        assert run_on(guest, deadline) == Leave.BUDGET and guest.count == deadline
    assert guest.run(END) == Leave.STOP and (guest.engine.pc, guest.count) == (pc, count)
    guest.close()


def test_two_stops_in_one_block(factory: EngineFactory, first_visits: dict[int, int]) -> None:
    """Whichever was made first, each is met at its own count."""
    pairs = [(a, a + 4) for a in first_visits if first_visits.get(a + 4) == first_visits[a] + 1][
        :40
    ]
    assert len(pairs) > 20
    for first, second in pairs:
        for order in ((first, second), (second, first)):
            guest = ready(factory)
            stops = [PcStop(guest.engine, address, lambda: None) for address in order]
            assert run_on(guest, END) == Leave.STOP
            assert (guest.engine.pc, guest.count) == (first, first_visits[first]), (
                hex(first),
                order,
            )
            for stop in stops:
                stop.remove()
            guest.close()


def test_the_first_instruction_in_a_range(
    factory: EngineFactory, first_visits: dict[int, int]
) -> None:
    """For each page of the program that it enters from another one."""
    pages = {pc & -4096 for pc in first_visits}
    assert len(pages) > 1
    for page in pages:
        entry = min((count, pc) for pc, count in first_visits.items() if pc & -4096 == page)
        guest = ready(factory)
        if guest.engine.pc & -4096 == page:
            guest.close()
            continue
        stop = RangeStop(guest.engine, range(page, page + 4096), lambda: None)
        assert run_on(guest, END) == Leave.STOP
        assert (guest.count, guest.engine.pc) == entry
        stop.remove()
        guest.close()
