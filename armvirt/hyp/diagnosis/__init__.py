"""Why a vCPU does not take an interrupt, and why no vCPU can continue. These modules read the state
of the hypervisor, and never change it."""
