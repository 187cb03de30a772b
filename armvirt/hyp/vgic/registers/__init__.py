"""The registers of the virtual GIC: one table of rows a frame, for GICv2 and GICv3."""
