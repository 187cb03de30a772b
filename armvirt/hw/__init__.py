"""The hardware: what the CPU cores of an Arm SoC do, as software at EL2 sees it."""
