"""The `Result` of a run, and the `Judge` that finds the verdict."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from armvirt.events import Event, Stamp
from armvirt.hyp.kvm import StuckExit, SystemEventExit
from armvirt.hyp.vcpu.power import Power
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.board.board import Board
    from armvirt.board.boot import SymbolSource
    from armvirt.board.console import Console
    from armvirt.board.semihosting import Exit as SemihostingEnd

EXIT_STATUS = {"pass": 0, "off": 0, "reset": 0, "fail": 1, "stuck": 3, "limit": 4}
VERDICT = re.compile(rb"^VERDICT: (PASS|FAIL)\b", re.MULTILINE)
CONSOLE_SHOWN = 60
"""The maximum number of characters of the console that the ``repr`` of a result shows."""
WAITS = "waits for an interrupt (WFI)"

#: The names are those of `armvirt.hw.pe.Pe.lacking`. Each text has an instruction that is UNDEFINED
#: on this machine, and the option that enables the instruction.
LACKING = {
    "semihosting": "HLT #0xF000 (a semihosting call) is UNDEFINED without --semihosting",
    "wfxt": "WFIT or WFET is UNDEFINED without --cpu-features wfxt",
    "ecv": "CNTPCTSS_EL0 or CNTVCTSS_EL0 is UNDEFINED without --cpu-features ecv",
}


class Result(NamedTuple):
    """The result of a run. ``verdict`` is one of these:

    * "pass" or "fail": the guest printed this verdict. If it printed none, a semihosting exit is
      "pass" for the exit code 0, and "fail" for other exit codes. The verdict is also "fail" if the
      console script failed.
    * "off": the guest powered off without a verdict.
    * "reset": the guest called SYSTEM_RESET, and ``reboot`` is off.
    * "stuck": the guest cannot continue. ``diagnosis`` has the cause.
    * "limit": a limit of the run was reached.

    ``ns`` is the virtual time at the end. ``insns`` is the number of instructions that all CPUs
    have retired. ``trace_hash`` is None if there is no trace hash, or if a limit of host time ended
    the computation of the digest of RAM. ``guest_code`` is the exit code of a semihosting exit.
    ``recent`` has the last events, if events were recorded. ``pc`` is the PC of a stuck guest, else
    0. ``intid`` is the INTID of an interrupt that has fired, but cannot wake a stuck guest; None if
    there is no such interrupt.
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
    intid: int | None = None

    def __repr__(self) -> str:
        """Show the fields like a NamedTuple, but only the end of ``console`` and only the number of
        events in ``recent``."""
        last = self.console[-CONSOLE_SHOWN:]
        console = repr(last) if last == self.console else f"...{last!r}"
        rest = [f"diagnosis={self.diagnosis!r}"] if self.diagnosis else []
        rest += [f"guest_code={self.guest_code}"] if self.guest_code is not None else []
        rest += [f"pc={self.pc:#x}"] if self.pc else []
        rest += [f"intid={self.intid}"] if self.intid is not None else []
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
        """The exit status of the command line for this verdict."""
        return EXIT_STATUS[self.verdict]


class Judge:
    """Finds the verdict of a run from the event that ended the run, the console and the vCPUs.

    ``digest`` is a function that returns the current trace hash, and ``recent`` has the last
    events.
    """

    def __init__(
        self,
        board: Board,
        symbols: SymbolSource | None,
        digest: Callable[[], str | None],
        recent: deque[tuple[Stamp, Event]],
    ) -> None:
        self._board, self._symbols, self._digest, self._recent = board, symbols, digest, recent

    def __repr__(self) -> str:
        return f"<Judge of {self._board!r}>"

    @property
    def _console(self) -> Console:
        return self._board.console

    def make(
        self, verdict: str, diagnosis: str = "", guest_code: int | None = None, pc: int = 0
    ) -> Result:
        """Make a result from the current state. If the guest has executed instructions that are
        UNDEFINED on this machine, the diagnosis also names these instructions. This applies only to
        the verdicts fail, stuck and limit."""
        if verdict in ("fail", "stuck", "limit") and (lacking := self._lacking()):
            diagnosis = f"{diagnosis}; {lacking}" if diagnosis else lacking
        board = self._board
        return Result(
            verdict, board.vm.timers.now, board.insns, self._console.text,
            self._digest(), diagnosis, guest_code, list(self._recent), pc,
        )  # fmt: skip

    def of_event(self, event: SystemEventExit | StuckExit | SemihostingEnd) -> Result:
        """Make the result of a run that the guest ended. If the verdict is "pass" or "off", but the
        console script still waits for a text, the verdict becomes "fail"."""
        if isinstance(event, StuckExit):
            result = self.make(
                "stuck", self.describe(event.pc, event.cause, event.cpu), pc=event.pc
            )
        elif isinstance(event, SystemEventExit):
            result = self.make("reset" if event.kind == "reset" else self._said() or "off")
        else:
            said = self._said() or ("fail" if event.code else "pass")
            result = self.make(said, guest_code=event.code)
        if self._console.waiting_for is not None and result.verdict in ("pass", "off"):
            problem = f"the script still waited for {self._awaited()!r}"
            return result._replace(verdict="fail", diagnosis=problem)
        return result

    def of_script(self) -> Result:
        """Make the result of a run in which an ``expect`` step of the console script timed out."""
        return self.make("fail", f"the script waited in vain for {self._awaited()!r}")

    def of_idleness(self) -> Result:
        """Make the result "stuck" for a run in which no CPU can ever run (`Stop.IDLE`). The
        diagnosis has the causes that `Vm.why_idle` returns."""
        pc = self._board.vcpus[0].context.pc
        result = self.make("stuck", self.describe(pc, self._idle_cause()), pc=pc)
        fired = (cause.intid for cause in self._board.vm.why_idle() if cause.intid is not None)
        return result._replace(intid=next(fired, None))

    def waiting(self) -> str:
        """Return a sentence about a guest that only keyboard input can wake."""
        vcpus = [vcpu for vcpu in self._board.vcpus if vcpu.power is not Power.OFF]
        what = WAITS
        if any(vcpu.runnable for vcpu in vcpus):
            what = "branches to itself until an interrupt"
        elif not any(vcpu.in_wfi for vcpu in vcpus):
            what = "waits for an event (WFE)"
        return self.describe(vcpus[0].context.pc, self._idle_cause(what, " but the keyboard"))

    def describe(self, pc: int, cause: str, cpu: int | None = None) -> str:
        """Return one line about a guest that cannot continue: the CPU (if ``cpu`` is not None), the
        cause, the PC and its symbol."""
        who = "the guest" if cpu is None else f"CPU {cpu} of the guest"
        return f"{who} {cause}: {self._place(pc)}"

    def _idle_cause(self, what: str = WAITS, but: str = "") -> str:
        causes = "; ".join(cause.text for cause in self._board.vm.why_idle())
        return f"{what} that nothing{but} will send" + (f" ({causes})" if causes else "")

    def _awaited(self) -> str:
        return (self._console.waiting_for or b"").decode("utf-8", "replace")

    def _lacking(self) -> str:
        """A text that names the UNDEFINED instructions that the guest executed, if an option of
        armvirt enables them. For each instruction, the text has this option. "" if there are no
        such instructions."""
        pcpus = self._board.kvm.host.pcpus
        found = {name: pc for pcpu in pcpus for name, pc in pcpu.pe.lacking.items()}
        return "; ".join(
            f"{LACKING[name]}, executed at {self._place(pc)}" for name, pc in found.items()
        )

    def _place(self, pc: int) -> str:
        symbol = self._symbols.lookup(pc) if self._symbols is not None else None
        return f"pc {pc:#x}" + (f" ({symbol})" if symbol else "")

    def _said(self) -> str | None:
        """The last verdict that the guest printed on its console, "pass" or "fail"; None if the
        guest printed no verdict."""
        found = VERDICT.findall(bytes(self._console.output))
        return found[-1].decode().lower() if found else None
