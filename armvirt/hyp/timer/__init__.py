"""The virtual and physical timers of a vCPU (KVM's arch_timer.c).

* ``registers``: accesses by the guest and by user space.
* ``arch_timer``: load and put, output levels, the host kernel's hrtimers and the background timer.
* ``context``: the data and the offsets, and whether a timer can fire.

Each of these modules imports only modules that are below it in this list.
"""
