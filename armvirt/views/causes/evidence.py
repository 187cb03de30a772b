"""The input of the rules in `armvirt.views.causes`: the present checks of an interrupt, and the
recorded history of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from armvirt.arch.gic import FIRST_LPI
from armvirt.events import Stamp
from armvirt.hyp.diagnosis import present_state as present
from armvirt.hyp.diagnosis import register_names as naming
from armvirt.hyp.diagnosis.finding import Check, Finding, Register
from armvirt.hyp.diagnosis.trace import first_held
from armvirt.intids import IntidNames
from armvirt.records import NamedTuple
from armvirt.trace.history import CpuPast, History, Past, Times
from armvirt.trace.sources import TIMER_INTIDS
from armvirt.trace.writers import LastWrite, LastWriters
from armvirt.views.causes import written
from armvirt.views.causes.written import Lookup, Written

if TYPE_CHECKING:
    from armvirt.hyp.timer.context import TimerRow
    from armvirt.hyp.vgic.distributor import Distributor
    from armvirt.hyp.vgic.irq import VgicIrq
    from armvirt.hyp.vgic.its.its import Its
    from armvirt.subject import Subject


class Cause(NamedTuple):
    """The reason why an interrupt is not taken, or is taken again and again. ``name`` identifies
    the cause for programs. ``text`` is a phrase that follows "INTID n", and ``remedy`` is a phrase
    in the imperative. Several checks can block an interrupt. If ``on_its_way`` is True, the
    explanation of this cause also lists the second and all further checks that block the
    interrupt."""

    name: str
    text: str
    remedy: str = ""
    on_its_way: bool = True


class Evidence(NamedTuple):
    """The data about one interrupt. From this data the rules find out why the interrupt is not
    taken, or why it is taken again and again. ``machine`` is the stopped machine. ``intid`` is the
    INTID of the interrupt. ``vcpu`` is the vCPU that should take the interrupt. ``findings`` are
    the results of the checks in the present state of the machine. ``recorder`` is the sink that
    recorded the run."""

    machine: Subject
    intid: int
    vcpu: int
    findings: Sequence[Finding]
    recorder: LastWriters

    # The present ---------------------------------------------------------------------------------

    @property
    def intid_names(self) -> IntidNames:
        return IntidNames(self.machine.board.memmap)

    @property
    def dist(self) -> Distributor:
        return self.machine.board.vm.vgic_of().dist

    @property
    def its(self) -> Sequence[Its]:
        return self.machine.board.vm.vgic_of().its

    @property
    def irq(self) -> VgicIrq | None:
        """The state of the interrupt. None for an LPI to which no event is mapped."""
        return (
            self.dist.lpis.get(self.intid)
            if self.intid >= FIRST_LPI
            else self.dist.irq(self.vcpu, self.intid)
        )

    @property
    def held(self) -> Finding | None:
        return first_held(self.findings)

    def holds(self, *stations: Check) -> Finding | None:
        """The result of the first check that blocks the interrupt. ``stations`` are the checks that
        the caller asks for. The result is None if the first blocking check is not one of
        ``stations``, or if no check blocks the interrupt."""
        held = self.held
        return held if held is not None and held.station in stations else None

    def at(self, station: Check) -> Finding | None:
        return next((finding for finding in self.findings if finding.station is station), None)

    @property
    def active(self) -> bool:
        return self.irq is not None and present.active(self.dist, self.irq)

    @property
    def pending(self) -> bool:
        return self.irq is not None and present.pending(self.dist, self.irq)

    @property
    def timer(self) -> str:
        """The name of the timer that raises the interrupt: ``vtimer`` or ``ptimer``. The name is ""
        if no timer raises the interrupt."""
        return next((name for name, intid in TIMER_INTIDS.items() if intid == self.intid), "")

    def timer_row(self, name: str = "") -> TimerRow:
        """CTL, CVAL, count and offset of a timer of this vCPU. ``name`` is ``vtimer`` or
        ``ptimer``; "" means the timer that raises the interrupt."""
        rows = self.machine.board.vcpus[self.vcpu].timer.shown()
        return next(row for row in rows if row.timer == (name or self.timer))

    def control(self, what: str) -> Register:
        """A control register of the CPU interface. ``what`` is the key of the register in
        `naming.CPU_INTERFACE`."""
        return naming.interface(self.dist, self.dist.cpu(self.vcpu), what)

    def bit(self, array: int, intid: int | None = None) -> Register:
        """The bit of an INTID in an array of registers with one bit per INTID. ``array`` is the
        offset of the array, such as `ISENABLER`. If ``intid`` is None, the result is the bit of the
        interrupt that this object describes."""
        return naming.bit_register(
            self.dist, self.dist.cpu(self.vcpu), self.intid if intid is None else intid, array
        )

    def code(self, pc: int) -> int | None:
        """The instruction word at the virtual address ``pc``; None if the address cannot be
        read."""
        ipa = self.machine.board.vcpus[self.vcpu].translate(pc)
        if ipa is None or pc % 4 or not self.machine.board.in_memory(ipa, 4):
            return None
        return int.from_bytes(self.machine.board.vm.read_memory(ipa, 4), "little")

    # The past ------------------------------------------------------------------------------------

    @property
    def history(self) -> History:
        return self.recorder.history

    @property
    def past(self) -> Past:
        return self.history.of(self.intid, self.vcpu)

    @property
    def cpu(self) -> CpuPast:
        return self.history.cpu(self.vcpu)

    def wrote(self, register: Register) -> str:
        """The last write of a register as text: writer, time and value. The text is
        ``never written`` if there was no write."""
        write = written.of_register(self.recorder, register)
        if write is None:
            return self.recorder.never("written")
        return written.describe(write, register, self.names, full=True)

    def write_of(self, register: Register) -> LastWrite | None:
        return written.of_register(self.recorder, register)

    def written(self, finding: Finding) -> Written:
        return written.of_finding(finding, self.intid, self.vcpu, self.recorder, self.names)

    # Words ---------------------------------------------------------------------------------------

    @property
    def names(self) -> Lookup | None:
        return self.machine.symbols.lookup if self.machine.symbols is not None else None

    def when(self, stamp: Stamp | None) -> str:
        """The time of an event, and its symbol in the guest's code, as text:
        ``1,234 ns by gic_init+0x20``."""
        return "an unknown time" if stamp is None else written.moment(stamp, self.names)

    def place(self, pc: int) -> str:
        return written.place(pc, self.names)


def taken(how_often: Times, evidence: Evidence) -> str:
    """How often an interrupt was taken, and when and where the last time, as text:
    ``taken once, at 1,234 ns by dispatch+0x54``."""
    last = "last " if how_often.count > 1 else ""
    return f"taken {times(how_often.count)}, {last}at {evidence.when(how_often.last)}"


def times(count: int) -> str:
    """A count as text: ``once``, ``twice``, ``949,637 times``."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count:,} times")
