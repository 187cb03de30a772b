"""KVM_RUN: `loop` is the run loop of a vCPU, `exits` handles its exits (with `abort` and
`trapped_sysregs`), `vmm_link` delivers exits to its VMM."""
