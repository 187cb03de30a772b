"""A virtual CPU. The module `vcpu` has vcpu_load, vcpu_put and the ioctls of a vCPU; `parts` has
the base class of the parts of a vCPU, and their list. Each other module has one subject:
`reset`; `onereg` and `idregs` (registers); `traps`; `power` (the power state); `event_wait` (WFE);
`events` (SError, aborts and guest debug); `exit_types`; `protocols` (the VM and the VMM, as the
vCPU uses them)."""
