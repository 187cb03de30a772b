"""The outcome of one guest of a suite, as plain data that can be sent between processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from armvirt.events import Console, Mmio
from armvirt.printable import printable_lines
from armvirt.trace.jsonl import fields

if TYPE_CHECKING:
    from armvirt.events import Event, Stamp
    from armvirt.machine import Machine, Result
    from armvirt.suite.case import Case

CONSOLE_LINES = 12
EVENTS = 12
CODE_BEFORE, CODE_AFTER = 4, 4  # instructions around the PC

Details = list[tuple[str, list[str]]]


@dataclass
class Outcome:
    """The outcome of one guest. ``ok`` is True if the result is as expected. If there is no
    verdict, ``error`` is the reason (bad input, an internal error, a crash); otherwise it is ""."""

    name: str
    expect: str
    verdict: str = "error"
    ok: bool = False
    diagnosis: str = ""
    difference: str = ""
    trace_hash: str = ""
    error: str = ""
    ns: int = 0
    insns: int = 0
    seconds: float = 0.0
    console: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def headline(self) -> str:
        """One line that says what is wrong with an outcome that is not as expected."""
        if self.error:
            return self.error
        reason = f": {self.diagnosis}" if self.diagnosis else ""
        return (self.difference or f"expected {self.expect}, got {self.verdict}") + reason

    def details(self) -> Details:
        """Details about the end of the run, as pairs of a title and lines of text."""
        return _titled(self.console, self.events, self.code)


class Tail:
    """A sink that keeps the last ``length`` events. The output and input of the guest's console are
    left out."""

    _uart = range(0)

    def __init__(self, length: int = EVENTS) -> None:
        self.events: deque[tuple[Stamp, Event]] = deque(maxlen=length)

    def __call__(self, stamp: Stamp, event: Event) -> None:
        of_console = isinstance(event, Console) or (
            isinstance(event, Mmio) and event.address in self._uart
        )
        if not of_console:
            self.events.append((stamp, event))

    def attach(self, machine: Machine) -> Machine:
        """Make this sink leave out the accesses to the UART of this machine's console. This method
        must be called before the machine runs. Returns the machine."""
        self._uart = machine.board.memmap.UART.addresses
        return machine


def outcome_of(case: Case, machine: Machine, result: Result, tail: Tail, seconds: float) -> Outcome:
    """The outcome of a run that has a verdict. ``tail`` is the sink that has kept the last events
    of the machine. ``seconds`` is the host time of the run."""
    difference = case.difference(result)
    ok = not difference
    outcome = Outcome(case.name, case.expect, result.verdict, ok, result.diagnosis, difference)
    outcome.trace_hash = result.trace_hash or ""
    outcome.ns, outcome.insns, outcome.seconds = result.ns, result.insns, seconds
    if not ok:
        outcome.console = console_tail(result.console)
        outcome.events = event_tail(machine, tail)
        outcome.code = code_around(machine, result.pc or _pc(machine))
    return outcome


def machine_details(machine: Machine, tail: Tail) -> Details:
    """Details about a machine in its present state, as pairs of a title and lines of text."""
    console = machine.console.text
    return _titled(
        console_tail(console), event_tail(machine, tail), code_around(machine, _pc(machine))
    )


def _titled(console: list[str], events: list[str], code: list[str]) -> Details:
    titles = ("last of the console", "last events", "code at the PC")
    return [
        (title, rows) for title, rows in zip(titles, (console, events, code), strict=True) if rows
    ]


def console_tail(console: str) -> list[str]:
    """The last lines of the guest's console, made printable."""
    return printable_lines(console.rstrip("\n"))[-CONSOLE_LINES:] if console else []


def event_tail(machine: Machine, tail: Tail) -> list[str]:
    """The last events as text, one line for each event."""
    return [_event_line(machine, stamp, event) for stamp, event in tail.events]


def _event_line(machine: Machine, stamp: Stamp, event: Event) -> str:
    shown = " ".join(f"{name}={value}" for name, value in fields(event).items())
    place = _name(machine, stamp.pc) or hex(stamp.pc)
    return f"{stamp.ns:>14,} ns  cpu {stamp.vcpu}  {event.kind:<11} {shown}  {place}"


def _name(machine: Machine, address: int) -> str | None:
    return machine.symbols.lookup(address) if machine.symbols is not None else None


def _pc(machine: Machine) -> int:
    return machine.board.vcpus[0].context.pc


def code_around(machine: Machine, pc: int) -> list[str]:
    """The disassembly of the code around ``pc`` in the first CPU's address space, as lines of text.
    The list is empty if ``pc`` is not in memory."""
    from armvirt.errors import ArmvirtError

    ipa = machine.board.vcpus[0].translate(pc)
    before = min(CODE_BEFORE * 4, pc % 4096)  # one page: one address translation is sufficient
    size = min(before + (CODE_AFTER + 1) * 4, 4096 - (pc - before) % 4096)
    if ipa is None or pc % 4 or not machine.board.in_memory(ipa - before, size):
        return []
    try:
        code = machine.board.vm.read_memory(ipa - before, size)
    except ArmvirtError:
        return []
    return [_marked(machine, line, pc) for line in disassemble(code, pc - before)]


def _marked(machine: Machine, line: tuple[int, str], pc: int) -> str:
    address, text = line
    return f"{'->' if address == pc else '  '} {address:#x}  {text:<40} {_name(machine, address) or ''}".rstrip()


def disassemble(code: bytes, address: int) -> Iterable[tuple[int, str]]:
    """Yield (address, text) of each A64 instruction of ``code``, which begins at ``address``. A
    word that is not an instruction is shown as ``.word``."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    for offset in range(0, len(code), 4):
        word = code[offset : offset + 4]
        found = next(engine.disasm_lite(word, address + offset), None)
        text = (
            f"{found[2]} {found[3]}".strip()
            if found
            else f".word {int.from_bytes(word, 'little'):#010x}"
        )
        yield address + offset, text
