"""Random accesses to a vGIC and its virtual CPU interfaces, and laws that must hold for any guest.

`Fuzzer` is a host without an engine: vCPUs on PEs, a vGIC, devices with lines. Each step is one
action of a guest, a device, the VMM or the host's scheduler: an access of any size to any offset of
any frame, an ICC access of any encoding, a change of a line, an attribute, a migration. No
exception may be raised, and every `LAW_PERIOD` steps all laws are checked. A run is a function of
its seed: ``Fuzzer(seed).run(n)`` always fails at the same step.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Iterator

from armvirt.arch import gic as arch
from armvirt.arch.gic import (
    GICR_FRAME_SIZE,
    GICR_SIZE,
    ICC_REGISTERS,
    LR_ACTIVE,
    LR_HW,
    LR_PENDING,
    LR_PINTID_MASK,
    LR_PINTID_SHIFT,
    LR_PRIORITY_SHIFT,
    LR_STATE,
    SPURIOUS,
    MmioRow,
)
from armvirt.errors import KvmError
from armvirt.events import EventBus
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import IccAction, VirtualCpuInterface
from armvirt.hyp.vgic import Vgic
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.device import AddrType, Ctrl, Group, VgicDevice
from armvirt.hyp.vgic.irq import VgicIrq, target_oracle
from armvirt.hyp.vgic.registers.frames import Frame

GICD_BASE, GICC_BASE, GICR_BASE = 0x0800_0000, 0x0801_0000, 0x1000_0000
GICC = {row.name.removeprefix("GICC_"): row.offset for row in arch.GICC_ROWS}
VTIMER = 27
LAW_PERIOD = 32
ROUNDS = 12  # of sync and flush, after which no work may be left
SHAPES = tuple((lrs, bits) for lrs in (1, 2, 4, 16) for bits in (5, 6, 7))
ICC_NAMES = {encoding: name for name, encoding in ICC_REGISTERS.items()}
IAR0, IAR1 = ICC_REGISTERS["ICC_IAR0_EL1"], ICC_REGISTERS["ICC_IAR1_EL1"]
HPPIR = {IAR0: ICC_REGISTERS["ICC_HPPIR0_EL1"], IAR1: ICC_REGISTERS["ICC_HPPIR1_EL1"]}
ENDS = tuple(ICC_REGISTERS[f"ICC_{name}_EL1"] for name in ("EOIR0", "EOIR1", "DIR"))
SETUP = tuple(
    ICC_REGISTERS[f"ICC_{name}_EL1"]
    for name in ("PMR", "IGRPEN0", "IGRPEN1", "CTLR", "BPR0", "BPR1")
)
#: Values that a guest would write, used most of the time; with random values only, everything would soon be masked.
USUAL = {
    ICC_REGISTERS[f"ICC_{name}_EL1"]: values
    for name, values in {
        "PMR": (0xF8, 0xFF, 0xF0, 0x80), "IGRPEN0": (1,), "IGRPEN1": (1,), "CTLR": (0, 0, 2, 3),
        "BPR0": (0, 2, 3, 5), "BPR1": (0, 3, 4, 6),
        **{f"AP{group}R{n}": (0,) for group in (0, 1) for n in range(4)},
    }.items()
}  # fmt: skip
ATTRIBUTES = (
    Group.DIST_REGS,
    Group.REDIST_REGS,
    Group.CPU_REGS,
    Group.CPU_SYSREGS,
    Group.LEVEL_INFO,
    Group.NR_IRQS,
    Group.CTRL,
)


class LawError(AssertionError):
    """A law is broken, or an exception was raised. The message has the seed, the step and the last
    actions."""


def _rows(name: str) -> list[tuple[int, int]]:
    """(offset, length) of the registers in a frame, by the name of the frame."""
    if name == "GICR":
        sgi = [(GICR_FRAME_SIZE + row.offset, row.length) for row in arch.GICR_SGI_ROWS]
        return [(row.offset, row.length) for row in arch.GICR_RD_ROWS] + sgi
    rows: tuple[MmioRow, ...] = getattr(arch, f"{name}_ROWS", ())
    return [(row.offset, row.length) for row in rows]


class Fuzzer:
    """A vGIC with random accesses. ``seed`` decides everything, also the configuration of the
    machine.

    ``acknowledged`` is the number of interrupts that the guests have acknowledged.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.steps, self.acknowledged = seed, 0, 0
        self.rng = rng = random.Random(seed)
        self.list_registers, self.priority_bits = SHAPES[seed % len(SHAPES)]
        self.vcpus = rng.randrange(1, 5)
        self.nr_irqs = rng.choice((64, 96, 1024))
        self.model = 2 if seed % 4 == 3 else 3
        self.intid_mask = (
            0x3FF if self.model == 2 else 0xFFFF
        )  # of vINTID; the bits above it are the CPUID of an SGI of a GICv2
        self.log: deque[str] = deque(maxlen=12)
        self._create()
        self._actions = self._weights()

    # The host ------------------------------------------------------------------------------------

    def _create(self) -> None:
        self.bus, self.gic = EventBus(), PhysicalGic(self.vcpus)
        self.vifs = [
            VirtualCpuInterface(n, self.gic, self.bus, self.list_registers, self.priority_bits)
            for n in range(self.vcpus)
        ]
        self.pe_of: dict[int, int] = {}
        self.timer_line = [False] * self.vcpus
        self.taken: list[list[tuple[int, int]]] = [
            [] for _ in range(self.vcpus)
        ]  # (INTID, group), innermost last
        self.vgic = Vgic(self.bus, self, self.model, self.priority_bits)
        self.device = VgicDevice(self.vgic)
        for n in range(self.vcpus):
            self.vgic.add_vcpu(n, 1 << 31 | n)
        v2 = self.model == 2
        self.device.set_attr(Group.ADDR, AddrType.V2_DIST if v2 else AddrType.V3_DIST, GICD_BASE)
        self.device.set_attr(
            Group.ADDR, *((AddrType.V2_CPU, GICC_BASE) if v2 else (AddrType.V3_REDIST, GICR_BASE))
        )
        self.device.set_attr(Group.NR_IRQS, 0, self.nr_irqs)
        self.device.set_attr(Group.CTRL, Ctrl.INIT)
        self._add_devices()
        self.vgic.map_resources()
        self.frames: list[tuple[int, Frame, list[tuple[int, int]]]] = [
            (size, frame, _rows(frame.name)) for _, size, frame in self.vgic.mmio_frames()
        ]
        for n in range(self.vcpus):
            self.vgic.map_phys_irq(n, VTIMER, VTIMER, self._timer_of(n))
            self.gic.enable(n, VTIMER, True)
            self._load(n, n)
        self._set_up()

    def _add_devices(self) -> None:
        """Add further devices to the VM, before its first run."""

    def _frame(self, name: str) -> Frame:
        return next(frame for _, frame, _ in self.frames if frame.name == name)

    def _set_up(self) -> None:
        """Initialise half of the machines as a guest does, so that interrupts are taken from the
        first step on."""
        if self.rng.random() < 0.5:
            return
        self.frames[0][1].write(0, 0, 4, 3)
        for word in range(1, self.nr_irqs // 32):
            self.frames[0][1].write(0, 0x100 + 4 * word, 4, 0xFFFF_FFFF)
        for at in range(0x400, 0x400 + self.nr_irqs, 4):
            self.frames[0][1].write(0, at, 4, self.rng.getrandbits(32))
        for vcpu in range(self.vcpus):
            if self.model == 2:
                self.frames[1][1].write(vcpu, GICC["PMR"], 4, 0xF8)
                self.frames[1][1].write(vcpu, GICC["CTLR"], 4, 3)
                continue
            for encoding, value in zip(SETUP, (0xF8, 1, 1), strict=False):
                self._icc(vcpu, encoding, True, value)

    def _timer_of(self, vcpu: int) -> Callable[[], bool]:
        return lambda: self.timer_line[vcpu]

    def kick(self, vcpu_id: int) -> None:
        """No effect: a vCPU of a `Fuzzer` never sleeps."""

    def set_phys_active(self, vcpu_id: int, host_intid: int, active: bool) -> None:
        if vcpu_id in self.pe_of:
            self.gic.set_active(self.pe_of[vcpu_id], host_intid, active)

    def irq_ended(self, intid: int) -> None:
        """No effect: a `Fuzzer` has no irqfds."""

    def lpi_work_left(self) -> None:
        """No effect: jobs continue at the next access."""

    def _load(self, vcpu: int, pe: int) -> None:
        """Perform vcpu_load, and the actions of the timer code for its mapped interrupt."""
        line = self.timer_line[vcpu]
        self.pe_of[vcpu] = pe
        self.vgic.inject(vcpu, VTIMER, line)
        self.vgic.load(vcpu, self.vifs[pe])
        self.gic.set_active(pe, VTIMER, self.vgic.is_active(vcpu, VTIMER) or line)
        self.gic.set_line(pe, VTIMER, line)

    def _put(self, vcpu: int) -> None:
        pe = self.pe_of[vcpu]
        self.vgic.put(vcpu)
        del self.pe_of[vcpu]
        self.gic.set_line(pe, VTIMER, False)
        self.gic.set_active(pe, VTIMER, False)

    def settle(self) -> None:
        """Perform the host's interrupt handlers and the run loop until neither has work left."""
        vgic = self.vgic
        for _ in range(ROUNDS):
            quiet = True
            for vcpu, pe in self.pe_of.items():
                if vgic.dirty(vcpu):
                    quiet = False
                    vgic.sync(vcpu)
                    vgic.flush(vcpu)
                if self.gic.deliverable(pe):
                    quiet = False
                    assert self.gic.acknowledge(pe) == VTIMER
                    vgic.inject(vcpu, VTIMER, True)
            if quiet:
                return
        raise AssertionError(f"not at rest after {ROUNDS} rounds")

    # Steps ---------------------------------------------------------------------------------------

    def run(self, steps: int) -> int:
        """Perform ``steps`` steps; returns the number of accesses. LawError at the first
        failure."""
        actions, choose = self._actions, self.rng.random
        count = len(actions)
        try:
            for _ in range(steps):
                self.steps += 1
                actions[int(choose() * count)]()
                self.settle()
                if not self.steps % LAW_PERIOD:
                    self.check()
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            history = "\n  ".join(self.log)
            raise LawError(
                f"seed {self.seed}, step {self.steps}: {what}; the last actions:\n  {history}"
            ) from error
        return steps

    def _weights(self) -> list[Callable[[], None]]:
        """The actions, each as often as its probability in percent."""
        interrupts = self._interrupts if self.model == 3 else self._interrupts_v2
        return [
            *[self._mmio] * 40, *[self._icc_random] * 8, *[interrupts] * 32, *[self._line] * 12,
            *[self._attribute] * 3, *[self._timer] * 3, *[self._host] * 2,
        ]  # fmt: skip

    def _value(self) -> int:
        kind = self.rng.random()
        if kind < 0.2:
            return 0
        if kind < 0.4:
            return (1 << 64) - 1
        if kind < 0.7:
            return 1 << int(self.rng.random() * 64)
        return self.rng.getrandbits(64)

    def _vcpu(self) -> int:
        return int(self.rng.random() * self.vcpus)

    def _offset(self, name: str, size: int, rows: list[tuple[int, int]]) -> int:
        """An offset in a frame: in four of five cases the offset of a register, mostly aligned."""
        rng = self.rng
        if not rows or rng.random() < 0.2:
            return int(rng.random() * size)
        start, length = rows[int(rng.random() * len(rows))]
        at = start + int(rng.random() * min(length, 0x2000))
        if name == "GICR":
            at += GICR_SIZE * int(rng.random() * self.vcpus)
        return at & ~3 if rng.random() < 0.9 else at

    def _mmio(self) -> None:
        rng = self.rng
        size, frame, rows = self.frames[int(rng.random() * len(self.frames))]
        offset = min(self._offset(frame.name, size, rows), size - 1)
        width = 4 if rng.random() < 0.7 else rng.choice((1, 2, 4, 8))
        vcpu = self._vcpu()
        if frame.name == "GICC" and vcpu not in self.pe_of:
            return  # a vCPU without a PE cannot access GICC; the other frames can be accessed
        if rng.random() < 0.4:
            self.log.append(f"vCPU {vcpu} reads {width} bytes at {frame.name} + {offset:#x}")
            value = frame.read(vcpu, offset, width)
            self.log[-1] += f": {value:#x}"
            assert 0 <= value < 1 << 8 * width, (
                f"{width} bytes at {frame.name} + {offset:#x} read as {value:#x}"
            )
        else:
            value = self._value() & (1 << 8 * width) - 1
            if frame.name == "GICD" and offset == 0 and rng.random() < 0.9:
                value = 3
            self.log.append(
                f"vCPU {vcpu} writes {value:#x}, {width} bytes, at {frame.name} + {offset:#x}"
            )
            frame.write(vcpu, offset, width, value)

    def _icc(self, vcpu: int, encoding: int, is_write: bool, value: int) -> int:
        """One access from EL1, also to a register that traps; an access that is UNDEFINED has no
        effect."""
        outcome = self.vifs[self.pe_of[vcpu]].icc_access(encoding, is_write, value, 1, True, True)
        assert self.model == 3 or outcome.action is IccAction.UNDEF, (
            "a GICv2 guest has system registers"
        )
        if outcome.action is IccAction.TRAP:
            if encoding == arch.ICC_DIR_EL1:
                self.vgic.dir(vcpu, value)
            else:
                self.vgic.sgi(vcpu, encoding, value)
        return outcome.value

    def _loaded(self) -> int | None:
        vcpu = self._vcpu()
        return vcpu if vcpu in self.pe_of else None

    def _icc_random(self) -> None:
        """An access with any encoding; in three of four cases, of a register of the CPU
        interface."""
        rng, vcpu = self.rng, self._loaded()
        if vcpu is None:
            return
        names = tuple(ICC_NAMES) if rng.random() < 0.5 else SETUP
        encoding = (
            rng.getrandbits(16) if rng.random() < 0.25 else names[int(rng.random() * len(names))]
        )
        is_write, value = rng.random() < 0.6, self._usual(encoding)
        if encoding in (IAR0, IAR1) and not is_write and self.model == 3:
            self._acknowledge(vcpu, encoding)
            return
        self.log.append(
            f"vCPU {vcpu} {f'writes {value:#x} to' if is_write else 'reads'} {self._name(encoding)}"
        )
        result = self._icc(vcpu, encoding, is_write, value)
        self.log[-1] += f": {result:#x}"
        assert 0 <= result < 1 << 64

    def _usual(self, encoding: int) -> int:
        values = USUAL.get(encoding)
        return (
            self._value() if values is None or self.rng.random() < 0.05 else self.rng.choice(values)
        )

    @staticmethod
    def _name(encoding: int) -> str:
        return ICC_NAMES.get(encoding, f"encoding {encoding:#x}")

    def _interrupts(self) -> None:
        """The actions of a guest on interrupts: acknowledge, end correctly, or end any INTID in any
        way."""
        rng, vcpu = self.rng, self._loaded()
        if vcpu is None:
            return
        kind, taken = rng.random(), self.taken[vcpu]
        if kind < 0.5:
            right = IAR0 if self.vifs[self.pe_of[vcpu]].vfiq else IAR1
            self._acknowledge(vcpu, right if rng.random() < 0.8 else rng.choice((IAR0, IAR1)))
        elif kind < 0.9 and taken:
            self._end(vcpu, *taken.pop())
        else:
            self._end_anything(vcpu)

    def _interrupts_v2(self) -> None:
        """The same actions with GICC. An acknowledged SGI has a CPUID, with which the SGI must be
        ended."""
        rng, vcpu = self.rng, self._loaded()
        if vcpu is None:
            return
        gicc, taken = self.frames[1][1], self.taken[vcpu]
        if rng.random() < 0.5 or not taken:
            value = gicc.read(vcpu, GICC["IAR"], 4)
            self.log.append(f"vCPU {vcpu} reads {value:#x} from GICC_IAR")
            if value & 0x3FF < arch.FIRST_SPECIAL:
                taken.append((value, 0))
                self.acknowledged += 1
            return
        value, _ = taken.pop() if rng.random() < 0.9 else (int(rng.random() * self.nr_irqs), 0)
        self.log.append(f"vCPU {vcpu} writes {value:#x} to GICC_EOIR, then to GICC_DIR")
        gicc.write(vcpu, GICC["EOIR"], 4, value)
        self.settle()
        gicc.write(vcpu, GICC["DIR"], 4, value)

    def _end(self, vcpu: int, intid: int, group: int) -> None:
        self.log.append(f"vCPU {vcpu} ends INTID {intid} of group {group}")
        vif = self.vifs[self.pe_of[vcpu]]
        self._icc(vcpu, ENDS[group], True, intid)
        if vif.vmcr & arch.VMCR_VEOIM:
            self.settle()
            self._icc(vcpu, arch.ICC_DIR_EL1, True, intid)

    def _end_anything(self, vcpu: int) -> None:
        rng, vif = self.rng, self.vifs[self.pe_of[vcpu]]
        active = [lr & 0xFFFF for lr in vif.lr if lr & LR_ACTIVE]
        intid = (
            active[int(rng.random() * len(active))] if active else int(rng.random() * self.nr_irqs)
        )
        encoding = ENDS[int(rng.random() * len(ENDS))]
        self.log.append(f"vCPU {vcpu} writes {intid} to {self._name(encoding)}")
        self._icc(vcpu, encoding, True, intid)

    def _acknowledge(self, vcpu: int, iar: int) -> None:
        """Law: IAR returns the INTID in HPPIR if the interface signals this interrupt, else the
        special INTID 1023."""
        vif = self.vifs[self.pe_of[vcpu]]
        if vif.hcr & (arch.ICH_HCR_TALL0 | arch.ICH_HCR_TALL1):
            return
        signalled = vif.virq if iar == IAR1 else vif.vfiq
        shown = self._icc(vcpu, HPPIR[iar], False, 0)
        intid = self._icc(vcpu, iar, False, 0)
        self.log.append(f"vCPU {vcpu} reads {intid} from {self._name(iar)}")
        if intid < arch.FIRST_SPECIAL:
            self.taken[vcpu].append((intid, int(iar == IAR1)))
            self.acknowledged += 1
        assert intid == (shown if signalled else SPURIOUS), (
            f"IAR {intid}, HPPIR {shown}, signalled {signalled}"
        )

    def _line(self) -> None:
        """A level or a pulse on a device's line, or a PPI; errors for user space are allowed."""
        rng = self.rng
        private = rng.random() < 0.2
        vcpu = self._vcpu() if private else None
        intid = (
            int(rng.random() * 40) if private else int(rng.random() * (min(self.nr_irqs, 96) + 2))
        )
        level = rng.random() < 0.7
        self.log.append(f"line of INTID {intid}, vCPU {vcpu}: {level}")
        try:
            self.vgic.inject(vcpu, intid, level)
        except KvmError:
            pass

    def _timer(self) -> None:
        vcpu, level = self._vcpu(), self.rng.random() < 0.5
        self.log.append(f"timer of vCPU {vcpu}: {level}")
        self.timer_line[vcpu] = level
        if vcpu in self.pe_of:
            self.gic.set_line(self.pe_of[vcpu], VTIMER, level)

    def _attribute(self) -> None:
        """An access of user space to any attribute; KvmError is an allowed result."""
        rng = self.rng
        group = ATTRIBUTES[int(rng.random() * len(ATTRIBUTES))]
        attr = self._attr(group) | self._vcpu() << 32
        is_set = rng.random() < 0.5
        value = (
            self._usual(attr & 0xFFFF) if group == Group.CPU_SYSREGS else self._value()
        ) & 0xFFFF_FFFF
        if group == Group.DIST_REGS and attr & 0xFFFF_FFFF == 0:
            value = 3
        self.log.append(f"{'set' if is_set else 'get'} attribute {group.name} {attr:#x} {value:#x}")
        try:
            if is_set:
                self.device.set_attr(group, attr, value)
            else:
                self.log[-1] += f": {self.device.get_attr(group, attr)}"
        except KvmError:
            pass

    def _attr(self, group: Group) -> int:
        rng = self.rng
        if group == Group.CPU_SYSREGS:
            return rng.choice(tuple(ICC_NAMES)) if rng.random() < 0.8 else rng.getrandbits(16)
        if group in (Group.DIST_REGS, Group.REDIST_REGS, Group.CPU_REGS):
            rows = self.frames[group != Group.DIST_REGS][2]
            return rows[int(rng.random() * len(rows))][0] + 4 * int(rng.random() * 4)
        return 32 * int(rng.random() * 4) if group == Group.LEVEL_INFO else int(rng.random() * 2)

    def _host(self) -> None:
        """The scheduler removes a vCPU from its PE or puts it on a free PE, or the complete state
        is saved and loaded."""
        vcpu = self._vcpu()
        if self.rng.random() < 0.02:
            self._save_and_load()
        elif vcpu in self.pe_of and (len(self.pe_of) == self.vcpus or self.rng.random() < 0.3):
            self.log.append(f"put vCPU {vcpu}")
            self._put(vcpu)
        else:
            vcpu = self.rng.choice(sorted(set(range(self.vcpus)) - set(self.pe_of)))
            pe = self.rng.choice(sorted(set(range(self.vcpus)) - set(self.pe_of.values())))
            self.log.append(f"load vCPU {vcpu} on PE {pe}")
            self._load(vcpu, pe)

    def _save_and_load(self) -> None:
        """Law: a saved state is plain data, and loading it changes nothing."""
        self.log.append("save and load")
        saved = json.loads(json.dumps([self.vgic.state(), [vif.state() for vif in self.vifs]]))
        self.vgic.load_state(saved[0])
        for vif, state in zip(self.vifs, saved[1], strict=True):
            vif.load(state)
        again = json.loads(json.dumps([self.vgic.state(), [vif.state() for vif in self.vifs]]))
        assert again == saved, "saving again gives something else"

    # Laws ----------------------------------------------------------------------------------------

    def irqs(self) -> Iterator[VgicIrq]:
        for cpu in self.vgic.dist.cpus():
            yield from cpu.private
        for intid in range(32, self.nr_irqs):
            irq = self.vgic.dist.spi(intid)
            if irq is not None:
                yield irq

    def check(self) -> None:
        """Check all laws while there is no work left. AssertionError says which law is broken."""
        self._check_lists()
        for cpu in self.vgic.dist.cpus():
            if cpu.vif is not None:
                self._check_list_registers(cpu, cpu.vif)
                self._check_priorities(cpu.vif)
                self._check_urgency(cpu, cpu.vif)
        self._check_shared()

    def _check_lists(self) -> None:
        """Law: an interrupt is on the ap_list of its ``vcpu``, once, and on no other list; and
        ``vcpu`` is the vCPU that the oracle names."""
        listed: dict[VgicIrq, int] = {}
        for cpu in self.vgic.dist.cpus():
            for irq in cpu.ap_list:
                assert irq not in listed, f"INTID {irq.intid} is on two lists, or twice on one"
                listed[irq] = cpu.vcpu_id
                assert irq.vcpu == cpu.vcpu_id, (
                    f"INTID {irq.intid} is on a list that is not that of its vCPU"
                )
        for irq in self.irqs():
            if irq.vcpu is not None:
                assert irq in listed, f"INTID {irq.intid} is on no list"
            elif irq.pending_latch or irq.line_level or irq.active:
                target = target_oracle(irq, self.vgic.dist.enables)
                assert target is None, (
                    f"INTID {irq.intid} belongs to vCPU {target} and is on no list"
                )
                assert not irq.active or irq in self.vgic.dist.stray_active, (
                    f"INTID {irq.intid} is active and forgotten"
                )

    def _check_list_registers(self, cpu: VgicCpu, vif: VirtualCpuInterface) -> None:
        """Law: each list register holds its interrupt, and the others are empty; every interrupt on
        the ap_list is in a list register or outside."""
        members = sorted(irq.intid for irq in cpu.resident + cpu.outside)
        assert members == sorted(irq.intid for irq in cpu.ap_list), (
            f"vCPU {cpu.vcpu_id}: list and list registers differ"
        )
        assert not any(vif.lr[len(cpu.resident) :]), "a list register without a resident is in use"
        mask = 0xFF << 8 - self.priority_bits & 0xFF
        for index, (irq, lr) in enumerate(zip(cpu.resident, vif.lr, strict=False)):
            what = f"LR{index} of vCPU {cpu.vcpu_id}, INTID {irq.intid}"
            assert irq.lr == index and lr & self.intid_mask == irq.intid, f"{what} holds {lr:#x}"
            priority, group = irq.priority, irq.group
            if lr & LR_STATE != LR_PENDING:  # those of its acknowledge
                priority, group = irq.running >> LR_PRIORITY_SHIFT & 0xFF, irq.running >> 60 & 1
            assert lr >> LR_PRIORITY_SHIFT & 0xFF == priority & mask, f"{what}: priority"
            assert lr >> 60 & 1 == group, f"{what}: group"
            latched = irq.active and irq.pending_latch  # then its end has to come here
            assert bool(lr & LR_HW) == (irq.hw and not latched), f"{what}: HW"
            if lr & LR_HW:
                assert lr >> LR_PINTID_SHIFT & LR_PINTID_MASK == irq.hwintid, f"{what}: pINTID"
            if irq.hw or irq.level:
                assert lr & LR_STATE != LR_STATE, f"{what} is pending and active"

    def _check_priorities(self, vif: VirtualCpuInterface) -> None:
        """Law: the running priority is the highest active priority; the signals agree with priority
        mask and running priority."""
        bits = [
            n
            for n in range(32 * len(vif.ap0r))
            if (vif.ap0r[n >> 5] | vif.ap1r[n >> 5]) >> (n & 31) & 1
        ]
        running = bits[0] << 8 - self.priority_bits if bits else 0xFF
        assert vif.running_priority() == running, (
            f"running priority {vif.running_priority():#x}, not {running:#x}"
        )
        assert not (vif.virq and vif.vfiq), "two signals for one candidate"
        assert not vif.maintenance, "a maintenance interrupt is left"

    def _check_urgency(self, cpu: VgicCpu, vif: VirtualCpuInterface) -> None:
        """Law: no interrupt outside has a higher priority than those in the list registers."""
        enabled = [irq for irq in cpu.outside if not irq.active and vif.vmcr >> irq.group & 1]
        offered = [
            lr >> LR_PRIORITY_SHIFT & 0xFF
            for lr in vif.lr
            if lr & LR_STATE == LR_PENDING and vif.vmcr >> (lr >> 60 & 1) & 1
        ]
        if enabled:
            best = min(irq.priority for irq in enabled)
            assert offered and min(offered) <= best, (
                f"priority {best:#x} waits outside while {offered} are offered"
            )

    def _check_shared(self) -> None:
        """Law: an SPI is in list registers of at most one vCPU."""
        seen: set[int] = set()
        for vcpu, pe in self.pe_of.items():
            for lr in self.vifs[pe].lr:
                intid = lr & self.intid_mask
                if lr & LR_STATE and intid >= 32:
                    assert intid not in seen, (
                        f"INTID {intid} is in flight on vCPU {vcpu} and another one"
                    )
                    seen.add(intid)
