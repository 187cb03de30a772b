"""armvirt: an ARMv8 virtualization emulator for the GIC and the Generic Timer."""

__version__ = "0.1.0"
