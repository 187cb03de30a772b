"""What the other parts of the hypervisor ask of a VM: timers of its GIC, hypercalls of its vCPUs,
diagnosis of both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from armvirt.arch.el1 import SCTLR_EE, SCTLR_EL1
from armvirt.arch.psci import SmcccFunction
from armvirt.hyp.firmware import ptp, pvtime
from armvirt.hyp.firmware.psci import SmcccHost
from armvirt.hyp.firmware.ptp import PtpCounter
from armvirt.hyp.firmware.smccc import Smccc
from armvirt.hyp.vcpu.exit_types import SystemEventExit
from armvirt.hyp.vcpu.ioctls import Power
from armvirt.hyp.vcpu.reset import Start
from armvirt.hyp.vgic.vgic import Vgic

if TYPE_CHECKING:
    from armvirt.hyp.diagnosis.trace import Comparison, Finding
    from armvirt.hyp.host.host import Host
    from armvirt.hyp.kvm import Vm
    from armvirt.hyp.vcpu.vcpu import Vcpu


class VmServices(SmcccHost):
    """The part of `armvirt.hyp.kvm.Vm` that is not for its VMM, but for `why_idle`, `diagnose` and
    `compare`."""

    vgic: Vgic | None
    host: Host
    smccc: Smccc
    wall_clock_start: int
    _vcpus: dict[int, Vcpu]

    # -- diagnosis --

    @property
    def _vm(self) -> Vm:
        return self  # type: ignore[return-value]

    def why_idle(self) -> list[str]:
        """What the vCPUs wait for in vain, in sentences (see `armvirt.hyp.diagnosis.idle`)."""
        from armvirt.hyp.diagnosis import idle

        return idle.causes(self._vm)

    def diagnose(self, vcpu_id: int, intid: int) -> list[Finding]:
        """Every station of an interrupt on its way to a vCPU, and what it would need
        (`hyp.diagnosis.of_vcpu`)."""
        from armvirt.hyp.diagnosis import of_vcpu as diagnosis

        return diagnosis.trace(self._vm, vcpu_id, intid)

    def compare(self, vcpu_id: int, taken: int, other: int) -> Comparison:
        """Why a vCPU takes one interrupt and not the other."""
        from armvirt.hyp.diagnosis import of_vcpu as diagnosis

        return diagnosis.compare(self._vm, vcpu_id, taken, other)

    # -- TimerVgic: the timers exist before the GIC does --

    def vgic_of(self) -> Vgic:
        assert self.vgic is not None
        return self.vgic

    def _kick(self, vcpu_id: int) -> None:
        self._vcpus[vcpu_id].wake()

    def _set_phys_active(self, vcpu_id: int, intid: int, active: bool) -> None:
        pe = self._vcpus[vcpu_id].pe
        if pe is not None:
            pe.gic.set_active(pe.index, intid, active)

    def inject(self, vcpu_id: int | None, intid: int, level: bool, owner: object = None) -> None:
        if self.vgic is not None and self.vgic.initialized:
            self.vgic.inject(vcpu_id, intid, level, owner)

    def map_phys_irq(self, vcpu_id: int, intid: int, host_intid: int, get_input_level) -> None:  # type: ignore[no-untyped-def]
        self.vgic_of().map_phys_irq(vcpu_id, intid, host_intid, get_input_level)

    def set_owner(self, vcpu_id: int, intid: int, owner: object) -> None:
        self.vgic_of().set_owner(vcpu_id, intid, owner)

    def is_active(self, vcpu_id: int, intid: int) -> bool:
        return self.vgic is not None and self.vgic.is_active(vcpu_id, intid)

    def reset_mapped_irq(self, vcpu_id: int, intid: int) -> None:
        self.vgic_of().reset_mapped_irq(vcpu_id, intid)

    def _add_services(self) -> None:
        """Hypercalls that need more of the VM than `SmcccHost`."""
        for function, handler in pvtime.calls(lambda vcpu_id: self._vcpus[vcpu_id].stolen_time):
            self.smccc.add(function, handler)
        self.smccc.add(
            SmcccFunction.VENDOR_PTP, lambda vcpu_id, args: self._ptp(self._vcpus[vcpu_id], args[0])
        )

    def _ptp(self, vcpu: Vcpu, which: int) -> tuple[int, int, int, int]:
        timers = vcpu.timer.cpu
        contexts = {PtpCounter.VIRTUAL: timers.vtimer, PtpCounter.PHYSICAL: timers.ptimer}
        return ptp.answer(
            which,
            self.wall_clock_start + self.host.clock.now,
            lambda counter: vcpu.timer.now(contexts[counter]),
        )

    # -- SmcccHost --

    def vcpu_ids(self) -> Iterable[int]:
        return self._vcpus.keys()

    def mpidr(self, vcpu_id: int) -> int:
        return self._vcpus[vcpu_id].mpidr

    def is_on(self, vcpu_id: int) -> bool:
        return self._vcpus[vcpu_id].power is not Power.OFF

    def cpu_on(self, vcpu_id: int, entry: int, context_id: int) -> None:
        caller = self.host.current
        big_endian = caller is not None and bool(caller.context.system(SCTLR_EL1) & SCTLR_EE)
        self._vcpus[vcpu_id].start(Start(entry, context_id, big_endian))

    def cpu_off(self, vcpu_id: int) -> None:
        self._vcpus[vcpu_id].power_off()
        if self.vgic is not None:
            self.vgic.power_off(vcpu_id)

    def cpu_suspend(self, vcpu_id: int) -> None:
        vcpu = self._vcpus[vcpu_id]
        if not vcpu.runnable_interrupt():
            vcpu.wait()
            vcpu.request_stop()

    def polls_for_cpu(self, vcpu_id: int) -> None:
        self.host.give_way(self._vcpus[vcpu_id])

    def system_suspend(self, vcpu_id: int, entry: int, context_id: int) -> None:
        self._vcpus[vcpu_id].system_suspend(entry, context_id)

    def system_event(self, kind: str, flags: int) -> None:
        caller = self.host.current
        for vcpu in self._vcpus.values():
            vcpu.power_off()
        assert caller is not None
        caller.system_event(SystemEventExit(kind, flags))
