"""The VMM: memory map, device tree, boot protocols, devices. The VMM calls the hypervisor
(`armvirt.hyp`) only by its KVM API."""
