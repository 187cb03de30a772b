"""The virtual and physical timers of a vCPU (KVM's arch_timer.c).

``registers``: accesses by guest and user space; ``arch_timer``: load and put, levels, host timers
and the background timer; ``context``: the data, the offsets and the pure decisions. A module
imports only from those that stand after it.
"""
