"""Limits of host time and signals: where they end a run, and that the run can go on afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from armvirt.cli.interrupt import signals
from armvirt.errors import LimitError
from armvirt.machine import Machine
from armvirt.machine.watch import Watch


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as in a program at a terminal, whatever this test run has inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def soon(number: int, after_s: float = 0.1) -> None:
    threading.Timer(after_s, os.kill, (os.getpid(), number)).start()


def test_a_request_waits_for_the_end_of_the_block() -> None:
    watch, seen = Watch(), []
    with pytest.raises(KeyboardInterrupt):
        with watch:
            watch.request(KeyboardInterrupt())
            seen.append(watch.requested)
    assert seen == [True] and not watch.requested and not watch.held
    with watch:
        pass  # and is obeyed once


def test_a_second_request_does_not_wait() -> None:
    watch = Watch()
    with pytest.raises(KeyboardInterrupt), watch:
        watch.request(KeyboardInterrupt())
        watch.request(KeyboardInterrupt())
        pytest.fail("it should not come here")


def test_outside_of_a_block_nothing_waits() -> None:
    with pytest.raises(SystemExit):
        Watch().request(SystemExit(143))


def test_ctrl_c_leaves_a_machine_that_can_run_on(ctrl_c: None) -> None:
    """Stopped where nothing changes: the rest of the run is the same to the bit."""
    machine = Machine("bench-smp8")
    for n in range(1, 5):
        with pytest.raises(KeyboardInterrupt):
            soon(signal.SIGINT, 0.02 * n)
            while True:
                assert machine.run_until(ns=machine.ns + 10_007) is None, (
                    "it ends before it is stopped"
                )
    end = machine.ns + 100_003
    stopped, straight = machine.run(max_time_ns=end), Machine("bench-smp8").run(max_time_ns=end)
    assert stopped._replace(recent=()) == straight._replace(recent=())


def test_python_gets_its_handler_back(ctrl_c: None) -> None:
    Machine("hello").run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_limit_counts_from_the_making_of_the_watch() -> None:
    machine = Machine("smp-lock", watch=Watch(0.0))
    result = machine.run()
    assert (result.verdict, result.insns) == ("limit", 0)
    assert result.diagnosis == "host time of 0.0 s is over"


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)]
)
def test_signals_raise_where_no_guest_runs(number: int, error: type[BaseException]) -> None:
    with pytest.raises(error) as raised, signals(Watch()):
        soon(number)
        time.sleep(30)
    assert getattr(raised.value, "code", None) == 128 + number


def test_the_limit_ends_what_is_no_run() -> None:
    with pytest.raises(LimitError, match="host time of 100 ms is over"), signals(Watch(0.1)):
        time.sleep(30)


def test_a_run_that_does_not_look_is_left() -> None:
    """Nothing looks at the clock while an output blocks: the alarm does."""
    watch = Watch(0.1)
    with pytest.raises(LimitError), signals(watch) as taken:
        with watch:
            time.sleep(30)
    assert taken.forced


def test_an_exception_that_was_lost_ends_the_run_that_follows(ctrl_c: None) -> None:
    """In a callback of Python's own (weak references, ctypes) an exception is printed and lost. The
    run is asked to end then, for what is raised at the first instruction of an engine's callback
    would be lost again."""
    with pytest.raises(KeyboardInterrupt), signals(Watch()) as taken:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        Machine("bench-smp8", watch=taken.watch).run(timeout_s=60)
        pytest.fail("it should not come here")
    assert not taken.forced


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals(Watch()):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
