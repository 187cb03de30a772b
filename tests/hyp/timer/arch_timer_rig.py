"""One PE with its timers, an `ArchTimer` on it and a vGIC of level-sensitive PPIs: no VM, no engine."""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch import timer as arch
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS
from armvirt.errors import KvmError
from armvirt.events import EventBus
from armvirt.hw.clock import Clock
from armvirt.hw.timer import GenericTimer, SystemCounter
from armvirt.hyp.timer import registers
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.timer.context import ArchTimerVmData, TimerId

VCPU = 0
HOST_VTIMER = 27
DEF = 100_000  # a delay in ticks
TVAL_MAX = 0x7FFF_FFFF
INT32_MIN = 0x8000_0000


class FakeVgic:
    """Level-sensitive PPIs of one vCPU with KVM's mapped-interrupt rules, and nothing else."""

    def __init__(self) -> None:
        self.level: dict[int, bool] = {}
        self.active: set[int] = set()
        self.owners: dict[int, object] = {}
        self.mapped: dict[int, tuple[int, Callable[[], bool]]] = {}
        self.resets: list[int] = []

    def inject(self, vcpu_id: int | None, intid: int, level: bool, owner: object = None) -> None:
        assert vcpu_id == VCPU and owner is self.owners[intid]
        self.level[intid] = level

    def map_phys_irq(
        self, vcpu_id: int, intid: int, host_intid: int, get_input_level: Callable[[], bool]
    ) -> None:
        self.mapped[intid] = host_intid, get_input_level

    def set_owner(self, vcpu_id: int, intid: int, owner: object) -> None:
        if self.owners.setdefault(intid, owner) is not owner:
            raise KvmError("EEXIST", f"interrupt {intid} has an owner")

    def is_active(self, vcpu_id: int, intid: int) -> bool:
        return intid in self.active

    def reset_mapped_irq(self, vcpu_id: int, intid: int) -> None:
        self.resets.append(intid)
        self.active.discard(intid)
        self.level[intid] = False


class Machine:
    """One PE, one vCPU, its timers, a physical GIC reduced to one PPI, and a guest that handles
    interrupts.

    Guest registers go the way they go on an nVHE host: CNTV_* to the hardware, CNTP_* by trap.
    """

    def __init__(
        self, frequency: int = 1_000_000_000, which: str = "vtimer", load: bool = True
    ) -> None:
        self.clock, self.bus, self.vgic = Clock(), EventBus(), FakeVgic()
        self.line = self.phys_active = False
        self.exits = self.wakes = 0
        self.hw = self.new_pe(frequency)
        self.vm_data = ArchTimerVmData(SystemCounter(self.clock, frequency))
        self.timer = ArchTimer(
            self.vm_data, VCPU, self.clock, self.vgic, self.set_phys_active, self.wake, bus=self.bus
        )
        self.use(which)
        if load:
            self.timer.enable()
            self.timer.vcpu_load(self.hw)

    def use(self, which: str) -> None:
        self.which = which
        virtual = which == "vtimer"
        self.id = TimerId.VTIMER if virtual else TimerId.PTIMER
        self.context = self.timer.cpu.vtimer if virtual else self.timer.cpu.ptimer
        self.intid = 27 if virtual else 30
        letter = "V" if virtual else "P"
        self.ctl, self.cval, self.tval = (
            vars(arch)[f"CNT{letter}_{r}_EL0"] for r in ("CTL", "CVAL", "TVAL")
        )
        self.cnt = arch.CNTVCT_EL0 if virtual else arch.CNTPCT_EL0
        self.cnt_one_reg = (
            arch.CNTV_CVAL_EL0 if virtual else arch.CNTPCT_EL0
        )  # swapped for the virtual timer

    def new_pe(self, frequency: int) -> GenericTimer:
        return GenericTimer(self.clock, frequency, self._line, self.bus)

    def _line(self, name: str, level: bool) -> None:
        if name == "vtimer":
            self.line = level

    def set_phys_active(self, host_intid: int, active: bool) -> None:
        assert host_intid == HOST_VTIMER
        self.phys_active = active

    def wake(self) -> None:
        self.wakes += 1

    # The guest -----------------------------------------------------------------------------------

    def read(self, encoding: int) -> int:
        return (
            registers.trap(self.timer, encoding, False)
            if self.hw.traps_to_el2(encoding)
            else self.hw.read(encoding)
        )

    def write(self, encoding: int, value: int) -> None:
        if self.hw.traps_to_el2(encoding):
            registers.trap(self.timer, encoding, True, value)
        else:
            self.hw.write(encoding, value)
        self.fold()
        self.host()

    def fold(self) -> None:
        """The vGIC folds its list registers: a mapped interrupt that is still pending has its line
        sampled, and a line that fell under it takes the physical active state along (KVM does this
        at the next exit)."""
        if (
            self.pending()
            and self.intid in self.vgic.mapped
            and not self.vgic.mapped[self.intid][1]()
        ):
            self.vgic.level[self.intid] = self.phys_active = False

    def now(self) -> int:
        return self.read(self.cnt)

    def pending(self) -> bool:
        return self.vgic.level.get(self.intid, False) and self.intid not in self.vgic.active

    def take(self) -> None:
        """The guest acknowledges its interrupt, checking what the selftest's handler checks."""
        assert self.pending()
        status = self.read(self.ctl) & (CTL_ENABLE | CTL_ISTATUS)
        assert (self.now() >= self.read(self.cval)) == (status == CTL_ENABLE | CTL_ISTATUS)
        self.vgic.active.add(self.intid)
        if self.intid in self.vgic.mapped:
            self.vgic.level[self.intid] = False  # lowered when the list register was filled

    def eoi(self) -> None:
        """The guest ends it: a mapped interrupt is deactivated on the host too, and the host looks
        again."""
        self.vgic.active.remove(self.intid)
        if self.intid in self.vgic.mapped:
            self.phys_active = False
        self.host()

    def handle(self) -> None:
        """Take, mask and disable, end: as the selftest's handler does."""
        self.take()
        self.write(self.ctl, CTL_IMASK)
        self.eoi()

    # The host ------------------------------------------------------------------------------------

    def host(self) -> None:
        """Deliver the physical interrupt if it is deliverable."""
        if self.line and not self.phys_active:
            self.phys_active = True
            self.exits += 1
            self.timer.host_irq(HOST_VTIMER)

    def advance(self, ns: int) -> None:
        """Let virtual time pass from deadline to deadline, as the run loop does."""
        until = self.clock.now + ns
        while True:
            dues = [
                d
                for d in (self.clock.deadline(), self.hw.deadline())
                if d is not None and d <= until
            ]
            self.clock.advance_to(min(dues, default=until))
            self.hw.update()
            self.clock.run_due()
            self.fold()  # a count that rolls over lets a line fall
            self.host()
            if not dues:
                return

    def migrate(self) -> None:
        """Move the vCPU to another PE."""
        self.timer.vcpu_put()
        assert not self.line
        self.hw = self.new_pe(self.hw.frequency_hz)
        self.timer.vcpu_load(self.hw)
        self.host()

    def user_set_count(self, count: int) -> None:
        """User space moves the counter between two runs."""
        self.timer.vcpu_put()
        registers.set_one_reg(self.timer, self.cnt_one_reg, count)
        self.timer.vcpu_load(self.hw)
        self.host()
