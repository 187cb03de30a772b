"""Enters a vCPU, handles its exits (`exits`), and talks to its VMM (`vmm_link`); `loop` is the run
loop."""
