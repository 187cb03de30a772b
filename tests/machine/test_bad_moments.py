"""The API raises a clear error after `close`, in a sink and from another thread. A machine whose
sink has raised can go on."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from armvirt.errors import KvmError
from armvirt.events import Event, Stamp
from armvirt.hyp.kvm import (
    GuestDebug,
    HostMemory,
    InFlight,
    Kvm,
    MpState,
    Start,
    VcpuEvents,
    VgicGroup,
)
from armvirt.machine import Machine

PC = 0x6030_0000_0010_0040
KINDS = ("native", "portable")
INF = InFlight(True, None, ((1 << 64) - 1, 0, 0))

Call = Callable[[Machine], object]
#: Public methods that need the engines, or that may not be called while another thread is at work.
CALLS: dict[str, Call] = {
    "run": lambda m: m.run(max_insns=1 << 40),
    "run_until": lambda m: m.run_until(ns=m.ns + 5),
    "run_until pc": lambda m: m.run_until(pc=0x4020_0000),
    "explain": lambda m: m.explain(27),
    "state": lambda m: m.state(),
    "load": lambda m: m.load({}),
    "reset": lambda m: m.board.reset(),
    "host.run": lambda m: m.host.run(5),
    "vcpu.run": lambda m: m.board.vcpus[0].run(),
    "get_one_reg": lambda m: m.board.vcpus[0].get_one_reg(PC),
    "set_one_reg": lambda m: m.board.vcpus[0].set_one_reg(PC, 0),
    "get_reg_list": lambda m: m.board.vcpus[0].get_reg_list(),
    "init": lambda m: m.board.vcpus[0].init(),
    "start": lambda m: m.board.vcpus[0].start(Start(0, 0)),
    "translate": lambda m: m.board.vcpus[0].translate(0x4020_0000),
    "in_flight": lambda m: m.board.vcpus[0].in_flight(),
    "resume": lambda m: m.board.vcpus[0].resume(INF),
    "diagnose": lambda m: m.board.vm.diagnose(0, 27),
    "vm.state": lambda m: m.board.vm.state(),
    "vm.load": lambda m: m.board.vm.load({}),
    "kvm.state": lambda m: m.board.kvm.state(),
    "kvm.load": lambda m: m.board.kvm.load({}),
    "new slot": lambda m: m.board.vm.set_user_memory_region(7, 1 << 32, HostMemory(1 << 20)),
    "no slot": lambda m: m.board.vm.set_user_memory_region(0, 0x4000_0000, None, memory_size=0),
}  # fmt: skip
#: What touches no engine: harmless after `close`, but not while another thread runs.
LINES: dict[str, Call] = {
    "irq_line": lambda m: m.board.vm.irq_line(33, True),
    "signal_msi": lambda m: m.board.vm.signal_msi(0, 0, 0),
    "set_counter_offset": lambda m: m.board.vm.set_counter_offset(5),
    "set_mp_state": lambda m: m.board.vcpus[0].set_mp_state(MpState.SUSPENDED),
    "set_vcpu_events": lambda m: m.board.vcpus[0].set_vcpu_events(VcpuEvents(True)),
    "set_guest_debug": lambda m: m.board.vcpus[0].set_guest_debug(GuestDebug.ENABLE),
    "set_affinity": lambda m: m.board.vcpus[0].set_affinity((0,)),
}  # fmt: skip
#: What must not be called while the machine runs, in its own thread neither.
STANDING = (
    "run", "run_until", "run_until pc", "load", "reset", "host.run", "vcpu.run", "resume", "vm.load", "kvm.load",
)  # fmt: skip
#: What goes on to answer after `close`.
STAYS: dict[str, Call] = {
    "ns": lambda m: m.ns, "insns": lambda m: m.insns, "console": lambda m: m.console.output, "repr": repr,
    "symbols": lambda m: m.symbols, "gic": lambda m: str(m.gic), "dump_dtb": lambda m: m.dump_dtb(),
    "memory": lambda m: m.board.vm.read_memory(0x4020_0000, 4), "idle": lambda m: m.board.vm.why_idle(),
    "attribute": lambda m: m.board.gic.get_attr(VgicGroup.DIST_REGS, 0), "again": lambda m: m.close(),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_after_close(kind: str) -> None:
    machine = Machine("vtimer-tick", engine=kind)
    machine.run_until(ns=500_000)
    machine.close()
    for name, call in CALLS.items():
        with pytest.raises(KvmError, match="EBADF: the machine is closed"):
            pytest.fail(f"{name}: {call(machine)}")
    for call in STAYS.values():
        call(machine)


def test_a_result_stays() -> None:
    with Machine("hello") as machine:
        result = machine.run()
    assert machine.run() is result is machine.result


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_sink(kind: str) -> None:
    """Reading is allowed there; what would run, load or free what is in use is not."""
    refused: dict[str, str] = {}
    calls = {name: CALLS[name] for name in STANDING} | {"close": Machine.close}

    def sink(stamp: Stamp, event: Event) -> None:
        if stamp.ns < 1000 or refused:
            return
        for name, call in calls.items():
            try:
                refused[name] = f"no error: {call(machine)}"
            except KvmError as error:
                refused[name] = error.errno
        assert machine.board.vcpus[0].get_one_reg(PC) and machine.explain(27) and machine.state()

    with Machine("vtimer-tick", engine=kind, sinks=[sink]) as machine:
        assert machine.run().verdict == "pass"
    assert refused == dict.fromkeys(calls, "EBUSY")


@pytest.mark.parametrize("kind", KINDS)
def test_from_another_thread(kind: str) -> None:
    """While a thread is in the midst of an exit, and while it executes guest code."""
    there, enough = threading.Event(), threading.Event()
    ends: list[str] = []

    def sink(stamp: Stamp, event: Event) -> None:
        if event.kind == "gic-mmio" and not there.is_set():
            there.set()
            assert enough.wait(60)

    with Machine("vtimer-tick", engine=kind, sinks=[sink]) as machine:
        thread = threading.Thread(target=lambda: ends.append(machine.run().verdict))
        thread.start()
        assert there.wait(60)
        try:
            for name, call in {**CALLS, **LINES, "close": Machine.close}.items():
                with pytest.raises(KvmError, match="EBUSY"):
                    pytest.fail(f"{name}: {call(machine)}")
        finally:
            enough.set()
            thread.join()
    assert ends == ["pass"]


@pytest.mark.parametrize("kind", KINDS)
def test_from_another_thread_at_any_moment(kind: str) -> None:
    """Refused or served between two runs of the thread: it ends as it would have."""
    enough = threading.Event()
    ends: list[str] = []
    with Machine("runaway", engine=kind) as machine:

        def run() -> None:
            while not enough.is_set():
                ends.append(machine.run(max_insns=machine.insns + 200_000).verdict)

        thread = threading.Thread(target=run)
        thread.start()
        refused = 0
        for _ in range(300):
            for name in ("get_one_reg", "get_reg_list", "translate", "state", "diagnose"):
                try:
                    CALLS[name](machine)
                except KvmError as error:
                    refused += error.errno == "EBUSY"
        enough.set()
        thread.join()
        assert refused and machine.run(max_insns=machine.insns + 1000).verdict == "limit"
    assert set(ends) == {"limit"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guest", ["vtimer-tick", "hello"])
def test_running_on_after_a_sink_has_raised(kind: str, guest: str) -> None:
    """At every kind of event: the run goes on as if nobody had raised, up to the same trace
    hash."""
    with Machine(guest, engine=kind) as machine:
        straight = machine.run()
    seen: set[str] = set()

    def sink(stamp: Stamp, event: Event) -> None:
        if machine is not None and event.kind not in seen:
            seen.add(event.kind)
            raise LookupError(event.kind)

    machine = None
    with Machine(guest, engine=kind, sinks=[sink]) as machine:
        result, raised = None, 0
        while result is None:
            try:
                result = machine.run()
            except LookupError:
                raised += 1
        assert 4 <= raised <= len(seen)  # of several at one stop, the first is raised
        assert result._replace(recent=()) == straight._replace(recent=())


def test_running_on_after_the_consoles_watcher_has_raised() -> None:
    with Machine("hello") as machine:
        straight = machine.run()
    failing = [True]

    def on_output(data: bytes) -> None:
        if failing.pop() if failing else False:
            raise BrokenPipeError

    with Machine("hello") as machine:
        machine.console.listeners.append(on_output)
        with pytest.raises(BrokenPipeError):
            machine.run()
        assert machine.run()._replace(recent=()) == straight._replace(recent=())


def test_a_sink_that_raises_where_nothing_runs() -> None:
    def sink(stamp: Stamp, event: Event) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        Machine("hello", sinks=[sink])


def test_an_exit_is_not_lost_with_a_sinks_exception() -> None:
    """KVM_RUN has an exit to return, and an exception: the exit comes with the next call, and is
    answered once."""
    uart, ram = 0x0900_0000, 0x4000_0000
    kvm = Kvm()
    vm = kvm.create_vm()
    vm.set_user_memory_region(0, ram, HostMemory(2 << 20))
    program = (
        0xD2A12001,
        0x52800900,
        0x39000020,
        0x39400024,
        0x14000000,
    )  # a store to the UART, a load from it
    vm.write_memory(ram, b"".join(word.to_bytes(4, "little") for word in program))
    vcpu = vm.create_vcpu(0)
    vcpu.vcpu_init(vm.preferred_target())
    vcpu.set_one_reg(PC, ram)
    failing: list[bool] = []

    def sink(stamp: Stamp, event: Event) -> None:
        if failing:
            failing.pop()
            raise LookupError

    kvm.host.bus.subscribe(sink)
    failing.append(True)
    with pytest.raises(LookupError):
        vcpu.run()
    exits = []
    for _ in range(2):
        exit = vcpu.run()
        exits.append((exit.phys_addr, exit.is_write))  # type: ignore[union-attr]
        if not exit.is_write:  # type: ignore[union-attr]
            exit.data = 0x5A  # type: ignore[union-attr]
    assert exits == [(uart, True), (uart, False)]
    vcpu.run(until=kvm.host.clock.now + 3)
    assert vcpu.get_one_reg(0x6030_0000_0010_0008) == 0x5A
    kvm.host.close()


def test_a_thread_that_runs_when_the_interpreter_ends() -> None:
    """Its engine is in use until the very end: nothing frees it."""
    program = (
        "import threading, time\nfrom armvirt.machine import Machine\nm = Machine('runaway')\n"
        "threading.Thread(target=m.run, daemon=True).start()\ntime.sleep(0.3)\nprint('end')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
