"""The functions of a VM that its timers, its vGIC and its hypercall handlers call: one class for
each of these three callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from armvirt.arch.bits import MASK64
from armvirt.arch.named import SCTLR_EE, SCTLR_EL1
from armvirt.arch.psci import PsciResult, SmcccFunction
from armvirt.hw.clock import Clock
from armvirt.hyp.firmware import pvtime
from armvirt.hyp.firmware.pvtime import PtpCounter
from armvirt.hyp.firmware.smccc import Smccc
from armvirt.hyp.host.host import Host
from armvirt.hyp.vcpu.exit_types import SystemEventExit
from armvirt.hyp.vcpu.power import Power
from armvirt.hyp.vcpu.reset import Start
from armvirt.hyp.vcpu.vcpu import Vcpu
from armvirt.hyp.vgic.backlog import SLICE_NS
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.hyp.vm.irqs import IrqRouter


class Vm(Protocol):
    """The attributes and methods of a VM that the classes of this module use."""

    host: Host
    vgic: Vgic | None

    @property
    def vcpus(self) -> Iterable[Vcpu]: ...

    def vcpu(self, vcpu_id: int) -> Vcpu:
        """The vCPU with the id ``vcpu_id``. KvmError ENOENT if the vCPU was not created."""
        ...


class NoVgic:
    """The replacement for `TimerVgic` in a VM that has no vGIC. The timers of such a VM call only
    `inject` and `is_active`, because `ArchTimerCpu.enabled` (timer->enabled of KVM) stays False."""

    def inject(self, vcpu_id: int | None, intid: int, level: bool, owner: object = None) -> None:
        """Do nothing, because the VMM emulates the interrupt controller."""

    def map_phys_irq(
        self, vcpu_id: int, intid: int, host_intid: int, get_input_level: Callable[[], bool]
    ) -> None:
        raise AssertionError("a timer is enabled without a vGIC")

    def set_owner(self, vcpu_id: int, intid: int, owner: object) -> None:
        raise AssertionError("a timer is enabled without a vGIC")

    def is_active(self, vcpu_id: int, intid: int) -> bool:
        return False

    def reset_mapped_irq(self, vcpu_id: int, intid: int) -> None:
        raise AssertionError("a timer is enabled without a vGIC")


NO_VGIC = NoVgic()


class VmVgicCallbacks:
    """The interface from the vGIC to its VM (`armvirt.hyp.vgic.vm_interface.VgicCallbacks`).

    The vGIC does a long action on many LPIs in several steps (`armvirt.hyp.vgic.backlog`). A timer
    in the event queue of the virtual clock starts the next step. ``owner`` is the name of this
    timer.
    """

    def __init__(
        self, vcpus: Mapping[int, Vcpu], irqs: IrqRouter, clock: Clock, owner: str
    ) -> None:
        self._vcpus, self._irqs, self._clock, self._owner = vcpus, irqs, clock, owner

    def connect(self, vgic: Vgic) -> None:
        """Register `Vgic.go_on` as the callback of the timer. `Vgic.go_on` does the next step of a
        long action on many LPIs."""
        self._clock.register(self._owner, lambda _: vgic.go_on())

    def kick(self, vcpu_id: int) -> None:
        self._vcpus[vcpu_id].wake()

    def set_phys_active(self, vcpu_id: int, host_intid: int, active: bool) -> None:
        pe = self._vcpus[vcpu_id].pe
        if pe is not None:
            pe.gic.set_active(pe.index, host_intid, active)

    def irq_ended(self, intid: int) -> None:
        self._irqs.ended(intid)

    def lpi_work_left(self) -> None:
        """Arm the timer for the next step of a long action on many LPIs, unless the timer is armed.
        The timer expires after `SLICE_NS` ns of virtual time."""
        if self._clock.armed(self._owner) is None:
            self._clock.arm(self._clock.now + SLICE_NS, self._owner)


class VmSmcccHost:
    """The interface from PSCI to its VM (protocol `SmcccHost`)."""

    __slots__ = ("_vm",)

    def __init__(self, vm: Vm) -> None:
        self._vm = vm

    def vcpu_ids(self) -> Iterable[int]:
        return [vcpu.id for vcpu in self._vm.vcpus]

    def mpidr(self, vcpu_id: int) -> int:
        return self._vm.vcpu(vcpu_id).mpidr

    def is_on(self, vcpu_id: int) -> bool:
        return self._vm.vcpu(vcpu_id).power is not Power.OFF

    def cpu_on(self, vcpu_id: int, entry: int, context_id: int) -> None:
        """Start a vCPU (kvm_psci_vcpu_on). The vCPU starts with the endianness of the vCPU that
        calls CPU_ON."""
        caller = self._vm.host.current
        big_endian = caller is not None and bool(caller.context.system(SCTLR_EL1) & SCTLR_EE)
        self._vm.vcpu(vcpu_id).start(Start(entry, context_id, big_endian))

    def cpu_off(self, vcpu_id: int) -> None:
        self._vm.vcpu(vcpu_id).power_off()
        if self._vm.vgic is not None:
            self._vm.vgic.power_off(vcpu_id)

    def cpu_suspend(self, vcpu_id: int) -> None:
        vcpu = self._vm.vcpu(vcpu_id)
        if not vcpu.runnable_interrupt():
            vcpu.wait()
            vcpu.request_stop()

    def polls_for_cpu(self, vcpu_id: int) -> None:
        self._vm.host.give_way(self._vm.vcpu(vcpu_id))

    def system_suspend(self, vcpu_id: int, entry: int, context_id: int) -> None:
        """Exit to the VMM with the system event suspend. The VMM either suspends the VM, or denies
        the suspend and writes an error code to x0."""
        self._vm.vcpu(vcpu_id).vmm.tell(SystemEventExit("suspend", 0, entry, context_id))
        self._vm.host.stop()

    def system_event(self, kind: str, flags: int) -> None:
        """Power off all vCPUs and exit to the VMM with a system event. ``kind`` is shutdown or
        reset. x0 of the calling vCPU gets INTERNAL_FAILURE. The guest reads this result only if the
        VMM runs the vCPU again."""
        host = self._vm.host
        for vcpu in self._vm.vcpus:
            vcpu.power_off()
        caller = next(vcpu for vcpu in self._vm.vcpus if vcpu is host.current)
        caller.context.set_x(0, PsciResult.INTERNAL_FAILURE & MASK64)
        caller.vmm.tell(SystemEventExit(kind, flags))
        host.stop()


def add_calls(smccc: Smccc, vm: Vm, wall_clock: Callable[[], int]) -> None:
    """Register the handlers of the stolen time hypercalls and of the PTP hypercall in ``smccc``,
    the table of the VM's hypercalls. These handlers need the vCPU that makes the call.
    ``wall_clock()`` returns the guest's date in ns since 1970."""
    for function, handler in pvtime.calls(lambda vcpu_id: vm.vcpu(vcpu_id).stolen_time):
        smccc.add(function, handler)
    smccc.add(
        SmcccFunction.VENDOR_PTP,
        lambda vcpu_id, args: _ptp(vm.vcpu(vcpu_id), args[0], wall_clock()),
    )


def _ptp(vcpu: Vcpu, which: int, now: int) -> tuple[int, int, int, int]:
    timers = vcpu.timer.cpu
    contexts = {PtpCounter.VIRTUAL: timers.vtimer, PtpCounter.PHYSICAL: timers.ptimer}
    return pvtime.ptp_answer(which, now, lambda counter: vcpu.timer.now(contexts[counter]))
