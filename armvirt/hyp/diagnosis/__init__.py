"""The diagnosis explains why a vCPU does not take an interrupt, and why no vCPU can continue. These
modules only read the state of the hypervisor. They never change the state."""
