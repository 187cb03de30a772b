"""The architecture as data: registers, encodings, syndromes, GIC register maps. This package
imports no package above it."""
