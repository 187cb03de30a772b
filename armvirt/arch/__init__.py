"""The architecture as data: registers, encodings, syndromes, GIC register maps. Of armvirt this
package imports only `armvirt.records`."""
