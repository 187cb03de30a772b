"""A vCPU: `vcpu` has its state, its power state, vcpu_load and vcpu_put; the other modules have its
registers, events and exits."""
