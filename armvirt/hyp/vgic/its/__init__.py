"""The Interrupt Translation Service of a GICv3 (kvm/vgic/vgic-its.c).

* ``its``: the mappings of devices, events and collections, and the translation of messages
  (`its.Its`).
* ``registers``: the register frame GITS; ``frame``: MMIO accesses of a vCPU to the frame.
* ``commands``: the command queue.
* ``tables``: save and restore of the mappings in guest memory.

A machine without an ITS imports none of these modules.
"""
