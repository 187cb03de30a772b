"""The trace hash is the hash of the text that its documentation describes."""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import ClassVar, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt import events
from armvirt.events import Acknowledge, Console, Event, Hypercall, Stamp, TimerWrite
from armvirt.trace.hash import CANONICAL, HashSink, line

NO_STATE = hashlib.sha256().hexdigest()
U64 = st.integers(0, (1 << 64) - 1)
STAMPS = st.builds(Stamp, U64, U64, st.integers(-1, 63), U64)
EVENTS = st.one_of(
    st.builds(Acknowledge, st.integers(0, 1023)),
    st.builds(
        TimerWrite, st.sampled_from(["vtimer", "ptimer"]), st.sampled_from(["ctl", "cval"]), U64
    ),
    st.builds(Hypercall, U64, st.tuples(U64, U64), U64),
    st.builds(Console, st.sampled_from(["tx", "rx"]), st.integers(0, 255)),
)
RUNS = st.lists(st.tuples(STAMPS, EVENTS), max_size=30)


def digest(run: list[tuple[Stamp, Event]], state: bytes = b"") -> str:
    sink = HashSink()
    for stamp, event in run:
        sink(stamp, event)
    return sink.finish(state)


def test_the_documented_text() -> None:
    run: list[tuple[Stamp, Event]] = [
        (Stamp(1500, 9, 0, 0x4020_0ABC), TimerWrite("vtimer", "cval", 0xF55D)),
        (Stamp(1600, 9, -1, 0), Hypercall(0x8400_0008, (1, 2), 0)),
    ]
    text = (
        "armvirt-trace 1\n"
        '1500 0 40200abc timer-write "vtimer" "cval" 62813 "timer-write"\n'
        '1600 -1 0 hypercall 2214592520 [1,2] 0 "hypercall"\n'
        f"state {hashlib.sha256(b'ram').hexdigest()}\n"
    )
    assert digest(run, b"ram") == hashlib.sha256(text.encode()).hexdigest()


def test_an_empty_run() -> None:
    assert digest([]) == hashlib.sha256(f"armvirt-trace 1\nstate {NO_STATE}\n".encode()).hexdigest()


def test_every_declared_event_is_canonical_or_for_people_only() -> None:
    declared = [value for value in vars(events).values() if hasattr(value, "_field_defaults")]
    kinds = {value._field_defaults["kind"] for value in declared if "kind" in value._fields}
    assert kinds - CANONICAL == {"icc-write", "polled-wait"} and kinds >= CANONICAL


def test_other_kinds_do_not_count() -> None:
    class Remark(NamedTuple):
        text: str
        kind: ClassVar[str] = "remark"  # type: ignore[valid-type]

    stamp = Stamp(1, 1, 0, 0)
    assert digest([(stamp, Remark("x")), (stamp, Acknowledge(27))]) == digest(
        [(stamp, Acknowledge(27))]
    )  # type: ignore[list-item]


def test_enumerations_and_booleans_are_their_numbers() -> None:
    class Ppi(IntEnum):
        VTIMER = 27

    stamp = Stamp(1, 1, 0, 0)
    assert line(stamp, Acknowledge(Ppi.VTIMER)) == line(stamp, Acknowledge(27))
    assert line(stamp, Acknowledge(True)) == line(stamp, Acknowledge(1))


def test_a_field_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="neither number, text nor tuple"):
        line(Stamp(1, 1, 0, 0), Acknowledge(1.5))  # type: ignore[arg-type]


@given(RUNS, RUNS)
def test_runs_differ_if_and_only_if_what_is_hashed_differs(
    one: list[tuple[Stamp, Event]], two: list[tuple[Stamp, Event]]
) -> None:
    seen = [[(s.ns, s.vcpu, s.pc, type(e), tuple(e)) for s, e in run] for run in (one, two)]
    assert (digest(one) == digest(two)) == (seen[0] == seen[1])


@given(RUNS, RUNS)
def test_finish_may_be_called_on_the_way(
    one: list[tuple[Stamp, Event]], two: list[tuple[Stamp, Event]]
) -> None:
    sink = HashSink()
    for stamp, event in one:
        sink(stamp, event)
    assert sink.finish(b"s") == digest(one, b"s")
    for stamp, event in two:
        sink(stamp, event)
    assert sink.finish(b"t") == digest(one + two, b"t")


def test_long_runs_are_hashed_in_pieces_with_the_same_result() -> None:
    run: list[tuple[Stamp, Event]] = [
        (Stamp(n, n, 0, n), Acknowledge(n % 1024)) for n in range(2000)
    ]
    text = "armvirt-trace 1\n" + "".join(line(*pair) for pair in run) + f"state {NO_STATE}\n"
    assert digest(run) == hashlib.sha256(text.encode()).hexdigest()
