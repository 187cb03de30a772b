"""One guest of a suite: its settings and its expected result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from armvirt import outputs
from armvirt import script as scripts
from armvirt.bundled import find
from armvirt.trace.files import TraceFile

if TYPE_CHECKING:
    from armvirt.board.config import BoardConfig
    from armvirt.events import Sink
    from armvirt.machine import Machine, Result
    from armvirt.machine.watch import Watch

VERDICTS = ("pass", "fail", "off", "reset", "stuck", "limit")
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_LIMIT_NS = 100_000_000


@dataclass(frozen=True)
class Case:
    """One guest of a suite, with its settings and its expected result. ``settings`` are arguments
    of `Machine`. ``limits`` are arguments of `Machine.run`.

    ``trace`` and ``dump_dtb`` are the files that the run writes; None if the run writes no such
    file. A string in ``trace_hash`` is the hash that the run must have. True means that the hash is
    reported but not checked. False means that no hash is computed. ``expect`` is the verdict that
    the run must have. If ``exit_raw`` is not None, the guest must end with this exit code, and
    ``expect`` does not matter.
    """

    name: str
    image: str | None
    expect: str = "pass"
    settings: dict[str, Any] = field(default_factory=dict)
    script: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    trace: str | None = None
    dump_dtb: str | None = None
    trace_hash: bool | str = False
    exit_raw: int | None = None
    debug: bool = False

    def machine(self, sinks: Iterable[Sink] = (), watch: Watch | None = None) -> Machine:
        """Make the machine. Raises UserError if the settings or files cannot be used."""
        from armvirt.machine import Machine

        guest = find(self.image) if self.image is not None else None
        script = scripts.load(self.script) if self.script else guest.script if guest else None
        arguments = {"trace_hash": bool(self.trace_hash), **self.settings}
        if guest is not None:
            arguments["cpus"] = guest.cpus_or(arguments.get("cpus"))
        arguments |= {
            "script": script,
            "sinks": (*sinks, *TraceFile(self.trace).sinks),
            "watch": watch,
        }
        return Machine(guest.path if guest else None, **arguments)

    def run(self, machine: Machine) -> Result:
        """Run the guest to its end or to a limit. If ``expect`` is "limit" and the case sets no
        limit, guest time is limited to `DEFAULT_LIMIT_NS`."""
        limits = {"timeout_s": DEFAULT_TIMEOUT_S, **self.limits}
        if self.expect == "limit" and not self.limits:
            limits["max_time_ns"] = DEFAULT_LIMIT_NS
        if self.dump_dtb:
            outputs.write_bytes(self.dump_dtb, machine.dump_dtb())
        with TraceFile(self.trace, machine.sinks).writing(outputs.open_text, guest=self.name):
            return machine.run(**limits)

    def accepts(self, verdict: str) -> bool:
        """True if this verdict is the expected verdict. A guest that is expected to pass may also
        power off without a verdict of its own: ``armvirt run`` treats this as success, too."""
        return verdict == self.expect or (self.expect == "pass" and verdict == "off")

    def difference(self, result: Result) -> str:
        """How a run differs from its expected result, as text, for example "expected pass, got
        stuck". The text is "" if the run is as expected."""
        if self.exit_raw is not None and result.guest_code != self.exit_raw:
            ended = (
                f"exit code {result.guest_code}"
                if result.guest_code is not None
                else result.verdict
            )
            return f"expected exit code {self.exit_raw}, got {ended}"
        if self.exit_raw is None and not self.accepts(result.verdict):
            return f"expected {self.expect}, got {result.verdict}"
        if isinstance(self.trace_hash, str) and result.trace_hash != self.trace_hash:
            return f"expected trace hash {self.trace_hash}, got {result.trace_hash}"
        return ""

    def config(self) -> BoardConfig:
        """The board configuration that `machine` uses. No machine is made."""
        from armvirt.board.config import BoardConfig

        guest = find(self.image) if self.image is not None else None
        board = {
            name: value for name, value in self.settings.items() if name in BoardConfig._fields
        }
        if guest is not None:
            board["cpus"] = guest.cpus_or(board.get("cpus"))
        return BoardConfig(guest.file if guest is not None else None, **board)

    def outputs(self) -> dict[str, str | None]:
        """The files that the run writes, by their key in armvirt.toml."""
        return {"trace": self.trace, "dump-dtb": self.dump_dtb}

    @property
    def timeout_s(self) -> float:
        return float(self.limits.get("timeout_s", DEFAULT_TIMEOUT_S))
