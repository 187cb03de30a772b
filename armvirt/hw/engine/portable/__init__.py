"""The engine whose hooks run in Python through ctypes."""
