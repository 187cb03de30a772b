"""What a build leaves for debugging: symbols beside an image, lines and inlined functions of
DWARF."""
