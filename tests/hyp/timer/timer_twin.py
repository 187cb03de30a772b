"""armvirt's timers and the oracle of the architecture. The same actions drive both, and each action
ends in a comparison.

What a guest does is one instruction of a nanosecond, and takes effect at its beginning; what the
VMM does takes no time. The oracle knows nothing of hosts, so where a vCPU is (on which PE, on none,
blocked) is asked of the product: it must not matter.

Where the architecture leaves a choice, the twin says which part of it KVM has chosen, or leaves the
answer open.
"""

from __future__ import annotations

from collections.abc import Callable

from hyp_tools import GICD, GICR
from timer_rig import ONE_REG_ARM64_SYSREG, Form, Rig, Shape
from timermodel import Register, TimerModel, Which

from armvirt.arch import timer as arch
from armvirt.arch.gic import LR_ACTIVE, LR_PENDING
from armvirt.hyp.kvm import Vcpu
from armvirt.hyp.timer.context import ArchTimerContext, TimerId
from armvirt.hyp.vgic.irq import VgicIrq

TIMERS: tuple[Which, Which] = ("v", "p")
REGISTERS: tuple[Register, Register, Register] = ("ctl", "cval", "tval")
INTID: dict[Which, int] = {"v": 27, "p": 30}
TIMER_ID: dict[Which, TimerId] = {"v": TimerId.VTIMER, "p": TimerId.PTIMER}
#: KVM's ids (uapi/asm/kvm.h) have those of CVAL and CNT of the virtual timer swapped against the
#: architecture.
ONE_REG: dict[tuple[Which, str], int] = {
    key: ONE_REG_ARM64_SYSREG | encoding
    for key, encoding in {
        ("v", "ctl"): arch.CNTV_CTL_EL0, ("v", "cval"): arch.CNTVCT_EL0, ("v", "cnt"): arch.CNTV_CVAL_EL0,
        ("p", "ctl"): arch.CNTP_CTL_EL0, ("p", "cval"): arch.CNTP_CVAL_EL0, ("p", "cnt"): arch.CNTPCT_EL0,
    }.items()
}  # fmt: skip

TOP = 1 << 64
MASK64 = TOP - 1
#: Virtual time is 64 bits of ns on a host: a case that comes near its end is over.
END_OF_TIME = 1 << 62

SGI_BASE, GICR_SIZE = 0x1_0000, 0x2_0000
ISENABLER0, ICENABLER0, ISPENDR0, ICPENDR0, ISACTIVER0, ICACTIVER0, IPRIORITYR = (
    SGI_BASE + offset for offset in (0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0x400)
)
PRIORITY_BITS = 0xF8  # five bits of priority are implemented

NVHE, VHE, VHE_CNTPOFF = Form(False, False), Form(True, False), Form(True, True)


class Twin:
    """Both, and what the driver remembers of its guests.

    ``enables`` is GICD_CTLR.EnableGrp1 and, for each vCPU, ICC_IGRPEN1_EL1; ``eoi_mode`` is
    ICC_CTLR_EL1.EOImode; ``dropped`` are interrupts that a priority drop has left active.
    ``unwatched`` are the timers of sleeping vCPUs whose line was high, each with whether it has
    fallen since: see `wake_instant`.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape, self.steps = shape, 0
        self.rig = Rig(shape)
        self.model = TimerModel(
            shape.vcpus, shape.frequency_hz, shape.counter_start, shape.counter_start - shape.virtual_start,
            ecv=shape.ecv,
        )  # fmt: skip
        self.distributor = False
        self.interfaces, self.eoi_mode = [False] * shape.vcpus, [0] * shape.vcpus
        self.dropped: list[set[Which]] = [set() for _ in range(shape.vcpus)]
        self.moves_counters = True
        self.unwatched: dict[tuple[int, Which], bool] = {}
        self._set_up()

    def close(self) -> None:
        self.rig.close()

    def _set_up(self) -> None:
        """What a guest does first. The oracle's interface starts open and with the binary point of
        reset."""
        for n in range(self.shape.vcpus):
            self.model.interface(n).group_priority_mask = PRIORITY_BITS
            self.write_icc(n, "PMR", 0)
            self.gicr(n, n, ISENABLER0, 1 << INTID["v"] | 1 << INTID["p"])
            for which in TIMERS:
                self.model.enable(n, which)
                self.set_priority(n, n, which, 0x80)
            self.write_icc(n, "PMR", 0xFF)
            self.enable_group(n, True)
        self.enable_distributor(0, True)

    # One action ----------------------------------------------------------------------------------

    def step(self, act: Act, n: int, x: int, y: int) -> bool:
        """Do one action and compare. False: the end of time is near, and the case over."""
        act(self, n % self.shape.vcpus, x, y)
        self.steps += 1
        self.settle()
        self.compare()
        self._watch()
        return self.rig.now < END_OF_TIME

    def settle(self) -> None:
        self.elapse()
        self.rig.settle()

    def elapse(self) -> None:
        """The oracle's time follows the product's, which is the number of instructions."""
        self.model.advance(self.rig.now - self.model.now)

    def guest(self, n: int, instruction: str, x0: int = 0, x1: int = 0) -> int:
        """An instruction of a vCPU that can run; the caller tells the oracle before `elapse`."""
        return self.rig.execute(n, instruction, x0, x1)

    def executor(self, n: int) -> int | None:
        """The vCPU itself, or another one if it is blocked; None if all are."""
        runnable = self.rig.runnable()
        return n if n in runnable else runnable[0] if runnable else None

    # Registers that more than one action writes --------------------------------------------------

    def gicr(self, by: int, n: int, offset: int, value: int) -> None:
        """vCPU ``by`` writes a word of the redistributor of vCPU ``n``."""
        self.guest(by, "str", value, GICR + n * GICR_SIZE + offset)
        self.elapse()

    def set_priority(self, by: int, n: int, which: Which, priority: int) -> None:
        self.model.ppi(n, which).priority = priority & PRIORITY_BITS
        intid = INTID[which]
        self.gicr(by, n, IPRIORITYR + (intid & ~3), priority << 8 * (intid & 3))

    def write_icc(self, n: int, register: str, value: int) -> None:
        self.guest(n, f"msr {register}", value)
        if register == "PMR":
            self.model.interface(n).priority_mask = value & PRIORITY_BITS
        self.elapse()

    def enable_group(self, n: int, on: bool) -> None:
        self.interfaces[n] = on
        self.write_icc(n, "IGRPEN1", int(on))
        self._enables_changed()

    def enable_distributor(self, by: int, on: bool) -> None:
        self.distributor = on
        self.guest(by, "str", 2 if on else 0, GICD)
        self.elapse()
        self._enables_changed()

    def _enables_changed(self) -> None:
        """To the oracle there is one enable between the interrupt and the PE."""
        for n, on in enumerate(self.interfaces):
            self.model.interface(n).group_enabled = on and self.distributor

    # What must be equal --------------------------------------------------------------------------

    def compare(self) -> None:
        assert self.rig.now == self.model.now
        for n, vcpu in enumerate(self.rig.vcpus):
            self._compare_registers(n, vcpu)
            if vcpu.pe is not None:
                self._compare_lines(n, vcpu)
                self._compare_interrupts(n, vcpu)
            elif self.rig.blocked(n):
                assert not self.wakes_wfi(n), f"vCPU {n} sleeps, and an interrupt can be delivered"
        self._compare_idle_pes()

    def _compare_registers(self, n: int, vcpu: Vcpu) -> None:
        for (which, register), number in ONE_REG.items():
            ours, theirs = vcpu.get_one_reg(number), self.model.read(n, which, register)  # type: ignore[arg-type]
            known = ~self.model.unknown_bits(n, which, register)  # type: ignore[arg-type]
            assert ours & known == theirs & known, (
                f"{register} of timer {which} of vCPU {n}: {ours:#x}, the oracle has {theirs:#x}"
            )
        ours, theirs = (
            vcpu.timer.next_event(vcpu.context.system(arch.CNTKCTL_EL1)),
            self.model.event_stream_next(n),
        )
        assert ours == theirs, f"the event stream of vCPU {n}: {ours} ns, the oracle has {theirs}"

    def _context(self, vcpu: Vcpu, which: Which) -> ArchTimerContext:
        return vcpu.timer.cpu.vtimer if which == "v" else vcpu.timer.cpu.ptimer

    def direct(self, which: Which) -> bool:
        """Whether the PE's own comparator is this timer of a guest; else EL2 has to emulate it."""
        return which == "v" or self.shape.form.vhe

    def _shifted(self, n: int, which: Which) -> bool:
        """Whether the comparator has another CVAL than the guest's, for want of CNTPOFF_EL2. Then
        it does not see the guest's count roll over; that a line fell there is found when its
        interrupt comes once more."""
        return which == "p" and self.shape.form == VHE and self.physical_offset(n) != 0

    def physical_offset(self, n: int) -> int:
        """What is subtracted from the physical count for this vCPU."""
        return self.model.physical_count - self.model.view(n, "p") & MASK64

    def _compare_lines(self, n: int, vcpu: Vcpu) -> None:
        pe = vcpu.pe
        assert pe is not None
        for which in TIMERS:
            theirs = self.model.line(n, which)
            if self.direct(which):
                ours = pe.timer.comparator(f"{which}timer").line
                assert pe.gic.is_pending(pe.index, INTID[which]) == ours, (
                    "the comparator's wire to the GIC"
                )
            else:
                ours = self._context(vcpu, which).irq_level
            stale = self._shifted(n, which) and ours and pe.gic.is_active(pe.index, INTID[which])
            assert ours == theirs or stale, (
                f"the line of timer {which} of vCPU {n} is {ours}, in the oracle {theirs}"
            )
        assert not pe.gic.deliverable(pe.index), "the host would be interrupted for ever"

    def _compare_interrupts(self, n: int, vcpu: Vcpu) -> None:
        pe = vcpu.pe
        assert pe is not None
        for which in TIMERS:
            irq, ppi = self.rig.vgic.dist.irq(n, INTID[which]), self.model.ppi(n, which)
            value = pe.vif.lr[irq.lr] if irq.lr >= 0 else None
            active = irq.active if value is None else bool(value & LR_ACTIVE)
            assert active == ppi.active, (
                f"INTID {irq.intid} of vCPU {n}: active is {active}, in the oracle {not active}"
            )
            ours, theirs = _pending(irq, value), self.model.pending(n, which)
            assert ours == theirs, (
                f"INTID {irq.intid} of vCPU {n}: pending is {ours}, in the oracle {theirs}"
            )
            if value is not None:
                offered = ppi.enabled and self.distributor and theirs and not active
                assert bool(value & LR_PENDING) == offered, (
                    f"the list register of INTID {irq.intid} of vCPU {n}"
                )
        ours, theirs = (pe.vif.virq, pe.vif.vfiq), (bool(self.model.deliverable(n)), False)
        assert ours == theirs, f"vCPU {n} sees (IRQ, FIQ) {ours}, the oracle has {theirs}"

    def _compare_idle_pes(self) -> None:
        """A PE without a vCPU has nothing left of one."""
        for pcpu in self.rig.host.pcpus:
            if not pcpu.loaded:
                timer = pcpu.pe.timer
                assert not timer.vtimer.ctl and not timer.ptimer.ctl, (
                    f"a comparator of the idle PE {pcpu.index} is on"
                )
                assert not pcpu.pe.vif.virq, (
                    f"the idle PE {pcpu.index} has an interrupt for a guest"
                )

    # When a blocked vCPU wakes -------------------------------------------------------------------

    def wakes_wfi(self, n: int) -> bool:
        """Whether the vGIC has an interrupt for a vCPU in WFI. KVM asks neither for ICC_IGRPEN1_EL1
        nor for the running priority (kvm_vgic_vcpu_pending_irq): WFI may end at any time (DDI 0487
        D1.6)."""
        return self.distributor and any(self._could_take(n, which) for which in TIMERS)

    def _could_take(self, n: int, which: Which) -> bool:
        ppi = self.model.ppi(n, which)
        pending = ppi.latch or (self.model.line(n, which) and not self.unwatched.get((n, which)))
        return (
            pending
            and ppi.enabled
            and not ppi.active
            and ppi.priority < self.model.interface(n).priority_mask
        )

    def wake_instant(self, n: int) -> int | None:
        """When time alone wakes a blocked vCPU: the first ns at which one of its lines rises,
        whatever the vGIC makes of it, as KVM's background timer does. An interrupt that could be
        delivered has woken it already.

        A line that is high while the vCPU sleeps, for its interrupt is disabled or active, has had
        its time: that it falls and rises again if the count rolls over 2**64 in this sleep is
        nothing that the host waits for.
        """
        watched = [
            which
            for which in TIMERS
            if not self.model.line(n, which) and (n, which) not in self.unwatched
        ]
        rises = [self.model.next_rise(n, which) for which in watched]
        return min((ns for ns in rises if ns is not None), default=None)

    def _watch(self) -> None:
        for n in range(self.shape.vcpus):
            for which in TIMERS:
                if not self.rig.blocked(n):
                    self.unwatched.pop((n, which), None)
                elif self.model.line(n, which):
                    self.unwatched.setdefault((n, which), False)
                elif (n, which) in self.unwatched:
                    self.unwatched[n, which] = True

    def rearmed(self, n: int) -> None:
        """The VMM changed something of a vCPU's timers: the host looks at all of them again."""
        for which in TIMERS:
            self.unwatched.pop((n, which), None)

    def all_rearmed(self) -> None:
        self.unwatched.clear()


Act = Callable[[Twin, int, int, int], None]
"""Something done to a twin: by or to a vCPU, with two values whose meaning is the action's (16 and
32 bits)."""


def _pending(irq: VgicIrq, value: int | None) -> bool:
    """ISPENDR without folding anything: the latch, unless the guest has taken what it offered, or
    the line."""
    latch = irq.pending_latch and (value is None or not irq.offered or bool(value & LR_PENDING))
    line = (
        irq.get_input_level()
        if irq.mapped_level and irq.get_input_level is not None
        else irq.line_level
    )
    return latch or line
