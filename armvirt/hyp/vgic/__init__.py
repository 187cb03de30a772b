"""The virtual GIC of a VM (kvm/vgic). The package offers the class `Vgic`.

The list below has the modules. Each module imports only modules that are further down in the list.

* ``device``: the vGIC and the ITS as KVM devices.
* ``vgic``: the functions that the VM calls; ``state``: save and restore.
* ``its``: the Interrupt Translation Service; ``registers``: the register frames.
* ``lpi``, ``sgi``, ``deactivation``: the effect of registers, system registers and ITSs on
  interrupts.
* ``flush``: moves the interrupts of ap_lists into list registers, and back; ``list_registers``:
  computes the values of list registers; ``spi_routing``: chooses the target vCPU of an SPI.
* ``distributor``: the state of the vGIC, the look-up of interrupts, and the ap_lists.
* ``backlog``: the work on many LPIs; ``placement``: the addresses of the frames; ``vm_interface``:
  the functions of the VM that the vGIC calls; ``cpu``: the state of one vCPU; ``irq``: the state of
  one interrupt.
"""

from armvirt.hyp.vgic.vgic import Vgic

__all__ = ["Vgic"]
