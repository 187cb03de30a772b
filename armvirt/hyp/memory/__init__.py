"""The memory of a VM: memory slots, stage-2 tables and faults, the dirty log."""
