"""A virtual CPU. The state of a vCPU consists of parts, such as registers, traps and timers. Each
part has its own reset, load, put and saved state. The module `vcpu` has vcpu_load, vcpu_put and the
ioctls of a vCPU. The module `parts` has the base class of a part, and the list of the parts. Each
other module has one subject: `reset`; `onereg` and `idregs` (registers); `traps`; `power` (the
power state); `event_wait` (WFE); `events` (SError, aborts and guest debug); `exit_types`;
`protocols` (the interfaces of the VM and the VMM that a vCPU uses)."""
