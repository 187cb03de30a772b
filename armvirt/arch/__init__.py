"""The architecture as data: registers, encodings, syndromes, GIC register maps. This package does
not import the other packages of armvirt that use it."""
