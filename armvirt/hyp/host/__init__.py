"""The host kernel of KVM, as a part of the emulation. `host` has the loop that runs the vCPUs.
`pcpu` has a physical CPU and its context switch. `sched` has the decisions of the scheduler.
`runnable` has the interface between the scheduler and a vCPU. `standstill` detects stuck guests.
`hrtimer` has the host kernel's timers."""
