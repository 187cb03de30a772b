"""The interrupts of a VM as its VMM raises them: lines, messages, irqfds (virt/kvm/eventfd.c,
arch/arm64/kvm/arm.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from armvirt.arch.gic import NR_PRIVATE, is_ppi
from armvirt.errors import KvmError
from armvirt.hyp.vm.ioeventfd import IoEventFds
from armvirt.hyp.vm.irqfd import GsiRoute, IrqRouter

if TYPE_CHECKING:
    from armvirt.hyp.host.host import Host
    from armvirt.hyp.vcpu.vcpu import Vcpu
    from armvirt.hyp.vgic.vgic import Vgic

# The packed word of KVM_IRQ_LINE (uapi/asm/kvm.h).
IRQ_TYPE_CPU, IRQ_TYPE_SPI, IRQ_TYPE_PPI = 0, 1, 2
CPU_LINES = (0, 1)  # KVM_ARM_IRQ_CPU_IRQ, KVM_ARM_IRQ_CPU_FIQ


def irq_line_word(kind: int, number: int, vcpu_id: int = 0) -> int:
    """vcpu2 [31:28], type [27:24], vcpu [23:16], number [15:0]."""
    return (vcpu_id >> 8 & 15) << 28 | kind << 24 | (vcpu_id & 0xFF) << 16 | number & 0xFFFF


class VmIrq:
    """The part of `armvirt.hyp.kvm.Vm` that is about interrupts."""

    host: Host
    vgic: Vgic | None
    _vcpus: dict[int, Vcpu]
    ioeventfds: IoEventFds
    _irqs: IrqRouter

    def signal_msi(self, address: int, data: int, devid: int | None = None) -> int:
        """KVM_SIGNAL_MSI: a device writes ``data`` to a doorbell. 1: delivered, 0: the guest blocks
        it.

        Errors as `Vgic.signal_msi`; EINVAL without an interrupt controller.
        """
        if self.vgic is None:
            raise KvmError("EINVAL", "this VM has no interrupt controller")
        self.host.check_thread()
        return int(self.vgic.signal_msi(address, data, devid))

    def irq_line(self, intid: int, level: bool, vcpu_id: int | None = None) -> None:
        """KVM_IRQ_LINE: an SPI by INTID, or a PPI of a vCPU. EINVAL out of range, ENXIO without a
        GIC."""
        if self.vgic is None:
            raise KvmError("ENXIO", "this VM has no interrupt controller")
        self.host.check_thread()
        self.vgic.inject(vcpu_id, intid, level)

    def irq_line_raw(self, word: int, level: bool) -> None:
        """KVM_IRQ_LINE with its packed word (see `irq_line_word`).

        Of type CPU, ``number`` is the vCPU's own IRQ (0) or FIQ (1) input, for a VM without an
        interrupt controller.

        KvmError ENXIO for SPIs and PPIs without an interrupt controller, and for a CPU's inputs
        with one, which drives them; EINVAL for an unknown type, a vCPU that does not exist, an
        INTID that is not of the type or not implemented.
        """
        kind, number = word >> 24 & 15, word & 0xFFFF
        if kind not in (IRQ_TYPE_CPU, IRQ_TYPE_SPI, IRQ_TYPE_PPI):
            raise KvmError("EINVAL", f"KVM_IRQ_LINE: no interrupt type {kind}")
        vcpu_id = (word >> 28 & 15) << 8 | word >> 16 & 0xFF
        if kind == IRQ_TYPE_CPU and self.vgic is None:
            if vcpu_id not in self._vcpus or number not in CPU_LINES:
                raise KvmError("EINVAL", f"no input {number} of vCPU {vcpu_id}")
            self._vcpus[vcpu_id].set_line(number, level)
            return
        if self.vgic is None or kind == IRQ_TYPE_CPU:
            raise KvmError("ENXIO", "interrupt lines belong to the interrupt controller")
        if kind == IRQ_TYPE_SPI:
            if number < NR_PRIVATE:
                raise KvmError("EINVAL", f"INTID {number} is no SPI")
            self.vgic.inject(None, number, level)
            return
        if vcpu_id not in self._vcpus or not is_ppi(number):
            raise KvmError("EINVAL", f"no PPI {number} of vCPU {vcpu_id}")
        self.vgic.inject(vcpu_id, number, level)

    def set_gsi_routing(self, entries: Iterable[GsiRoute]) -> None:
        """KVM_SET_GSI_ROUTING, see `IrqRouter.set_routing`. By default GSI n is SPI n, INTID 32 +
        n."""
        self._irqs.set_routing(entries)

    def irqfd(self, gsi: int, resample: Callable[[], None] | None = None) -> Callable[[], None]:
        """KVM_IRQFD: a function that raises a GSI, see `IrqRouter.irqfd`."""
        return self._irqs.irqfd(gsi, resample)

    def irqfd_deassign(self, gsi: int, resample: Callable[[], None]) -> None:
        """KVM_IRQFD_FLAG_DEASSIGN of an irqfd with a resampler."""
        self._irqs.deassign(gsi, resample)

    def ioeventfd(
        self, address: int, length: int, signal: Callable[[], None], datamatch: int | None = None, *,
        deassign: bool = False,
    ) -> None:  # fmt: skip
        """KVM_IOEVENTFD: a guest's store of ``length`` bytes (0: any) to ``address``, if it has the
        data ``datamatch`` or that is None, calls ``signal()`` instead of leaving to the VMM. Errors
        as `IoEventFds`."""
        change = self.ioeventfds.deassign if deassign else self.ioeventfds.assign
        change(address, length, signal, datamatch)
