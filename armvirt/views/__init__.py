"""Displays the state of a machine as text: why an interrupt is not taken, and the state of the
GIC."""
