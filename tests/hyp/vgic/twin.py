"""The vGIC and the reference model of a GIC. The same actions drive both, and each action ends in a
comparison.

An action is a tuple of small integers, so that a random generator and hypothesis can both make
them; the twin's `actions` give each its meaning. Actions whose effect the specification calls
UNPREDICTABLE are turned into others or end the case: `Twin.step` then returns False.

Where the specification leaves a choice (which of several interrupts of one priority comes first),
the model is asked whether what the vGIC did is among what it may do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from gicmodel.model import GicModel
from vgic_rig import QuietVm

from armvirt.arch.gic import (
    FIRST_LPI,
    FIRST_SPI,
    ICC_REGISTERS,
    IDLE_PRIORITY,
    LR_ACTIVE,
    LR_PENDING,
    SPURIOUS,
)
from armvirt.events import EventBus
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import IccAction, VirtualCpuInterface
from armvirt.hyp.vgic import Vgic
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.device import AddrType, Ctrl, Group, VgicDevice
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers.frames import Frame

NR_IRQS = 96
SGIS, PPIS, SPIS = (
    (0, 1, 2, 15),
    (16, 27, 31),
    (32, 33, 34, 35, 36, 37, 38, 40, 45, 50, 63, 64, 65, 66, 94, 95),
)
INTIDS = (*SGIS, *PPIS, *SPIS)
PRIORITIES = (0x00, 0x08, 0x10, 0x20, 0x40, 0x40, 0x60, 0x80, 0x80, 0x88, 0xA0, 0xC0, 0xF0, 0xF8)
MASKS = (0xFF, 0xFF, 0xF8, 0xF0, 0x80, 0x40, 0x10, 0x00)

GICD_CTLR, IGROUPR, ISENABLER, ICENABLER, ISPENDR, ICPENDR = 0, 0x80, 0x100, 0x180, 0x200, 0x280
ISACTIVER, ICACTIVER, IPRIORITYR, ICFGR, IROUTER = 0x300, 0x380, 0x400, 0xC00, 0x6000
BIT_REGISTERS = (IGROUPR, ISENABLER, ICENABLER, ISPENDR, ICPENDR, ISACTIVER, ICACTIVER)
SGI_BASE, GICR_SIZE = 0x1_0000, 0x2_0000
IRM = 1 << 31

Action = tuple[int, int, int, int]
"""Index into `ACTIONS`, a CPU, and two values whose meaning is the action's (0 to 2**16 - 1)."""


class Host:
    """PEs with virtual CPU interfaces, and the vGIC of one VM on them; vCPU n starts on PE n."""

    def __init__(self, cpus: int, list_registers: int, prebits: int) -> None:
        self.shape = (cpus, list_registers, prebits)
        self.bus, self.gic = EventBus(), PhysicalGic(cpus)
        self.vifs = [
            VirtualCpuInterface(n, self.gic, self.bus, list_registers, prebits) for n in range(cpus)
        ]
        self.vgic = Vgic(self.bus, QuietVm())
        device = VgicDevice(self.vgic)
        for n in range(cpus):
            self.vgic.add_vcpu(n, 1 << 31 | n)
        device.set_attr(Group.ADDR, AddrType.V3_DIST, 0x0800_0000)
        device.set_attr(Group.ADDR, AddrType.V3_REDIST, 0x080A_0000)
        device.set_attr(Group.NR_IRQS, 0, NR_IRQS)
        device.set_attr(Group.CTRL, Ctrl.INIT)
        self.vgic.map_resources()
        self.frames: dict[str, Frame] = {
            frame.frame.name: frame.frame for frame in self.vgic.mmio_frames()
        }
        self.pe_of = list(range(cpus))
        for n in range(cpus):
            self.vgic.load(n, self.vifs[n])

    def vif(self, cpu: int) -> VirtualCpuInterface:
        return self.vifs[self.pe_of[cpu]]

    def settle(self) -> None:
        """What the run loop does before it enters a guest again, until nothing is left to do."""
        vgic = self.vgic
        for _ in range(20):
            busy = [n for n, pe in enumerate(self.pe_of) if pe >= 0 and vgic.dirty(n)]
            for n in busy:
                vgic.sync(n)
                vgic.flush(n)
            if not busy:
                return
        raise AssertionError("the vGIC never comes to rest")

    def icc(self, cpu: int, register: str, value: int | None = None) -> int:
        encoding = ICC_REGISTERS[register]
        action, answer = self.vif(cpu).icc_access(
            encoding, value is not None, value or 0, 1, True, True
        )
        if action is IccAction.TRAP:
            assert value is not None
            if register == "ICC_DIR_EL1":
                self.vgic.dir(cpu, value)
            else:
                self.vgic.sgi(cpu, encoding, value)
        else:
            assert action is IccAction.DONE
        return answer

    def blank(self) -> Host:
        """A host of the same shape, with the same contents of memory if there is any."""
        return type(self)(*self.shape)

    def clone(self) -> Host:
        """A host of the same shape with this one's state, through JSON."""
        other = self.blank()
        for n in range(len(other.pe_of)):
            other.vgic.detach(n)
        saved = json.loads(
            json.dumps([self.vgic.state(), self.gic.state(), [vif.state() for vif in self.vifs]])
        )
        other.vgic.load_state(saved[0])
        other.gic.load(saved[1])
        for vif, state in zip(other.vifs, saved[2], strict=True):
            vif.load(state)
        other.pe_of = list(self.pe_of)
        for n, pe in enumerate(other.pe_of):
            if pe >= 0:
                other.vgic.attach(n, other.vifs[pe])
        return other


class Seen(NamedTuple):
    """What is so of one interrupt, wherever it is."""

    pending: bool
    active: bool


def peek(vgic: Vgic, irq: VgicIrq) -> Seen:
    """Pending and active state without folding anything."""
    holder = vgic.dist.cpu(irq.vcpu) if irq.vcpu is not None else None
    if irq.lr < 0 or holder is None or holder.vif is None:
        return Seen(irq.pending, irq.active)
    value = holder.vif.lr[irq.lr]
    offered = bool(value & LR_PENDING)
    if irq.level:
        latch = irq.pending_latch and not (irq.offered and not offered)
        return Seen(irq.line_level or latch, bool(value & LR_ACTIVE))
    return Seen(offered or irq.pending_latch, bool(value & LR_ACTIVE))


class Twin:
    """Both, and what the driver remembers of its guests: acknowledged and dropped interrupts,
    wires.

    ``actions`` are what this kind of GIC can be asked to do.
    """

    actions: tuple[Act, ...] = ()

    def __init__(self, cpus: int = 2, list_registers: int = 4, prebits: int = 5) -> None:
        self.cpus = cpus
        self.host = self.make_host(cpus, list_registers, prebits)
        self.model = self.make_model(prebits)
        self.acked: list[list[tuple[int, int]]] = [
            [] for _ in range(cpus)
        ]  # (INTID, group) by running priority
        self.dropped: list[tuple[int, int]] = []  # (INTID, CPU) after a priority drop, still active
        self.wires: dict[tuple[int, int], bool] = {}
        self.steps = 0
        self.set_up()

    def make_host(self, cpus: int, list_registers: int, prebits: int) -> Host:
        return Host(cpus, list_registers, prebits)

    def make_model(self, prebits: int) -> GicModel:
        return GicModel(3, self.cpus, NR_IRQS, prio_bits=prebits)

    def set_up(self) -> None:
        """What a guest does first."""
        for word in range(
            2, NR_IRQS // 16
        ):  # unknown at reset; even INTIDs are edge-triggered to begin with
            self.dist_write(0, ICFGR + 4 * word, 4, 0x2222_2222)
        self.dist_write(0, GICD_CTLR, 4, 3)
        for cpu in range(self.cpus):
            for register, value in (
                ("ICC_PMR_EL1", 0xF8),
                ("ICC_IGRPEN0_EL1", 1),
                ("ICC_IGRPEN1_EL1", 1),
            ):
                self.icc_write(cpu, register, value)

    # Accesses to both ----------------------------------------------------------------------------

    def dist_write(self, cpu: int, offset: int, size: int, value: int) -> None:
        self.host.frames["GICD"].write(cpu, offset, size, value)
        self.model.dist_write(cpu, offset, size, value)

    def redist_write(self, cpu: int, target: int, offset: int, size: int, value: int) -> None:
        self.host.frames["GICR"].write(cpu, target * GICR_SIZE + offset, size, value)
        self.model.redist_write(cpu, target, offset, size, value)

    def write(self, cpu: int, intid: int, offset: int, size: int, value: int) -> None:
        """A register of the array at ``offset`` in the frame that has ``intid``."""
        if intid < FIRST_SPI:
            self.redist_write(cpu, cpu, SGI_BASE + offset, size, value)
        else:
            self.dist_write(cpu, offset, size, value)

    def read(self, cpu: int, intid: int, offset: int, size: int) -> None:
        """Read a register of both; they agree."""
        if intid < FIRST_SPI:
            ours = self.host.frames["GICR"].read(cpu, cpu * GICR_SIZE + SGI_BASE + offset, size)
            theirs = self.model.redist_read(cpu, cpu, SGI_BASE + offset, size)
        else:
            ours = self.host.frames["GICD"].read(cpu, offset, size)
            theirs = self.model.dist_read(cpu, offset, size)
        assert ours == theirs, (
            f"register {offset:#x} size {size}: {ours:#x}, the model has {theirs:#x}"
        )

    def icc_write(self, cpu: int, register: str, value: int) -> None:
        self.host.icc(cpu, register, value)
        self.model.icc_write(cpu, register, value)

    def icc_read(self, cpu: int, register: str, mask: int = -1) -> int:
        ours = self.host.icc(cpu, register) & mask
        theirs = self.model.icc_read(cpu, register, ours) & mask
        assert ours == theirs, f"{register} of CPU {cpu}: {ours:#x}, the model has {theirs:#x}"
        return ours

    def take(self, cpu: int, register: str, group: int) -> int:
        """Read HPPIR or IAR of a group: any of the interrupts that share the highest priority may
        be the one chosen."""
        ours = self.host.icc(cpu, register)
        interface = self.model._state.cpus[cpu]
        always = "HPPIR" in register
        allowed = {
            irq.intid if irq.group == group and (always or interface.signalled(irq)) else SPURIOUS
            for irq in interface.ties()
        } or {SPURIOUS}  # fmt: skip
        assert ours in allowed, f"{register} of CPU {cpu}: {ours:#x}, the model allows {allowed}"
        if ours != SPURIOUS:
            assert self.model.icc_read(cpu, register, ours) == ours
        return ours

    def irq(self, cpu: int, intid: int) -> VgicIrq:
        return self.host.vgic.dist.irq(cpu, intid)

    def busy(self, cpu: int) -> bool:
        """Whether a CPU is in the middle of something that forbids to change EOImode or the binary
        point."""
        return bool(self.acked[cpu]) or self.model.running_priority(cpu) != IDLE_PRIORITY

    # Driving -------------------------------------------------------------------------------------

    def step(self, action: Action, full: bool = False) -> bool:
        """Do one action and compare. False: the specification does not say what comes now, so the
        case ends."""
        number, cpu, x, y = action
        self.actions[number % len(self.actions)].act(self, cpu % self.cpus, x, y)
        self.steps += 1
        if self.model.unpredictable:
            return False
        self.host.settle()
        self.compare(full or self.steps % 16 == 0)
        return True

    def compare(self, full: bool = True) -> None:
        for cpu in range(self.cpus):
            if self.host.pe_of[cpu] >= 0:
                self._compare_signals(cpu)
                check_cpu(self.host.vgic.dist.cpu(cpu), self.host.vif(cpu), self.host.vgic)
        check_active(self.host)
        if full:
            self._compare_interrupts()

    def _compare_signals(self, cpu: int) -> None:
        vif, model = self.host.vif(cpu), self.model
        ours, theirs = (vif.virq, vif.vfiq), (model.irq(cpu), model.fiq(cpu))
        if ours != theirs:
            allowed = allowed_signals(model, cpu)
            assert ours in allowed, f"CPU {cpu} sees (IRQ, FIQ) {ours}, the model allows {allowed}"

    def _compare_interrupts(self) -> None:
        vgic, model = self.host.vgic, self.model
        for cpu in range(self.cpus):
            for intid in INTIDS if cpu == 0 else (*SGIS, *PPIS):
                irq = vgic.dist.irq(cpu, intid)
                ours, theirs = (
                    peek(vgic, irq),
                    Seen(model.pending(intid, cpu), model.active(intid, cpu)),
                )
                assert ours == theirs, (
                    f"INTID {intid} of CPU {cpu} is {ours}, in the model {theirs}"
                )


def allowed_signals(model: GicModel, cpu: int) -> set[tuple[bool, bool]]:
    """(IRQ, FIQ) for each of the interrupts that share the highest priority: any of them may be the
    one chosen."""
    interface = model._state.cpus[cpu]
    allowed = set()
    for irq in interface.ties():
        signalled = interface.signalled(irq)
        fiq = irq.group == 0 and (interface.fiqen or interface.state.version == 3)
        allowed.add((signalled and not fiq, signalled and fiq))
    return allowed or {(False, False)}


def check_active(host: Host) -> None:
    """A shared interrupt is active on one CPU at most: in one list register, or on one list outside
    them."""
    seen: set[int] = set()
    for cpu in host.vgic.dist.cpus():
        for irq in cpu.ap_list:
            if irq.intid >= FIRST_SPI and peek(host.vgic, irq).active:
                assert irq.intid not in seen, f"INTID {irq.intid} is active on two CPUs"
                seen.add(irq.intid)


def check_cpu(cpu: VgicCpu, vif: VirtualCpuInterface, vgic: Vgic) -> None:
    """The laws of one vCPU at its entry into the guest."""
    active = [
        32 * word + bit
        for word, (zero, one) in enumerate(zip(vif.ap0r, vif.ap1r, strict=True))
        for bit in range(32)
        if (zero | one) >> bit & 1
    ]
    running = min(active) << 8 - vif.prebits if active else IDLE_PRIORITY
    assert vif.running_priority() == running, "the running priority is the least active one"
    assert not vif.maintenance, "nothing is left to maintain at an entry"
    if cpu.outside:
        _check_overflow(cpu, vif, vgic)


def _deliverable(irq: VgicIrq, vgic: Vgic, vmcr: int) -> bool:
    return (
        irq.enabled
        and bool(vgic.dist.enables & vmcr >> irq.group & 1)
        and irq.pending
        and not irq.active
    )


def _check_overflow(cpu: VgicCpu, vif: VirtualCpuInterface, vgic: Vgic) -> None:
    enables = vgic.dist.enables & vif.vmcr
    inside = [
        irq.priority for irq, value in zip(cpu.resident, vif.lr, strict=False)
        if value & LR_PENDING and not value & LR_ACTIVE and enables >> irq.group & 1
    ]  # fmt: skip
    outside = [
        irq.priority for irq in cpu.outside
        if irq.enabled and enables >> irq.group & 1 and irq.pending and not irq.active
    ]  # fmt: skip
    if outside:
        assert inside, "something deliverable waits outside and nothing is pending inside"
        assert max(inside) <= min(outside), (
            "an interrupt outside the list registers beats one inside"
        )


# What guests, devices and the host do -----------------------------------------------------------


class Act(NamedTuple):
    """``weight``: how often a random driver takes it."""

    name: str
    weight: int
    act: Callable[..., None]


def _pick(intids: tuple[int, ...], x: int) -> int:
    """Mostly one of a few, so that things happen to an interrupt to which something has happened
    already."""
    return intids[x % (3 if x & 0x8000 else 8 if x & 0x4000 else len(intids)) * 5 % len(intids)]


def _intid(x: int) -> int:
    return _pick(INTIDS, x)


def _wire(twin: Twin, cpu: int, intid: int, level: bool) -> None:
    """The input of a PPI or SPI; a wire that does not change is no event."""
    key = (intid, cpu if intid < FIRST_SPI else -1)
    if twin.wires.get(key, False) != level:
        twin.wires[key] = level
        twin.host.vgic.inject(cpu if intid < FIRST_SPI else None, intid, level)
        twin.model.set_line(intid, level, cpu)


def drive(twin: Twin, cpu: int, x: int, y: int) -> None:
    _wire(twin, cpu, _pick((*SPIS, *PPIS), x), bool(y & 1))


def pulse(twin: Twin, cpu: int, x: int, _: int) -> None:
    intid = _pick(SPIS, x)
    _wire(twin, cpu, intid, False)
    twin.host.settle()
    _wire(twin, cpu, intid, True)
    twin.host.settle()
    _wire(twin, cpu, intid, False)


def send_sgi(twin: Twin, cpu: int, x: int, y: int) -> None:
    """Any of the three registers, with a target list, a range selector now and then, or all
    others."""
    register = ("ICC_SGI1R_EL1", "ICC_SGI1R_EL1", "ICC_SGI0R_EL1", "ICC_ASGI1R_EL1")[y & 3]
    value = SGIS[x & 3] << 24 | x >> 2 & 0xFF
    value |= 1 << 40 if y & 0x1C == 0 else 1 << 44 if y & 0x1C == 4 else 0
    twin.icc_write(cpu, register, value)


def write_bits(twin: Twin, cpu: int, x: int, y: int) -> None:
    """One to three bits of a register with a bit per interrupt."""
    offset, intid = BIT_REGISTERS[y % len(BIT_REGISTERS)], _intid(x)
    if offset == IGROUPR:
        return set_group(twin, cpu, x, y)
    value = 1 << intid % 32
    if y & 0x100 and offset in (ISENABLER, ICENABLER):
        value |= 1 << _intid(y >> 9) % 32 | 1 << _intid(y >> 12) % 32
    twin.write(cpu, intid, offset + 4 * (intid // 32), 4, value)
    return None


def set_enable(twin: Twin, cpu: int, x: int, y: int) -> None:
    intid = _intid(x)
    offset = ICENABLER if y % 4 == 0 else ISENABLER
    twin.write(cpu, intid, offset + 4 * (intid // 32), 4, 1 << intid % 32)


def set_group(twin: Twin, cpu: int, x: int, y: int) -> None:
    """The group of an interrupt that is not active, of which alone the specification speaks."""
    intid = _intid(x)
    irq = twin.irq(cpu, intid)
    if twin.model.active(intid, cpu):
        return
    bank = [twin.irq(cpu, n) for n in range(intid & ~31, (intid & ~31) + 32)]
    value = sum(1 << n for n, other in enumerate(bank) if other.group)
    value = value & ~(1 << intid % 32) | (y >> 4 & 1) << irq.intid % 32
    twin.write(cpu, intid, IGROUPR + 4 * (intid // 32), 4, value)


def set_priority(twin: Twin, cpu: int, x: int, y: int) -> None:
    intid = _intid(x)
    if not twin.model.active(intid, cpu):
        twin.write(cpu, intid, IPRIORITYR + intid, 1, PRIORITIES[y % len(PRIORITIES)])


def configure(twin: Twin, cpu: int, x: int, y: int) -> None:
    """Edge or level, of an SPI that is disabled and not active, as IHI 0069 asks
    (GICD_ICFGR<n>)."""
    intid = _pick(SPIS, x)
    irq = twin.irq(0, intid)
    if irq.enabled or twin.model.active(intid):
        return
    word = [twin.irq(0, n) for n in range(intid & ~15, (intid & ~15) + 16)]
    value = sum((0 if other.level else 2) << 2 * n for n, other in enumerate(word))
    shift = 2 * (intid % 16)
    twin.dist_write(cpu, ICFGR + 4 * (intid // 16), 4, value & ~(3 << shift) | (y & 2) << shift)


def route(twin: Twin, cpu: int, x: int, y: int) -> None:
    """To a CPU, to one that does not exist, or 1 of N."""
    intid = _pick(SPIS, x)
    value = IRM if y % 8 == 0 else 0x0105 if y % 8 == 1 else (y >> 3) % twin.cpus
    twin.dist_write(cpu, IROUTER + 8 * intid, 8 if y & 0x4000 else 4, value)


def distributor(twin: Twin, cpu: int, x: int, y: int) -> None:
    twin.dist_write(cpu, GICD_CTLR, 4, 3 if x & 12 else y & 3)


def inspect(twin: Twin, cpu: int, x: int, y: int) -> None:
    intid = _intid(x)
    offset, size = [(base + 4 * (intid // 32), 4) for base in BIT_REGISTERS][y % len(BIT_REGISTERS)]
    if y & 0x700 == 0x100:
        offset, size = IPRIORITYR + intid, 1
    elif y & 0x700 == 0x200:
        offset, size = ICFGR + 4 * (intid // 16), 4
    elif y & 0x700 == 0x300 and intid >= FIRST_SPI:
        offset, size = IROUTER + 8 * intid, 8
    twin.read(cpu, intid, offset, size)


def acknowledge(twin: Twin, cpu: int, x: int, _: int) -> None:
    """HPPIR first: it names what IAR then returns, if IAR returns anything."""
    group = int(x % 8 != 0) if not twin.host.vif(cpu).vfiq else int(x % 4 == 0)
    highest = twin.take(cpu, f"ICC_HPPIR{group}_EL1", group)
    intid = twin.take(cpu, f"ICC_IAR{group}_EL1", group)
    if intid != SPURIOUS:
        assert intid == highest, "IAR and HPPIR agree"
        twin.acked[cpu].append((intid, group))


def end(twin: Twin, cpu: int, x: int, _: int) -> None:
    """EOIR of what was acknowledged last, or of a special INTID, which is ignored."""
    if x % 16 == 0:
        twin.icc_write(cpu, f"ICC_EOIR{x >> 4 & 1}_EL1", 1020 + (x >> 5) % 4)
    if not twin.acked[cpu]:
        return
    intid, group = twin.acked[cpu].pop()
    if twin.host.vif(cpu).vmcr >> 9 & 1 and intid < FIRST_LPI:
        twin.dropped.append((intid, cpu))
    twin.icc_write(cpu, f"ICC_EOIR{group}_EL1", intid)


def deactivate(twin: Twin, cpu: int, x: int, y: int) -> None:
    """DIR in any order; of an SPI from any CPU that uses EOImode 1."""
    if not twin.dropped:
        return
    intid, owner = twin.dropped[x % len(twin.dropped)]
    by = cpu if intid >= FIRST_SPI and y & 1 and twin.host.vif(cpu).vmcr >> 9 & 1 else owner
    twin.dropped.remove((intid, owner))
    twin.icc_write(by, "ICC_DIR_EL1", intid)


def set_mask(twin: Twin, cpu: int, x: int, _: int) -> None:
    twin.icc_write(cpu, "ICC_PMR_EL1", MASKS[x % len(MASKS)])
    twin.icc_read(cpu, "ICC_PMR_EL1")


def set_binary_point(twin: Twin, cpu: int, x: int, y: int) -> None:
    if not twin.busy(cpu):
        twin.icc_write(cpu, f"ICC_BPR{x & 1}_EL1", y % 8 if y & 8 else 0)
    twin.icc_read(cpu, f"ICC_BPR{x & 1}_EL1")


def control(twin: Twin, cpu: int, x: int, _: int) -> None:
    if not twin.busy(cpu) and not any(owner == cpu for _, owner in twin.dropped):
        twin.icc_write(cpu, "ICC_CTLR_EL1", x & 3)
    twin.icc_read(cpu, "ICC_CTLR_EL1", 3)


def enable_group(twin: Twin, cpu: int, x: int, y: int) -> None:
    twin.icc_write(cpu, f"ICC_IGRPEN{x & 1}_EL1", int(y % 4 != 0))
    twin.icc_read(cpu, f"ICC_IGRPEN{x & 1}_EL1")


def read_running(twin: Twin, cpu: int, _: int, __: int) -> None:
    twin.icc_read(cpu, "ICC_RPR_EL1")
    for group in (0, 1):
        twin.icc_read(cpu, f"ICC_AP{group}R0_EL1")
        twin.take(cpu, f"ICC_HPPIR{group}_EL1", group)


def reload(twin: Twin, cpu: int, x: int, _: int) -> None:
    """The scheduler: two vCPUs change places, or one leaves its PE and comes back."""
    host, other = twin.host, x % twin.cpus
    places = host.pe_of[cpu], host.pe_of[other]
    for n in {cpu, other}:
        host.vgic.put(n)
        host.pe_of[n] = -1
    for n, pe in {cpu: places[1], other: places[0]}.items():
        host.pe_of[n] = pe
        host.vgic.load(n, host.vifs[pe])


def snapshot(twin: Twin, _: int, __: int, ___: int) -> None:
    twin.host = twin.host.clone()


ACTIONS: tuple[Act, ...] = (
    Act("drive", 12, drive), Act("pulse", 10, pulse), Act("send_sgi", 8, send_sgi), Act("set_enable", 10, set_enable),
    Act("write_bits", 8, write_bits), Act("set_group", 2, set_group), Act("set_priority", 8, set_priority),
    Act("configure", 2, configure), Act("route", 5, route), Act("distributor", 1, distributor),
    Act("inspect", 6, inspect), Act("acknowledge", 24, acknowledge), Act("end", 20, end),
    Act("deactivate", 8, deactivate), Act("set_mask", 3, set_mask), Act("set_binary_point", 2, set_binary_point),
    Act("control", 2, control), Act("enable_group", 3, enable_group), Act("read_running", 3, read_running),
    Act("reload", 2, reload), Act("snapshot", 0, snapshot),
)  # fmt: skip
Twin.actions = ACTIONS
