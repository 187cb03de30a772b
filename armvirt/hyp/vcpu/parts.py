"""The parts of a vCPU's state (struct kvm_vcpu_arch), such as registers, traps and timers.
`VcpuPart` is the base class of a part, and `VcpuParts` is the list of the parts of one vCPU. The
other classes are the parts for vGIC, timers, stolen time and scheduler; the data of these parts are
in other packages."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import ClassVar, TypeVar

from armvirt.errors import KvmError
from armvirt.hw.pe import Pe
from armvirt.hyp.firmware.pvtime import StolenTime
from armvirt.hyp.host.sched import SchedEntity
from armvirt.hyp.timer import registers as timer_registers
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.state import State, checked, load_states, states_of

TIMER_STATE_VERSION = 1


class VcpuGroup(IntEnum):
    """The groups of the device attributes of a vCPU (uapi/asm/kvm.h): KVM_ARM_VCPU_TIMER_CTRL,
    KVM_ARM_VCPU_PVTIME_CTRL."""

    TIMER_CTRL = 1
    PVTIME_CTRL = 2


class VcpuPart:
    """One part of the state of a vCPU, for example its registers. A subclass overrides the methods
    that the part needs.

    The methods of this class have no effect. `VcpuParts` calls only the methods that a subclass
    overrides, so that an empty method costs no time at vcpu_load. A subclass that overrides `state`
    also overrides `load`. ``group`` is the group of the part's device attributes; None if the part
    has no attributes.
    """

    __slots__ = ()
    group: ClassVar[VcpuGroup | None] = None

    def reset(self) -> None:
        """Reset this part of the vCPU's state (kvm_reset_vcpu)."""

    def vcpu_load(self, pe: Pe) -> None:
        """Load the registers of this part of the vCPU on the PE to which the vCPU is bound
        (kvm_arch_vcpu_load)."""

    def vcpu_put(self) -> None:
        """Save the registers of this part of the vCPU from the PE (kvm_arch_vcpu_put)."""

    def attach(self, pe: Pe) -> None:
        """Bind this part of the vCPU to ``pe`` after the restore of a saved state. The part loads
        no register, because the registers of ``pe`` have been restored, too."""

    def detach(self) -> None:
        """Unbind this part of the vCPU from its PE before the restore of a saved state. The part
        saves no register, because the restore replaces the part's state."""

    def state(self) -> State:
        """What this part adds to the saved state of the vCPU: plain data with a version."""
        return {}

    def load(self, state: State) -> None:
        """Restore the result of `state`. StateError if the version in the result differs from the
        version that this code writes."""

    def set_attr(self, attr: int, value: int | None) -> None:
        """Set a device attribute (KVM_SET_DEVICE_ATTR). KvmError ENXIO for an unknown attribute."""
        self.has_attr(attr)

    def get_attr(self, attr: int) -> int:
        """Return a device attribute (KVM_GET_DEVICE_ATTR). KvmError ENXIO for an unknown
        attribute."""
        self.has_attr(attr)
        return 0

    def has_attr(self, attr: int) -> None:
        """Check that this part of the vCPU has a device attribute (KVM_HAS_DEVICE_ATTR). KvmError
        ENXIO for an unknown attribute."""
        raise KvmError("ENXIO", f"no attribute {attr}")


Part = TypeVar("Part", bound=VcpuPart)


class VcpuParts:
    """The parts of one vCPU, in the order in which they were added. `reset`, `attach`, `state` and
    `load` call the method of the same name of each part, in this order. `detach` calls the method
    `detach` of each part, in the reverse order.

    ``loads`` has the methods `vcpu_load` of the parts, in this order. ``puts`` has the methods
    `vcpu_put`, in the reverse order. Both contain only the methods that a part overrides.
    """

    __slots__ = ("_attaches", "_detaches", "_groups", "_resets", "_saved", "loads", "puts")

    def __init__(self) -> None:
        self._saved: dict[str, VcpuPart] = {}
        self._resets: list[Callable[[], None]] = []
        self.loads: tuple[Callable[[Pe], None], ...] = ()
        self.puts: tuple[Callable[[], None], ...] = ()
        self._attaches: list[Callable[[Pe], None]] = []
        self._detaches: list[Callable[[], None]] = []
        self._groups: dict[int, VcpuPart] = {}

    def __repr__(self) -> str:
        return f"<VcpuParts: {', '.join(self._saved)}>"

    def add(self, name: str, part: Part) -> Part:
        """Append a part of the vCPU's state, and return the part. In the saved state of the vCPU,
        ``name`` is the key of the part."""
        kind = type(part)
        if kind.reset is not VcpuPart.reset:
            self._resets.append(part.reset)
        if kind.vcpu_load is not VcpuPart.vcpu_load:
            self.loads = (*self.loads, part.vcpu_load)
        if kind.vcpu_put is not VcpuPart.vcpu_put:
            self.puts = (part.vcpu_put, *self.puts)
        if kind.attach is not VcpuPart.attach:
            self._attaches.append(part.attach)
        if kind.detach is not VcpuPart.detach:
            self._detaches.insert(0, part.detach)
        if kind.state is not VcpuPart.state:
            self._saved[name] = part
        if part.group is not None:
            self._groups[part.group] = part
        return part

    def of_group(self, group: int) -> VcpuPart:
        """The part of the vCPU that has the device attributes of ``group``. KvmError ENXIO for an
        unknown group (arch/arm64/kvm/guest.c, kvm_arm_vcpu_arch_set_attr)."""
        if group not in self._groups:
            raise KvmError("ENXIO", f"a vCPU has no attribute group {group}")
        return self._groups[group]

    def reset(self) -> None:
        for reset in self._resets:
            reset()

    def attach(self, pe: Pe) -> None:
        for attach in self._attaches:
            attach(pe)

    def detach(self) -> None:
        for detach in self._detaches:
            detach()

    def state(self) -> State:
        """The saved state of each part of the vCPU, by the name of the part."""
        return states_of(self._saved)

    def load(self, states: State) -> None:
        """Restore the result of `state`. StateError if its keys are not the names of the parts that
        this vCPU has."""
        load_states(self._saved, states, "a vCPU")


class VgicPart(VcpuPart):
    """The CPU interface of one vCPU in the vGIC. ``vgic`` is None while the VM has no vGIC. This
    part has no saved state, because the vGIC saves the state of all vCPUs."""

    __slots__ = ("_vcpu_id", "vgic")

    def __init__(self, vgic: Vgic | None, vcpu_id: int) -> None:
        self.vgic, self._vcpu_id = vgic, vcpu_id

    def vcpu_load(self, pe: Pe) -> None:
        if self.vgic is not None:
            self.vgic.load(self._vcpu_id, pe.vif)
        else:
            pe.vif.sre = False  # a guest without a GIC: ICC_*_EL1 are UNDEFINED

    def vcpu_put(self) -> None:
        if self.vgic is not None:
            self.vgic.put(self._vcpu_id)

    def attach(self, pe: Pe) -> None:
        if self.vgic is not None:
            self.vgic.attach(self._vcpu_id, pe.vif)

    def detach(self) -> None:
        if self.vgic is not None:
            self.vgic.detach(self._vcpu_id)


class TimerPart(VcpuPart):
    """The timers of one vCPU. The device attributes of this part are the PPI numbers of the timers.
    ``in_kernel`` is true if the VM has a vGIC (irqchip_in_kernel).

    In a VM without a vGIC, ``device_irq_level`` is kvm_run.s.regs.device_irq_level: the levels of
    the timer lines at the last report to the VMM. Bit 0 is the virtual timer, bit 1 is the physical
    timer.
    """

    __slots__ = ("_timer", "device_irq_level", "in_kernel")
    group = VcpuGroup.TIMER_CTRL

    def __init__(self, timer: ArchTimer, in_kernel: bool) -> None:
        self._timer, self.in_kernel = timer, in_kernel
        self.device_irq_level = 0

    def reset(self) -> None:
        self._timer.vcpu_reset()

    def vcpu_load(self, pe: Pe) -> None:
        self._timer.vcpu_load(pe.timer)

    def vcpu_put(self) -> None:
        self._timer.vcpu_put()

    def attach(self, pe: Pe) -> None:
        self._timer.attach(pe.timer)

    def detach(self) -> None:
        self._timer.detach()

    def should_notify_user(self) -> bool:
        """In a VM without a vGIC: whether the level of a timer line differs from its level at the
        last report to the VMM (kvm_timer_should_notify_user)."""
        self._timer.sync_user()
        return self._timer.device_irq_level != self.device_irq_level

    def notify_user(self) -> None:
        """Copy the levels of the timer lines to ``device_irq_level``, which the VMM reads
        (kvm_timer_update_run)."""
        self.device_irq_level = self._timer.device_irq_level

    def set_attr(self, attr: int, value: int | None) -> None:
        """Set the PPI of a timer, see `armvirt.hyp.timer.registers.set_attr`. KvmError EINVAL in a
        VM without a vGIC."""
        timer_registers.set_attr(self._timer, attr, value, self.in_kernel)

    def get_attr(self, attr: int) -> int:
        return timer_registers.get_attr(self._timer, attr)

    def has_attr(self, attr: int) -> None:
        timer_registers.has_attr(attr)

    def state(self) -> State:
        return {
            "version": TIMER_STATE_VERSION,
            "arch_timer": self._timer.state(),
            "device_irq_level": self.device_irq_level,
        }

    def load(self, state: State) -> None:
        checked(state, "TimerPart", TIMER_STATE_VERSION)
        self._timer.load(state["arch_timer"])
        self.device_irq_level = state["device_irq_level"]


class StolenTimePart(StolenTime, VcpuPart):
    """The stolen time of one vCPU. The device attribute is the address of the stolen time
    structure."""

    group = VcpuGroup.PVTIME_CTRL

    def vcpu_load(self, pe: Pe) -> None:
        if self.base is not None:
            self.update()


class SchedPart(SchedEntity, VcpuPart):
    """The state of one vCPU in the host's scheduler."""

    __slots__ = ()
