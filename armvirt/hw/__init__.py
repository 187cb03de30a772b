"""The hardware that armvirt emulates for software at EL2: the CPU cores of an Arm SoC. This package
also has the engines that execute guest code."""
