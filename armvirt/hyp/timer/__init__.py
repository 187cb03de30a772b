"""The virtual and physical timers of a vCPU (KVM's arch_timer.c).

* ``registers``: accesses by the guest and by user space.
* ``arch_timer``: load and put, output levels, host timers and the background timer.
* ``context``: the data and the offsets, and whether a timer can fire.

A module imports only modules that stand below it in this list.
"""
