"""The virtual GIC (kvm/vgic): offers `Vgic`, the GIC of one VM.

Modules; each module imports only from modules further down in this list:

* ``device``: the vGIC and the ITS as KVM devices; ``vgic``: the API towards the VM; ``state``.
* ``its``: Interrupt Translation Services; ``registers``: the register frames.
* ``lpi``, ``sgi``, ``deactivation``: the effect of registers, system registers and ITSs on
  interrupts.
* ``flush``: ap_lists into list registers, and back; ``list_registers``, ``spi_routing``.
* ``distributor``: state, look-up, and the ap_lists; ``backlog``, ``placement``, ``cpu``, ``irq``.
"""

from armvirt.hyp.vgic.vgic import Vgic

__all__ = ["Vgic"]
