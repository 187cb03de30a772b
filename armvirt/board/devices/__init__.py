"""The devices of the board. Each device has a module."""
