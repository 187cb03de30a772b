"""As `twin`, for a GICv2."""

from __future__ import annotations

from collections.abc import Callable

import twin
from gicmodel.model import GicModel
from twin import ICFGR, MASKS, NR_IRQS, SGIS, SPIS, Act, Host, Twin
from vgic_v2_rig import OFFSETS, V2Rig

from armvirt.arch.gic import FIRST_SPECIAL, SPURIOUS

GICD_CTLR, ITARGETSR, SGIR, CPENDSGIR, SPENDSGIR = 0, 0x800, 0xF00, 0xF10, 0xF20
ACKCTL, EOIMODE = 1 << 2, 1 << 9


class V2Host(Host):
    """The rig of a GICv2 under the host's interface."""

    def __init__(self, cpus: int, list_registers: int, prebits: int) -> None:
        self.shape = (cpus, list_registers, prebits)
        rig = V2Rig(cpus, list_registers, NR_IRQS, enable=False, prebits=prebits)
        self.bus, self.gic, self.vifs, self.vgic = rig.bus, rig.gic, rig.vifs, rig.vgic
        self.frames = {"GICD": rig.dist, "GICC": rig.cpuif}
        self.pe_of = list(range(cpus))


class V2Twin(Twin):
    """``acked`` holds what GICC_IAR or GICC_AIAR returned, and the interrupt's group."""

    def make_host(self, cpus: int, list_registers: int, prebits: int) -> Host:
        return V2Host(cpus, list_registers, prebits)

    def make_model(self, prebits: int) -> GicModel:
        return GicModel(2, self.cpus, NR_IRQS, prio_bits=prebits)

    def set_up(self) -> None:
        for word in range(2, NR_IRQS // 16):
            self.dist_write(0, ICFGR + 4 * word, 4, 0x2222_2222)
        for intid in range(32, NR_IRQS):
            self.dist_write(0, ITARGETSR + intid, 1, 1)
        for cpu in range(self.cpus):
            self.gicc_write(cpu, "CTLR", 3)
            self.gicc_write(cpu, "PMR", 0xFF)
        self.dist_write(0, GICD_CTLR, 4, 3)

    def write(self, cpu: int, intid: int, offset: int, size: int, value: int) -> None:
        self.dist_write(cpu, offset, size, value)

    def read(self, cpu: int, intid: int, offset: int, size: int) -> None:
        ours, theirs = (
            self.host.frames["GICD"].read(cpu, offset, size),
            self.model.dist_read(cpu, offset, size),
        )
        assert ours == theirs, (
            f"register {offset:#x} size {size}: {ours:#x}, the model has {theirs:#x}"
        )

    def gicc_write(self, cpu: int, register: str, value: int) -> None:
        self.host.frames["GICC"].write(cpu, OFFSETS[register], 4, value)
        self.model.gicc_write(cpu, OFFSETS[register], 4, value)

    def gicc_read(self, cpu: int, register: str) -> int:
        ours = self.host.frames["GICC"].read(cpu, OFFSETS[register], 4)
        theirs = self.model.gicc_read(cpu, OFFSETS[register], 4)
        assert ours == theirs, f"GICC_{register} of CPU {cpu}: {ours:#x}, the model has {theirs:#x}"
        return ours

    def ctlr(self, cpu: int) -> int:
        return self.host.vif(cpu).vmcr

    def take(self, cpu: int, register: str, group: int) -> int:
        """Read HPPIR, IAR or an alias (``group`` 1): any of those that share the highest priority
        may be chosen."""
        ours = self.host.frames["GICC"].read(cpu, OFFSETS[register], 4)
        intid, source = ours & 0x3FF, ours >> 10
        prefer = None if intid >= FIRST_SPECIAL else (intid, source)
        interface = self.model._state.cpus[cpu]
        if prefer is None:
            hidden = {self._hidden(cpu, irq.group, group) for irq in interface.ties()
                      if "HPPIR" in register or interface.signalled(irq)}  # fmt: skip
            waits = (
                any(not interface.signalled(irq) for irq in interface.ties())
                or not interface.ties()
            )
            assert ours in hidden or (ours == SPURIOUS and waits), (
                f"{register} of CPU {cpu}: {ours:#x}, not {hidden}"
            )
            return ours
        assert prefer in self.model.tie_candidates(cpu), f"{register} of CPU {cpu}: {ours:#x}"
        theirs = self.model.gicc_read(cpu, OFFSETS[register], 4, prefer)
        assert ours == theirs, f"{register} of CPU {cpu}: {ours:#x}, the model has {theirs:#x}"
        return ours

    def _hidden(self, cpu: int, interrupt: int, group: int) -> int:
        """What stands in a register of ``group`` for an ``interrupt`` of a group that it does not
        show; 0: it does."""
        if group:
            return 0 if interrupt else SPURIOUS
        return 1022 if interrupt and not self.ctlr(cpu) & ACKCTL else 0


# Actions ----------------------------------------------------------------------------------------


def send_sgi(pair: V2Twin, cpu: int, x: int, y: int) -> None:
    pair.dist_write(cpu, SGIR, 4, SGIS[x & 3] | (x >> 2 & 0xFF) << 16 | (y & 3) << 24)


def set_sources(pair: V2Twin, cpu: int, x: int, y: int) -> None:
    """Set or clear single senders; read which wait."""
    offset = (SPENDSGIR, CPENDSGIR)[y & 1] + SGIS[x & 3]
    pair.dist_write(cpu, offset, 1, x >> 2 & (1 << pair.cpus) - 1)
    pair.read(cpu, 0, offset & ~3, 4)


def route(pair: V2Twin, cpu: int, x: int, y: int) -> None:
    """A mask of CPUs, now and then empty. With one CPU these registers are RAZ/WI, which the model
    does not know."""
    if pair.cpus == 1:
        return
    intid = SPIS[x % len(SPIS)]
    pair.dist_write(cpu, ITARGETSR + intid, 1, y & 0xFF)
    pair.read(cpu, intid, ITARGETSR + (intid & ~3), 4)


def acknowledge(pair: V2Twin, cpu: int, x: int, _: int) -> None:
    aliased = int(x % 4 == 0)
    highest = pair.take(cpu, ("HPPIR", "AHPPIR")[aliased], aliased)
    value = pair.take(cpu, ("IAR", "AIAR")[aliased], aliased)
    if value & 0x3FF < FIRST_SPECIAL:
        assert value == highest, "IAR and HPPIR agree"
        pair.acked[cpu].append((value, pair.irq(cpu, value & 0x3FF).group))


def end(pair: V2Twin, cpu: int, x: int, _: int) -> None:
    if x % 16 == 0:
        pair.gicc_write(cpu, ("EOIR", "AEOIR")[x >> 4 & 1], 1020 + (x >> 5) % 4)
    if not pair.acked[cpu]:
        return
    value, group = pair.acked[cpu].pop()
    if pair.ctlr(cpu) & EOIMODE:
        pair.dropped.append((value, cpu))
    plain = not group or (pair.ctlr(cpu) & ACKCTL and x & 1)
    pair.gicc_write(cpu, "EOIR" if plain else "AEOIR", value)


def deactivate(pair: V2Twin, cpu: int, x: int, y: int) -> None:
    if not pair.dropped:
        return
    value, owner = pair.dropped.pop(x % len(pair.dropped))
    foreign = value & 0x3FF >= 32 and y & 1 and pair.ctlr(cpu) & EOIMODE
    pair.gicc_write(cpu if foreign else owner, "DIR", value)


def set_mask(pair: V2Twin, cpu: int, x: int, _: int) -> None:
    pair.gicc_write(cpu, "PMR", MASKS[x % len(MASKS)])
    pair.gicc_read(cpu, "PMR")


def set_binary_point(pair: V2Twin, cpu: int, x: int, y: int) -> None:
    register = ("BPR", "ABPR")[x & 1]
    if not pair.busy(cpu):
        pair.gicc_write(cpu, register, y % 8 if y & 8 else 0)
    pair.gicc_read(cpu, register)


def control(pair: V2Twin, cpu: int, x: int, y: int) -> None:
    """Everything while nothing is in flight; afterwards all but what decides how it ends."""
    value = 3 if y & 3 else x & 3
    if pair.busy(cpu) or any(owner == cpu for _, owner in pair.dropped):
        value |= pair.ctlr(cpu) & 0x210 | x & 0xC
    else:
        value |= x & 0x21C
    pair.gicc_write(cpu, "CTLR", value)
    assert pair.gicc_read(cpu, "CTLR") == value


def read_running(pair: V2Twin, cpu: int, _: int, __: int) -> None:
    for register in ("RPR", "APR0", "APR1", "APR3"):
        pair.gicc_read(cpu, register)
    for aliased in (0, 1):
        pair.take(cpu, ("HPPIR", "AHPPIR")[aliased], aliased)


_OWN = (
    send_sgi,
    route,
    acknowledge,
    end,
    deactivate,
    set_mask,
    set_binary_point,
    control,
    read_running,
)
_REPLACED: dict[str, Callable[..., None]] = {act.__name__: act for act in _OWN}
V2Twin.actions = (
    *(
        act._replace(act=_REPLACED.get(act.name, act.act))
        for act in twin.ACTIONS
        if act.name != "enable_group"
    ),
    Act("set_sources", 4, set_sources),
)
