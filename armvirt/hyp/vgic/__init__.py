"""The virtual GIC of a VM (kvm/vgic). The package offers the class `Vgic`.

The modules; each module imports only from modules further down in this list:

* ``device``: the vGIC and the ITS as KVM devices.
* ``vgic``: the functions that the VM calls; ``state``: save and restore.
* ``its``: the Interrupt Translation Service; ``registers``: the register frames.
* ``lpi``, ``sgi``, ``deactivation``: the effect of registers, system registers and ITSs on
  interrupts.
* ``flush``: moves ap_lists into list registers, and back; ``list_registers``, ``spi_routing``.
* ``distributor``: the state of the vGIC, look-up of interrupts, and the ap_lists.
* ``backlog``, ``placement``, ``vm_interface``, ``cpu``, ``irq``.
"""

from armvirt.hyp.vgic.vgic import Vgic

__all__ = ["Vgic"]
