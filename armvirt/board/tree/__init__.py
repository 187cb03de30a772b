"""Device trees: their format, the nodes of a board, and device trees that the user provides."""
