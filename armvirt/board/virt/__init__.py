"""The board that QEMU calls virt: memory map, devices, device tree."""
