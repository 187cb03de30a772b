"""The register frames of the vGIC.

Offers: ``frames`` (GICD and GICR for MMIO accesses), ``mmio_v2`` (GICC, and its registers for
user space), ``v3_cpu_interface`` (ICC_*_EL1 for user space). Each other module binds the rows
of one frame (`armvirt.arch.gic`) to the functions that read and write.
"""
