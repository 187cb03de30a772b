"""The interrupts that a VMM raises in its VM: KVM_IRQ_LINE, GSIs, irqfds (virt/kvm/irqchip.c,
virt/kvm/eventfd.c, vgic-irqfd.c).

A GSI is routed to a pin of the interrupt controller. Pin n is the SPI with the INTID 32 + n. An
irqfd is a callable instead of a file: a call of the callable corresponds to a write of the eventfd.
Routes and irqfds are not part of the saved state, so the VMM sets them up again after `Vm.load`.
The pending interrupts are part of the vGIC's state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from armvirt.arch.gic import FIRST_SPI, MAX_SPI
from armvirt.errors import KvmError
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.records import NamedTuple

# The packed word of KVM_IRQ_LINE (uapi/asm/kvm.h).
IRQ_TYPE_CPU, IRQ_TYPE_SPI, IRQ_TYPE_PPI = 0, 1, 2
CPU_LINES = (0, 1)  # KVM_ARM_IRQ_CPU_IRQ, KVM_ARM_IRQ_CPU_FIQ
PINS = MAX_SPI + 1 - FIRST_SPI  # KVM_IRQCHIP_NUM_PINS
MAX_ROUTES = 4096  # KVM_MAX_IRQ_ROUTES


def irq_line_word(kind: int, number: int, vcpu_id: int = 0) -> int:
    """Return the packed word of KVM_IRQ_LINE: vcpu2 [31:28], type [27:24], vcpu [23:16], number
    [15:0]. ``kind`` is the type (`IRQ_TYPE_CPU`, `IRQ_TYPE_SPI` or `IRQ_TYPE_PPI`)."""
    return (vcpu_id >> 8 & 15) << 28 | kind << 24 | (vcpu_id & 0xFF) << 16 | number & 0xFFFF


def irq_line_fields(word: int) -> tuple[int, int, int]:
    """Return the type, the number and the vCPU id of a packed word of KVM_IRQ_LINE."""
    return word >> 24 & 15, word & 0xFFFF, (word >> 28 & 15) << 8 | word >> 16 & 0xFF


class GsiRoute(NamedTuple):
    """The route of one GSI to a pin of an irqchip (struct kvm_irq_routing_entry of type
    KVM_IRQ_ROUTING_IRQCHIP)."""

    gsi: int
    pin: int
    irqchip: int = 0


class IrqRouter:
    """The GSIs of one VM. ``vgic()`` returns the VM's interrupt controller, None if the VM has
    none."""

    def __init__(self, vgic: Callable[[], Vgic | None]) -> None:
        self._vgic = vgic
        self._routes: dict[int, int] | None = (
            None  # None: GSI n is pin n (kvm_vgic_setup_default_irq_routing)
        )
        self._resamplers: dict[int, list[Callable[[], None]]] = {}

    # Routing -------------------------------------------------------------------------------------

    def set_routing(self, entries: Iterable[GsiRoute]) -> None:
        """Replace all routes (KVM_SET_GSI_ROUTING). KvmError EINVAL for a pin or an irqchip that
        does not exist, for a GSI that is routed twice or is out of range, and for too many entries.
        After an error the routes are unchanged."""
        routes: dict[int, int] = {}
        for entry in entries:
            if not 0 <= entry.pin < PINS or entry.irqchip != 0:
                raise KvmError(
                    "EINVAL", f"GSI {entry.gsi}: no pin {entry.pin} of irqchip {entry.irqchip}"
                )
            if not 0 <= entry.gsi < MAX_ROUTES or entry.gsi in routes or len(routes) >= MAX_ROUTES:
                raise KvmError("EINVAL", f"GSI {entry.gsi} cannot be routed, or is routed twice")
            routes[entry.gsi] = entry.pin
        self._routes = routes
        self._listen()

    def pin(self, gsi: int) -> int | None:
        """The pin to which a GSI is routed; None if the GSI is not routed."""
        if self._routes is None:
            return gsi if 0 <= gsi < PINS else None
        return self._routes.get(gsi)

    def set_irq(self, gsi: int, level: bool) -> None:
        """Set the level of the pin to which a GSI is routed (kvm_set_irq). The call has no effect
        if the GSI has no pin, or if the vGIC does not have the pin's SPI."""
        pin, vgic = self.pin(gsi), self._vgic()
        if pin is not None and vgic is not None and vgic.dist.spi(FIRST_SPI + pin) is not None:
            vgic.inject(None, FIRST_SPI + pin, level)

    # irqfds --------------------------------------------------------------------------------------

    def irqfd(self, gsi: int, resample: Callable[[], None] | None = None) -> Callable[[], None]:
        """Add an irqfd (KVM_IRQFD), and return its trigger: a function that raises the GSI.
        KvmError EAGAIN before the vGIC is initialised.

        Without ``resample``, a call of the trigger is a pulse, for edge-triggered interrupts. With
        ``resample``, a call of the trigger asserts the line of the GSI until the guest ends the
        level-sensitive interrupt. Then the line falls, and ``resample()`` is called. If the device
        still asserts its interrupt, ``resample`` calls the trigger again. All irqfds of one GSI
        that have ``resample`` share the line of the GSI.
        """
        vgic = self._vgic()
        if vgic is None or not vgic.dist.initialized:
            raise KvmError("EAGAIN", "an irqfd needs an initialised vGIC")
        if resample is None:
            return lambda: self._pulse(gsi)
        self._resamplers.setdefault(gsi, []).append(resample)
        self._listen()
        return lambda: self.set_irq(gsi, True)

    def deassign(self, gsi: int, resample: Callable[[], None]) -> None:
        """Remove an irqfd that was added with ``resample`` (KVM_IRQFD_FLAG_DEASSIGN). If this irqfd
        was the last one of the GSI with a ``resample``, the line of the GSI falls."""
        left = self._resamplers.get(gsi, [])
        if resample in left:
            left.remove(resample)
        if not left and self._resamplers.pop(gsi, None) is not None:
            self.set_irq(gsi, False)
        self._listen()

    def _pulse(self, gsi: int) -> None:
        self.set_irq(gsi, True)
        self.set_irq(gsi, False)

    def _listen(self) -> None:
        """Give the vGIC the list of the SPIs whose GSI has an irqfd with ``resample``. When the
        guest ends an interrupt of these SPIs, the vGIC calls `ended`."""
        vgic = self._vgic()
        if vgic is not None:
            pins = {self.pin(gsi) for gsi in self._resamplers}
            vgic.watch(frozenset(FIRST_SPI + pin for pin in pins if pin is not None))

    def ended(self, intid: int) -> None:
        """Handle the end of a level-sensitive SPI (kvm_notify_acked_irq, irqfd_resampler_ack). For
        each GSI that is routed to the SPI, lower the line, and then call the ``resample`` functions
        of the GSI's irqfds."""
        for gsi, resamplers in list(self._resamplers.items()):
            if self.pin(gsi) == intid - FIRST_SPI:
                self.set_irq(gsi, False)
                for resample in list(resamplers):
                    resample()
