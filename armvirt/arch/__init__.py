"""The architecture as data: registers, encodings, syndromes, GIC register maps. The only other
module of armvirt that this package imports is `armvirt.records`."""
