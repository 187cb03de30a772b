"""The register frames of the vGIC.

* ``frames``: GICD and GICR, for MMIO accesses of a vCPU.
* ``mmio_v2``: the registers of a GICv2, also for save and restore; ``mmio_v3``: GICD and GICR of a
  GICv3.
* ``v3_cpu_interface``: ICC_*_EL1, for save and restore.
* ``irq_registers``: the registers that have a field for each INTID; ``register_map``: a frame as a
  table of registers.

`armvirt.arch.gic` has tables with the offset and the size of each register. ``mmio_v2`` and
``mmio_v3`` bind each row of these tables to the functions that read and write the register.
"""
