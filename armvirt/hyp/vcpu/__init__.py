"""A vCPU: `vcpu` is its state, power, load and put; the other modules are its registers, events and
exits."""
