"""The virt board of QEMU: memory map, devices, device tree."""
