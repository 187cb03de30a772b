"""Readers of the hypervisor's state: where an interrupt is, and why no vCPU goes on. Nothing here
changes state."""
