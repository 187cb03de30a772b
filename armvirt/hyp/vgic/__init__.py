"""The virtual GIC: interrupt state, list-register flush and fold, register frames."""
