"""The VMM: memory map, device tree, boot protocols, devices. The VMM uses ``hyp`` only through its
KVM API."""
