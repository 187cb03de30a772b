"""A VM: `vm` is its state and ioctls; the other modules are its devices, interrupts and
services."""
