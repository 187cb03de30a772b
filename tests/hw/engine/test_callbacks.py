"""An exception that a callback raises in any hook leaves `Engine.run` with its traceback."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

import pytest
from asm import Asm

from armvirt.errors import EngineError
from armvirt.hw.engine import Action, Leave
from armvirt.hw.engine.state import EVENTS
from engine.bench import CNTV_CTL, DAIF, EL1H, HCR, IAR1, RAM, STOP, Bench

MakeBench = Callable[..., Bench]


class Broken(Exception):
    """What the callbacks of the tests raise."""


def raiser(message: str) -> Callable[..., int]:
    def broken_callback(*_: object) -> int:
        raise Broken(message)

    return broken_callback


def everything() -> Asm:
    """Uses every callback, twice."""
    program = Asm()
    for _ in range(2):
        program.nop()
        program.wfi()
        program.mrs(1, IAR1)
        program.mrs(2, CNTV_CTL)
        program.sys("TLBI VMALLE1IS")
        program.sys("IC IALLUIS")
        program.svc(1)
        program.nop()
    program.hvc(STOP)
    program.vectors(lambda a, offset: a.eret())
    return program


def prepare(make: MakeBench) -> Bench:
    program = everything()
    guest = make(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.engine.state.broadcast = 1
    return guest


@pytest.mark.parametrize(
    "method", ["el2_exit", "undefined", "timer_access", "entries", "broadcast"]
)
def test_an_exception_surfaces_with_its_traceback(bench: MakeBench, method: str) -> None:
    guest = prepare(bench)
    whole = getattr(guest.callbacks, method)
    setattr(guest.callbacks, method, raiser(method))
    with pytest.raises(Broken, match=method) as caught:
        guest.run()
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "broken_callback" and "run" in frames
    setattr(guest.callbacks, method, whole)
    assert guest.run() == Leave.STOP, "the engine survives it, and the error is told once"
    assert guest.callbacks.log[-1][0] in ("el2", "entry")


@pytest.mark.parametrize("method", ["el2_exit", "undefined", "timer_access", "broadcast"])
def test_the_guest_stops_where_the_error_was(bench: MakeBench, method: str) -> None:
    """Nothing of the guest runs behind a broken callback but what its block still holds."""
    guest = prepare(bench)
    setattr(guest.callbacks, method, raiser(method))
    with pytest.raises(Broken):
        guest.run()
    assert guest.count <= 6 and guest.engine.pc < RAM + 4 * 8


def poll_soon(guest: Bench) -> None:
    """Make the next look at the host's clock find that its time has come."""
    guest.engine.state.poll_ns = 0


def endless() -> Asm:
    program = Asm()
    program.label("loop")
    for _ in range(200):
        program.nop()
    program.b("loop")
    return program


def test_an_exception_of_a_poll(bench: MakeBench) -> None:
    guest = bench(endless())
    poll_soon(guest)
    guest.callbacks.poll = raiser("poll")  # type: ignore[method-assign,assignment]
    with pytest.raises(Broken, match="poll"):
        guest.run(1 << 40)
    assert guest.count < 4_000_000


def test_a_poll_may_stop_the_run(bench: MakeBench) -> None:
    """A guest that never exits comes back to Python all the same, at a point that changes
    nothing."""
    guest = bench(endless())
    poll_soon(guest)
    guest.callbacks.stop_on_poll = True
    assert guest.run(1 << 40) == Leave.STOP
    assert guest.callbacks.polls == 1
    blocks, rest = divmod(guest.count, 201)
    assert blocks > 10 and rest == 0 and guest.engine.pc == RAM, "at the start of a block"
    guest.callbacks.stop_on_poll = False  # on a loaded host a second poll is due at once
    assert guest.run(guest.count + 500) == Leave.BUDGET


def test_keyboard_interrupts_are_no_different(bench: MakeBench) -> None:
    guest = prepare(bench)

    def interrupted() -> int:
        raise KeyboardInterrupt

    guest.callbacks.undefined = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        guest.run()


def test_the_first_of_several_errors_is_told(bench: MakeBench) -> None:
    """The exit fails, then the entries that were waiting cannot be handed over either."""
    program = Asm()
    program.svc(1)
    program.hvc(1)
    program.vectors(lambda a, offset: a.eret())
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.callbacks.entries = raiser("entries")  # type: ignore[method-assign,assignment]
    guest.callbacks.el2_exit = raiser("exit")  # type: ignore[method-assign]
    with pytest.raises(Broken, match="entries"):
        guest.run()
    del guest.callbacks.entries, guest.callbacks.el2_exit
    guest.run(guest.count)


def many_entries(guest: Bench) -> Iterator[object]:
    for line in guest.callbacks.of("entry"):
        yield line[4]


def test_entries_are_handed_over_in_order_and_in_batches(bench: MakeBench) -> None:
    """More entries than the buffer holds, without an exit in between: none is lost, none is told
    twice."""
    program = Asm()
    program.mov(1, 3 * EVENTS + 7)
    program.label("loop")
    program.svc(1)
    program.subs_imm(1, 1, 1)
    program.b_cond(1, "loop")
    program.hvc(STOP)
    program.vectors(lambda a, offset: a.eret())
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.run()
    counts = list(many_entries(guest))
    assert counts == [1 + 4 * i for i in range(3 * EVENTS + 7)]


def test_an_exception_while_a_full_buffer_is_handed_over(bench: MakeBench) -> None:
    program = Asm()
    program.label("loop")
    program.svc(1)
    program.b("loop")
    program.vectors(lambda a, offset: a.eret())
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.callbacks.entries = raiser("entries")  # type: ignore[method-assign,assignment]
    with pytest.raises(Broken, match="entries"):
        guest.run(1 << 20)
    assert guest.count < 3 * (EVENTS + 8)


def test_without_a_trace_no_entries_are_told(bench: MakeBench) -> None:
    guest = prepare(bench)
    guest.engine.state.trace = 0
    guest.run()
    assert not guest.callbacks.of("entry")


def test_a_fault_of_the_core_is_an_engine_error(bench: MakeBench) -> None:
    """Running off the end of what is mapped, without a stage 2 to catch it, is our fault, not the
    guest's."""
    program = Asm()
    program.mov(1, RAM + (1 << 24))
    program.br(1)
    guest = bench(program)
    with pytest.raises(EngineError, match=r"failed at pc 0x41000000 .*FETCH_UNMAPPED"):
        guest.run()


ANSWERS: dict[str, tuple[int, int, int]] = {
    "retry": (Action.RETRY, 0, 0),
    "advance": (Action.ADVANCE, 1, 0),
    "answer": (Action.WRITE_RT | Action.ADVANCE, 1, 0x1234),
}


@pytest.mark.parametrize(("action", "steps", "value"), ANSWERS.values(), ids=ANSWERS)
def test_answers_of_an_exit(bench: MakeBench, action: int, steps: int, value: int) -> None:
    """RETRY leaves PC and count, ADVANCE moves both by one, WRITE_RT fills the register that the
    syndrome names."""
    program = Asm()
    program.mrs(5, "ID_AA64PFR0_EL1")
    program.hvc(STOP)
    guest = bench(program, hcr=HCR | 1 << 18)

    def answer() -> int:
        assert guest.engine.state.rt == 5
        guest.engine.state.rt_value = 0x1234
        return action | Action.STOP

    guest.callbacks.el2_exit = answer  # type: ignore[method-assign]
    assert guest.run() == Leave.STOP
    assert (guest.engine.pc, guest.count, guest.x(5)) == (RAM + 4 * steps, steps, value)


def test_a_write_to_xzr_is_dropped(bench: MakeBench) -> None:
    program = Asm()
    program.mrs(31, "ID_AA64PFR0_EL1")
    program.mrs(31, IAR1)
    program.from_sp(1)
    program.hvc(STOP)
    guest = bench(program, hcr=HCR | 1 << 18)
    guest.callbacks.el2_exit = lambda: (  # type: ignore[method-assign]
        Action.WRITE_RT | Action.ADVANCE if guest.engine.state.esr >> 26 == 0x18 else Action.STOP
    )
    guest.engine.state.virq = 1
    sp = guest.engine.sp
    guest.run()
    assert guest.x(1) == sp and guest.engine.sp == sp


def test_a_fresh_engine_is_quiet(bench: MakeBench) -> None:
    """Nothing happens before the first run; close may be called twice."""
    guest = bench(None)
    assert guest.count == 0 and guest.engine.pstate == DAIF | EL1H
    assert not guest.engine.state.stop and not guest.callbacks.log
    guest.engine.close()
    guest.engine.close()


def test_a_stop_asked_for_before_the_run(bench: MakeBench) -> None:
    guest = bench(endless())
    guest.engine.state.stop = 1
    assert guest.run() == Leave.STOP and guest.count == 0
    assert guest.run(10) == Leave.BUDGET and guest.count == 10
