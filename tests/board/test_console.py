"""The console: a script that answers the guest by guest time, typed input, saved state."""

from __future__ import annotations

import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.board.console import Console
from armvirt.events import Console as ConsoleEvent
from armvirt.events import Event, EventBus, Stamp
from armvirt.hw.clock import Clock


class Line:
    """A console with a clock, and a device that takes input when it is told of some."""

    def __init__(self) -> None:
        self.bus, self.clock = EventBus(), Clock()
        self.console = Console()
        self.ended = 0
        self.told = 0
        self.console.receivers.append(self._told)
        self.console.attach(self.bus, self.clock, self._end)

    def _told(self) -> None:
        self.told += 1

    def _end(self) -> None:
        self.ended += 1

    def say(self, text: str) -> None:
        for byte in text.encode():
            self.console.transmit(byte)

    def pass_time(self, ns: int) -> None:
        self.clock.advance_to(self.clock.now + ns)
        self.clock.run_due()

    def typed(self) -> str:
        """Everything that the guest can read now."""
        received = bytearray()
        while (byte := self.console.receive()) is not None:
            received.append(byte)
        return received.decode()


@pytest.fixture
def line() -> Line:
    return Line()


def test_output_is_kept(line: Line) -> None:
    line.say("hello")
    assert line.console.output == b"hello"


def test_input_waits_for_its_text(line: Line) -> None:
    line.console.expect("login: ").send("root\n")
    assert line.console.waiting_for == b"login: "
    line.say("login:")
    assert line.typed() == "" and line.told == 0
    line.say(" ")
    assert line.told == 1 and line.typed() == "root\n" and line.console.waiting_for is None


def test_input_without_a_text_to_wait_for(line: Line) -> None:
    line.console.send("a").send(b"\xff")
    assert line.told == 2
    assert [line.console.receive() for _ in range(3)] == [0x61, 0xFF, None]


def test_a_text_that_has_come_already(line: Line) -> None:
    line.say("ready> ")
    line.console.expect("ready").send("x")
    assert line.typed() == "x"


def test_each_text_is_looked_for_after_the_last(line: Line) -> None:
    """Two prompts are two prompts."""
    line.console.expect("> ").send("1").expect("> ").send("2")
    line.say("> ")
    assert line.typed() == "1"
    line.say("1\n> ")
    assert line.typed() == "2"


def test_overlapping_texts(line: Line) -> None:
    """What was matched is not matched again: "aa" is twice in "aaaa", not three times."""
    line.console.expect("aa").send("1").expect("aa").send("2").expect("aa").send("3")
    line.say("aaaa")
    assert line.typed() == "12"
    line.say("aa")
    assert line.typed() == "3"


def test_several_steps_by_one_byte(line: Line) -> None:
    line.say("one two three")
    line.console.expect("three!").send("a").send("b").expect("!").send("c")
    line.say("!")
    assert line.typed() == "ab"
    line.say("!")
    assert line.typed() == "c"


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=5), st.text("ab", max_size=30))
def test_a_script_is_a_search(texts: list[str], output: str) -> None:
    """As many texts are found as a search from left to right finds, whenever the steps are
    given."""
    before, after = Line(), Line()
    for number, text in enumerate(texts):
        before.console.expect(text).send(str(number))
    before.say(output)
    after.say(output)
    for number, text in enumerate(texts):
        after.console.expect(text).send(str(number))
    at, expected = 0, ""
    for number, text in enumerate(texts):
        found = output.find(text, at)
        if found < 0:
            break
        at, expected = found + len(text), expected + str(number)
    assert before.typed() == after.typed() == expected


# -- time limits --


def test_in_time(line: Line) -> None:
    line.console.expect("a", timeout_ns=100).expect("b")
    line.pass_time(99)
    line.say("a")
    line.pass_time(1000)
    assert not line.console.expired and line.ended == 0 and line.clock.deadline() is None


def test_in_vain(line: Line) -> None:
    line.console.expect("a", timeout_ns=100)
    line.pass_time(100)
    assert line.console.expired and line.ended == 1 and line.console.waiting_for == b"a"


def test_the_time_counts_from_the_step_before(line: Line) -> None:
    line.console.expect("a").expect("b", timeout_ns=100)
    line.pass_time(1000)
    line.say("a")
    line.pass_time(99)
    assert not line.console.expired
    line.pass_time(1)
    assert line.console.expired


def test_each_step_has_its_own_limit(line: Line) -> None:
    line.console.expect("a", timeout_ns=100).expect("b", timeout_ns=300).expect("c", timeout_ns=50)
    line.pass_time(90)
    line.say("a")
    line.pass_time(290)
    line.say("b")
    line.pass_time(49)
    assert not line.console.expired
    line.pass_time(1)
    assert line.console.expired and line.ended == 1


def test_a_script_given_before_there_is_a_clock() -> None:
    """The board attaches its clock later; the time counts from then."""
    console, clock = Console(), Clock()
    console.expect("a", timeout_ns=100)
    clock.advance_to(50)
    console.attach(EventBus(), clock, lambda: None)
    assert clock.deadline() == 150


# -- typed input --


def test_typed_input_comes_after_scripted(line: Line) -> None:
    line.console.feed(b"typed")
    line.console.send("script ")
    assert line.console.fed
    assert line.typed() == "script typed"
    assert not line.console.fed


def test_feeding_from_another_thread(line: Line) -> None:
    thread = threading.Thread(target=line.console.feed, args=(b"x",))
    thread.start()
    assert line.console.arrived.wait(10)
    thread.join()
    assert line.console.receive() == ord("x")


def test_whether_input_will_come(line: Line) -> None:
    console = line.console
    assert console.closed
    console.interactive = True
    assert not console.closed
    console.interactive = False
    console.expect("a").send("b")
    assert not console.closed
    line.say("a")
    assert not console.closed and line.typed() == "b" and console.closed
    console.feed(b"c")
    assert not console.closed


# -- who listens --


def test_events(line: Line) -> None:
    seen: list[Event] = []

    def sink(stamp: Stamp, event: Event) -> None:
        seen.append(event)

    line.say("-")
    line.bus.subscribe(sink)
    line.say("t")
    line.console.send("r")
    line.typed()
    assert seen == [ConsoleEvent("tx", ord("t")), ConsoleEvent("rx", ord("r"))]


def test_a_listener_hears_each_byte(line: Line) -> None:
    heard: list[bytes] = []
    line.console.listeners.append(heard.append)
    line.say("ab")
    assert heard == [b"a", b"b"]


# -- state --


def test_state() -> None:
    """In the middle of a conversation, with a time limit running."""
    line, other = Line(), Line()
    line.console.expect("a").send("xyz").expect("b", timeout_ns=100).send(b"\x80")
    line.say("a")
    assert line.console.receive() == ord("x")
    line.pass_time(60)
    state = json.loads(json.dumps(line.console.state()))
    other.clock.load(line.clock.state())
    other.console.load(state)
    assert other.console.state() == state == line.console.state()
    assert other.console.output == b"a" and other.typed() == "yz"
    other.pass_time(39)
    assert not other.console.expired
    other.say("b")
    assert other.console.receive() == 0x80
    other.pass_time(1000)
    assert not other.console.expired


def test_going_back(line: Line) -> None:
    """Output after the saved moment is taken back."""
    line.console.expect("a").send("1")
    state = line.console.state()
    line.say("a")
    line.console.load(state)
    assert line.console.output == b"" and line.console.waiting_for == b"a" and line.typed() == ""
    line.say("a")
    assert line.typed() == "1"


def test_a_text_that_never_comes_costs_no_more_with_a_longer_output() -> None:
    """Only the end of the output can complete a text; looking through all of it at each byte would
    take minutes."""
    console = Console()
    console.expect(b"ba").send("x")
    began = time.process_time()
    for _ in range(300_000):
        console.transmit(ord("a"))
    assert time.process_time() - began < 20
    assert console.waiting_for == b"ba"
    for byte in b"ba":
        console.transmit(byte)
    assert console.waiting_for is None


@pytest.mark.parametrize("texts", [(b"aa", b"aa"), (b"aaa",), (b"a", b"a", b"a")])
def test_no_byte_is_used_for_two_texts(texts: tuple[bytes, ...]) -> None:
    console = Console()
    for text in texts:
        console.expect(text)
    total = sum(map(len, texts))
    for n in range(total):
        assert console.waiting_for is not None, n
        console.transmit(ord("a"))
    assert console.waiting_for is None
