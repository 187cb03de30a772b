"""Stage 2: memory slots, the MMU's faults, the dirty log."""
