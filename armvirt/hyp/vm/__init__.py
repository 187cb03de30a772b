"""A VM: `vm` has its state and ioctls; the other modules have its devices, interrupts, capabilities
and services."""
