"""Sinks for trace events: hash, JSON lines, timeline, history."""
