"""The engine whose hooks are Python functions. Unicorn calls these functions through ctypes."""
