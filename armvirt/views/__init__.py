"""Views of a machine for people: why an interrupt does not come, and the whole GIC."""
