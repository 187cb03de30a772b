"""A virtual machine. The module `vm` has the state and the ioctls of a VM. The other modules have
its devices, its interrupts, its capabilities, and the functions that timers, vGIC and hypercalls
call."""
