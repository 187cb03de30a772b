"""The debug information of a guest: symbols from a separate file, and source lines and inlined
functions from DWARF."""
