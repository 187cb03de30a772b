"""The host kernel of KVM: `host` is its loop, `runnable` is the protocol of a vCPU that the loop
schedules, `sched` has the scheduling decisions, `standstill` detects stuck guests, `hrtimer` has
the timers."""
