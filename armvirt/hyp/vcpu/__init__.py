"""A virtual CPU. The module `vcpu` has vcpu_load, vcpu_put and the ioctls of a vCPU; `parts` has
the base class of the parts of a vCPU, and their list. Each other module has one subject: reset,
registers (`onereg`, `idregs`), traps, power state, wait in WFE, events, exits."""
