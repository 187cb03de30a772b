"""KVM_RUN. `loop` is the run loop of a vCPU. `exits` handles the exits of the vCPU; `abort` and
`trapped_sysregs` handle two classes of these exits. `vmm_link` delivers exits to the VMM."""
