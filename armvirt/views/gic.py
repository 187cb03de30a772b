"""The state of the guest's interrupt controller as a printable object: ``print(machine.gic)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from armvirt.errors import UserError
from armvirt.hyp.diagnosis import gic_view as snapshot
from armvirt.hyp.diagnosis import its_view as its_snapshot
from armvirt.intids import IntidNames
from armvirt.tables import Showable, Table, table_of

if TYPE_CHECKING:
    from armvirt.subject import Subject

UNUSED = "no interrupt is enabled, pending or active (SGIs are always enabled)"

#: The columns of the CPU interfaces. There are two tables, because one would be too wide.
GUEST_SIDE = (
    "vcpu", "loaded", "group 0", "group 1", "PMR", "RPR", "HPPI", "BPR0", "BPR1", "CBPR", "EOImode", "signals",
)  # fmt: skip
EL2_SIDE = ("vcpu", "HCR", "VMCR", "AP0R", "AP1R")
#: The columns that are left out if they are empty. Together with the shorter names in `HEADINGS`,
#: this makes a table fit 80 characters.
OPTIONAL = ("line", "host", "pINTID", "EOI")
HEADINGS = {
    "enabled": "on", "pending": "pend", "priority": "prio", "list register": "LR",
    "intid": "INTID", "icid": "collection",
}  # fmt: skip


class GicView(Showable):
    """A snapshot of the interrupt controller, taken when this object is made. ``vcpu`` selects the
    private interrupts and registers of one vCPU; None selects all vCPUs. If ``everything`` is True,
    the snapshot includes the interrupts that are not in use. Raises UserError if the vCPU does not
    exist."""

    def __init__(
        self, machine: Subject, vcpu: int | None = None, *, everything: bool = False
    ) -> None:
        vgic = machine.board.vm.vgic_of()
        cpus = [cpu for cpu in vgic.dist.cpus() if vcpu in (None, cpu.vcpu_id)]
        if not cpus:
            raise UserError(
                f"CPU {vcpu} does not exist: this machine has {len(machine.board.vcpus)}, counted from 0"
            )
        self._names = IntidNames(machine.board.memmap)
        self.ns, self.model = machine.ns, vgic.model
        self.distributor = snapshot.distributor(vgic.dist)
        self.redistributors = snapshot.redistributors(vgic.dist, cpus)
        self.interfaces = snapshot.interfaces(vgic.dist, cpus)
        self.list_registers = snapshot.list_registers(cpus)
        self.its = its_snapshot.of(vgic)
        self._shows_its = everything or its_snapshot.in_use(vgic)
        self.interrupts = snapshot.interrupts(vgic.dist, cpus, everything=everything)

    def __repr__(self) -> str:
        return f"<GicView: GICv{self.model} at {self.ns:,} ns, {len(self.interrupts)} interrupts>"

    def rows(self) -> list[dict[str, object]]:
        """The interrupts as dictionaries, one per interrupt."""
        return self.interrupts

    def data(self) -> dict[str, Any]:
        """The complete snapshot as plain data for JSON."""
        return {
            "ns": self.ns, "model": self.model, "distributor": self.distributor,
            "redistributors": self.redistributors, "interfaces": self.interfaces,
            "list_registers": self.list_registers, "its": self.its, "interrupts": self.interrupts,
        }  # fmt: skip

    def tables(self) -> list[Table | str]:
        parts: list[Table | str] = [
            f"GICv{self.model} at {self.ns:,} ns",
            table_of("distributor", self.distributor),
        ]
        if self.redistributors:
            parts.append(table_of("redistributors", self.redistributors))
        if self._shows_its:
            parts += [
                table_of(name, rows, (), (), HEADINGS) for name, rows in self.its.items() if rows
            ]
        parts.append(table_of("CPU interfaces", self.interfaces, GUEST_SIDE))
        parts.append(table_of("hypervisor interface (ICH_*_EL2)", self.interfaces, EL2_SIDE))
        if self.list_registers:
            parts.append(
                table_of(
                    "list registers",
                    self._named(self.list_registers, "INTID"),
                    (),
                    OPTIONAL,
                    HEADINGS,
                )
            )
        if not self.interrupts:
            return [*parts, UNUSED]
        table = table_of(
            "interrupts", self._named(self.interrupts, "INTID"), (), OPTIONAL, HEADINGS
        )
        return [*parts, table._replace(marks=self._marks())]

    def _marks(self) -> dict[int, str]:
        """The style of each row of the table: bold for pending or active interrupts, faint for
        disabled interrupts."""
        return {
            n: "bold yellow" if row["pending"] else "bold green" if row["active"] else "dim"
            for n, row in enumerate(self.interrupts)
            if row["pending"] or row["active"] or not row["enabled"]
        }

    def _named(self, rows: list[dict[str, object]], column: str) -> list[dict[str, object]]:
        """A copy of ``rows`` for display. Each INTID in the column ``column`` is followed by its
        name."""
        return [{**row, column: self._names.short(row[column])} for row in rows]
