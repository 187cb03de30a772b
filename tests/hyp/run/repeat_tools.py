"""Compare machines whose engine repeats work of EL2 with machines in which EL2 does all the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hyp_tools import Rig

from armvirt.hw.engine.state import Stat
from armvirt.hyp.kvm import Stop


def repeats(made: Rig) -> int:
    return sum(int(v.context.engine.state.stats[Stat.REPEAT]) for v in made.vcpus)


def compare(made: Sequence[Rig], until: Iterable[int]) -> None:
    """Run all to the same moments, or to an end; they are the same at each."""
    for moment in until:
        ends = {each.run(moment) for each in made}
        assert len(ends) == 1
        first, *rest = (each.kvm.state() for each in made)
        assert all(first == state for state in rest), moment
        if Stop.HANDLER in ends:
            return
