"""Device trees: the format, and trees that the user provides."""
