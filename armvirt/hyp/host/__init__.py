"""The host kernel of KVM: `host` is its loop, `runnable` what it schedules, `sched` the
decisions."""
