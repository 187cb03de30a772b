"""What the host kernel gives KVM: CPUs, a scheduler, timers."""
