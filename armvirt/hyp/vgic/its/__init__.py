"""The Interrupt Translation Service of a GICv3 (kvm/vgic/vgic-its.c).

Offers: ``its`` (`its.Its`: maps and messages), ``registers`` (the frame GITS), ``commands`` (the
command queue), ``tables`` (save and restore in guest memory). A machine without an ITS loads none
of these modules.
"""
