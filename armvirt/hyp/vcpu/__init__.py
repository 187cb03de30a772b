"""A vCPU: its state, its ioctls, its registers, its events."""
