"""Polled waits: loops of the guest that read the counter, a timer's ISTATUS or RAM, and have no
effect except that time passes.

A *round* is one iteration of such a loop. `decode` gives the effect of an instruction on intervals
of register values. `loop` evaluates many rounds at once, and finds how many of them take the same
path. This package does not use an engine: `armvirt.hw.engine.waits` calls this package for an
engine. See docs/engine.md, "Polled waits".
"""

LONGEST_ROUND = 512
"""The maximum number of instructions in one iteration of a loop that may be skipped."""

FEWEST_ROUNDS = 8
"""The minimum number of iterations that are skipped at once. If fewer can be skipped, the engine
executes them."""
