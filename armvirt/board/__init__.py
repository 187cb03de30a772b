"""The VMM: memory map, device tree, boot protocols, devices. The VMM uses only the KVM API of the
hypervisor (`armvirt.hyp`)."""
