"""The Python API: a machine with a guest in it, run to a verdict.

result = Machine("hello").run()
assert result.verdict == "pass"
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from armvirt.arch.el1 import VBAR_EL1
from armvirt.board.config import BoardConfig
from armvirt.board.console import Console
from armvirt.board.sizes import human
from armvirt.board.virt import VirtBoard
from armvirt.bundled import find
from armvirt.errors import LimitError, UserError
from armvirt.events import Event, EventBus, Sink, Stamp
from armvirt.hw.clock import NEVER
from armvirt.hyp.kvm import Host, Stop, StuckExit, SystemEventExit
from armvirt.machine.pacing import Pacer
from armvirt.machine.watch import Watch
from armvirt.printable import printable
from armvirt.settings import DEFAULTS, native, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from armvirt.board.boot import SymbolSource
    from armvirt.board.semihosting import Exit as SemihostingEnd
    from armvirt.places import Marks
    from armvirt.script import Script
    from armvirt.views.explain import Explanation
    from armvirt.views.gic import GicView

MOVED = "the guest executes at other addresses now"
REPORT_S = 0.25  # after a limit of host time: for the digest of a run that it ended
RECENT_EVENTS = 64
CONSOLE_SHOWN = 60
"""Characters of the console that the ``repr`` of a result shows."""
VERDICT = re.compile(rb"^VERDICT: (PASS|FAIL)\b", re.MULTILINE)
EXIT_STATUS = {"pass": 0, "off": 0, "reset": 0, "fail": 1, "stuck": 3, "limit": 4}


#: Of what a guest executed and this machine has not (`armvirt.hw.pe.Pe.lacking`): the option that
#: serves it.
LACKING = {
    "semihosting": "HLT #0xF000 (a semihosting call) is UNDEFINED without --semihosting",
    "wfxt": "WFIT or WFET is UNDEFINED without --cpu-features wfxt",
    "ecv": "CNTPCTSS_EL0 or CNTVCTSS_EL0 is UNDEFINED without --cpu-features ecv",
}


class Result(NamedTuple):
    """How a run ended.

    ``verdict``: pass or fail (the guest said so), off (powered off without a verdict), reset (with
    ``reboot`` off), stuck (``diagnosis`` says why), limit. ``ns`` is virtual time, ``insns`` what
    all CPUs have retired, ``trace_hash`` is None without one, and where a limit of host time left
    no time for the digest of the RAM; ``guest_code`` the code of a semihosting exit, ``recent`` the
    last events where events were recorded.
    """

    verdict: str
    ns: int
    insns: int
    console: str
    trace_hash: str | None = None
    diagnosis: str = ""
    guest_code: int | None = None
    recent: Sequence[tuple[Stamp, Event]] = ()
    pc: int = 0

    def __repr__(self) -> str:
        """As a NamedTuple, without what is long: the whole of ``console`` and ``recent`` is in
        these fields."""
        last = self.console[-CONSOLE_SHOWN:]
        console = repr(last) if last == self.console else f"...{last!r}"
        rest = [f"diagnosis={self.diagnosis!r}"] if self.diagnosis else []
        rest += [f"guest_code={self.guest_code}"] if self.guest_code is not None else []
        rest += [f"pc={self.pc:#x}"] if self.pc else []
        rest += [f"trace_hash={self.trace_hash!r}"] if self.trace_hash is not None else []
        shown = ", ".join(
            [
                f"verdict={self.verdict!r}, ns={self.ns}, insns={self.insns}",
                *rest,
                f"console={console}",
            ]
        )
        return f"Result({shown}, recent=<{len(self.recent)} events>)"

    @property
    def exit_status(self) -> int:
        """The exit status of the command line."""
        return EXIT_STATUS[self.verdict]


def _named(image: str | Path | None, cpus: int | None) -> tuple[str | Path | None, int]:
    """(path, CPUs) of a path, or of a bundled guest's name; ``cpus`` is None for as many as the
    guest wants."""
    if image is None or isinstance(image, os.PathLike):
        return image, 1 if cpus is None else cpus
    if not isinstance(image, str):
        raise UserError(f"image={shown(image)}: write a path, or the name of a bundled guest")
    guest = find(image)
    return guest.file, guest.cpus_or(cpus)


def _steps(script: Script | str | Path | None) -> list[tuple[bool, bytes, int | None]]:
    """(whether it expects, text, limit in ns) of each step of a console script, or of the file of
    one."""
    if script is None:
        return []
    from armvirt.script import Expect, Script, load

    steps = script if isinstance(script, Script) else load(native("script", script))
    return [
        (True, step.text, step.timeout_ns) if isinstance(step, Expect) else (False, step.text, None)
        for step in steps
    ]


def _limit(argument: str, value: int | str | None, name: str = "") -> int | None:
    """A limit of a run; a number is taken as it is, for 0 is a moment, too. ``name`` is what an
    error calls it."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    limit: int | None = native(argument, value, name)
    return limit


def _timeout(value: float | str | None) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return value
    timeout: float | None = native("timeout_s", value)
    return timeout


def _intid(argument: str, value: int | str) -> int:
    if isinstance(value, str):
        from armvirt.intids import parse_intid

        return parse_intid(value)
    return _number(argument, value)


def _number(argument: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{argument}={shown(value)}: write a whole number")
    return value


def _ticks(argument: str, value: int) -> int:
    if not 0 <= _number(argument, value) < 1 << 64:
        raise UserError(f"{argument}={value}: a counter has 64 bits")
    return value


def _callable(sinks: Iterable[Sink]) -> tuple[Sink, ...]:
    if not isinstance(sinks, Iterable):
        raise UserError(f"sinks={shown(sinks)}: write a list of sinks, [sink]")
    listed = tuple(sinks)
    for sink in listed:
        if not callable(sink):
            raise UserError(f"sinks: {shown(sink)} cannot be called; a sink takes (stamp, event)")
    return listed


class Machine:
    """A board with a guest.

    ``image`` is a path or the name of a bundled guest (None with ``bios`` alone). ``gic`` is the
    version of the interrupt controller, 2 or 3; a GICv3 has an ITS unless ``its`` is False.
    ``memory`` is a size such as "512M" or a number of bytes, ``cpus`` defaults to what a bundled
    guest wants, else 1, ``cntfrq`` is in Hz, ``cntvoff`` in ticks (None: the guest's virtual count
    starts at 0). ``list_registers`` (1 to 16) and ``priority_bits`` (5 to 7) are the shape of the
    virtual CPU interface. The CPUs run on ``pcpus`` physical ones, in turns of ``quantum_ns``
    (None: 1 ms on one, 100 us on several). ``vhe`` runs the hypervisor at EL2 (both timers are the
    guest's then, nothing that it could tell); ``cpu_features`` adds to the CPU what its model
    lacks: "ecv", "wfxt", by commas. ``rtc_base`` is the date at virtual time 0 in seconds since
    1970 (None: 2024-01-01, midnight UTC): what the clock chip, the PTP hypercall and semihosting
    show; ``counter_start`` the physical count then, in ticks. All random numbers that the guest is
    given are functions of ``seed``: the TRNG's, /chosen/rng-seed and, unless ``kaslr_seed`` is
    False, /chosen/kaslr-seed. ``sinks`` get every event.

    ``symbols`` is a file with names for the guest's addresses, where the guest has none or others:
    the ELF that it was made from, or a System.map.

    Wherever the command line has the option, the text that the option takes is taken, too:
    ``cntfrq="24MHz"``, ``quantum_ns="100us"``, ``load_addr="0x40080000"``,
    ``rtc_base="2024-02-29"``. Raises UserError (ImageError) for what cannot be used; nothing has
    run then. ``watch`` can end a run from outside (`armvirt.machine.watch`).
    """

    def __init__(
        self,
        image: str | Path | None = None,
        *,
        gic: int | str = DEFAULTS["gic"],
        cpus: int | str | None = None,
        memory: str | int = DEFAULTS["memory"],
        cpu: str | None = DEFAULTS["cpu"],
        cntfrq: int | str = DEFAULTS["cntfrq"],
        cntvoff: int | str | None = None,
        append: str | None = "",
        initrd: str | Path | None = None,
        dtb: str | Path | None = None,
        bios: str | Path | None = None,
        load_addr: int | str | None = None,
        symbols: str | Path | None = None,
        semihosting: bool = False,
        engine: str | None = DEFAULTS["engine"],
        reboot: bool = True,
        sinks: Iterable[Sink] = (),
        trace_hash: bool = True,
        pace: bool = False,
        script: Script | str | Path | None = None,
        seed: int | str = DEFAULTS["seed"],
        kaslr_seed: bool = True,
        its: bool = True,
        list_registers: int | str = DEFAULTS["list_registers"],
        priority_bits: int | str = DEFAULTS["priority_bits"],
        pcpus: int | str = DEFAULTS["pcpus"],
        quantum_ns: int | str | None = None,
        vhe: bool = False,
        cpu_features: str | Sequence[str] = (),
        rtc_base: int | str | None = None,
        counter_start: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        path, count = _named(image, None if cpus is None else native("cpus", cpus))
        # What is passed by a name of the table of settings may be a text, as on the command line.
        self.config = BoardConfig(
            image=path, bios=native("bios", bios), cpus=count,
            memory=native("memory", memory), cpu=native("cpu", cpu), cntfrq=native("cntfrq", cntfrq),
            cntvoff=native("cntvoff", cntvoff), append=native("append", append), initrd=native("initrd", initrd),
            dtb=native("dtb", dtb), load_addr=native("load_addr", load_addr),
            semihosting=native("semihosting", semihosting), engine=native("engine", engine),
            seed=native("seed", seed), kaslr_seed=native("kaslr_seed", kaslr_seed),
            gic=native("gic", gic), its=native("its", its),
            list_registers=native("list_registers", list_registers),
            priority_bits=native("priority_bits", priority_bits), pcpus=native("pcpus", pcpus),
            quantum_ns=native("quantum_ns", quantum_ns), vhe=native("vhe", vhe),
            cpu_features=native("cpu_features", cpu_features), rtc_base=native("rtc_base", rtc_base),
            counter_start=None if counter_start is None else _ticks("counter_start", counter_start),
        )  # fmt: skip
        self.reboot, self.pace = native("reboot", reboot), native("pace", pace)
        steps = _steps(script)
        self.bus = EventBus()
        self.console = Console(self.bus)
        self.recent: deque[tuple[Stamp, Event]] = deque(maxlen=RECENT_EVENTS)
        self._hash = None
        if trace_hash:
            from armvirt.trace.hash import HashSink

            self._hash = HashSink()
            self.bus.subscribe(self._hash)
        self.sinks = _callable(sinks)
        for sink in self.sinks:
            self.bus.subscribe(sink)
        if trace_hash or self.sinks:
            self.bus.subscribe(lambda stamp, event: self.recent.append((stamp, event)))
        self.board = VirtBoard(self.config, self.bus, self.console)
        self._symbols = self._symbols_of(native("symbols", symbols))
        self.watch = watch if watch is not None else Watch()
        self.pacer = Pacer(self)
        self._deadline: float | None = None
        self._result: Result | None = None
        for expect, text, timeout_ns in steps:
            if expect:
                self.console.expect(text, timeout_ns)
            else:
                self.console.send(text)

    def __repr__(self) -> str:
        config = self.config
        guest = printable(os.path.basename(str(config.image or config.bios)))
        cpus = f"{config.cpus} CPU" + ("s" if config.cpus > 1 else "")
        ended = f", ended: {self._result.verdict}" if self._result is not None else ""
        return f"<Machine {guest}: GICv{config.gic}, {cpus}, {human(config.memory)} of RAM, at {self.ns:,} ns{ended}>"

    @property
    def host(self) -> Host:
        """The host under the hypervisor: its clock, physical CPU and vCPUs."""
        return self.board.kvm.host

    @property
    def symbols(self) -> SymbolSource | None:
        """The guest's symbols: ``lookup(address)`` gives "name+0x10" or None."""
        return self._symbols if self._symbols is not None else self.board.loaded[0].symbols

    def _symbols_of(self, path: str | Path | None) -> SymbolSource | None:
        """The names in a file beside the guest; without one, the guest's own are used."""
        if path is None:
            return None
        from armvirt.debug.symbol_file import ImageSymbols, read

        def vectors() -> list[int]:
            return [vcpu.context.system(VBAR_EL1) for vcpu in self.board.vcpus]

        return ImageSymbols(read(path), self.board.loaded[0], vectors)

    @property
    def ns(self) -> int:
        """Virtual time now."""
        return self.board.vm.timers.now

    @property
    def insns(self) -> int:
        return self.board.insns

    def dump_dtb(self) -> bytes:
        """The device tree that the guest gets."""
        return self.board.dump_dtb()

    @property
    def gic(self) -> GicView:
        """The interrupt controller at this moment, as plain rows that show themselves
        (``print(machine.gic)``)."""
        from armvirt.views.gic import GicView

        return GicView(self)

    def explain(
        self, intid: int | str, vcpu: int | None = None, versus: int | str | None = None
    ) -> Explanation:
        """What keeps an interrupt from a vCPU at this moment (see `armvirt.views.explain.explain`); it
        changes nothing.

        An interrupt is a number or a name ("vtimer", "uart", "spi1"). With a `LastWriters` among
        the sinks it says who wrote each register last.
        """
        from armvirt.views.explain import explain

        vcpu = None if vcpu is None else _number("vcpu", vcpu)
        return explain(
            self, _intid("intid", intid), vcpu, None if versus is None else _intid("versus", versus)
        )

    @property
    def result(self) -> Result | None:
        """How the guest ended; None while it has not."""
        return self._result

    # -- running --

    def run(
        self,
        max_insns: int | str | None = None,
        max_time_ns: int | str | None = None,
        timeout_s: float | str | None = None,
    ) -> Result:
        """Run to the guest's end, or to a limit: instructions of all CPUs, ns of guest time,
        seconds of the host's.

        Each limit may be a text, as its option takes it: "1M" instructions, "10ms", "2s". Ctrl-C
        raises KeyboardInterrupt from here, with the machine where it stands: it can run on.
        """
        timeout = _timeout(timeout_s)
        ended = self._drive(
            _limit("max_insns", max_insns), _limit("max_time_ns", max_time_ns), timeout, None
        )
        return ended if isinstance(ended, Result) else self._make("limit", ended)

    def run_until(
        self, *, insns: int | str | None = None, ns: int | str | None = None, console: str | bytes | None = None,
        pc: int | str | None = None, timeout_s: float | str | None = None,
    ) -> Result | None:  # fmt: skip
        """Run until a point is reached: instructions, guest time (ns), a text on the console, or
        the instruction at virtual address ``pc``, before it executes (at once where a CPU is there
        already). None: reached.

        ``pc`` may be the text of a place, as ``--at`` takes it: "main", "main+0x10", "timer.c:42",
        "0x40080000"; of several addresses that a text can mean (copies of an inlined function), the
        first that is reached counts. A Result: the guest ended before (or the host's ``timeout_s``
        did). Running on from here changes nothing.
        """
        if console is not None and not isinstance(console, (str, bytes)):
            raise UserError(f"console={shown(console)}: write the text to wait for")
        text = console.encode() if isinstance(console, str) else console
        most_insns, most_ns = _limit("max_insns", insns, "insns"), _limit("max_time_ns", ns, "ns")
        timeout = _timeout(timeout_s)
        while True:
            marks = self._marks(pc)
            ended = self._to_marks(marks, most_insns, most_ns, timeout, text)
            if ended != MOVED:
                break
            marks.learn(self)  # where the guest executes is known now: the marks are others
        if isinstance(ended, str) and self.expired:
            return self._make("limit", ended)
        return ended if isinstance(ended, Result) else None

    def _marks(self, pc: int | str | None) -> Marks:
        from armvirt.places import Marks, marks

        if pc is None or (isinstance(pc, int) and not isinstance(pc, bool)):
            if pc is not None and not 0 <= pc < 1 << 64:
                raise UserError(f"pc={shown(pc)}: an address has 64 bits")
            return Marks(() if pc is None else (pc,))
        if not isinstance(pc, str):
            raise UserError(f"pc={shown(pc)}: write an address or the name of a function")
        return marks(pc, self)

    def _to_marks(
        self,
        marks: Marks,
        max_insns: int | None,
        max_ns: int | None,
        timeout_s: float | None,
        text: bytes | None,
    ) -> Result | str:
        removes = [self.host.stop_at(address) for address in marks.addresses]
        if marks.moves_to is not None:
            removes.append(self.host.stop_in(marks.moves_to))
        try:
            return self._drive(max_insns, max_ns, timeout_s, text, marks.reached)
        finally:
            for remove in removes:
                remove()

    def _drive(
        self, max_insns: int | None, max_ns: int | None, timeout_s: float | None, text: bytes | None,
        at: Callable[[Machine], str] = lambda _machine: "",
    ) -> Result | str:  # fmt: skip
        """Run to the guest's end, or to the first of these; then the limit in words."""
        if self._result is not None:
            return self._result
        self.host.check_standing()
        limits = [self.watch.deadline, None if timeout_s is None else time.monotonic() + timeout_s]
        self._deadline = min((limit for limit in limits if limit is not None), default=None)
        self.host.on_poll(lambda: self.over or self.console.fed)
        self.host.on_idle = self.pacer.idle if self.console.interactive or self.pace else None
        reached, forget = self._watch(text)
        try:
            with self.watch:
                return self._loop(max_insns, max_ns, text, reached, at, timeout_s)
        finally:
            forget()

    def _loop(
        self, max_insns: int | None, max_ns: int | None, text: bytes | None, reached: Callable[[], bool],
        at: Callable[[Machine], str], timeout_s: float | None,
    ) -> Result | str:  # fmt: skip
        while True:
            if reached():
                return f"{text!r} appeared"
            if place := at(self):
                return place
            if max_insns is not None and self.insns >= max_insns:
                return f"after {max_insns} instructions"
            if max_ns is not None and self.ns >= max_ns:
                return f"after {max_ns} ns of guest time"
            if self.over:
                seconds = self.watch.seconds if timeout_s is None else timeout_s
                return f"host time of {seconds} s is over"
            ended = self._step(
                NEVER if max_ns is None else max_ns, NEVER if max_insns is None else max_insns
            )
            if ended is not None:
                return ended

    def _watch(self, text: bytes | None) -> tuple[Callable[[], bool], Callable[[], None]]:
        """Stop the machine when ``text`` has appeared from here on: (whether it has, how to look no
        more)."""
        if text is None:
            return lambda: False, lambda: None
        console, before, appeared = self.console, self.console.on_output, [not text]
        first_end = console.printed + len(text)

        def seen() -> bool:
            return appeared[0]

        def on_output(data: bytes) -> None:
            if console.printed >= first_end and console.output.endswith(text) and not appeared[0]:
                appeared[0] = True
                self.host.stop()
            if before is not None:
                before(data)

        def forget() -> None:
            if self.console.on_output is on_output:
                self.console.on_output = before

        self.console.on_output = on_output
        return seen, forget

    @property
    def over(self) -> bool:
        """Whether a run under way has to end: by its limit of host time, or by a request."""
        return self.watch.requested or self.expired

    @property
    def expired(self) -> bool:
        """Whether the limit of host time of the last run has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _step(self, until: int, insns: int) -> Result | None:
        """Drive the board once and look at why it came back."""
        stop = self.board.run(until, insns)
        event = self.board.take_event()
        if isinstance(event, SystemEventExit) and event.kind == "reset" and self.reboot:
            self.board.reset()
            self._begin_anew(loaded=False)
            return None
        if event is not None:
            return self._end(event)
        if self.console.expired:
            waiting = (self.console.waiting_for or b"").decode("utf-8", "replace")
            self._result = self._make("fail", f"the script waited in vain for {waiting!r}")
            return self._result
        if stop is Stop.IDLE and not self.over:
            return self._end(StuckExit(self._idle_cause(), self.board.vcpus[0].context.pc))
        return None

    def _idle_cause(self, what: str = "waits for an interrupt (WFI)", but: str = "") -> str:
        causes = "; ".join(self.board.vm.why_idle())
        return f"{what} that nothing{but} will send" + (f" ({causes})" if causes else "")

    @property
    def waiting(self) -> str:
        """What the guest waits for, in a sentence, while nothing but the keyboard could wake it;
        else empty."""
        if not self.pacer.waits:
            return ""
        vcpus = [vcpu for vcpu in self.board.vcpus if vcpu.power.value != "off"]
        what = "waits for an interrupt (WFI)"
        if any(vcpu.runnable for vcpu in vcpus):
            what = "branches to itself until an interrupt"
        elif not any(vcpu.in_wfi for vcpu in vcpus):
            what = "waits for an event (WFE)"
        return self.describe(vcpus[0].context.pc, self._idle_cause(what, " but the keyboard"))

    def close(self) -> None:
        """Free the engines now: what needs them (running on, registers, `state`) is refused from
        now on, with KvmError EBADF; results, console and symbols stay. A machine that is forgotten
        is freed too, when the garbage collector finds it. KvmError EBUSY while it runs: in a sink,
        or from another thread."""
        self.host.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- state --

    def state(self) -> dict[str, object]:
        """Everything but memory, by name: architectural, plain data. `load` takes it back."""
        return self.board.state()

    def load(self, state: dict[str, object]) -> None:
        """Take over what `state` gave, in a machine of the same arguments whose memory has the same
        contents. KvmError EBUSY while it runs, EBADF after `close`."""
        self.host.check_standing()
        self.board.load(state)
        self._result = None
        self._begin_anew(loaded=True)

    def _begin_anew(self, *, loaded: bool) -> None:
        """Tell the sinks that keep a record of registers: what they heard is no more true
        (`LastWriters.restart`)."""
        for sink in self.sinks:
            restart = getattr(sink, "restart", None)
            if restart is not None:
                restart(self.ns, loaded=loaded)

    # -- results --

    def _make(self, verdict: str, diagnosis: str = "", **more: object) -> Result:
        if verdict in ("fail", "stuck", "limit") and (lacking := self._lacking()):
            diagnosis = f"{diagnosis}; {lacking}" if diagnosis else lacking
        return Result(
            verdict, self.ns, self.insns, self.console.text,
            self._digest(), diagnosis, recent=list(self.recent), **more,  # type: ignore[arg-type]
        )  # fmt: skip

    def _lacking(self) -> str:
        """What the guest executed that is UNDEFINED on this machine, and which option would serve
        it."""
        found = {name: pc for pcpu in self.host.pcpus for name, pc in pcpu.pe.lacking.items()}
        return "; ".join(
            f"{LACKING[name]}, executed at {self._place(pc)}" for name, pc in found.items()
        )

    def _place(self, pc: int) -> str:
        symbol = self.symbols.lookup(pc) if self.symbols is not None else None
        return f"pc {pc:#x}" + (f" ({symbol})" if symbol else "")

    def _end(self, event: SystemEventExit | StuckExit | SemihostingEnd) -> Result:
        if isinstance(event, StuckExit):
            self._result = self._make(
                "stuck", self.describe(event.pc, event.cause, event.cpu), pc=event.pc
            )
        elif isinstance(event, SystemEventExit):
            self._result = self._make("reset" if event.kind == "reset" else self._said() or "off")
        else:
            self._result = self._make(
                self._said() or ("fail" if event.code else "pass"), guest_code=event.code
            )
        if self.console.waiting_for is not None and self._result.verdict in ("pass", "off"):
            waiting = self.console.waiting_for.decode("utf-8", "replace")
            self._result = self._result._replace(
                verdict="fail", diagnosis=f"the script still waited for {waiting!r}"
            )
        return self._result

    def describe(self, pc: int, cause: str, cpu: int | None = None) -> str:
        """One line for a guest that cannot go on: which CPU if there are several, cause, PC,
        symbol."""
        who = "the guest" if cpu is None else f"CPU {cpu} of the guest"
        return f"{who} {cause}: {self._place(pc)}"

    def _said(self) -> str | None:
        """The last verdict that the guest printed."""
        found = VERDICT.findall(bytes(self.console.output))
        return found[-1].decode().lower() if found else None

    def _digest(self) -> str | None:
        """The trace hash; None without one, and where host time is over before the digest of much
        RAM is done."""
        if self._hash is None:
            return None
        try:
            return self._hash.finish(self.board.final_state(self._keep_to_time))
        except LimitError:
            return None

    def _keep_to_time(self) -> None:
        late = self._deadline is not None and time.monotonic() >= self._deadline + REPORT_S
        if self.watch.requested or late:
            raise LimitError("host time is over")
