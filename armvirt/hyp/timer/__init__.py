"""The virtual and physical timers of a vCPU: KVM's arch_timer.c."""
