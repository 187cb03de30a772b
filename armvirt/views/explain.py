"""Explains why a vCPU does not take an interrupt. An `Explanation` lists each check on the
interrupt's way to the vCPU, the register that the check reads, and the last write of this register.

machine = Machine("wfi-forever", sinks=[LastWriters()])
machine.run()
print(machine.explain(27))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from armvirt.arch.gic import FIRST_LPI, ISACTIVER
from armvirt.errors import UserError
from armvirt.hyp.diagnosis.finding import Check, Finding
from armvirt.hyp.diagnosis.register_names import kind_of
from armvirt.hyp.diagnosis.trace import LPIS_END, first_held
from armvirt.intids import IntidNames
from armvirt.records import NamedTuple
from armvirt.tables import Showable, Table
from armvirt.trace.writers import LastWriters
from armvirt.views.causes import Cause, Evidence, cause_of
from armvirt.views.causes.written import Lookup, is_bit_of, of_finding, of_pending, place

if TYPE_CHECKING:
    from armvirt.hyp.vgic.irq import VgicIrq
    from armvirt.subject import Subject

__all__ = ["Explanation", "LastWriters", "Step", "explain"]

#: Checks that fail only as a consequence of an earlier check that blocks the interrupt.
CONSEQUENCES = (Check.PENDING, Check.LOADED)
UNRECORDED = (
    "Nothing was recorded: who wrote what, and how often the interrupt was taken and ended, is unknown "
    "(Machine(..., sinks=[LastWriters()]) records it)."
)


class Step(NamedTuple):
    """The result of one check as text. ``station`` is the check that was made. ``register`` and
    ``value`` are the register that the check reads, and its value. ``written`` tells when and where
    in the guest's code this register was last written, or the interrupt was last raised or
    acknowledged. ``writer`` is the longer form of ``written``, with the address of the code. Both
    are "" if the event was not recorded, or if a guest cannot write the register."""

    station: Check
    passed: bool
    text: str
    register: str
    value: str
    written: str
    writer: str
    remedy: str


class Explanation(Showable):
    """The reason why a vCPU does not take an interrupt. ``vcpu`` is the id of the vCPU. ``intid``
    is the INTID of the interrupt. ``ns`` is the virtual time in ns at which the interrupt was
    checked. ``where`` is the PC of the vCPU at this time, as text with its symbol.

    ``steps`` are the results of the checks. ``held`` is the first check that blocks the interrupt;
    None if the interrupt is taken. ``state`` is "handled" if the interrupt is active. It is
    "entered" if the vCPU took an interrupt exception and has acknowledged no interrupt since.
    Otherwise it is "waiting".

    ``cause`` is the mistake of the guest that the history of the run shows; None if the history
    shows no mistake (`armvirt.views.causes`). ``recorded`` is True if there is a history.
    ``versus`` is a text that says why the vCPU takes a second interrupt instead; "" if the caller
    did not name a second interrupt.
    """

    def __init__(
        self, intid: int, vcpu: int, ns: int, where: str, steps: Sequence[Step], state: str = "waiting",
        versus: str = "", cause: Cause | None = None, recorded: bool = True, *, names: IntidNames,
    ) -> None:  # fmt: skip
        self._names = names
        self.cause, self.recorded = cause, recorded
        self.intid, self.vcpu, self.ns, self.where, self.state, self.versus = (
            intid,
            vcpu,
            ns,
            where,
            state,
            versus,
        )
        self.steps = tuple(steps)

    def __repr__(self) -> str:
        return f"<Explanation: {self.verdict}>"

    @property
    def held(self) -> Step | None:
        return next((step for step in self.steps if not step.passed), None)

    @property
    def also(self) -> list[str]:
        """The names of the blocking checks after the first blocking check. The checks in
        `CONSEQUENCES` are left out, because they fail only as long as the first check fails."""
        later = (step.station for step in self.steps if not step.passed and step is not self.held)
        return [station.value for station in later if station not in CONSEQUENCES]

    @property
    def name(self) -> str:
        """The interrupt as text: ``INTID 27 (PPI, vtimer)``."""
        kind = kind_of(self.intid)
        return (
            f"INTID {self.intid} ({', '.join(filter(None, (kind, self._names.get(self.intid))))})"
        )

    @property
    def verdict(self) -> str:
        """The answer in one line. This is the guest's mistake if the history shows a mistake,
        otherwise the first check that blocks the interrupt. The line also says what would change
        the result."""
        return self._names.with_names(self._verdict)

    @property
    def _verdict(self) -> str:
        held, who = self.held, f"INTID {self.intid}"
        if self.cause is not None:
            remedy = f" To change it: {self.cause.remedy}." if self.cause.remedy else ""
            return f"{who} {self.cause.text}.{remedy}{self._also if self.cause.on_its_way else ''}"
        if held is None:
            return f"{who} is taken by vCPU {self.vcpu} before its next instruction."
        written = f" ({held.writer})" if held.writer else ""
        if self.state == "handled":
            return f"{who} is being handled by vCPU {self.vcpu}: {held.text}{written}. Next: {held.remedy}."
        if self.state == "entered":
            return f"{who} is being taken by vCPU {self.vcpu}: {held.text}. Next: {held.remedy}."
        remedy = f" To change it: {held.remedy}." if held.remedy else ""
        return f"{who} is not taken by vCPU {self.vcpu}: {held.text}{written}.{remedy}{self._also}"

    @property
    def _also(self) -> str:
        return f" Also in its way: {', '.join(self.also)}." if self.also else ""

    def rows(self) -> list[dict[str, object]]:
        """All checks as plain data."""
        return [{**step._asdict(), "station": step.station.value} for step in self.steps]

    def data(self) -> dict[str, Any]:
        """The complete explanation as plain data, for JSON."""
        held = self.held
        return {
            "intid": self.intid, "name": self._names.get(self.intid), "vcpu": self.vcpu, "ns": self.ns,
            "pc": self.where, "state": self.state,
            "taken": held is None, "held": None if held is None else held.station.value, "also": self.also,
            "cause": None if self.cause is None else self.cause.name, "recorded": self.recorded,
            "verdict": self.verdict, "versus": self.versus or None, "stations": self.rows(),
        }  # fmt: skip

    def tables(self) -> list[Table | str]:
        title = f"{self.name} on its way to vCPU {self.vcpu}, at {self.ns:,} ns, pc {self.where}"
        recorded = any(step.written for step in self.steps)
        columns = (
            "station",
            "",
            "state",
            "register",
            "value",
            *(("last written",) if recorded else ()),
        )
        rows = tuple(self._cells(step)[: len(columns)] for step in self.steps)
        table = Table(title, columns, rows, self._marks())
        unknown = "" if self.recorded else UNRECORDED
        return [
            "\n".join(filter(None, (self.verdict, self.versus))),
            table,
            *([unknown] if unknown else []),
        ]

    def _cells(self, step: Step) -> tuple[str, ...]:
        sign = "ok" if step.passed else "NO" if step is self.held else "no"
        name = step.register.partition(" (")[0]  # without the address, which is in the verdict
        text = self._names.with_names(step.text)
        return step.station.value, sign, text, name, step.value, step.written

    def _marks(self) -> dict[int, str]:
        """The style of each row of the table: red for the first check that blocks the interrupt,
        green for the checks before it, faint for the checks after it."""
        held = self.held
        at = len(self.steps) if held is None else self.steps.index(held)
        return {
            n: "red" if n == at else "green" if n < at else "dim" for n in range(len(self.steps))
        }


def explain(
    machine: Subject, intid: int, vcpu: int | None = None, versus: int | None = None
) -> Explanation:
    """Explain why a vCPU does not take an interrupt. ``intid`` is the INTID of the interrupt.
    ``vcpu`` is the id of the vCPU. If ``vcpu`` is None, this is the target of an SPI or LPI; for an
    SGI or PPI it is the first vCPU that uses the interrupt. ``versus`` is the INTID of a second
    interrupt that the vCPU takes instead; None if there is none. Raises UserError if one of the
    interrupts or the vCPU does not exist."""
    vm = machine.board.vm
    check(machine, intid, vcpu)
    who = _whose(machine, intid) if vcpu is None else vcpu
    findings = vm.diagnose(who, intid)
    names = IntidNames(machine.board.memmap)
    text = ""
    if versus is not None:
        check(machine, versus)
        text = names.with_names(f"Versus INTID {versus}: {vm.compare(who, versus, intid).text}.")
    scene = _Scene(
        machine,
        intid,
        who,
        next((sink for sink in machine.sinks if isinstance(sink, LastWriters)), None),
    )
    state, steps = _story(scene, findings)
    pc, recorder = machine.board.vcpus[who].context.pc, scene.recorder
    cause = (
        None if recorder is None else cause_of(Evidence(machine, intid, who, findings, recorder))
    )
    where = place(pc, scene.names)
    return Explanation(
        intid, who, machine.ns, where, steps, state, text, cause, recorder is not None, names=names
    )


class _Scene(NamedTuple):
    machine: Subject
    intid: int
    vcpu: int
    recorder: LastWriters | None

    @property
    def names(self) -> Lookup | None:
        return self.machine.symbols.lookup if self.machine.symbols is not None else None


def check(machine: Subject, intid: int, vcpu: int | None = None) -> None:
    """Raise UserError if this machine does not have an interrupt or a vCPU. ``intid`` is the INTID
    of the interrupt. ``vcpu`` is the id of the vCPU. If ``vcpu`` is None, only the interrupt is
    checked."""
    cpus = len(machine.board.vcpus)
    if vcpu is not None and not 0 <= vcpu < cpus:
        raise UserError(f"CPU {vcpu} does not exist: this machine has {cpus}, counted from 0")
    vgic = machine.board.vm.vgic_of()
    last = min(vgic.dist.nr_irqs, 1020) - 1
    if 0 <= intid <= last or (vgic.its and FIRST_LPI <= intid < LPIS_END):
        return
    have = f"SGIs 0-15, PPIs 16-31, SPIs 32-{last}"
    if vgic.its:
        have += f", LPIs {FIRST_LPI}-{LPIS_END - 1}"
    elif intid >= FIRST_LPI:
        have += "; no LPIs, for " + ("a GICv2 has none" if vgic.model == 2 else "there is no ITS")
    raise UserError(f"INTID {intid} does not exist: this GIC has {have}")


def _whose(machine: Subject, intid: int) -> int:
    """The vCPU to explain if the caller has named no vCPU. This is the target of an SPI or LPI. For
    a private interrupt, it is the first vCPU that uses the interrupt."""
    dist = machine.board.vm.vgic_of().dist
    if intid >= 32:
        irq = dist.lpis.get(intid) if intid >= FIRST_LPI else dist.spi(intid)
        return 0 if irq is None or irq.target is None else irq.target
    ids = [vcpu.id for vcpu in machine.board.vcpus]
    return next((n for n in ids if _matters(machine, dist.irq(n, intid), n)), ids[0])


def _matters(machine: Subject, irq: VgicIrq, vcpu: int) -> bool:
    timers = machine.board.vcpus[vcpu].timer.shown()
    armed = any(row.ppi == irq.intid and row.fires_in_ns is not None for row in timers)
    return armed or irq.pending or irq.active or irq.lr >= 0 or (irq.enabled and irq.intid >= 16)


def _story(scene: _Scene, findings: Sequence[Finding]) -> tuple[str, list[Step]]:
    """The state and the steps of an explanation. The state is "handled" if the interrupt is active.
    It is "entered" if only PSTATE masks the interrupt, and the vCPU took an interrupt exception but
    has acknowledged no interrupt since: a read of IAR would then return this interrupt. Otherwise
    the state is "waiting"."""
    steps, held = [_step(scene, finding) for finding in findings], first_held(findings)
    if held is None:
        return "waiting", steps
    active = held.register is not None and is_bit_of(held.register, ISACTIVER)
    if active and held.station in (Check.PENDING, Check.ACTIVE):
        return "handled", steps
    entry = scene.recorder.entered(scene.vcpu) if scene.recorder is not None else None
    if held.station is not Check.PSTATE or entry is None:
        return "waiting", steps
    text = (
        f"{held.text}: an interrupt was taken at {entry.ns:,} ns, and nothing is acknowledged yet"
    )
    return "entered", [
        *steps[:-1],
        steps[-1]._replace(text=text, remedy="its handler reads IAR, which will give it"),
    ]


def _step(scene: _Scene, finding: Finding) -> Step:
    register, value = finding.register, "" if finding.value is None else f"{finding.value:#x}"
    name = "" if register is None else str(register._replace(field=""))
    written = of_finding(finding, scene.intid, scene.vcpu, scene.recorder, scene.names)
    if finding.station is Check.PENDING and finding.passed and scene.recorder is not None:
        written = of_pending(scene.recorder.history.of(scene.intid, scene.vcpu), written)
    return Step(
        finding.station, finding.passed, finding.text, name, value, written.short, written.full, finding.remedy
    )  # fmt: skip
