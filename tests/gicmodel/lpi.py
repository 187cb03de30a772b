"""LPIs as the Redistributors hold them: configuration, pending state, GICR_CTLR.EnableLPIs. IHI
0069 chapter 5.

The configuration byte of an LPI is *cached*: it is read again only by INV, INVALL, GICR_INVLPIR,
GICR_INVALLR, the mapping of a new INTID and EnableLPIs 0 to 1. The pending tables in memory are
read and never written.
"""

from __future__ import annotations

from .irq import FIRST_LPI, NOWHERE, Lpi
from .memory import Memory
from .state import GicState

INTID_LIMIT = 1 << 16  # GICD_TYPER.IDbits: 16 bits
IDBITS_MASK = 0x1F
CONFIG_ADDRESS = 0xFFFFFFFFFF << 12
PENDING_ADDRESS = 0xFFFFFFFFF << 16
CONFIG_PRIORITY = 0xFC  # IHI 0069 5.1.1: [7:2] priority, [0] enable
FIRST_LPI_BYTE = FIRST_LPI // 8  # the first 1 KiB of a pending table is not LPIs


class LpiTables:
    """GICR_PROPBASER, GICR_PENDBASER and EnableLPIs of one Redistributor."""

    __slots__ = ("enabled", "loaded", "pendbase", "propbase", "zero")

    def __init__(self) -> None:
        self.propbase = 0
        self.pendbase = 0
        self.zero = False  # the last write of GICR_PENDBASER had PTZ 1
        self.enabled = False
        self.loaded = (
            False  # EnableLPIs has been 1 before: the Redistributor's own pending state counts
        )

    def limit(self) -> int:
        """INTIDs from here on do not exist. IHI 0069 GICR_PROPBASER.IDbits, capped by
        GICD_TYPER.IDbits."""
        return min(2 << (self.propbase & IDBITS_MASK), INTID_LIMIT)


class LpiUnit:
    __slots__ = ("lpis", "memory", "state", "tables")

    def __init__(self, state: GicState, memory: Memory | None) -> None:
        self.state = state
        self.memory = memory
        self.tables = [LpiTables() for _ in state.cpus]
        self.lpis: dict[int, Lpi] = {}

    def _memory(self) -> Memory:
        assert self.memory is not None, "LPIs need guest memory"
        return self.memory

    # ---- delivery

    def settle(self, lpi: Lpi) -> None:
        """Put the LPI into the candidate set of its Redistributor's CPU, or into none."""
        cpu = lpi.cpu
        if cpu != NOWHERE:
            tables = self.tables[cpu]
            if tables.enabled:
                if not lpi.cached:
                    self.refresh(lpi)
                if lpi.latch and lpi.enabled and lpi.intid < tables.limit():
                    self.state.place(lpi, cpu)
                    return
        self.state.place(lpi, NOWHERE)

    def accepts(self, cpu: int, intid: int) -> bool:
        """Whether the Redistributor of `cpu` takes an MSI for `intid`: LPIs enabled there and INTID
        in range."""
        tables = self.tables[cpu]
        return tables.enabled and FIRST_LPI <= intid < tables.limit()

    def set_pending(self, lpi: Lpi, cpu: int) -> None:
        """An MSI (or INT command) that the ITS sends to the Redistributor of `cpu`."""
        if lpi.latch and lpi.cpu not in (cpu, NOWHERE):
            self.state.note("an LPI would be pending in two Redistributors")
        lpi.cpu = cpu
        lpi.latch = True
        self.settle(lpi)

    def clear_pending(self, lpi: Lpi) -> None:
        lpi.latch = False
        lpi.cpu = lpi.home
        self.settle(lpi)

    def move(self, lpi: Lpi, home: int) -> None:
        """The ITS sends the LPI to another CPU from now on; its pending state, if any, moves with
        it."""
        lpi.home = lpi.cpu = home
        self.settle(lpi)

    def move_all(self, source: int, destination: int) -> None:
        """MOVALL: the pending state only. The collections stay as they are until MAPC (IHI 0069
        5.3)."""
        for lpi in self.lpis.values():
            if lpi.latch and lpi.cpu == source:
                lpi.cpu = destination
                self.settle(lpi)

    # ---- existence: an LPI is known while the ITS maps it

    def map(self, intid: int, home: int) -> Lpi:
        lpi = self.lpis.get(intid)
        if lpi is None:
            lpi = self.lpis[intid] = Lpi(intid, home)
            self.refresh(lpi)
        else:
            self.state.note("two events are mapped to one LPI")  # IHI 0069 5.3 MAPTI: UNPREDICTABLE
            self.move(lpi, home)
        lpi.refs += 1
        return lpi

    def unmap(self, lpi: Lpi) -> None:
        lpi.refs -= 1
        if not lpi.refs:
            lpi.latch = False
            self.state.place(lpi, NOWHERE)
            del self.lpis[lpi.intid]

    # ---- configuration cache

    def refresh(self, lpi: Lpi) -> None:
        """Read the configuration byte. GICR_TYPER.CommonLPIAff is 0: all Redistributors share one
        table.

        Outside the table (PROPBASER not programmed yet) nothing is read and the LPI counts as not
        cached.
        """
        tables = self.tables[lpi.home if lpi.home != NOWHERE else 0]
        if lpi.intid >= tables.limit():
            return
        byte = self._memory().read((tables.propbase & CONFIG_ADDRESS) + lpi.intid - FIRST_LPI, 1)
        lpi.cached = True
        lpi.enabled = bool(byte & 1)
        lpi.set_priority(byte & CONFIG_PRIORITY)

    def invalidate(self, lpi: Lpi) -> None:
        self.refresh(lpi)
        self.settle(lpi)

    def invalidate_one(self, cpu: int, intid: int) -> None:
        """GICR_INVLPIR: no effect for an LPI that is not in this Redistributor (IHI 0069
        GICR_INVLPIR)."""
        lpi = self.lpis.get(intid)
        if lpi is not None and cpu in (lpi.home, lpi.cpu):
            self.invalidate(lpi)
        elif lpi is not None:
            self.state.note("GICR_INVLPIR of an LPI of another Redistributor")

    def invalidate_cpu(self, cpu: int) -> None:
        """GICR_INVALLR, and INVALL of a collection on `cpu`: all LPIs of that Redistributor."""
        for lpi in self.lpis.values():
            if cpu in (lpi.home, lpi.cpu):
                self.invalidate(lpi)

    # ---- GICR_CTLR.EnableLPIs

    def set_enabled(self, cpu: int, enabled: bool) -> None:
        tables = self.tables[cpu]
        if enabled == tables.enabled:
            return
        tables.enabled = enabled
        if enabled:
            self._check_common_table(tables)
            self._load_pending(cpu, tables)
            self.invalidate_cpu(cpu)
        else:
            # The pending state is held back here; memory is not updated.
            for lpi in self.lpis.values():
                if lpi.cpu == cpu:
                    self.settle(lpi)

    def _check_common_table(self, tables: LpiTables) -> None:
        if any(other.enabled and other.propbase != tables.propbase for other in self.tables):
            # IHI 0069 GICR_TYPER.CommonLPIAff: they share the table, so software must program the
            # same value
            self.state.note("GICR_PROPBASER differs between Redistributors with LPIs enabled")

    def _load_pending(self, cpu: int, tables: LpiTables) -> None:
        """Take the pending table of a Redistributor whose LPIs are enabled for the first time.

        With PTZ 1 the table is zero by promise and is not read. Later the Redistributor's own state
        counts, and a table that says otherwise is UNPREDICTABLE. A pending LPI that no ITS maps has
        nowhere to go in this model: UNPREDICTABLE too.
        """
        in_table = set() if tables.zero else self._pending_table(tables)
        if in_table - self.lpis.keys():
            self.state.note("the pending table holds an LPI that is not mapped")
        known = {lpi.intid for lpi in self.lpis.values() if lpi.cpu == cpu}
        if tables.loaded:
            if in_table & known != {intid for intid in known if self.lpis[intid].latch}:
                self.state.note("the pending table is not what the Redistributor held")
            return
        tables.loaded = True
        if in_table & self.lpis.keys() - known:
            self.state.note("the pending table holds an LPI of another Redistributor")
        for intid in in_table & known:
            self.lpis[intid].latch = True

    def _pending_table(self, tables: LpiTables) -> set[int]:
        base = tables.pendbase & PENDING_ADDRESS
        pending = set()
        for byte in range(FIRST_LPI_BYTE, tables.limit() // 8, 8):
            bits = self._memory().read(base + byte, 8)
            while bits:
                lowest = bits & -bits
                bits ^= lowest
                pending.add(byte * 8 + lowest.bit_length() - 1)
        return pending

    def snapshot(self) -> dict[str, object]:
        return {
            "tables": [
                {"enabled": t.enabled, "propbase": t.propbase, "pendbase": t.pendbase}
                for t in self.tables
            ],
            "lpis": {
                i: {
                    "pending": lpi.latch,
                    "enabled": lpi.enabled,
                    "prio": lpi.prio,
                    "cpu": lpi.cpu,
                    "home": lpi.home,
                }
                for i, lpi in sorted(self.lpis.items())
            },
        }
