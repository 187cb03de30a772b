"""The state of one interrupt: SGI, PPI, SPI (`Irq`) or LPI (`Lpi`).

Only data lives here; who may change it, and what follows from a change, is in `state.py` and
`lpi.py`.
"""

from __future__ import annotations

SPURIOUS = 1023  # IHI 0069 2.2.1: the special INTIDs are 1020-1023
GROUP1_PENDING = 1022  # IHI 0048 3.2.5: GICC_IAR when the highest pending interrupt is in Group 1 and AckCtl is 0
FIRST_SPECIAL, LAST_SPECIAL = 1020, 1023
FIRST_SPI = 32
FIRST_LPI = 8192
PRIORITY_MASK = 0xF8  # the Distributor of this implementation stores five priority bits
IDLE_PRIORITY = 0xFF
NOWHERE = -1


class Irq:
    """One interrupt of one CPU (INTID 0-31) or of the Distributor (an SPI).

    `latch` is the pending latch: set by an edge, by ISPENDR or by an SGI; for a level-sensitive
    interrupt the wire `line` is ORed to it (IHI 0048 figure 4-10, IHI 0069 GICD_ISPENDR<n>).
    `where` is the CPU whose candidate set holds the interrupt now, NOWHERE if it is not
    deliverable.
    """

    __slots__ = (
        "active",
        "active_group",  # group and priority as they were when the interrupt became active
        "active_on",  # the CPU on which it is active; NOWHERE also for an SPI made active with no target
        "active_prio",
        "active_source",  # GICv2 SGI: the CPUID of the active instance
        "cpu",  # the owner of a private interrupt, NOWHERE for an SPI
        "edge",
        "enabled",
        "group",
        "intid",
        "key",  # priority, then INTID: the order in which this model picks
        "latch",
        "line",
        "prio",
        "route",  # v2: ITARGETSR byte; v3: IROUTER [31:0]
        "sources",  # GICv2 SGI: bitmap of the CPUs from which an instance is pending
        "where",
    )

    def __init__(self, intid: int, cpu: int, group: int) -> None:
        self.intid = intid
        self.cpu = cpu
        self.group = group
        self.enabled = intid < 16  # SGIs reset to enabled; GICD_ICENABLER0 may disable them here
        self.edge = intid < 16  # IHI 0069 GICR_ICFGR0: SGIs are always edge-triggered
        self.line = False
        self.latch = False
        self.prio = 0
        self.key = intid
        self.route = 0
        self.sources = 0
        self.where = NOWHERE
        self.active = False
        self.active_on = NOWHERE
        self.active_prio = 0
        self.active_group = 0
        self.active_source = 0

    def set_priority(self, value: int) -> None:
        self.prio = value & PRIORITY_MASK
        self.key = self.prio << 24 | self.intid

    def pending(self) -> bool:
        return self.latch or (self.line and not self.edge)

    def snapshot(self) -> dict[str, int]:
        """Every field but `where`, which follows from the others."""
        return {
            name: int(getattr(self, name)) for name in Irq.__slots__ if name not in ("where", "key")
        }


class Lpi(Irq):
    """An LPI that the ITS maps. IHI 0069 5.1: Group 1, edge-like, no active state, configured in
    memory.

    `enabled` and `prio` are the cached configuration byte; `cpu` is the Redistributor that holds
    the pending state, `home` the one to which the ITS sends the next MSI (they differ only after
    MOVALL).
    """

    __slots__ = ("cached", "home", "refs")

    def __init__(self, intid: int, home: int) -> None:
        super().__init__(intid, home, group=1)
        self.edge = True
        self.home = home
        self.refs = 0  # ITS mappings of this INTID; more than one is UNPREDICTABLE
        self.cached = False  # whether the configuration byte has been read at all
