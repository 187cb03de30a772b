"""Stage 2: memory slots, stage-2 faults, the dirty log."""
