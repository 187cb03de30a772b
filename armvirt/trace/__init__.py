"""Sinks for trace events: trace hash, JSON lines, timeline, history, last writes of registers."""
