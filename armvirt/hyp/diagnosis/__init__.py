"""Diagnosis of the hypervisor's state: where an interrupt is, and why no vCPU can continue. These
modules only read the state."""
