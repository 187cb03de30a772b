"""The engine with its hooks in Python, called through ctypes."""
