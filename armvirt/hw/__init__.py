"""The silicon: what an Arm SoC does in hardware, as EL2 software sees it."""
