"""Polled waits: loops that read the counter, a timer's ISTATUS or memory, without any other effect.

`decode` gives the effect of an instruction on intervals of values, `loop` evaluates one round of a
loop for all its rounds in an interval of time, and finds how many rounds do the same. Nothing here
knows an engine; `armvirt.hw.engine.waits` does. See docs/engine.md, "Polled waits".
"""

LONGEST_ROUND = 512
"""Instructions of a round, at most."""

FEWEST_ROUNDS = 8
"""Fewer rounds are executed."""
