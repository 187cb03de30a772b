"""The host kernel of KVM. `host` is the loop that runs the vCPUs, and `pcpu` is a physical CPU with
its context switch. `sched` has the decisions of the scheduler, `runnable` the interface between the
scheduler and a vCPU. `standstill` detects stuck guests, and `hrtimer` has the timers."""
