"""Sinks, which are callables that receive trace events. They make the trace hash, JSON lines, the
timeline, the history of the interrupts, and the table of the last writes of registers."""
