"""Compare machines whose engine repeats work of EL2 with machines in which EL2 does all the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hyp_tools import GICD, GICR, Asm, Rig

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.hw.engine.state import Stat
from armvirt.hyp.kvm import Stop

PMR, IGRPEN1 = ICC_REGISTERS["ICC_PMR_EL1"], ICC_REGISTERS["ICC_IGRPEN1_EL1"]


def begin(intids: int) -> Asm:
    """A program that has set its vectors, and enabled the private interrupts of the bit mask
    ``intids``, the distributor and the CPU interface. Uses X2 and X3."""
    a = Asm()
    a.set_vectors()
    a.mov(2, GICD)
    a.mov(3, 0x12)
    a.str_w(3, 2, 0)
    a.mov(2, GICR + 0x1_0000)
    a.mov(3, intids)
    a.str_w(3, 2, 0x100)
    a.msr_const(PMR, 0xF0)
    a.msr_const(IGRPEN1, 1)
    return a


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
