"""The VMM: memory map, device tree, boot protocols, devices. Knows ``hyp`` only as its KVM API."""
