"""The Python API: a machine that runs a guest to a verdict.

result = Machine("hello").run()
assert result.verdict == "pass"
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from armvirt.arch.named import VBAR_EL1
from armvirt.board.board import Board
from armvirt.board.console import Console
from armvirt.errors import LimitError, UserError
from armvirt.events import Event, EventBus, Sink, Stamp
from armvirt.hyp.kvm import Host
from armvirt.machine import arguments
from armvirt.machine.pacing import Pacer
from armvirt.machine.result import Judge, Result
from armvirt.machine.run import Goal, Reached, Runner
from armvirt.machine.watch import RunTime, Watch
from armvirt.printable import printable
from armvirt.settings import DEFAULTS, native, shown
from armvirt.state import State
from armvirt.units import human_size

if TYPE_CHECKING:
    from pathlib import Path

    from armvirt.board.boot import SymbolSource
    from armvirt.places import Marks
    from armvirt.script import Script
    from armvirt.trace.hash import HashSink
    from armvirt.views.explain import Explanation
    from armvirt.views.gic import GicView

RECENT_EVENTS = 64


class Machine:
    """A board with a guest.

    ``image`` is a path or the name of a bundled guest; None if there is only a ``bios``. ``board``
    is a name of `armvirt.board.boards.BOARDS`. ``gic`` is the version of the interrupt controller,
    2 or 3. A GICv3 has an ITS unless ``its`` is False. ``memory`` is a size such as "512M" or a
    number of bytes. ``cpus`` is the number of CPUs; None is the number that a bundled guest needs,
    and 1 for other guests. ``cntfrq`` is the frequency of the counter in Hz. ``cntvoff`` is
    CNTVOFF_EL2 in ticks; None means that the guest's virtual count starts at 0. ``counter_start``
    is the physical count at virtual time 0, in ticks; None is the default of the emulated host.

    ``list_registers`` (1 to 16) and ``priority_bits`` (5 to 7) configure the virtual CPU interface.
    The CPUs run on ``pcpus`` physical CPUs of the emulated host, in time slices of ``quantum_ns``;
    None is 1 ms on one physical CPU, and 100 us on several. If ``vhe`` is True, the hypervisor runs
    with VHE at EL2, and the guest uses both timers without traps. The guest cannot observe ``vhe``.
    ``cpu_features`` adds features that the CPU model does not have: "ecv", "wfxt", or "ecv,wfxt".

    If ``skip`` is True, armvirt does not execute every iteration of a polling loop, but counts the
    instructions of all iterations. The guest cannot observe ``skip`` (docs/engine.md). If ``pace``
    is True, virtual time passes at the speed of the wall clock while the guest is idle, and in
    polling loops that are skipped.

    ``rtc_base`` is the date at virtual time 0, in seconds since 1970; None is 2024-01-01, midnight
    UTC. The RTC, the PTP hypercall and semihosting return this date plus virtual time. All random
    numbers for the guest depend on ``seed``: those of the TRNG, /chosen/rng-seed and
    /chosen/kaslr-seed. If ``kaslr_seed`` is False, there is no /chosen/kaslr-seed. ``sinks`` are
    functions that are called with every trace event. ``watch`` can end a run from outside
    (`armvirt.machine.watch`). If ``reboot`` is False, a reset by the guest ends the run.

    ``symbols`` is a file with names for the guest's addresses: the ELF file of the guest, or a
    System.map. Give this file if the guest file has no symbols, or not the right symbols.

    An argument that is also a command-line option accepts the text of the option, too:
    ``cntfrq="24MHz"``, ``quantum_ns="100us"``, ``load_addr="0x40080000"``,
    ``rtc_base="2024-02-29"``. A value that cannot be used raises UserError (ImageError for a file)
    before the guest runs.
    """

    def __init__(
        self,
        image: str | Path | None = None,
        *,
        board: str = DEFAULTS["board"],
        gic: int | str = DEFAULTS["gic"],
        cpus: int | str | None = None,
        memory: str | int = DEFAULTS["memory"],
        cpu: str | None = DEFAULTS["cpu"],
        cntfrq: int | str = DEFAULTS["cntfrq"],
        cntvoff: int | str | None = None,
        append: str | None = DEFAULTS["append"],
        initrd: str | Path | None = None,
        dtb: str | Path | None = None,
        bios: str | Path | None = None,
        load_addr: int | str | None = None,
        symbols: str | Path | None = None,
        semihosting: bool = DEFAULTS["semihosting"],
        engine: str | None = DEFAULTS["engine"],
        reboot: bool = True,
        sinks: Iterable[Sink] = (),
        trace_hash: bool = True,
        pace: bool = False,
        script: Script | str | Path | None = None,
        seed: int | str = DEFAULTS["seed"],
        kaslr_seed: bool = DEFAULTS["kaslr_seed"],
        its: bool = DEFAULTS["its"],
        list_registers: int | str = DEFAULTS["list_registers"],
        priority_bits: int | str = DEFAULTS["priority_bits"],
        pcpus: int | str = DEFAULTS["pcpus"],
        quantum_ns: int | str | None = None,
        vhe: bool = DEFAULTS["vhe"],
        skip: bool = DEFAULTS["skip"],
        cpu_features: str | Sequence[str] = DEFAULTS["cpu_features"],
        rtc_base: int | str | None = None,
        counter_start: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        reboot, pace = native("reboot", reboot), native("pace", pace)
        skips = native("skip", skip)
        self.config = arguments.board_config(
            image, cpus, counter_start, board=board, bios=bios, memory=memory, cpu=cpu, cntfrq=cntfrq, cntvoff=cntvoff,
            append=append, initrd=initrd, dtb=dtb, load_addr=load_addr, semihosting=semihosting, engine=engine,
            seed=seed, kaslr_seed=kaslr_seed, gic=gic, its=its, list_registers=list_registers,
            priority_bits=priority_bits, pcpus=pcpus, quantum_ns=quantum_ns, vhe=vhe, cpu_features=cpu_features,
            rtc_base=rtc_base, skip=skips,
        )  # fmt: skip
        steps = arguments.loaded_script(script)
        self.sinks = arguments.sink_list(sinks)
        self.bus = EventBus()
        self.recent: deque[tuple[Stamp, Event]] = deque(maxlen=RECENT_EVENTS)
        self._hash = _subscribe(self.bus, trace_hash, self.sinks, self.recent)
        self.console = Console()
        self.board = Board(self.config, self.bus, self.console)
        self.symbols = _symbols(native("symbols", symbols), self.board)
        self.run_time = RunTime(watch if watch is not None else Watch())
        self.pacer = Pacer(self.console, self.board.receiver, self.run_time, pace)
        self._judge = Judge(self.board, self.symbols, self._digest, self.recent)
        self._runner = Runner(
            self.board, self._judge, self.run_time, self.pacer, self._restarted if reboot else None
        )
        if steps is not None:
            arguments.play(steps, self.console)

    def __repr__(self) -> str:
        config = self.config
        guest = printable(os.path.basename(str(config.image or config.bios)))
        cpus = f"{config.cpus} CPU" + ("s" if config.cpus > 1 else "")
        ended = f", ended: {self.ended}" if self.ended is not None else ""
        ram = human_size(config.memory)
        return (
            f"<Machine {guest}: GICv{config.gic}, {cpus}, {ram} of RAM, at {self.ns:,} ns{ended}>"
        )

    @property
    def host(self) -> Host:
        """The emulated host under the hypervisor: its clock, physical CPUs and vCPUs."""
        return self.board.kvm.host

    @property
    def ns(self) -> int:
        """The current virtual time, in ns."""
        return self.board.vm.timers.now

    @property
    def insns(self) -> int:
        """The number of instructions that all vCPUs have retired."""
        return self.board.insns

    @property
    def skipped(self) -> int:
        """The number of instructions in `insns` that were counted but not executed, because they
        belong to skipped iterations of a loop that only polls. The count starts at 0 when this
        object is made, and `state` does not save the count."""
        return sum(vcpu.context.skipped for vcpu in self.board.vcpus)

    def dump_dtb(self) -> bytes:
        """Return the blob of the device tree that the guest gets."""
        return self.board.dump_dtb()

    @property
    def gic(self) -> GicView:
        """The current state of the interrupt controller, as an object for display
        (``print(machine.gic)``)."""
        from armvirt.views.gic import GicView

        return GicView(self)

    def explain(
        self, intid: int | str, vcpu: int | None = None, versus: int | str | None = None
    ) -> Explanation:
        """Explain why a vCPU does not take the interrupt ``intid`` at this moment (see
        `armvirt.views.explain.explain`). This method does not change the state of the machine.

        ``intid`` is an INTID or a name ("vtimer", "uart", "spi1"). ``vcpu`` is the number of the
        vCPU. If ``vcpu`` is None, this is the target of an SPI or LPI; for an SGI or PPI it is the
        first vCPU that uses the interrupt. ``versus`` is an INTID or a name, too: the interrupt
        that the vCPU takes instead. The explanation then compares the two interrupts. If ``versus``
        is None, there is no comparison. If a `LastWriters` is among the sinks, the explanation
        names the last write of each register.
        """
        from armvirt.views.explain import explain

        return explain(
            self,
            arguments.intid("intid", intid, self.board),
            None if vcpu is None else arguments.number("vcpu", vcpu),
            None if versus is None else arguments.intid("versus", versus, self.board),
        )

    @property
    def result(self) -> Result | None:
        """The `Result` of the run; None while the guest has not ended."""
        return self._runner.result

    @property
    def ended(self) -> str | None:
        """The verdict of the run; None while the guest has not ended."""
        return None if self.result is None else self.result.verdict

    # -- running --

    def run(
        self,
        max_insns: int | str | None = None,
        max_time_ns: int | str | None = None,
        timeout_s: float | str | None = None,
    ) -> Result:
        """Run until the guest ends, or until one of three limits is reached: (1) All CPUs together
        have retired at least ``max_insns`` instructions since the start of the machine. (2) Virtual
        time is at least ``max_time_ns``, counted in ns from the start of the machine. (3) This call
        has taken ``timeout_s`` seconds of host time.

        Each limit is a number, or a text as on the command line: for example ``max_insns="1M"``,
        ``max_time_ns="10ms"``, ``timeout_s="2s"``. None means no limit. Ctrl-C raises
        KeyboardInterrupt from this call. The machine then keeps its state, and can run again.
        """
        goal = Goal(
            arguments.limit("max_insns", max_insns),
            arguments.limit("max_time_ns", max_time_ns),
            arguments.timeout(timeout_s),
        )
        ended = self._runner.drive(goal)
        return ended if isinstance(ended, Result) else self._judge.make("limit", ended.text)

    def run_until(
        self, *, insns: int | str | None = None, ns: int | str | None = None, console: str | bytes | None = None,
        pc: int | str | None = None, timeout_s: float | str | None = None,
    ) -> Result | None:  # fmt: skip
        """Run until one of four conditions is true. A condition whose argument is None does not
        apply. The four conditions are: (1) All CPUs together have retired at least ``insns``
        instructions since the start of the machine. (2) Virtual time is at least ``ns``, counted in
        ns from the start of the machine. (3) The guest prints the text ``console`` during this
        call. (4) The next instruction of a CPU is at the virtual address ``pc``. If this is the
        case at the start of this call, the run stops at once.

        Returns None if one of the conditions is true. Returns a `Result` if the guest ended first,
        or if ``timeout_s`` seconds of host time passed first. The guest cannot observe the stop,
        and the run can continue.

        ``pc`` may also be a text as for the option ``--at``: "main", "main+0x10", "timer.c:42",
        "0x40080000". If the text has several addresses (copies of an inlined function), the run
        stops at the first address that a CPU reaches.
        """
        if console is not None and not isinstance(console, (str, bytes)):
            raise UserError(f"console={shown(console)}: write the text to wait for")
        goal = Goal(
            arguments.limit("max_insns", insns, "insns"),
            arguments.limit("max_time_ns", ns, "ns"),
            arguments.timeout(timeout_s),
            console.encode() if isinstance(console, str) else console,
        )
        while True:
            marks = self._marks(pc)
            ended = self._to_marks(goal, marks)
            if isinstance(ended, Result):
                return ended
            if not ended.moved:
                break
            marks.learn(self)  # the guest executes at other addresses now: set the marks again
        return self._judge.make("limit", ended.text) if self.expired else None

    def _marks(self, pc: int | str | None) -> Marks:
        from armvirt.places import Marks, marks

        if pc is None:
            return Marks(())
        if isinstance(pc, int) and not isinstance(pc, bool):
            return Marks((arguments.address(pc),))
        if not isinstance(pc, str):
            raise UserError(f"pc={shown(pc)}: write an address or the name of a function")
        return marks(pc, self)

    def _to_marks(self, goal: Goal, marks: Marks) -> Result | Reached:
        """Run until the goal is reached, or until a CPU reaches an address of ``marks``."""
        with ExitStack() as stops:
            for address in marks.addresses:
                stops.callback(self.host.stop_at(address))
            if marks.moves_to is not None:
                stops.callback(self.host.stop_in(marks.moves_to))
            return self._runner.drive(goal._replace(at=lambda: marks.reached(self)))

    @property
    def expired(self) -> bool:
        """True if the limit of host time of the last run has passed."""
        return self.run_time.expired

    @property
    def waiting(self) -> str:
        """A sentence about the guest, if only keyboard input can wake the guest. "" for any other
        guest."""
        return self._judge.waiting() if self.pacer.waits else ""

    def close(self) -> None:
        """Free the CPU engines now. Afterwards `run`, `state` and all accesses to registers raise
        KvmError EBADF; results, console and symbols stay available. The garbage collector also
        frees the engines of a machine that is no longer used. KvmError EBUSY if a sink or another
        thread calls `close` while the machine runs."""
        self.host.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- state --

    def state(self) -> State:
        """Return the architectural state without the contents of memory, as plain data. `load`
        restores this state."""
        return self.board.state()

    def load(self, state: State) -> None:
        """Restore a state that `state` returned. This machine must have the same arguments and the
        same memory contents as the machine that returned the state. KvmError EBUSY while the
        machine runs, EBADF after `close`."""
        self.host.check_standing()
        self.board.load(state)
        self._runner.result = None
        self._restarted(loaded=True)

    def _restarted(self, *, loaded: bool = False) -> None:
        """Call the method ``restart`` of each sink that has this method. Such sinks record the
        writes of registers (`LastWriters`), and their records are no longer valid after a reset or
        a load."""
        for sink in self.sinks:
            restart = getattr(sink, "restart", None)
            if restart is not None:
                restart(self.ns, loaded=loaded)

    def _digest(self) -> str | None:
        """Compute the trace hash. Return None if there is no trace hash, or if a limit of host time
        ends the computation of the digest of RAM."""
        if self._hash is None:
            return None
        try:
            return self._hash.finish(self.board.final_state(self.run_time.check_digest))
        except LimitError:
            return None


def _subscribe(
    bus: EventBus, trace_hash: bool, sinks: Sequence[Sink], recent: deque[tuple[Stamp, Event]]
) -> HashSink | None:
    """Subscribe the trace hash and the sinks to every event. If there is a trace hash or a sink,
    the last events are also stored in ``recent``. Return the sink that computes the trace hash;
    None if there is no trace hash."""
    hashed: HashSink | None = None
    if trace_hash:
        from armvirt.trace.hash import HashSink

        hashed = HashSink()
        bus.subscribe(hashed)
    for sink in sinks:
        bus.subscribe(sink)
    if trace_hash or sinks:

        def keep(stamp: Stamp, event: Event) -> None:
            if event.kind != "polled-wait":  # those are no part of the result
                recent.append((stamp, event))

        bus.subscribe(keep)
    return hashed


def _symbols(path: str | Path | None, board: Board) -> SymbolSource | None:
    """Return the guest's symbols. ``path`` is the file that has the symbols. If ``path`` is None,
    the symbols are those of the guest's own file."""
    if path is None:
        return board.loaded[0].symbols
    from armvirt.debug.symbol_file import ImageSymbols, read

    def vectors() -> list[int]:
        return [vcpu.context.system(VBAR_EL1) for vcpu in board.vcpus]

    return ImageSymbols(read(path), board.loaded[0], vectors)
