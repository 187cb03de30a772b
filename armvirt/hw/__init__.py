"""The hardware: the CPU cores of an Arm SoC as software at EL2 sees them, and the engines that
execute guest code."""
