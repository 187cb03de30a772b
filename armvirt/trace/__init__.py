"""Sinks for trace events: hash, JSON lines, terminal timeline."""
