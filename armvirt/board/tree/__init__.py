"""Device trees: the format, and the tree of the board."""
