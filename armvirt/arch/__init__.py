"""The architecture as data: registers, encodings, syndromes, GIC maps. Imports nothing above
itself."""
